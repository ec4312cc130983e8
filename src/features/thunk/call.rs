//! A call through a thunk.

use super::table::Stub;
use crate::engine::{self, ENGINE, Handle, Kind, Record, invoke};
use crate::error::{Error, Fault};
use crate::platform::logging;
use crate::sync::{AtomicU64, Relaxed};
use std::fmt;

/// Calls of thunks that no callback got.
static STALE: AtomicU64 = AtomicU64::new(0);

/// Has `call` call the callback, with its function and user_data. An error: the thunk returns its
/// fallback.
#[inline(always)]
pub(super) fn call<R>(stub: &'static Stub, call: impl Fn(*mut (), *mut ()) -> R) -> Result<R, ()> {
    let record = match engine::current() {
        Some(record) => record,
        None => first_use(stub)?,
    };
    let mut handle = stub.handle();
    loop {
        match invoke::call_typed(&ENGINE, record, handle, &call) {
            Ok(result) => return Ok(result),
            Err(fault) => handle = refused(stub, record, handle, fault)?,
        }
    }
}

/// The thread's first use of the library.
#[cold]
#[inline(never)]
fn first_use(stub: &'static Stub) -> Result<&'static Record, ()> {
    engine::joined().map_err(|error| {
        if count(stub) {
            logging::warn(format_args!("a thunk returned its fallback: {error}"));
        }
    })
}

/// The callback has not run, or has failed: an error, unless the thunk carries another one by now.
#[cold]
#[inline(never)]
fn refused(
    stub: &'static Stub,
    record: &Record,
    handle: Handle,
    fault: Fault,
) -> Result<Handle, ()> {
    let error = record.explain(fault);
    let now = stub.handle();
    if error == Error::Stale && now != handle {
        return Ok(now);
    }
    let is_closed = handle.has_kind(Kind::Thunk);
    record.last_error.set("a thunk", if is_closed { Handle(0) } else { handle }, error);
    if !matches!(error, Error::Callback | Error::Panic) && count(stub) {
        warn(stub, record, is_closed, error);
    }
    Err(())
}

/// Counts a call that no callback got. True: it is worth a line in the log, as the first, second, fourth
/// and so on of this thunk are.
fn count(stub: &'static Stub) -> bool {
    // Relaxed: a statistic.
    STALE.fetch_add(1, Relaxed);
    stub.place().count_stale()
}

/// How many calls no callback got.
pub(super) fn stale() -> u64 {
    STALE.load(Relaxed)
}

fn warn(stub: &'static Stub, record: &Record, is_closed: bool, error: Error) {
    let pool = stub.pool();
    let (name, signature) = (pool.name_for_log(record, stub.place()), pool.signature);
    let why: &dyn fmt::Display = match (is_closed, &error) {
        (true, _) => &"it is closed",
        (_, Error::Stale) => &"its callback is gone",
        (_, error) => error,
    };
    let count = STALE.load(Relaxed);
    logging::warn(format_args!(
        "a thunk {signature} of the callback {name} returned its fallback: {why} \
         (such calls of all thunks so far: {count})"
    ));
}
