//! Section "Keys": finding a callback again by a number that the host has anyway.

use super::callback::cbr_handle;
use super::scope::cbr_scope;
use super::status::{CBR_OK, cbr_status};
use super::{bind_mode, failed, faulted, first_use, report, with_record};
use crate::engine::{self, ENGINE, Handle, Question};
use crate::error::Error;
use crate::registry::KEYS;
use libc::{size_t, uintptr_t};
use std::ffi::c_void;

fn question(scope: cbr_scope, key: uintptr_t, event: u32) -> Question {
    Question { scope: Handle(scope), key, event }
}

/// cbr_key_attach attaches the callback to a key, such as a connection's address or file descriptor, and
/// one of its events, in the scope. One callback a key and event. It goes when it is detached, when the
/// scope closes, or when the callback ends.
/// `mode`: CBR_BIND_ONCE or CBR_BIND_REPLACE.
/// Ownership: the key adds a reference of its own. That of a replaced callback is released.
/// Threads: any.
/// Returns: CBR_OK; CBR_ERR_EXISTS; CBR_ERR_STALE or CBR_ERR_KIND for the handle or the scope;
/// CBR_ERR_CLOSED; CBR_ERR_INVALID for the mode; CBR_ERR_LIMIT at 2^30 references; CBR_ERR_NOMEM.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn cbr_key_attach(
    scope: cbr_scope,
    key: uintptr_t,
    event: u32,
    handle: cbr_handle,
    mode: u32,
) -> cbr_status {
    let attached = bind_mode(mode).and_then(|mode| {
        let question = question(scope, key, event);
        with_record(|record| KEYS.attach(&ENGINE, record, question, Handle(handle), mode))
    });
    report("cbr_key_attach", handle, attached)
}

/// cbr_key_find gives the callback of that key and event: a weak handle, to be retained or called.
/// Threads: any.
/// Returns: CBR_OK; CBR_ERR_NOT_FOUND; CBR_ERR_STALE or CBR_ERR_KIND for the scope; CBR_ERR_INVALID if
/// `out_handle` is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn cbr_key_find(
    scope: cbr_scope,
    key: uintptr_t,
    event: u32,
    out_handle: *mut cbr_handle,
) -> cbr_status {
    if out_handle.is_null() {
        return failed("cbr_key_find", scope, Error::Invalid("out_handle is NULL"));
    }
    match with_record(|record| KEYS.find(&ENGINE, record, question(scope, key, event))) {
        Ok(handle) => {
            // SAFETY: not NULL, and the caller's promise.
            unsafe { *out_handle = handle.0 };
            CBR_OK
        }
        Err(error) => failed("cbr_key_find", scope, error),
    }
}

/// cbr_key_call calls the callback of that key and event, as cbr_call. A call that meets a replacement
/// runs the old callback or the new one. What a thread has called before it finds without a lock.
/// Threads: any.
/// Returns: what cbr_call returns, but CBR_ERR_NOT_FOUND if there is no callback, or it is gone;
/// CBR_ERR_STALE or CBR_ERR_KIND for the scope.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn cbr_key_call(
    scope: cbr_scope,
    key: uintptr_t,
    event: u32,
    arg: *mut c_void,
    out_result: *mut isize,
) -> cbr_status {
    let Some(record) = engine::current() else {
        // SAFETY: the same arguments.
        return first_use("cbr_key_call", 0, move || unsafe {
            cbr_key_call(scope, key, event, arg, out_result)
        });
    };
    match KEYS.call(&ENGINE, record, question(scope, key, event), arg) {
        Ok(result) => {
            if !out_result.is_null() {
                // SAFETY: not NULL, and the caller's promise.
                unsafe { *out_result = result };
            }
            CBR_OK
        }
        // No handle: it may be about the scope or the callback.
        Err(fault) => faulted("cbr_key_call", 0, record, fault),
    }
}

/// cbr_key_detach detaches the callback of that key and event.
/// Ownership: the key's reference is released.
/// Threads: any, also inside the callback.
/// Returns: CBR_OK; CBR_ERR_NOT_FOUND; CBR_ERR_STALE or CBR_ERR_KIND for the scope.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn cbr_key_detach(
    scope: cbr_scope,
    key: uintptr_t,
    event: u32,
) -> cbr_status {
    let detached = with_record(|record| KEYS.detach(&ENGINE, record, question(scope, key, event)));
    report("cbr_key_detach", scope, detached)
}

/// cbr_key_detach_all detaches the callbacks of all events of a key: the connection is gone. It revokes
/// nothing: a callback that others own lives on.
/// `out_count`: how many there were; may be NULL.
/// Ownership: the key's references are released.
/// Threads: any, also inside one of the callbacks.
/// Returns: CBR_OK, also if there were none; CBR_ERR_STALE or CBR_ERR_KIND for the scope.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn cbr_key_detach_all(
    scope: cbr_scope,
    key: uintptr_t,
    out_count: *mut size_t,
) -> cbr_status {
    match with_record(|record| KEYS.detach_all(&ENGINE, record, Handle(scope), key)) {
        Ok(count) => {
            if !out_count.is_null() {
                // SAFETY: not NULL, and the caller's promise.
                unsafe { *out_count = count };
            }
            CBR_OK
        }
        Err(error) => failed("cbr_key_detach_all", scope, error),
    }
}
