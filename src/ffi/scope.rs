//! Section "Scopes": an owner and everything it registered.

use super::callback::cbr_destroy_fn;
use super::status::{CBR_OK, cbr_status};
use super::{failed, patience, report, utf8, with_record};
use crate::engine::{ENGINE, Handle, Named, ThreadHooks};
use crate::error::Error;
use crate::platform::logging;
use crate::registry;
use libc::size_t;
use std::ffi::{c_char, c_void};

/// cbr_scope is the owner of callbacks, names and keys: a plugin, a connection, a module. 0 is the
/// process's default scope, which is always open.
#[allow(non_camel_case_types, reason = "a C type")]
pub type cbr_scope = u64;

/// cbr_thread_attach_fn runs on each thread once, before the first callback of its scope there, inside
/// the protection of that call. It returns a token for the detach function, or CBR_THREAD_NOT_OURS if
/// the host had attached the thread: then there is nothing to detach. With cbr_fail it refuses: the
/// call returns that error without running the callback, and the next call asks again.
#[allow(non_camel_case_types, reason = "a C type")]
pub type cbr_thread_attach_fn =
    Option<unsafe extern "C-unwind" fn(user_data: *mut c_void) -> *mut c_void>;

/// cbr_thread_detach_fn runs at the end of a thread that the attach function of its scope has run on,
/// with the token; not for a scope that is closing or closed, and not for the main thread when the
/// process exits. As long as it runs, its scope does not close. What it calls may attach the thread
/// again; one that does so every time is given up after a number of rounds, and logged.
#[allow(non_camel_case_types, reason = "a C type")]
pub type cbr_thread_detach_fn =
    Option<unsafe extern "C-unwind" fn(user_data: *mut c_void, token: *mut c_void)>;

/// cbr_scope_open makes a scope.
/// `name`: for logs, at most 255 bytes of UTF-8, copied; may be NULL.
/// Ownership: to be ended with cbr_scope_close.
/// Threads: any.
/// Returns: CBR_OK; CBR_ERR_INVALID if `out_scope` is NULL or the name too long or not UTF-8;
/// CBR_ERR_NOMEM; CBR_ERR_LIMIT at 2^28 objects.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn cbr_scope_open(
    name: *const c_char,
    out_scope: *mut cbr_scope,
) -> cbr_status {
    // SAFETY: the caller's promise.
    let opened = unsafe { utf8(name, "the name is not UTF-8") }.and_then(|name| {
        if out_scope.is_null() {
            return Err(Error::Invalid("out_scope is NULL"));
        }
        let name = name.unwrap_or_default();
        Ok((with_record(|record| ENGINE.open_scope(record, name))?, name))
    });
    match opened {
        Ok((scope, name)) => {
            // SAFETY: not NULL, and the caller's promise.
            unsafe { *out_scope = scope.0 };
            let scope = Named(name, scope);
            logging::debug(format_args!("the scope {scope} is open"));
            CBR_OK
        }
        Err(error) => failed("cbr_scope_open", 0, error),
    }
}

/// cbr_scope_close ends a scope and everything it owns. In this order: registrations, names and keys
/// are refused (CBR_ERR_CLOSED); its callbacks are revoked, and thunks of them return their
/// fallback; its names and keys go, with their references; calls in flight are awaited and destroy functions run, on the threads that leave last
/// and here; at last that of the thread hooks. CBR_OK means that no code of the scope can run any more,
/// so that its shared object may be unloaded.
/// `timeout_ns`: nanoseconds; -1 waits for ever, 0 does not wait. `out_running`: how many of its
/// callbacks have a destroy function that has not returned, and threads that detach; always written; may
/// be NULL. 0 with CBR_ERR_TIMEOUT: only another thread's cbr_scope_close is not done.
/// Threads: any, several at once. From inside one of its callbacks, of their destroy functions, of its
/// detach function, or of a destroy function that the close itself runs, or while a thread inside one
/// waits, directly or through others, for something that the caller is inside, it returns
/// CBR_ERR_DEADLOCK at once; all the same everything is revoked. Until CBR_OK the scope stays closing,
/// and can be closed again to wait on. An exception or pthread_exit from a destroy function
/// passes through; then close again (CBR_ERR_STALE if it was that of the thread hooks, the last one). A
/// hold (cbr_hold) that nobody leaves is not seen as a deadlock.
/// Returns: CBR_OK: closed, and `scope` is stale from now on; CBR_ERR_TIMEOUT; CBR_ERR_DEADLOCK;
/// CBR_ERR_LIMIT at 4096 nested calls: closing, and to be closed again; CBR_ERR_STALE; CBR_ERR_KIND;
/// CBR_ERR_INVALID for scope 0 or a timeout below -1: nothing has changed.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn cbr_scope_close(
    scope: cbr_scope,
    timeout_ns: i64,
    out_running: *mut size_t,
) -> cbr_status {
    let closed = patience(timeout_ns).and_then(|patience| {
        if scope == 0 {
            return Err(Error::Invalid("the default scope cannot be closed"));
        }
        with_record(|record| registry::close_scope(record, Handle(scope), patience))
    });
    let (running, result) = closed.unwrap_or_else(|error| (0, Err(error)));
    if !out_running.is_null() {
        // SAFETY: not NULL, and the caller's promise.
        unsafe { *out_running = running };
    }
    if result.is_ok() {
        logging::debug(format_args!("the scope {scope:#018x} is closed"));
    }
    report("cbr_scope_close", scope, result)
}

/// cbr_scope_drain waits until the destroy function of every callback of the scope that has ended, by
/// cbr_unregister or its last cbr_release, has returned. Callbacks that live are not touched; those that
/// end meanwhile are waited for, too. Scope 0 is the default scope: that takes a look at every callback
/// of the process.
/// `timeout_ns`: nanoseconds; -1 waits for ever, 0 does not wait.
/// Threads: any; destroy functions that nobody is about to run, because a cbr_scope_close was cut short,
/// run here. Inside one that has ended, in a destroy function that a cbr_scope_close of the scope runs,
/// or in a wait that could never end, CBR_ERR_DEADLOCK.
/// Returns: CBR_OK; CBR_ERR_TIMEOUT; CBR_ERR_DEADLOCK; CBR_ERR_STALE; CBR_ERR_KIND; CBR_ERR_INVALID for
/// a timeout below -1.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn cbr_scope_drain(scope: cbr_scope, timeout_ns: i64) -> cbr_status {
    let drained = patience(timeout_ns).and_then(|patience| {
        with_record(|record| ENGINE.drain_scope(record, Handle(scope), patience))
    });
    report("cbr_scope_drain", scope, drained)
}

/// cbr_scope_set_thread_hooks has `attach` run on every thread before its first callback of the scope,
/// by whatever function it is called or entered, and `detach` at that thread's end: what a language's
/// runtime needs to know of threads that it has not made. To be set before the scope's first
/// registration; a scope has one set. Calls of other scopes cost nothing more because of it.
/// `attach`: must not be NULL. `detach`: may be. `user_data`: their first argument.
/// Ownership: `user_data` is the scope's until `destroy` is called with it, once, when cbr_scope_close
/// is about to return CBR_OK; `destroy` may be NULL. On failure `user_data` stays the caller's.
/// Threads: any. Threads that are alive when the scope closes keep their token, and are not detached.
/// Returns: CBR_OK; CBR_ERR_EXISTS after the first registration or a second time; CBR_ERR_NULL;
/// CBR_ERR_INVALID for scope 0; CBR_ERR_CLOSED; CBR_ERR_STALE; CBR_ERR_KIND.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn cbr_scope_set_thread_hooks(
    scope: cbr_scope,
    attach: cbr_thread_attach_fn,
    detach: cbr_thread_detach_fn,
    user_data: *mut c_void,
    destroy: cbr_destroy_fn,
) -> cbr_status {
    let set = attach.ok_or(Error::Null).and_then(|attach| {
        if scope == 0 {
            return Err(Error::Invalid("the default scope has no thread hooks"));
        }
        let hooks = ThreadHooks { attach, detach, user_data, destroy };
        with_record(|record| ENGINE.set_thread_hooks(record, Handle(scope), hooks))
    });
    report("cbr_scope_set_thread_hooks", scope, set)
}
