//! Probe points (USDT, provider `callbridge`) that debuggers and tracers find in the library. One function
//! each; README.md describes them to those who use them.
//!
//! An argument is where it is anyway: a probe that nobody listens to costs its nop.
#![cfg_attr(
    not(all(target_arch = "x86_64", target_os = "linux", not(any(loom, miri)))),
    allow(unused_variables, unused_imports, reason = "there are no probes")
)]

use super::cold::Cold;
use super::handle::Handle;
use super::slot::Slot;
use crate::error::Error;
use crate::platform::sdt::sdt;
use std::ffi::CStr;
use std::mem::offset_of;

/// A callback begins to live, and has neither a name nor a scope.
#[inline(always)]
pub(super) fn register(handle: Handle, slot: &Slot) {
    sdt!("register", "8@{handle} 8@{function}({slot}) 8@$0 8@$0",
        handle = in(reg) (handle.0), slot = in(reg) (slot),
        function = const (offset_of!(Slot, function)),);
}

/// The same of one that has cold data.
#[inline(always)]
pub(super) fn register_more(handle: Handle, slot: &Slot, cold: &Cold) {
    sdt!("register", "8@{handle} 8@{function}({slot}) 8@{name}({cold}) 8@{scope}({cold})",
        handle = in(reg) (handle.0), slot = in(reg) (slot), cold = in(reg) (cold),
        function = const (offset_of!(Slot, function)),
        name = const (Cold::NAME_AT), scope = const (Cold::SCOPE_AT),);
}

/// A callback has ended for everybody: unregistered, released for the last time, or with its scope.
#[inline(always)]
pub(super) fn unregister(handle: Handle) {
    sdt!("unregister", "8@{handle}", handle = in(reg) (handle.0),);
}

/// Nobody is inside any more: its destroy function, if it has one, is about to run.
#[inline(always)]
pub(super) fn destroy(handle: Handle, slot: &Slot) {
    sdt!("destroy", "8@{handle} 8@{function}({slot}) 8@{user_data}({slot})",
        handle = in(reg) (handle.0), slot = in(reg) (slot),
        function = const (offset_of!(Slot, destroy)),
        user_data = const (offset_of!(Slot, user_data)),);
}

/// A call, a pin or a hold is inside; a call is about to call the function.
#[inline(always)]
pub(super) fn call_begin(handle: Handle, slot: &Slot) {
    sdt!("call_begin", "8@{handle} 8@{function}({slot})",
        handle = in(reg) (handle.0), slot = in(reg) (slot),
        function = const (offset_of!(Slot, function)),);
}

/// What began is over. The status is C's number.
#[inline(always)]
pub(super) fn call_end(handle: Handle) {
    sdt!("call_end", "8@{handle} -4@$0", handle = in(reg) (handle.0),);
}

/// The same of what has said that it failed, or was left by an unwind or a longjmp.
#[cold]
#[inline(never)]
pub(super) fn call_failed(handle: Handle, error: Error) {
    let status = status(error);
    sdt!("call_end", "8@{handle} -4@{status:e}",
        handle = in(reg) (handle.0), status = in(reg) (status),);
}

/// A call found its callback gone.
#[cold]
#[inline(never)]
pub(crate) fn stale(handle: Handle) {
    sdt!("stale", "8@{handle}", handle = in(reg) (handle.0),);
}

/// An event of the callback was put into the queue.
#[inline(always)]
pub(crate) fn post(handle: Handle, queue: Handle) {
    sdt!("post", "8@{handle} 8@{queue}", handle = in(reg) (handle.0), queue = in(reg) (queue.0),);
}

/// One was taken out, and is about to be delivered. Its callback and its queue are so many bytes behind
/// `event`.
#[inline(always)]
pub(crate) fn dispatch_begin<const HANDLE: usize, const QUEUE: usize>(event: *const u8) {
    sdt!("dispatch_begin", "8@{handle}({event}) 8@{queue}({event})",
        event = in(reg) (event), handle = const (HANDLE), queue = const (QUEUE),);
}

/// It has been, or its callback was gone.
#[inline(always)]
pub(crate) fn dispatch_end<const HANDLE: usize, const QUEUE: usize>(event: *const u8) {
    sdt!("dispatch_end", "8@{handle}({event}) 8@{queue}({event})",
        event = in(reg) (event), handle = const (HANDLE), queue = const (QUEUE),);
}

/// One will not be.
#[cold]
#[inline(never)]
pub(crate) fn drop(handle: Handle, queue: Handle, why: Error) {
    let why: &CStr = match why {
        Error::Full => c"displaced",
        Error::Stale => c"gone",
        _ => c"closed",
    };
    sdt!("drop", "8@{handle} 8@{queue} 8@{why}",
        handle = in(reg) (handle.0), queue = in(reg) (queue.0), why = in(reg) (why.as_ptr()),);
}

/// C's number, which lies above; a test compares.
pub(crate) const fn status(error: Error) -> i32 {
    match error {
        Error::Panic => -2,
        _ => -19,
    }
}
