//! What the processor can be told of the memory that will be used.

/// `place` will soon be written here: has its cache line come, for this processor alone.
#[inline(always)]
pub(crate) fn prefetch_for_write<T>(place: &T) {
    // Elsewhere the processor has to find out by itself. (A processor without PREFETCHW does nothing.)
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: a hint, which changes nothing that a program can see.
    unsafe {
        std::arch::asm!("prefetchw [{}]", in(reg) place, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = place;
}
