//! Section "Calls": calling, pins, failures, and what a thread is inside of.

use super::callback::{cbr_any_fn, cbr_handle};
use super::signature::cbr_signature;
use super::status::{CBR_ERR_CALLBACK, CBR_ERR_PANIC, CBR_OK, cbr_status};
use super::{failed, faulted, first_use, report, with_record};
use crate::engine::signature::Signature;
use crate::engine::{self, ENGINE, Handle, Pin, Record, StackPlace, invoke};
use crate::error::{Error, Fault};
use std::ffi::{CStr, c_char, c_void};

/// cbr_call calls the callback with its user_data and `arg`. The callback lives, and so does its
/// user_data, until the call returns, whoever unregisters it meanwhile.
/// `out_result`: where the result goes; may be NULL.
/// Threads: any; nested at most 4096 deep on one thread. Not async-signal-safe. A C++ exception,
/// pthread_exit or a cancellation inside the callback passes through, and the call is over; after a
/// longjmp call cbr_unwind_to.
/// Returns: CBR_OK; CBR_ERR_STALE: the callback was not entered; CBR_ERR_CALLBACK or CBR_ERR_PANIC:
/// it ran and said so with cbr_fail, and the result is not written; CBR_ERR_SIGNATURE if it was
/// registered with another signature than CBR_SIG_DEFAULT; CBR_ERR_THREAD on another thread than those
/// of the callback's `home`, CBR_ERR_CLOSED if that queue is gone; CBR_ERR_KIND; CBR_ERR_LIMIT at 4096 nested
/// calls; CBR_ERR_NOMEM or CBR_ERR_SYSTEM at a thread's first use.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn cbr_call(
    handle: cbr_handle,
    arg: *mut c_void,
    out_result: *mut isize,
) -> cbr_status {
    let Some(record) = engine::current() else {
        // SAFETY: the same arguments.
        return first_use("cbr_call", handle, move || unsafe { cbr_call(handle, arg, out_result) });
    };
    match ENGINE.enter::<false>(record, Handle(handle)) {
        Ok(stay) => {
            let called = invoke::call_entered(&ENGINE, stay, arg);
            // SAFETY: the caller's promise.
            unsafe { give_result(record, handle, called, out_result) }
        }
        // SAFETY: the same arguments.
        Err(fault) => unsafe { call_not_entered(record, handle, arg, out_result, fault) },
    }
}

/// The rest of `cbr_call` when it is no plain call: apart, so that the plain one has no second look at
/// what came of it.
#[cold]
#[inline(never)]
unsafe fn call_not_entered(
    record: &Record,
    handle: cbr_handle,
    arg: *mut c_void,
    out_result: *mut isize,
    fault: Fault,
) -> cbr_status {
    let called = invoke::call_not_entered(&ENGINE, record, arg, fault);
    // SAFETY: the caller's promise.
    unsafe { give_result(record, handle, called, out_result) }
}

#[inline(always)]
unsafe fn give_result(
    record: &Record,
    handle: cbr_handle,
    called: Result<isize, Fault>,
    out_result: *mut isize,
) -> cbr_status {
    match called {
        Ok(result) => {
            if !out_result.is_null() {
                // SAFETY: not NULL, and the caller's promise.
                unsafe { *out_result = result };
            }
            CBR_OK
        }
        Err(fault) => faulted("cbr_call", handle, record, fault),
    }
}

/// cbr_pin keeps a callback alive between cbr_enter or cbr_hold and cbr_leave. Zeroed it is none.
/// A copy is the same pin: only one of them can be left.
#[repr(C)]
#[allow(non_camel_case_types, reason = "a C type")]
pub struct cbr_pin {
    /// The function: cast it to what its signature says.
    pub r#fn: cbr_any_fn,
    /// Its first argument.
    pub user_data: *mut c_void,
    /// The library's.
    pub reserved: [u64; 2],
}

impl cbr_pin {
    fn new(pinned: &engine::Pinned) -> Self {
        Self {
            // SAFETY: stored by register from a function; Option<fn> has null for None.
            r#fn: unsafe { std::mem::transmute::<*mut (), cbr_any_fn>(pinned.function) },
            user_data: pinned.user_data.cast(),
            reserved: pinned.pin.to_raw(),
        }
    }

    const NONE: Self = Self { r#fn: None, user_data: std::ptr::null_mut(), reserved: [0; 2] };
}

fn wanted(signature: cbr_signature) -> Option<Signature> {
    (signature != 0).then_some(Signature(signature))
}

const OUT_PIN: Error = Error::Invalid("out_pin is NULL");

/// cbr_enter enters the callback as cbr_call does, and leaves the calling to the host, which can
/// so call a function of any signature: cast `out_pin->fn`, pass `out_pin->user_data` first.
/// `signature`: what the host will call; 0: unchecked.
/// Ownership: the callback and its user_data live until cbr_leave; on this thread, in any order with
/// other pins. A pin that is not left when its thread ends is left then, and logged.
/// Threads: any. Not async-signal-safe.
/// Returns: CBR_OK; CBR_ERR_STALE; CBR_ERR_SIGNATURE; CBR_ERR_KIND; CBR_ERR_THREAD and CBR_ERR_CLOSED as
/// cbr_call; CBR_ERR_CALLBACK or CBR_ERR_PANIC if the scope's attach function has said so with cbr_fail:
/// nothing is entered; CBR_ERR_INVALID if `out_pin` is NULL; CBR_ERR_LIMIT at 4096 nested calls and pins; CBR_ERR_NOMEM or CBR_ERR_SYSTEM at a thread's
/// first use. Then `out_pin` is unchanged.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn cbr_enter(
    handle: cbr_handle,
    signature: cbr_signature,
    out_pin: *mut cbr_pin,
) -> cbr_status {
    if out_pin.is_null() {
        return failed("cbr_enter", handle, OUT_PIN);
    }
    let Some(record) = engine::current() else {
        // SAFETY: the same arguments.
        return first_use("cbr_enter", handle, move || unsafe {
            cbr_enter(handle, signature, out_pin)
        });
    };
    match ENGINE.enter_pin::<false>(record, Handle(handle), wanted(signature)) {
        Ok(pinned) => {
            // SAFETY: not NULL, and the caller's promise.
            unsafe { out_pin.write(cbr_pin::new(&pinned)) };
            CBR_OK
        }
        Err(fault) => faulted("cbr_enter", handle, record, fault),
    }
}

/// cbr_hold is cbr_enter for a pin that any thread may leave. It costs a shared write, is not part
/// of cbr_depth, and is not released by its thread's end.
/// Ownership: the callback and its user_data live until cbr_leave.
/// Threads: any.
/// Returns: as cbr_enter, but at any nesting; CBR_ERR_LIMIT at 2^30 holds of one callback or 2^28
/// objects; CBR_ERR_NOMEM.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn cbr_hold(
    handle: cbr_handle,
    signature: cbr_signature,
    out_pin: *mut cbr_pin,
) -> cbr_status {
    if out_pin.is_null() {
        return failed("cbr_hold", handle, OUT_PIN);
    }
    let Some(record) = engine::current() else {
        // SAFETY: the same arguments.
        return first_use("cbr_hold", handle, move || unsafe {
            cbr_hold(handle, signature, out_pin)
        });
    };
    match ENGINE.hold_pin(record, Handle(handle), wanted(signature)) {
        Ok(pinned) => {
            // SAFETY: not NULL, and the caller's promise.
            unsafe { out_pin.write(cbr_pin::new(&pinned)) };
            CBR_OK
        }
        Err(fault) => faulted("cbr_hold", handle, record, fault),
    }
}

/// cbr_leave ends a pin and zeroes it. If the callback was unregistered meanwhile and this was the
/// last use, destroy runs here.
/// Threads: an entered pin: the thread that entered; a held one: any.
/// Returns: CBR_OK; CBR_ERR_CALLBACK or CBR_ERR_PANIC: left, and the function had said so with
/// cbr_fail; CBR_ERR_STALE if it was left before, or never entered; CBR_ERR_THREAD on another thread
/// than the one that entered; CBR_ERR_INVALID if `pin` is NULL. On the last three nothing changes.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn cbr_leave(pin: *mut cbr_pin) -> cbr_status {
    if pin.is_null() {
        return failed("cbr_leave", 0, Error::Invalid("pin is NULL"));
    }
    let Some(record) = engine::current() else {
        // SAFETY: the same argument.
        return first_use("cbr_leave", 0, move || unsafe { cbr_leave(pin) });
    };
    // Zeroed before it is left: destroy may free the memory that the pin is in.
    // SAFETY: not NULL, and the caller's promise.
    let saved = unsafe { pin.replace(cbr_pin::NONE) };
    match ENGINE.leave_pin(record, Pin::from_raw(saved.reserved)) {
        Ok(()) => CBR_OK,
        Err(fault) => {
            let error = record.explain(fault);
            if !matches!(error, Error::Callback | Error::Panic) {
                // SAFETY: nothing was left, so no destroy has run because of it.
                unsafe { pin.write(saved) };
            }
            failed("cbr_leave", 0, error)
        }
    }
}

/// cbr_fail marks the innermost call or pin of this thread as failed: cbr_call, or cbr_leave, will
/// return `status`, and a thunk its fallback. For the wrapper that a language puts around its functions: it catches what must
/// not pass (a panic, an exception) and says so here. The callback's on_error is told at once. Said
/// twice, the last one counts. In a destroy function it is logged, and that is all.
/// `status`: CBR_ERR_CALLBACK or CBR_ERR_PANIC. `message`: why, for cbr_last_error, copied, cut at
/// 511 bytes; may be NULL.
/// Threads: the one that runs the callback.
/// Returns: CBR_OK; CBR_ERR_INVALID for another status or outside of any callback.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn cbr_fail(status: cbr_status, message: *const c_char) -> cbr_status {
    let panic = match status {
        CBR_ERR_CALLBACK => Ok(false),
        CBR_ERR_PANIC => Ok(true),
        _ => Err(Error::Invalid("the status is neither CBR_ERR_CALLBACK nor CBR_ERR_PANIC")),
    };
    let message = match message.is_null() {
        true => c"",
        // SAFETY: not NULL, and the caller's promise.
        false => unsafe { CStr::from_ptr(message) },
    };
    let result =
        panic.and_then(|panic| with_record(|record| ENGINE.fail(record, panic, status, message)));
    report("cbr_fail", 0, result)
}

/// cbr_current gives the callback that this thread is inside, the innermost one: of a call or a pin,
/// not of a destroy function. 0 outside.
/// Threads: any; each has its own.
#[unsafe(no_mangle)]
pub extern "C" fn cbr_current() -> cbr_handle {
    engine::current().and_then(engine::Record::current).map_or(0, Handle::to_raw)
}

/// cbr_depth says how many calls and entered pins this thread is inside. Note it before a setjmp
/// whose longjmp may leave callbacks, and pass it to cbr_unwind_to.
/// Threads: any; each has its own.
#[unsafe(no_mangle)]
pub extern "C" fn cbr_depth() -> u32 {
    engine::current().map_or(0, engine::Record::depth)
}

/// cbr_unwind_to releases the calls and pins of this thread above `depth`, after a longjmp has
/// jumped over them; destroy functions that were jumped out of count as run. Pins that were entered
/// before `depth` was noted must not have been left since. Call it from the function that called
/// setjmp, on the stack that was jumped on: the stack tells which destroy functions were left.
/// Threads: the one that jumped.
/// Returns: CBR_OK; CBR_ERR_INVALID if `depth` is greater than cbr_depth().
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn cbr_unwind_to(depth: u32) -> cbr_status {
    let Some(record) = engine::current() else {
        // SAFETY: the same argument.
        return first_use("cbr_unwind_to", 0, move || unsafe { cbr_unwind_to(depth) });
    };
    let here = 0;
    report("cbr_unwind_to", 0, ENGINE.unwind_to(record, depth, StackPlace::of(&here)))
}

/// cbr_call_ptr is cbr_call for C interfaces that take a function and a `void *`: give them
/// cbr_call_ptr and CBR_TO_PTR(handle).
/// Threads: as cbr_call.
/// Returns: the callback's result; when it cannot run, or has failed, the callback's fallback, as
/// long as the library remembers it (at least until destroy has run), else 0. cbr_last_error then
/// says why.
#[cfg(target_pointer_width = "64")]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn cbr_call_ptr(handle: *mut c_void, arg: *mut c_void) -> isize {
    let handle = Handle(handle.addr() as u64);
    let called = with_record(|record| {
        invoke::call(&ENGINE, record, handle, arg).map_err(|fault| record.explain(fault))
    });
    match called {
        Ok(result) => result,
        Err(error) => {
            failed("cbr_call_ptr", handle.0, error);
            ENGINE.fallback(handle) as isize
        }
    }
}

/// cbr_release_ptr is cbr_release for such interfaces, as the function that frees their `void *`. A
/// stale handle is nothing to release.
/// Threads: any.
#[cfg(target_pointer_width = "64")]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn cbr_release_ptr(handle: *mut c_void) {
    let handle = handle.addr() as u64;
    let result = with_record(|record| ENGINE.release(record, Handle(handle)));
    report("cbr_release_ptr", handle, result);
}
