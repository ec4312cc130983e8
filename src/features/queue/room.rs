//! Who waits for room in a full queue.

use crate::platform::futex;
use crate::sync::{AtomicU32, Relaxed, SeqCst, TotalOrder, light_barrier};

/// *Wait against a cell that becomes free*: who waits counts itself, passes the heavy barrier, then
/// tries once more; who frees a cell frees it, passes the light barrier, then looks at the count.
pub(crate) struct Room {
    blocked: AtomicU32,
    changes: AtomicU32,
}

impl Room {
    pub(crate) fn new() -> Self {
        Self { blocked: AtomicU32::new(0), changes: AtomicU32::new(0) }
    }

    /// A cell has become free.
    #[inline(always)]
    pub(crate) fn tell(&self) {
        // ORDER[room] the cell, then the count; partner: the heavy barrier in `post::block`. (The ring moves
        // its head by exchange after the cell is free, so that this holds without a membarrier, too.)
        light_barrier();
        if self.blocked.load(Relaxed) != 0 {
            self.tell_all();
        }
    }

    /// Has everybody who waits look again.
    #[cold]
    pub(crate) fn tell_all(&self) {
        self.changes.fetch_add(1, SeqCst);
        futex::wake_all(&self.changes);
    }

    pub(crate) fn changes(&self) -> &AtomicU32 {
        &self.changes
    }

    /// The calling thread waits, until this is dropped.
    pub(crate) fn wait(&self) -> Waits<'_> {
        self.blocked.fetch_add(1, SeqCst);
        Waits { room: self, seen: self.changes.load_sc() }
    }
}

pub(crate) struct Waits<'a> {
    room: &'a Room,
    pub(crate) seen: u32,
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.room.blocked.fetch_sub(1, SeqCst);
    }
}
