//! Sleeping until a number changes: 32 bits of their own, or the upper half of a 64-bit word.

use crate::sync::{AtomicU32, AtomicU64};
use std::time::Instant;

/// What can be slept on: the 32 bits that the kernel compares.
pub(crate) trait Futex {
    #[cfg(not(any(loom, miri)))]
    fn bits(&self) -> *const u32;
}

impl Futex for AtomicU32 {
    #[cfg(not(any(loom, miri)))]
    fn bits(&self) -> *const u32 {
        self.as_ptr()
    }
}

/// The upper half.
impl Futex for AtomicU64 {
    #[cfg(not(any(loom, miri)))]
    fn bits(&self) -> *const u32 {
        let halves = self.as_ptr().cast::<u32>().cast_const();
        if cfg!(target_endian = "little") { halves.wrapping_add(1) } else { halves }
    }
}

/// Sleeps while the bits are `expected`, until a wake-up, the deadline, or for no reason: look again.
#[cfg(not(any(loom, miri)))]
pub(crate) fn wait(futex: &impl Futex, expected: u32, deadline: Option<Instant>) {
    let timeout = match deadline {
        None => None,
        Some(at) => match at.checked_duration_since(Instant::now()) {
            None => return,
            Some(left) => Some(libc::timespec {
                tv_sec: left.as_secs().min(i64::MAX as u64) as libc::time_t,
                tv_nsec: left.subsec_nanos().into(),
            }),
        },
    };
    let timeout = timeout.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: `futex` and `timeout` outlive the call; the kernel only reads them.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            futex.bits(),
            libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG,
            expected,
            timeout,
        )
    };
}

/// Wakes everybody who sleeps on `futex`, whose bits have changed.
#[cfg(not(any(loom, miri)))]
pub(crate) fn wake_all(futex: &impl Futex) {
    // SAFETY: the kernel uses the address as a key only.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            futex.bits(),
            libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG,
            i32::MAX,
        )
    };
}

// Under the model checkers a sleep is a yield: the loops look again either way, and loom reports a
// wait that nothing ends as a livelock.

#[cfg(any(loom, miri))]
pub(crate) fn wait(_futex: &impl Futex, _expected: u32, _deadline: Option<Instant>) {
    crate::sync::spin_hint();
}

#[cfg(any(loom, miri))]
pub(crate) fn wake_all(_futex: &impl Futex) {}
