//! Waiting for an object's end, and finding out that it would be for ever.
//!
//! A waiter publishes a note of what it waits for, then follows "is waited for by me → is inside it
//! → waits for → is inside it …". The last thread to close a cycle has published its note after all
//! the others, and so sees them all.

use super::handle::{Handle, Kind};
use super::record::Record;
use super::slot::Slot;
use super::{Engine, probes};
use crate::error::Error;
use crate::platform::futex;
use crate::platform::membarrier::Heavy;
use crate::sync::{AcqRel, Acquire, AtomicU32, Relaxed, Release, TotalOrder, spin_hint};
use std::time::{Duration, Instant};

/// How often a waiter looks again when leaves cannot be relied upon (engine/pending.rs).
const POLL: Duration = Duration::from_millis(1);

/// How long to wait.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    None,
    Until(Instant),
    Forever,
}

impl Patience {
    /// From now on; a time that the clock cannot count is for ever.
    pub(crate) fn lasting(duration: Duration) -> Self {
        if duration.is_zero() {
            return Self::None;
        }
        Instant::now().checked_add(duration).map_or(Self::Forever, Self::Until)
    }

    pub(crate) fn is_over(self) -> bool {
        match self {
            Self::None => true,
            Self::Until(deadline) => Instant::now() >= deadline,
            Self::Forever => false,
        }
    }

    /// When to look again at the latest.
    pub(crate) fn next_look(self, soon: bool) -> Option<Instant> {
        let poll = soon.then(|| Instant::now() + POLL);
        match self {
            Self::Until(deadline) => Some(poll.map_or(deadline, |poll| poll.min(deadline))),
            _ => poll,
        }
    }
}

impl Engine {
    /// Revokes, and returns when destroy has run.
    pub(crate) fn unregister_wait(
        &self,
        record: &Record,
        handle: Handle,
        patience: Patience,
    ) -> Result<(), Error> {
        let slot = self.resolve(handle, Kind::Callback)?;
        // A callback that somebody else has revoked is waited for like our own.
        match self.revoke(slot, handle) {
            Ok(()) => probes::unregister(handle),
            Err(_) if slot.is_ending(handle) => {}
            Err(_) => return Err(Error::Stale),
        }
        self.quiesce(record, slot, handle);
        self.wait_until_ended(record, slot, handle, patience)
    }

    /// Waits for the end of an object that is revoked.
    pub(super) fn wait_until_ended(
        &self,
        record: &Record,
        slot: &Slot,
        handle: Handle,
        patience: Patience,
    ) -> Result<(), Error> {
        if !slot.is_ending(handle) {
            return Ok(());
        }
        if self.is_inside(record, handle) {
            return Err(Error::Deadlock);
        }
        loop {
            let unseen = self.run_own_destroys(record, handle);
            let note = Note::publish(record, handle);
            if self.would_deadlock(record, handle) {
                return Err(Error::Deadlock);
            }
            let ended = self.sleep_until_ended(slot, handle, patience, unseen);
            drop(note);
            // Without a note: this may run destroy functions, inside which we do not wait.
            if self.has_pending() {
                self.drain_pending(record);
            }
            if !slot.is_ending(handle) {
                return Ok(());
            }
            if let Some(result) = ended {
                return result;
            }
        }
    }

    /// None: it is time to have a look at what is pending.
    fn sleep_until_ended(
        &self,
        slot: &Slot,
        handle: Handle,
        patience: Patience,
        unseen: bool,
    ) -> Option<Result<(), Error>> {
        loop {
            // ORDER[wait] the flag, the heavy barrier, then the word; partner: `free_slot`, the word,
            // the light barrier, then the flag.
            //  - it sees the flag: it wakes us, or the kernel sees the next generation and we do not
            //    sleep;
            //  - it does not: we see the next generation.
            slot.waited_for.swap_sc(1);
            let certain = self.barrier.heavy() != Heavy::Refused;
            if !slot.is_ending(handle) {
                return Some(Ok(()));
            }
            if patience.is_over() {
                return Some(Err(Error::Timeout));
            }
            // A destroy function that comes to a queue of ours is not told by the word.
            let pending = self.has_pending() || unseen;
            let soon = pending || !certain;
            futex::wait(&slot.word, handle.generation(), patience.next_look(soon));
            if pending {
                return None;
            }
        }
    }

    /// Is this thread inside something that a thread inside `handle` waits for, however indirectly?
    pub(crate) fn would_deadlock(&self, me: &Record, handle: Handle) -> bool {
        loop {
            let search = self.deadlock_search.begin();
            let Some(last) = self.find_cycle(me, handle, search.number) else { return false };
            // The edges were true one after the other. If none has changed since, they were true
            // together; else somebody went on, and the search begins anew.
            if self.is_cycle_still_there(last) {
                return true;
            }
        }
    }

    /// The thread that waits for something that this one is inside of, and is waited for by this one
    /// however indirectly: the end of a chain through `visited_from`.
    fn find_cycle(&self, me: &Record, handle: Handle, search: u64) -> Option<&Record> {
        me.visited.store(search, Relaxed);
        let (mut sought, mut sought_by) = (handle, 0);
        // A list through the records themselves: nothing to allocate, whatever the number of threads.
        let mut to_visit = 0;
        loop {
            // The list is of threads that wait for something: the threads inside that are next.
            for other in self.records.iter() {
                if other.visited.load(Relaxed) == search {
                    continue;
                }
                // ORDER[deadlock] the note, then the cells, and in `is_cycle_still_there` the note
                // again: the same epoch and the same note say that the thread was waiting, and so
                // inside these cells, all the while.
                let epoch = other.epoch.load_sc();
                let waits_for = other.waits_for.load_sc();
                if waits_for == 0 || !self.is_held_up_by(me, other, sought) {
                    continue;
                }
                other.visited.store(search, Relaxed);
                other.visited_from.store(sought_by, Relaxed);
                other.seen_epoch.store(epoch, Relaxed);
                other.seen_waits_for.store(waits_for, Relaxed);
                if self.is_held_up_by(me, me, Handle(waits_for)) {
                    return Some(other);
                }
                other.visit_next.store(to_visit, Relaxed);
                to_visit = other.id();
            }
            let next = self.records.by_id(to_visit)?;
            to_visit = next.visit_next.load(Relaxed);
            // As seen, not as it is now: only then was the thread inside what led here.
            sought = Handle(next.seen_waits_for.load(Relaxed));
            sought_by = next.id();
        }
    }

    /// Do all threads of the chain wait as they did?
    fn is_cycle_still_there(&self, last: &Record) -> bool {
        let mut thread = Some(last);
        while let Some(record) = thread {
            // ORDER[deadlock] after all the first looks; partner: `Note`.
            if record.epoch.load_sc() != record.seen_epoch.load(Relaxed)
                || record.waits_for.load_sc() != record.seen_waits_for.load(Relaxed)
            {
                return false;
            }
            thread = self.records.by_id(record.visited_from.load(Relaxed));
        }
        true
    }
}

/// What this thread waits for, for others to see.
pub(crate) struct Note<'a> {
    record: &'a Record,
    /// Of the wait around this one: a destroy function may wait in a thread that waits.
    around: u64,
}

impl<'a> Note<'a> {
    pub(crate) fn publish(record: &'a Record, handle: Handle) -> Self {
        // Relaxed: the owner reads what it wrote.
        let around = record.waits_for.load(Relaxed);
        // Relaxed: readers see a new epoch at the latest with the exchange.
        record.epoch.store(record.epoch.load(Relaxed) + 1, Release);
        // ORDER[deadlock] before the search; partner: the search of the thread that waits for us.
        record.waits_for.swap_sc(handle.0);
        Self { record, around }
    }
}

impl Drop for Note<'_> {
    fn drop(&mut self) {
        // ORDER[deadlock] cells that change from here on are seen with the note gone; and the note
        // around is published anew, for whoever searches after its waiter has searched again.
        self.record.waits_for.swap_sc(self.around);
        self.record.epoch.store(self.record.epoch.load(Relaxed) + 1, Release);
    }
}

/// One search at a time: it uses fields of the records. Held for a look at every record, never while
/// host code runs.
pub(crate) struct DeadlockSearch {
    busy: AtomicU32,
    number: std::cell::Cell<u64>,
}

// SAFETY: `number` is touched by the holder of `busy` alone.
unsafe impl Sync for DeadlockSearch {}

struct Search<'a> {
    lock: &'a DeadlockSearch,
    number: u64,
}

impl DeadlockSearch {
    #[cfg(not(loom))]
    pub(crate) const fn new() -> Self {
        Self { busy: AtomicU32::new(0), number: std::cell::Cell::new(0) }
    }
    #[cfg(loom)]
    pub(crate) fn new() -> Self {
        Self { busy: AtomicU32::new(0), number: std::cell::Cell::new(0) }
    }

    fn begin(&self) -> Search<'_> {
        // AcqRel: acquire, partner: the store in `drop`.
        while self.busy.compare_exchange(0, 1, AcqRel, Acquire).is_err() {
            spin_hint();
        }
        self.number.set(self.number.get() + 1);
        Search { lock: self, number: self.number.get() }
    }

    /// In the child of a fork: whoever searched does not exist.
    pub(crate) fn reset(&self) {
        self.busy.store(0, Relaxed);
    }
}

impl Drop for Search<'_> {
    fn drop(&mut self) {
        self.lock.busy.store(0, Release);
    }
}
