//! One pointer a thread, and being told when the thread ends.
//!
//! On x86_64 Linux the pointer is an initial-exec thread-local of our own: `thread_local!` in a
//! shared object calls `__tls_get_addr` at every access (3 ns, as much as a whole call), and stable
//! Rust has no switch for the TLS model. 8 bytes are far below the static TLS that glibc keeps free
//! for objects loaded by dlopen. It has no destructor; a pthread key has.

use std::ptr::NonNull;

#[cfg(all(target_arch = "x86_64", target_os = "linux", not(any(miri, loom))))]
mod slot {
    std::arch::global_asm!(
        ".pushsection .tbss.callbridge_thread,\"awT\",@nobits",
        ".globl callbridge_thread",
        ".hidden callbridge_thread",
        ".type callbridge_thread,@object",
        ".size callbridge_thread,8",
        ".p2align 3",
        "callbridge_thread:",
        ".zero 8",
        ".popsection",
    );

    #[inline(always)]
    pub(super) fn get() -> *mut () {
        let value;
        // SAFETY: reads this thread's 8 bytes of the symbol above, zero until `set`. `pure` holds
        // because nothing but `set` writes them, and `readonly` orders the two.
        unsafe {
            std::arch::asm!(
                "mov {value}, qword ptr [rip + callbridge_thread@GOTTPOFF]",
                "mov {value}, qword ptr fs:[{value}]",
                value = out(reg) value,
                options(nostack, preserves_flags, pure, readonly),
            );
        }
        value
    }

    pub(super) fn set(pointer: *mut ()) {
        // SAFETY: writes this thread's 8 bytes of the symbol above.
        unsafe {
            std::arch::asm!(
                "mov {at}, qword ptr [rip + callbridge_thread@GOTTPOFF]",
                "mov qword ptr fs:[{at}], {pointer}",
                at = out(reg) _,
                pointer = in(reg) pointer,
                options(nostack, preserves_flags),
            );
        }
    }
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux", not(any(miri, loom)))))]
mod slot {
    use std::cell::Cell;

    std::thread_local! {
        static THREAD: Cell<*mut ()> = const { Cell::new(std::ptr::null_mut()) };
    }

    #[inline]
    pub(super) fn get() -> *mut () {
        THREAD.with(Cell::get)
    }

    pub(super) fn set(pointer: *mut ()) {
        THREAD.with(|slot| slot.set(pointer));
    }
}

/// What this thread has set, if anything.
#[inline(always)]
pub(crate) fn get() -> Option<NonNull<()>> {
    NonNull::new(slot::get())
}

/// Forgets this thread's pointer.
pub(crate) fn clear() {
    slot::set(std::ptr::null_mut());
}

/// A pthread key whose destructor is told of every thread that has set its pointer.
#[derive(Clone, Copy)]
pub(crate) struct ThreadEnd(#[cfg(not(loom))] libc::pthread_key_t);

impl ThreadEnd {
    /// `at_end` gets the pointer that the ending thread has set. Fails with an errno.
    #[cfg(not(loom))]
    pub(crate) fn new(at_end: unsafe extern "C" fn(*mut libc::c_void)) -> Result<Self, i32> {
        let mut key = 0;
        // SAFETY: `at_end` is a function of this library, which is never unmapped (-z nodelete).
        match unsafe { libc::pthread_key_create(&raw mut key, Some(at_end)) } {
            0 => Ok(Self(key)),
            errno => Err(errno),
        }
    }

    /// Forgets the key: another thread's was first.
    #[cfg(not(loom))]
    fn delete(self) {
        // SAFETY: made by `new`, and nobody else knows it.
        unsafe { libc::pthread_key_delete(self.0) };
    }

    /// Sets this thread's pointer. Fails with an errno, and then nothing is set.
    #[cfg(not(loom))]
    pub(crate) fn set(self, pointer: NonNull<()>) -> Result<(), i32> {
        // SAFETY: the key came from pthread_key_create and is never deleted.
        match unsafe { libc::pthread_setspecific(self.0, pointer.as_ptr().cast()) } {
            0 => {
                slot::set(pointer.as_ptr());
                Ok(())
            }
            errno => Err(errno),
        }
    }
}

/// The process's one key, set by whoever comes first.
#[cfg(not(loom))]
pub(crate) struct ThreadEndOnce(crate::sync::AtomicU64);

#[cfg(not(loom))]
impl ThreadEndOnce {
    pub(crate) const fn new() -> Self {
        Self(crate::sync::AtomicU64::new(0))
    }

    pub(crate) fn get(&self) -> Option<ThreadEnd> {
        // Acquire: partner: `set`; what was done before it is done.
        let key = self.0.load(crate::sync::Acquire).checked_sub(1)?;
        Some(ThreadEnd(key as libc::pthread_key_t))
    }

    /// The key that stays.
    pub(crate) fn set(&self, key: ThreadEnd) -> ThreadEnd {
        use crate::sync::{AcqRel, Acquire};
        match self.0.compare_exchange(0, u64::from(key.0) + 1, AcqRel, Acquire) {
            Ok(_) => key,
            Err(first) => {
                key.delete();
                ThreadEnd((first - 1) as libc::pthread_key_t)
            }
        }
    }
}
