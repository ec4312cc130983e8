//! Where the features meet: all of the process, and what touches more than one of them.

use crate::engine::{Closed, ENGINE, Handle, Patience, Record, Registration, invoke};
use crate::error::Error;
use crate::features::directory::keys::Keys;
use crate::features::directory::names::Names;
use crate::features::queue::Queues;
use crate::platform::module::{self, NotFound, Object};

/// The process's names.
pub(crate) static NAMES: Names = Names::new();
/// The process's keys.
pub(crate) static KEYS: Keys = Keys::new();

/// Closes a scope, or waits on for one that is closing.
pub(crate) fn close_scope(
    record: &Record,
    scope: Handle,
    patience: Patience,
) -> Result<Closed, Error> {
    ENGINE.close_scope(record, scope, patience, || {
        NAMES.unbind_all(&ENGINE, record, scope);
        KEYS.detach_scope(&ENGINE, record, scope);
        Queues::close_scope(&ENGINE, record, scope);
    })
}

/// Registers a callback, after a look at its functions if the check level asks for it. `keep_loaded`:
/// the shared object of its function stays.
#[inline(always)]
pub(crate) fn register(
    record: &Record,
    new: &Registration<'_>,
    keep_loaded: bool,
) -> Result<Handle, Error> {
    if ENGINE.check.is_thorough() {
        look_at_functions(new)?;
    }
    if (new.cold.home.0 | new.cold.destroy_queue.0) != 0 {
        Queues::check_owned(record, new.cold.home)?;
        Queues::check_owned(record, new.cold.destroy_queue)?;
    }
    if keep_loaded {
        return register_and_keep(record, new);
    }
    ENGINE.register(record, new)
}

#[cold]
#[inline(never)]
fn register_and_keep(record: &Record, new: &Registration<'_>) -> Result<Handle, Error> {
    const REFUSED: Error =
        Error::System { what: "dlopen of the object that holds fn", errno: libc::ENOENT };
    let object =
        Object::of(invoke::function_to_pointer(new.function)).map_err(|why| match why {
            NotFound::NoObject => Error::Invalid("CBR_PIN_MODULE: fn is in no shared object"),
            NotFound::Refused => REFUSED,
        })?;
    // Kept only once nothing can fail any more; until then it is merely held.
    let handle = ENGINE.register(record, new)?;
    object.keep();
    Ok(handle)
}

#[cold]
#[inline(never)]
fn look_at_functions(new: &Registration<'_>) -> Result<(), Error> {
    let is_code = |function: *mut ()| function.is_null() || module::is_executable(function);
    let on_error = new.cold.on_error.map_or(std::ptr::null_mut(), |function| function as *mut ());
    if !is_code(invoke::function_to_pointer(new.function)) {
        return Err(Error::Invalid("fn is no code: it lies in no executable mapping"));
    }
    if !is_code(invoke::destroy_to_pointer(new.destroy)) {
        return Err(Error::Invalid("destroy is no code: it lies in no executable mapping"));
    }
    if !is_code(on_error) {
        return Err(Error::Invalid("on_error is no code: it lies in no executable mapping"));
    }
    Ok(())
}
