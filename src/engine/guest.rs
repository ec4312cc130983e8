//! Functions of the host's that are called from inside other operations, which must not notice: the log's
//! sink, a tracer's hooks.
//!
//! Such a guest is a callback like any other, registered for the scope that owns it, so that its data is
//! freed once and after the last use, closing the scope ends it and waits, and it may be replaced at any
//! time. What is different is how it is entered: by a frame of its own kind ([`Tag::GUEST`]), which is no
//! call of the host's and not counted as one, neither by depth nor by statistics; and while a thread is
//! inside a guest it enters no other, so that a guest that logs, or calls, does not call itself.

use super::Engine;
use super::frame::{Failed, Frame, StackPlace, Tag};
use super::handle::{Handle, Kind};
use super::last_error::Saved;
use super::record::Record;
use super::slot::Slot;
use crate::error::Error;
use crate::sync::{AcqRel, AtomicU64, Relaxed, Release};

/// Where the guest of one purpose is, or none.
pub(crate) struct GuestPlace(AtomicU64);

impl GuestPlace {
    #[cfg(not(loom))]
    pub(crate) const fn new() -> Self {
        Self(AtomicU64::new(0))
    }
    #[cfg(loom)]
    pub(crate) fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Another guest, or none, from now on. The one before, which is for the caller to end.
    pub(crate) fn replace(&self, guest: Handle) -> Handle {
        // AcqRel: nothing depends on it; entering looks at the callback itself.
        Handle(self.0.swap(guest.0, AcqRel))
    }

    /// If it is this one, it is gone.
    pub(crate) fn forget(&self, guest: Handle) -> bool {
        self.0.compare_exchange(guest.0, 0, AcqRel, Relaxed).is_ok()
    }

    pub(crate) fn get(&self) -> Handle {
        // Relaxed: as above.
        Handle(self.0.load(Relaxed))
    }
}

/// A thread inside a guest. Dropped when the guest has returned, or an unwind has left it.
pub(crate) struct Visit<'a> {
    engine: &'a Engine,
    record: &'a Record,
    /// None: there was none left, and another frame keeps the guest.
    frame: Option<&'a Frame>,
    slot: &'a Slot,
    handle: Handle,
    _said: Said<'a>,
}

/// What a thread had to say before host code ran that must not change it. Dropped when that is over.
struct Said<'a> {
    record: &'a Record,
    last_error: Saved,
    fault: Option<Error>,
}

impl<'a> Said<'a> {
    fn by(record: &'a Record) -> Self {
        Self { record, last_error: record.last_error.save(), fault: record.take_fault() }
    }
}

impl Drop for Said<'_> {
    fn drop(&mut self) {
        self.record.last_error.restore(&self.last_error);
        self.record.set_fault(self.fault);
    }
}

impl Engine {
    /// Enters the guest, if this thread is inside none. Error: it is gone.
    ///
    /// Its home, if any, and its scope's thread hooks have no say: it is called where the operation is.
    #[cold]
    #[inline(never)]
    pub(crate) fn enter_guest<'a>(
        &'a self,
        record: &'a Record,
        handle: Handle,
    ) -> Result<Option<Visit<'a>>, Error> {
        if record.visits.get() > 0 {
            return Ok(None);
        }
        let slot = self.resolve(handle, Kind::Callback)?;
        let here = 0;
        // (At the nesting limit's end: without the guest.)
        let Ok(frame) = record.push_cold(Tag::GUEST) else { return Ok(None) };
        frame.set_stack_place(StackPlace::of(&here));
        // Also if it is gone: ours may be the last leave, which runs its destroy function.
        let said = Said::by(record);
        if self.protect(record, frame, slot, handle) {
            record.visits.set(record.visits.get() + 1);
            let frame = Some(frame);
            return Ok(Some(Visit { engine: self, record, frame, slot, handle, _said: said }));
        }
        self.leave_object(record, frame, slot, handle);
        Err(Error::Stale)
    }

    /// Enters a guest that this thread is inside of by a [`Tag::SPAN`] frame, even if it is inside another
    /// one as well.
    pub(super) fn visit_again<'a>(&'a self, record: &'a Record, handle: Handle) -> Visit<'a> {
        let here = 0;
        let said = Said::by(record);
        let frame = record.push_cold(Tag::GUEST).ok();
        if let Some(frame) = frame {
            frame.set_stack_place(StackPlace::of(&here));
            // Release: who sees the other frame left, which protects the guest till then, sees this one.
            frame.cell.store(handle.0, Release);
        }
        record.visits.set(record.visits.get() + 1);
        let slot = self.slots.at(handle.index());
        Visit { engine: self, record, frame, slot, handle, _said: said }
    }

    /// The frame of a guest is left, maybe by a longjmp.
    pub(super) fn leave_guest(&self, record: &Record, frame: &Frame, slot: &Slot) {
        record.visits.set(record.visits.get() - 1);
        self.leave_object(record, frame, slot, frame.handle());
    }
}

impl<'a> Visit<'a> {
    /// The guest's function, and its data, which live as long as the visit.
    pub(crate) fn function(&self) -> (*mut (), *mut ()) {
        // Relaxed: published with LIVE.
        (self.slot.function.load(Relaxed), self.slot.user_data.load(Relaxed))
    }

    /// What else it was registered with: its fallback, which nobody asks a guest for.
    pub(super) fn extra(&self) -> u64 {
        self.engine.cold_of(self.slot).map_or(0, super::cold::Cold::fallback)
    }

    pub(super) fn handle(&self) -> Handle {
        self.handle
    }

    /// The guest has returned, and the thread stays inside it, by what is a [`Tag::SPAN`] frame from now on.
    /// None: it was left, by a `cbr_unwind_to` that was called inside.
    pub(super) fn stay(self) -> Option<&'a Frame> {
        let frame = self.frame.filter(|frame| self.is_in(frame))?;
        frame.tag.set(Tag::SPAN);
        frame.failed.set(Failed::of_count(0));
        self.record.visits.set(self.record.visits.get() - 1);
        Some(frame)
    }

    /// Is it not left yet?
    fn is_in(&self, frame: &Frame) -> bool {
        frame.tag.get() == Tag::GUEST && frame.handle() == self.handle
    }
}

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        match self.frame {
            Some(frame) if self.is_in(frame) => {
                self.engine.leave_guest(self.record, frame, self.slot);
            }
            // Left already, by a `cbr_unwind_to` that was called inside; or the thread stays.
            Some(_) => {}
            None => self.record.visits.set(self.record.visits.get() - 1),
        }
    }
}
