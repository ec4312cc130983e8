//! Section "Statistics": what there is and what it has done, as numbers and as a table.

use super::callback::cbr_handle;
use super::scope::cbr_scope;
use super::signature::cbr_signature;
use super::status::{CBR_OK, cbr_status};
use super::{failed, report, with_record};
use crate::engine::{ENGINE, Handle, Record};
use crate::error::Error;
use crate::features::observe::text::Text;
use crate::registry;
use libc::size_t;
use std::ffi::{c_char, c_void};

/// cbr_stats is numbers of the process, or of a scope. Taken while other threads go on: the numbers are
/// each right, and need not agree with each other to the last one. Those that count what has happened
/// never go back, also when threads, callbacks, queues and scopes end; but of a scope those about events do
/// when one of its queues closes.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types, reason = "a C type")]
pub struct cbr_stats {
    /// sizeof(cbr_stats); then how much of it was filled.
    pub size: size_t,
    /// Callbacks that can be called now.
    pub live: u64,
    /// Callbacks that were ever registered, and those of them whose end is complete.
    pub registered: u64,
    pub destroyed: u64,
    /// Callbacks that have ended, and whose destroy has not returned.
    pub destroy_pending: u64,
    /// Calls, dispatches, holds and pins that have entered a callback. Of a scope: of its
    /// CBR_METERED callbacks.
    pub calls: u64,
    /// Of these, those that cbr_fail has marked as failed. Of a scope: likewise.
    pub failures: u64,
    /// Calls that found their callback gone. Of a scope: 0.
    pub stale: u64,
    /// Calls, pins and holds inside a callback now. (Not who is inside the log's sink or a call hook.)
    pub in_flight: u64,
    /// Threads that use the library; of a scope: that are inside one of its callbacks now.
    pub threads: u64,
    /// Queues that are there, and events that wait in them.
    pub queues: u64,
    pub queued: u64,
    /// Events that were ever put into queues, taken out by dispatchers, and dropped: displaced by others,
    /// or left when the queue or their owner closed. Of a scope: by its queues that are there.
    pub posted: u64,
    pub dispatched: u64,
    pub dropped: u64,
    /// Thunks that are open, and calls of thunks that no callback got (those count as stale as well). Of a
    /// scope: 0.
    pub thunks: u64,
    pub thunk_stale: u64,
}

/// cbr_callback_info describes a callback.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types, reason = "a C type")]
pub struct cbr_callback_info {
    /// sizeof(cbr_callback_info); then how much of it was filled.
    pub size: size_t,
    pub handle: cbr_handle,
    /// 0: the default scope.
    pub scope: cbr_scope,
    pub signature: cbr_signature,
    pub references: u32,
    /// Calls, pins and holds that are inside now; of a tracer's hooks, threads that run one or are in a call
    /// that they were told of.
    pub in_flight: u32,
    /// As cbr_callback_options had them.
    pub flags: u32,
    /// When it was registered, by CLOCK_MONOTONIC. 0: not noted, because it was registered with nothing but
    /// a function, its data and a destroy function, the check level was below 2, and no stack recorded.
    pub registered_ns: i64,
    /// Calls, dispatches, pins and holds that have entered, and those of them that have failed. Counted of
    /// CBR_METERED callbacks alone, else 0.
    pub calls: u64,
    pub failures: u64,
    /// Its name, NUL-terminated, cut between characters if it is longer.
    pub name: [c_char; 64],
}

/// cbr_write_fn takes a part of a text, `len` bytes, not NUL-terminated. It is called before the function
/// that it was given to returns, and never later.
#[allow(non_camel_case_types, reason = "a C type")]
pub type cbr_write_fn =
    Option<unsafe extern "C-unwind" fn(user_data: *mut c_void, data: *const c_char, len: size_t)>;

/// Fills a structure that begins with its size, as far as the host's reaches.
///
/// # Safety
/// NULL, or as many bytes as it says are writable; `T` is plain numbers and begins with its size.
unsafe fn fill<T: Copy>(
    out: *mut T,
    first: usize,
    make: impl FnOnce() -> Result<T, Error>,
) -> Result<(), Error> {
    if out.is_null() {
        return Err(Error::Invalid("the structure to fill is NULL"));
    }
    // SAFETY: every version of a structure begins with its size.
    let size = unsafe { out.cast::<usize>().read() };
    if size < first {
        return Err(Error::Invalid("size is not the size of the structure"));
    }
    let made = make()?;
    let known = size.min(size_of::<T>());
    // SAFETY: `known` bytes are writable, and the first of them are the size.
    unsafe {
        std::ptr::copy_nonoverlapping((&raw const made).cast::<u8>(), out.cast(), known);
        out.cast::<usize>().write(known);
    }
    Ok(())
}

/// cbr_stats_get fills `out_stats` with the numbers of `scope`, or, if that is 0, of the process. Takes a
/// look at every callback and every thread; calls go on as fast as ever.
/// `out_stats`: its `size` is to be set; at most so many bytes are written, and `size` says how many.
/// Threads: any.
/// Returns: CBR_OK; CBR_ERR_STALE if the scope is gone; CBR_ERR_KIND; CBR_ERR_INVALID if `out_stats` is
/// NULL or its `size` too small; CBR_ERR_NOMEM.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn cbr_stats_get(
    scope: cbr_scope,
    out_stats: *mut cbr_stats,
) -> cbr_status {
    let make = || with_record(|record| registry::stats(record, Handle(scope))).map(stats);
    // SAFETY: the caller's promise.
    report("cbr_stats_get", scope, unsafe { fill(out_stats, size_of::<cbr_stats>(), make) })
}

fn stats(from: registry::Stats) -> cbr_stats {
    let registry::Stats { census, queues, thunks, thunk_stale } = from;
    cbr_stats {
        size: 0,
        live: census.live,
        registered: census.sums.registered,
        destroyed: census.sums.destroyed,
        destroy_pending: census.pending,
        calls: census.sums.calls,
        failures: census.sums.failed(),
        stale: census.sums.stale,
        in_flight: census.in_flight,
        threads: census.threads,
        queues: queues.queues,
        queued: queues.queued,
        posted: queues.posted,
        dispatched: queues.dispatched,
        dropped: queues.dropped,
        thunks,
        thunk_stale,
    }
}

/// cbr_callback_info_get describes a callback that lives.
/// `out_info`: as `out_stats` of cbr_stats_get.
/// Threads: any.
/// Returns: CBR_OK; CBR_ERR_STALE; CBR_ERR_KIND; CBR_ERR_INVALID if `out_info` is NULL or its `size` too
/// small; CBR_ERR_LIMIT at 4096 nested calls.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn cbr_callback_info_get(
    handle: cbr_handle,
    out_info: *mut cbr_callback_info,
) -> cbr_status {
    let make = || {
        let row = with_record(|record| ENGINE.describe(record, Handle(handle)))?;
        let name_of = row.name.as_str();
        let mut name = [0; 64];
        let mut len = name_of.len().min(name.len() - 1);
        while !name_of.is_char_boundary(len) {
            len -= 1;
        }
        for (to, from) in name.iter_mut().zip(&name_of.as_bytes()[..len]) {
            *to = *from as c_char;
        }
        Ok(cbr_callback_info {
            size: 0,
            handle,
            scope: row.scope.0,
            signature: row.signature,
            references: row.references,
            in_flight: row.in_flight.min(u32::MAX.into()) as u32,
            flags: row.flags,
            registered_ns: row.registered as i64,
            calls: row.metered.map_or(0, |metered| metered.calls),
            failures: row.metered.map_or(0, |metered| metered.failures),
            name,
        })
    };
    // SAFETY: the caller's promise.
    let filled = unsafe { fill(out_info, size_of::<cbr_callback_info>(), make) };
    report("cbr_callback_info_get", handle, filled)
}

/// cbr_report writes a table of the live callbacks of `scope`, or, if that is 0, of the process, for
/// people: handle, name, scope, references, calls that are inside, calls and failures, age, function, and
/// where it was registered. "-" is what is not known: the age of a callback that was registered with nothing
/// but a function, its data and a destroy function, and where, unless the check level was 2 (cbr_set_check) or
/// its stack recorded (cbr_profile).
/// Its words may change with any version. The program callbridge-top shows the same of a running process, if
/// the environment variable CALLBRIDGE_STATS_SOCKET was set at its first use of the library.
/// `write`: gets the text, in one piece or several; may use the library.
/// Threads: any.
/// Returns: CBR_OK; CBR_ERR_NULL if `write` is NULL; CBR_ERR_STALE if the scope is gone; CBR_ERR_KIND;
/// CBR_ERR_NOMEM: nothing was written.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn cbr_report(
    scope: cbr_scope,
    write: cbr_write_fn,
    user_data: *mut c_void,
) -> cbr_status {
    // SAFETY: the caller's promise.
    unsafe { write_text("cbr_report", scope, write, user_data, registry::report) }
}

/// Gives the host the text that `make` makes of a scope.
///
/// # Safety
/// `write` is the host's, with its data.
pub(super) unsafe fn write_text(
    function: &'static str,
    scope: cbr_scope,
    write: cbr_write_fn,
    user_data: *mut c_void,
    make: fn(&Record, Handle) -> Result<Text, Error>,
) -> cbr_status {
    let Some(write) = write else { return failed(function, scope, Error::Null) };
    match with_record(|record| make(record, Handle(scope))) {
        Ok(text) => {
            // SAFETY: the caller's promise.
            unsafe { write(user_data, text.as_bytes().as_ptr().cast(), text.as_bytes().len()) };
            CBR_OK
        }
        Err(error) => failed(function, scope, error),
    }
}
