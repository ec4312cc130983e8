//! The trace context of a thread: whose work it does, in W3C's words. Events take the poster's along, and
//! their callbacks run under it.
//!
//! What there is for a time, because an event has brought it or a tracer has set it, is put over what was
//! there before, which is kept in a [`Saved`] and comes back. Those are a list, innermost first; one in the
//! middle may go first (pins).
//!
//! Threads without a context pay nothing: what posts and dispatches compare with anyway says whether there
//! is one ([`Trace::plain_payloads`], [`Trace::plain_events`]).

use super::Engine;
use super::name::Text;
use super::record::Record;
use std::cell::Cell;
use std::ptr;

/// Payloads of up to so many bytes lie in the event.
pub(crate) const INLINE: usize = 40;
/// An event that is nothing but such a payload has none of these bits in its description.
pub(crate) const NOT_PLAIN: u64 = 7;

/// A thread's. Zeroed memory plus [`Trace::begin`] is none.
pub(crate) struct Trace {
    /// A [`Text`] that it owns; null: none.
    context: Cell<*mut u8>,
    saved: Cell<*mut Saved>,
    /// Payloads of fewer bytes go into an event that has nothing else. None while there is a context to
    /// take along.
    pub(crate) plain_payloads: Cell<usize>,
    /// Events with none of these bits in their description are delivered as they are. None while there is
    /// a context that is to be hidden from them.
    pub(crate) plain_events: Cell<u64>,
}

/// A context that comes back. At one place as long as it is in the list.
pub(crate) struct Saved {
    outer: *mut Saved,
    context: *mut u8,
}

impl Trace {
    #[cfg(loom)]
    pub(super) fn new() -> Self {
        Self {
            context: Cell::new(ptr::null_mut()),
            saved: Cell::new(ptr::null_mut()),
            plain_payloads: Cell::new(0),
            plain_events: Cell::new(0),
        }
    }

    pub(super) fn begin(&self) {
        self.plain_payloads.set(INLINE + 1);
        self.plain_events.set(NOT_PLAIN);
    }

    /// The context, the thread's as long as it has that.
    pub(crate) fn get(&self) -> Option<Text> {
        Text::from_raw(self.context.get())
    }

    /// The same, to be kept and released.
    pub(crate) fn share(&self) -> Option<Text> {
        self.get().map(Text::share)
    }

    /// Puts a context, which it takes over, in place of the one that there was.
    pub(crate) fn set(&self, context: Option<Text>) {
        let old = self.put(Text::into_raw(context));
        release(old);
    }

    fn put(&self, context: *mut u8) -> *mut u8 {
        let is_none = context.is_null();
        self.plain_payloads.set(if is_none { INLINE + 1 } else { 0 });
        self.plain_events.set(if is_none { NOT_PLAIN } else { u64::MAX });
        self.context.replace(context)
    }

    /// Keeps what there is in `it`; then there is `context`.
    ///
    /// # Safety
    /// `it` has room for it, and stays until [`Trace::restore`] or [`Trace::take_out`].
    pub(crate) unsafe fn save(&self, it: *mut Saved, context: Option<Text>) {
        let saved = Saved { outer: self.saved.get(), context: self.put(Text::into_raw(context)) };
        // SAFETY: the caller's promise.
        unsafe { it.write(saved) };
        self.saved.set(it);
    }

    /// What `it` has kept comes back, in place of whatever there is.
    ///
    /// # Safety
    /// `it` is in the list.
    pub(crate) unsafe fn restore(&self, it: *mut Saved) {
        // SAFETY: the caller's promise.
        let (_, context) = unsafe { self.unlink(it) };
        release(self.put(context));
    }

    /// The same of what need not be the innermost: what `it` has kept takes the place of `own`, the context
    /// that came with it, unless the thread has set another one in that one's place.
    ///
    /// # Safety
    /// `it` is in the list.
    pub(crate) unsafe fn take_out(&self, it: *mut Saved, own: Option<Text>) {
        let own = Text::into_raw(own);
        // SAFETY: the caller's promise.
        let (inner, context) = unsafe { self.unlink(it) };
        // Where its own would be: kept by who came next, or the thread's.
        // SAFETY: those in the list stay, by `save`'s contract.
        let next = unsafe { inner.as_ref().map_or(self.context.get(), |inner| inner.context) };
        if next != own {
            release(context);
        } else if inner.is_null() {
            release(self.put(context));
        } else {
            // SAFETY: as above.
            release(unsafe { ptr::replace(&raw mut (*inner).context, context) });
        }
    }

    /// Takes `it` out of the list: who came next, and what it has kept.
    ///
    /// # Safety
    /// `it` is in the list.
    unsafe fn unlink(&self, it: *mut Saved) -> (*mut Saved, *mut u8) {
        // SAFETY: the caller's promise.
        let (outer, context) = unsafe { ((*it).outer, (*it).context) };
        let mut inner = ptr::null_mut();
        let mut place = self.saved.get();
        while place != it {
            inner = place;
            // SAFETY: those in the list stay, by `save`'s contract.
            place = unsafe { (*place).outer };
        }
        if inner.is_null() {
            self.saved.set(outer);
        } else {
            // SAFETY: as above.
            unsafe { (*inner).outer = outer };
        }
        (inner, context)
    }

    /// The thread is no more. What others have kept for it is theirs, or lost with it.
    pub(super) fn forget(&self) {
        self.saved.set(ptr::null_mut());
        self.set(None);
    }
}

fn release(context: *mut u8) {
    if let Some(context) = Text::from_raw(context) {
        context.release();
    }
}

impl Engine {
    /// The thread has this context from now on, or none; in a callback that a dispatch has called, until
    /// that returns.
    pub(crate) fn set_context(&self, record: &Record, context: Option<Text>) {
        if !record.deliveries.get().is_null()
            && let Some(hooks) = self.queue_hooks.get()
        {
            (hooks.keep_context)(record);
        }
        record.trace.set(context);
    }
}
