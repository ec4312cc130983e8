//! The environment, read without allocating.

use std::ffi::CStr;

/// The variable's value, as it is when asked.
pub(crate) fn variable(name: &CStr) -> Option<&'static CStr> {
    #[cfg(any(loom, miri))]
    {
        let _ = name;
        None
    }
    #[cfg(not(any(loom, miri)))]
    {
        // SAFETY: `name` is a string.
        let value = unsafe { libc::getenv(name.as_ptr()) };
        // SAFETY: NULL or a string that stays as long as nobody changes this variable; our callers
        // read it at once.
        (!value.is_null()).then(|| unsafe { CStr::from_ptr(value) })
    }
}
