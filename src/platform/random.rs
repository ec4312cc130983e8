//! A number that another process does not have.

/// A random number; where the kernel gives none, one of the address layout and the clock.
pub(crate) fn u32() -> u32 {
    #[cfg(any(loom, miri))]
    return 0x5EED;
    #[cfg(not(any(loom, miri)))]
    {
        let mut value = 0u32;
        // A cancellation point, and a thread that ends here has begun something.
        let _not_now = super::cancel::NotNow::begin();
        // SAFETY: writes at most 4 bytes into `value`.
        let got = unsafe {
            libc::getrandom((&raw mut value).cast(), size_of::<u32>(), libc::GRND_NONBLOCK)
        };
        if got == size_of::<u32>() as isize {
            return value;
        }
        let clock = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| since.as_nanos() as u64);
        let mixed =
            (clock ^ (&raw const value).addr() as u64 ^ u64::from(std::process::id()) << 40)
                .wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (mixed >> 32) as u32
    }
}
