//! What queues have done. Posters count nothing: the ring's tail says how many have come. Dispatchers
//! count on a line of their own, once a dispatch; what is refused, dropped or made to wait is counted where
//! that happens, which is never the common case.

use super::Queue;
use super::open::QUEUES;
use crate::engine::histogram::{Histogram, Times};
use crate::engine::series::{Sum, Sums};
use crate::engine::{ENGINE, Handle, NameCopy, Record};
use crate::error::Error;
use crate::sync::{AtomicU64, Relaxed};

#[repr(align(128))]
pub(super) struct Numbers {
    dispatched: AtomicU64,
    dropped: AtomicU64,
    coalesced: AtomicU64,
    refused: AtomicU64,
    blocked: AtomicU64,
    /// From the post to the dispatch, of events that somebody wants to know that of.
    waited: Histogram,
}

/// Of one queue, or several.
#[derive(Clone, Copy, Default)]
pub(crate) struct Totals {
    pub(crate) queues: u64,
    pub(crate) queued: u64,
    pub(crate) capacity: u64,
    pub(crate) posted: u64,
    pub(crate) dispatched: u64,
    pub(crate) dropped: u64,
    pub(crate) refused: u64,
    pub(crate) blocked: u64,
    pub(crate) waited: Times,
}

impl Sum for Totals {
    const NONE: Self = Self {
        queues: 0,
        queued: 0,
        capacity: 0,
        posted: 0,
        dispatched: 0,
        dropped: 0,
        refused: 0,
        blocked: 0,
        waited: Times::NONE,
    };

    fn add(&mut self, other: &Self) {
        self.queues += other.queues;
        self.queued += other.queued;
        self.capacity += other.capacity;
        self.posted += other.posted;
        self.dispatched += other.dispatched;
        self.dropped += other.dropped;
        self.refused += other.refused;
        self.blocked += other.blocked;
        self.waited.add(&other.waited);
    }
}

impl Numbers {
    pub(super) fn new() -> Self {
        Self {
            dispatched: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            coalesced: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            blocked: AtomicU64::new(0),
            waited: Histogram::new(),
        }
    }

    // Relaxed in what follows: statistics.

    /// A dispatch is over that has done so many.
    pub(super) fn count_dispatched(&self, events: u64) {
        self.dispatched.fetch_add(events, Relaxed);
    }

    /// An event was not delivered.
    pub(super) fn count_dropped(&self) {
        self.dropped.fetch_add(1, Relaxed);
    }

    /// A post has given its payload to an event that was there. The old payload is dropped.
    pub(super) fn count_coalesced(&self) {
        self.coalesced.fetch_add(1, Relaxed);
    }

    /// A post has failed because the queue was full.
    pub(super) fn count_refused(&self) {
        self.refused.fetch_add(1, Relaxed);
    }

    /// An event has waited for so many nanoseconds.
    pub(super) fn count_waited(&self, time: u64) {
        self.waited.count(time);
    }

    /// A post waits for room.
    pub(super) fn count_blocked(&self) {
        self.blocked.fetch_add(1, Relaxed);
    }
}

/// A queue that is there.
pub(crate) struct Row {
    pub(crate) handle: Handle,
    pub(crate) scope: Handle,
    pub(crate) name: NameCopy,
    pub(crate) totals: Totals,
}

impl Queue {
    pub(super) fn totals(&self) -> Totals {
        // One that is closed is there until the last one has left it.
        let (queues, capacity) = if self.is_closed() { (0, 0) } else { (1, self.ring.capacity()) };
        let mut totals = Totals {
            queues,
            queued: self.ring.len() as u64,
            capacity,
            posted: self.ring.tail() + self.numbers.coalesced.load(Relaxed),
            dispatched: self.numbers.dispatched.load(Relaxed),
            dropped: self.numbers.dropped.load(Relaxed),
            refused: self.numbers.refused.load(Relaxed),
            blocked: self.numbers.blocked.load(Relaxed),
            waited: Times::NONE,
        };
        self.numbers.waited.add_to(&mut totals.waited);
        totals
    }

    /// The same once nobody is inside any more.
    pub(super) fn last_totals(&self) -> Totals {
        Totals { queues: 0, queued: 0, capacity: 0, ..self.totals() }
    }
}

/// All queues of the scope that are there, or with 0 all that there ever were.
pub(crate) fn totals(record: &Record, scope: Handle) -> Totals {
    let _section = ENGINE.section(record);
    let series = QUEUES.series.lock();
    let mut totals = if scope.0 == 0 { series.ended(scope) } else { Totals::NONE };
    QUEUES.for_each_member(scope, |queue| totals.add(&queue.totals()));
    totals
}

/// The numbers of the scope's queues by name, or with 0 of all queues that there ever were; of a scope
/// those names that one of its queues has.
pub(crate) fn by_name(record: &Record, scope: Handle) -> Result<Sums<Totals>, Error> {
    let _section = ENGINE.section(record);
    let series = QUEUES.series.lock();
    series.sums(scope, |sums| {
        QUEUES.for_each_member(scope, |queue| sums.add(queue.series, &queue.totals()));
    })
}

/// Every queue that is there.
pub(crate) fn rows(record: &Record) -> Result<Vec<Row>, Error> {
    let mut rows = Vec::new();
    let mut result = Ok(());
    let _section = ENGINE.section(record);
    // Under this lock none is freed, nor its name.
    let _series = QUEUES.series.lock();
    QUEUES.for_each_member(Handle(0), |queue| match rows.try_reserve(1) {
        Ok(()) => {
            let cold = ENGINE.cold_of(ENGINE.slot_of(queue.handle));
            rows.push(Row {
                handle: queue.handle,
                scope: queue.scope,
                name: NameCopy::of(cold.map_or("", crate::engine::Cold::name)),
                totals: queue.totals(),
            });
        }
        Err(_) => result = Err(Error::NoMemory),
    });
    result.map(|()| rows)
}
