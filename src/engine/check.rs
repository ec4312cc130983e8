//! How much is checked: `cbr_set_check`.

use super::Engine;
use super::handle::{Handle, Kind};
use super::slot::{Mark, Phase, SPECIAL, Word};
use crate::platform::{clock, environment, logging};
use crate::sync::{AcqRel, Acquire, AtomicU32, AtomicU64, Relaxed, Release, TotalOrder, spin_hint};
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
    /// 1 while somebody sets the level.
    busy: AtomicU32,
}

const THOROUGH: u32 = Level::Thorough as u32 + 1;

impl Check {
    #[cfg(not(loom))]
    pub(crate) const fn new() -> Self {
        Self { level: AtomicU32::new(0), slow_ms: AtomicU64::new(SLOW), busy: AtomicU32::new(0) }
    }
    #[cfg(loom)]
    pub(crate) fn new() -> Self {
        Self { level: AtomicU32::new(0), slow_ms: AtomicU64::new(SLOW), busy: AtomicU32::new(0) }
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

    /// What new callbacks have in their mark because of the level.
    #[inline(always)]
    pub(crate) fn bits(&self) -> u64 {
        if self.is_thorough() { SPECIAL } else { 0 }
    }

    /// In the child of a fork: whoever set the level does not exist.
    pub(super) fn reset(&self) {
        self.busy.store(0, Relaxed);
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

    /// From now on, also for the callbacks that there are. One that is being registered at this very
    /// moment may be missed.
    pub(crate) fn set_check_level(&self, level: Level) {
        // One at a time, or the callbacks might get what one says and the level what the other says.
        // AcqRel: acquire, partner: the store at the end.
        while self.check.busy.compare_exchange(0, 1, AcqRel, Relaxed).is_err() {
            spin_hint();
        }
        self.check.level.store(level as u32 + 1, Relaxed);
        let bits = self.check.bits();
        for (index, slot) in self.slots.iter() {
            // Acquire: partner: register, for what is read of the callback's scope.
            let word = Word(slot.word.load(Acquire));
            if word.in_phase(Phase::Live) {
                let handle = Handle::new(word.generation(), Kind::Callback, index);
                self.change_bits(slot, handle, bits);
            }
        }
        if bits != 0 {
            // Threads that call without a look at the mark look from now on; partner: `begin_bias`.
            self.records.iter().for_each(super::Record::suspend_bias);
        }
        self.check.busy.store(0, Release);
    }

    /// Makes the callback special, or, if nothing else does, plain.
    fn change_bits(&self, slot: &super::Slot, handle: Handle, bits: u64) {
        let scope = self.scope_of(handle);
        let has_hooks = self.find_scope(scope).is_some_and(|scope| scope.attach().is_some())
            || self.home_of(handle).0 != 0;
        let mut mark = Mark(slot.mark.load_sc());
        while mark.belongs_to(handle) {
            let new = match bits == 0 && !has_hooks {
                true => mark.ignoring(SPECIAL),
                false => mark.with(SPECIAL),
            };
            // A mark that is still of this generation says that what we read of the scope was right.
            match slot.mark.cas_sc(mark.0, new.0) {
                Ok(_) => return,
                Err(current) => mark = Mark(current),
            }
        }
    }
}

/// Gives the variable's value, if it is set, to `take`, which says whether it is what it should be.
fn read(name: &CStr, what: &str, take: impl FnOnce(&str) -> Option<()>) {
    let Some(value) = environment::variable(name) else { return };
    if value.to_str().ok().map(str::trim).and_then(take).is_none() {
        logging::warn(|| format!("{name:?}={value:?} is not {what}: ignored"));
    }
}
