//! Memory set aside beforehand, for code of others that ends the process where it gets none.
//!
//! What the allocator refuses a thread inside a [`section`] comes out of a reserve, so that the thread gets to
//! the end, where the section has failed. Only the library for C has the allocator that does so (the feature
//! `reserve`, which the CMake build switches on): a Rust program chooses its own.

use crate::error::Error;

/// The most that a section may take.
pub(crate) const MOST: usize = 512 << 10;

/// Runs `body`, which takes at most [`MOST`] bytes.
#[cfg(not(feature = "reserve"))]
pub(crate) fn section<T>(body: impl FnOnce() -> T) -> Result<T, Error> {
    let mut probe = Vec::<u8>::new();
    probe.try_reserve_exact(MOST).map_err(|_| Error::NoMemory)?;
    // What nobody looks at need not be allocated, as far as the compiler knows.
    std::hint::black_box(probe.as_mut_ptr());
    drop(probe);
    Ok(body())
}

#[cfg(not(feature = "reserve"))]
pub(crate) fn after_fork_in_child() {}

#[cfg(feature = "reserve")]
pub(crate) use with_allocator::{after_fork_in_child, section};

#[cfg(feature = "reserve")]
mod with_allocator {
    use super::{Error, MOST};
    use std::alloc::{GlobalAlloc, Layout, System};
    use std::cell::UnsafeCell;
    use std::ptr;
    // Not by the door to atomics: no model has an allocator.
    use std::sync::atomic::AtomicUsize;
    use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

    /// As many sections as there may be at once; others wait.
    const SECTIONS: usize = 4;
    /// How often they look.
    const LOOKS: usize = 10_000;
    const ALIGN: usize = 16;

    /// Pages that cost nothing until they are touched.
    static RESERVES: [Reserve; SECTIONS] = [const { Reserve::NEW }; SECTIONS];

    #[repr(C, align(64))]
    struct Reserve {
        memory: UnsafeCell<[u8; MOST]>,
        /// Who is inside, by pthread_self; 0: nobody.
        owner: AtomicUsize,
        /// So much has been given to the owner since the section began. Written by the owner alone.
        used: AtomicUsize,
    }

    // Blocks are aligned as their places in it are.
    const _: () = assert!(std::mem::offset_of!(Reserve, memory) == 0 && ALIGN <= 64);

    // SAFETY: the memory is its owner's, from one exchange of `owner` to the next.
    unsafe impl Sync for Reserve {}

    impl Reserve {
        #[allow(clippy::declare_interior_mutable_const, reason = "an initial value")]
        const NEW: Self = Self {
            memory: UnsafeCell::new([0; MOST]),
            owner: AtomicUsize::new(0),
            used: AtomicUsize::new(0),
        };

        /// By its owner.
        fn give(&self, layout: Layout) -> *mut u8 {
            // Relaxed: the owner's.
            let begin = self.used.load(Relaxed).next_multiple_of(ALIGN);
            let end = begin.saturating_add(layout.size());
            if layout.align() > ALIGN || end > MOST {
                return ptr::null_mut();
            }
            self.used.store(end, Relaxed);
            // SAFETY: inside the memory, which is the owner's.
            unsafe { self.memory.get().cast::<u8>().add(begin) }
        }
    }

    /// See [`super`].
    pub(crate) fn section<T>(body: impl FnOnce() -> T) -> Result<T, Error> {
        let reserve = take().ok_or(Error::NoMemory)?;
        struct Inside(&'static Reserve);
        impl Drop for Inside {
            fn drop(&mut self) {
                self.0.used.store(0, Relaxed);
                // Release: partner: the exchange in `take`.
                self.0.owner.store(0, Release);
            }
        }
        let _inside = Inside(reserve);
        let done = body();
        // Relaxed: this thread's.
        if reserve.used.load(Relaxed) == 0 {
            return Ok(done);
        }
        // Parts of it may lie in the reserve, which serves others from now on.
        drop(done);
        Err(Error::NoMemory)
    }

    fn take() -> Option<&'static Reserve> {
        let thread = this_thread();
        for _ in 0..LOOKS {
            // Acquire: partner: the store at a section's end.
            let is_free =
                |it: &&Reserve| it.owner.compare_exchange(0, thread, Acquire, Relaxed).is_ok();
            if let Some(reserve) = RESERVES.iter().find(is_free) {
                return Some(reserve);
            }
            std::thread::yield_now();
        }
        None
    }

    /// In the child of a fork: the other threads do not exist, and a later one may have the number of one that was
    /// inside.
    pub(crate) fn after_fork_in_child() {
        let thread = this_thread();
        // Relaxed: there is one thread.
        for reserve in RESERVES.iter().filter(|it| it.owner.load(Relaxed) != thread) {
            reserve.used.store(0, Relaxed);
            reserve.owner.store(0, Relaxed);
        }
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

    fn is_of_a_reserve(block: *mut u8) -> bool {
        block.addr().wrapping_sub((&raw const RESERVES).addr()) < size_of_val(&RESERVES)
    }

    // SAFETY: every block is the system's, or a part of a reserve that nothing else has until its section ends,
    // when its thread has given all of them back. Which of them, the address tells.
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
            if !is_of_a_reserve(block) {
                // SAFETY: the caller's promise, and it is the system's.
                unsafe { System.dealloc(block, layout) };
            }
        }

        unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
            // SAFETY: the caller's promise: the size is not too large for the alignment.
            let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
            let moved = if is_of_a_reserve(block) {
                // SAFETY: as above.
                unsafe { self.alloc(wanted) }
            } else {
                // SAFETY: the caller's promise, and it is the system's.
                let moved = unsafe { System.realloc(block, layout, size) };
                if !moved.is_null() {
                    return moved;
                }
                refused(wanted)
            };
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
