//! Section "Profile": where the live callbacks were registered.

use super::scope::cbr_scope;
use super::stats::cbr_write_fn;
use super::status::{CBR_OK, cbr_status};
use super::{failed, with_record};
use crate::engine::Handle;
use crate::error::Error;
use crate::registry;
use std::ffi::c_void;

/// cbr_profile writes a profile of the live callbacks of `scope`, or, if that is 0, of the process, by the
/// stacks that they were registered by: in the format of pprof, gzipped, for `go tool pprof`, speedscope and
/// others. A sample has the number of callbacks and the bytes of what the library keeps of them beside their
/// slots of 64 bytes (their cold data); its labels, `callback` and `scope`, are the names that they have.
/// Stacks are recorded of callbacks that are registered while the environment variable CALLBRIDGE_STACKS, or
/// CALLBRIDGE_LEAK_CHECK, is set as below; at level 2 (cbr_set_check), the place alone. Others are counted under
/// "[stack not recorded]".
/// Functions have the names that they have in the symbol tables of program and libraries as they are now.
/// Environment, read at the first use of the library: CALLBRIDGE_STACKS=1 has the stack of every registration
/// recorded, up to 32 frames, at some microseconds each; 65,536 different stacks at most, further ones are left
/// out. CALLBRIDGE_LEAK_CHECK=1 has it recorded too (unless CALLBRIDGE_STACKS=0), and at the end of the process
/// what is live is written to stderr: callbacks by the stacks that they were registered by, scopes,
/// queues, thunks that are not CBR_THUNK_PERMANENT, holds. That is when it exits by exit or the return of main,
/// after all handlers of atexit and destructors of C++ and of shared objects that use the library; not in
/// the child of a fork that came after the first use, and not at _exit, quick_exit, or a signal.
/// CALLBRIDGE_LEAK_CHECK=exit:CODE does the same, and if something is live the process exits with CODE, 1 to 255.
/// `write`: gets the profile, in one piece or several; may use the library.
/// Threads: any.
/// Returns: CBR_OK; CBR_ERR_NULL if `write` is NULL; CBR_ERR_STALE if the scope is gone; CBR_ERR_KIND;
/// CBR_ERR_NOMEM: nothing was written; CBR_ERR_SYSTEM at a thread's first use.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn cbr_profile(
    scope: cbr_scope,
    write: cbr_write_fn,
    user_data: *mut c_void,
) -> cbr_status {
    let Some(write) = write else { return failed("cbr_profile", scope, Error::Null) };
    match with_record(|record| registry::profile(record, Handle(scope))) {
        Ok(profile) => {
            // SAFETY: the host's function, with its data.
            unsafe { write(user_data, profile.as_ptr().cast(), profile.len()) };
            CBR_OK
        }
        Err(error) => failed("cbr_profile", scope, error),
    }
}
