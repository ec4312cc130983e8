//! What queues have done. Posters count nothing: the ring's tail says how many have come. Dispatchers
//! count on a line of their own, once a dispatch; what is refused, dropped or made to wait is counted where
//! that happens, which is never the common case.

use super::Queue;
use super::open::QUEUES;
use crate::engine::{ENGINE, Handle, Record};
use crate::error::Error;
use crate::sync::{AtomicU64, Relaxed};

#[repr(align(128))]
pub(super) struct Numbers {
    dispatched: AtomicU64,
    dropped: AtomicU64,
    coalesced: AtomicU64,
    refused: AtomicU64,
    blocked: AtomicU64,
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
}

impl Totals {
    pub(super) const NONE: Self = Self {
        queues: 0,
        queued: 0,
        capacity: 0,
        posted: 0,
        dispatched: 0,
        dropped: 0,
        refused: 0,
        blocked: 0,
    };

    pub(crate) fn add(&mut self, other: &Self) {
        self.queues += other.queues;
        self.queued += other.queued;
        self.capacity += other.capacity;
        self.posted += other.posted;
        self.dispatched += other.dispatched;
        self.dropped += other.dropped;
        self.refused += other.refused;
        self.blocked += other.blocked;
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

    /// A post waits for room.
    pub(super) fn count_blocked(&self) {
        self.blocked.fetch_add(1, Relaxed);
    }
}

impl Queue {
    pub(super) fn totals(&self) -> Totals {
        Totals {
            queues: 1,
            queued: self.ring.len() as u64,
            capacity: self.ring.capacity(),
            posted: self.ring.tail() + self.numbers.coalesced.load(Relaxed),
            dispatched: self.numbers.dispatched.load(Relaxed),
            dropped: self.numbers.dropped.load(Relaxed),
            refused: self.numbers.refused.load(Relaxed),
            blocked: self.numbers.blocked.load(Relaxed),
        }
    }

    /// The same once nobody is inside any more.
    pub(super) fn last_totals(&self) -> Totals {
        Totals { queues: 0, queued: 0, capacity: 0, ..self.totals() }
    }
}

/// All queues of the scope that are there, or with 0 all that there ever were.
pub(crate) fn totals(record: &Record, scope: Handle) -> Totals {
    let mut totals = Totals::NONE;
    if scope.0 == 0 {
        totals.add(&QUEUES.ended(record));
    }
    for_each(record, scope, |_, queue| {
        totals.add(queue);
        Ok(())
    })
    .unwrap_or_default();
    totals
}

/// Shows the numbers of each queue of the scope, or with 0 of the process, with its name.
pub(crate) fn for_each(
    record: &Record,
    scope: Handle,
    mut show: impl FnMut(&str, &Totals) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut result = Ok(());
    super::Queues::for_each(&ENGINE, record, |inside| {
        let queue = inside.queue();
        if result.is_ok() && !queue.is_inherited(&ENGINE) && (scope.0 == 0 || queue.scope == scope)
        {
            let name = ENGINE.cold_of(inside.slot).map_or("", crate::engine::Cold::name);
            result = show(name, &queue.totals());
        }
    });
    result
}
