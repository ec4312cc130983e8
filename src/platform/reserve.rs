//! Memory set aside beforehand, for code of others that ends the process where it gets none.
//!
//! A [`section`] asks for so much, or is refused, before anything is done. What the allocator refuses the
//! thread inside it comes out of that. Only the library for C has the allocator that does so (the feature
//! `reserve`, which the CMake build switches on): a Rust program chooses its own.

use super::memory;
use crate::error::Error;

/// Runs `body`, which takes at most `bytes` of memory.
#[cfg(not(feature = "reserve"))]
pub(crate) fn section<T>(bytes: usize, body: impl FnOnce() -> T) -> Result<T, Error> {
    if !memory::is_there(bytes) {
        return Err(Error::NoMemory);
    }
    Ok(body())
}

#[cfg(feature = "reserve")]
pub(crate) use with_allocator::section;

#[cfg(feature = "reserve")]
mod with_allocator {
    use super::{Error, memory};
    use std::alloc::{GlobalAlloc, Layout, System};
    use std::ptr;
    // Not by the door to atomics: no model has an allocator.
    use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
    use std::sync::atomic::{AtomicPtr, AtomicUsize};

    /// As many sections as there may be at once; another one is run as without the allocator.
    const SECTIONS: usize = 4;
    const ALIGN: usize = 16;

    static RESERVES: [Reserve; SECTIONS] = [const { Reserve::NONE }; SECTIONS];

    /// The memory of one section, given out from its beginning to its end. It goes when the section is over
    /// and all that was given out has come back.
    struct Reserve {
        /// Who is inside, by pthread_self; 0: nobody.
        owner: AtomicUsize,
        base: AtomicPtr<u8>,
        len: AtomicUsize,
        used: AtomicUsize,
        /// What is given out, and the section; 0: the place is free.
        live: AtomicUsize,
    }

    impl Reserve {
        #[allow(clippy::declare_interior_mutable_const, reason = "an initial value")]
        const NONE: Self = Self {
            owner: AtomicUsize::new(0),
            base: AtomicPtr::new(ptr::null_mut()),
            len: AtomicUsize::new(0),
            used: AtomicUsize::new(0),
            live: AtomicUsize::new(0),
        };

        fn layout(bytes: usize) -> Option<Layout> {
            Layout::from_size_align(bytes, ALIGN).ok()
        }

        /// Only by the thread inside.
        fn give(&self, layout: Layout) -> *mut u8 {
            // Relaxed: written by this thread.
            let (base, len, used) =
                (self.base.load(Relaxed), self.len.load(Relaxed), self.used.load(Relaxed));
            let begin = used.next_multiple_of(ALIGN);
            let end = begin.saturating_add(layout.size());
            if layout.align() > ALIGN || end > len {
                return ptr::null_mut();
            }
            self.used.store(end, Relaxed);
            self.live.fetch_add(1, Relaxed);
            // SAFETY: inside the reserve.
            unsafe { base.add(begin) }
        }

        fn holds(&self, block: *mut u8) -> bool {
            // Acquire: partner: the store in `section`. Whoever asks about a block of ours has seen it, or
            // got the block from who has.
            let base = self.base.load(Acquire);
            !base.is_null() && block.addr().wrapping_sub(base.addr()) < self.len.load(Relaxed)
        }

        /// One user less; the last one frees it.
        fn take_back(&self) {
            // AcqRel: what others have done with their blocks is done.
            if self.live.fetch_sub(1, AcqRel) != 1 {
                return;
            }
            let (base, len) = (self.base.load(Relaxed), self.len.load(Relaxed));
            // Before it goes: who gets the memory next must not find it here. Relaxed: the system's allocator
            // hands it over.
            self.base.store(ptr::null_mut(), Relaxed);
            if let Some(layout) = Self::layout(len) {
                // SAFETY: allocated by `section` with this layout, and nobody uses it any more.
                unsafe { System.dealloc(base, layout) };
            }
            // Release: partner: the exchange in `section`.
            self.len.store(0, Release);
        }
    }

    /// See [`super`].
    pub(crate) fn section<T>(bytes: usize, body: impl FnOnce() -> T) -> Result<T, Error> {
        let layout = Reserve::layout(bytes).ok_or(Error::NoMemory)?;
        // Acquire: partner: the store in `take_back`.
        let is_free = |it: &&Reserve| it.len.compare_exchange(0, bytes, Acquire, Relaxed).is_ok();
        let Some(reserve) = RESERVES.iter().find(is_free) else {
            return if memory::is_there(bytes) { Ok(body()) } else { Err(Error::NoMemory) };
        };
        // SAFETY: not of size 0, which would be a free place.
        let base = unsafe { System.alloc(layout) };
        if base.is_null() {
            reserve.len.store(0, Release);
            return Err(Error::NoMemory);
        }
        reserve.used.store(0, Relaxed);
        reserve.live.store(1, Relaxed);
        // Release: partner: the load in `holds`.
        reserve.base.store(base, Release);
        reserve.owner.store(this_thread(), Relaxed);
        struct Inside(&'static Reserve);
        impl Drop for Inside {
            fn drop(&mut self) {
                self.0.owner.store(0, Relaxed);
                self.0.take_back();
            }
        }
        let inside = Inside(reserve);
        let done = body();
        drop(inside);
        Ok(done)
    }

    fn this_thread() -> usize {
        // SAFETY: has no preconditions.
        (unsafe { libc::pthread_self() }) as usize
    }

    /// The system's, and the reserves behind it.
    struct Allocator;

    #[global_allocator]
    static ALLOCATOR: Allocator = Allocator;

    #[cold]
    fn refused(layout: Layout) -> *mut u8 {
        let thread = this_thread();
        // Relaxed: this thread's own stores.
        let mine = RESERVES.iter().find(|it| it.owner.load(Relaxed) == thread);
        mine.map_or(ptr::null_mut(), |reserve| reserve.give(layout))
    }

    fn reserve_of(block: *mut u8) -> Option<&'static Reserve> {
        RESERVES.iter().find(|reserve| reserve.holds(block))
    }

    // SAFETY: every block is the system's, or a part of a reserve that nothing else has and that stays as long
    // as the block; which of them, its address tells.
    unsafe impl GlobalAlloc for Allocator {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            // SAFETY: the caller's promise.
            let block = unsafe { System.alloc(layout) };
            if block.is_null() { refused(layout) } else { block }
        }

        unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
            // SAFETY: the caller's promise.
            let mut block = unsafe { System.alloc_zeroed(layout) };
            if block.is_null() {
                block = refused(layout);
                if !block.is_null() {
                    // SAFETY: a block of this size.
                    unsafe { block.write_bytes(0, layout.size()) };
                }
            }
            block
        }

        unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
            match reserve_of(block) {
                // SAFETY: the caller's promise, and it is none of ours.
                None => unsafe { System.dealloc(block, layout) },
                Some(reserve) => reserve.take_back(),
            }
        }

        unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
            let mine = reserve_of(block).is_some();
            if !mine {
                // SAFETY: the caller's promise, and it is none of ours.
                let moved = unsafe { System.realloc(block, layout, size) };
                if !moved.is_null() {
                    return moved;
                }
            }
            // SAFETY: the caller's promise: the size is not too large for the alignment.
            let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
            // SAFETY: as above.
            let moved = if mine { unsafe { self.alloc(wanted) } } else { refused(wanted) };
            if !moved.is_null() {
                // SAFETY: two blocks with room for that, and the old one is the caller's.
                unsafe {
                    moved.copy_from_nonoverlapping(block, layout.size().min(size));
                    self.dealloc(block, layout);
                }
            }
            moved
        }
    }
}
