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
    /// The one before it in time.
    next: *mut Attachment,
    /// Another one of the same bucket.
    chain: *mut Attachment,
    scope: Handle,
    token: *mut c_void,
    /// While the attach function runs: 1 + the place of the frame that it runs in. Else 0.
    attaching_in: usize,
}

/// Places by scope, so that calls of a thread in thousands of scopes find theirs. What is never used takes
/// no memory: see [`super::memo`].
const BUCKETS: usize = if cfg!(any(loom, miri)) { 1 } else { 1024 };

/// Attachments below which closed scopes' are not looked for.
const FEW: usize = 16;

/// All of one thread's. Zeroed memory is none.
pub(crate) struct Attachments {
    /// The newest first.
    list: Cell<*mut Attachment>,
    count: Cell<usize>,
    /// At how many those of closed scopes are forgotten next.
    full: Cell<usize>,
    buckets: [Cell<*mut Attachment>; BUCKETS],
}

impl Attachments {
    #[cfg(loom)]
    pub(super) fn new() -> Self {
        Self {
            list: Cell::new(ptr::null_mut()),
            count: Cell::new(0),
            full: Cell::new(0),
            buckets: std::array::from_fn(|_| Cell::new(ptr::null_mut())),
        }
    }

    #[inline]
    fn bucket(&self, scope: Handle) -> &Cell<*mut Attachment> {
        // Fibonacci hashing, as in `memo`: scopes' slots may come in steps.
        &self.buckets[(scope.index().wrapping_mul(0x9e37_79b9) >> 22) as usize % BUCKETS]
    }

    /// The one of that scope, null if there is none.
    #[inline]
    fn find(&self, scope: Handle) -> *mut Attachment {
        let mut it = self.bucket(scope).get();
        // SAFETY: a node of this thread's, written by `push` and freed by `free` only; no reference to a
        // node is kept across calls.
        while !it.is_null() && unsafe { (*it).scope } != scope {
            // SAFETY: as above.
            it = unsafe { (*it).chain };
        }
        it
    }

    #[inline]
    fn has(&self, scope: Handle) -> bool {
        !self.find(scope).is_null()
    }

    /// The attach function is about to run, in the frame at `place`.
    fn push(&self, scope: Handle, place: usize) -> Result<(), Error> {
        // SAFETY: the layout is not empty.
        let it = unsafe { alloc(Layout::new::<Attachment>()) }.cast::<Attachment>();
        if it.is_null() {
            return Err(Error::NoMemory);
        }
        let (next, bucket) = (self.list.get(), self.bucket(scope));
        let (chain, attaching_in) = (bucket.get(), place + 1);
        let attachment = Attachment { next, chain, scope, token: NOT_OURS, attaching_in };
        // SAFETY: fresh memory of this layout.
        unsafe { it.write(attachment) };
        self.list.set(it);
        bucket.set(it);
        self.count.set(self.count.get() + 1);
        Ok(())
    }

    /// The attach function has returned.
    fn set_token(&self, scope: Handle, token: *mut c_void) {
        let it = self.find(scope);
        if !it.is_null() {
            // SAFETY: as in `find`.
            unsafe {
                (*it).token = token;
                (*it).attaching_in = 0;
            }
        }
    }

    /// Forgets those that `is_gone` says of.
    fn remove_if(&self, is_gone: impl Fn(&Attachment) -> bool) {
        let (mut before, mut it) = (ptr::null_mut::<Attachment>(), self.list.get());
        // SAFETY: as in `find`.
        while let Some(attachment) = unsafe { it.as_ref() } {
            let next = attachment.next;
            if is_gone(attachment) {
                match before.is_null() {
                    true => self.list.set(next),
                    // SAFETY: as in `find`; the reference above is not used any more.
                    false => unsafe { (*before).next = next },
                }
                // SAFETY: of this list, and unlinked.
                unsafe { self.free(it) };
            } else {
                before = it;
            }
            it = next;
        }
    }

    /// # Safety
    /// `it` is from `push`, and no longer in the list, but in its bucket.
    unsafe fn free(&self, it: *mut Attachment) {
        // SAFETY: the caller's promise, and as in `find`.
        unsafe {
            let (bucket, chain) = (self.bucket((*it).scope), (*it).chain);
            let mut before = bucket.get();
            if before == it {
                bucket.set(chain);
            } else {
                while (*before).chain != it {
                    before = (*before).chain;
                }
                (*before).chain = chain;
            }
            // From `alloc` with this layout.
            dealloc(it.cast(), Layout::new::<Attachment>());
        }
        self.count.set(self.count.get() - 1);
    }

    fn remove(&self, scope: Handle) {
        self.remove_if(|attachment| attachment.scope == scope);
    }

    /// The frame at `place` is left by a longjmp. True: an attach function ran in it, which has not returned.
    pub(super) fn abandon(&self, place: usize) -> bool {
        let before = self.count.get();
        self.remove_if(|attachment| attachment.attaching_in == place + 1);
        self.count.get() != before
    }

    /// The newest one, which the list forgets.
    fn pop(&self) -> Option<(Handle, *mut c_void)> {
        let newest = self.list.get();
        // SAFETY: as in `find`.
        let &Attachment { next, scope, token, .. } = unsafe { newest.as_ref() }?;
        self.list.set(next);
        // SAFETY: the list's first one until now.
        unsafe { self.free(newest) };
        Some((scope, token))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.get().is_null()
    }

    /// Has their number doubled since those that are gone were forgotten?
    fn is_full(&self) -> bool {
        self.count.get() >= self.full.get().max(FEW)
    }

    fn forget_gone(&self, is_gone: impl Fn(&Attachment) -> bool) {
        self.remove_if(is_gone);
        self.full.set(self.count.get() * 2);
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
        if record.attachments.is_full() {
            record.attachments.forget_gone(|other| self.check_scope(other.scope).is_err());
        }
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
        let limit = ROUNDS * record.attachments.count.get();
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
