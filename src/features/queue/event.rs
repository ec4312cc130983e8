//! What an event is made of, and what becomes of its payload: it is freed exactly once, on every way out.

use super::call_on::Request;
use super::ring::{Cell, Event, Oldest, WORDS};
use crate::engine::{Handle, invoke};
use crate::error::Error;
use crate::platform::clock;
use std::alloc::{Layout, alloc, dealloc};
use std::ffi::c_void;
use std::ptr;

/// Payloads of up to so many bytes need no allocation.
pub(crate) const INLINE: usize = 8 * WORDS;

// `meta`: `stamp:55 | length:6 | kind:3`.
/// `words` are the payload.
const COPIED: u64 = 0;
/// `words` are address, length, what frees it (0: it is our copy) and whose that is.
const APART: u64 = 1;
/// `words` are a [`Request`] and its argument.
const REQUEST: u64 = 2;
const KIND: u64 = 7;

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
    /// Does it lie in the event, and is nobody's?
    #[inline(always)]
    pub(crate) fn is_plain(&self) -> bool {
        self.len <= INLINE && self.free.is_null() && self.owner.0 == 0
    }

    /// Shows a plain payload a word at a time, as the cell stores it: other sizes would meet in the
    /// processor's buffers.
    #[inline(always)]
    fn copy(&self, mut put: impl FnMut(usize, u64)) {
        let (data, whole) = (self.data.cast::<u64>(), self.len / 8);
        for place in 0..whole.min(WORDS) {
            // SAFETY: `len` bytes are readable, by the poster's promise.
            put(place, unsafe { data.add(place).read_unaligned() });
        }
        if !self.len.is_multiple_of(8) && whole < WORDS {
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

    /// Writes an event with this payload, which is plain.
    #[inline(always)]
    pub(crate) fn write(&self, handle: Handle, cell: &Cell) {
        cell.begin(handle.0, meta(self.len, COPIED));
        self.copy(|place, word| cell.put(place, word));
    }
}

impl Oldest {
    /// Is its payload plain?
    #[inline(always)]
    pub(crate) fn is_plain(&self) -> bool {
        self.meta & KIND == COPIED
    }
}

impl Event {
    /// An event with this payload, which is copied, or taken over.
    pub(crate) fn new(handle: Handle, payload: &Payload) -> Result<Self, Error> {
        if !payload.is_plain() {
            return Self::apart(handle, payload);
        }
        let mut words = [0; WORDS];
        payload.copy(|place, word| words[place] = word);
        Ok(Self { handle: handle.0, meta: meta(payload.len, COPIED), words })
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

    pub(crate) fn request(handle: Handle, request: *const Request, arg: *mut c_void) -> Self {
        let words = [request.expose_provenance() as u64, arg.expose_provenance() as u64, 0, 0, 0];
        Self { handle: handle.0, meta: meta(0, REQUEST), words }
    }

    fn kind(&self) -> u64 {
        self.meta & KIND
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
        match self.kind() {
            COPIED => match (self.meta >> 3 & 63) as usize {
                0 => (ptr::null(), 0),
                len => (words.cast(), len),
            },
            APART => {
                let [address, len, ..] = self.words;
                (ptr::with_exposed_provenance(address as usize), len as usize)
            }
            _ => (ptr::with_exposed_provenance(self.words[1] as usize), 0),
        }
    }

    /// When it was posted, in ticks.
    pub(crate) fn posted(&self) -> u64 {
        self.meta >> STAMP_SHIFT << TICKS_SHIFT
    }

    /// Frees the payload; nobody else has the event. Host code may run. `why`: what a request is told.
    #[inline(always)]
    pub(crate) fn free_payload(&self, why: Error) {
        if self.kind() != COPIED {
            // A copy, because host code may run that has another event put here.
            let event = *self;
            event.free_kept(why);
        }
    }

    #[cold]
    #[inline(never)]
    fn free_kept(&self, why: Error) {
        if let Some((request, _)) = self.as_request() {
            // SAFETY: the event owns a share of the request, and gives it up here.
            unsafe { Request::refuse(request, why) };
        } else {
            self.free_apart();
        }
    }

    /// The poster keeps what it gave: frees our copy alone.
    pub(crate) fn give_back(&self) {
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
