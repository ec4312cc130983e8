//! Who has called into the library. Walks the stack, which takes microseconds.

use std::ffi::c_void;
use std::ptr;

#[allow(unused_doc_comments, reason = "for cbindgen, which takes them for the header")]
/// cbindgen:ignore
#[cfg(not(miri))]
unsafe extern "C" {
    fn _Unwind_Backtrace(
        show: unsafe extern "C" fn(*mut c_void, *mut c_void) -> i32,
        data: *mut c_void,
    ) -> i32;
    fn _Unwind_GetIP(frame: *mut c_void) -> usize;
    fn _Unwind_FindEnclosingFunction(address: *mut c_void) -> *mut c_void;
}

/// Where the function `entry` of the library, which is being called on this thread, was called from; 0 if
/// that does not show.
#[cold]
#[inline(never)]
pub(crate) fn of(entry: *const ()) -> u64 {
    #[cfg(miri)]
    return entry.addr() as u64 & 0;
    #[cfg(not(miri))]
    {
        struct Walk {
            entry: usize,
            is_next: bool,
            found: usize,
            left: u32,
        }
        unsafe extern "C" fn look(frame: *mut c_void, walk: *mut c_void) -> i32 {
            const GO_ON: i32 = 0;
            const STOP: i32 = 4;
            // SAFETY: `_Unwind_Backtrace` gives a frame, and our own data.
            let (walk, address) = unsafe { (&mut *walk.cast::<Walk>(), _Unwind_GetIP(frame)) };
            if walk.is_next {
                walk.found = address;
                return STOP;
            }
            // The address is behind the call, which may be the function's last instruction.
            let inside = ptr::without_provenance_mut(address.wrapping_sub(1));
            // SAFETY: looks into the unwind tables, with any address.
            walk.is_next = unsafe { _Unwind_FindEnclosingFunction(inside) }.addr() == walk.entry;
            walk.left -= 1;
            if walk.left == 0 { STOP } else { GO_ON }
        }
        let mut walk = Walk { entry: entry.addr(), is_next: false, found: 0, left: 32 };
        // SAFETY: `look` gets what it expects, as long as this call lasts.
        unsafe { _Unwind_Backtrace(look, (&raw mut walk).cast()) };
        walk.found as u64
    }
}
