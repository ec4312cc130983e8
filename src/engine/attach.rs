//! Threads that call a scope's callbacks: its attach function runs once on each, before the first call,
//! and its detach function at the thread's end.

use super::Engine;
use super::frame::{Failed, Frame, Tag};
use super::handle::{Handle, Kind};
use super::invoke;
use super::record::Record;
use super::slot::{Phase, Slot, Word};
use crate::error::{Error, Fault};
use crate::platform::logging;
use crate::sync::{Relaxed, TotalOrder};
use std::alloc::{Layout, alloc, dealloc};
use std::cell::Cell;
use std::ffi::c_void;
use std::ptr;

/// `CBR_THREAD_NOT_OURS`: the host had attached the thread, so nobody detaches it.
pub(crate) const NOT_OURS: *mut c_void = ptr::without_provenance_mut(usize::MAX);

/// A detach function may call callbacks, and so attach its thread again: as often as pthread's own
/// destructors may.
const ROUNDS: u32 = 4;

/// A scope that this thread is attached to.
struct Attachment {
    next: *mut Attachment,
    scope: Handle,
    token: *mut c_void,
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

    /// Attached from now on, with nothing to detach.
    fn push(&self, scope: Handle) -> Result<(), Error> {
        // SAFETY: the layout is not empty.
        let it = unsafe { alloc(Layout::new::<Attachment>()) }.cast::<Attachment>();
        if it.is_null() {
            return Err(Error::NoMemory);
        }
        // SAFETY: fresh memory of this layout.
        unsafe { it.write(Attachment { next: self.0.get(), scope, token: NOT_OURS }) };
        self.0.set(it);
        Ok(())
    }

    fn set_token(&self, scope: Handle, token: *mut c_void) {
        let mut it = self.0.get();
        while !it.is_null() {
            // SAFETY: as in `has`; no reference to a node is kept across calls.
            unsafe {
                if (*it).scope == scope {
                    (*it).token = token;
                    return;
                }
                it = (*it).next;
            }
        }
    }

    /// Forgets those that `is_gone` says of; the token of the last of them.
    fn remove_if(&self, is_gone: impl Fn(Handle) -> bool) -> Option<(Handle, *mut c_void)> {
        let (mut before, mut it, mut removed) = (ptr::null_mut::<Attachment>(), self.0.get(), None);
        while !it.is_null() {
            // SAFETY: as in `has`.
            let (next, scope, token) = unsafe { ((*it).next, (*it).scope, (*it).token) };
            if is_gone(scope) {
                match before.is_null() {
                    true => self.0.set(next),
                    // SAFETY: as in `has`.
                    false => unsafe { (*before).next = next },
                }
                // SAFETY: from `alloc` with this layout, and unlinked.
                unsafe { dealloc(it.cast(), Layout::new::<Attachment>()) };
                removed = Some((scope, token));
            } else {
                before = it;
            }
            it = next;
        }
        removed
    }

    /// The newest one, which the list forgets.
    fn pop(&self) -> Option<(Handle, *mut c_void)> {
        // SAFETY: as in `has`.
        let newest = unsafe { self.0.get().as_ref() }?.scope;
        self.remove_if(|scope| scope == newest)
    }

    /// In the child of a fork: the thread is gone, and nobody detaches it.
    pub(super) fn forget(&self) {
        while self.pop().is_some() {}
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
        record.attachments.remove_if(|scope| self.check_scope(scope).is_err());
        // Before the function runs: what it calls of its own scope does not attach again.
        if let Err(error) = record.attachments.push(scope) {
            let _ = self.leave_cold(record, frame, slot);
            return Err(record.fault(error));
        }
        let attaching = Attaching { engine: self, record, frame, slot, scope };
        // Relaxed: published with the scope's first callback.
        let token = invoke::attach(attach, scope_slot.user_data.load(Relaxed));
        if frame.failed.get() != Failed::NO {
            // It has said so with cbr_fail: the callback does not run. (Leaving gives the error.)
            std::mem::forget(attaching);
            record.attachments.remove_if(|other| other == scope);
            let failed = self.leave_cold(record, frame, slot);
            return Err(failed.err().unwrap_or_else(|| record.fault(Error::Callback)));
        }
        std::mem::forget(attaching);
        record.attachments.set_token(scope, token);
        Ok(())
    }

    /// The thread ends: tells the scopes that it was attached to.
    pub(super) fn detach_thread(&self, record: &Record) {
        let mut left = ROUNDS;
        while let Some((scope, token)) = record.attachments.pop() {
            if token == NOT_OURS {
                continue;
            }
            self.detach_from(record, scope, token);
            if record.attachments.has(scope) {
                left -= 1;
                if left == 0 {
                    logging::warn(|| {
                        let name = format!("{:#018x}", scope.0);
                        format!("the detach function of scope {name} attaches its thread again")
                    });
                    record.attachments.forget();
                }
            }
        }
    }

    fn detach_from(&self, record: &Record, scope: Handle, token: *mut c_void) {
        let Ok(slot) = self.resolve(scope, Kind::Scope) else { return };
        let Ok(frame) = record.push_cold(Tag::DETACH) else { return };
        let detaching = Detaching { engine: self, record, frame };
        // ORDER[inflight] as a call: the cell, then the word; partners: the revoke in `begin_close`, the
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

    /// The detach function that `frame` stands for has ended.
    pub(super) fn leave_detach(&self, record: &Record, frame: &Frame) {
        let scope = frame.handle();
        frame.tag.set(Tag::CALL);
        frame.failed.set(Failed::NO);
        // ORDER[inflight] the cell, then the word; partner: revoke, then the scan in `running`.
        frame.cell.swap_sc(0);
        record.settle();
        let slot = self.slots.at(scope.index());
        if Word(slot.word.load_sc()).is(scope, Phase::Revoked)
            && let Some(entry) = self.find_scope(scope)
        {
            entry.tell_closers();
        }
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
        self.record.attachments.remove_if(|scope| scope == self.scope);
        let _ = self.engine.leave_cold(self.record, self.frame, self.slot);
    }
}

/// A detach function that runs.
struct Detaching<'a> {
    engine: &'a Engine,
    record: &'a Record,
    frame: &'a Frame,
}

impl Drop for Detaching<'_> {
    fn drop(&mut self) {
        self.engine.leave_detach(self.record, self.frame);
    }
}
