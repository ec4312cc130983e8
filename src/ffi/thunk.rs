//! Section "Thunks": plain function pointers that carry their callback.

use super::callback::{cbr_any_fn, cbr_handle};
use super::signature::cbr_signature;
use super::status::{CBR_OK, cbr_status};
use super::{failed, report, with_record};
use crate::engine::Handle;
use crate::engine::signature::Signature;
use crate::error::Error;
use crate::features::thunk;

/// cbr_thunk is a plain function pointer that carries its callback, for C interfaces that take a function
/// and no `void *`. 0 is none.
#[allow(non_camel_case_types, reason = "a C type")]
pub type cbr_thunk = u64;

/// In the flags of cbr_thunk_open: after cbr_thunk_close the address never serves another thunk. For
/// interfaces that never let go of a function, such as atexit.
pub const CBR_THUNK_PERMANENT: u32 = 1;

/// cbr_thunk_open makes a function of the signature, without the leading `user_data`: cast `*out_fn` to
/// what `signature` says and call it, or give it to who will. It calls the callback, with its user_data
/// before the arguments, as cbr_call does: the callback and its user_data live until the call returns,
/// and an exception, pthread_exit or a cancellation passes through. When the callback cannot run (it is
/// gone; it failed with cbr_fail; it belongs to another thread; 4096 calls are nested), and after
/// cbr_thunk_close, the function returns the callback's fallback, whatever thread calls it, as long as the
/// process lives; cbr_last_error then says why. Calls that no callback got are counted, and the first,
/// second, fourth and so on of each thunk are logged with the callback's name.
/// `flags`: 0 or CBR_THUNK_PERMANENT.
/// Ownership: the thunk adds a reference of its own, until cbr_thunk_close or cbr_thunk_retarget, and
/// copies the fallback. The thunk is the caller's to close, whatever becomes of the callback or its scope.
/// Threads: any; so for the function, which is not async-signal-safe: in a signal handler it must not run
/// (have the handler write to a pipe, or set a flag, and call it from there).
/// Returns: CBR_OK; CBR_ERR_STALE; CBR_ERR_KIND; CBR_ERR_SIGNATURE if the callback was registered with
/// another signature; CBR_ERR_INVALID if `signature` is none, a flag is unknown, or `out_fn` or
/// `out_thunk` is NULL; CBR_ERR_LIMIT at 2^30 references, 2^28 thunks or 2^15 signatures; CBR_ERR_NOMEM;
/// CBR_ERR_SYSTEM if the library's code cannot be mapped again for more thunks.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn cbr_thunk_open(
    handle: cbr_handle,
    signature: cbr_signature,
    flags: u32,
    out_fn: *mut cbr_any_fn,
    out_thunk: *mut cbr_thunk,
) -> cbr_status {
    let signature = Signature(signature);
    let refused = if out_fn.is_null() {
        Some("out_fn is NULL")
    } else if out_thunk.is_null() {
        Some("out_thunk is NULL")
    } else if flags & !CBR_THUNK_PERMANENT != 0 {
        Some("flags has an unknown flag")
    } else {
        None
    };
    if let Some(words) = refused {
        return failed("cbr_thunk_open", handle, Error::Invalid(words));
    }
    let permanent = flags & CBR_THUNK_PERMANENT != 0;
    let opened = with_record(|record| thunk::open(record, Handle(handle), signature, permanent));
    match opened {
        Ok((function, thunk)) => {
            // SAFETY: not NULL, and the caller's promise.
            unsafe {
                *out_fn = Some(function);
                *out_thunk = thunk.to_raw();
            }
            CBR_OK
        }
        Err(error) => failed("cbr_thunk_open", handle, error),
    }
}

/// cbr_thunk_retarget has the thunk carry another callback of the same signature, and return that one's
/// fallback. A call that meets it runs the old callback or the new one; if that one cannot, it returns
/// either's fallback.
/// Ownership: the thunk adds a reference of the new callback and releases that of the old one.
/// Threads: any, also inside a call of the thunk, which goes on with the old callback.
/// Returns: CBR_OK; CBR_ERR_STALE if the thunk or the callback is gone; CBR_ERR_KIND;
/// CBR_ERR_SIGNATURE; CBR_ERR_LIMIT at 2^30 references.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn cbr_thunk_retarget(thunk: cbr_thunk, handle: cbr_handle) -> cbr_status {
    let mut whose = Handle(thunk);
    let result = with_record(|record| {
        thunk::retarget(record, Handle(thunk), Handle(handle)).map_err(|(object, error)| {
            whose = object;
            error
        })
    });
    report("cbr_thunk_retarget", whose.to_raw(), result)
}

/// cbr_thunk_close has the function return its fallback from now on. Its address serves another thunk
/// only of the same signature, and only after 4,096 more thunks of that signature have been closed; with
/// CBR_THUNK_PERMANENT never. So long, calling it is harmless.
/// Ownership: the thunk's reference of its callback is released.
/// Threads: any, also inside a call of the thunk; calls in flight finish.
/// Returns: CBR_OK; CBR_ERR_STALE if it is closed already; CBR_ERR_KIND.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn cbr_thunk_close(thunk: cbr_thunk) -> cbr_status {
    report("cbr_thunk_close", thunk, with_record(|record| thunk::close(record, Handle(thunk))))
}
