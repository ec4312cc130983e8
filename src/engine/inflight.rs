//! In-flight protection: a callback's data is not freed while a call is inside it, and entering and
//! leaving writes nothing that another core writes, takes no lock and makes no system call.
//!
//! Hazard pointers with an asymmetric fence (as in folly and seize), for a slot instead of a
//! pointer, and with a twist: whoever leaves last finalizes, so nothing is ever deferred.
//!
//! ```text
//! enter(h):  cell := h                       exchange; or, biased towards h: store, light barrier
//!            mark names me or MANY, of h's generation; else make it so, or back out
//!            load the word                   always after the mark; not (LIVE, h) → leave, STALE
//! leave(h):  cell := 0; light barrier; load the word
//!            only if (REVOKED, h): fence, scan; nobody inside → finalize
//! revoke(h): word (LIVE, h) → (REVOKED, h)
//!            load the mark; scan the other records that it names
//!            one is inside or biased → heavy barrier; scan again; inside → return: its leave comes by
//!            inside myself, or held → return; else finalize
//! finalize:  word (REVOKED, h) → FINALIZING  one winner
//!            destroy; mark := free; word → FREE, next generation; wake who waits
//! ```
//!
//! Why it is right. *Enter against revoke*: our exchange is first, then the scan sees the cell and
//! does not finalize; or the revoke is first, then our load of the word sees REVOKED and we back
//! out. *Leave against revoke*, the cell seen set: our clearing was before the heavy barrier, then
//! the second scan misses us and the revoker finalizes; or our load of the word comes after it, then
//! it sees REVOKED and we finalize. *Two leavers*: each clears, fences, then scans, so the later one
//! sees both cells cleared; the compare-exchange to FINALIZING picks one if both do.
//!
//! *The bias.* An exchange costs as much as all the rest of a call, or twice that. A thread that calls
//! one callback many times in a row says so in its record, by exchange, and from then on publishes
//! calls of that one by a plain store, until it enters another. Whoever ends the callback's life sees
//! the bias and pays a heavy barrier before it believes the cells: our store of the cell was before
//! the barrier, then the scan sees it; or our load of the word comes after it, then it sees REVOKED.
//! Something has to be paid on one of the two sides (Attiya et al., Laws of Order, 2011); this way the
//! one system call comes after at least [`super::record::RUN`] calls that did not pay.
//!
//! The word must be loaded after the mark: the other way round, a caller that finds MANY, set a
//! moment ago by a third thread, goes in while the revoker scans only the record that the mark named
//! before. `tests/protocol` explores all of this with store buffers and a real membarrier, and shows
//! what each step is there for by leaving it out; `src/tests/model_*` run this code under loom.
//!
//! Without membarrier every leave is an exchange followed by a load in the total order, nobody is
//! biased, and the revoker needs neither heavy barrier nor second scan.

use super::frame::{Frame, Tag};
use super::handle::{Handle, Kind};
use super::record::{Record, Stay};
use super::signature::Signature;
use super::slot::{MANY, Mark, Phase, SPECIAL, Slot, TYPED, Word};
use super::{Engine, probes};
use crate::error::{Error, Fault};
use crate::platform::membarrier::Heavy;
use crate::sync::{Acquire, Relaxed, Release, SeqCst, TotalOrder, fence, light_barrier};

/// Leaves the frame when a tracer's function unwinds; to be forgotten when it has returned.
pub(super) struct LeavingCold<'a>(
    pub(super) &'a Engine,
    pub(super) &'a Record,
    pub(super) &'a Frame,
    pub(super) &'a Slot,
);

impl Drop for LeavingCold<'_> {
    fn drop(&mut self) {
        let _ = self.0.leave_cold(self.1, self.2, self.3);
    }
}

/// What comes here is laid out behind the rest, which then has no jump around it.
#[cold]
fn out_of_line() {}

impl Engine {
    /// Enters the callback. `ANY_TYPE`: whatever its signature; else only the default one. One that is
    /// special is entered and yet a fault: see [`Engine::enter_special`].
    #[inline(always)]
    pub(crate) fn enter<'a, const ANY_TYPE: bool>(
        &'a self,
        record: &'a Record,
        handle: Handle,
    ) -> Result<Stay<'a>, Fault> {
        let (Some(slot), Some(frame)) = (record.biased::<ANY_TYPE>(handle), record.next_frame())
        else {
            out_of_line();
            let (frame, slot) = self.enter_unbiased::<ANY_TYPE>(record, handle)?;
            return Ok(Stay { record, frame, slot, handle });
        };
        // ORDER[inflight] publish, biased: release, then the light barrier; partner: the heavy one of
        // whoever sees the bias.
        frame.cell.store(handle.0, Release);
        record.push(frame);
        light_barrier();
        // ORDER[inflight] acquire: register's fields; partner: the compare-exchange in `revoke`.
        if !Word(slot.word.load(Acquire)).is_live_callback(handle) {
            return Err(self.back_out(record, frame, slot));
        }
        record.calls.count();
        Ok(Stay { record, frame, slot, handle })
    }

    /// Enters by exchange: every call that is not one of a long run.
    #[inline(never)]
    fn enter_unbiased<'a, const ANY_TYPE: bool>(
        &'a self,
        record: &'a Record,
        handle: Handle,
    ) -> Result<(&'a Frame, &'a Slot), Fault> {
        let slot = self.slots.get(handle.index_as(Kind::Callback));
        let (Some(slot), Some(frame)) = (slot, record.next_frame()) else {
            return self.enter_cold(record, handle, ANY_TYPE, Tag::CALL);
        };
        // ORDER[inflight] publish; partner: the scan in `Record::holds`.
        frame.cell.swap_sc(handle.0);
        // ORDER[inflight] mark, then word; partners: other callers' compare-exchange of the mark in
        // `check_in`, the reset in `free_slot`, the compare-exchange of the word in `revoke`.
        let full = Mark(slot.mark.load_sc());
        let mark = full.ignoring(if ANY_TYPE { TYPED } else { 0 });
        record.push(frame);
        if (mark == Mark::plain(handle, record.id()) || mark == Mark::plain(handle, MANY))
            && Word(slot.word.load_sc()).is_live_callback(handle)
        {
            record.count_run(handle, slot, full);
            record.calls.count();
            return Ok((frame, slot));
        }
        self.check_in(record, frame, slot, handle, ANY_TYPE)?;
        Ok((frame, slot))
    }

    #[cold]
    #[inline(never)]
    pub(crate) fn enter_cold<'a>(
        &'a self,
        record: &'a Record,
        handle: Handle,
        any_type: bool,
        tag: Tag,
    ) -> Result<(&'a Frame, &'a Slot), Fault> {
        let slot = self.resolve(handle, Kind::Callback).map_err(|error| {
            if error == Error::Stale {
                probes::stale(handle);
            }
            record.fault(error)
        })?;
        let frame = record.push_cold(tag).map_err(|error| record.fault(error))?;
        // ORDER[inflight] as in `enter`.
        frame.cell.swap_sc(handle.0);
        self.check_in(record, frame, slot, handle, any_type)?;
        Ok((frame, slot))
    }

    /// The cell is published, the frame on the stack: puts this thread into the mark and looks at
    /// the word, or backs out.
    #[cold]
    #[inline(never)]
    fn check_in(
        &self,
        record: &Record,
        frame: &Frame,
        slot: &Slot,
        handle: Handle,
        any_type: bool,
    ) -> Result<(), Fault> {
        let mut mark = Mark(slot.mark.load_sc());
        loop {
            // A free slot's mark belongs to no handle: a guess of the next generation backs out here
            // instead of leaving a name that register would wipe away.
            if !mark.belongs_to(handle) {
                return Err(self.back_out(record, frame, slot));
            }
            let who = match mark.who() {
                MANY => break,
                who if who == record.id() => break,
                0 => record.id(),
                _ => MANY,
            };
            // ORDER[inflight] name ourselves before the word is loaded; partner: revoke's load.
            match slot.mark.cas_sc(mark.0, mark.with_who(who).0) {
                Ok(_) => break,
                Err(current) => mark = Mark(current),
            }
        }
        // ORDER[inflight] partner: the compare-exchange in `revoke`.
        if !Word(slot.word.load_sc()).is(handle, Phase::Live) {
            return Err(self.back_out(record, frame, slot));
        }
        if !any_type && mark.has(TYPED) {
            // Relaxed: published with LIVE.
            let have = slot.signature.load(Relaxed);
            let _ = self.leave_cold(record, frame, slot);
            return Err(record.fault(Error::Signature { have, want: Signature::DEFAULT.0 }));
        }
        mark = mark.with(self.bits_for_all());
        record.count_run(handle, slot, mark);
        if mark.has(SPECIAL) {
            return Err(self.leave_to_special(record, frame, slot));
        }
        record.calls.count();
        Ok(())
    }

    #[cold]
    fn leave_to_special(&self, record: &Record, frame: &Frame, slot: &Slot) -> Fault {
        let handle = frame.handle();
        if !Mark(slot.mark.load_sc()).has(SPECIAL) {
            self.make_special(slot, handle);
        }
        record.leave_to_special(frame)
    }

    /// The rest of entering a special callback, if that is what `fault` means; else the fault. (No [`Stay`]:
    /// that would go through memory in callers, also for callbacks that are not special.)
    #[cold]
    #[inline(never)]
    pub(crate) fn enter_special<'a>(
        &'a self,
        record: &'a Record,
        fault: Fault,
    ) -> Result<(&'a Frame, &'a Slot), Fault> {
        let Some(frame) = record.take_special() else { return Err(fault) };
        let slot = self.slots.at(frame.handle().index());
        self.check_home(record, frame, slot)?;
        self.attach_thread(record, frame, slot)?;
        record.calls.count();
        self.count_metered_call(record, slot, frame.handle());
        Ok((frame, slot))
    }

    /// The callback is gone: leaves what was published.
    #[cold]
    #[inline(never)]
    fn back_out(&self, record: &Record, frame: &Frame, slot: &Slot) -> Fault {
        probes::stale(frame.handle());
        // No callback has run, so none has failed.
        let _ = self.leave_cold(record, frame, slot);
        record.forget_run();
        record.fault(Error::Stale)
    }

    /// Leaves what `enter` entered, and a call or a pin was. A fault: the callback has said that it failed.
    #[inline(always)]
    pub(crate) fn leave(&self, stay: Stay<'_>) -> Result<(), Fault> {
        if !stay.record.is_plain_top(stay.frame) {
            return self.leave_called(stay.record, stay.frame, stay.slot);
        }
        probes::call_end(stay.handle);
        // ORDER[inflight] clear: release, so that what the callback did happens before destroy;
        // partner: the scan. Then the light barrier; partner: the heavy one in `quiesce`.
        stay.frame.cell.store(0, Release);
        stay.record.pop(stay.frame);
        light_barrier();
        // Relaxed: ordered by the barriers. Live is most likely still this generation, and nothing to
        // do in any case; free is none of ours.
        let word = Word(stay.slot.word.load(Relaxed));
        if word.has_ended() {
            self.left_ended(stay.record, stay.slot, stay.handle, word);
        }
        Ok(())
    }

    #[cold]
    #[inline(never)]
    fn left_ended(&self, record: &Record, slot: &Slot, handle: Handle, word: Word) {
        if word.is(handle, Phase::Revoked) {
            self.after_leave(record, slot, handle);
        }
    }

    /// The same in every other case: out of order, by exchange, failed.
    #[cold]
    #[inline(never)]
    fn leave_called(&self, record: &Record, frame: &Frame, slot: &Slot) -> Result<(), Fault> {
        match frame.failed.get().error() {
            None => probes::call_end(frame.handle()),
            Some(error) => probes::call_failed(frame.handle(), error),
        }
        self.leave_cold(record, frame, slot)
    }

    /// An unwind or a longjmp leaves the call, or the thread ends inside the pin.
    #[cold]
    #[inline(never)]
    pub(crate) fn leave_abandoned(
        &self,
        record: &Record,
        frame: &Frame,
        slot: &Slot,
    ) -> Result<(), Fault> {
        let error = frame.failed.get().error().unwrap_or(Error::Callback);
        probes::call_failed(frame.handle(), error);
        if !record.spans.is_empty() {
            self.end_span(record, frame, Some(error));
        }
        self.leave_cold(record, frame, slot)
    }

    /// Leaves what was entered, and no call has begun; or the call has been left above.
    #[cold]
    #[inline(never)]
    pub(crate) fn leave_cold(
        &self,
        record: &Record,
        frame: &Frame,
        slot: &Slot,
    ) -> Result<(), Fault> {
        if !record.spans.is_empty() {
            self.end_span_and_leave(record, frame, slot);
        }
        let handle = frame.handle();
        let failed = frame.failed.replace(super::frame::Failed::NO).error();
        if failed.is_some() {
            record.failures.set(record.failures.get() - 1);
            self.count_metered_failure(record, slot, handle);
            // Even if there is no message: then an older one must not be taken for it.
            record.last_error.forget_message();
            record.messages.take(frame, |text| record.last_error.set_message(handle, text));
        }
        frame.tag.set(Tag::CALL);
        let word = if record.leaves_by_exchange.get() {
            // ORDER[inflight] fallback: clear, then word, in the total order; partners: the scan,
            // the compare-exchange in `revoke`.
            frame.cell.swap_sc(0);
            slot.word.load_sc()
        } else {
            // ORDER[inflight] as in `leave`.
            frame.cell.store(0, Release);
            light_barrier();
            slot.word.load(Relaxed)
        };
        record.settle();
        record.set_attention(record.failures.get() > 0);
        if Word(word).is(handle, Phase::Revoked) {
            self.after_leave(record, slot, handle);
        }
        failed.map_or(Ok(()), |error| Err(record.fault(error)))
    }

    /// Ends the frame's span, if it has one. Should that unwind, the frame is left all the same.
    #[cold]
    #[inline(never)]
    fn end_span_and_leave(&self, record: &Record, frame: &Frame, slot: &Slot) {
        let leaving = LeavingCold(self, record, frame, slot);
        self.end_span(record, frame, frame.failed.get().error());
        std::mem::forget(leaving);
    }

    /// A call or a hold of a revoked callback has ended: the last one finalizes.
    #[cold]
    #[inline(never)]
    pub(crate) fn after_leave(&self, record: &Record, slot: &Slot, handle: Handle) {
        // ORDER[inflight] between clearing our cell and scanning the others'; partner: the same
        // fence of another leaver.
        fence(SeqCst);
        let mark = Mark(slot.mark.load_sc());
        match self.look_at_others(record, mark, handle) {
            Others::Outside => self.finalize_unless_kept(record, slot, handle),
            // Its leave comes by here, too: the word was revoked before we looked.
            Others::Inside => {}
            // It may have published a call that we do not see yet, and the revoker may not have
            // reached its heavy barrier.
            Others::Biased => self.quiesce(record, slot, handle),
        }
    }

    /// The word was just revoked by this thread, or is found revoked: finalizes unless somebody is
    /// inside whose leave will.
    pub(crate) fn quiesce(&self, record: &Record, slot: &Slot, handle: Handle) {
        // ORDER[inflight] after the word; partner: the compare-exchange in `check_in`, which comes
        // before a caller's load of the word.
        let mark = Mark(slot.mark.load_sc());
        if self.look_at_others(record, mark, handle) != Others::Outside {
            match self.barrier.heavy() {
                // ORDER[inflight] partner: the light barriers in `leave` and `enter`. Every call that
                // was published under a bias shows now, and later ones see REVOKED.
                Heavy::Done => {
                    if self.others_inside(record, mark, handle) {
                        return;
                    }
                }
                Heavy::Needless => return,
                Heavy::Refused => return self.look_again_later(slot, handle),
            }
        }
        // Not before the others: returning early, without the heavy barrier, because we are inside
        // ourselves, would lose a leave that has looked at the word but not yet shown its clearing.
        self.finalize_unless_kept(record, slot, handle);
    }

    pub(super) fn finalize_unless_kept(&self, record: &Record, slot: &Slot, handle: Handle) {
        if !self.kept_here(record, slot, handle) {
            self.finalize(record, slot, handle);
        }
    }

    /// Where the threads other than this one are, of those that the mark names.
    fn look_at_others(&self, record: &Record, mark: Mark, handle: Handle) -> Others {
        let mut found = Others::Outside;
        self.find_other(record, mark, handle, |other| {
            // The bias first: a thread that has just dropped it shows its calls.
            if other.is_biased_to(handle) {
                found = Others::Biased;
            } else if is_in(other, handle) && found == Others::Outside {
                found = Others::Inside;
            }
            found == Others::Biased
        });
        found
    }

    /// Is another one of them biased towards the callback?
    pub(crate) fn others_biased(&self, record: &Record, mark: Mark, handle: Handle) -> bool {
        self.find_other(record, mark, handle, |other| other.is_biased_to(handle))
    }

    /// Is another one of them inside, as its cells show?
    pub(crate) fn others_inside(&self, record: &Record, mark: Mark, handle: Handle) -> bool {
        self.find_other(record, mark, handle, |other| is_in(other, handle))
    }

    /// Does `is_it` hold for a thread other than this one of those that the mark names?
    fn find_other(
        &self,
        record: &Record,
        mark: Mark,
        handle: Handle,
        mut is_it: impl FnMut(&Record) -> bool,
    ) -> bool {
        if !mark.belongs_to(handle) {
            // Finalized by someone else already; `finalize` will see it.
            return false;
        }
        match mark.who() {
            0 => false,
            who if who == record.id() => false,
            MANY => self.records.iter().any(|other| other.id() != record.id() && is_it(other)),
            who => self.records.by_id(who).is_some_and(is_it),
        }
    }

    /// Is this thread inside, or a hold out? After the scan: a hold is counted under the protection
    /// of a cell, so a scan that misses the cell is followed by a load that sees the count.
    pub(crate) fn kept_here(&self, record: &Record, slot: &Slot, handle: Handle) -> bool {
        let dispatching = handle.with_kind(Kind::Dispatching);
        record.is_inside(handle)
            || (handle.has_kind(Kind::Queue) && record.is_inside(dispatching))
            || slot.holds.load_sc() != 0
    }
}

/// Is the owner of `other` inside? A queue's dispatchers say so by another kind of handle.
fn is_in(other: &Record, handle: Handle) -> bool {
    other.holds(handle)
        || (handle.has_kind(Kind::Queue) && other.holds(handle.with_kind(Kind::Dispatching)))
}

/// Where other threads are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Others {
    /// None is inside.
    Outside,
    /// One is inside, and entered by exchange.
    Inside,
    /// One is biased towards the callback: its cells cannot be trusted before a heavy barrier.
    Biased,
}
