//! What a thread is inside of, asked and changed from the outside: depth, current callback, and the
//! clean-up after a longjmp, a thread's end and a fork.

use super::Engine;
use super::frame::{Frame, StackPlace, Tag};
use super::gate::Section;
use super::handle::{Handle, Kind};
use super::record::Record;
use super::slot::{Mark, Phase, Slot, Word};
use crate::error::Error;
use crate::platform::logging;
use crate::sync::Relaxed;

/// How often a thread's end is tried: glibc's PTHREAD_DESTRUCTOR_ITERATIONS.
pub(super) const ROUNDS: usize = 4;

/// Counts as depth: a call or an entered pin, not a destroy or detach function.
fn counts(frame: &&Frame) -> bool {
    frame.handle().0 != 0 && frame.tag.get().counts()
}

impl Record {
    /// How many calls and pins this thread is inside.
    pub(crate) fn depth(&self) -> u32 {
        self.stack().filter(counts).count() as u32
    }

    /// How many calls of this thread are above that frame.
    pub(crate) fn calls_above(&self, frame: *const Frame) -> usize {
        let above = self.stack().take_while(|other| !std::ptr::eq(*other, frame));
        above.filter(|other| other.handle().0 != 0 && other.tag.get() == Tag::CALL).count()
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
            && let Some(frame) = record.innermost()
        {
            self.release_frame(record, frame);
        }
        // A destroy function at the top runs still if we were called by it, and else was left, too.
        while let Some(frame) = record.innermost()
            && !frame.tag.get().counts()
            && frame.stack_place().is_below(here)
        {
            self.release_frame(record, frame);
        }
        Ok(())
    }

    fn release_frame(&self, record: &Record, frame: &Frame) {
        match frame.tag.get() {
            Tag::DESTROY => self.abandon_destroy(record, frame),
            Tag::DETACH | Tag::CLOSE | Tag::POST => self.leave_scope_frame(record, frame, false),
            Tag::EVENT => {
                // Its payload first: freeing it is the scope's code.
                self.abandon_delivery(record, frame);
                self.leave_scope_frame(record, frame, true);
            }
            Tag::QUEUE => self.abandon_queue(record, frame),
            Tag::GUEST => {
                self.leave_guest(record, frame, self.slots.at(frame.handle().index()));
            }
            _ => {
                let attaching = record.attachments.abandon(record.index_of(frame));
                let slot = self.slots.at(frame.handle().index());
                // Nobody is left to be told of a failure.
                let _ = match attaching {
                    true => self.leave_cold(record, frame, slot),
                    false => self.leave_abandoned(record, frame, slot),
                };
            }
        }
    }

    fn abandon_delivery(&self, record: &Record, frame: &Frame) {
        if let Some(hooks) = self.queue_hooks.get() {
            (hooks.abandon_dispatch)(self, record, frame);
        }
    }

    fn abandon_queue(&self, record: &Record, frame: &Frame) {
        self.abandon_delivery(record, frame);
        let handle = frame.handle().protected();
        self.leave_object(record, frame, self.slots.at(handle.index()), handle);
    }

    /// The thread ends: what it is still inside of is released, and its scopes are told.
    pub(crate) fn end_thread(&self, record: &Record) {
        // Before the frames: destroy functions may leave some behind.
        if self.has_pending() {
            self.drain_pending(record);
        }
        // What is released and detached here may enter and attach anew: as often as pthread runs its own
        // destructors.
        for _ in 0..ROUNDS {
            self.release_all_frames(record);
            self.detach_thread(record);
        }
        self.release_all_frames(record);
        if !record.attachments.is_empty() {
            logging::warn(format_args!("a thread's detach functions attach it again and again"));
            record.attachments.forget();
        }
        record.free_slots.drain(&self.slots);
        record.free_cold.drain(&self.cold);
        self.records.release(record);
    }

    fn release_all_frames(&self, record: &Record) {
        while let Some(frame) = record.innermost() {
            // Relaxed: a statistic.
            let count = self.left_by_thread_end.fetch_add(1, Relaxed) + 1;
            let what = match frame.tag.get() {
                tag if !tag.counts() => tag.ending_of(frame.handle()),
                tag if tag.is_pin() => "a pin of callback",
                _ => "a call of callback",
            };
            let name = self.name_for_log(frame.handle());
            logging::warn(format_args!(
                "a thread ended inside {what} {name}: released ({count} so far)"
            ));
            self.release_frame(record, frame);
        }
    }

    /// In the child of a fork: the other threads do not exist, so what they were inside of is not in
    /// flight. `mine` is the forking thread's record. Runs no host code: callbacks that were revoked
    /// are finalized by the next unregister, unregister_wait, start or end of a thread.
    pub(crate) fn after_fork_in_child(&self, mine: Option<&Record>) {
        let section = self.open_gate_in_child();
        self.deadlock_search.reset();
        #[cfg(not(loom))]
        self.onlookers.reset();
        self.finish_change_in_child();
        // Relaxed: there is one thread.
        self.forks.store(self.forks.load(Relaxed).wrapping_add(1), Relaxed);
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
            self.sweep_after_fork(&section, mine);
        }
        if let Some(mine) = mine {
            mine.thread.store(crate::platform::thread_id(), Relaxed);
        }
    }

    /// In the child of a fork: ends what the threads that do not exist had begun to end, or were inside
    /// of. A look at every slot, 5 ms for a million, and only in a process with other threads.
    fn sweep_after_fork(&self, section: &Section<'_>, mine: Option<&Record>) {
        for (index, slot) in self.slots.iter() {
            let word = slot.peek();
            let handle = Mark(slot.mark.load(Relaxed)).handle(index);
            if mine.is_some_and(|mine| mine.is_inside(handle)) {
                continue;
            }
            // (A scope that is closing waits to be closed again.)
            if word.in_phase(Phase::Revoked) && !handle.has_kind(Kind::Scope) {
                self.look_again_later(slot, handle);
            } else if word.in_phase(Phase::Finalizing) {
                self.end_interrupted_destroy(section, slot, handle);
            }
        }
    }

    /// A destroy function was running on a thread that is gone: it cannot run again, so the callback
    /// ends as it is. The slot is lost to the child.
    fn end_interrupted_destroy(&self, section: &Section<'_>, slot: &Slot, handle: Handle) {
        let cold = if handle.has_kind(Kind::Callback) { self.cold_of(slot) } else { None };
        // Relaxed: there is one thread. What waits in a queue has not begun: who waits for it runs it.
        let is_deferred = cold.is_some_and(|cold| cold.is_deferred.load(Relaxed) != 0);
        if slot.peek().is(handle, Phase::Finalizing) && !is_deferred {
            if handle.has_kind(Kind::Scope) {
                self.end_scope(section, slot);
            } else if let Some(cold) = cold {
                // While it is in its scope, whose sum it stays in.
                if cold.meter.is_on() {
                    self.end_meter_in(section, cold);
                }
                if cold.membership.scope().0 != 0 {
                    self.leave_scope_in(section, cold);
                }
            }
            let next = handle.generation().wrapping_add(1);
            slot.mark.store(Mark::free(next).0, Relaxed);
            slot.word.store(Word::new(next, Phase::Free).0, Relaxed);
        }
    }
}
