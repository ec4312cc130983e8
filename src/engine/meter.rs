//! Callbacks that are metered: how often they are called and fail, and how long their calls take.
//!
//! Every thread counts in a [`Block`] of its own for each such callback that it calls, so that threads do not
//! meet, and who reads sums them. They are in a list of the callback's, which ends with the callback: then
//! what they have counted stays in the series of its name. A thread that ends leaves its blocks to the next
//! owner of its record.
//!
//! A metered callback is special ([`super::slot::SPECIAL`]); others pay nothing.

use super::Engine;
use super::cold::Cold;
use super::counts::Counter;
use super::gate::Section;
use super::handle::Handle;
use super::histogram::{Histogram, Times};
use super::record::{Record, Stay};
use super::series::{Series, Sum, Sums};
use super::slab::{Entry, Slab};
use super::slot::Slot;
use crate::error::Error;
use crate::platform::clock;
use crate::sync::{AcqRel, Acquire, AtomicU32, AtomicU64, Relaxed};
use std::cell::Cell;

/// See [`Slab`].
const FIRST: u32 = if cfg!(any(loom, miri)) { 2 } else { 4 };
/// So many callbacks a thread finds its block of without a look at their lists.
const PLACES: usize = if cfg!(any(loom, miri)) { 1 } else { 64 };

/// What one thread has counted of one callback. All at zero while it is free.
#[repr(align(128))]
struct Block {
    /// In use: `next block of the callback:32 | record:32`; else the slab's.
    link: AtomicU64,
    calls: Counter,
    failures: Counter,
    times: Histogram,
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<Block>() == 256);

impl Entry for Block {
    #[cfg(loom)]
    fn new() -> Self {
        Self {
            link: AtomicU64::new(0),
            calls: Counter::new(),
            failures: Counter::new(),
            times: Histogram::new(),
        }
    }

    fn link(&self) -> &AtomicU64 {
        &self.link
    }

    fn first_use(&self, _generation: u32) {}
}

impl Block {
    fn clear(&self) {
        self.calls.clear();
        self.failures.clear();
        self.times.clear();
    }
}

/// What was counted of one callback, or of all of a name.
#[derive(Clone, Copy)]
pub(crate) struct Metered {
    /// Calls, pins and holds that have entered, and those of the former two that have failed.
    pub(crate) calls: u64,
    pub(crate) failures: u64,
    /// Of calls that are over.
    pub(crate) times: Times,
}

impl Sum for Metered {
    const NONE: Self = Self { calls: 0, failures: 0, times: Times::NONE };

    fn add(&mut self, other: &Self) {
        self.calls += other.calls;
        self.failures += other.failures;
        self.times.add(&other.times);
    }
}

/// The process's blocks, and what is known by name.
pub(super) struct Meters {
    blocks: Slab<Block, FIRST>,
    series: Series<Metered>,
}

impl Meters {
    #[cfg(not(loom))]
    pub(super) const fn new() -> Self {
        Self { blocks: Slab::new(), series: Series::new() }
    }
    #[cfg(loom)]
    pub(super) fn new() -> Self {
        Self { blocks: Slab::new(), series: Series::new() }
    }
}

/// A scope's part: what its metered callbacks have done that have ended. Changes under the lock of the series.
pub(super) struct Ended {
    calls: AtomicU64,
    failures: AtomicU64,
}

impl Ended {
    #[cfg(loom)]
    pub(super) fn new() -> Self {
        Self { calls: AtomicU64::new(0), failures: AtomicU64::new(0) }
    }

    pub(super) fn clear(&self) {
        // Relaxed: published with the scope.
        self.calls.store(0, Relaxed);
        self.failures.store(0, Relaxed);
    }

    fn get(&self) -> (u64, u64) {
        // Relaxed: under the lock.
        (self.calls.load(Relaxed), self.failures.load(Relaxed))
    }

    fn add(&self, last: &Metered) {
        // Relaxed: as above. Added in one step: the scope of a callback that was never published may end
        // meanwhile, and another's is cleared; that one has done nothing.
        self.calls.fetch_add(last.calls, Relaxed);
        self.failures.fetch_add(last.failures, Relaxed);
    }
}

/// A callback's part, in its cold data. Changes under the lock of the series, but for `first`, which grows.
pub(super) struct Meter {
    /// 1 + the number of its series; 0: it is not metered.
    series: AtomicU32,
    /// Its first block; 0: none.
    first: AtomicU32,
}

impl Meter {
    #[cfg(loom)]
    pub(super) fn new() -> Self {
        Self { series: AtomicU32::new(0), first: AtomicU32::new(0) }
    }

    /// Is the callback metered?
    pub(super) fn is_on(&self) -> bool {
        // Relaxed: published with the callback.
        self.series.load(Relaxed) != 0
    }
}

/// Where a thread's blocks are: of some callbacks, by their indices. Zeroed it knows none.
pub(super) struct Known([Cell<(Handle, u32)>; PLACES]);

impl Known {
    #[cfg(loom)]
    pub(super) fn new() -> Self {
        Self(std::array::from_fn(|_| Cell::new((Handle(0), 0))))
    }
}

impl Known {
    /// In the child of a fork, where the owner may have been cut off in the middle of a change.
    pub(super) fn forget(&self) {
        self.0.iter().for_each(|place| place.set((Handle(0), 0)));
    }
}

/// A call of a metered callback. Dropped when it is over, also by an unwind, and before the callback is left.
pub(super) struct Measured<'a> {
    block: &'a Block,
    began: u64,
}

impl Drop for Measured<'_> {
    fn drop(&mut self) {
        self.block.times.count_alone(clock::nanoseconds().saturating_sub(self.began));
    }
}

impl Engine {
    /// The callback of this entry, which nobody knows yet, is to be metered.
    #[cold]
    #[inline(never)]
    pub(super) fn begin_meter(
        &self,
        record: &Record,
        cold: &Cold,
        scope: Handle,
        name: &str,
    ) -> Result<(), Error> {
        let _section = self.section(record);
        let mut series = self.meters.series.lock();
        let number = series.join(scope, name)?;
        cold.meter.first.store(0, Relaxed);
        cold.meter.series.store(number + 1, Relaxed);
        Ok(())
    }

    /// The callback has ended, or has never begun: what was counted stays in its series.
    #[cold]
    #[inline(never)]
    pub(super) fn end_meter(&self, record: &Record, cold: &Cold) {
        self.end_meter_in(&self.section(record), cold);
    }

    pub(super) fn end_meter_in(&self, _section: &Section<'_>, cold: &Cold) {
        let mut series = self.meters.series.lock();
        let Some(number) = cold.meter.series.load(Relaxed).checked_sub(1) else { return };
        let (scope, last) = (cold.membership.scope(), self.metered(&cold.meter));
        series.leave(scope, number, &last);
        if let Some(scope) = self.find_scope(scope) {
            scope.ended.add(&last);
        }
        cold.meter.series.store(0, Relaxed);
        let mut index = cold.meter.first.load(Relaxed);
        while index != 0 {
            let block = self.meters.blocks.at(index);
            let next = (block.link.load(Relaxed) >> 32) as u32;
            block.clear();
            // A batch of one.
            block.link.store(0, Relaxed);
            self.meters.blocks.give(index);
            index = next;
        }
    }

    /// What was counted of a callback that does not end meanwhile.
    fn metered(&self, meter: &Meter) -> Metered {
        let mut sum = Metered::NONE;
        // Acquire: partner: the exchange in `make_block`.
        let mut index = meter.first.load(Acquire);
        while index != 0 {
            let block = self.meters.blocks.at(index);
            sum.calls += block.calls.get();
            sum.failures += block.failures.get();
            block.times.add_to(&mut sum.times);
            // Relaxed: does not change while the block is in the list.
            index = (block.link.load(Relaxed) >> 32) as u32;
        }
        sum
    }

    /// The same of one whose entry this is; None: it is not metered. The caller is inside.
    pub(super) fn metered_of(&self, cold: &Cold) -> Option<Metered> {
        cold.meter.is_on().then(|| self.metered(&cold.meter))
    }

    /// How often it was called, and has failed; as above.
    pub(super) fn counts_of(&self, cold: &Cold) -> Option<(u64, u64)> {
        let (mut calls, mut failures) = (0, 0);
        let mut index = cold.meter.is_on().then(|| cold.meter.first.load(Acquire))?;
        while index != 0 {
            let block = self.meters.blocks.at(index);
            calls += block.calls.get();
            failures += block.failures.get();
            // Relaxed: as in `metered`.
            index = (block.link.load(Relaxed) >> 32) as u32;
        }
        Some((calls, failures))
    }

    /// The metered callbacks of the scope by name, or with 0 all that there ever were; of a scope those names
    /// that one of its callbacks has.
    pub(crate) fn metered_by_name(
        &self,
        record: &Record,
        scope: Handle,
    ) -> Result<Sums<Metered>, Error> {
        let _section = self.section(record);
        let series = self.meters.series.lock();
        series.sums(scope, |sums| {
            for (_, cold) in self.cold.iter() {
                let number = cold.meter.series.load(Relaxed).checked_sub(1);
                if let Some(number) = number
                    && (scope.0 == 0 || cold.membership.scope() == scope)
                {
                    sums.add(number, &self.metered(&cold.meter));
                }
            }
        })
    }

    /// How often metered callbacks of the scope were called, and have failed, also those that have ended.
    pub(crate) fn metered_in(&self, record: &Record, scope: Handle) -> Result<(u64, u64), Error> {
        let section = self.section(record);
        let _series = self.meters.series.lock();
        // Under one of its locks the scope does not end, nor its entry serve another.
        let (mut calls, mut failures) = self.lock_shard(&section, scope, 0)?.scope.ended.get();
        for (_, cold) in self.cold.iter() {
            if cold.membership.scope() == scope
                && let Some(counts) = self.counts_of(cold)
            {
                calls += counts.0;
                failures += counts.1;
            }
        }
        Ok((calls, failures))
    }

    /// Is the callback metered? Racy, like [`Engine::scope_of`].
    pub(super) fn is_metered(&self, callback: Handle) -> bool {
        self.cold_read(callback, |cold| Handle(cold.meter.is_on().into())).0 != 0
    }

    /// This thread's block of the callback that it is inside of, if that is metered and there is memory.
    fn block_of(&self, record: &Record, slot: &Slot, handle: Handle) -> Option<&Block> {
        let meter = &self.cold_of(slot).filter(|cold| cold.meter.is_on())?.meter;
        let place = &record.known_blocks.0[handle.index() as usize % PLACES];
        let index = match place.get() {
            (known, index) if known == handle => index,
            _ => {
                let index = self.find_block(record, meter)?;
                place.set((handle, index));
                index
            }
        };
        Some(self.meters.blocks.at(index))
    }

    #[cold]
    #[inline(never)]
    fn find_block(&self, record: &Record, meter: &Meter) -> Option<u32> {
        let mut index = meter.first.load(Acquire);
        while index != 0 {
            let link = self.meters.blocks.at(index).link.load(Relaxed);
            if link as u32 == record.id() {
                return Some(index);
            }
            index = (link >> 32) as u32;
        }
        self.make_block(record, meter)
    }

    fn make_block(&self, record: &Record, meter: &Meter) -> Option<u32> {
        let blocks = &self.meters.blocks;
        let index = blocks.take().or_else(|| blocks.carve(1, 0).ok())?;
        let block = blocks.at(index);
        // Relaxed: the compare-exchange confirms it.
        let mut first = meter.first.load(Relaxed);
        loop {
            block.link.store(u64::from(first) << 32 | u64::from(record.id()), Relaxed);
            // AcqRel: release, partners: the loads of `first`: the block as it is now.
            match meter.first.compare_exchange_weak(first, index, AcqRel, Relaxed) {
                Ok(_) => return Some(index),
                Err(current) => first = current,
            }
        }
    }

    /// A call, pin or hold has entered a special callback.
    pub(super) fn count_metered_call(&self, record: &Record, slot: &Slot, handle: Handle) {
        if let Some(block) = self.block_of(record, slot, handle) {
            block.calls.count();
        }
    }

    /// A call or pin that is inside still has failed.
    #[cold]
    #[inline(never)]
    pub(super) fn count_metered_failure(&self, record: &Record, slot: &Slot, handle: Handle) {
        if let Some(block) = self.block_of(record, slot, handle) {
            block.failures.count();
        }
    }

    /// A call of a special callback is about to run.
    pub(super) fn measure<'a>(&'a self, stay: Stay<'a>) -> Option<Measured<'a>> {
        let block = self.block_of(stay.record, stay.slot, stay.handle)?;
        let began = clock::nanoseconds();
        if let Some(hooks) = self.queue_hooks.get() {
            (hooks.note_latency)(stay.record, began);
        }
        Some(Measured { block, began })
    }
}
