//! Slots that need another look: revoked, and neither the revoker nor a leaver could know that
//! nobody is inside.
//!
//! Two things put a slot here. A heavy barrier that the kernel refuses although it had agreed at the
//! start (a seccomp filter installed late): the thread that was seen inside may already have looked
//! at the word. And a fork: the thread inside does not exist in the child. From a refusal on, every
//! revoker that meets somebody inside leaves the slot here, for good; nearly always the leave that it
//! waits for finalizes all the same, and what slipped through is found by the next unregister,
//! unregister_wait, start or end of a thread.

use super::Engine;
use super::handle::Handle;
use super::record::Record;
use super::slot::{Mark, Phase, Slot};
use crate::platform::clock;
use crate::sync::{AcqRel, Relaxed, SeqCst, TotalOrder, fence};

/// Milliseconds after which a bias without a cell says that its thread is outside. Nothing but a
/// barrier says so for certain, and there is none; but a store waits in a processor for nanoseconds,
/// and every interrupt drains it.
const SETTLED: u64 = 1000;

/// The end of the list: no index, and not 0, which says "not in the list".
const END: u32 = u32::MAX;

impl Engine {
    #[inline(always)]
    pub(crate) fn has_pending(&self) -> bool {
        // Relaxed: a hint; who needs certainty drains.
        self.pending.load(Relaxed) != 0
    }

    /// Puts the slot on the list.
    #[cold]
    pub(crate) fn look_again_later(&self, slot: &Slot, handle: Handle) {
        if self.push_pending(slot, handle) {
            // Relaxed: a time for `look_again`, at worst of another slot.
            self.pending_since.store(clock::milliseconds(), Relaxed);
        }
    }

    /// False if it is there already.
    fn push_pending(&self, slot: &Slot, handle: Handle) -> bool {
        if slot.pending.compare_exchange(0, END, AcqRel, Relaxed).is_err() {
            return false;
        }
        let mut head = self.pending.load(Relaxed);
        loop {
            slot.pending.store(if head == 0 { END } else { head }, Relaxed);
            // AcqRel: partner: the swap in `drain_pending`.
            match self.pending.compare_exchange_weak(head, handle.index(), AcqRel, Relaxed) {
                Ok(_) => return true,
                Err(current) => head = current,
            }
        }
    }

    /// Has another look at each of them.
    #[cold]
    #[inline(never)]
    pub(crate) fn drain_pending(&self, record: &Record) {
        // The whole list belongs to this thread now; an entry can be put on again once unlinked.
        let mut list = Taken { engine: self, next: self.pending.swap(0, AcqRel) };
        while let Some((slot, index)) = list.unlink() {
            self.look_again(record, slot, index);
        }
    }

    fn look_again(&self, record: &Record, slot: &Slot, index: u32) {
        // The slot may serve another generation by now: then this is one more look at that.
        let handle = Mark(slot.mark.load_sc()).handle(index);
        if !slot.peek().is(handle, Phase::Revoked) {
            return;
        }
        fence(SeqCst);
        let elapsed = clock::milliseconds().saturating_sub(self.pending_since.load(Relaxed));
        let mark = Mark(slot.mark.load_sc());
        if self.others_inside(record, mark, handle)
            || self.kept_here(record, slot, handle)
            || (elapsed < SETTLED && self.others_biased(record, mark, handle))
        {
            let _ = self.push_pending(slot, handle);
        } else {
            self.finalize(record, slot, handle);
        }
    }
}

/// A list that a thread works through. What is left when a destroy function ends by an exception, a
/// pthread_exit or a cancellation goes back.
struct Taken<'a> {
    engine: &'a Engine,
    next: u32,
}

impl<'a> Taken<'a> {
    fn unlink(&mut self) -> Option<(&'a Slot, u32)> {
        let index = self.next;
        if index == 0 || index == END {
            return None;
        }
        let slot = self.engine.slots.at(index);
        self.next = slot.pending.swap(0, AcqRel);
        Some((slot, index))
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        while let Some((slot, index)) = self.unlink() {
            let handle = Mark(slot.mark.load_sc()).handle(index);
            let _ = self.engine.push_pending(slot, handle);
        }
    }
}
