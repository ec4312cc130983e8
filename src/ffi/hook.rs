//! Section "Hooks": one place, one callback.

use super::callback::cbr_handle;
use super::status::{CBR_OK, cbr_status};
use super::{failed, faulted, first_use, report, with_record};
use crate::engine::{self, ENGINE, Handle};
use crate::error::Error;
use crate::features::hook::{self, Hook};
use std::ffi::c_void;

/// cbr_hook is a place for one callback, in the host's own memory, such as a global variable that other
/// modules may put their logger into:
///   cbr_hook on_log = CBR_HOOK_INIT;
/// It owns a reference of what is in it. A callback that is gone counts as none. The library never
/// remembers a hook's address: before its memory goes, clear it with cbr_hook_swap(hook, 0, NULL).
#[repr(C)]
#[allow(non_camel_case_types, reason = "a C type")]
pub struct cbr_hook {
    /// The library's.
    pub reserved: u64,
}

const NULL_HOOK: Error = Error::Invalid("hook is NULL");

/// # Safety
/// NULL or a hook that is used by this library's functions alone as long as the result lives.
unsafe fn hook<'a>(hook: *mut cbr_hook) -> Result<&'a Hook, Error> {
    // SAFETY: a Hook is laid out as the u64 that is a cbr_hook; the caller's promise.
    unsafe { hook.cast::<Hook>().as_ref() }.ok_or(NULL_HOOK)
}

/// cbr_hook_set_once puts the callback in if there is none: of several, the first wins.
/// Ownership: the hook adds a reference of its own; the caller's stays the caller's.
/// Threads: any, at once with all other functions of the hook.
/// Returns: CBR_OK; CBR_ERR_EXISTS if one is there; CBR_ERR_STALE; CBR_ERR_KIND; CBR_ERR_LIMIT at 2^30
/// references; CBR_ERR_INVALID if `hook` is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn cbr_hook_set_once(
    hook: *mut cbr_hook,
    handle: cbr_handle,
) -> cbr_status {
    // SAFETY: the caller's promise.
    let set = unsafe { self::hook(hook) }
        .and_then(|hook| with_record(|record| hook.set_once(&ENGINE, record, Handle(handle))));
    report("cbr_hook_set_once", handle, set)
}

/// cbr_hook_swap puts the callback in, or none if `handle` is 0, whatever is there. A call that meets
/// it runs the old callback or the new one.
/// Ownership: the hook adds a reference of its own. `out_old`: the callback that was there, with the
/// hook's reference, which is the caller's now; 0 if there was none or it is gone. NULL: that reference
/// is released.
/// Threads: any, also inside the callback that is swapped.
/// Returns: CBR_OK; CBR_ERR_STALE; CBR_ERR_KIND; CBR_ERR_LIMIT at 2^30 references; CBR_ERR_INVALID if
/// `hook` is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn cbr_hook_swap(
    hook: *mut cbr_hook,
    handle: cbr_handle,
    out_old: *mut cbr_handle,
) -> cbr_status {
    // SAFETY: the caller's promise.
    let swapped = unsafe { self::hook(hook) }
        .and_then(|hook| with_record(|record| Ok((record, hook.swap(&ENGINE, Handle(handle))?))));
    match swapped {
        Ok((record, old)) if out_old.is_null() => {
            if let Some(old) = old {
                hook::release(&ENGINE, record, old);
            }
            CBR_OK
        }
        Ok((_, old)) => {
            // SAFETY: not NULL, and the caller's promise.
            unsafe { *out_old = old.map_or(0, Handle::to_raw) };
            CBR_OK
        }
        Err(error) => failed("cbr_hook_swap", handle, error),
    }
}

/// cbr_hook_call calls what is in the hook, as cbr_call. Lock-free.
/// Threads: any.
/// Returns: what cbr_call returns, but CBR_ERR_NOT_FOUND if there is no callback, or it is gone;
/// CBR_ERR_INVALID if `hook` is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn cbr_hook_call(
    hook: *mut cbr_hook,
    arg: *mut c_void,
    out_result: *mut isize,
) -> cbr_status {
    // SAFETY: the caller's promise.
    let Ok(place) = (unsafe { self::hook(hook) }) else {
        return failed("cbr_hook_call", 0, NULL_HOOK);
    };
    let Some(record) = engine::current() else {
        // SAFETY: the same arguments.
        return first_use("cbr_hook_call", 0, move || unsafe {
            cbr_hook_call(hook, arg, out_result)
        });
    };
    match place.call(&ENGINE, record, arg) {
        Ok(result) => {
            if !out_result.is_null() {
                // SAFETY: not NULL, and the caller's promise.
                unsafe { *out_result = result };
            }
            CBR_OK
        }
        Err(fault) => faulted("cbr_hook_call", 0, record, fault),
    }
}
