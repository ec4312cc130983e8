//! What a thread has done, counted by the thread alone and read by whoever wants to know.
//!
//! A record keeps its numbers when its thread ends, and the next owner counts on: so a sum over all
//! records never goes back, and nothing is lost or seen twice.

use crate::error::Error;
use crate::sync::{AtomicU64, Relaxed};

/// A number that one thread counts up.
pub(crate) struct Counter(AtomicU64);

impl Counter {
    #[cfg(loom)]
    pub(crate) fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// One more. The owner's: no other thread writes, so it is no read-modify-write.
    #[inline(always)]
    pub(crate) fn count(&self) {
        // Relaxed, here and below: a statistic.
        self.0.store(self.0.load(Relaxed).wrapping_add(1), Relaxed);
    }

    /// Back to none: nobody counts.
    pub(super) fn clear(&self) {
        self.0.store(0, Relaxed);
    }

    /// The last one was none.
    #[cold]
    fn uncount(&self) {
        self.0.store(self.0.load(Relaxed).wrapping_sub(1), Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Zeroed memory is all at zero.
pub(crate) struct Counts {
    /// Callbacks.
    pub(crate) registered: Counter,
    pub(crate) destroyed: Counter,
    /// Calls and pins by how they were refused, or failed.
    stale: Counter,
    callback: Counter,
    panic: Counter,
    signature: Counter,
    thread: Counter,
    limit: Counter,
}

/// The same of all threads.
#[derive(Clone, Copy, Default)]
pub(crate) struct Sums {
    pub(crate) calls: u64,
    pub(crate) registered: u64,
    pub(crate) destroyed: u64,
    pub(crate) stale: u64,
    pub(crate) callback: u64,
    pub(crate) panic: u64,
    pub(crate) signature: u64,
    pub(crate) thread: u64,
    pub(crate) limit: u64,
}

impl Sums {
    /// Calls that have entered, and that the callback has marked as failed.
    pub(crate) fn failed(&self) -> u64 {
        self.callback + self.panic
    }
}

impl Counts {
    #[cfg(loom)]
    pub(crate) fn new() -> Self {
        Self {
            registered: Counter::new(),
            destroyed: Counter::new(),
            stale: Counter::new(),
            callback: Counter::new(),
            panic: Counter::new(),
            signature: Counter::new(),
            thread: Counter::new(),
            limit: Counter::new(),
        }
    }

    fn of(&self, error: Error) -> Option<&Counter> {
        Some(match error {
            Error::Stale => &self.stale,
            Error::Callback => &self.callback,
            Error::Panic => &self.panic,
            Error::Signature { .. } => &self.signature,
            Error::Thread { .. } => &self.thread,
            Error::Limit(_) => &self.limit,
            _ => return None,
        })
    }

    /// A call has come to nothing, or has failed.
    #[cold]
    pub(crate) fn count_failure(&self, error: Error) {
        if let Some(counter) = self.of(error) {
            counter.count();
        }
    }

    /// The last failure was none: the caller tries another callback.
    #[cold]
    pub(crate) fn uncount_stale(&self) {
        self.stale.uncount();
    }

    pub(crate) fn add_to(&self, sums: &mut Sums) {
        sums.registered += self.registered.get();
        sums.destroyed += self.destroyed.get();
        sums.stale += self.stale.get();
        sums.callback += self.callback.get();
        sums.panic += self.panic.get();
        sums.signature += self.signature.get();
        sums.thread += self.thread.get();
        sums.limit += self.limit.get();
    }
}
