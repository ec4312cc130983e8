//! Functions of the host's that are called from inside other operations, which must not notice: the log's
//! sink, a tracer's hooks.
//!
//! Such a guest is a callback like any other, registered for the scope that owns it, so that its data is
//! freed once and after the last use, closing the scope ends it and waits, and it may be replaced at any
//! time. What is different is how it is entered: by a frame of its own kind ([`Tag::GUEST`]), which is no
//! call of the host's and not counted as one, neither by depth nor by statistics; and while a thread is
//! inside a guest it enters no other, so that a guest that logs, or calls, does not call itself.

use super::Engine;
use super::frame::{Frame, StackPlace, Tag};
use super::handle::{Handle, Kind};
use super::last_error::Saved;
use super::record::Record;
use super::slot::{MANY, Mark, Phase, Slot, Word};
use crate::error::Error;
use crate::sync::{AcqRel, AtomicU64, Relaxed, TotalOrder};

/// Where the guest of one purpose is, or none.
pub(crate) struct GuestPlace(AtomicU64);

impl GuestPlace {
    pub(crate) const fn new() -> Self {
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
    frame: &'a Frame,
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
        if record.is_visiting.get() {
            return Ok(None);
        }
        let slot = self.resolve(handle, Kind::Callback)?;
        let here = 0;
        // (At the nesting limit's end: without the guest.)
        let Ok(frame) = record.push_cold(Tag::GUEST) else { return Ok(None) };
        frame.set_stack_place(StackPlace::of(&here));
        // Also if it is gone: ours may be the last leave, which runs its destroy function.
        let said = Said::by(record);
        // ORDER[inflight] the cell, the mark, then the word, as in `enter`; partners as there.
        frame.cell.swap_sc(handle.0);
        let mark = Mark(slot.mark.load_sc());
        let known = mark.belongs_to(handle) && (mark.who() == MANY || mark.who() == record.id());
        if (known || self.sign_mark(record, slot, handle, mark))
            && Word(slot.word.load_sc()).is(handle, Phase::Live)
        {
            record.is_visiting.set(true);
            return Ok(Some(Visit { engine: self, record, frame, slot, handle, _said: said }));
        }
        self.leave_object(record, frame, slot, handle);
        Err(Error::Stale)
    }

    /// The frame of a guest is left, maybe by a longjmp.
    pub(super) fn leave_guest(&self, record: &Record, frame: &Frame, slot: &Slot) {
        record.is_visiting.set(false);
        self.leave_object(record, frame, slot, frame.handle());
    }
}

impl Visit<'_> {
    /// The guest's function, and its data, which live as long as the visit.
    pub(crate) fn function(&self) -> (*mut (), *mut ()) {
        // Relaxed: published with LIVE.
        (self.slot.function.load(Relaxed), self.slot.user_data.load(Relaxed))
    }
}

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        // Left already, by a `cbr_unwind_to` that was called inside?
        if self.frame.tag.get() == Tag::GUEST && self.frame.handle() == self.handle {
            self.engine.leave_guest(self.record, self.frame, self.slot);
        }
    }
}
