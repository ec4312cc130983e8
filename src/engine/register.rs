//! Birth, references and revocation of a callback.

use super::cold::{ColdParts, METERED};
use super::handle::{Handle, Kind};
use super::invoke::{AnyFn, DestroyFn};
use super::record::Record;
use super::signature::Signature;
use super::slot::{MAX_REFERENCES, Mark, Phase, SPECIAL, Slot, TYPED, Word};
use super::{Engine, invoke, probes};
use crate::error::Error;
use crate::sync::{AcqRel, Relaxed, Release, SeqCst, TotalOrder};
use std::ffi::c_void;

/// What a host registers.
pub(crate) struct Registration<'a> {
    pub(crate) function: AnyFn,
    pub(crate) user_data: *mut c_void,
    pub(crate) destroy: Option<DestroyFn>,
    pub(crate) signature: Signature,
    pub(crate) cold: ColdParts<'a>,
}

impl Engine {
    /// Makes a callback with one reference.
    #[inline(always)]
    pub(crate) fn register(
        &self,
        record: &Record,
        new: &Registration<'_>,
    ) -> Result<Handle, Error> {
        let cold = if new.cold.is_empty() { 0 } else { self.make_cold(record, &new.cold)? };
        let (slot, handle) = match self.take_slot(record, Kind::Callback) {
            Ok(taken) => taken,
            Err(error) => {
                if cold != 0 {
                    self.give_back_cold(record, cold);
                }
                return Err(error);
            }
        };
        // Relaxed: all of it is published by LIVE.
        slot.function.store(invoke::function_to_pointer(new.function), Relaxed);
        slot.user_data.store(new.user_data.cast(), Relaxed);
        slot.destroy.store(invoke::destroy_to_pointer(new.destroy), Relaxed);
        slot.signature.store(new.signature.0, Relaxed);
        let typed = if new.signature == Signature::DEFAULT { 0 } else { TYPED };
        let mut bits = typed | self.observers.bits();
        if cold != 0 {
            self.own_cold(slot, cold, handle);
            if new.cold.home.0 | (new.cold.flags & METERED) != 0 {
                bits |= SPECIAL;
            }
        }
        if new.cold.scope.0 == 0 {
            // Before it can end.
            match cold {
                0 => probes::register(handle, slot),
                index => probes::register_more(handle, slot, self.cold.at(index)),
            }
            self.publish(slot, handle, bits);
            record.counts.registered.count();
            return Ok(handle);
        }
        match self.publish_in_scope(record, slot, handle, bits) {
            Ok(()) => {
                record.counts.registered.count();
                Ok(handle)
            }
            Err(error) => {
                // As if nothing had been: nobody has seen the handle, and its number is used again.
                self.disown_cold(record, slot);
                record.free_slots.push(&self.slots, handle.index());
                Err(error)
            }
        }
    }

    /// The callback begins to live.
    #[inline(always)]
    pub(super) fn publish(&self, slot: &Slot, handle: Handle, bits: u64) {
        // ORDER[inflight] before LIVE; a caller changes a mark only when it finds this handle's in it,
        // so this store wipes nobody's name away.
        slot.mark.store(Mark::fresh(handle, bits).0, Relaxed);
        // Release: partner: enter's load of the word.
        slot.word.store(Word::new(handle.generation(), Phase::Live).0, Release);
    }

    /// One more reference.
    #[inline(always)]
    pub(crate) fn retain(&self, handle: Handle) -> Result<(), Error> {
        let slot = self.resolve(handle, Kind::Callback)?;
        let mut word = slot.live(handle)?;
        loop {
            if !word.is(handle, Phase::Live) {
                return Err(Error::Stale);
            }
            if word.references() == MAX_REFERENCES {
                return Err(Error::Limit("2^30 references to one callback"));
            }
            // AcqRel: partner: the release of the reference, before destroy.
            match slot.word.compare_exchange_weak(word.0, word.retained().0, AcqRel, Relaxed) {
                Ok(_) => return Ok(()),
                Err(current) => word = Word(current),
            }
        }
    }

    /// One reference less; the last one revokes.
    #[inline(always)]
    pub(crate) fn release(&self, record: &Record, handle: Handle) -> Result<(), Error> {
        let slot = self.resolve(handle, Kind::Callback)?;
        let mut word = slot.live(handle)?;
        loop {
            if !word.is(handle, Phase::Live) {
                return Err(Error::Stale);
            }
            if word.references() == 1 {
                // A retain may come first, and then it is not the last one.
                match self.end(record, slot, handle, word) {
                    Ok(()) => return Ok(()),
                    Err(current) => word = current,
                }
                continue;
            }
            // AcqRel: partner: whoever releases the last one and destroys.
            match slot.word.compare_exchange_weak(word.0, word.released().0, AcqRel, Relaxed) {
                Ok(_) => return Ok(()),
                Err(current) => word = Word(current),
            }
        }
    }

    /// The same where host code must not run: a destroy function that would, does so at the next
    /// occasion (engine/pending.rs).
    #[cold]
    pub(crate) fn release_later(&self, handle: Handle) {
        let Ok((slot, mut word)) = self.live(handle, Kind::Callback) else { return };
        while word.is(handle, Phase::Live) {
            let last = word.references() == 1;
            let changed = match last {
                true => self.revoke_word(slot, word),
                // AcqRel: as in `release`.
                false => slot
                    .word
                    .compare_exchange(word.0, word.released().0, AcqRel, Relaxed)
                    .map(|_| ())
                    .map_err(Word),
            };
            match changed {
                Ok(()) if last => {
                    probes::unregister(handle);
                    return self.look_again_later(slot, handle);
                }
                Ok(()) => return,
                Err(current) => word = current,
            }
        }
    }

    /// Ends the callback's life for everybody, whatever the count.
    #[inline(always)]
    pub(crate) fn unregister(&self, record: &Record, handle: Handle) -> Result<(), Error> {
        let slot = self.resolve(handle, Kind::Callback)?;
        let mut word = slot.live(handle)?;
        while word.is(handle, Phase::Live) {
            match self.end(record, slot, handle, word) {
                Ok(()) => return Ok(()),
                Err(current) => word = current,
            }
        }
        Err(Error::Stale)
    }

    /// Ends the callback whose word is `word`: revokes and finalizes, or leaves the latter to whoever
    /// is inside. Fails with the word if that has changed.
    #[inline(always)]
    fn end(&self, record: &Record, slot: &Slot, handle: Handle, word: Word) -> Result<(), Word> {
        // A short cut, one exchange instead of two: nobody but us has called, so most likely nobody is
        // inside. Relaxed: looked at again once no new call can start.
        let mine = Mark(slot.mark.load(Relaxed)).is_mine(record.id());
        if mine && !record.is_inside(handle) {
            let finalizing = Word::new(handle.generation(), Phase::Finalizing);
            // ORDER[inflight] as in `revoke_word`: what the mark says from here on is final.
            slot.word.compare_exchange(word.0, finalizing.0, SeqCst, Relaxed).map_err(Word)?;
            probes::unregister(handle);
            if Mark(slot.mark.load_sc()).is_mine(record.id()) && slot.holds.load_sc() == 0 {
                self.run_destroy(record, slot, handle);
            } else {
                // Somebody called meanwhile. The word is ours: as if it were revoked only now. Who has
                // left in between is outside, and who tries to enter backs out either way.
                slot.word.swap_sc(Word::new(handle.generation(), Phase::Revoked).0);
                self.quiesce(record, slot, handle);
            }
        } else {
            self.revoke_word(slot, word)?;
            probes::unregister(handle);
            self.quiesce(record, slot, handle);
        }
        if self.has_pending() {
            self.drain_pending(record);
        }
        Ok(())
    }

    /// Live → revoked; stale if another thread was first.
    pub(crate) fn revoke(&self, slot: &Slot, handle: Handle) -> Result<(), Error> {
        let mut word = slot.live(handle)?;
        loop {
            if !word.is(handle, Phase::Live) {
                return Err(Error::Stale);
            }
            match self.revoke_word(slot, word) {
                Ok(()) => return Ok(()),
                Err(current) => word = current,
            }
        }
    }

    #[inline(always)]
    fn revoke_word(&self, slot: &Slot, word: Word) -> Result<(), Word> {
        let revoked = Word::new(word.generation(), Phase::Revoked);
        // ORDER[inflight] partner: enter's load of the word. (loom's fence follows with the load of the
        // mark in `quiesce`.)
        match slot.word.compare_exchange(word.0, revoked.0, SeqCst, Relaxed) {
            Ok(_) => Ok(()),
            Err(current) => Err(Word(current)),
        }
    }

    /// How many references it has now.
    pub(crate) fn references(&self, handle: Handle) -> Result<u32, Error> {
        let (_, word) = self.live(handle, Kind::Callback)?;
        Ok(word.references() + self.references_of_events(handle))
    }
}
