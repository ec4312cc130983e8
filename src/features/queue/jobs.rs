//! Destroy functions that run where a queue is dispatched. They take no room in it, and are never
//! dropped: callbacks in a list through their cold entries.

use super::body::OPEN;
use super::{Inside, Queue};
use crate::engine::{Engine, Handle, Record, Slot};
use crate::error::Error;
use crate::sync::{AtomicU32, AtomicU64, Lock, Relaxed, SeqCst, TotalOrder};

pub(crate) struct Jobs {
    lock: Lock,
    /// Handles of callbacks, oldest first. Under the lock.
    first: AtomicU64,
    last: AtomicU64,
    pub(super) count: AtomicU32,
}

impl Jobs {
    pub(super) const fn new() -> Self {
        Self {
            lock: Lock::new(),
            first: AtomicU64::new(0),
            last: AtomicU64::new(0),
            count: AtomicU32::new(0),
        }
    }
}

impl Queue {
    /// Appends the callback, which is being finalized, if the queue takes work.
    fn append_job(&self, engine: &Engine, record: &Record, slot: &Slot, handle: Handle) -> bool {
        let _section = engine.section(record);
        let _guard = self.jobs.lock.lock();
        // ORDER[close] under the lock; partner: `close`, which takes it after it has said so.
        let Some(cold) = engine.cold_of(slot) else { return false };
        if self.state.load_sc() != OPEN || self.is_inherited(engine) {
            return false;
        }
        // Relaxed in what follows: under the lock.
        cold.next_job.store(0, Relaxed);
        cold.is_deferred.store(1, Relaxed);
        cold.job_position.store(self.ring.tail(), Relaxed);
        match Handle(self.jobs.last.load(Relaxed)) {
            Handle(0) => self.jobs.first.store(handle.0, Relaxed),
            last => {
                if let Some(last) = engine.cold_of_ending(last) {
                    last.next_job.store(handle.0, Relaxed);
                }
            }
        }
        self.jobs.last.store(handle.0, Relaxed);
        // ORDER[signal] before the signal is looked at; partner: `has_work`.
        self.jobs.count.fetch_add(1, SeqCst);
        engine.deferred.fetch_add(1, SeqCst);
        true
    }

    /// Takes the first callback out that `wanted` says yes of, given the position that it comes after.
    pub(super) fn take_job(
        &self,
        engine: &Engine,
        record: &Record,
        wanted: impl Fn(Handle, u64) -> bool,
    ) -> Option<Handle> {
        // Not when the queue closes: one may be on its way in, under the lock.
        if self.jobs.count.load(SeqCst) == 0 && !self.is_closing() {
            return None;
        }
        let _section = engine.section(record);
        let _guard = self.jobs.lock.lock();
        let mut before = Handle(0);
        let mut job = Handle(self.jobs.first.load(Relaxed));
        while let Some(cold) = engine.cold_of_ending(job) {
            let next = cold.next_job.load(Relaxed);
            if wanted(job, cold.job_position.load(Relaxed)) {
                match engine.cold_of_ending(before) {
                    None => self.jobs.first.store(next, Relaxed),
                    Some(before) => before.next_job.store(next, Relaxed),
                }
                if next == 0 {
                    self.jobs.last.store(before.0, Relaxed);
                }
                self.jobs.count.fetch_sub(1, SeqCst);
                engine.deferred.fetch_sub(1, SeqCst);
                cold.is_deferred.store(0, Relaxed);
                return Some(job);
            }
            (before, job) = (job, Handle(next));
        }
        None
    }

    /// Runs the destroy functions that are wanted, after what is left of their callbacks' events.
    pub(super) fn run_jobs(
        &self,
        engine: &Engine,
        record: &Record,
        wanted: impl Fn(Handle) -> bool,
    ) {
        while let Some(job) = self.take_job(engine, record, |job, _| wanted(job)) {
            if !self.is_inherited(engine) {
                self.drop_events(engine, record, Error::Stale, |event| event.handle() == job);
            }
            engine.finish_deferred(record, job);
        }
    }
}

/// See [`crate::engine::QueueHooks`].
pub(super) fn defer_destroy(
    engine: &Engine,
    record: &Record,
    queue: Handle,
    slot: &Slot,
    handle: Handle,
) -> bool {
    let Ok(inside) = Inside::enter(engine, record, queue, queue) else { return false };
    let deferred = inside.queue().append_job(engine, record, slot, handle);
    if deferred {
        inside.queue().signal.tell();
        // Who waits for the callback may be the one who runs it.
        engine.wake_waiters(slot, handle);
    }
    deferred
}
