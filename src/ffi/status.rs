//! Section "Status": numbers, names and words of what can go wrong; the library's version.

use super::Buffer;
use crate::engine;
use crate::error::Error;
use libc::size_t;
use std::ffi::{CStr, c_char};

/// cbr_status is the result of most functions: `CBR_OK` or a negative error.
#[allow(non_camel_case_types, reason = "a C type")]
pub type cbr_status = i32;

/// Done.
pub const CBR_OK: cbr_status = 0;
/// A NULL function where one is needed.
pub const CBR_ERR_NULL: cbr_status = -1;
/// The callback's language wrapper caught a panic or an exception and reported it (cbr_fail).
pub const CBR_ERR_PANIC: cbr_status = -2;
/// The object is gone, or never was.
pub const CBR_ERR_STALE: cbr_status = -3;
/// An argument is out of its range.
pub const CBR_ERR_INVALID: cbr_status = -4;
/// The handle is of another kind of object.
pub const CBR_ERR_KIND: cbr_status = -5;
/// The callback was registered with another signature.
pub const CBR_ERR_SIGNATURE: cbr_status = -6;
/// The callback, queue or pin belongs to another thread (both are named in cbr_last_error).
pub const CBR_ERR_THREAD: cbr_status = -7;
/// The wait could never end: the caller is, directly or through others, inside what it waits for.
pub const CBR_ERR_DEADLOCK: cbr_status = -8;
/// The deadline passed.
pub const CBR_ERR_TIMEOUT: cbr_status = -9;
/// The queue is full: back off.
pub const CBR_ERR_FULL: cbr_status = -10;
/// Nothing to dispatch.
pub const CBR_ERR_EMPTY: cbr_status = -11;
/// The queue or scope no longer takes work: stop.
pub const CBR_ERR_CLOSED: cbr_status = -12;
/// Already set, and the first one stays.
pub const CBR_ERR_EXISTS: cbr_status = -13;
/// Nothing is known under this name or key.
pub const CBR_ERR_NOT_FOUND: cbr_status = -14;
/// A stated limit is reached (references, nesting, slots).
pub const CBR_ERR_LIMIT: cbr_status = -15;
/// Out of memory.
pub const CBR_ERR_NOMEM: cbr_status = -16;
/// The operating system refused; errno is in cbr_last_error.
pub const CBR_ERR_SYSTEM: cbr_status = -17;
/// Not in this version of the library.
pub const CBR_ERR_UNSUPPORTED: cbr_status = -18;
/// The callback reported failure with cbr_fail.
pub const CBR_ERR_CALLBACK: cbr_status = -19;

/// Number, name and sentence of every status, in the order of the numbers.
const TABLE: [(cbr_status, &CStr, &CStr); 20] = [
    (CBR_OK, c"CBR_OK", c"Done."),
    (CBR_ERR_NULL, c"CBR_ERR_NULL", c"A function is needed and NULL was given."),
    (CBR_ERR_PANIC, c"CBR_ERR_PANIC", c"The callback panicked or threw; its wrapper caught it."),
    (CBR_ERR_STALE, c"CBR_ERR_STALE", c"The object is gone, or never was."),
    (CBR_ERR_INVALID, c"CBR_ERR_INVALID", c"An argument is out of its range."),
    (CBR_ERR_KIND, c"CBR_ERR_KIND", c"The handle is of another kind of object."),
    (
        CBR_ERR_SIGNATURE,
        c"CBR_ERR_SIGNATURE",
        c"The callback was registered with another signature.",
    ),
    (CBR_ERR_THREAD, c"CBR_ERR_THREAD", c"The object belongs to another thread."),
    (CBR_ERR_DEADLOCK, c"CBR_ERR_DEADLOCK", c"The wait could never end."),
    (CBR_ERR_TIMEOUT, c"CBR_ERR_TIMEOUT", c"The deadline passed."),
    (CBR_ERR_FULL, c"CBR_ERR_FULL", c"The queue is full."),
    (CBR_ERR_EMPTY, c"CBR_ERR_EMPTY", c"There is nothing to dispatch."),
    (CBR_ERR_CLOSED, c"CBR_ERR_CLOSED", c"The queue or scope no longer takes work."),
    (CBR_ERR_EXISTS, c"CBR_ERR_EXISTS", c"It is already set, and the first one stays."),
    (CBR_ERR_NOT_FOUND, c"CBR_ERR_NOT_FOUND", c"Nothing is known under this name or key."),
    (CBR_ERR_LIMIT, c"CBR_ERR_LIMIT", c"A stated limit is reached."),
    (CBR_ERR_NOMEM, c"CBR_ERR_NOMEM", c"Out of memory."),
    (CBR_ERR_SYSTEM, c"CBR_ERR_SYSTEM", c"The operating system refused."),
    (CBR_ERR_UNSUPPORTED, c"CBR_ERR_UNSUPPORTED", c"This version of the library cannot do that."),
    (CBR_ERR_CALLBACK, c"CBR_ERR_CALLBACK", c"The callback reported failure."),
];

fn entry(status: cbr_status) -> Option<&'static (cbr_status, &'static CStr, &'static CStr)> {
    let place = usize::try_from(status.checked_neg()?).ok()?;
    TABLE.get(place)
}

/// The C number of an error: the one place where the two meet.
pub(super) fn number(error: Error) -> cbr_status {
    match error {
        Error::Null => CBR_ERR_NULL,
        Error::Stale => CBR_ERR_STALE,
        Error::Invalid(_) => CBR_ERR_INVALID,
        Error::Kind => CBR_ERR_KIND,
        Error::Signature { .. } => CBR_ERR_SIGNATURE,
        Error::Thread { .. } => CBR_ERR_THREAD,
        Error::Deadlock => CBR_ERR_DEADLOCK,
        Error::Timeout => CBR_ERR_TIMEOUT,
        Error::Full => CBR_ERR_FULL,
        Error::Empty => CBR_ERR_EMPTY,
        Error::Closed => CBR_ERR_CLOSED,
        Error::Exists => CBR_ERR_EXISTS,
        Error::NotFound => CBR_ERR_NOT_FOUND,
        Error::Limit(_) => CBR_ERR_LIMIT,
        Error::NoMemory => CBR_ERR_NOMEM,
        Error::System { .. } => CBR_ERR_SYSTEM,
        Error::Unsupported(_) => CBR_ERR_UNSUPPORTED,
        Error::Callback => CBR_ERR_CALLBACK,
        Error::Panic => CBR_ERR_PANIC,
    }
}

/// cbr_status_name gives the constant's name, such as "CBR_ERR_STALE".
/// Ownership: static text, never NULL; "CBR_ERR_UNKNOWN" for a number that is no status.
/// Threads: any.
#[unsafe(no_mangle)]
pub extern "C" fn cbr_status_name(status: cbr_status) -> *const c_char {
    entry(status).map_or(c"CBR_ERR_UNKNOWN", |entry| entry.1).as_ptr()
}

/// cbr_status_message says in one sentence what the status means.
/// Ownership: static text, never NULL.
/// Threads: any. cbr_last_error has the details of a particular failure.
#[unsafe(no_mangle)]
pub extern "C" fn cbr_status_message(status: cbr_status) -> *const c_char {
    entry(status).map_or(c"The number is no status.", |entry| entry.2).as_ptr()
}

/// cbr_last_error writes the calling thread's last failure in words, such as
/// "cbr_call: stale: the object is gone, or never was (handle 0x8d2f11c010000400)".
/// Like errno it is not cleared by success; before the first failure it is empty.
/// `len`: the room in `buf`, in bytes; the text is cut to fit and NUL-terminated. `buf` may be NULL
/// to ask for the length.
/// Threads: any; each has its own.
/// Returns: the length that the whole text needs, without the NUL, like snprintf.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbr_last_error(buf: *mut c_char, len: size_t) -> size_t {
    // SAFETY: the caller's promise.
    let mut out = unsafe { Buffer::new(buf, len) };
    if let Some(record) = engine::current() {
        let _ = record.last_error.write(&mut out);
    }
    out.finish()
}

/// cbr_version is the version of the library that runs: 0x00MMmmpp, major, minor and patch. The
/// CALLBRIDGE_VERSION macros are those of the header that the program was compiled with.
/// Threads: any.
#[unsafe(no_mangle)]
pub extern "C" fn cbr_version() -> u32 {
    const fn part(text: &str) -> u32 {
        let (bytes, mut at, mut number) = (text.as_bytes(), 0, 0);
        while at < bytes.len() {
            number = number * 10 + (bytes[at] - b'0') as u32;
            at += 1;
        }
        number
    }
    const {
        part(env!("CARGO_PKG_VERSION_MAJOR")) << 16
            | part(env!("CARGO_PKG_VERSION_MINOR")) << 8
            | part(env!("CARGO_PKG_VERSION_PATCH"))
    }
}

/// cbr_version_string is the same in words, such as "0.1.0".
/// Ownership: static text, never NULL.
/// Threads: any.
#[unsafe(no_mangle)]
pub extern "C" fn cbr_version_string() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_show_these_numbers() {
        for error in [Error::Callback, Error::Panic] {
            assert_eq!(engine::probes::status(error), number(error));
        }
    }

    #[test]
    fn the_table_is_in_the_order_of_the_numbers_and_names_are_the_constants() {
        let source = include_str!("status.rs");
        for (place, (status, name, _)) in TABLE.iter().enumerate() {
            assert_eq!(*status, -(place as i32));
            let constant = format!("pub const {}: cbr_status = {status};", name.to_str().unwrap());
            assert!(source.contains(&constant), "{constant}");
        }
    }
    #[test]
    fn what_metrics_call_a_status_is_its_constant() {
        for status in crate::features::observe::contract::STATUSES {
            let is_it = |entry: &&(_, &CStr, _)| entry.1.to_str() == Ok(status);
            assert!(TABLE.iter().any(|entry| is_it(&entry)), "{status}");
        }
    }
}
