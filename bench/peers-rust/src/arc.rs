//! The bare `Arc` pointer as the handle: a reference a call, no lookup, nothing validated.

use crate::{CallFn, DestroyFn, Entry, OK};
use std::ffi::c_void;
use std::sync::Arc;

/// # Safety
/// `out` is valid for a write; `call` and `destroy` take `user_data`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peer_arc_register(
    call: CallFn,
    user_data: *mut c_void,
    destroy: DestroyFn,
    out: *mut u64,
) -> i32 {
    let entry = Arc::new(Entry {
        call,
        user_data,
        destroy,
    });
    // SAFETY: the caller's promise.
    unsafe { out.write(Arc::into_raw(entry) as u64) };
    OK
}

/// # Safety
/// The caller owns a reference of `handle`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peer_arc_unregister(handle: u64) -> i32 {
    // SAFETY: the caller's promise.
    unsafe { peer_arc_release(handle) }
}

/// # Safety
/// `handle` is alive; `out` is valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peer_arc_call(handle: u64, arg: *mut c_void, out: *mut isize) -> i32 {
    let pointer = handle as *const Entry;
    // SAFETY: alive, so it can be referenced once more; the reference made here is owned here.
    let entry = unsafe {
        Arc::increment_strong_count(pointer);
        Arc::from_raw(pointer)
    };
    // SAFETY: the caller's promise.
    unsafe { out.write(entry.call(arg)) };
    OK
}

/// # Safety
/// `handle` is alive.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peer_arc_retain(handle: u64) -> i32 {
    // SAFETY: the caller's promise.
    unsafe { Arc::increment_strong_count(handle as *const Entry) };
    OK
}

/// # Safety
/// The caller owns a reference of `handle`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peer_arc_release(handle: u64) -> i32 {
    // SAFETY: the caller's promise.
    unsafe { Arc::decrement_strong_count(handle as *const Entry) };
    OK
}
