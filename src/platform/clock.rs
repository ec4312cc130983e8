//! A clock that only goes forward.

/// Milliseconds since some moment.
pub(crate) fn milliseconds() -> u64 {
    nanoseconds() / 1_000_000
}

/// Nanoseconds since the same moment.
pub(crate) fn nanoseconds() -> u64 {
    #[cfg(any(loom, miri))]
    return 0;
    #[cfg(not(any(loom, miri)))]
    {
        let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: writes into `now`.
        unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
        now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
    }
}
