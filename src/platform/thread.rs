//! A thread of the library's own.

use super::cancel::NotNow;
use std::ffi::{CStr, c_int, c_void};

/// What a thread of ours runs.
pub(crate) type Run = extern "C" fn(*mut c_void) -> *mut c_void;

/// Starts a detached thread that takes no signal of the host's. Fails with an errno. (`std::thread` would
/// abort where there is no memory.)
pub(crate) fn start(stack: usize, run: Run) -> Result<(), c_int> {
    let _not_now = NotNow::begin();
    let mut attributes = std::mem::MaybeUninit::uninit();
    let (mut all, mut before) = (std::mem::MaybeUninit::uninit(), std::mem::MaybeUninit::uninit());
    // SAFETY: every structure is initialised before it is read; a thread inherits its starter's signal mask,
    // which is restored before anything else happens here.
    unsafe {
        match libc::pthread_attr_init(attributes.as_mut_ptr()) {
            0 => {}
            errno => return Err(errno),
        }
        libc::pthread_attr_setdetachstate(attributes.as_mut_ptr(), libc::PTHREAD_CREATE_DETACHED);
        libc::pthread_attr_setstacksize(attributes.as_mut_ptr(), stack);
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
        let mut errno = create(attributes.as_ptr(), run);
        if errno == libc::EINVAL {
            // The host's thread-local storage, which lies in the stack, leaves too little of it.
            errno = create(std::ptr::null(), run);
        }
        libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), std::ptr::null_mut());
        libc::pthread_attr_destroy(attributes.as_mut_ptr());
        if errno == 0 { Ok(()) } else { Err(errno) }
    }
}

/// # Safety
/// NULL or initialised attributes.
unsafe fn create(attributes: *const libc::pthread_attr_t, run: Run) -> c_int {
    let mut thread = 0;
    // SAFETY: the caller's promise; `run` is code of this library, which is never unmapped (-z nodelete).
    let errno =
        unsafe { libc::pthread_create(&raw mut thread, attributes, run, std::ptr::null_mut()) };
    if errno == 0 && attributes.is_null() {
        // SAFETY: started above, joinable, and nobody else's.
        unsafe { libc::pthread_detach(thread) };
    }
    errno
}

/// What debuggers and /proc call the calling thread: 15 bytes of it.
pub(crate) fn name_this(name: &CStr) {
    // SAFETY: a string, which is copied.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
}
