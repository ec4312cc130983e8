//! Sleeping until the upper half of a 64-bit word changes.

use crate::sync::AtomicU64;
use std::time::Instant;

/// The futex: 32 bits are all that the kernel compares.
#[cfg(not(any(loom, miri)))]
fn upper_half(word: &AtomicU64) -> *const u32 {
    let halves = word.as_ptr().cast::<u32>().cast_const();
    if cfg!(target_endian = "little") { halves.wrapping_add(1) } else { halves }
}

/// Sleeps while the upper half of `word` is `expected`, until a wake-up, the deadline, or for no
/// reason: look again.
#[cfg(not(any(loom, miri)))]
pub(crate) fn wait(word: &AtomicU64, expected: u32, deadline: Option<Instant>) {
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
    // SAFETY: `word` and `timeout` outlive the call; the kernel only reads them.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            upper_half(word),
            libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG,
            expected,
            timeout,
        )
    };
}

/// Wakes everybody who sleeps on `word`, whose upper half has changed.
#[cfg(not(any(loom, miri)))]
pub(crate) fn wake_all(word: &AtomicU64) {
    // SAFETY: the kernel uses the address as a key only.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            upper_half(word),
            libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG,
            i32::MAX,
        )
    };
}

// Under the model checkers a sleep is a yield: the loops look again either way, and loom reports a
// wait that nothing ends as a livelock.

#[cfg(any(loom, miri))]
pub(crate) fn wait(_word: &AtomicU64, _expected: u32, _deadline: Option<Instant>) {
    crate::sync::spin_hint();
}

#[cfg(any(loom, miri))]
pub(crate) fn wake_all(_word: &AtomicU64) {}
