//! Being told of `fork`.

/// Runs `in_child` in every child that this process forks, before fork returns there.
pub(crate) fn at_fork_in_child(in_child: unsafe extern "C" fn()) -> Result<(), i32> {
    #[cfg(any(loom, miri))]
    {
        let _ = in_child;
        Ok(())
    }
    #[cfg(not(any(loom, miri)))]
    {
        // SAFETY: `in_child` is a function of this library, which is never unmapped (-z nodelete).
        match unsafe { libc::pthread_atfork(None, None, Some(in_child)) } {
            0 => Ok(()),
            errno => Err(errno),
        }
    }
}
