//! As `dashmap`, found by a key and an event.

use crate::{CallFn, DestroyFn, Entry, OK, STALE};
use ::dashmap::DashMap;
use ::dashmap::mapref::entry::Entry::Vacant;
use std::ffi::c_void;
use std::sync::{Arc, LazyLock};

static MAP: LazyLock<DashMap<(usize, u32), Arc<Entry>>> = LazyLock::new(DashMap::new);

/// # Safety
/// `call` and `destroy` take `user_data`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peer_dashmap_keys_attach(
    key: usize,
    event: u32,
    call: CallFn,
    user_data: *mut c_void,
    destroy: DestroyFn,
) -> i32 {
    let Vacant(place) = MAP.entry((key, event)) else {
        return STALE;
    };
    place.insert(Arc::new(Entry {
        call,
        user_data,
        destroy,
    }));
    OK
}

#[unsafe(no_mangle)]
pub extern "C" fn peer_dashmap_keys_detach(key: usize, event: u32) -> i32 {
    if MAP.remove(&(key, event)).is_some() {
        OK
    } else {
        STALE
    }
}

/// # Safety
/// `out` is valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peer_dashmap_keys_call(
    key: usize,
    event: u32,
    arg: *mut c_void,
    out: *mut isize,
) -> i32 {
    let Some(entry) = MAP.get(&(key, event)).map(|found| Arc::clone(&found)) else {
        return STALE;
    };
    // SAFETY: the caller's promise.
    unsafe { out.write(entry.call(arg)) };
    OK
}
