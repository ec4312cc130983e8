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
    /// 1: registrations need a closer look, because of the level, or because their stacks are kept.
    registrations: AtomicU32,
    /// 1: they are.
    stacks: AtomicU32,
    /// What is done about what is left at the process's end: a [`LeakCheck`] as a number.
    leaks: AtomicU32,
}

/// What is done at the process's end about what is live then.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LeakCheck {
    Off,
    /// It is reported.
    Report,
    /// And the process exits with this code.
    ExitWith(u8),
}

impl LeakCheck {
    /// As `CALLBRIDGE_LEAK_CHECK` has it.
    fn parse(text: &str) -> Option<Self> {
        match text {
            "0" => Some(Self::Off),
            "1" => Some(Self::Report),
            _ => match text.strip_prefix("exit:")?.parse().ok()? {
                0 => None,
                code => Some(Self::ExitWith(code)),
            },
        }
    }

    fn to_number(self) -> u32 {
        match self {
            Self::Off => 0,
            Self::Report => 1,
            Self::ExitWith(code) => 1 << 8 | u32::from(code),
        }
    }

    fn from_number(number: u32) -> Self {
        match number {
            0 => Self::Off,
            1 => Self::Report,
            number => Self::ExitWith(number as u8),
        }
    }
}

const THOROUGH: u32 = Level::Thorough as u32 + 1;

impl Check {
    #[cfg(not(loom))]
    pub(crate) const fn new() -> Self {
        Self {
            level: AtomicU32::new(0),
            slow_ms: AtomicU64::new(SLOW),
            registrations: AtomicU32::new(0),
            stacks: AtomicU32::new(0),
            leaks: AtomicU32::new(0),
        }
    }
    #[cfg(loom)]
    pub(crate) fn new() -> Self {
        Self {
            level: AtomicU32::new(0),
            slow_ms: AtomicU64::new(SLOW),
            registrations: AtomicU32::new(0),
            stacks: AtomicU32::new(0),
            leaks: AtomicU32::new(0),
        }
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

    /// Does a registration need a closer look?
    #[inline(always)]
    pub(crate) fn looks_at_registrations(&self) -> bool {
        self.registrations.load(Relaxed) != 0
    }

    /// Are the stacks of registrations kept?
    pub(crate) fn keeps_stacks(&self) -> bool {
        self.stacks.load(Relaxed) != 0
    }

    pub(crate) fn leak_check(&self) -> LeakCheck {
        LeakCheck::from_number(self.leaks.load(Relaxed))
    }

    /// The level has changed, or whether stacks are kept.
    pub(super) fn choose_registrations(&self) {
        let closely = self.is_thorough() || self.keeps_stacks();
        self.registrations.store(closely.into(), Relaxed);
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
        read(c"CALLBRIDGE_LEAK_CHECK", "0, 1 or exit:CODE with a code of 1 to 255", |text| {
            let check = LeakCheck::parse(text)?;
            self.check.leaks.store(check.to_number(), Relaxed);
            self.check.stacks.store((check != LeakCheck::Off).into(), Relaxed);
            Some(())
        });
        // Said on its own it holds, whatever the other variable says.
        read(c"CALLBRIDGE_STACKS", "0 or 1", |text| {
            self.check.stacks.store(["0", "1"].iter().position(|it| *it == text)? as u32, Relaxed);
            Some(())
        });
        self.check.choose_registrations();
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
        self.change_observers(|| {
            self.check.level.store(level as u32 + 1, Relaxed);
            self.check.choose_registrations();
        });
    }
}

/// Gives the variable's value, if it is set, to `take`, which says whether it is what it should be.
fn read(name: &CStr, what: &str, take: impl FnOnce(&str) -> Option<()>) {
    let Some(value) = environment::variable(name) else { return };
    if value.to_str().ok().map(str::trim).and_then(take).is_none() {
        logging::warn(format_args!("{name:?}={value:?} is not {what}: ignored"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leak_check_is_what_the_variable_says() {
        for (text, check) in [
            ("0", LeakCheck::Off),
            ("1", LeakCheck::Report),
            ("exit:1", LeakCheck::ExitWith(1)),
            ("exit:23", LeakCheck::ExitWith(23)),
            ("exit:255", LeakCheck::ExitWith(255)),
        ] {
            assert_eq!(LeakCheck::parse(text), Some(check), "{text}");
            assert_eq!(LeakCheck::from_number(check.to_number()), check);
        }
        for text in ["", "2", "exit", "exit:", "exit:0", "exit:256", "exit:-1", "exit: 3", "yes"] {
            assert_eq!(LeakCheck::parse(text), None, "{text}");
        }
    }
}
