//! The standard error, past all buffers and their locks; what the system calls its errors; and the last
//! words of the process.

use std::ffi::{CStr, c_int};
use std::fmt;

/// An errno in words, as [`std::io::Error`] has it, but without memory.
pub(crate) struct SystemError(pub(crate) c_int);

impl fmt::Display for SystemError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The longest of glibc has 49 bytes; translations are longer.
        let mut text = [0u8; 256];
        // SAFETY: as much room as it is told, in which it leaves a text with its NUL, or what was there.
        unsafe { libc::strerror_r(self.0, text.as_mut_ptr().cast(), text.len()) };
        let text = CStr::from_bytes_until_nul(&text).unwrap_or_default();
        write!(out, "{} (os error {})", text.to_str().unwrap_or("?"), self.0)
    }
}

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
