//! Handles that come from anywhere.

use super::function::{Function, PlainFunction};
use super::{explained, with_record};
use crate::engine::Pin;
use crate::engine::signature::Signature;
use crate::engine::{ENGINE, Handle, Record};
use crate::error::Error;

impl Handle {
    /// Calls the callback as `F`, whatever language it is of.
    ///
    /// # Errors
    /// [`Error::Stale`] if it is gone, [`Error::Kind`] if it is none, [`Error::Signature`] if it takes
    /// something else; [`Error::Callback`] or [`Error::Panic`] if it ran and failed.
    pub fn call<F: PlainFunction>(self, arguments: F::Arguments) -> Result<F::Output, Error> {
        // SAFETY: there is no pointer among them.
        unsafe { self.call_with_pointers::<F>(arguments) }
    }

    /// [`Handle::call`] for a callback that takes pointers, such as one that C registers with
    /// `cbr_register`: `fn(*mut c_void) -> isize`.
    ///
    /// # Safety
    /// They lead to what the callback expects.
    ///
    /// # Errors
    /// As [`Handle::call`].
    pub unsafe fn call_with_pointers<F: Function>(
        self,
        arguments: F::Arguments,
    ) -> Result<F::Output, Error> {
        with_record("Handle::call", self, |record| {
            let wanted = Some(Signature(F::SIGNATURE));
            // Strictly: at every check level, as no promise of the caller's says that it fits.
            let pinned = explained(record, ENGINE.enter_pin::<true>(record, self, wanted))?;
            let inside = Inside { record, pin: pinned.pin };
            // SAFETY: it was registered with this signature, and is alive while we are inside.
            let output = unsafe { F::call(pinned.function, pinned.user_data, arguments) };
            std::mem::forget(inside);
            explained(record, ENGINE.leave_pin(record, pinned.pin))?;
            Ok(output)
        })
    }

    /// Is a call possible now? Another thread may end the callback at any time.
    #[must_use]
    pub fn is_live(self) -> bool {
        ENGINE.is_live(self)
    }
}

/// Leaves when an exception passes through the call.
struct Inside<'a> {
    record: &'a Record,
    pin: Pin,
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        // A failure has no caller to go to.
        let _ = ENGINE.leave_pin(self.record, self.pin);
    }
}
