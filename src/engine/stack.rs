//! What a thread is inside of, asked and changed from the outside: depth, current callback, and the
//! clean-up after a longjmp, a thread's end and a fork.

use super::Engine;
use super::frame::{Frame, StackPlace, Tag};
use super::handle::{Handle, Kind};
use super::record::Record;
use super::slot::{Phase, Slot};
use crate::error::Error;
use crate::platform::logging;
use crate::sync::Relaxed;

/// Counts as depth: a call or an entered pin, not a destroy function.
fn counts(frame: &&Frame) -> bool {
    frame.handle().0 != 0 && frame.tag.get() != Tag::DESTROY
}

impl Record {
    /// How many calls and pins this thread is inside.
    pub(crate) fn depth(&self) -> u32 {
        self.stack().filter(counts).count() as u32
    }

    /// The callback that this thread is inside, innermost.
    pub(crate) fn current(&self) -> Option<Handle> {
        self.stack().find(counts).map(Frame::handle)
    }
}

impl Engine {
    /// Releases what lies above `depth`: host code has jumped over those calls.
    /// `here` is where the native stack of the caller is.
    #[inline(never)]
    pub(crate) fn unwind_to(
        &self,
        record: &Record,
        depth: u32,
        here: StackPlace,
    ) -> Result<(), Error> {
        if depth > record.depth() {
            return Err(Error::Invalid("the depth is greater than the thread's"));
        }
        while record.depth() > depth
            && let Some(frame) = record.stack().find(|frame| frame.handle().0 != 0)
        {
            self.release_frame(record, frame);
        }
        // A destroy function at the top runs still if we were called by it, and else was left, too.
        while let Some(frame) = record.stack().find(|frame| frame.handle().0 != 0)
            && frame.tag.get() == Tag::DESTROY
            && frame.stack_place().is_below(here)
        {
            self.release_frame(record, frame);
        }
        Ok(())
    }

    fn release_frame(&self, record: &Record, frame: &Frame) {
        if frame.tag.get() == Tag::DESTROY {
            self.abandon_destroy(record, frame);
        } else {
            let slot = self.slots.at(frame.handle().index());
            // Nobody is left to be told of a failure.
            let _ = self.leave_cold(record, frame, slot);
        }
    }

    /// The thread ends: what it is still inside of is released.
    pub(crate) fn end_thread(&self, record: &Record) {
        // Before the frames: destroy functions may leave some behind.
        if self.has_pending() {
            self.drain_pending(record);
        }
        while let Some(frame) = record.stack().find(|frame| frame.handle().0 != 0) {
            // Relaxed: a statistic.
            let count = self.left_by_thread_end.fetch_add(1, Relaxed) + 1;
            logging::warn(|| {
                let what = match frame.tag.get() {
                    Tag::DESTROY => "the destroy function of",
                    tag if tag.is_pin() => "a pin of",
                    _ => "a call of",
                };
                let name = self.name_for_log(frame.handle());
                format!("a thread ended inside {what} callback {name}: released ({count} so far)")
            });
            self.release_frame(record, frame);
        }
        record.free_slots.drain(&self.slots);
        record.free_cold.drain(&self.cold);
        self.records.release(record);
    }

    /// In the child of a fork: the other threads do not exist, so what they were inside of is not in
    /// flight. `mine` is the forking thread's record. Runs no host code: callbacks that were revoked
    /// are finalized by the next unregister, unregister_wait, start or end of a thread.
    pub(crate) fn after_fork_in_child(&self, mine: Option<&Record>) {
        self.deadlock_search.reset();
        self.barrier.renew();
        let mut others = false;
        for record in self.records.iter() {
            // Relaxed: there is one thread.
            let in_use = record.thread.load(Relaxed) != 0;
            if !in_use || mine.is_some_and(|mine| std::ptr::eq(mine, record)) {
                continue;
            }
            others = true;
            record.abandon();
            self.records.release(record);
        }
        if others {
            self.sweep_after_fork(mine);
        }
        if let Some(mine) = mine {
            mine.thread.store(crate::platform::thread_id(), Relaxed);
        }
    }

    /// In the child of a fork: ends what the threads that do not exist had begun to end, or were inside
    /// of. A look at every slot, 5 ms for a million, and only in a process with other threads.
    fn sweep_after_fork(&self, mine: Option<&Record>) {
        for (index, slot) in self.slots.iter() {
            let word = slot.peek();
            let handle = Handle::new(word.generation(), Kind::Callback, index);
            if mine.is_some_and(|mine| mine.is_inside(handle)) {
                continue;
            }
            if word.in_phase(Phase::Revoked) {
                self.look_again_later(slot, handle);
            } else if word.in_phase(Phase::Finalizing) {
                self.end_interrupted_destroy(slot, handle);
            }
        }
    }

    /// A destroy function was running on a thread that is gone: it cannot run again, so the callback
    /// ends as it is. The slot is lost to the child.
    fn end_interrupted_destroy(&self, slot: &Slot, handle: Handle) {
        if slot.peek().is(handle, Phase::Finalizing) {
            let next = handle.generation().wrapping_add(1);
            slot.mark.store(super::slot::Mark::free(next).0, Relaxed);
            slot.word.store(super::slot::Word::new(next, Phase::Free).0, Relaxed);
        }
    }
}
