//! Whether there is memory, for what cannot be asked to do without.

/// Is so much to be had?
pub(crate) fn is_there(bytes: usize) -> bool {
    let mut probe = Vec::<u8>::new();
    let reserved = probe.try_reserve_exact(bytes);
    // What nobody looks at need not be allocated, as far as the compiler knows.
    std::hint::black_box(probe.as_mut_ptr());
    reserved.is_ok()
}
