//! What the process is.

use std::ffi::{CStr, c_char};

#[allow(unused_doc_comments, reason = "for cbindgen, which takes them for the header")]
/// cbindgen:ignore
unsafe extern "C" {
    /// The C library's: the last part of `argv[0]`.
    static program_invocation_short_name: *const c_char;
}

/// The program's name, as it was started.
pub(crate) fn name() -> &'static [u8] {
    // SAFETY: the C library sets it before the program begins. A host may change it to another string,
    // which has to last.
    let name = unsafe { program_invocation_short_name };
    if name.is_null() {
        return b"";
    }
    // SAFETY: as above.
    unsafe { CStr::from_ptr(name) }.to_bytes()
}

pub(crate) fn id() -> u32 {
    // SAFETY: no preconditions.
    unsafe { libc::getpid() as u32 }
}

/// Does the process have rights that whoever started it, and made its environment, lacks?
pub(crate) fn is_privileged() -> bool {
    // SAFETY: takes a number.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// Has `run` run at the process's end by `exit`, or by a return from main.
pub(crate) fn at_exit(run: extern "C" fn()) {
    // Without memory: then it is not run.
    // SAFETY: a function of this library, which is never unmapped (-z nodelete).
    unsafe { libc::atexit(run) };
}
