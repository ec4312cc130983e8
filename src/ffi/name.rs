//! Section "Names": finding a callback again by a name.

use super::callback::cbr_handle;
use super::scope::cbr_scope;
use super::status::{CBR_OK, cbr_status};
use super::{bind_mode, failed, report, utf8, with_record};
use crate::engine::{ENGINE, Handle, NAME_MAX};
use crate::error::Error;
use crate::registry::NAMES;
use std::ffi::c_char;

/// For cbr_name_bind and cbr_key_attach: the first one stays, and a second is CBR_ERR_EXISTS.
pub const CBR_BIND_ONCE: u32 = 0;
/// For cbr_name_bind and cbr_key_attach: takes the place of what is there.
pub const CBR_BIND_REPLACE: u32 = 1;

/// # Safety
/// NULL or a string that outlives the use.
unsafe fn binding<'a>(scope: cbr_scope, name: *const c_char) -> Result<(Handle, &'a str), Error> {
    // SAFETY: the caller's promise.
    let name = unsafe { utf8(name, "the name is not UTF-8") }?.unwrap_or_default();
    match name.len() {
        0 => Err(Error::Invalid("the name is NULL or empty")),
        1..=NAME_MAX => Ok((Handle(scope), name)),
        _ => Err(Error::Invalid("the name is longer than 255 bytes")),
    }
}

/// cbr_name_bind gives the callback a name in the scope. The name goes when it is unbound, when the scope
/// closes, or when the callback ends. (cbr_callback_options.name is another one, for logs.)
/// `name`: 1 to 255 bytes of UTF-8, copied. `mode`: CBR_BIND_ONCE or CBR_BIND_REPLACE.
/// Ownership: the name adds a reference of its own. That of a replaced callback is released.
/// Threads: any.
/// Returns: CBR_OK; CBR_ERR_EXISTS; CBR_ERR_STALE or CBR_ERR_KIND for the handle or the scope;
/// CBR_ERR_CLOSED; CBR_ERR_INVALID; CBR_ERR_LIMIT at 2^30 references; CBR_ERR_NOMEM.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn cbr_name_bind(
    scope: cbr_scope,
    name: *const c_char,
    handle: cbr_handle,
    mode: u32,
) -> cbr_status {
    // SAFETY: the caller's promise.
    let bound = unsafe { binding(scope, name) }.and_then(|binding| {
        let mode = bind_mode(mode)?;
        with_record(|record| NAMES.bind(&ENGINE, record, binding, Handle(handle), mode))
    });
    report("cbr_name_bind", handle, bound)
}

/// cbr_name_find gives the callback of that name: a weak handle, to be retained or called.
/// Threads: any.
/// Returns: CBR_OK; CBR_ERR_NOT_FOUND; CBR_ERR_STALE or CBR_ERR_KIND for the scope; CBR_ERR_INVALID for
/// the name or if `out_handle` is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn cbr_name_find(
    scope: cbr_scope,
    name: *const c_char,
    out_handle: *mut cbr_handle,
) -> cbr_status {
    // SAFETY: the caller's promise.
    let found = unsafe { binding(scope, name) }.and_then(|binding| {
        if out_handle.is_null() {
            return Err(Error::Invalid("out_handle is NULL"));
        }
        with_record(|record| NAMES.find(&ENGINE, record, binding))
    });
    match found {
        Ok(handle) => {
            // SAFETY: not NULL, and the caller's promise.
            unsafe { *out_handle = handle.0 };
            CBR_OK
        }
        Err(error) => failed("cbr_name_find", scope, error),
    }
}

/// cbr_name_unbind takes the name away.
/// Ownership: the name's reference is released.
/// Threads: any.
/// Returns: CBR_OK; CBR_ERR_NOT_FOUND; CBR_ERR_STALE or CBR_ERR_KIND for the scope; CBR_ERR_INVALID for
/// the name.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn cbr_name_unbind(
    scope: cbr_scope,
    name: *const c_char,
) -> cbr_status {
    // SAFETY: the caller's promise.
    let unbound = unsafe { binding(scope, name) }
        .and_then(|binding| with_record(|record| NAMES.unbind(&ENGINE, record, binding)));
    report("cbr_name_unbind", scope, unbound)
}
