//! Looking at callbacks from outside, for a thread that is none of the host's. It must not be inside of
//! any: whoever leaves last runs the destroy function, and that is for the host's threads.
//!
//! What lies in slots and cold entries may be read at any time (type-stable memory), and is believed if the
//! callback still lives. A name is freed memory after its callback's end, and a meter another's: while
//! somebody looks on, who ends a callback that has cold data takes a lock, once, before it frees any.
//! *Look against end*: the count was raised before the heavy barrier. Either the end sees it, and waits for
//! a look that has found the callback alive; or it has not seen it, then FINALIZING, which it wrote before,
//! shows to every look after the barrier.

use super::Engine;
use super::census::{NameCopy, Row, callback_in};
use super::gate::Section;
use super::handle::Handle;
use super::record::Record;
use super::slot::{Phase, Slot, Word};
use crate::error::Error;
use crate::platform::membarrier::Heavy;
use crate::sync::{
    AcqRel, Acquire, AtomicU32, Lock, MutexGuard, Relaxed, SeqCst, fence, light_barrier,
};

/// How many look on, and what ends of callbacks wait for while any do.
pub(crate) struct Onlookers {
    count: AtomicU32,
    lock: Lock,
    /// Threads that are there for nothing else, and that nobody counts.
    threads: AtomicU32,
}

/// Says of the calling thread that it only looks on, as long as it lives.
pub(crate) struct OnlookerThread<'a>(&'a Onlookers);

/// Looks on until it is dropped.
pub(crate) struct Onlooker<'a> {
    engine: &'a Engine,
    record: &'a Record,
    /// Does every end of a callback wait?
    sees_names: bool,
    /// What threads were inside of at the start, in order.
    inside: Vec<u64>,
}

/// As long as it lives, no onlooker looks.
pub(super) struct KeepOff<'a>(
    #[allow(dead_code, reason = "held, not read; dropped before the section")] MutexGuard<'a, ()>,
    #[allow(dead_code, reason = "held, not read")] Section<'a>,
);

impl Onlookers {
    pub(crate) const fn new() -> Self {
        Self { count: AtomicU32::new(0), lock: Lock::new(), threads: AtomicU32::new(0) }
    }

    /// In the child of a fork: whoever looked on does not exist.
    pub(super) fn reset(&self) {
        self.count.store(0, Relaxed);
        self.threads.store(0, Relaxed);
    }

    /// How many threads are there for nothing else.
    pub(super) fn threads(&self) -> u64 {
        // Relaxed: a statistic.
        self.threads.load(Relaxed).into()
    }
}

impl Drop for OnlookerThread<'_> {
    fn drop(&mut self) {
        self.0.threads.fetch_sub(1, Relaxed);
    }
}

impl Engine {
    /// The calling thread only looks on.
    pub(crate) fn become_onlooker(&self) -> OnlookerThread<'_> {
        self.onlookers.threads.fetch_add(1, Relaxed);
        OnlookerThread(&self.onlookers)
    }

    /// Begins to look on.
    pub(crate) fn look_on<'a>(&'a self, record: &'a Record) -> Result<Onlooker<'a>, Error> {
        // ORDER[onlooker] the count, the heavy barrier, then words; partner: `keep_onlookers_off`.
        self.onlookers.count.fetch_add(1, SeqCst);
        let sees_names = self.barrier.heavy() != Heavy::Refused;
        let mut it = Onlooker { engine: self, record, sees_names, inside: Vec::new() };
        it.look_inside()?;
        Ok(it)
    }

    /// The caller has the phase FINALIZING, and is about to free what onlookers read.
    pub(super) fn keep_onlookers_off<'a>(&'a self, record: &'a Record) -> Option<KeepOff<'a>> {
        // ORDER[onlooker] FINALIZING, the light barrier, then the count; partner: `look_on`.
        if record.leaves_by_exchange.get() {
            fence(SeqCst);
        } else {
            light_barrier();
        }
        // Acquire: partner: the subtraction of the last one: what it has read it has read.
        if self.onlookers.count.load(Acquire) == 0 {
            return None;
        }
        let section = self.section(record);
        Some(KeepOff(self.onlookers.lock.lock(), section))
    }
}

impl Drop for Onlooker<'_> {
    fn drop(&mut self) {
        // AcqRel: release, partner: the load in `keep_onlookers_off`.
        self.engine.onlookers.count.fetch_sub(1, AcqRel);
    }
}

impl Onlooker<'_> {
    /// Notes every cell, so that rows need not scan the records each.
    fn look_inside(&mut self) -> Result<(), Error> {
        let mut result = Ok(());
        for other in self.engine.records.iter() {
            other.for_each_cell(|cell| match self.inside.try_reserve(1) {
                Ok(()) => self.inside.push(cell.0),
                Err(_) => result = Err(Error::NoMemory),
            });
        }
        self.inside.sort_unstable();
        result
    }

    fn in_flight(&self, handle: Handle, slot: &Slot) -> u64 {
        let first = self.inside.partition_point(|other| *other < handle.0);
        let cells = self.inside[first..].iter().take_while(|other| **other == handle.0).count();
        // Relaxed: a statistic.
        cells as u64 + u64::from(slot.holds.load(Relaxed))
    }

    /// Shows every callback that lives, with how many are inside.
    pub(crate) fn for_each(
        &self,
        mut show: impl FnMut(Handle, u64) -> Result<(), Error>,
    ) -> Result<(), Error> {
        for (index, slot) in self.engine.slots.iter() {
            if let Some((handle, Phase::Live)) = callback_in(index, slot) {
                show(handle, self.in_flight(handle, slot))?;
            }
        }
        Ok(())
    }

    /// Describes a callback. None: it does not live any more.
    pub(crate) fn row(&self, handle: Handle) -> Option<Row> {
        self.look(handle, |slot| {
            let in_flight = self.in_flight(handle, slot);
            let references = self.engine.references(handle).unwrap_or(0);
            let mut row = self.engine.row(handle, slot, references, in_flight);
            if let (true, Some(cold)) = (self.sees_names, self.engine.cold_of(slot)) {
                row.name = NameCopy::of(cold.name());
                row.metered = self.engine.metered_of(cold);
            }
            row
        })
    }

    /// How often a metered callback was called, and has failed.
    pub(crate) fn counts(&self, handle: Handle) -> Option<(u64, u64)> {
        let slot = self.engine.slots.get(handle.index())?;
        // Most are not metered: then nothing is locked. (What changes meanwhile is looked at once more.)
        if !self.sees_names || !self.engine.cold_of(slot)?.meter.is_on() {
            return None;
        }
        self.look(handle, |slot| self.engine.counts_of(self.engine.cold_of(slot)?))?
    }

    /// Is it so of the callback's name?
    pub(crate) fn has_name(&self, handle: Handle, is_so: impl FnOnce(&str) -> bool) -> bool {
        let name = |slot: &Slot| self.engine.cold_of(slot).map_or("", super::Cold::name);
        self.sees_names && self.look(handle, |slot| is_so(name(slot))).unwrap_or(false)
    }

    fn look<T>(&self, handle: Handle, look: impl FnOnce(&Slot) -> T) -> Option<T> {
        let slot = self.engine.slots.get(handle.index())?;
        let _section = self.engine.section(self.record);
        // Whoever ends it waits for us from here on, or we see that it has ended.
        let _lock = self.engine.onlookers.lock.lock();
        // Acquire: partner: the store of LIVE.
        if !Word(slot.word.load(Acquire)).is(handle, Phase::Live) {
            return None;
        }
        let seen = look(slot);
        // What has no cold data does not wait: ORDER[onlooker] read, then still alive.
        fence(Acquire);
        Word(slot.word.load(Relaxed)).is(handle, Phase::Live).then_some(seen)
    }
}
