//! Section "Traces": whose work a thread does, across queues.

use super::status::cbr_status;
use super::{Buffer, report, with_record};
use crate::engine::{self, ENGINE};
use crate::features::trace;
use libc::size_t;
use std::ffi::{CStr, c_char};
use std::fmt::Write;

/// cbr_trace_set sets the trace context of the calling thread: the request that it works for, as the
/// HTTP header traceparent of W3C Trace Context has it. An event that is posted (cbr_post, cbr_post_with,
/// cbr_call_on) takes it along, and its callback runs under it, on whatever thread: there cbr_trace_get
/// gives it, and what the callback posts takes it further. An event without one has its callback run
/// without one. Afterwards the dispatching thread has its own again.
/// `traceparent`: copied, and kept as it is; NULL: none from now on. Version 00: 55 characters,
/// "00-" 32 "-" 16 "-" 2 digits, hexadecimal in lower case, trace-id and parent-id not all zero. Of a later
/// version, not ff, the first 55 characters are right and the last, or "-" and what is not looked at
/// follows (printable ASCII); 255 at most. The library passes it on and changes nothing in it.
/// Holds until it is set again; in a callback that a dispatch has called, until that returns at the
/// latest. (A callback that was called otherwise shares the context of its caller.)
/// Threads: any; each has its own. Posts and dispatches without a context cost nothing more. With one, an
/// event has room for 32 bytes without an allocation.
/// Returns: CBR_OK; CBR_ERR_INVALID if it is not a traceparent, with words; CBR_ERR_NOMEM.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn cbr_trace_set(traceparent: *const c_char) -> cbr_status {
    let text = match traceparent.is_null() {
        true => None,
        // SAFETY: not NULL, and the caller's promise.
        false => Some(unsafe { CStr::from_ptr(traceparent) }.to_bytes()),
    };
    let set = with_record(|record| trace::set(&ENGINE, record, text));
    report("cbr_trace_set", 0, set)
}

/// cbr_trace_get writes the trace context of the calling thread, cut to `len` bytes and NUL-terminated.
/// `buf` may be NULL if `len` is 0.
/// Threads: any; each has its own.
/// Returns: the length needed without the NUL, like snprintf; 0: there is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbr_trace_get(buf: *mut c_char, len: size_t) -> size_t {
    // SAFETY: the caller's promise.
    let mut out = unsafe { Buffer::new(buf, len) };
    if let Some(context) = engine::current().and_then(|record| record.trace.get()) {
        let _ = out.write_str(context.as_str());
    }
    out.finish()
}
