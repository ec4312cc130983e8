//! Being told of `fork`.

/// What is run around every `fork` of this process.
#[derive(Clone, Copy)]
pub(crate) struct AroundFork {
    /// In the forking thread, before.
    pub(crate) before: unsafe extern "C" fn(),
    /// The same, after, before fork returns.
    pub(crate) in_parent: unsafe extern "C" fn(),
    /// In the child, before fork returns there.
    pub(crate) in_child: unsafe extern "C" fn(),
}

/// Has `around` run from now on.
pub(crate) fn at_fork(around: AroundFork) -> Result<(), i32> {
    let AroundFork { before, in_parent, in_child } = around;
    #[cfg(any(loom, miri))]
    {
        let _ = (before, in_parent, in_child);
        Ok(())
    }
    #[cfg(not(any(loom, miri)))]
    {
        // SAFETY: functions of this library, which is never unmapped (-z nodelete).
        match unsafe { libc::pthread_atfork(Some(before), Some(in_parent), Some(in_child)) } {
            0 => Ok(()),
            errno => Err(errno),
        }
    }
}

/// Has `run` run in the child of every fork from now on.
#[cfg(not(any(loom, miri)))]
pub(crate) fn at_fork_in_child(run: unsafe extern "C" fn()) -> Result<(), i32> {
    // SAFETY: as above.
    match unsafe { libc::pthread_atfork(None, None, Some(run)) } {
        0 => Ok(()),
        errno => Err(errno),
    }
}

/// A number of the calling thread, not 0, that it has in the child of its fork, too.
pub(crate) fn this_thread() -> u64 {
    #[cfg(any(loom, miri))]
    return 1;
    // SAFETY: pthread_self has no preconditions.
    #[cfg(not(any(loom, miri)))]
    return unsafe { libc::pthread_self() } as u64;
}
