//! A descriptor that says that there is something to do: an eventfd.

#[cfg(not(loom))]
use std::time::Instant;

/// Readable between `raise` and `lower`.
pub(crate) struct Wake {
    #[cfg(not(loom))]
    fd: libc::c_int,
    #[cfg(loom)]
    raised: crate::sync::AtomicU32,
}

#[cfg(not(loom))]
impl Wake {
    /// Fails with an errno.
    pub(crate) fn new() -> Result<Self, i32> {
        // SAFETY: takes numbers.
        match unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) } {
            -1 => Err(errno()),
            fd => Ok(Self { fd }),
        }
    }

    pub(crate) fn raise(&self) {
        let one = 1u64;
        // Fails only if it is readable already. By `syscall`, which is no cancellation point: who is
        // cancelled in the middle would have told nobody.
        #[cfg(not(miri))]
        // SAFETY: reads 8 bytes.
        unsafe {
            libc::syscall(libc::SYS_write, self.fd, &raw const one, 8usize)
        };
        // Miri knows few system calls by number.
        #[cfg(miri)]
        // SAFETY: as above.
        unsafe {
            libc::write(self.fd, (&raw const one).cast(), 8)
        };
    }

    pub(crate) fn lower(&self) {
        let mut count = 0u64;
        // Fails only if it is not readable.
        #[cfg(not(miri))]
        // SAFETY: writes 8 bytes.
        unsafe {
            libc::syscall(libc::SYS_read, self.fd, &raw mut count, 8usize)
        };
        #[cfg(miri)]
        // SAFETY: as above.
        unsafe {
            libc::read(self.fd, (&raw mut count).cast(), 8)
        };
    }

    /// By lowering it, and raising it again: nobody else may lower it meanwhile.
    #[cfg(all(test, miri))]
    pub(crate) fn is_raised(&self) -> bool {
        let mut count = 0u64;
        // SAFETY: writes 8 bytes.
        let is_raised = unsafe { libc::read(self.fd, (&raw mut count).cast(), 8) } == 8;
        if is_raised {
            self.raise();
        }
        is_raised
    }

    /// Another descriptor of the same, which the caller closes. Fails with an errno.
    pub(crate) fn duplicate(&self) -> Result<libc::c_int, i32> {
        // SAFETY: takes numbers.
        match unsafe { libc::fcntl(self.fd, libc::F_DUPFD_CLOEXEC, 0) } {
            -1 => Err(errno()),
            fd => Ok(fd),
        }
    }

    /// What [`sleep`] waits for.
    pub(crate) fn to_poll(&self) -> libc::pollfd {
        libc::pollfd { fd: self.fd, events: libc::POLLIN, revents: 0 }
    }
}

#[cfg(not(loom))]
impl Drop for Wake {
    fn drop(&mut self) {
        // As in `raise`: no cancellation point, out of which a drop must not unwind.
        #[cfg(not(miri))]
        // SAFETY: opened by `new`, closed once.
        unsafe {
            libc::syscall(libc::SYS_close, self.fd)
        };
        #[cfg(miri)]
        // SAFETY: as above.
        unsafe {
            libc::close(self.fd)
        };
    }
}

/// A millisecond, which is no cancellation point either.
pub(crate) fn pause() {
    #[cfg(not(loom))]
    sleep(&mut [], Some(Instant::now() + std::time::Duration::from_millis(1)));
    #[cfg(loom)]
    crate::sync::spin_hint();
}

/// Sleeps until one of them is raised, the deadline, a signal, or for no reason: look again.
#[cfg(not(any(loom, miri)))]
pub(crate) fn sleep(polled: &mut [libc::pollfd], deadline: Option<Instant>) {
    let mut timeout = deadline.map(|at| {
        let left = at.saturating_duration_since(Instant::now());
        libc::timespec {
            tv_sec: left.as_secs().min(i64::MAX as u64) as libc::time_t,
            tv_nsec: left.subsec_nanos().into(),
        }
    });
    let timeout = timeout.as_mut().map_or(std::ptr::null_mut(), std::ptr::from_mut);
    // The kernel writes what is left of the time, which nobody reads. No cancellation point, as above.
    // SAFETY: as many as there are; `timeout` outlives the call; no signal mask.
    unsafe {
        libc::syscall(
            libc::SYS_ppoll,
            polled.as_mut_ptr(),
            polled.len(),
            timeout,
            std::ptr::null::<libc::sigset_t>(),
            0usize,
        )
    };
}

/// Miri polls nothing: who sleeps looks again at once.
#[cfg(miri)]
pub(crate) fn sleep(_polled: &mut [libc::pollfd], _deadline: Option<Instant>) {
    crate::sync::spin_hint();
}

#[cfg(not(loom))]
fn errno() -> i32 {
    // SAFETY: this thread's errno.
    unsafe { *libc::__errno_location() }
}

/// Under loom a number stands for the descriptor, and a sleep is a yield.
#[cfg(loom)]
impl Wake {
    pub(crate) fn new() -> Result<Self, i32> {
        Ok(Self { raised: crate::sync::AtomicU32::new(0) })
    }

    pub(crate) fn raise(&self) {
        self.raised.store(1, crate::sync::SeqCst);
    }

    pub(crate) fn lower(&self) {
        self.raised.store(0, crate::sync::SeqCst);
    }

    #[cfg(test)]
    pub(crate) fn is_raised(&self) -> bool {
        self.raised.load(crate::sync::SeqCst) == 1
    }
}
