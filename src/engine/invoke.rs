//! The one place that calls host code. No lock of the library is held here, and nothing catches an
//! unwind: a C++ exception, pthread_exit or a cancellation passes through to its catcher, and the
//! guards' drops release what the library holds (`catch_unwind` around a foreign unwind aborts).

use super::Engine;
use super::frame::{Frame, StackPlace};
use super::handle::Handle;
use super::record::{Record, Stay};
use crate::error::Fault;
use crate::sync::Relaxed;
use std::ffi::{CStr, c_char, c_void};

/// A function of any signature; called only after a cast to what it is.
pub(crate) type AnyFn = unsafe extern "C-unwind" fn();
/// A function of the default signature.
pub(crate) type CallbackFn = unsafe extern "C-unwind" fn(*mut c_void, *mut c_void) -> isize;
pub(crate) type DestroyFn = unsafe extern "C-unwind" fn(*mut c_void);
pub(crate) type ErrorFn = unsafe extern "C-unwind" fn(*mut c_void, u64, i32, *const c_char);

pub(crate) fn function_to_pointer(function: AnyFn) -> *mut () {
    function as *mut ()
}

pub(crate) fn destroy_to_pointer(destroy: Option<DestroyFn>) -> *mut () {
    destroy.map_or(std::ptr::null_mut(), |function| function as *mut ())
}

/// Leaves when an unwind passes through a call.
struct Leaving<'a> {
    engine: &'a Engine,
    stay: Stay<'a>,
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        let Stay { record, frame, slot } = self.stay;
        // A failure has no caller to go to.
        let _ = self.engine.leave_cold(record, frame, slot);
    }
}

/// Calls the callback with `arg`.
#[inline(always)]
pub(crate) fn call(
    engine: &Engine,
    record: &Record,
    handle: Handle,
    arg: *mut c_void,
) -> Result<isize, Fault> {
    let stay = engine.enter::<false>(record, handle)?;
    // Relaxed: published with LIVE, which enter has loaded.
    let function = stay.slot.function.load(Relaxed);
    let user_data = stay.slot.user_data.load(Relaxed);
    let leaving = Leaving { engine, stay };
    // SAFETY: `enter::<false>` succeeds for the default signature only, whose function register was
    // given as a `CallbackFn`; user_data is alive while we are inside. That the function does what
    // it should is the host's promise.
    let result = unsafe {
        let function = std::mem::transmute::<*mut (), CallbackFn>(function);
        function(user_data.cast(), arg)
    };
    std::mem::forget(leaving);
    engine.leave(stay).map(|()| result)
}

/// Runs a destroy function. Its frame learns where the native stack is: a function of its own, so that
/// all that destroy calls lies below, and whoever jumps out of it lands above.
#[inline(never)]
pub(crate) fn destroy(function: *mut (), user_data: *mut (), frame: Option<&Frame>) {
    if function.is_null() {
        return;
    }
    let here = 0;
    if let Some(frame) = frame {
        frame.set_stack_place(StackPlace::of(&here));
    }
    // SAFETY: stored by register from a `DestroyFn`; the caller is the one finalizer.
    unsafe {
        let function = std::mem::transmute::<*mut (), DestroyFn>(function);
        function(user_data.cast());
    }
}

/// Tells a callback's error function.
pub(crate) fn on_error(
    function: ErrorFn,
    user_data: *mut (),
    handle: Handle,
    status: i32,
    message: &CStr,
) {
    // SAFETY: stored by register; the caller is inside the callback, so user_data is alive.
    unsafe { function(user_data.cast(), handle.0, status, message.as_ptr()) };
}
