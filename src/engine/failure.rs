//! A callback that says it failed, and the words for a thread's last failure.

use super::Engine;
use super::frame::Tag;
use super::handle::Handle;
use super::invoke;
use super::record::Record;
use super::signature::Signature;
use crate::error::Error;
use std::cell::{Cell, UnsafeCell};
use std::ffi::CStr;
use std::fmt::{self, Write};
use std::mem::MaybeUninit;

/// What a callback has said of itself, in a frame. Zero is nothing.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct Failed(u32);

impl Failed {
    pub(crate) const NO: Self = Self(0);
    const CALLBACK: Self = Self(1);
    const PANIC: Self = Self(2);

    pub(crate) fn error(self) -> Option<Error> {
        match self {
            Self::NO => None,
            Self::PANIC => Some(Error::Panic),
            _ => Some(Error::Callback),
        }
    }
}

/// Longer messages of `cbr_fail` are cut.
const MESSAGE_MAX: usize = 511;

/// Which function failed, on what, and why.
type Failure = (Error, &'static str, Handle);

/// The last failure of one thread, as codes; [`LastError::write`] makes the words. Zeroed memory
/// plus [`LastError::forget`] is valid.
pub(crate) struct LastError {
    last: Cell<MaybeUninit<Option<Failure>>>,
    message_of: Cell<Handle>,
    message_len: Cell<usize>,
    message: UnsafeCell<[u8; MESSAGE_MAX]>,
}

impl LastError {
    #[cfg(loom)]
    pub(crate) fn new() -> Self {
        Self {
            last: Cell::new(MaybeUninit::new(None)),
            message_of: Cell::new(Handle(0)),
            message_len: Cell::new(0),
            message: UnsafeCell::new([0; MESSAGE_MAX]),
        }
    }

    /// A new owner starts without a failure.
    pub(crate) fn forget(&self) {
        self.last.set(MaybeUninit::new(None));
        self.message_len.set(0);
    }

    /// `function` failed with `error` on `handle` (0: it was not about one).
    pub(crate) fn set(&self, function: &'static str, handle: Handle, error: Error) {
        self.last.set(MaybeUninit::new(Some((error, function, handle))));
    }

    fn set_message(&self, handle: Handle, text: &str) {
        let mut len = text.len().min(MESSAGE_MAX);
        while !text.is_char_boundary(len) {
            len -= 1;
        }
        // SAFETY: only the owning thread comes here, and it holds no reference into the buffer.
        unsafe { (&mut *self.message.get())[..len].copy_from_slice(&text.as_bytes()[..len]) };
        self.message_len.set(len);
        self.message_of.set(handle);
    }

    /// The message of this thread's last `cbr_fail`.
    fn message(&self) -> &str {
        // SAFETY: only the owning thread writes, in `set_message`, never while this lives; what it
        // wrote was cut at a character boundary.
        unsafe { std::str::from_utf8_unchecked(&(&*self.message.get())[..self.message_len.get()]) }
    }

    /// The last failure in words; nothing when there was none.
    pub(crate) fn write(&self, out: &mut dyn Write) -> fmt::Result {
        // SAFETY: `Records::acquire` has called `forget` before the owner could come here.
        let Some((error, function, handle)) = (unsafe { self.last.get().assume_init() }) else {
            return Ok(());
        };
        write!(out, "{function}: {error}")?;
        if matches!(error, Error::Callback | Error::Panic) {
            // A pin does not say whose it was; the message does.
            let of = self.message_of.get();
            if (handle.0 == 0 || handle == of) && !self.message().is_empty() {
                return write!(out, ": {} (handle {:#x})", self.message(), of.0);
            }
        }
        match handle.0 {
            0 => Ok(()),
            number => write!(out, " (handle {number:#x})"),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Null => write!(out, "the function is NULL"),
            Self::Stale => write!(out, "stale: the object is gone, or never was"),
            Self::Invalid(what) | Self::Limit(what) | Self::Unsupported(what) => {
                write!(out, "{what}")
            }
            Self::Kind => write!(out, "the handle is of another kind of object"),
            Self::Signature { have, want } => {
                let (have, want) = (Signature(have), Signature(want));
                write!(out, "the callback was registered as {have}, the caller expects {want}")
            }
            Self::Thread { owner, caller } => {
                write!(out, "it belongs to thread {owner}, the call came on thread {caller}")
            }
            Self::Deadlock => write!(
                out,
                "the wait would never end: this thread is inside what it waits for, or inside \
                 something that a thread inside that waits for"
            ),
            Self::Timeout => write!(out, "the deadline passed"),
            Self::NoMemory => write!(out, "out of memory"),
            Self::System { what, errno } => {
                write!(out, "{what}: {}", std::io::Error::from_raw_os_error(errno))
            }
            Self::Callback => write!(out, "the callback failed"),
            Self::Panic => write!(out, "the callback panicked"),
        }
    }
}

impl std::error::Error for Error {}

impl Engine {
    /// The innermost call, pin or destroy function of this thread failed: `cbr_fail`. The callback's
    /// error function is told `status`.
    pub(crate) fn fail(
        &self,
        record: &Record,
        panic: bool,
        status: i32,
        message: &CStr,
    ) -> Result<(), Error> {
        const OUTSIDE: Error = Error::Invalid("cbr_fail outside of any callback");
        let frame = record.stack().find(|frame| frame.handle().0 != 0).ok_or(OUTSIDE)?;
        let handle = frame.handle();
        let text = message.to_string_lossy();
        if frame.tag.get() == Tag::DESTROY {
            let name = self.name_for_log(handle);
            log::warn!("the destroy function of callback {name} failed: {text}");
            return Ok(());
        }
        record.last_error.set_message(handle, &text);
        if frame.failed.get() == Failed::NO {
            record.failures.set(record.failures.get() + 1);
        }
        frame.failed.set(if panic { Failed::PANIC } else { Failed::CALLBACK });
        record.set_attention(true);
        // The frame keeps the callback alive, and with it its cold data.
        let slot = self.slots.at(handle.index());
        if let Some(on_error) = self.cold_of(slot).and_then(|cold| cold.on_error()) {
            let user_data = slot.user_data.load(crate::sync::Relaxed);
            invoke::on_error(on_error, user_data, handle, status, message);
        }
        Ok(())
    }
}
