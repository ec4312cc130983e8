//! Threads that call a scope's callbacks: its attach function runs once on each, before the first call,
//! and its detach function at the thread's end.

use super::Engine;
use super::close::InsideScope;
use super::frame::{Failed, Frame, Tag};
use super::handle::{Handle, Kind};
use super::invoke;
use super::record::Record;
use super::slot::{Phase, Slot, Word};
use super::stack::ROUNDS;
use crate::error::{Error, Fault};
use crate::sync::{Relaxed, TotalOrder};
use std::alloc::{Layout, alloc, dealloc};
use std::cell::Cell;
use std::ffi::c_void;
use std::ptr;

/// `CBR_THREAD_NOT_OURS`: the host had attached the thread, so nobody detaches it.
const NOT_OURS: *mut c_void = ptr::without_provenance_mut(usize::MAX);

/// A scope that this thread is attached to, or is being attached to.
struct Attachment {
    next: *mut Attachment,
    scope: Handle,
    token: *mut c_void,
    /// While the attach function runs: 1 + the place of the frame that it runs in. Else 0.
    attaching_in: usize,
}

/// All of one thread's, the newest first. Zeroed memory is none.
pub(crate) struct Attachments(Cell<*mut Attachment>);

impl Attachments {
    #[cfg(loom)]
    pub(super) fn new() -> Self {
        Self(Cell::new(ptr::null_mut()))
    }

    #[inline]
    fn has(&self, scope: Handle) -> bool {
        let mut it = self.0.get();
        // SAFETY: a node of this thread's list, written by `push` and freed by `remove_if` only.
        while let Some(attachment) = unsafe { it.as_ref() } {
            if attachment.scope == scope {
                return true;
            }
            it = attachment.next;
        }
        false
    }

    /// The attach function is about to run, in the frame at `place`.
    fn push(&self, scope: Handle, place: usize) -> Result<(), Error> {
        // SAFETY: the layout is not empty.
        let it = unsafe { alloc(Layout::new::<Attachment>()) }.cast::<Attachment>();
        if it.is_null() {
            return Err(Error::NoMemory);
        }
        let attachment =
            Attachment { next: self.0.get(), scope, token: NOT_OURS, attaching_in: place + 1 };
        // SAFETY: fresh memory of this layout.
        unsafe { it.write(attachment) };
        self.0.set(it);
        Ok(())
    }

    /// The attach function has returned.
    fn set_token(&self, scope: Handle, token: *mut c_void) {
        let mut it = self.0.get();
        while !it.is_null() {
            // SAFETY: as in `has`; no reference to a node is kept across calls.
            unsafe {
                if (*it).scope == scope {
                    (*it).token = token;
                    (*it).attaching_in = 0;
                    return;
                }
                it = (*it).next;
            }
        }
    }

    /// Forgets those that `is_gone` says of.
    fn remove_if(&self, is_gone: impl Fn(&Attachment) -> bool) {
        let (mut before, mut it) = (ptr::null_mut::<Attachment>(), self.0.get());
        // SAFETY: as in `has`.
        while let Some(attachment) = unsafe { it.as_ref() } {
            let next = attachment.next;
            if is_gone(attachment) {
                match before.is_null() {
                    true => self.0.set(next),
                    // SAFETY: as in `has`; the reference above is not used any more.
                    false => unsafe { (*before).next = next },
                }
                // SAFETY: from `alloc` with this layout, and unlinked.
                unsafe { dealloc(it.cast(), Layout::new::<Attachment>()) };
            } else {
                before = it;
            }
            it = next;
        }
    }

    fn remove(&self, scope: Handle) {
        self.remove_if(|attachment| attachment.scope == scope);
    }

    /// The frame at `place` is left by a longjmp: the attach function that ran in it has not returned.
    pub(super) fn abandon(&self, place: usize) {
        self.remove_if(|attachment| attachment.attaching_in == place + 1);
    }

    /// The newest one, which the list forgets.
    fn pop(&self) -> Option<(Handle, *mut c_void)> {
        // SAFETY: as in `has`.
        let newest = unsafe { self.0.get().as_ref() }?;
        let popped = (newest.scope, newest.token);
        self.remove(popped.0);
        Some(popped)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.get().is_null()
    }

    fn count(&self) -> usize {
        let (mut count, mut it) = (0, self.0.get());
        // SAFETY: as in `has`.
        while let Some(attachment) = unsafe { it.as_ref() } {
            (count, it) = (count + 1, attachment.next);
        }
        count
    }

    /// Nobody detaches what is left: in the child of a fork, or after many rounds.
    pub(super) fn forget(&self) {
        self.remove_if(|_| true);
    }
}

impl Engine {
    /// Runs the attach function of the callback's scope, if it has one that has not run on this thread.
    /// `frame` protects the callback, and is left on failure.
    pub(super) fn attach_thread(
        &self,
        record: &Record,
        frame: &Frame,
        slot: &Slot,
    ) -> Result<(), Fault> {
        let scope = self.cold_of(slot).map_or(Handle(0), |cold| cold.membership.scope());
        if scope.0 == 0 || record.attachments.has(scope) {
            return Ok(());
        }
        let scope_slot = self.slots.at(scope.index());
        let Some(attach) = self.scope_of_slot(scope_slot).attach() else {
            return Ok(());
        };
        // Room for a new one is the time to forget those of scopes that are closed.
        record.attachments.remove_if(|other| self.check_scope(other.scope).is_err());
        // Before the function runs: what it calls of its own scope does not attach again.
        if let Err(error) = record.attachments.push(scope, record.index_of(frame)) {
            let _ = self.leave_cold(record, frame, slot);
            return Err(record.fault(error));
        }
        let attaching = Attaching { engine: self, record, frame, slot, scope };
        // Relaxed: published with the scope's first callback.
        let token = invoke::attach(attach, scope_slot.user_data.load(Relaxed));
        if frame.failed.get() != Failed::NO {
            // It has said so with cbr_fail: the callback does not run. (Leaving gives the error.)
            std::mem::forget(attaching);
            record.attachments.remove(scope);
            let failed = self.leave_cold(record, frame, slot);
            return Err(failed.err().unwrap_or_else(|| record.fault(Error::Callback)));
        }
        std::mem::forget(attaching);
        record.attachments.set_token(scope, token);
        Ok(())
    }

    /// The thread ends: tells the scopes that it is attached to. What the detach functions call may attach
    /// it again, and some never stop: then some are left.
    pub(super) fn detach_thread(&self, record: &Record) {
        let limit = ROUNDS * record.attachments.count();
        for (scope, token) in std::iter::from_fn(|| record.attachments.pop()).take(limit) {
            if token != NOT_OURS {
                self.detach_from(record, scope, token);
            }
        }
    }

    fn detach_from(&self, record: &Record, scope: Handle, token: *mut c_void) {
        let Ok(slot) = self.resolve(scope, Kind::Scope) else { return };
        if slot.live(scope).is_err() {
            return;
        }
        let Ok(frame) = record.push_cold(Tag::DETACH) else { return };
        let detaching = InsideScope { engine: self, record, frame };
        // ORDER[inflight] as a call: the cell, then the word; partners: the revoke in `revoke_scope`, the
        // scan in `running`.
        frame.cell.swap_sc(scope.0);
        if Word(slot.word.load_sc()).is(scope, Phase::Live)
            && let Some(detach) = self.scope_of_slot(slot).detach()
        {
            // Relaxed: published with the scope's first callback.
            invoke::detach(detach, slot.user_data.load(Relaxed), token, frame);
        }
        drop(detaching);
    }
}

/// An attach function that runs. Dropped when an unwind passes through it: then the thread is not
/// attached, and the call is over.
struct Attaching<'a> {
    engine: &'a Engine,
    record: &'a Record,
    frame: &'a Frame,
    slot: &'a Slot,
    scope: Handle,
}

impl Drop for Attaching<'_> {
    fn drop(&mut self) {
        self.record.attachments.remove(self.scope);
        let _ = self.engine.leave_cold(self.record, self.frame, self.slot);
    }
}
