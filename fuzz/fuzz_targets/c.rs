//! The C API, as C programs see it: declared by hand, so that a change of the library's own declarations
//! does not change what is tested. Only what the targets use.
#![allow(dead_code, non_camel_case_types, reason = "every target uses a part; C's names")]

use callbridge as _;
use std::ffi::{c_char, c_void};

pub type cbr_status = i32;
pub type cbr_any_fn = Option<unsafe extern "C" fn()>;
pub type cbr_fn = Option<unsafe extern "C" fn(*mut c_void, *mut c_void) -> isize>;
pub type cbr_destroy_fn = Option<unsafe extern "C" fn(*mut c_void)>;
pub type cbr_error_fn = Option<unsafe extern "C" fn(*mut c_void, u64, cbr_status, *const c_char)>;
pub type cbr_attach_fn = Option<unsafe extern "C" fn(*mut c_void) -> *mut c_void>;
pub type cbr_detach_fn = Option<unsafe extern "C" fn(*mut c_void, *mut c_void)>;
pub type cbr_write_fn = Option<unsafe extern "C" fn(*mut c_void, *const c_char, usize)>;

pub type cbr_log_fn = Option<unsafe extern "C" fn(*mut c_void, u32, *const c_char, *const c_char)>;

pub const CBR_OK: cbr_status = 0;
pub const CBR_ERR_PANIC: cbr_status = -2;
pub const CBR_ERR_CLOSED: cbr_status = -12;
pub const CBR_ERR_STALE: cbr_status = -3;
pub const CBR_ERR_EMPTY: cbr_status = -11;
pub const CBR_ERR_CALLBACK: cbr_status = -19;
pub const CBR_METERED: u32 = 1;
/// intptr(ptr)
pub const CBR_SIG_DEFAULT: u64 = 1 << 60 | 9 << 56 | 13 << 52;

#[repr(C)]
pub struct cbr_callback_options {
    pub size: usize,
    pub function: cbr_any_fn,
    pub user_data: *mut c_void,
    pub destroy: cbr_destroy_fn,
    pub signature: u64,
    pub name: *const c_char,
    pub scope: u64,
    pub home: u64,
    pub destroy_queue: u64,
    pub flags: u32,
    pub on_error: cbr_error_fn,
    pub fallback: u64,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct cbr_pin {
    pub function: cbr_any_fn,
    pub user_data: *mut c_void,
    pub reserved: [u64; 2],
}

#[repr(C)]
pub struct cbr_queue_options {
    pub size: usize,
    pub name: *const c_char,
    pub scope: u64,
    pub capacity: usize,
    pub policy: u32,
    pub flags: u32,
}

#[repr(C)]
pub struct cbr_post_options {
    pub size: usize,
    pub queue: u64,
    pub handle: u64,
    pub data: *mut c_void,
    pub len: usize,
    pub free_data: cbr_destroy_fn,
    pub owner: u64,
    pub timeout_ns: i64,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct cbr_stats {
    pub size: usize,
    pub live: u64,
    pub registered: u64,
    pub destroyed: u64,
    pub destroy_pending: u64,
    pub calls: u64,
    pub failures: u64,
    pub stale: u64,
    pub in_flight: u64,
    pub threads: u64,
    pub queues: u64,
    pub queued: u64,
    pub posted: u64,
    pub dispatched: u64,
    pub dropped: u64,
    pub thunks: u64,
    pub thunk_stale: u64,
}

#[repr(C)]
pub struct cbr_callback_info {
    pub size: usize,
    pub numbers: [u64; 8],
    pub name: [c_char; 64],
}

unsafe extern "C-unwind" {
    pub fn cbr_last_error(buf: *mut c_char, len: usize) -> usize;
    pub fn cbr_signature_parse(text: *const c_char, out: *mut u64) -> cbr_status;
    pub fn cbr_signature_format(signature: u64, buf: *mut c_char, len: usize) -> usize;
    pub fn cbr_register(
        function: cbr_fn,
        user_data: *mut c_void,
        destroy: cbr_destroy_fn,
        out: *mut u64,
    ) -> cbr_status;
    pub fn cbr_register_with(options: *const cbr_callback_options, out: *mut u64) -> cbr_status;
    pub fn cbr_unregister(handle: u64) -> cbr_status;
    pub fn cbr_unregister_wait(handle: u64, timeout_ns: i64) -> cbr_status;
    pub fn cbr_retain(handle: u64) -> cbr_status;
    pub fn cbr_release(handle: u64) -> cbr_status;
    pub fn cbr_refcount(handle: u64, out: *mut u32) -> cbr_status;
    pub fn cbr_is_live(handle: u64) -> bool;
    pub fn cbr_call(handle: u64, arg: *mut c_void, out: *mut isize) -> cbr_status;
    pub fn cbr_enter(handle: u64, signature: u64, pin: *mut cbr_pin) -> cbr_status;
    pub fn cbr_hold(handle: u64, signature: u64, pin: *mut cbr_pin) -> cbr_status;
    pub fn cbr_leave(pin: *mut cbr_pin) -> cbr_status;
    pub fn cbr_fail(status: cbr_status, message: *const c_char) -> cbr_status;
    pub fn cbr_current() -> u64;
    pub fn cbr_depth() -> u32;
    pub fn cbr_call_ptr(handle: *mut c_void, arg: *mut c_void) -> isize;
    pub fn cbr_scope_open(name: *const c_char, out: *mut u64) -> cbr_status;
    pub fn cbr_scope_close(scope: u64, timeout_ns: i64, out_running: *mut usize) -> cbr_status;
    pub fn cbr_scope_drain(scope: u64, timeout_ns: i64) -> cbr_status;
    pub fn cbr_scope_set_thread_hooks(
        scope: u64,
        attach: cbr_attach_fn,
        detach: cbr_detach_fn,
        user_data: *mut c_void,
        destroy: cbr_destroy_fn,
    ) -> cbr_status;
    pub fn cbr_hook_set_once(hook: *mut u64, handle: u64) -> cbr_status;
    pub fn cbr_hook_swap(hook: *mut u64, handle: u64, out_old: *mut u64) -> cbr_status;
    pub fn cbr_hook_call(hook: *mut u64, arg: *mut c_void, out: *mut isize) -> cbr_status;
    pub fn cbr_name_bind(scope: u64, name: *const c_char, handle: u64, mode: u32) -> cbr_status;
    pub fn cbr_name_find(scope: u64, name: *const c_char, out: *mut u64) -> cbr_status;
    pub fn cbr_name_unbind(scope: u64, name: *const c_char) -> cbr_status;
    pub fn cbr_key_attach(scope: u64, key: usize, event: u32, handle: u64, mode: u32)
    -> cbr_status;
    pub fn cbr_key_find(scope: u64, key: usize, event: u32, out: *mut u64) -> cbr_status;
    pub fn cbr_key_call(
        scope: u64,
        key: usize,
        event: u32,
        arg: *mut c_void,
        out: *mut isize,
    ) -> cbr_status;
    pub fn cbr_key_detach(scope: u64, key: usize, event: u32) -> cbr_status;
    pub fn cbr_key_detach_all(scope: u64, key: usize, out_count: *mut usize) -> cbr_status;
    pub fn cbr_queue_open(options: *const cbr_queue_options, out: *mut u64) -> cbr_status;
    pub fn cbr_queue_adopt(queue: u64) -> cbr_status;
    pub fn cbr_queue_close(queue: u64, mode: u32) -> cbr_status;
    pub fn cbr_post(queue: u64, handle: u64, data: *const c_void, len: usize) -> cbr_status;
    pub fn cbr_post_with(options: *const cbr_post_options) -> cbr_status;
    pub fn cbr_call_on(
        queue: u64,
        handle: u64,
        arg: *mut c_void,
        timeout_ns: i64,
        out: *mut isize,
    ) -> cbr_status;
    pub fn cbr_queue_dispatch(
        queue: u64,
        max: usize,
        timeout_ns: i64,
        out: *mut usize,
    ) -> cbr_status;
    pub fn cbr_queue_select(
        queues: *const u64,
        count: usize,
        timeout_ns: i64,
        out: *mut usize,
    ) -> cbr_status;
    pub fn cbr_queue_len(queue: u64, out: *mut usize) -> cbr_status;
    pub fn cbr_thunk_open(
        handle: u64,
        signature: u64,
        flags: u32,
        out_fn: *mut cbr_any_fn,
        out: *mut u64,
    ) -> cbr_status;
    pub fn cbr_thunk_retarget(thunk: u64, handle: u64) -> cbr_status;
    pub fn cbr_thunk_close(thunk: u64) -> cbr_status;
    pub fn cbr_set_check(level: u32) -> cbr_status;
    pub fn cbr_stats_get(scope: u64, out: *mut cbr_stats) -> cbr_status;
    pub fn cbr_callback_info_get(handle: u64, out: *mut cbr_callback_info) -> cbr_status;
    pub fn cbr_report(scope: u64, write: cbr_write_fn, user_data: *mut c_void) -> cbr_status;
    pub fn cbr_metrics(scope: u64, write: cbr_write_fn, user_data: *mut c_void) -> cbr_status;
    pub fn cbr_profile(scope: u64, write: cbr_write_fn, user_data: *mut c_void) -> cbr_status;
    pub fn cbr_trace_set(traceparent: *const c_char) -> cbr_status;
    pub fn cbr_trace_get(buf: *mut c_char, len: usize) -> usize;
    pub fn cbr_log_to(
        function: cbr_log_fn,
        user_data: *mut c_void,
        destroy: cbr_destroy_fn,
        owner: u64,
        level: u32,
    ) -> cbr_status;
}
