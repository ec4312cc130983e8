//! Objects other than callbacks, queues above all, kept alive while in use by the same enter and leave;
//! and callbacks where they are looked at and not called.

use super::Engine;
use super::frame::{Failed, Frame, StackPlace, Tag};
use super::handle::{Handle, Kind};
use super::invoke::DestroyFn;
use super::record::{Record, Stay};
use super::slot::{MANY, Mark, Phase, Slot, Word};
use crate::error::Error;
use crate::sync::{Acquire, Relaxed, Release, TotalOrder, light_barrier};

impl Engine {
    /// Makes an object that `end` ends with `data`, once nobody is inside. `cold`: an entry with its name,
    /// or 0; it is taken over.
    pub(crate) fn open_object(
        &self,
        record: &Record,
        kind: Kind,
        end: DestroyFn,
        cold: u32,
        make: impl FnOnce(Handle) -> *mut (),
    ) -> Result<Handle, Error> {
        let (slot, handle) = match self.take_slot(record, kind) {
            Ok(taken) => taken,
            Err(error) => {
                if cold != 0 {
                    self.give_back_cold(record, cold);
                }
                return Err(error);
            }
        };
        // Relaxed: all of it is published by LIVE.
        slot.user_data.store(make(handle), Relaxed);
        slot.destroy.store(end as *mut (), Relaxed);
        slot.signature.store(0, Relaxed);
        self.own_cold(slot, cold, handle);
        self.publish(slot, handle, 0);
        Ok(handle)
    }

    /// Enters an object of this kind, whose memory lives until the frame is left. `cell`: its handle, or
    /// that of another kind that stands for it ([`Handle::protected`]).
    #[inline(always)]
    pub(crate) fn enter_object<'a>(
        &'a self,
        record: &'a Record,
        handle: Handle,
        kind: Kind,
        cell: Handle,
    ) -> Result<Stay<'a>, Error> {
        // Where it is entered: what is called from inside lies below, see `unwind_to`.
        let here = 0;
        let place = StackPlace::of(&here);
        // A thread that posts to one queue again and again publishes its posts like calls of one callback.
        if let (Some(slot), Some(frame)) = (record.biased_queue(cell), record.next_frame()) {
            frame.tag.set(Tag::QUEUE);
            frame.set_stack_place(place);
            // ORDER[inflight] publish, biased, as in `enter`.
            frame.cell.store(cell.0, Release);
            record.push(frame);
            light_barrier();
            if Word(slot.word.load(Acquire)).is(handle, Phase::Live) {
                return Ok(Stay { record, frame, slot, handle: cell });
            }
            record.forget_run();
            return Err(self.refuse_object(record, frame, slot, handle));
        }
        let slot = self.resolve(handle, kind)?;
        let frame = match record.next_frame() {
            Some(frame) => {
                frame.tag.set(Tag::QUEUE);
                frame.set_stack_place(place);
                frame.cell.swap_sc(cell.0);
                record.push(frame);
                frame
            }
            None => {
                let frame = record.push_cold(Tag::QUEUE)?;
                frame.set_stack_place(place);
                frame.cell.swap_sc(cell.0);
                frame
            }
        };
        // ORDER[inflight] the cell's exchange above, the mark, then the word, as in `enter`; partners as
        // there.
        let mark = Mark(slot.mark.load_sc());
        let known = mark.belongs_to(handle) && (mark.who() == MANY || mark.who() == record.id());
        if (known || self.sign_mark(record, slot, handle, mark))
            && Word(slot.word.load_sc()).is(handle, Phase::Live)
        {
            if cell.has_kind(Kind::Queue) {
                record.count_post(cell, slot);
            }
            return Ok(Stay { record, frame, slot, handle: cell });
        }
        Err(self.refuse_object(record, frame, slot, handle))
    }

    /// The object is gone: leaves what was published.
    #[cold]
    #[inline(never)]
    fn refuse_object(&self, record: &Record, frame: &Frame, slot: &Slot, handle: Handle) -> Error {
        self.leave_object(record, frame, slot, handle);
        let is_ending = handle.has_kind(Kind::Queue) && slot.is_ending(handle);
        if is_ending || slot.was_queue(handle) { Error::Closed } else { Error::Stale }
    }

    /// Puts this thread into the mark; false if that is another object's by now.
    #[cold]
    fn sign_mark(&self, record: &Record, slot: &Slot, handle: Handle, mut mark: Mark) -> bool {
        while mark.belongs_to(handle) {
            let who = match mark.who() {
                MANY => return true,
                who if who == record.id() => return true,
                0 => record.id(),
                _ => MANY,
            };
            // ORDER[inflight] name ourselves before the word is loaded; partner: revoke's load.
            match slot.mark.cas_sc(mark.0, mark.with_who(who).0) {
                Ok(_) => return true,
                Err(current) => mark = Mark(current),
            }
        }
        false
    }

    /// Leaves what `enter_object` entered.
    #[inline(always)]
    pub(crate) fn leave_object(&self, record: &Record, frame: &Frame, slot: &Slot, handle: Handle) {
        frame.tag.set(Tag::CALL);
        // Where the stack was, see `Frame::stack_place`.
        frame.failed.set(Failed::NO);
        let word = if record.is_plain_top(frame) {
            // ORDER[inflight] as in `leave`.
            frame.cell.store(0, Release);
            record.pop(frame);
            light_barrier();
            slot.word.load(Relaxed)
        } else {
            self.clear_frame(record, frame, slot)
        };
        if !Word(word).in_phase(Phase::Live) && Word(word).is(handle, Phase::Revoked) {
            self.after_leave(record, slot, handle);
        }
    }

    /// The same out of order, or by exchange: the word afterwards.
    #[cold]
    #[inline(never)]
    fn clear_frame(&self, record: &Record, frame: &Frame, slot: &Slot) -> u64 {
        let word = if record.leaves_by_exchange.get() {
            // ORDER[inflight] fallback, as in `leave_cold`.
            frame.cell.swap_sc(0);
            slot.word.load_sc()
        } else {
            frame.cell.store(0, Release);
            light_barrier();
            slot.word.load(Relaxed)
        };
        record.settle();
        record.set_attention(record.failures.get() > 0);
        word
    }

    /// Ends an object for everybody: it is freed once nobody is inside. False: another thread was first.
    pub(crate) fn end_object(&self, record: &Record, slot: &Slot, handle: Handle) -> bool {
        let revoked = self.revoke(slot, handle).is_ok();
        if revoked {
            self.quiesce(record, slot, handle);
        }
        revoked
    }

    /// Shows a callback that lives, kept from ending meanwhile, to `look`, which runs no host code.
    /// Neither its home nor its scope's thread hooks have a say.
    pub(crate) fn look_at<T>(
        &self,
        record: &Record,
        callback: Handle,
        look: impl FnOnce(&Slot) -> T,
    ) -> Result<T, Error> {
        let slot = self.resolve(callback, Kind::Callback)?;
        let frame = match record.next_frame() {
            Some(frame) => {
                record.push(frame);
                frame
            }
            None => record.push_cold(Tag::HOLD)?,
        };
        // (The owner alone looks at the top of the stack.)
        let seen = self.protect(record, frame, slot, callback).then(|| look(slot));
        self.leave_object(record, frame, slot, callback);
        seen.ok_or(Error::Stale)
    }

    /// Publishes the frame for a callback, which then does not end until the frame is left. False: it has.
    pub(super) fn protect(
        &self,
        record: &Record,
        frame: &Frame,
        slot: &Slot,
        callback: Handle,
    ) -> bool {
        // ORDER[inflight] the cell, the mark, then the word, as in `enter`; partners as there.
        frame.cell.swap_sc(callback.0);
        let mark = Mark(slot.mark.load_sc());
        let known = mark.belongs_to(callback) && (mark.who() == MANY || mark.who() == record.id());
        (known || self.sign_mark(record, slot, callback, mark))
            && Word(slot.word.load_sc()).is(callback, Phase::Live)
    }

    /// Notes that an event of `scope` is on its way, so that the scope cannot end meanwhile.
    #[inline(always)]
    pub(crate) fn enter_owner<'a>(
        &self,
        record: &'a Record,
        scope: Handle,
        tag: Tag,
    ) -> Result<&'a Frame, Error> {
        let slot = self.resolve(scope, Kind::Scope)?;
        let here = 0;
        let frame = record.push_cold(tag)?;
        frame.set_stack_place(StackPlace::of(&here));
        // ORDER[inflight] as a call: the cell, then the word; partners: the revoke in `revoke_scope`, the
        // scan in `running`.
        frame.cell.swap_sc(scope.0);
        let _ = slot.word.load_sc();
        Ok(frame)
    }
}
