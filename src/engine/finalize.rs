//! The end of a callback: destroy runs once, then the slot is free for the next generation.

use super::frame::{Failed, Frame, Tag};
use super::handle::{Handle, Kind};
use super::record::Record;
use super::slot::{Mark, Phase, Slot, Word};
use super::{Engine, invoke, probes};
use crate::platform::futex;
use crate::sync::{Relaxed, Release, TotalOrder, light_barrier};

impl Engine {
    /// Nobody is inside: runs destroy, unless another thread has come first.
    pub(crate) fn finalize(&self, record: &Record, slot: &Slot, handle: Handle) {
        if slot.begin_finalizing(handle) {
            self.run_destroy(record, slot, handle);
        }
    }

    /// The phase is FINALIZING, and by this thread.
    #[inline(always)]
    pub(crate) fn run_destroy(&self, record: &Record, slot: &Slot, handle: Handle) {
        if !self.defers_destroy(record, slot, handle) {
            self.run_destroy_here(record, slot, handle);
        }
    }

    /// The same, and it is for this thread to run the destroy function.
    pub(crate) fn run_destroy_here(&self, record: &Record, slot: &Slot, handle: Handle) {
        // When the spare frames are in use as well, destroy runs without one: `is_inside`, deadlock
        // detection and `cbr_fail` do not see it.
        let frame = record.push_destroy(handle);
        let finalization = Finalization { engine: self, record, slot, handle, frame };
        // Relaxed: a callback's are published with LIVE, which the compare-exchange has acquired; a
        // scope's by its locks, which whoever closes it has taken.
        let destroy = slot.destroy.load(Relaxed);
        if handle.has_kind(Kind::Callback) {
            probes::destroy(handle, slot);
        }
        invoke::destroy(destroy, slot.user_data.load(Relaxed), frame);
        drop(finalization);
    }

    /// Completes the finalization of the slot that `frame` names, whose destroy function was left by
    /// a longjmp.
    pub(crate) fn abandon_destroy(&self, record: &Record, frame: &Frame) {
        let handle = frame.handle();
        let slot = self.slots.at(handle.index());
        drop(Finalization { engine: self, record, slot, handle, frame: Some(frame) });
    }

    /// Frees what is no callback, and finalized.
    #[cold]
    #[inline(never)]
    fn end_other(&self, record: &Record, slot: &Slot, handle: Handle) {
        match handle.has_kind(Kind::Scope) {
            true => self.end_scope(&self.section(record), slot),
            false => self.end_cold(record, slot),
        }
        self.free_slot_of(record, slot, handle.index(), handle.has_kind(Kind::Queue));
    }

    /// Frees a slot that this thread owns alone, phase FINALIZING. One whose
    /// generations are used up is never handed out again.
    #[inline(always)]
    pub(crate) fn free_slot(&self, record: &Record, slot: &Slot, index: u32) {
        self.free_slot_of(record, slot, index, false);
    }

    /// The same; of a queue the slot remembers what it was for a while.
    #[inline(always)]
    fn free_slot_of(&self, record: &Record, slot: &Slot, index: u32, was_queue: bool) {
        let generation = slot.peek().generation();
        let next = generation.wrapping_add(1);
        // The mark first: a guess of the next generation must not put its name where register will
        // write. Release: who waits and sees it sees destroy done; partner: `Slot::is_ending`.
        let mark = if was_queue { Mark::was_queue(next) } else { Mark::free(next) };
        slot.mark.store(mark.0, Release);
        let free = Word::new(next, Phase::Free).0;
        // ORDER[wait] the word, then the flag; partner: the waiter's flag, heavy barrier, then word.
        // Release: the next owner of the slot, and waiters, see destroy done.
        if record.leaves_by_exchange.get() {
            slot.word.swap_sc(free);
        } else {
            slot.word.store(free, Release);
            light_barrier();
        }
        // Not reset here: it may be the flag of a waiter of the next generation already, see `reuse`.
        if slot.waited_for.load_sc() != 0 {
            futex::wake_all(&slot.word);
        }
        // Generation 0 is what a wrap would give, and in no handle.
        let reusable = match (next, was_queue) {
            (0, _) => 0,
            (_, false) => index,
            (_, true) => self.closed_queues.exchange(index),
        };
        if reusable != 0 {
            record.free_slots.push(&self.slots, reusable);
        }
    }
}

impl Record {
    fn push_destroy(&self, handle: Handle) -> Option<&Frame> {
        let frame = match self.next_frame() {
            Some(frame) => {
                frame.tag.set(Tag::DESTROY);
                self.push(frame);
                frame
            }
            None => self.push_cold(Tag::DESTROY).ok()?,
        };
        // Relaxed: the note that a waiting destroy function publishes comes later, in the total order.
        frame.cell.store(handle.0, Relaxed);
        Some(frame)
    }
}

/// A destroy function in progress. Dropped when it returns, or when an exception, pthread_exit or a
/// cancellation passes through.
struct Finalization<'a> {
    engine: &'a Engine,
    record: &'a Record,
    slot: &'a Slot,
    handle: Handle,
    frame: Option<&'a Frame>,
}

impl Drop for Finalization<'_> {
    fn drop(&mut self) {
        let Self { engine, record, slot, handle, frame } = *self;
        if !slot.peek().is(handle, Phase::Finalizing) {
            // Ended by `cbr_unwind_to`, called on another stack, while destroy was running.
            return;
        }
        if handle.has_kind(Kind::Callback) {
            engine.end_cold(record, slot);
            record.counts.destroyed.count();
            engine.free_slot(record, slot, handle.index());
        } else {
            engine.end_other(record, slot, handle);
        }
        if let Some(frame) = frame {
            frame.tag.set(Tag::CALL);
            frame.failed.set(Failed::NO);
            frame.cell.store(0, Relaxed);
            if record.is_plain_top(frame) {
                record.pop(frame);
            } else {
                record.settle();
            }
        }
    }
}
