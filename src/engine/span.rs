//! What a tracer sees of calls: its begin function is called before each, its end function after it, with
//! what begin has returned, the span.
//!
//! The two are a guest ([`super::guest`]). Between them the thread stays inside the guest, by a frame of its
//! own kind ([`Tag::SPAN`]) that all its spans of the same guest share: so both functions of a call are the
//! same tracer's, whoever replaces it meanwhile, and its data lives until the last end. That frame is hidden
//! from whoever asks what the thread is inside of, and does not count towards the limit of nesting.
//!
//! Spans are a list of the thread's, each belonging to a call's or pin's frame, and end when that is left,
//! however it is left ([`Engine::leave_cold`], which every leave comes to while there are spans).
//!
//! A begin function may set the thread's trace context: that holds until the call is over.

use super::Engine;
use super::frame::{Failed, Frame, Tag};
use super::guest::Visit;
use super::invoke::{self, EndFn};
use super::name::Text;
use super::probes;
use super::record::Record;
use super::slot::Slot;
use super::trace::Saved;
use crate::error::Error;
use std::alloc::{Layout, alloc, dealloc};
use std::cell::Cell;
use std::ffi::c_void;
use std::mem::MaybeUninit;
use std::ptr;

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// The begin function runs. If it does not return, there is no end.
    Beginning,
    Open,
    /// The end function runs, or was left.
    Ending,
}

struct Span {
    outer: *mut Span,
    /// The call's or pin's.
    frame: *const Frame,
    /// That keeps the thread inside the guest; null while it begins.
    stay: *const Frame,
    state: State,
    is_pin: bool,
    end: Option<EndFn>,
    user_data: *mut (),
    /// What begin has returned.
    token: *mut c_void,
    /// If begin has set a context: that one, and what was there before.
    context: Option<Text>,
    has_saved: bool,
    saved: MaybeUninit<Saved>,
}

/// The spans of one thread, innermost first. Zeroed memory is none.
pub(super) struct Spans {
    top: Cell<*mut Span>,
    /// Memory for the next one.
    spare: Cell<*mut Span>,
    /// How many frames are [`Tag::SPAN`].
    stays: Cell<u32>,
}

impl Spans {
    #[cfg(loom)]
    pub(super) fn new() -> Self {
        Self {
            top: Cell::new(ptr::null_mut()),
            spare: Cell::new(ptr::null_mut()),
            stays: Cell::new(0),
        }
    }

    #[inline(always)]
    pub(super) fn is_empty(&self) -> bool {
        self.top.get().is_null()
    }

    /// Frames that are in use and no call's.
    pub(super) fn hidden_frames(&self) -> usize {
        self.stays.get() as usize
    }

    /// A span of that frame, whose guest is about to begin it. None: there is no memory.
    fn push(&self, frame: &Frame, is_pin: bool, user_data: *mut ()) -> Option<*mut Span> {
        let mut it = self.spare.take();
        if it.is_null() {
            // SAFETY: the layout is not empty.
            it = unsafe { alloc(Layout::new::<Span>()) }.cast();
            if it.is_null() {
                return None;
            }
        }
        let span = Span {
            outer: self.top.get(),
            frame,
            stay: ptr::null(),
            state: State::Beginning,
            is_pin,
            end: None,
            user_data,
            token: ptr::null_mut(),
            context: None,
            has_saved: false,
            saved: MaybeUninit::uninit(),
        };
        // SAFETY: memory of this layout, nobody else's.
        unsafe { it.write(span) };
        self.top.set(it);
        Some(it)
    }

    /// The one of that frame; null if it has none.
    fn find(&self, frame: &Frame) -> *mut Span {
        let mut it = self.top.get();
        // SAFETY: spans of this thread's list, from `push`, which `remove` alone frees.
        while !it.is_null() && !ptr::eq(unsafe { (*it).frame }, frame) {
            // SAFETY: as above.
            it = unsafe { (*it).outer };
        }
        it
    }

    /// Takes it out of the list, and frees it.
    ///
    /// # Safety
    /// It is in the list, and used no more.
    unsafe fn remove(&self, it: *mut Span) {
        // SAFETY: the caller's promise.
        let outer = unsafe { (*it).outer };
        if self.top.get() == it {
            self.top.set(outer);
        } else {
            let mut inner = self.top.get();
            // SAFETY: as in `find`; it is in the list.
            unsafe {
                while (*inner).outer != it {
                    inner = (*inner).outer;
                }
                (*inner).outer = outer;
            }
        }
        free(self.spare.replace(it));
    }

    /// In the child of a fork: the thread does not exist. Nobody is told.
    pub(super) fn forget(&self) {
        while !self.top.get().is_null() {
            let it = self.top.get();
            // SAFETY: in the list.
            unsafe {
                if let Some(context) = (*it).context.take() {
                    context.release();
                }
                self.remove(it);
            }
        }
        self.stays.set(0);
    }
}

fn free(span: *mut Span) {
    if !span.is_null() {
        // SAFETY: from `push`, in no list, and nobody's.
        unsafe { dealloc(span.cast(), Layout::new::<Span>()) };
    }
}

impl Engine {
    /// The callback is entered, and about to be called, or to be the host's: tells the tracer, if there is
    /// one. Host code runs, and may unwind; then the frame is for the caller to leave.
    pub(super) fn begin_span(&self, record: &Record, frame: &Frame, slot: &Slot, is_pin: bool) {
        let place = &self.observers.call_hooks;
        let mut guest = place.get();
        while guest.0 != 0 {
            match self.enter_guest(record, guest) {
                Ok(Some(visit)) => return self.begin_span_of(record, frame, slot, visit, is_pin),
                // Inside a guest, or no frame is left for one.
                Ok(None) => return,
                Err(_) => {
                    // Gone with its scope, or replaced.
                    place.forget(guest);
                    guest = place.get();
                }
            }
        }
    }

    fn begin_span_of(
        &self,
        record: &Record,
        frame: &Frame,
        slot: &Slot,
        visit: Visit<'_>,
        is_pin: bool,
    ) {
        let (begin, user_data) = visit.function();
        let Some(span) = record.spans.push(frame, is_pin, user_data) else { return };
        // Leaves are looked at from now on.
        record.set_attention(record.failures.get() > 0);
        let before = record.trace.share();
        // SAFETY: the span stays where it is; it takes this out of the list before it goes.
        unsafe {
            (*span).end = invoke::end_at(visit.extra());
            (*span).has_saved = true;
            record.trace.save((*span).saved.as_mut_ptr(), before);
        }
        let name = Text::into_raw(self.cold_of(slot).and_then(super::cold::Cold::name_text));
        let token = invoke::begin(begin, user_data, frame.handle(), name, Text::into_raw(before));
        if record.spans.find(frame) != span {
            // Begin has left the very call that it was called for, by `cbr_unwind_to`.
            return;
        }
        // SAFETY: in the list.
        unsafe {
            (*span).token = token;
            (*span).state = State::Open;
            let now = record.trace.get();
            if Text::into_raw(now) == Text::into_raw(before) {
                (*span).has_saved = false;
                record.trace.restore((*span).saved.as_mut_ptr());
            } else {
                (*span).context = now.map(Text::share);
            }
            let outer = (*span).outer;
            let shared = outer.as_ref().map(|outer| outer.stay).filter(|stay| !stay.is_null());
            // SAFETY: a frame of the record's.
            let shared = shared.map(|stay| &*stay).filter(|stay| stay.handle() == visit.handle());
            (*span).stay = match shared {
                Some(stay) => {
                    change_count(stay, 1);
                    stay
                }
                None => {
                    let Some(stay) = visit.stay() else { return };
                    record.spans.stays.set(record.spans.stays.get() + 1);
                    change_count(stay, 1);
                    stay
                }
            };
        }
    }

    /// The frame is about to be left: ends its span, if it has one, with what the caller gets. Host code
    /// runs, and may unwind.
    #[cold]
    #[inline(never)]
    pub(super) fn end_span(&self, record: &Record, frame: &Frame, error: Option<Error>) {
        /// Whatever becomes of the end function.
        struct Closing<'a>(&'a Engine, &'a Record, &'a Frame, *mut Span);
        impl Drop for Closing<'_> {
            fn drop(&mut self) {
                let Self(engine, record, frame, span) = *self;
                // Else it was left by a longjmp, and closed when its frame was.
                if record.spans.find(frame) == span {
                    // SAFETY: in the list.
                    unsafe { engine.close_span(record, span) };
                }
            }
        }
        let span = record.spans.find(frame);
        if span.is_null() {
            return;
        }
        let closing = Closing(self, record, frame, span);
        // SAFETY: in the list.
        let (state, end, user_data, token, stay) =
            unsafe { ((*span).state, (*span).end, (*span).user_data, (*span).token, (*span).stay) };
        if state == State::Open
            && let Some(end) = end
        {
            // SAFETY: as above.
            unsafe { (*span).state = State::Ending };
            // SAFETY: an open span has one, a frame of the record's.
            let guest = unsafe { (*stay).handle() };
            let visit = self.visit_again(record, guest);
            invoke::end(end, user_data, token, error.map_or(0, probes::status));
            drop(visit);
        }
        drop(closing);
    }

    /// # Safety
    /// The span is in the record's list, and its functions do not run, or are left.
    unsafe fn close_span(&self, record: &Record, span: *mut Span) {
        // SAFETY: the caller's promise.
        let (stay, context, state) = unsafe { ((*span).stay, (*span).context, (*span).state) };
        // SAFETY: as above.
        let (has_saved, is_pin) = unsafe { ((*span).has_saved, (*span).is_pin) };
        if has_saved {
            // SAFETY: saved by `begin_span_of`.
            unsafe {
                let saved = (*span).saved.as_mut_ptr();
                match is_pin && state != State::Beginning {
                    true => record.trace.take_out(saved, context),
                    false => record.trace.restore(saved),
                }
            }
        }
        if let Some(context) = context {
            context.release();
        }
        // SAFETY: the caller's promise, and this is the last use.
        unsafe { record.spans.remove(span) };
        // SAFETY: null, or a frame of the record's.
        if let Some(stay) = unsafe { stay.as_ref() }
            && change_count(stay, -1) == 0
        {
            record.spans.stays.set(record.spans.stays.get() - 1);
            let guest = stay.handle();
            // Last, because what ends with it is host code.
            self.leave_object(record, stay, self.slots.at(guest.index()), guest);
        }
    }
}

/// How many spans a [`Tag::SPAN`] frame is for: kept where a call's has what its callback has said.
fn change_count(stay: &Frame, by: i32) -> u32 {
    debug_assert!(stay.tag.get() == Tag::SPAN);
    let count = stay.failed.get().count().wrapping_add_signed(by);
    stay.failed.set(Failed::of_count(count));
    count
}
