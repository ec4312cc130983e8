//! How much is checked: `cbr_set_check`.

use super::Engine;
use crate::platform::{clock, environment, logging};
use crate::sync::{AtomicU32, AtomicU64, Relaxed};
use std::ffi::CStr;

/// Milliseconds from which on a call is slow, if the environment does not say.
const SLOW: u64 = 100;

/// What a level includes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub(crate) enum Level {
    /// Handles only.
    Handles = 0,
    /// What costs nothing.
    Default = 1,
    /// Also what costs something: what functions are, and how long they take.
    Thorough = 2,
}

impl Level {
    pub(crate) fn from_number(number: u32) -> Option<Self> {
        [Self::Handles, Self::Default, Self::Thorough].into_iter().find(|it| *it as u32 == number)
    }
}

/// The level in force.
pub(crate) struct Check {
    /// The level plus 1; 0: nobody has said, so it is the default.
    level: AtomicU32,
    slow_ms: AtomicU64,
}

const THOROUGH: u32 = Level::Thorough as u32 + 1;

impl Check {
    #[cfg(not(loom))]
    pub(crate) const fn new() -> Self {
        Self { level: AtomicU32::new(0), slow_ms: AtomicU64::new(SLOW) }
    }
    #[cfg(loom)]
    pub(crate) fn new() -> Self {
        Self { level: AtomicU32::new(0), slow_ms: AtomicU64::new(SLOW) }
    }

    // Relaxed in what follows: each number stands alone, and a level holds from about now on.

    /// Is a signature that the host states not compared?
    pub(crate) fn is_handles_only(&self) -> bool {
        self.level.load(Relaxed) == Level::Handles as u32 + 1
    }

    #[inline(always)]
    pub(crate) fn is_thorough(&self) -> bool {
        self.level.load(Relaxed) == THOROUGH
    }

    /// When a call began, if somebody wants to know how long it takes.
    pub(crate) fn begin(&self) -> Option<u64> {
        self.is_thorough().then(clock::nanoseconds)
    }

    /// How many milliseconds it took, if that was long.
    pub(crate) fn took_long(&self, began: u64) -> Option<u64> {
        let took = (clock::nanoseconds() - began) / 1_000_000;
        (took >= self.slow_ms.load(Relaxed)).then_some(took)
    }
}

impl Engine {
    /// As the environment says, at the process's first use of the library.
    pub(crate) fn read_check_level(&self) {
        read(c"CALLBRIDGE_SLOW_MS", "a number of milliseconds", |text| {
            self.check.slow_ms.store(text.parse().ok()?, Relaxed);
            Some(())
        });
        read(c"CALLBRIDGE_CHECK", "0, 1 or 2", |text| {
            let level = Level::from_number(text.parse().ok()?)?;
            // Another thread's first use may have come first, and the host have set the level since.
            if self.check.level.load(Relaxed) == 0 {
                self.set_check_level(level);
            }
            Some(())
        });
    }

    /// From now on, also for the callbacks that there are.
    pub(crate) fn set_check_level(&self, level: Level) {
        self.change_observers(|| self.check.level.store(level as u32 + 1, Relaxed));
    }
}

/// Gives the variable's value, if it is set, to `take`, which says whether it is what it should be.
fn read(name: &CStr, what: &str, take: impl FnOnce(&str) -> Option<()>) {
    let Some(value) = environment::variable(name) else { return };
    if value.to_str().ok().map(str::trim).and_then(take).is_none() {
        logging::warn(|| format!("{name:?}={value:?} is not {what}: ignored"));
    }
}
