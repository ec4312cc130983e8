//! Rust's usual ways to keep a callback, behind the same C functions: register, unregister, call.

mod arc;
mod channel;
mod dashmap;
mod dashmap_keys;
mod sharded;

use std::ffi::c_void;

type CallFn = unsafe extern "C" fn(*mut c_void, *mut c_void) -> isize;
type DestroyFn = unsafe extern "C" fn(*mut c_void);

const OK: i32 = 0;
const STALE: i32 = -1;

/// A callback; dropping it runs its destroy function.
struct Entry {
    call: CallFn,
    user_data: *mut c_void,
    destroy: DestroyFn,
}

// SAFETY: the benchmark's callbacks and destroy functions may run on any thread.
unsafe impl Send for Entry {}
// SAFETY: as above.
unsafe impl Sync for Entry {}

impl Entry {
    #[inline]
    fn call(&self, arg: *mut c_void) -> isize {
        // SAFETY: the registrant promised a function that takes this user data.
        unsafe { (self.call)(self.user_data, arg) }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        // SAFETY: as in `call`; an entry is dropped once.
        unsafe { (self.destroy)(self.user_data) }
    }
}
