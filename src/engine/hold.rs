//! Holds: protection that any thread may end. They count in the slot, and each has a token, a slot
//! of its own, so that a second leave of a copied pin is refused like any stale handle.

use super::handle::{Handle, Kind};
use super::record::{Record, Stay};
use super::slot::{Mark, Phase, Word};
use super::{Engine, probes};
use crate::error::{Error, Fault};
use crate::sync::{AcqRel, Relaxed, Release, SeqCst};

/// Holds of one callback.
const MAX_HOLDS: u32 = 1 << 30;

impl Engine {
    /// Turns the stay into a hold, and returns its token. The stay is left in any case.
    pub(crate) fn hold(&self, stay: Stay<'_>) -> Result<Handle, Fault> {
        let token = self.count_hold(stay);
        // Counted first, then left: a scan that misses the cell sees the count.
        self.leave_cold(stay.record, stay.frame, stay.slot)?;
        token.map_err(|error| stay.record.fault(error))
    }

    fn count_hold(&self, stay: Stay<'_>) -> Result<Handle, Error> {
        let Stay { record, slot, handle, .. } = stay;
        // Relaxed: only a limit; the spare 2^30 are room for all that pass it at once.
        if slot.holds.load(Relaxed) >= MAX_HOLDS {
            return Err(Error::Limit("2^30 holds of one callback"));
        }
        let (token_slot, token) = self.take_slot(record, Kind::Hold)?;
        token_slot.signature.store(handle.0, Relaxed);
        token_slot.mark.store(Mark::fresh(token, 0).0, Relaxed);
        // Release: partner: the compare-exchange in `end_hold`.
        token_slot.word.store(Word::new(token.generation(), Phase::Live).0, Release);
        // ORDER[inflight] before the cell is cleared; partner: the load in `kept_here`.
        slot.holds.fetch_add(1, SeqCst);
        Ok(token)
    }

    /// Ends the hold with this token, on any thread.
    pub(crate) fn end_hold(&self, record: &Record, token: Handle) -> Result<(), Error> {
        let (token_slot, live) = self.live(token, Kind::Hold)?;
        let ending = Word::new(token.generation(), Phase::Finalizing);
        // AcqRel: one winner, who sees what `count_hold` stored.
        if token_slot.word.compare_exchange(live.0, ending.0, AcqRel, Relaxed).is_err() {
            return Err(Error::Stale);
        }
        let held = Handle(token_slot.signature.load(Relaxed));
        probes::call_end(held);
        self.free_slot(record, token_slot, token.index());
        let slot = self.slots.at(held.index());
        // ORDER[inflight] count, then word, in the total order; partner: revoke, word, then count.
        crate::sync::fetch_sub_sc(&slot.holds, 1);
        if slot.is_revoked(held) {
            self.after_leave(record, slot, held);
        }
        Ok(())
    }
}
