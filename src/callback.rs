//! The Rust surface: a closure as a callback that any language can call.

use crate::engine::signature::Signature;
use crate::engine::{self, ColdParts, ENGINE, Handle, Registration, invoke};
use crate::error::Error;
use crate::{ffi, registry};
use std::ffi::{CString, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What a closure gets.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// The caller's argument, as C passed it.
    pub arg: *mut c_void,
}

/// A closure that is registered as a callback, and unregistered when this is dropped.
///
/// The closure is dropped exactly once, when nobody is inside it any more: here, or on the thread
/// that leaves it last. A panic in it does not pass into C: the caller gets `CBR_ERR_PANIC`.
///
/// ```
/// let double = callbridge::Callback::new(|call| 2 * call.arg.addr() as isize)?;
/// assert_eq!(double.handle().call(std::ptr::without_provenance_mut(21)), Ok(42));
/// let handle = double.handle();
/// drop(double);
/// assert_eq!(handle.call(std::ptr::null_mut()), Err(callbridge::Error::Stale));
/// # Ok::<(), callbridge::Error>(())
/// ```
#[derive(Debug)]
pub struct Callback {
    handle: Handle,
}

impl Callback {
    /// Registers `closure`. It may be called on any thread, by several at once.
    ///
    /// # Errors
    /// When memory is out, or at 2^28 callbacks.
    pub fn new<F>(closure: F) -> Result<Self, Error>
    where
        F: Fn(Call) -> isize + Send + Sync + 'static,
    {
        Self::named("", closure)
    }

    /// The same with a name for logs.
    ///
    /// # Errors
    /// As [`Callback::new`], and when the name is longer than 255 bytes.
    pub fn named<F>(name: &str, closure: F) -> Result<Self, Error>
    where
        F: Fn(Call) -> isize + Send + Sync + 'static,
    {
        if name.len() > engine::NAME_MAX {
            return Err(Error::Invalid("the name is longer than 255 bytes"));
        }
        let record = registry::joined()?;
        let closure = Box::into_raw(Box::new(closure));
        let new = Registration {
            // SAFETY: kept as a function of any signature and cast back before it is called.
            function: unsafe {
                std::mem::transmute::<invoke::CallbackFn, invoke::AnyFn>(call_closure::<F>)
            },
            user_data: closure.cast(),
            destroy: Some(drop_closure::<F>),
            signature: Signature::DEFAULT,
            cold: ColdParts { name, ..ColdParts::NONE },
        };
        match registry::register(record, &new, false, std::ptr::null()) {
            Ok(handle) => Ok(Self { handle }),
            Err(error) => {
                // SAFETY: from `into_raw` above, and not registered.
                drop(unsafe { Box::from_raw(closure) });
                Err(error)
            }
        }
    }

    /// The handle, to give away: a weak reference that C and Rust can call.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle
    }
}

impl Drop for Callback {
    fn drop(&mut self) {
        if let Ok(record) = registry::joined() {
            // Stale if somebody else has unregistered it: nothing is left to do.
            let _ = ENGINE.unregister(record, self.handle);
        }
    }
}

impl Handle {
    /// Calls the callback, whatever language it is of, with `arg`.
    ///
    /// # Errors
    /// [`Error::Stale`] if it is gone; [`Error::Callback`] or [`Error::Panic`] if it ran and failed;
    /// [`Error::Signature`] if it takes something else than one pointer.
    pub fn call(self, arg: *mut c_void) -> Result<isize, Error> {
        let record = registry::joined()?;
        invoke::call(&ENGINE, record, self, arg).map_err(|fault| record.explain(fault))
    }

    /// Is a call possible now? Another thread may end the callback at any time.
    #[must_use]
    pub fn is_live(self) -> bool {
        ENGINE.is_live(self)
    }
}

unsafe extern "C-unwind" fn call_closure<F>(user_data: *mut c_void, arg: *mut c_void) -> isize
where
    F: Fn(Call) -> isize + Send + Sync + 'static,
{
    // SAFETY: `named` registered this function with a pointer to an F, and the engine keeps it alive
    // during the call.
    let closure = unsafe { &*user_data.cast::<F>() };
    contained(|| closure(Call { arg })).unwrap_or(0)
}

unsafe extern "C-unwind" fn drop_closure<F>(user_data: *mut c_void) {
    // SAFETY: the engine runs this once, with the pointer that `named` got from `into_raw`.
    contained(|| drop(unsafe { Box::from_raw(user_data.cast::<F>()) }));
}

/// Runs Rust code; a panic in it becomes `cbr_fail`. Rust code only: around a foreign unwind
/// `catch_unwind` aborts.
fn contained<T>(body: impl FnOnce() -> T) -> Option<T> {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(value) => Some(value),
        Err(payload) => {
            let text = payload
                .downcast_ref::<&str>()
                .copied()
                .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
                .unwrap_or("a panic without text");
            let text = CString::new(text.replace('\0', "")).unwrap_or_default();
            // SAFETY: `text` is a string.
            unsafe { ffi::cbr_fail(ffi::CBR_ERR_PANIC, text.as_ptr()) };
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ptr::null_mut;
    use std::sync::Arc;

    #[test]
    fn a_panic_reaches_the_caller_as_an_error_with_its_text() {
        let callback = Callback::new(|_| panic!("no {}", "luck")).unwrap();
        assert_eq!(callback.handle().call(null_mut()), Err(Error::Panic));
    }

    #[test]
    fn the_closure_is_dropped_once_after_the_call_that_ended_it() {
        let data = Arc::new(());
        let seen = data.clone();
        let callback = Arc::new(std::sync::Mutex::new(None::<Callback>));
        let inner = callback.clone();
        *callback.lock().unwrap() = Some(
            Callback::new(move |_| {
                drop(inner.lock().unwrap().take());
                Arc::strong_count(&seen) as isize
            })
            .unwrap(),
        );
        let handle = callback.lock().unwrap().as_ref().unwrap().handle();
        assert_eq!(handle.call(null_mut()), Ok(2), "alive while it runs");
        assert_eq!(Arc::strong_count(&data), 1, "dropped when it returned");
        assert_eq!(handle.call(null_mut()), Err(Error::Stale));
    }
}
