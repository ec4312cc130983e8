//! The one place that calls host code. No lock of the library is held here, and nothing catches an
//! unwind: a C++ exception, pthread_exit or a cancellation passes through to its catcher, and the
//! guards' drops release what the library holds (`catch_unwind` around a foreign unwind aborts).

use super::frame::{Frame, StackPlace};
use super::handle::Handle;
use super::observe::Observed;
use super::record::{Record, Stay};
use super::{Engine, probes};
use crate::error::Fault;
use crate::sync::Relaxed;
use std::ffi::{CStr, c_char, c_void};

/// A function of any signature; called only after a cast to what it is.
pub(crate) type AnyFn = unsafe extern "C-unwind" fn();
/// A function of the default signature.
pub(crate) type CallbackFn = unsafe extern "C-unwind" fn(*mut c_void, *mut c_void) -> isize;
pub(crate) type DestroyFn = unsafe extern "C-unwind" fn(*mut c_void);
pub(crate) type AttachFn = unsafe extern "C-unwind" fn(*mut c_void) -> *mut c_void;
pub(crate) type DetachFn = unsafe extern "C-unwind" fn(*mut c_void, *mut c_void);
pub(crate) type BeginFn =
    unsafe extern "C-unwind" fn(*mut c_void, u64, *const c_char, *const c_char) -> *mut c_void;
pub(crate) type EndFn = unsafe extern "C-unwind" fn(*mut c_void, *mut c_void, i32);
pub(crate) type ErrorFn = unsafe extern "C-unwind" fn(*mut c_void, u64, i32, *const c_char);

pub(crate) fn function_to_pointer(function: AnyFn) -> *mut () {
    function as *mut ()
}

/// The function at an address that is one.
pub(crate) fn function_at(code: *const ()) -> AnyFn {
    // SAFETY: pointers to code and to data are alike; calling it is for who knows what it is.
    unsafe { std::mem::transmute::<*const (), AnyFn>(code) }
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
        let Stay { record, frame, slot, .. } = self.stay;
        // A failure has no caller to go to.
        let _ = self.engine.leave_abandoned(record, frame, slot);
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
    match engine.enter::<false>(record, handle) {
        Ok(stay) => call_entered(engine, stay, arg),
        Err(fault) => call_not_entered(engine, record, arg, fault),
    }
}

/// What is left when `enter` has failed: a special callback is entered by now, and called here; all others
/// are refused as the fault says.
#[cold]
#[inline(never)]
pub(crate) fn call_not_entered(
    engine: &Engine,
    record: &Record,
    arg: *mut c_void,
    fault: Fault,
) -> Result<isize, Fault> {
    let (frame, slot) = engine.enter_special(record, fault)?;
    let stay = Stay { record, frame, slot, handle: frame.handle() };
    // SAFETY: as in `call_function`.
    call_observed(engine, stay, |function, user_data| unsafe {
        call_default(function, user_data, arg)
    })
}

/// Calls a callback that is entered and may be watched, and leaves it.
#[inline(always)]
fn call_observed<R>(
    engine: &Engine,
    stay: Stay<'_>,
    call: impl FnOnce(*mut (), *mut ()) -> R,
) -> Result<R, Fault> {
    let leaving = Leaving { engine, stay };
    let observed = Observed::begin(engine, stay);
    // Relaxed: published with LIVE, which enter has loaded.
    let function = stay.slot.function.load(Relaxed);
    let user_data = stay.slot.user_data.load(Relaxed);
    probes::call_begin(stay.handle, stay.slot);
    let result = call(function, user_data);
    observed.end();
    std::mem::forget(leaving);
    engine.leave(stay).map(|()| result)
}

/// Calls a callback that is entered, and leaves it.
#[inline(always)]
pub(crate) fn call_entered(
    engine: &Engine,
    stay: Stay<'_>,
    arg: *mut c_void,
) -> Result<isize, Fault> {
    let leaving = Leaving { engine, stay };
    let result = call_function(stay, arg);
    std::mem::forget(leaving);
    engine.leave(stay).map(|()| result)
}

/// Calls a callback of any signature: `call` gets its function and user_data.
#[inline(always)]
pub(crate) fn call_typed<R>(
    engine: &Engine,
    record: &Record,
    handle: Handle,
    call: impl FnOnce(*mut (), *mut ()) -> R,
) -> Result<R, Fault> {
    let stay = match engine.enter::<true>(record, handle) {
        Ok(stay) => stay,
        // Not a function of its own: that would have the arguments in memory.
        Err(fault) => {
            let (frame, slot) = engine.enter_special(record, fault)?;
            return call_observed(engine, Stay { record, frame, slot, handle }, call);
        }
    };
    let leaving = Leaving { engine, stay };
    // Relaxed: published with LIVE, which enter has loaded.
    let function = stay.slot.function.load(Relaxed);
    let user_data = stay.slot.user_data.load(Relaxed);
    probes::call_begin(handle, stay.slot);
    let result = call(function, user_data);
    std::mem::forget(leaving);
    engine.leave(stay).map(|()| result)
}

#[inline(always)]
fn call_function(stay: Stay<'_>, arg: *mut c_void) -> isize {
    // Relaxed: published with LIVE, which enter has loaded.
    let function = stay.slot.function.load(Relaxed);
    let user_data = stay.slot.user_data.load(Relaxed);
    probes::call_begin(stay.handle, stay.slot);
    // SAFETY: `enter::<false>` enters callbacks of the default signature only, and we are inside.
    unsafe { call_default(function, user_data, arg) }
}

/// # Safety
/// `function` is of the default signature, and the caller inside its callback, whose `user_data` is alive.
#[inline(always)]
unsafe fn call_default(function: *mut (), user_data: *mut (), arg: *mut c_void) -> isize {
    // SAFETY: the caller's promise: register was given it as a `CallbackFn`. That the function does what
    // it should is the host's promise.
    unsafe {
        let function = std::mem::transmute::<*mut (), CallbackFn>(function);
        function(user_data.cast(), arg)
    }
}

/// Runs a scope's attach function on a thread that is about to call for the first time.
pub(crate) fn attach(function: AttachFn, user_data: *mut ()) -> *mut c_void {
    // SAFETY: from `set_thread_hooks`; the caller is inside a callback of the scope, so the scope, and
    // with it user_data, is alive.
    unsafe { function(user_data.cast()) }
}

/// Runs a scope's detach function on a thread that ends. Its frame learns where the native stack is,
/// as in [`destroy`].
#[inline(never)]
pub(crate) fn detach(function: DetachFn, user_data: *mut (), token: *mut c_void, frame: &Frame) {
    let here = 0;
    frame.set_stack_place(StackPlace::of(&here));
    // SAFETY: from `set_thread_hooks`; the frame keeps the scope, and with it user_data, alive.
    unsafe { function(user_data.cast(), token) };
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
    // SAFETY: stored by register or `set_thread_hooks` from a `DestroyFn`; the caller is the one
    // finalizer.
    unsafe {
        let function = std::mem::transmute::<*mut (), DestroyFn>(function);
        function(user_data.cast());
    }
}

/// Gives the host's sink a line of the log.
pub(crate) fn sink(
    function: *mut (),
    user_data: *mut (),
    level: u32,
    target: &CStr,
    message: &CStr,
) {
    type LogFn = unsafe extern "C-unwind" fn(*mut c_void, u32, *const c_char, *const c_char);
    // SAFETY: registered by `cbr_log_to` as such a function; the caller is inside its callback, so user_data
    // is alive.
    unsafe {
        let function = std::mem::transmute::<*mut (), LogFn>(function);
        function(user_data.cast(), level, target.as_ptr(), message.as_ptr());
    }
}

/// The end function of a tracer, as [`begin_to_pointers`] has given it.
pub(super) fn end_at(bits: u64) -> Option<EndFn> {
    let function: *mut () = std::ptr::with_exposed_provenance_mut(bits as usize);
    // SAFETY: null or an `EndFn`; Option<fn> has null for None.
    unsafe { std::mem::transmute::<*mut (), Option<EndFn>>(function) }
}

/// A tracer's two functions as what a callback is registered with: its function, and its fallback.
pub(crate) fn begin_to_pointers(begin: BeginFn, end: Option<EndFn>) -> (AnyFn, u64) {
    let end = end.map_or(std::ptr::null_mut(), |function| function as *mut ());
    (function_at(begin as *const ()), end.expose_provenance() as u64)
}

/// Tells a tracer that a call begins. `name` null: the callback has none.
pub(super) fn begin(
    function: *mut (),
    user_data: *mut (),
    handle: Handle,
    name: *const u8,
    context: *const u8,
) -> *mut c_void {
    let name = if name.is_null() { c"".as_ptr() } else { name.cast() };
    // SAFETY: a guest that is a tracer was registered with a `BeginFn`; the caller is inside it, so that
    // user_data is alive, and keeps both texts.
    unsafe {
        let function = std::mem::transmute::<*mut (), BeginFn>(function);
        function(user_data.cast(), handle.0, name, context.cast())
    }
}

/// Tells it that the call is over.
pub(super) fn end(function: EndFn, user_data: *mut (), token: *mut c_void, status: i32) {
    // SAFETY: the same tracer's, whom the caller is inside of.
    unsafe { function(user_data.cast(), token, status) };
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
