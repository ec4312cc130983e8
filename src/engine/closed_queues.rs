//! Slots of queues that were closed, kept from use for a while, so that who comes late is told that the
//! queue was closed and not that there never was one.

use crate::sync::{AcqRel, AtomicU32};

const KEPT: usize = if cfg!(any(loom, miri)) { 1 } else { 64 };

/// A circle of slots' indices.
pub(crate) struct ClosedQueues {
    next: AtomicU32,
    kept: [AtomicU32; KEPT],
}

impl ClosedQueues {
    #[cfg(not(loom))]
    pub(crate) const fn new() -> Self {
        Self { next: AtomicU32::new(0), kept: [const { AtomicU32::new(0) }; KEPT] }
    }
    #[cfg(loom)]
    pub(crate) fn new() -> Self {
        Self { next: AtomicU32::new(0), kept: std::array::from_fn(|_| AtomicU32::new(0)) }
    }

    /// Keeps the slot, and gives the one that has been kept for longest; 0: none yet.
    pub(crate) fn exchange(&self, index: u32) -> u32 {
        let place = self.next.fetch_add(1, AcqRel) as usize % KEPT;
        // AcqRel: hands the slot, free and nobody's, from one thread to the next.
        self.kept[place].swap(index, AcqRel)
    }
}
