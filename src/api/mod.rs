//! The Rust surface: closures as callbacks, without `unsafe`.
//!
//! A [`Callback`] owns a closure that any language can call by its [`Handle`], a [`Thunk`] gives it the
//! address of a plain C function, and a [`Queue`] brings values of one thread to a closure on another.
//! What a panic is: caught where the closure is, told to the caller as [`Error::Panic`](crate::Error::Panic),
//! never passed into C. A C++ exception or `pthread_exit` of a callback of C passes through calls and
//! dispatches of it; where it would pass through a Rust closure, the process ends.
//!
//! All types may be sent to other threads and shared. Closures and values are dropped by the last who uses
//! them, on that thread, which may be C's. In the child of a fork queues are closed, and what the parent's
//! threads were inside of, or had posted, is not dropped.

mod callback;
mod function;
mod handle;
mod queue;
#[cfg(not(miri))]
mod thunk;

pub use callback::{Builder, Callback};
pub use function::{Closure, Function, Plain, PlainFunction, Returned, Value};
pub use queue::{Listener, Policy, PostError, Queue, QueueBuilder, Sender};
#[cfg(not(miri))]
pub use thunk::Thunk;

use crate::engine::{Handle, Record};
use crate::error::{Error, Fault};
use crate::{ffi, registry};
use std::any::Any;
use std::ffi::CString;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A C function that ends calls, which Rust code may be inside of, is not for safe code.
///
/// ```compile_fail,E0133
/// callbridge::cbr_unwind_to(0);
/// ```
#[cfg(doctest)]
struct UnwindToIsUnsafe;

/// The calling thread's last failure in words, as `cbr_last_error` has them; "" if there was none.
#[must_use]
pub fn last_error() -> String {
    let mut words = vec![0; 1024];
    // SAFETY: as much room as it says.
    let len = unsafe { ffi::cbr_last_error(words.as_mut_ptr().cast(), words.len()) };
    words.truncate(len.min(words.len() - 1));
    String::from_utf8_lossy(&words).into_owned()
}

/// Runs `body` with the calling thread's record; a failure has its words.
fn with_record<T>(
    what: &'static str,
    handle: Handle,
    body: impl FnOnce(&'static Record) -> Result<T, Error>,
) -> Result<T, Error> {
    let record = registry::joined()?;
    body(record).inspect_err(|error| record.last_error.set(what, handle, *error))
}

/// The same for what may have run a callback.
fn explained<T>(record: &Record, result: Result<T, Fault>) -> Result<T, Error> {
    result.map_err(|fault| record.explain(fault))
}

/// Runs Rust code; a panic in it becomes `cbr_fail`. Rust code only: around a foreign unwind
/// `catch_unwind` aborts.
fn contained<T>(body: impl FnOnce() -> T) -> Option<T> {
    // What the closure had in hand when it panicked is its author's matter, as on a thread that panics.
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(value) => Some(value),
        Err(payload) => {
            let text = CString::new(words_of(&*payload).replace('\0', "")).unwrap_or_default();
            // SAFETY: `text` is a string.
            unsafe { ffi::cbr_fail(ffi::CBR_ERR_PANIC, text.as_ptr()) };
            // It is the closure's, and may panic as it goes; what it panics with then may do so again, and
            // stays for ever.
            if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
                std::mem::forget(again);
            }
            None
        }
    }
}

fn words_of(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a panic without text")
}
