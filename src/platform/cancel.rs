//! Cancellation kept away where it would tear something apart.

#[cfg(not(any(loom, miri)))]
use std::ffi::c_int;

/// While it lives, pthread_cancel of the calling thread has to wait: what is done is no cancellation point,
/// whichever functions of the C library it uses.
pub(crate) struct NotNow {
    #[cfg(not(any(loom, miri)))]
    before: c_int,
}

#[cfg(not(any(loom, miri)))]
#[allow(unused_doc_comments, reason = "for cbindgen, which takes them for the header")]
/// cbindgen:ignore
unsafe extern "C" {
    fn pthread_setcancelstate(state: c_int, old: *mut c_int) -> c_int;
}

impl NotNow {
    #[cfg(not(any(loom, miri)))]
    pub(crate) fn begin() -> Self {
        const DISABLE: c_int = 1;
        let mut before = 0;
        // SAFETY: writes the old state.
        unsafe { pthread_setcancelstate(DISABLE, &raw mut before) };
        Self { before }
    }
    #[cfg(any(loom, miri))]
    pub(crate) fn begin() -> Self {
        Self {}
    }
}

#[cfg(not(any(loom, miri)))]
impl Drop for NotNow {
    fn drop(&mut self) {
        // SAFETY: takes the state that was; what it was now is nobody's.
        unsafe { pthread_setcancelstate(self.before, &raw mut self.before) };
    }
}
