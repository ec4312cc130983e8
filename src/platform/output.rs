//! The standard error, past all buffers and their locks; and the last words of the process.

/// Writes the last words of the process.
pub(crate) fn last_words(text: &[u8]) {
    // If nobody reads it any more, that must not end the process in another way than it does. (For good: the
    // thread that is here does nothing else any more.)
    // SAFETY: a set of signals is plain data, which sigemptyset fills in.
    unsafe {
        let mut broken_pipe = std::mem::zeroed();
        libc::sigemptyset(&raw mut broken_pipe);
        libc::sigaddset(&raw mut broken_pipe, libc::SIGPIPE);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const broken_pipe, std::ptr::null_mut());
    }
    to_stderr(text);
}

/// Writes to the standard error, at once as far as the system takes it.
pub(crate) fn to_stderr(mut text: &[u8]) {
    while !text.is_empty() {
        // SAFETY: as many bytes are readable.
        let wrote = unsafe { libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), text.len()) };
        match usize::try_from(wrote) {
            Ok(wrote @ 1..) => text = &text[wrote.min(text.len())..],
            _ if std::io::Error::last_os_error().raw_os_error() == Some(libc::EINTR) => {}
            // Nobody reads it.
            _ => return,
        }
    }
}

/// Exits with this code, from a handler of the exit.
pub(crate) fn exit(code: u8) -> ! {
    // glibc goes on with what is left of the exit, under the new code: `_exit` would lose what is in buffers.
    // SAFETY: has no preconditions in a handler of the thread that exits.
    unsafe { libc::exit(code.into()) }
}
