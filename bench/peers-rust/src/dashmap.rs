//! A concurrent hash map of `Arc`s; the map's lock is not held during the callback.

use crate::{CallFn, DestroyFn, Entry, OK, STALE};
use ::dashmap::DashMap;
use std::ffi::c_void;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, LazyLock};

static MAP: LazyLock<DashMap<u64, Arc<Entry>>> = LazyLock::new(DashMap::new);
static LAST: AtomicU64 = AtomicU64::new(0);

/// # Safety
/// `out` is valid for a write; `call` and `destroy` take `user_data`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peer_dashmap_register(
    call: CallFn,
    user_data: *mut c_void,
    destroy: DestroyFn,
    out: *mut u64,
) -> i32 {
    let handle = LAST.fetch_add(1, Relaxed) + 1;
    MAP.insert(
        handle,
        Arc::new(Entry {
            call,
            user_data,
            destroy,
        }),
    );
    // SAFETY: the caller's promise.
    unsafe { out.write(handle) };
    OK
}

#[unsafe(no_mangle)]
pub extern "C" fn peer_dashmap_unregister(handle: u64) -> i32 {
    if MAP.remove(&handle).is_some() {
        OK
    } else {
        STALE
    }
}

/// # Safety
/// `out` is valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peer_dashmap_call(handle: u64, arg: *mut c_void, out: *mut isize) -> i32 {
    let Some(entry) = MAP.get(&handle).map(|found| Arc::clone(&found)) else {
        return STALE;
    };
    // SAFETY: the caller's promise.
    unsafe { out.write(entry.call(arg)) };
    OK
}
