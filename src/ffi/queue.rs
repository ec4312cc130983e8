//! Section "Queues": from any thread into an event loop, with backpressure.

use super::callback::{cbr_destroy_fn, cbr_handle, cbr_queue};
use super::scope::cbr_scope;
use super::status::{CBR_OK, cbr_status};
use super::{failed, patience, read_options, report, utf8, with_record};
use crate::engine::{self, Handle, NAME_MAX};
use crate::error::Error;
use crate::features::queue::{
    self, Closing, CurrentEvent, Options, Payload, Policy, call_on, dispatch, post, select,
};
use crate::platform::logging;
use libc::{c_int, size_t};
use std::ffi::{c_char, c_void};

/// cbr_queue_options describes a queue. Start from CBR_QUEUE_OPTIONS_INIT; zero in a field means the
/// default.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types, reason = "a C type")]
pub struct cbr_queue_options {
    /// sizeof(cbr_queue_options).
    pub size: size_t,
    /// For logs; at most 255 bytes of UTF-8, copied. NULL: none.
    pub name: *const c_char,
    /// The owner: closing it closes the queue, with CBR_CLOSE_DISCARD. 0: the process's default scope.
    pub scope: cbr_scope,
    /// How many events have room. 0: 1024.
    pub capacity: size_t,
    /// What a post does when there is no room: CBR_QUEUE_REJECT, CBR_QUEUE_DROP_OLDEST, CBR_QUEUE_BLOCK.
    pub policy: u32,
    /// CBR_QUEUE_COALESCE, CBR_QUEUE_OWNED.
    pub flags: u32,
}

/// A full queue refuses: CBR_ERR_FULL.
pub const CBR_QUEUE_REJECT: u32 = 0;
/// A full queue drops its oldest event.
pub const CBR_QUEUE_DROP_OLDEST: u32 = 1;
/// A full queue has the poster wait for room.
pub const CBR_QUEUE_BLOCK: u32 = 2;

/// An event whose callback has one waiting already replaces that one's payload, in its place.
pub const CBR_QUEUE_COALESCE: u32 = 1;
/// One thread dispatches the queue: who opened it, until another one adopts it.
pub const CBR_QUEUE_OWNED: u32 = 2;

/// cbr_queue_close: what waits is still dispatched.
pub const CBR_CLOSE_DRAIN: u32 = 0;
/// cbr_queue_close: what waits is dropped.
pub const CBR_CLOSE_DISCARD: u32 = 1;

/// cbr_event is what a callback may know of the event that it is called for, see cbr_current_event.
#[repr(C)]
#[allow(non_camel_case_types, reason = "a C type")]
pub struct cbr_event {
    pub handle: cbr_handle,
    /// The payload, which is also the callback's `arg`; NULL for none.
    pub data: *const c_void,
    pub len: size_t,
    pub queue: cbr_queue,
    /// When it was posted, in nanoseconds of CLOCK_MONOTONIC; from cbr_call_on: when the callback began.
    pub posted_ns: i64,
    /// The poster's trace context (cbr_trace_set); NULL: it had none. Until the callback returns.
    pub traceparent: *const c_char,
}

const _: () = {
    assert!(size_of::<cbr_event>() == size_of::<CurrentEvent>());
    assert!(
        std::mem::offset_of!(cbr_event, posted_ns) == std::mem::offset_of!(CurrentEvent, posted_ns)
    );
};

/// cbr_post_options describes an event. Start from CBR_POST_OPTIONS_INIT.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types, reason = "a C type")]
pub struct cbr_post_options {
    /// sizeof(cbr_post_options).
    pub size: size_t,
    /// 0: the callback's home.
    pub queue: cbr_queue,
    pub handle: cbr_handle,
    pub data: *mut c_void,
    pub len: size_t,
    /// NULL: the payload is copied. Else it is taken over when the post is accepted, and freed with this
    /// exactly once, whatever becomes of the event.
    pub free_data: cbr_destroy_fn,
    /// The scope whose code `free_data` is: closing it drops the event wherever it waits. 0: nobody's.
    pub owner: cbr_scope,
    /// How long to wait for room in a full queue, in nanoseconds; -1: for ever; 0: as the queue's policy
    /// says.
    pub timeout_ns: i64,
}

const OUT_QUEUE: Error = Error::Invalid("out_queue is NULL");

/// cbr_queue_open makes a queue.
/// `options`: copied; NULL: all defaults.
/// Ownership: to be ended with cbr_queue_close, or with its scope. A queue takes one descriptor of the
/// process, an eventfd. In the child of a fork every queue of the parent gives CBR_ERR_CLOSED.
/// Threads: any; of a CBR_QUEUE_OWNED queue the calling thread is the owner.
/// Returns: CBR_OK; CBR_ERR_INVALID for an unknown policy or flag, a wrong `size`, a name that is too
/// long or not UTF-8, or if `out_queue` is NULL; CBR_ERR_UNSUPPORTED for a field of a later version;
/// CBR_ERR_CLOSED, CBR_ERR_STALE or CBR_ERR_KIND for the scope; CBR_ERR_SYSTEM if the process may open
/// no more descriptors; CBR_ERR_NOMEM; CBR_ERR_LIMIT at 2^32 events or 2^28 objects.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn cbr_queue_open(
    options: *const cbr_queue_options,
    out_queue: *mut cbr_queue,
) -> cbr_status {
    const DEFAULT: cbr_queue_options = cbr_queue_options {
        size: size_of::<cbr_queue_options>(),
        name: std::ptr::null(),
        scope: 0,
        capacity: 0,
        policy: 0,
        flags: 0,
    };
    let default = DEFAULT;
    let options = if options.is_null() { &raw const default } else { options };
    // SAFETY: the caller's promise.
    let opened = unsafe { read_options(options, size_of::<cbr_queue_options>()) }.and_then(|it| {
        // SAFETY: as above.
        let options = unsafe { queue_options(&it)? };
        if out_queue.is_null() {
            return Err(OUT_QUEUE);
        }
        with_record(|record| queue::open(record, &options))
    });
    match opened {
        Ok(queue) => {
            // SAFETY: not NULL, and the caller's promise.
            unsafe { *out_queue = queue.0 };
            logging::debug(format_args!("the queue {:#018x} is open", queue.0));
            CBR_OK
        }
        Err(error) => failed("cbr_queue_open", 0, error),
    }
}

/// # Safety
/// As [`cbr_queue_open`].
unsafe fn queue_options<'a>(options: &cbr_queue_options) -> Result<Options<'a>, Error> {
    let policy = match options.policy {
        CBR_QUEUE_REJECT => Policy::Reject,
        CBR_QUEUE_DROP_OLDEST => Policy::DropOldest,
        CBR_QUEUE_BLOCK => Policy::Block,
        _ => return Err(Error::Invalid("options->policy is unknown")),
    };
    if options.flags & !(CBR_QUEUE_COALESCE | CBR_QUEUE_OWNED) != 0 {
        return Err(Error::Invalid("options->flags has an unknown flag"));
    }
    // SAFETY: the caller's promise.
    let name = unsafe { utf8(options.name, "options->name is not UTF-8")? }.unwrap_or_default();
    if name.len() > NAME_MAX {
        return Err(Error::Invalid("options->name is longer than 255 bytes"));
    }
    Ok(Options {
        name,
        scope: Handle(options.scope),
        capacity: options.capacity,
        policy,
        coalesce: options.flags & CBR_QUEUE_COALESCE != 0,
        owned: options.flags & CBR_QUEUE_OWNED != 0,
    })
}

/// cbr_queue_adopt makes the calling thread the owner of a CBR_QUEUE_OWNED queue, and so of the callbacks
/// whose home it is. For a loop that was opened on one thread and runs on another.
/// Threads: the one that will dispatch; not while another one does.
/// Returns: CBR_OK; CBR_ERR_INVALID if the queue is not CBR_QUEUE_OWNED; CBR_ERR_CLOSED; CBR_ERR_STALE;
/// CBR_ERR_KIND.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn cbr_queue_adopt(queue: cbr_queue) -> cbr_status {
    report("cbr_queue_adopt", queue, with_record(|record| queue::adopt(record, Handle(queue))))
}

/// cbr_queue_close closes a queue: posts are refused (CBR_ERR_CLOSED), everybody who waits to post is
/// woken, and its descriptors stay readable.
/// `mode`: CBR_CLOSE_DRAIN: what waits is still dispatched, then dispatches give CBR_ERR_CLOSED.
/// CBR_CLOSE_DISCARD: it is dropped, here: payloads are freed, destroy functions that wait run, who waits
/// in cbr_call_on gets CBR_ERR_CLOSED.
/// Ownership: the queue's memory goes when nobody is inside a function of it any more.
/// Threads: any, also inside a callback that the queue dispatches.
/// Returns: CBR_OK; CBR_ERR_CLOSED if it is closed, or draining and `mode` is CBR_CLOSE_DRAIN;
/// CBR_ERR_STALE; CBR_ERR_KIND; CBR_ERR_INVALID for another mode.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn cbr_queue_close(queue: cbr_queue, mode: u32) -> cbr_status {
    let how = match mode {
        CBR_CLOSE_DRAIN => Ok(Closing::Drain),
        CBR_CLOSE_DISCARD => Ok(Closing::Discard),
        _ => Err(Error::Invalid("mode is neither CBR_CLOSE_DRAIN nor CBR_CLOSE_DISCARD")),
    };
    let closed = how.and_then(|how| with_record(|record| queue::close(record, Handle(queue), how)));
    if closed.is_ok() {
        logging::debug(format_args!("the queue {queue:#018x} is closed"));
    }
    report("cbr_queue_close", queue, closed)
}

const NO_DATA: Error = Error::Invalid("data is NULL and len is not 0");

/// cbr_post has the callback called with a copy of the payload by whoever dispatches the queue. Events of
/// one thread stay in order.
/// `queue`: 0: the callback's home. `data`, `len`: copied; up to 40 bytes without an allocation. The
/// callback's `arg` points to the copy, aligned for any type, and is NULL if `len` is 0.
/// Ownership: the event owns a reference of the callback until it has been dispatched or dropped.
/// Threads: any. On a full CBR_QUEUE_BLOCK queue it waits. What CBR_QUEUE_DROP_OLDEST and
/// CBR_QUEUE_COALESCE displace is freed here.
/// Returns: CBR_OK; CBR_ERR_FULL; CBR_ERR_CLOSED; CBR_ERR_STALE or CBR_ERR_KIND for queue or callback (a
/// queue that was closed long ago is stale); CBR_ERR_SIGNATURE if the callback has not the default one;
/// CBR_ERR_THREAD if the queue is not the callback's home; CBR_ERR_DEADLOCK if the queue is full and only
/// the calling thread dispatches it, or the wait could never end; CBR_ERR_INVALID if `data` is NULL and
/// `len` is not 0, or for queue 0 without a home; CBR_ERR_LIMIT; CBR_ERR_NOMEM.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn cbr_post(
    queue: cbr_queue,
    handle: cbr_handle,
    data: *const c_void,
    len: size_t,
) -> cbr_status {
    if data.is_null() && len != 0 {
        return failed("cbr_post", handle, NO_DATA);
    }
    let payload =
        Payload { data: data.cast_mut(), len, free: std::ptr::null_mut(), owner: Handle(0) };
    let posted =
        with_record(|record| post::post(record, Handle(queue), Handle(handle), &payload, None));
    report("cbr_post", handle, posted)
}

/// cbr_post_with is cbr_post with everything else that can be said of an event.
/// Ownership: with `free_data`, `data` is the event's once the post is accepted; when it fails it stays
/// the caller's.
/// Threads: any.
/// Returns: as cbr_post; CBR_ERR_TIMEOUT; CBR_ERR_CLOSED, CBR_ERR_STALE or CBR_ERR_KIND also for the
/// owner; CBR_ERR_INVALID also if `options` is NULL, its size wrong, or the timeout below -1;
/// CBR_ERR_UNSUPPORTED for a field of a later version.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn cbr_post_with(options: *const cbr_post_options) -> cbr_status {
    // SAFETY: the caller's promise.
    let options = unsafe { read_options(options, size_of::<cbr_post_options>()) };
    let handle = options.as_ref().map_or(0, |it| it.handle);
    let posted = options.and_then(|it| {
        if it.data.is_null() && it.len != 0 && it.free_data.is_none() {
            return Err(NO_DATA);
        }
        let wait = match it.timeout_ns {
            0 => None,
            timeout => Some(patience(timeout)?),
        };
        let payload = Payload {
            data: it.data,
            len: it.len,
            free: it.free_data.map_or(std::ptr::null_mut(), |function| function as *mut ()),
            owner: Handle(it.owner),
        };
        with_record(|record| {
            post::post(record, Handle(it.queue), Handle(it.handle), &payload, wait)
        })
    });
    report("cbr_post_with", handle, posted)
}

/// cbr_call_on runs the callback on the thread that dispatches the queue, and brings its result. On that
/// thread itself it runs at once.
/// `arg`: the callback's; it may be on the caller's stack. `timeout_ns`: how long to wait for the
/// beginning: -1 for ever; 0: not at all. Once begun it is waited for to the end. `out_result`: may be
/// NULL.
/// Threads: any.
/// Returns: CBR_OK; CBR_ERR_TIMEOUT: it has not run, and never will; CBR_ERR_CLOSED: the queue was
/// closed before it began; CBR_ERR_FULL: the queue is full, or has dropped it; CBR_ERR_DEADLOCK: the
/// dispatching thread waits, directly or through others, for this one; CBR_ERR_CALLBACK or CBR_ERR_PANIC:
/// it ran and said so (or an exception has left it); CBR_ERR_STALE: the callback is gone, or was when its
/// turn came; else as cbr_post. The result is written on CBR_OK only.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn cbr_call_on(
    queue: cbr_queue,
    handle: cbr_handle,
    arg: *mut c_void,
    timeout_ns: i64,
    out_result: *mut isize,
) -> cbr_status {
    let called = patience(timeout_ns).and_then(|patience| {
        with_record(|record| call_on::call_on(record, Handle(queue), Handle(handle), arg, patience))
    });
    match called {
        Ok(result) => {
            if !out_result.is_null() {
                // SAFETY: not NULL, and the caller's promise.
                unsafe { *out_result = result };
            }
            CBR_OK
        }
        Err(error) => failed("cbr_call_on", handle, error),
    }
}

/// cbr_queue_dispatch calls the callbacks of the events that wait, one after the other, and runs the
/// destroy functions that have come to the queue; those count as events.
/// `max`: at most so many; 0: what is there now. `timeout_ns`: how long to wait for the first one; -1 for
/// ever, 0 not at all. `out_dispatched`: how many; always written; may be NULL. A callback that has
/// failed, or was gone, counts.
/// A call that may wait, by a thread that keeps up with other threads' posts (it has not had to sleep in
/// its last dispatch of this queue), lets events gather for up to 10 us if fewer than 16 are there.
/// Threads: any, several at once; of a CBR_QUEUE_OWNED queue its owner alone. Also inside a callback that
/// it has called. An exception or pthread_exit passes through, and the event is over.
/// Returns: CBR_OK: one or more; CBR_ERR_EMPTY: none, and timeout 0; CBR_ERR_TIMEOUT; CBR_ERR_CLOSED:
/// closed, and nothing is left: stop; CBR_ERR_STALE: the same, later, or never a queue; CBR_ERR_KIND;
/// CBR_ERR_THREAD; CBR_ERR_INVALID for a timeout below -1; CBR_ERR_LIMIT at 4096 nested calls;
/// CBR_ERR_NOMEM.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn cbr_queue_dispatch(
    queue: cbr_queue,
    max: size_t,
    timeout_ns: i64,
    out_dispatched: *mut size_t,
) -> cbr_status {
    let dispatched = patience(timeout_ns).and_then(|patience| {
        with_record(|record| Ok(dispatch::dispatch(record, Handle(queue), max, patience)))
    });
    let (count, result) = dispatched.unwrap_or_else(|error| (0, Err(error)));
    if !out_dispatched.is_null() {
        // SAFETY: not NULL, and the caller's promise.
        unsafe { *out_dispatched = count };
    }
    report("cbr_queue_dispatch", queue, result)
}

/// cbr_queue_select waits until one of the queues has something to dispatch, or is closed. Of several
/// that do, it does not always name the same.
/// `queues`, `count`: at least one. `timeout_ns`: -1 waits for ever, 0 does not wait. `out_index`: which.
/// Threads: any; of CBR_QUEUE_OWNED queues the owner.
/// Returns: CBR_OK; CBR_ERR_EMPTY: none, and timeout 0; CBR_ERR_TIMEOUT; CBR_ERR_THREAD; CBR_ERR_KIND;
/// CBR_ERR_INVALID if `queues` or `out_index` is NULL, `count` is 0, or for a timeout below -1;
/// CBR_ERR_LIMIT at 4096 queues and calls; CBR_ERR_NOMEM.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn cbr_queue_select(
    queues: *const cbr_queue,
    count: size_t,
    timeout_ns: i64,
    out_index: *mut size_t,
) -> cbr_status {
    let selected = patience(timeout_ns).and_then(|patience| {
        if queues.is_null() || count == 0 || out_index.is_null() {
            return Err(Error::Invalid("queues or out_index is NULL, or count is 0"));
        }
        // SAFETY: the caller's promise; a Handle is laid out as the number that it is.
        let queues = unsafe { std::slice::from_raw_parts(queues.cast::<Handle>(), count) };
        with_record(|record| select::select(record, queues, patience))
    });
    match selected {
        Ok(index) => {
            // SAFETY: not NULL, and the caller's promise.
            unsafe { *out_index = index };
            CBR_OK
        }
        Err(error) => failed("cbr_queue_select", 0, error),
    }
}

/// cbr_queue_fd gives a descriptor for an event loop of the host's: readable while events wait, and for
/// ever once the queue is closed. Poll it, and call cbr_queue_dispatch with timeout 0 when it is readable;
/// do not read it. That is for level-triggered polling. Where it is edge-triggered (EPOLLET), look after each
/// CBR_ERR_EMPTY with poll(2) whether it is readable still, and then dispatch again: a post that finds it
/// readable makes no new edge.
/// Ownership: a duplicate (close-on-exec) that the caller closes, also after the queue was closed.
/// Threads: any.
/// Returns: CBR_OK; CBR_ERR_SYSTEM if the process may open no more; CBR_ERR_CLOSED; CBR_ERR_STALE;
/// CBR_ERR_KIND; CBR_ERR_INVALID if `out_fd` is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn cbr_queue_fd(queue: cbr_queue, out_fd: *mut c_int) -> cbr_status {
    let descriptor = match out_fd.is_null() {
        true => Err(Error::Invalid("out_fd is NULL")),
        false => with_record(|record| queue::descriptor(record, Handle(queue))),
    };
    match descriptor {
        Ok(descriptor) => {
            // SAFETY: not NULL, and the caller's promise.
            unsafe { *out_fd = descriptor };
            CBR_OK
        }
        Err(error) => failed("cbr_queue_fd", queue, error),
    }
}

/// cbr_queue_len says how many events wait; it may have changed already.
/// Threads: any.
/// Returns: CBR_OK; CBR_ERR_CLOSED; CBR_ERR_STALE; CBR_ERR_KIND; CBR_ERR_INVALID if `out_len` is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn cbr_queue_len(
    queue: cbr_queue,
    out_len: *mut size_t,
) -> cbr_status {
    let len = match out_len.is_null() {
        true => Err(Error::Invalid("out_len is NULL")),
        false => with_record(|record| queue::len(record, Handle(queue))),
    };
    match len {
        Ok(len) => {
            // SAFETY: not NULL, and the caller's promise.
            unsafe { *out_len = len };
            CBR_OK
        }
        Err(error) => failed("cbr_queue_len", queue, error),
    }
}

/// cbr_current_event describes the event that the calling thread's innermost callback is called for.
/// Ownership: the library's, until that callback returns.
/// Threads: the one that runs the callback.
/// Returns: NULL outside of callbacks, and in one that was called otherwise.
#[unsafe(no_mangle)]
pub extern "C" fn cbr_current_event() -> *const cbr_event {
    engine::current().map_or(std::ptr::null(), |record| queue::current_event(record).cast())
}
