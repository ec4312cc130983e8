//! The C surface: convert, call the engine once, map the status. One file a header section. The doc
//! comments become the header's, which is the reference.
#![allow(
    clippy::missing_safety_doc,
    reason = "the comments are for C: pointers are valid for what the comment says of them"
)]

// In the order of the header.
mod status;

mod signature;

mod callback;

mod call;

mod scope;

mod hook;

mod name;

mod key;

mod queue;

#[cfg(not(miri))]
mod thunk;

mod check;

mod stats;

mod metrics;

mod profile;

mod trace;

mod log;

pub use self::{
    call::*, callback::*, check::*, hook::*, key::*, log::*, metrics::*, name::*, profile::*,
    queue::*, scope::*, signature::*, stats::*, status::*, trace::*,
};

#[cfg(not(miri))]
pub use self::thunk::*;

use crate::engine::{ENGINE, Handle, Patience, Record};
use crate::error::{Error, Fault};
use crate::features::directory::Mode;
use crate::registry;
use std::ffi::{CStr, c_char};
use std::fmt;
use std::time::Duration;

/// Remembers the failure for `cbr_last_error`, and gives its number.
#[cold]
#[inline(never)]
fn failed(function: &'static str, handle: u64, error: Error) -> cbr_status {
    if let Ok(record) = registry::joined() {
        // First: the line may run host code, whose failures are not the last.
        ENGINE.log_refused(record, function, Handle(handle), error);
        record.last_error.set(function, Handle(handle), error);
    }
    status::number(error)
}

#[inline(always)]
fn report(function: &'static str, handle: u64, result: Result<(), Error>) -> cbr_status {
    match result {
        Ok(()) => CBR_OK,
        Err(error) => failed(function, handle, error),
    }
}

/// The same for a hot function's fault.
#[cold]
#[inline(never)]
fn faulted(function: &'static str, handle: u64, record: &Record, fault: Fault) -> cbr_status {
    failed(function, handle, record.explain(fault))
}

/// Runs `body` with the calling thread's record.
fn with_record<T>(body: impl FnOnce(&'static Record) -> Result<T, Error>) -> Result<T, Error> {
    body(registry::joined()?)
}

/// The thread's first use of the library: makes its record, then does `again` what found none.
#[cold]
#[inline(never)]
fn first_use(
    function: &'static str,
    handle: u64,
    again: impl FnOnce() -> cbr_status,
) -> cbr_status {
    match registry::joined() {
        Ok(_) => again(),
        Err(error) => failed(function, handle, error),
    }
}

/// How long `timeout_ns` is.
fn patience(timeout_ns: i64) -> Result<Patience, Error> {
    match timeout_ns {
        ..-1 => Err(Error::Invalid("timeout_ns is below -1")),
        -1 => Ok(Patience::Forever),
        nanoseconds => Ok(Patience::lasting(Duration::from_nanos(nanoseconds as u64))),
    }
}

/// Structures with more than this are not read: the size is a mistake.
const OPTIONS_MAX: usize = 4096;

/// A structure that the host has filled, which begins with its size. What a shorter one lacks is zero; the
/// first version had `first` bytes.
///
/// # Safety
/// NULL, or as many bytes as it says are readable; all zero is a `T`, which has no padding that matters.
unsafe fn read_options<T: Copy>(options: *const T, first: usize) -> Result<T, Error> {
    if options.is_null() {
        return Err(Error::Invalid("options is NULL"));
    }
    // SAFETY: every version of a structure begins with its size.
    let size = unsafe { options.cast::<usize>().read() };
    if size < first || size > OPTIONS_MAX {
        return Err(Error::Invalid("options->size is not the size of the structure"));
    }
    let bytes = options.cast::<u8>();
    let known = size.min(size_of::<T>());
    // SAFETY: `size` bytes are readable.
    let tail = unsafe { std::slice::from_raw_parts(bytes.add(known), size - known) };
    if tail.iter().any(|byte| *byte != 0) {
        return Err(Error::Unsupported("options has a field of a later version"));
    }
    let mut read = std::mem::MaybeUninit::<T>::zeroed();
    // SAFETY: `known` bytes are readable, and there is room for them; the rest is zero.
    unsafe {
        std::ptr::copy_nonoverlapping(bytes, read.as_mut_ptr().cast(), known);
        Ok(read.assume_init())
    }
}

/// What `mode` says about an entry that is there already.
fn bind_mode(mode: u32) -> Result<Mode, Error> {
    match mode {
        CBR_BIND_ONCE => Ok(Mode::Once),
        CBR_BIND_REPLACE => Ok(Mode::Replace),
        _ => Err(Error::Invalid("mode is neither CBR_BIND_ONCE nor CBR_BIND_REPLACE")),
    }
}

/// A C string as UTF-8.
///
/// # Safety
/// `text` is NULL or a NUL-terminated string that outlives the use.
unsafe fn utf8<'a>(text: *const c_char, what: &'static str) -> Result<Option<&'a str>, Error> {
    if text.is_null() {
        return Ok(None);
    }
    // SAFETY: the caller's promise.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str().map(Some).map_err(|_| Error::Invalid(what))
}

/// A C buffer that text is written to like snprintf does: cut, NUL-terminated, and the whole length
/// counted.
struct Buffer {
    at: *mut u8,
    room: usize,
    len: usize,
}

impl Buffer {
    /// # Safety
    /// `buf` has room for `len` bytes, or is NULL.
    unsafe fn new(buf: *mut c_char, len: usize) -> Self {
        Self { at: buf.cast(), room: if buf.is_null() { 0 } else { len }, len: 0 }
    }

    /// Ends the text; the length it needed without the NUL.
    fn finish(self) -> usize {
        if self.room > 0 {
            // SAFETY: inside the buffer.
            unsafe { *self.at.add(self.len.min(self.room - 1)) = 0 };
        }
        self.len
    }
}

impl fmt::Write for Buffer {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let place = self.len.min(self.room);
        let fits = text.len().min((self.room - place).saturating_sub(1));
        // SAFETY: `place + fits < room`, or nothing is written.
        unsafe { std::ptr::copy_nonoverlapping(text.as_ptr(), self.at.wrapping_add(place), fits) };
        self.len += text.len();
        Ok(())
    }
}
