//! Pins: a stay that the host begins and ends itself. Entered ones are a frame of this thread, held
//! ones a token ([`super::hold`]).

use super::frame::{Frame, Tag};
use super::handle::{Handle, INDEX_BITS, Kind};
use super::inflight::LeavingCold;
use super::record::{Record, Stay};
use super::signature::Signature;
use super::slot::Slot;
use super::{Engine, probes};
use crate::error::{Error, Fault};
use crate::platform;
use crate::sync::Relaxed;

/// What the host keeps of a pin. Copies are harmless: a second leave is refused.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pin {
    /// Held: the token's handle. Entered: `tag:32 | 6:4 | frame:28`, the kind in a handle's place.
    token: u64,
    /// Entered: the record's id. Held: 0.
    record: u64,
}

const ENTERED: u32 = 6;

/// What a pin gives access to.
pub(crate) struct Pinned {
    pub(crate) function: *mut (),
    pub(crate) user_data: *mut (),
    pub(crate) pin: Pin,
}

impl Pin {
    pub(crate) fn from_raw([token, record]: [u64; 2]) -> Self {
        Self { token, record }
    }

    pub(crate) fn to_raw(self) -> [u64; 2] {
        [self.token, self.record]
    }
}

impl Engine {
    /// Enters for as long as the pin lives. `signature` is what the host will call; none: unchecked.
    /// STRICT: compared at any check level.
    #[inline(always)]
    pub(crate) fn enter_pin<const STRICT: bool>(
        &self,
        record: &Record,
        handle: Handle,
        signature: Option<Signature>,
    ) -> Result<Pinned, Fault> {
        let stay = match self.enter::<true>(record, handle) {
            Ok(stay) => stay,
            Err(fault) => {
                let (frame, slot) = self.enter_special_pin::<STRICT>(record, signature, fault)?;
                Stay { record, frame, slot, handle }
            }
        };
        let stay = self.checked::<STRICT>(stay, signature)?;
        let tag = record.next_pin();
        stay.frame.tag.set(tag);
        let token = u64::from(tag.number()) << 32
            | u64::from(ENTERED << INDEX_BITS)
            | record.index_of(stay.frame) as u64;
        probes::call_begin(handle, stay.slot);
        Ok(pinned(stay, Pin { token, record: record.id().into() }))
    }

    /// What is left of a special callback's. (The signature is compared once more afterwards.)
    #[cold]
    #[inline(never)]
    fn enter_special_pin<'a, const STRICT: bool>(
        &'a self,
        record: &'a Record,
        signature: Option<Signature>,
        fault: Fault,
    ) -> Result<(&'a Frame, &'a Slot), Fault> {
        let (frame, slot) = self.enter_special(record, fault)?;
        let stay = Stay { record, frame, slot, handle: frame.handle() };
        self.checked::<STRICT>(stay, signature)?;
        let leaving = LeavingCold(self, record, frame, slot);
        self.begin_span(record, frame, slot, true);
        std::mem::forget(leaving);
        Ok((frame, slot))
    }

    /// The same, to be left by any thread.
    pub(crate) fn hold_pin(
        &self,
        record: &Record,
        handle: Handle,
        signature: Option<Signature>,
    ) -> Result<Pinned, Fault> {
        // Not by `enter`: at the nesting limit there is a frame for a hold all the same.
        let (frame, slot) = match self.enter_cold(record, handle, true, Tag::HOLD) {
            Ok(entered) => entered,
            Err(fault) => self.enter_special(record, fault)?,
        };
        let stay = self.checked::<false>(Stay { record, frame, slot, handle }, signature)?;
        let mut held = pinned(stay, Pin { token: 0, record: 0 });
        held.pin.token = self.hold(stay)?.0;
        probes::call_begin(handle, slot);
        Ok(held)
    }

    #[inline(always)]
    fn checked<'a, const STRICT: bool>(
        &self,
        stay: Stay<'a>,
        signature: Option<Signature>,
    ) -> Result<Stay<'a>, Fault> {
        if let Some(Signature(want)) = signature {
            // Relaxed: published with LIVE.
            let have = stay.slot.signature.load(Relaxed);
            if want != have {
                // Part by part: in registers, where the stay would be spilled.
                self.mismatched::<STRICT>(stay.record, stay.frame, stay.slot, have, want)?;
            }
        }
        Ok(stay)
    }

    #[cold]
    #[inline(never)]
    fn mismatched<const STRICT: bool>(
        &self,
        record: &Record,
        frame: &Frame,
        slot: &Slot,
        have: u64,
        want: u64,
    ) -> Result<(), Fault> {
        if !STRICT && self.check.is_handles_only() {
            return Ok(());
        }
        self.leave_cold(record, frame, slot)?;
        Err(record.fault(Error::Signature { have, want }))
    }

    /// Ends a pin. The fault may be the callback's own, that it has failed: then the pin is ended.
    #[inline(always)]
    pub(crate) fn leave_pin(&self, record: &Record, pin: Pin) -> Result<(), Fault> {
        if pin.token as u32 >> INDEX_BITS != ENTERED {
            return if Handle(pin.token).has_kind(Kind::Hold) {
                self.end_hold(record, Handle(pin.token)).map_err(|error| record.misuse(error))
            } else {
                Err(record.misuse(Error::Stale))
            };
        }
        if pin.record != u64::from(record.id()) {
            return Err(record.misuse(self.of_another_thread(pin)));
        }
        let tag = Tag::from_number((pin.token >> 32) as u32);
        let frame = record.frame(Handle(pin.token).index() as usize);
        let Some(frame) = frame.filter(|frame| tag.is_pin() && frame.tag.get() == tag) else {
            return Err(record.misuse(Error::Stale));
        };
        frame.tag.set(Tag::CALL);
        let handle = frame.handle();
        let slot = self.slots.at(handle.index());
        self.leave(Stay { record, frame, slot, handle })
    }

    #[cold]
    fn of_another_thread(&self, pin: Pin) -> Error {
        let owner = u32::try_from(pin.record).ok().and_then(|id| self.records.by_id(id));
        // Relaxed: for the words only.
        match owner.map_or(0, |record| record.thread.load(Relaxed)) {
            0 => Error::Stale,
            owner => Error::Thread { owner, caller: platform::thread_id() },
        }
    }
}

fn pinned(stay: Stay<'_>, pin: Pin) -> Pinned {
    // Relaxed: published with LIVE.
    Pinned {
        function: stay.slot.function.load(Relaxed),
        user_data: stay.slot.user_data.load(Relaxed),
        pin,
    }
}
