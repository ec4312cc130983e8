//! A clock that only goes forward.

/// Milliseconds since some moment.
pub(crate) fn milliseconds() -> u64 {
    nanoseconds() / 1_000_000
}

/// Nanoseconds since 1970.
#[cfg(not(loom))]
pub(crate) fn since_1970() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |since| since.as_nanos() as u64)
}

/// A cheap time: ticks of the processor's counter where it has one that all processors share, else
/// nanoseconds. What [`when`] makes of it is good to some ten nanoseconds.
#[inline(always)]
pub(crate) fn ticks() -> u64 {
    #[cfg(all(target_arch = "x86_64", not(any(loom, miri))))]
    if has_steady_counter() {
        // SAFETY: every x86_64 has it.
        return unsafe { std::arch::x86_64::_rdtsc() };
    }
    nanoseconds()
}

/// The time in ticks, and the same in nanoseconds.
pub(crate) fn pair() -> (u64, u64) {
    // Of some tries the one that was interrupted least between its two looks.
    let tries = (0..8).map(|_| {
        let (before, now_ns, after) = (ticks(), nanoseconds(), ticks());
        (after.wrapping_sub(before), (before + (after.wrapping_sub(before)) / 2, now_ns))
    });
    tries.min_by_key(|(between, _)| *between).map_or((0, 0), |(_, pair)| pair)
}

/// The moment, in nanoseconds, when `ticks` gave `then`. `known`: such a pair of some time before.
pub(crate) fn when(then: u64, known: (u64, u64)) -> u64 {
    let now = pair();
    now.1.saturating_sub(between(then, now, known))
}

/// The nanoseconds from when `ticks` gave `then` until `now`, a time in ticks and the same in nanoseconds, as
/// `known` is of some time before.
pub(crate) fn between(then: u64, now: (u64, u64), known: (u64, u64)) -> u64 {
    let (ticks_between, ns_between) =
        (now.0.saturating_sub(known.0), now.1.saturating_sub(known.1));
    if ticks_between == 0 {
        return 0;
    }
    let ticks = u128::from(now.0.saturating_sub(then));
    (ticks * u128::from(ns_between) / u128::from(ticks_between)) as u64
}

/// Does the counter go at one speed, whatever the processor does? (AMD's and Intel's manuals: bit 8 of
/// EDX of leaf 0x8000_0007.)
#[cfg(all(target_arch = "x86_64", not(any(loom, miri))))]
#[inline(always)]
fn has_steady_counter() -> bool {
    use crate::sync::{AtomicU32, Relaxed};
    const YES: u32 = 1;
    const NO: u32 = 2;
    static KNOWN: AtomicU32 = AtomicU32::new(0);
    // Relaxed: everybody finds the same.
    match KNOWN.load(Relaxed) {
        0 => {
            use std::arch::x86_64::__cpuid;
            let steady =
                __cpuid(0x8000_0000).eax >= 0x8000_0007 && __cpuid(0x8000_0007).edx & (1 << 8) != 0;
            KNOWN.store(if steady { YES } else { NO }, Relaxed);
            steady
        }
        known => known == YES,
    }
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
