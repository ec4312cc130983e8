//! Section "Traces": whose work a thread does, across queues.

use super::callback::{cbr_destroy_fn, cbr_handle};
use super::scope::cbr_scope;
use super::status::cbr_status;
use super::{Buffer, report, with_record};
use crate::engine::{self, ENGINE, Handle};
use crate::features::trace;
use crate::registry::{self, CallHooks};
use libc::size_t;
use std::ffi::{CStr, c_char, c_void};
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

/// cbr_call_begin_fn is told that a call of the callback `handle` begins, and returns what its cbr_call_end_fn
/// gets: a span, or whatever it likes. `name`: the callback's, "" if it has none; `traceparent`: the context
/// that it will run under (cbr_trace_get), NULL if there is none; both live until it returns.
/// It may set a context with cbr_trace_set, that of its span: then the callback and what it posts have that
/// one, until the call is over and the one before comes back.
#[allow(non_camel_case_types, reason = "a C type")]
pub type cbr_call_begin_fn = Option<
    unsafe extern "C-unwind" fn(
        user_data: *mut c_void,
        handle: cbr_handle,
        name: *const c_char,
        traceparent: *const c_char,
    ) -> *mut c_void,
>;

/// cbr_call_end_fn is told that the call is over whose begin has returned `span`, on the same thread, while
/// the callback's user_data still lives. `status`: what the caller gets: CBR_OK, CBR_ERR_CALLBACK or
/// CBR_ERR_PANIC; CBR_ERR_CALLBACK also if an exception, pthread_exit, a cancellation or a longjmp has left
/// the callback, or its thread has ended inside a pin.
#[allow(non_camel_case_types, reason = "a C type")]
pub type cbr_call_end_fn = Option<
    unsafe extern "C-unwind" fn(user_data: *mut c_void, span: *mut c_void, status: cbr_status),
>;

/// cbr_set_call_hooks has `begin` and `end` told of every call in the process from now on, in place of those
/// before: for a tracer. Calls are those of cbr_call, cbr_call_ptr, cbr_hook_call, cbr_key_call and
/// cbr_call_on, dispatched events, thunks, and entered pins, from cbr_enter to cbr_leave. Not held pins, destroy
/// functions, on_error and thread hooks; not calls that are refused; not those that run already.
/// Every begin that has returned has one end, with the same `user_data`, whoever takes the hooks' place
/// meanwhile. They are called on the thread of the call, inside it (cbr_current, cbr_depth and
/// cbr_current_event are the callback's), and may use the library: calls that they make are not told, and
/// cbr_last_error is afterwards what it was before.
/// An exception, pthread_exit or a cancellation out of `begin` passes through, and the callback is not called,
/// nor `end`; out of `end` it passes through after the callback has run, but ends the process if the call is
/// being left by another one. After a longjmp out of either, call cbr_unwind_to with a depth from before the
/// call, or the pin. What they say with cbr_fail is logged, and that is all.
/// Without memory, or at 4,096 nested calls and some 60 destroy functions, a call may not be told.
/// Either may be NULL; with both NULL nobody is told from now on, and the other arguments are not looked at.
/// `owner`: the scope whose code they are: closing it removes them, and waits until no call is inside them;
/// inside a call that they were told of it gives CBR_ERR_DEADLOCK. 0: nobody's.
/// Calls cost nothing more while there are no hooks; setting the first and removing the last ones takes a
/// look at every callback.
/// Ownership: as cbr_register: `destroy` runs exactly once, when others have taken the hooks' place or the
/// owner is closed, and the last call that they were told of is over. The hooks count as a callback in
/// statistics and reports, with the name "cbr_set_call_hooks".
/// Threads: any, also inside the hooks.
/// Returns: CBR_OK; CBR_ERR_INVALID, with cbr_set_check(2), for a function that is no code; CBR_ERR_CLOSED,
/// CBR_ERR_STALE or CBR_ERR_KIND for the owner; CBR_ERR_LIMIT at 2^28 objects; CBR_ERR_NOMEM. Then the hooks
/// before stay.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn cbr_set_call_hooks(
    begin: cbr_call_begin_fn,
    end: cbr_call_end_fn,
    user_data: *mut c_void,
    destroy: cbr_destroy_fn,
    owner: cbr_scope,
) -> cbr_status {
    let hooks = CallHooks { begin, end, user_data, destroy, owner: Handle(owner) };
    let entry = cbr_set_call_hooks as *const ();
    let set = with_record(|record| registry::set_call_hooks(record, &hooks, entry));
    report("cbr_set_call_hooks", owner, set)
}
