//! What there is: callbacks counted and described, for people and monitoring. Nothing here is exact while
//! other threads go on, and nothing here slows them.

use super::Engine;
use super::counts::Sums;
use super::handle::{Handle, Kind};
use super::members::SHARDS;
use super::meter::Metered;
use super::name::NAME_MAX;
use super::record::Record;
use super::slot::{Mark, Phase, Slot, Word};
use super::stacks::Stack;
use crate::error::Error;
use crate::sync::{Acquire, Relaxed};

/// Numbers of the process or a scope.
#[derive(Clone, Copy, Default)]
pub(crate) struct Census {
    pub(crate) live: u64,
    /// Ended, and their destroy functions have not returned.
    pub(crate) pending: u64,
    pub(crate) in_flight: u64,
    pub(crate) threads: u64,
    /// Of a scope `registered` and `destroyed` alone.
    pub(crate) sums: Sums,
}

/// One callback that lives.
pub(crate) struct Row {
    pub(crate) handle: Handle,
    pub(crate) scope: Handle,
    pub(crate) signature: u64,
    pub(crate) function: *mut (),
    pub(crate) references: u32,
    pub(crate) flags: u32,
    pub(crate) in_flight: u64,
    /// Nanoseconds of the monotonic clock; 0: not noted.
    pub(crate) registered: u64,
    /// Where it was registered, if that was noted.
    pub(crate) stack: Option<&'static Stack>,
    /// Bytes of its cold data.
    pub(crate) cold: usize,
    /// None: not metered.
    pub(crate) metered: Option<Metered>,
    pub(crate) name: NameCopy,
}

/// A name that outlives what it was the name of.
pub(crate) struct NameCopy {
    bytes: [u8; NAME_MAX],
    len: usize,
}

impl NameCopy {
    pub(crate) fn of(name: &str) -> Self {
        let mut bytes = [0; NAME_MAX];
        bytes[..name.len()].copy_from_slice(name.as_bytes());
        Self { bytes, len: name.len() }
    }

    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.len]).unwrap_or_default()
    }
}

impl Engine {
    /// Counts callbacks of the scope, or with 0 of the process.
    pub(crate) fn census(&self, record: &Record, scope: Handle) -> Result<Census, Error> {
        let mut census = Census::default();
        if scope.0 == 0 {
            for (index, slot) in self.slots.iter() {
                if let Some((_, phase)) = callback_in(index, slot) {
                    census.add(phase, slot);
                }
            }
            for other in self.records.iter() {
                other.counts.add_to(&mut census.sums);
                census.sums.calls += other.calls.get();
                // Relaxed: a statistic.
                census.threads += u64::from(other.thread.load(Relaxed) != 0);
            }
            census.threads = census.threads.saturating_sub(self.onlookers.threads());
        } else {
            for number in 0..SHARDS {
                let section = self.section(record);
                let shard = self.lock_shard(&section, scope, number)?;
                let mut here = 0;
                for member in shard.members() {
                    let slot = self.slots.at(member.index());
                    if let Some((_, phase)) = callback_in(member.index(), slot) {
                        census.add(phase, slot);
                    }
                    here += 1;
                }
                census.sums.registered += shard.total();
                census.sums.destroyed += shard.total() - here;
            }
        }
        for other in self.records.iter() {
            let mut inside = 0;
            other.for_each_cell(|cell| inside += u64::from(self.is_call_of(cell, scope)));
            census.in_flight += inside;
            census.threads += u64::from(scope.0 != 0 && inside > 0);
        }
        Ok(census)
    }

    /// Is a cell with this handle a call or pin of a callback of the scope, and neither its destroy function
    /// nor a visit of a guest?
    fn is_call_of(&self, cell: Handle, scope: Handle) -> bool {
        let Ok(slot) = self.resolve(cell, Kind::Callback) else { return false };
        // Before the look at its phase: of one that has ended meanwhile it is not known.
        if self.is_guest(cell) {
            return false;
        }
        matches!(callback_in(cell.index(), slot),
            Some((handle, Phase::Live | Phase::Revoked)) if handle == cell)
            && (scope.0 == 0 || self.scope_of(cell) == scope)
    }

    /// How many calls and pins are inside the callback; of a guest, how many visits and spans.
    fn in_flight(&self, handle: Handle, slot: &Slot) -> u64 {
        let mut inside = u64::from(slot.holds.load(Relaxed));
        for other in self.records.iter() {
            other.for_each_cell(|cell| inside += u64::from(cell == handle));
        }
        inside
    }

    /// Describes a callback that lives.
    pub(crate) fn describe(&self, record: &Record, handle: Handle) -> Result<Row, Error> {
        let (slot, _) = self.live(handle, Kind::Callback)?;
        // Before our own cell is one of them.
        let in_flight = self.in_flight(handle, slot);
        self.look_at(record, handle, |slot| {
            let references = self.references(handle).unwrap_or(0);
            let mut row = self.row(handle, slot, references, in_flight);
            if let Some(cold) = self.cold_of(slot) {
                row.metered = self.metered_of(cold);
                row.name = NameCopy::of(cold.name());
            }
            row
        })
    }

    /// All but the name and what was metered, which need more than to be looked at.
    pub(super) fn row(&self, handle: Handle, slot: &Slot, references: u32, in_flight: u64) -> Row {
        let mut row = Row {
            handle,
            scope: Handle(0),
            // Relaxed: published with LIVE.
            signature: slot.signature.load(Relaxed),
            function: slot.function.load(Relaxed),
            references,
            flags: 0,
            in_flight,
            registered: 0,
            stack: None,
            cold: 0,
            metered: None,
            name: NameCopy::of(""),
        };
        if let Some(cold) = self.cold_of(slot) {
            row.scope = cold.membership.scope();
            row.flags = cold.flags();
            row.registered = cold.registered();
            row.stack = cold.stack();
            row.cold = cold.bytes();
        }
        row
    }

    /// Shows every callback of the scope, or with 0 of the process, that lives all the while. No lock is
    /// held meanwhile.
    pub(crate) fn for_each_callback(
        &self,
        record: &Record,
        scope: Handle,
        mut show: impl FnMut(Row),
    ) -> Result<(), Error> {
        self.check_scope(scope)?;
        for (index, slot) in self.slots.iter() {
            let Some((handle, Phase::Live)) = callback_in(index, slot) else { continue };
            if scope.0 != 0 && self.scope_of(handle) != scope {
                continue;
            }
            // Ended meanwhile: not there any more.
            if let Ok(row) = self.describe(record, handle) {
                show(row);
            }
        }
        Ok(())
    }

    /// Shows every scope that is open or closing, with its name.
    pub(crate) fn for_each_scope(&self, record: &Record, mut show: impl FnMut(Handle, &str)) {
        for (index, slot) in self.slots.iter() {
            if let Some((scope, Phase::Live | Phase::Revoked)) = object_in(index, slot, Kind::Scope)
                && let Ok(name) = self.scope_name(record, scope)
            {
                show(scope, name.as_str());
            }
        }
    }

    /// Shows the callback of every hold that is out.
    pub(crate) fn for_each_hold(&self, mut show: impl FnMut(Handle)) {
        for (index, slot) in self.slots.iter() {
            if let Some((_, Phase::Live)) = object_in(index, slot, Kind::Hold) {
                // Relaxed: published with LIVE.
                show(Handle(slot.signature.load(Relaxed)));
            }
        }
    }

    /// A scope's name, "" for scope 0; the scope is open or closing.
    pub(crate) fn scope_name(&self, record: &Record, scope: Handle) -> Result<NameCopy, Error> {
        if scope.0 == 0 {
            return Ok(NameCopy::of(""));
        }
        // Under one of its locks it does not end.
        let section = self.section(record);
        let shard = self.lock_shard(&section, scope, 0)?;
        Ok(NameCopy::of(shard.scope.name()))
    }
}

impl Census {
    fn add(&mut self, phase: Phase, slot: &Slot) {
        match phase {
            Phase::Live => self.live += 1,
            _ => self.pending += 1,
        }
        // Relaxed: a statistic.
        self.in_flight += u64::from(slot.holds.load(Relaxed));
    }
}

/// The callback in the slot, and where in its life it is.
pub(super) fn callback_in(index: u32, slot: &Slot) -> Option<(Handle, Phase)> {
    object_in(index, slot, Kind::Callback)
}

/// The same of an object of this kind.
fn object_in(index: u32, slot: &Slot, kind: Kind) -> Option<(Handle, Phase)> {
    // Acquire: partner: the store of LIVE, which publishes the mark.
    let word = Word(slot.word.load(Acquire));
    let handle = Handle::new(word.generation(), kind, index);
    let phase = [Phase::Live, Phase::Revoked, Phase::Finalizing]
        .into_iter()
        .find(|phase| word.in_phase(*phase))?;
    Mark(slot.mark.load(Relaxed)).belongs_to(handle).then_some((handle, phase))
}
