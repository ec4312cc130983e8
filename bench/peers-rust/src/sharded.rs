//! A lock-free slab with generations; a guard keeps the entry alive during the callback.

use crate::{CallFn, DestroyFn, Entry, OK, STALE};
use sharded_slab::Slab;
use std::ffi::c_void;
use std::sync::LazyLock;

static SLAB: LazyLock<Slab<Entry>> = LazyLock::new(Slab::new);

/// # Safety
/// `out` is valid for a write; `call` and `destroy` take `user_data`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peer_sharded_register(
    call: CallFn,
    user_data: *mut c_void,
    destroy: DestroyFn,
    out: *mut u64,
) -> i32 {
    let Some(key) = SLAB.insert(Entry {
        call,
        user_data,
        destroy,
    }) else {
        return STALE;
    };
    // SAFETY: the caller's promise.
    unsafe { out.write(key as u64) };
    OK
}

#[unsafe(no_mangle)]
pub extern "C" fn peer_sharded_unregister(handle: u64) -> i32 {
    if SLAB.remove(handle as usize) {
        OK
    } else {
        STALE
    }
}

/// # Safety
/// `out` is valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peer_sharded_call(handle: u64, arg: *mut c_void, out: *mut isize) -> i32 {
    let Some(entry) = SLAB.get(handle as usize) else {
        return STALE;
    };
    // SAFETY: the caller's promise.
    unsafe { out.write(entry.call(arg)) };
    OK
}
