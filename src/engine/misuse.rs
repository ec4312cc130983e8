//! A line of the log for what a host has done wrong, and was kept from harm.

use super::census::NameCopy;
use super::cold::{Cold, Named};
use super::handle::{Handle, Kind};
use super::message::Lossy;
use super::record::Record;
use super::{Engine, ghosts};
use crate::error::Error;
use crate::platform::clock;
use crate::platform::logging::{self, Level};
use crate::sync::{AtomicU32, AtomicU64, Relaxed};

/// The level of the line for a call of `function` that is refused, if there is one.
fn level(function: &str, error: Error) -> Option<Level> {
    match error {
        // How an owner learns that there is nothing left to do.
        Error::Stale
            if matches!(
                function,
                "cbr_release" | "cbr_unregister_wait" | "cbr_queue_dispatch" | "cbr_scope_close"
            ) =>
        {
            Some(Level::Debug)
        }
        Error::Null
        | Error::Stale
        | Error::Invalid(_)
        | Error::Kind
        | Error::Signature { .. }
        | Error::Thread { .. }
        | Error::Deadlock
        | Error::Limit(_)
        | Error::Unsupported(_) => Some(Level::Warn),
        Error::NoMemory | Error::System { .. } => Some(Level::Error),
        // Answers.
        Error::Timeout
        | Error::Full
        | Error::Empty
        | Error::Closed
        | Error::Exists
        | Error::NotFound
        | Error::Callback
        | Error::Panic => None,
    }
}

impl Engine {
    /// `function` has refused what it was called for.
    pub(crate) fn log_refused(
        &self,
        record: &Record,
        function: &'static str,
        handle: Handle,
        error: Error,
    ) {
        if let Some(level) = level(function, error)
            && logging::is_on(level)
            && let Some(count) = RATES.count(handle, function, error)
        {
            let (name, times) = (PerhapsGone(self, record, handle), Times(count));
            match handle.0 {
                0 => logging::line(level, format_args!("{function}: {error}{times}")),
                _ => logging::line(level, format_args!("{function}: {error}: {name}{times}")),
            }
        }
    }

    /// An event's callback has failed, and the poster has gone on long ago.
    #[cold]
    pub(crate) fn log_event_failed(&self, record: &Record, handle: Handle, error: Error) {
        let is_told = |slot: &_| self.cold_of(slot).is_some_and(|cold| cold.on_error().is_some());
        if logging::is_on(Level::Warn)
            && !self.look_at(record, handle, is_told).unwrap_or(false)
            && let Some(count) = RATES.count(handle, "an event", error)
        {
            let (name, times) = (PerhapsGone(self, record, handle), Times(count));
            let said = Said(record);
            logging::warn(format_args!("an event of {name}: {error}{said}{times}"));
        }
    }
}

/// What a line calls an object that may be gone.
struct PerhapsGone<'a>(&'a Engine, &'a Record, Handle);

impl std::fmt::Display for PerhapsGone<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self(engine, record, handle) = *self;
        let name = if handle.has_kind(Kind::Scope) {
            engine.scope_name(record, handle).ok()
        } else {
            let name = |slot: &_| NameCopy::of(engine.cold_of(slot).map_or("", Cold::name));
            engine.look_at(record, handle, name).ok().or_else(|| ghosts::name_of(handle))
        };
        Named(name.as_ref().map_or("", NameCopy::as_str), handle).fmt(out)
    }
}

/// What the callback that has just failed had to say. Read when the line is made, before anybody gets it, who may
/// have other things said.
struct Said<'a>(&'a Record);

impl std::fmt::Display for Said<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let write = |text: &[u8]| write!(out, ": {}", Lossy(text));
        self.0.last_error.with_message(write).unwrap_or(Ok(()))
    }
}

struct Times(u32);

impl std::fmt::Display for Times {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            1 => Ok(()),
            count => write!(out, " ({count} times so far)"),
        }
    }
}

const COUNTERS: usize = 256;
/// So many lines a second, of all that is counted here.
const BUDGET: u32 = 100;

/// How often the same has happened: of every object and reason, the first, second, fourth and so on is worth
/// a line, and of all together so many a second. In bounded memory, and so approximate: what shares a place
/// with something else starts from one again when it takes its turn.
struct Rates {
    counters: [(AtomicU64, AtomicU32); COUNTERS],
    /// `second:32 | lines:32`
    second: AtomicU64,
    left_out: AtomicU32,
}

static RATES: Rates = Rates {
    counters: [const { (AtomicU64::new(0), AtomicU32::new(0)) }; COUNTERS],
    second: AtomicU64::new(0),
    left_out: AtomicU32::new(0),
};

impl Rates {
    /// Counts, and gives the number if it is worth a line.
    fn count(&self, handle: Handle, function: &'static str, error: Error) -> Option<u32> {
        // Relaxed in what follows: it is about how many lines there are.
        let what = function.as_ptr().addr() as u64 ^ u64::from(reason(error)) << 56;
        // Fibonacci hashing; never 0.
        let key = (handle.0 ^ what.rotate_left(17)).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let (owner, counter) = &self.counters[(key >> 32) as usize % COUNTERS];
        let count = if owner.load(Relaxed) == key {
            counter.fetch_add(1, Relaxed).saturating_add(1)
        } else {
            owner.store(key, Relaxed);
            counter.store(1, Relaxed);
            1
        };
        (count.is_power_of_two() && self.has_budget(clock::nanoseconds())).then_some(count)
    }

    fn has_budget(&self, now: u64) -> bool {
        let second = now / 1_000_000_000 + 1;
        let current = self.second.load(Relaxed);
        if current >> 32 != second & u64::from(u32::MAX) {
            self.second.store(second << 32 | 1, Relaxed);
            let left_out = self.left_out.swap(0, Relaxed);
            if left_out > 0 {
                logging::warn(format_args!("{left_out} lines like the following were left out"));
            }
            return true;
        }
        if current as u32 >= BUDGET {
            self.left_out.fetch_add(1, Relaxed);
            return false;
        }
        self.second.fetch_add(1, Relaxed);
        true
    }
}

/// Tells apart the reasons of one function.
fn reason(error: Error) -> u8 {
    match error {
        Error::Stale => 1,
        Error::Kind => 2,
        Error::Signature { .. } => 3,
        Error::Thread { .. } => 4,
        Error::Deadlock => 5,
        Error::Limit(_) => 6,
        Error::Callback => 7,
        Error::Panic => 8,
        _ => 9,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates() -> Rates {
        Rates {
            counters: [const { (AtomicU64::new(0), AtomicU32::new(0)) }; COUNTERS],
            second: AtomicU64::new(0),
            left_out: AtomicU32::new(0),
        }
    }

    #[test]
    fn the_first_second_and_fourth_of_each_are_worth_a_line() {
        let rates = rates();
        let of = |handle| {
            (1..=9)
                .filter_map(|_| rates.count(Handle(handle), "f", Error::Stale))
                .collect::<Vec<_>>()
        };
        assert_eq!(of(1), [1, 2, 4, 8]);
        assert_eq!(of(2), [1, 2, 4, 8]);
        assert_eq!(rates.count(Handle(2), "f", Error::Kind), Some(1));
        assert_eq!(rates.count(Handle(2), "g", Error::Stale), Some(1));
    }

    #[test]
    fn a_second_has_a_budget() {
        let rates = rates();
        let lines = |now| (0..3 * BUDGET).filter(|_| rates.has_budget(now)).count();
        assert_eq!(lines(5_000_000_000), BUDGET as usize);
        assert_eq!(rates.left_out.load(Relaxed), 2 * BUDGET);
        assert_eq!(lines(6_100_000_000), BUDGET as usize);
        assert_eq!(rates.left_out.load(Relaxed), 2 * BUDGET);
    }
}
