//! Where callbacks were registered: each stack once, however many callbacks it has registered. Kept for
//! good, so that whoever has one may read it at any time.

use crate::platform::stack::{self, MAX_FRAMES};
use crate::sync::{AcqRel, Acquire, Relaxed};
use std::alloc::Layout;
// Not loom's: a model registers nothing closely.
use std::sync::atomic::{AtomicPtr, AtomicU32};

/// Stacks that are kept, at most; further ones are left out. 18 MB.
const MAX: u32 = 1 << 16;
const BUCKETS: usize = 4096;

/// One stack: return addresses, the innermost first.
#[repr(C)]
pub(crate) struct Stack {
    /// Another one of the same bucket, or null.
    chain: *const Stack,
    hash: u64,
    len: usize,
    // … and so many addresses.
}

// SAFETY: constant once it is published; `chain` is a stack for good, too.
unsafe impl Sync for Stack {}

const HEADER: usize = size_of::<Stack>();

impl Stack {
    pub(crate) fn frames(&self) -> &[u64] {
        // SAFETY: `Stacks::keep` has made room for as many, and written them.
        unsafe {
            let first = std::ptr::from_ref(self).byte_add(HEADER).cast::<u64>();
            std::slice::from_raw_parts(first, self.len)
        }
    }
}

struct Stacks {
    buckets: [AtomicPtr<Stack>; BUCKETS],
    count: AtomicU32,
}

static STACKS: Stacks = Stacks {
    buckets: [const { AtomicPtr::new(std::ptr::null_mut()) }; BUCKETS],
    count: AtomicU32::new(0),
};

/// Where the function `entry` of the library, which is being called on this thread, was called from: the
/// whole stack, or the place alone. None: it does not show, or there is no room for it.
pub(crate) fn of_caller(entry: *const (), whole: bool) -> Option<&'static Stack> {
    let frames = stack::behind(entry, if whole { MAX_FRAMES } else { 1 });
    if !whole && !frames.found {
        return None;
    }
    STACKS.keep(frames.as_slice())
}

impl Stacks {
    fn keep(&'static self, frames: &[u64]) -> Option<&'static Stack> {
        if frames.is_empty() {
            return None;
        }
        // FNV-1a, a word at a time, and its better half.
        let hash = frames.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, frame| {
            (hash ^ frame).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(29)
        });
        let bucket = &self.buckets[(hash >> 40) as usize % BUCKETS];
        // Acquire: partner: the exchange below.
        let mut first = bucket.load(Acquire);
        let mut seen = std::ptr::null();
        let mut made = None;
        loop {
            if let Some(found) = Self::find(first, seen, hash, frames) {
                if let Some((memory, layout)) = made {
                    // SAFETY: allocated below with this layout, and nobody has seen it.
                    unsafe { std::alloc::dealloc(memory, layout) };
                    self.count.fetch_sub(1, Relaxed);
                }
                return Some(found);
            }
            seen = first.cast_const();
            let (memory, layout) = match made {
                Some(made) => made,
                None => self.allocate(frames.len())?,
            };
            made = Some((memory, layout));
            let stack = memory.cast::<Stack>();
            // SAFETY: there is room for it and the frames, and nobody else has it yet.
            unsafe {
                stack.write(Stack { chain: first, hash, len: frames.len() });
                std::ptr::copy_nonoverlapping(
                    frames.as_ptr(),
                    stack.byte_add(HEADER).cast(),
                    frames.len(),
                );
            }
            // AcqRel: partner: the loads of who looks for one.
            match bucket.compare_exchange(first, stack, AcqRel, Acquire) {
                // SAFETY: just written, and never freed.
                Ok(_) => return Some(unsafe { &*stack }),
                Err(now) => first = now,
            }
        }
    }

    /// One with these frames, between `first` and `seen`.
    fn find(
        first: *const Stack,
        seen: *const Stack,
        hash: u64,
        frames: &[u64],
    ) -> Option<&'static Stack> {
        let mut next = first;
        while next != seen {
            // SAFETY: null, which `seen` or the end is, or a stack, which is never freed.
            let stack = unsafe { next.as_ref() }?;
            if stack.hash == hash && stack.frames() == frames {
                return Some(stack);
            }
            next = stack.chain;
        }
        None
    }

    fn allocate(&self, frames: usize) -> Option<(*mut u8, Layout)> {
        // Relaxed: a limit.
        if self.count.fetch_add(1, Relaxed) >= MAX {
            self.count.fetch_sub(1, Relaxed);
            return None;
        }
        let layout = Layout::from_size_align(HEADER + 8 * frames, align_of::<Stack>()).ok()?;
        // SAFETY: the layout is not empty.
        let memory = unsafe { std::alloc::alloc(layout) };
        if memory.is_null() {
            self.count.fetch_sub(1, Relaxed);
            return None;
        }
        Some((memory, layout))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_stack_is_kept_once_by_any_number_of_threads() {
        let stacks: Vec<Vec<u64>> = (0..100).map(|first| (first..first + 5).collect()).collect();
        let keep_all = || -> Vec<usize> {
            let keep = |frames: &Vec<u64>| std::ptr::from_ref(STACKS.keep(frames).unwrap()).addr();
            stacks.iter().map(keep).collect()
        };
        let all: Vec<Vec<usize>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(keep_all)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(all.iter().all(|one| *one == all[0]));
        let mut different = all[0].clone();
        different.sort_unstable();
        different.dedup();
        assert_eq!(different.len(), stacks.len());
        assert_eq!(STACKS.keep(&stacks[7]).unwrap().frames(), stacks[7]);
        assert!(STACKS.keep(&[]).is_none());
    }

    #[test]
    fn stacks_beyond_the_limit_are_left_out() {
        static FULL: Stacks = Stacks {
            buckets: [const { AtomicPtr::new(std::ptr::null_mut()) }; BUCKETS],
            count: AtomicU32::new(MAX - 1),
        };
        assert!(FULL.keep(&[1]).is_some());
        assert!(FULL.keep(&[2]).is_none());
        assert!(FULL.keep(&[1]).is_some());
    }
}
