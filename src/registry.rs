//! Where the features meet: all of the process, and what touches more than one of them.

use crate::engine::{Closed, ENGINE, Handle, Patience, Record, Registration, invoke};
use crate::error::Error;
use crate::features::directory::keys::Keys;
use crate::features::directory::names::Names;
use crate::platform::module::{self, NotKept};

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
    ENGINE.begin_close(record, scope)?;
    NAMES.unbind_all(&ENGINE, record, scope);
    KEYS.detach_scope(&ENGINE, record, scope);
    Ok(ENGINE.finish_close(record, scope, patience))
}

/// Registers a callback, after a look at its functions if the check level asks for it. `keep_loaded`:
/// the shared object of its function stays.
#[inline(always)]
pub(crate) fn register(
    record: &Record,
    new: &Registration<'_>,
    keep_loaded: bool,
) -> Result<Handle, Error> {
    if keep_loaded || ENGINE.check.is_thorough() {
        look_at_functions(new, keep_loaded)?;
    }
    ENGINE.register(record, new)
}

#[cold]
#[inline(never)]
fn look_at_functions(new: &Registration<'_>, keep_loaded: bool) -> Result<(), Error> {
    let function = invoke::function_to_pointer(new.function);
    if ENGINE.check.is_thorough() {
        let is_code = |function: *mut ()| function.is_null() || module::is_executable(function);
        let on_error = new.cold.on_error.map_or(std::ptr::null_mut(), |it| it as *mut ());
        if !is_code(function) {
            return Err(Error::Invalid("fn is no code: it lies in no executable mapping"));
        }
        if !is_code(invoke::destroy_to_pointer(new.destroy)) {
            return Err(Error::Invalid("destroy is no code: it lies in no executable mapping"));
        }
        if !is_code(on_error) {
            return Err(Error::Invalid("on_error is no code: it lies in no executable mapping"));
        }
    }
    if !keep_loaded {
        return Ok(());
    }
    match module::keep_loaded(function) {
        Ok(()) => Ok(()),
        Err(NotKept::NoObject) => Err(Error::Invalid("CBR_PIN_MODULE: fn is in no shared object")),
        Err(NotKept::Refused) => {
            Err(Error::System { what: "dlopen of the object that holds fn", errno: libc::ENOENT })
        }
    }
}
