//! What an event is made of, and what becomes of its payload: it is freed exactly once, on every way out.

use super::call_on::Request;
use super::ring::{Cell, Event, Oldest, WORDS};
use crate::engine::{Handle, Record, Text, invoke, trace};
use crate::error::Error;
use crate::platform::clock;
use std::alloc::{Layout, alloc, dealloc};
use std::ffi::c_void;
use std::ptr;

const _: () = assert!(trace::INLINE == 8 * WORDS);

// `meta`: `stamp:55 | length:6 | saved:1 | kind:2`.
/// `words` are the payload.
const COPIED: u64 = 0;
/// `words` are a shorter payload, and a context.
const TRACED: u64 = 1;
/// `words` are address, length, what frees it (0: it is our copy) and whose that is; and a context.
const APART: u64 = 2;
/// `words` are a [`Request`] and its argument; and a context.
const REQUEST: u64 = 3;
const KIND: u64 = 3;
/// The payload is elsewhere.
const ELSEWHERE: u64 = APART & REQUEST;
/// Of an event that is delivered: the thread's context was saved.
const SAVED: u64 = 4;
const _: () = assert!(trace::NOT_PLAIN == SAVED | KIND);

/// The word of the trace context, a [`Text`] or null, unless the event is COPIED.
const CONTEXT: usize = WORDS - 1;
const INLINE_TRACED: usize = 8 * CONTEXT;

/// Ticks are kept in units of 16, so that they last for years.
const STAMP_SHIFT: u32 = 9;
const TICKS_SHIFT: u32 = 4;

/// What is posted.
pub(crate) struct Payload {
    pub(crate) data: *mut c_void,
    pub(crate) len: usize,
    /// Null: it is copied.
    pub(crate) free: *mut (),
    /// The scope whose code `free` is; 0: nobody's.
    pub(crate) owner: Handle,
}

fn meta(len: usize, kind: u64) -> u64 {
    (clock::ticks() >> TICKS_SHIFT) << STAMP_SHIFT | (len as u64) << 3 | kind
}

impl Payload {
    /// Does it lie in the event, is nobody's, and all that an event of this thread has?
    #[inline(always)]
    pub(crate) fn is_plain(&self, record: &Record) -> bool {
        self.len < record.trace.plain_payloads.get() && self.is_copied()
    }

    #[inline(always)]
    fn is_copied(&self) -> bool {
        self.free.is_null() && self.owner.0 == 0
    }

    /// Shows a payload that fits into an event a word at a time, as the cell stores it: other sizes would
    /// meet in the processor's buffers.
    ///
    /// # Safety
    /// It has no more than `trace::INLINE` bytes.
    #[inline(always)]
    unsafe fn copy(&self, mut put: impl FnMut(usize, u64)) {
        // SAFETY: the caller's promise, which the compiler needs not check then.
        unsafe { std::hint::assert_unchecked(self.len <= trace::INLINE) };
        let (data, whole) = (self.data.cast::<u64>(), self.len / 8);
        for place in 0..whole {
            // SAFETY: `len` bytes are readable, by the poster's promise.
            put(place, unsafe { data.add(place).read_unaligned() });
        }
        if !self.len.is_multiple_of(8) {
            put(whole, self.rest(whole));
        }
    }

    /// The bytes behind `whole` words.
    #[cold]
    fn rest(&self, whole: usize) -> u64 {
        let mut word = 0_u64;
        // SAFETY: as above, and what is left fits into a word.
        unsafe {
            let from = self.data.cast::<u64>().add(whole).cast::<u8>();
            ptr::copy_nonoverlapping(from, (&raw mut word).cast(), self.len % 8);
        }
        word
    }

    /// Reads where `write` will, so that a pointer to nowhere is met before a cell is claimed.
    #[inline(always)]
    pub(crate) fn touch(&self) {
        if let Some(last) = self.len.checked_sub(1) {
            let data = self.data.cast::<u8>();
            // SAFETY: `len` bytes are readable, by the poster's promise.
            unsafe {
                data.read_volatile();
                data.add(last).read_volatile();
            }
        }
    }

    /// Writes an event with this payload.
    ///
    /// # Safety
    /// The payload is plain.
    #[inline(always)]
    pub(crate) unsafe fn write(&self, handle: Handle, cell: &Cell) {
        cell.begin(handle.0, meta(self.len, COPIED));
        // SAFETY: the caller's promise.
        unsafe { self.copy(|place, word| cell.put(place, word)) };
    }
}

impl Oldest {
    /// Is its payload plain, and no context to be changed for it?
    #[inline(always)]
    pub(crate) fn is_plain(&self, record: &Record) -> bool {
        self.meta & record.trace.plain_events.get() == 0
    }
}

impl Event {
    /// An event of this thread with this payload, which is copied, or taken over.
    pub(crate) fn new(record: &Record, handle: Handle, payload: &Payload) -> Result<Self, Error> {
        let context = record.trace.get();
        let (inline, kind) = match context {
            None => (trace::INLINE, COPIED),
            Some(_) => (INLINE_TRACED, TRACED),
        };
        let mut event = if payload.is_copied() && payload.len <= inline {
            let mut words = [0; WORDS];
            // SAFETY: `inline` is no more than that.
            unsafe { payload.copy(|place, word| words[place] = word) };
            Self { handle: handle.0, meta: meta(payload.len, kind), words }
        } else {
            Self::apart(handle, payload)?
        };
        event.set_context(context);
        Ok(event)
    }

    #[cold]
    fn apart(handle: Handle, payload: &Payload) -> Result<Self, Error> {
        let mut data = payload.data;
        if payload.free.is_null() && payload.len == 0 {
            // What the poster has there is its own.
            data = ptr::null_mut();
        } else if payload.free.is_null() {
            // SAFETY: the layout is not empty.
            data = unsafe { alloc(layout(payload.len)?) }.cast();
            if data.is_null() {
                return Err(Error::NoMemory);
            }
            // SAFETY: as many bytes are readable, by the poster's promise, and there is room for them.
            unsafe {
                ptr::copy_nonoverlapping(payload.data.cast::<u8>(), data.cast(), payload.len);
            }
        }
        let (address, free) = (data.expose_provenance(), payload.free.expose_provenance());
        let words = [address as u64, payload.len as u64, free as u64, payload.owner.0, 0];
        Ok(Self { handle: handle.0, meta: meta(0, APART), words })
    }

    pub(crate) fn request(
        record: &Record,
        handle: Handle,
        request: *const Request,
        arg: *mut c_void,
    ) -> Self {
        let words = [request.expose_provenance() as u64, arg.expose_provenance() as u64, 0, 0, 0];
        let mut event = Self { handle: handle.0, meta: meta(0, REQUEST), words };
        event.set_context(record.trace.get());
        event
    }

    /// Has it this context, too? Shares it.
    fn set_context(&mut self, context: Option<Text>) {
        if let Some(context) = context {
            let place = Text::into_raw(Some(context.share()));
            self.words[CONTEXT] = place.expose_provenance() as u64;
        }
    }

    /// The context, which the event has no more: the caller's.
    pub(crate) fn take_context(&mut self) -> Option<Text> {
        if self.kind() == COPIED {
            return None;
        }
        let place = std::mem::take(&mut self.words[CONTEXT]);
        Text::from_raw(ptr::with_exposed_provenance_mut(place as usize))
    }

    /// Was the context of the thread that delivers it saved?
    pub(crate) fn has_saved(&self) -> bool {
        self.meta & SAVED != 0
    }

    pub(crate) fn set_saved(&mut self, saved: bool) {
        self.meta = if saved { self.meta | SAVED } else { self.meta & !SAVED };
    }

    fn kind(&self) -> u64 {
        self.meta & KIND
    }

    /// Is it a payload that lies in it, and nothing else?
    #[inline(always)]
    pub(crate) fn is_plain(&self) -> bool {
        self.meta & (SAVED | KIND) == COPIED
    }

    pub(crate) fn handle(&self) -> Handle {
        Handle(self.handle)
    }

    /// The scope that owns it; 0: nobody.
    #[inline(always)]
    pub(crate) fn owner(&self) -> Handle {
        if self.kind() == APART { Handle(self.words[3]) } else { Handle(0) }
    }

    /// The request that it carries, if it does.
    pub(crate) fn as_request(&self) -> Option<(*const Request, *mut c_void)> {
        let [request, arg, ..] = self.words;
        (self.kind() == REQUEST).then(|| {
            (
                ptr::with_exposed_provenance(request as usize),
                ptr::with_exposed_provenance_mut(arg as usize),
            )
        })
    }

    /// Address and length of the payload; `words`: where those of the event are, if it lies there.
    pub(crate) fn data(&self, words: *const [u64; WORDS]) -> (*const c_void, usize) {
        if self.meta & ELSEWHERE == 0 {
            return match (self.meta >> 3 & 63) as usize {
                0 => (ptr::null(), 0),
                len => (words.cast(), len),
            };
        }
        let [first, second, ..] = self.words;
        match self.kind() {
            APART => (ptr::with_exposed_provenance(first as usize), second as usize),
            _ => (ptr::with_exposed_provenance(second as usize), 0),
        }
    }

    /// When it was posted, in ticks.
    pub(crate) fn posted(&self) -> u64 {
        self.meta >> STAMP_SHIFT << TICKS_SHIFT
    }

    /// Frees what it has, the payload last; nobody else has the event. Host code may run. `why`: what a
    /// request is told.
    pub(crate) fn free_payload(mut self, why: Error) {
        if let Some(context) = self.take_context() {
            context.release();
        }
        if let Some((request, _)) = self.as_request() {
            // SAFETY: the event owns a share of the request, and gives it up here.
            unsafe { Request::refuse(request, why) };
        } else if self.kind() == APART {
            self.free_apart();
        }
    }

    /// It was not posted, and the poster keeps what it gave: frees our copy alone, and the context.
    pub(crate) fn give_back(mut self) {
        if let Some(context) = self.take_context() {
            context.release();
        }
        if self.kind() == APART && self.words[2] == 0 {
            self.free_apart();
        }
    }

    #[cold]
    fn free_apart(&self) {
        let [address, len, free, ..] = self.words;
        let data: *mut u8 = ptr::with_exposed_provenance_mut(address as usize);
        if free != 0 {
            let function = ptr::with_exposed_provenance_mut::<()>(free as usize);
            invoke::destroy(function, data.cast(), None);
        } else if len > 0
            && let Ok(layout) = layout(len as usize)
        {
            // SAFETY: allocated in `apart` with this layout, freed once.
            unsafe { dealloc(data, layout) };
        }
    }
}

fn layout(len: usize) -> Result<Layout, Error> {
    Layout::from_size_align(len, 16).map_err(|_| Error::NoMemory)
}
