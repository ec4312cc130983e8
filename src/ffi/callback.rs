//! Section "Callbacks": their life from register to destroy.

use super::scope::cbr_scope;
use super::signature::cbr_signature;
use super::status::{CBR_OK, cbr_status};
use super::{failed, first_use, patience, read_options, report, utf8, with_record};
use crate::engine::signature::Signature;
use crate::engine::{self, ColdParts, ENGINE, Handle, METERED, NAME_MAX, Registration};
use crate::error::Error;
use crate::registry;
use libc::size_t;
use std::ffi::{c_char, c_void};

/// cbr_handle stands for an object. 0 (CBR_HANDLE_NONE) is none. A number: copy, store, compare, log
/// and pass it between threads freely. Holding one is not owning the object, and it never dangles:
/// used after its object is gone it gives CBR_ERR_STALE.
#[allow(non_camel_case_types, reason = "a C type")]
pub type cbr_handle = u64;

/// cbr_queue is a queue into an event loop, see cbr_queue_open. 0 is none.
#[allow(non_camel_case_types, reason = "a C type")]
pub type cbr_queue = u64;

/// cbr_fn is a callback of the default signature.
#[allow(non_camel_case_types, reason = "a C type")]
pub type cbr_fn =
    Option<unsafe extern "C-unwind" fn(user_data: *mut c_void, arg: *mut c_void) -> isize>;

/// cbr_any_fn is a function of any other signature: cast from and to what it is.
#[allow(non_camel_case_types, reason = "a C type")]
pub type cbr_any_fn = Option<unsafe extern "C-unwind" fn()>;

/// cbr_destroy_fn frees a callback's data. It runs exactly once, when nobody is inside the callback
/// any more and nobody can enter it. It may use the library, and may end by an exception or
/// pthread_exit, unless an unwind or the thread's end is what makes it run.
#[allow(non_camel_case_types, reason = "a C type")]
pub type cbr_destroy_fn = Option<unsafe extern "C-unwind" fn(user_data: *mut c_void)>;

/// cbr_error_fn is told of a failure that the callback has reported with cbr_fail: CBR_ERR_CALLBACK
/// or CBR_ERR_PANIC, and the message. It runs inside cbr_fail, so `user_data` is alive.
#[allow(non_camel_case_types, reason = "a C type")]
pub type cbr_error_fn = Option<
    unsafe extern "C-unwind" fn(
        user_data: *mut c_void,
        handle: cbr_handle,
        status: cbr_status,
        message: *const c_char,
    ),
>;

/// cbr_value is a value of any type that a signature can name.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types, reason = "a C type")]
pub union cbr_value {
    pub i: i64,
    pub u: u64,
    pub f64: f64,
    pub f32: f32,
    pub ptr: *mut c_void,
}

/// cbr_callback_options describes a callback for cbr_register_with. Start from
/// CBR_CALLBACK_OPTIONS_INIT; zero in a field means the default.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types, reason = "a C type")]
pub struct cbr_callback_options {
    /// sizeof(cbr_callback_options).
    pub size: size_t,
    /// The function; its first argument is `user_data`.
    pub r#fn: cbr_any_fn,
    pub user_data: *mut c_void,
    /// NULL: nothing to free.
    pub destroy: cbr_destroy_fn,
    /// 0: `fn` is a cbr_fn, which is CBR_SIG_DEFAULT.
    pub signature: cbr_signature,
    /// For logs; at most 255 bytes of UTF-8, copied. NULL: none.
    pub name: *const c_char,
    /// The owner: closing it ends the callback. 0: the process's default scope.
    pub scope: cbr_scope,
    /// The callback may be called on the thread that owns this CBR_QUEUE_OWNED queue alone; elsewhere calls
    /// give CBR_ERR_THREAD. 0: on any thread.
    pub home: cbr_queue,
    /// `destroy` runs when this CBR_QUEUE_OWNED queue is dispatched, after what waits there for the
    /// callback; and when the queue was closed as with 0: on the thread that ends the callback's life.
    pub destroy_queue: cbr_queue,
    /// CBR_METERED, CBR_PIN_MODULE.
    pub flags: u32,
    /// Told of every failure that the callback reports with cbr_fail. May be NULL.
    pub on_error: cbr_error_fn,
    /// What cbr_call_ptr and thunks return when the callback cannot run; a thunk as its type asks for.
    pub fallback: cbr_value,
}

/// In cbr_callback_options.flags: the shared object that holds `fn` stays loaded for the life of the
/// process, whoever closes it. In the main program there is nothing to do; code that is in no object,
/// made at run time, is CBR_ERR_INVALID.
pub const CBR_PIN_MODULE: u32 = 2;

/// In cbr_callback_options.flags: calls and failures of the callback are counted, and how long its calls
/// take, for cbr_metrics, cbr_report and cbr_callback_info_get; and how long its events wait in their queues.
/// A call then costs two looks at the clock more, and a thread that calls keeps 256 bytes for it.
pub const CBR_METERED: u32 = 1;

/// cbr_register makes a callback of `fn` and `user_data` and gives its handle, with one reference,
/// the caller's.
/// Ownership: `user_data` belongs to the callback until `destroy` is called with it: exactly once,
/// after the last reference is released or the callback is unregistered, when no call is inside any
/// more, on the thread that ends the last use. `destroy` NULL: nothing to free. When cbr_register
/// fails, `user_data` stays the caller's.
/// Threads: any.
/// Returns: CBR_OK; CBR_ERR_NULL if `fn` is NULL; CBR_ERR_INVALID if `out_handle` is NULL;
/// CBR_ERR_NOMEM; CBR_ERR_LIMIT at 2^28 objects; CBR_ERR_SYSTEM at a thread's first use. With
/// cbr_set_check(2) also CBR_ERR_INVALID if a function is no code.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn cbr_register(
    r#fn: cbr_fn,
    user_data: *mut c_void,
    destroy: cbr_destroy_fn,
    out_handle: *mut cbr_handle,
) -> cbr_status {
    let Some(function) = r#fn else {
        return failed("cbr_register", 0, Error::Null);
    };
    if out_handle.is_null() {
        return failed("cbr_register", 0, OUT_HANDLE);
    }
    let Some(record) = engine::current() else {
        // SAFETY: the same arguments.
        return first_use("cbr_register", 0, move || unsafe {
            cbr_register(Some(function), user_data, destroy, out_handle)
        });
    };
    let new = Registration {
        // SAFETY: kept as a function of any signature, with the note that it is the default one, and
        // cast back before it is called.
        function: unsafe {
            std::mem::transmute::<engine::invoke::CallbackFn, engine::invoke::AnyFn>(function)
        },
        user_data,
        destroy,
        signature: Signature::DEFAULT,
        cold: ColdParts::NONE,
    };
    match registry::register(record, &new, false, cbr_register as *const ()) {
        Ok(handle) => {
            // SAFETY: not NULL, and the caller's promise.
            unsafe { *out_handle = handle.0 };
            CBR_OK
        }
        Err(error) => failed("cbr_register", 0, error),
    }
}

const OUT_HANDLE: Error = Error::Invalid("out_handle is NULL");

/// cbr_register_with is cbr_register with everything else that can be said of a callback: another
/// signature, a name, a scope, an error function, a fallback.
/// Ownership: as cbr_register; `options` and the name are copied.
/// Threads: any.
/// Returns: what cbr_register returns, and CBR_ERR_INVALID if `options` is NULL, its `size` is too
/// small or above 4096, the signature or a flag is unknown, or the name is longer than 255 bytes or not
/// UTF-8, or with CBR_PIN_MODULE and no shared object that holds `fn`;
/// CBR_ERR_CLOSED if the scope, `home` or `destroy_queue` is closing, CBR_ERR_STALE if it is gone,
/// CBR_ERR_KIND if it is something else; CBR_ERR_INVALID if such a queue is not CBR_QUEUE_OWNED;
/// CBR_ERR_SYSTEM if CBR_PIN_MODULE's object is not found again;
/// CBR_ERR_UNSUPPORTED for a field that this version does not know or requires to be 0.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn cbr_register_with(
    options: *const cbr_callback_options,
    out_handle: *mut cbr_handle,
) -> cbr_status {
    // SAFETY: the caller's promise.
    let result = unsafe { registration(options) }.and_then(|(new, flags)| {
        if out_handle.is_null() {
            return Err(OUT_HANDLE);
        }
        with_record(|record| {
            let entry = cbr_register_with as *const ();
            registry::register(record, &new, flags & CBR_PIN_MODULE != 0, entry)
        })
    });
    match result {
        Ok(handle) => {
            // SAFETY: not NULL, and the caller's promise.
            unsafe { *out_handle = handle.0 };
            CBR_OK
        }
        Err(error) => failed("cbr_register_with", 0, error),
    }
}

/// # Safety
/// As [`cbr_register_with`].
unsafe fn registration<'a>(
    options: *const cbr_callback_options,
) -> Result<(Registration<'a>, u32), Error> {
    // SAFETY: the caller's promise.
    let options = unsafe { read_options(options, size_of::<cbr_callback_options>())? };
    if options.flags & !(CBR_METERED | CBR_PIN_MODULE) != 0 {
        return Err(Error::Invalid("options->flags has an unknown flag"));
    }
    let signature = match options.signature {
        0 => Signature::DEFAULT,
        number => Signature(number),
    };
    if !signature.is_valid() {
        return Err(Error::Invalid("options->signature is no signature"));
    }
    // SAFETY: the caller's promise.
    let name = unsafe { utf8(options.name, "options->name is not UTF-8")? }.unwrap_or_default();
    if name.len() > NAME_MAX {
        return Err(Error::Invalid("options->name is longer than 255 bytes"));
    }
    let new = Registration {
        function: options.r#fn.ok_or(Error::Null)?,
        user_data: options.user_data,
        destroy: options.destroy,
        signature,
        cold: ColdParts {
            name,
            on_error: options.on_error,
            // SAFETY: all bits of the union are a number; the initialiser has zeroed what a smaller
            // member leaves.
            fallback: unsafe { options.fallback.u },
            scope: Handle(options.scope),
            home: Handle(options.home),
            destroy_queue: Handle(options.destroy_queue),
            flags: u64::from(options.flags) | (u64::from(options.flags & CBR_METERED) * METERED),
            stack: None,
        },
    };
    Ok((new, options.flags))
}

/// cbr_unregister ends the callback's life for everybody, whatever the number of references. No new
/// call starts after it returns; calls in flight finish.
/// Ownership: destroy runs exactly once: here if nobody is inside, else on the thread whose leave is
/// the last. Other owners' cbr_release gives CBR_ERR_STALE from now on and changes nothing.
/// Threads: any; inside the callback itself it returns at once, and destroy runs when that call
/// returns.
/// Returns: CBR_OK; CBR_ERR_STALE if it is gone already; CBR_ERR_KIND.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn cbr_unregister(handle: cbr_handle) -> cbr_status {
    let Some(record) = engine::current() else {
        return first_use("cbr_unregister", handle, move || cbr_unregister(handle));
    };
    report("cbr_unregister", handle, ENGINE.unregister(record, Handle(handle)))
}

/// cbr_unregister_wait is cbr_unregister, and returns when destroy has run. On a callback that is
/// unregistered or released already, and whose destroy has not returned yet, it waits all the same,
/// so it can be called again after a timeout.
/// `timeout_ns`: nanoseconds; -1 waits for ever, 0 does not wait.
/// Threads: any. From inside the callback, or while the wait could not end because a thread inside
/// it waits, directly or through others, for something that the caller is inside, it returns
/// CBR_ERR_DEADLOCK at once; the callback is unregistered all the same. A hold (cbr_hold) that
/// nobody leaves is not seen as a deadlock: holds have no thread. Not a cancellation point.
/// Returns: CBR_OK: destroy has returned; CBR_ERR_STALE: it had before, or the handle never was;
/// CBR_ERR_TIMEOUT and CBR_ERR_DEADLOCK: unregistered, and destroy will run; CBR_ERR_INVALID if
/// `timeout_ns` is below -1: nothing has changed; CBR_ERR_KIND.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn cbr_unregister_wait(handle: cbr_handle, timeout_ns: i64) -> cbr_status {
    let result = patience(timeout_ns).and_then(|patience| {
        with_record(|record| ENGINE.unregister_wait(record, Handle(handle), patience))
    });
    report("cbr_unregister_wait", handle, result)
}

/// cbr_retain adds a reference: from now on the caller is an owner, too.
/// Ownership: to be given back with cbr_release.
/// Threads: any.
/// Returns: CBR_OK: the callback lives until the caller releases it or somebody unregisters it;
/// CBR_ERR_STALE; CBR_ERR_KIND; CBR_ERR_LIMIT at 2^30 references.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn cbr_retain(handle: cbr_handle) -> cbr_status {
    report("cbr_retain", handle, ENGINE.retain(Handle(handle)))
}

/// cbr_release gives a reference back. The last one ends the callback's life as cbr_unregister does.
/// Ownership: as cbr_unregister.
/// Threads: any, also inside the callback.
/// Returns: CBR_OK; CBR_ERR_STALE if the callback is gone, then nothing has changed; CBR_ERR_KIND.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn cbr_release(handle: cbr_handle) -> cbr_status {
    let Some(record) = engine::current() else {
        return first_use("cbr_release", handle, move || cbr_release(handle));
    };
    report("cbr_release", handle, ENGINE.release(record, Handle(handle)))
}

/// cbr_refcount gives the number of references, for diagnosis: it may have changed already.
/// Threads: any.
/// Returns: CBR_OK; CBR_ERR_STALE; CBR_ERR_KIND; CBR_ERR_INVALID if `out_count` is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn cbr_refcount(
    handle: cbr_handle,
    out_count: *mut u32,
) -> cbr_status {
    if out_count.is_null() {
        return failed("cbr_refcount", handle, Error::Invalid("out_count is NULL"));
    }
    match ENGINE.references(Handle(handle)) {
        Ok(count) => {
            // SAFETY: not NULL, and the caller's promise.
            unsafe { *out_count = count };
            CBR_OK
        }
        Err(error) => failed("cbr_refcount", handle, error),
    }
}

/// cbr_is_live says whether a call through this handle is possible now. Another thread may end the
/// callback at any time: only cbr_retain, cbr_enter or the call itself can tell for sure.
/// Threads: any.
#[unsafe(no_mangle)]
pub extern "C" fn cbr_is_live(handle: cbr_handle) -> bool {
    ENGINE.is_live(Handle(handle))
}
