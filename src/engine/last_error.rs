//! A thread's last failure: codes when it happens, words when somebody asks.

use super::handle::Handle;
use super::message::{Lossy, Text};
use super::signature::Signature;
use crate::error::Error;
use crate::platform::output::SystemError;
use std::cell::{Cell, UnsafeCell};
use std::fmt::{self, Write};
use std::mem::MaybeUninit;

/// Which function failed, on what, and why.
type Failure = (Error, &'static str, Handle);

/// The last failure of one thread, as codes; [`LastError::write`] makes the words. Zeroed memory
/// plus [`LastError::forget`] is valid.
pub(crate) struct LastError {
    last: Cell<MaybeUninit<Option<Failure>>>,
    message_of: Cell<Handle>,
    message: UnsafeCell<Text>,
}

/// See [`LastError::save`].
pub(super) struct Saved {
    last: MaybeUninit<Option<Failure>>,
    message_of: Handle,
    message: Option<Text>,
}

impl LastError {
    #[cfg(loom)]
    pub(crate) fn new() -> Self {
        Self {
            last: Cell::new(MaybeUninit::new(None)),
            message_of: Cell::new(Handle(0)),
            message: UnsafeCell::new(Text::empty()),
        }
    }

    /// For who calls what must not change it.
    pub(super) fn save(&self) -> Saved {
        let message = (self.message_of.get().0 != 0).then(|| {
            // SAFETY: only the owning thread writes, and not now.
            unsafe { (*self.message.get()).clone() }
        });
        Saved { last: self.last.get(), message_of: self.message_of.get(), message }
    }

    /// As it was then.
    pub(super) fn restore(&self, saved: &Saved) {
        self.last.set(saved.last);
        self.message_of.set(saved.message_of);
        if let Some(message) = &saved.message {
            // SAFETY: as above.
            unsafe { (*self.message.get()).clone_from(message) };
        }
    }

    /// A new owner starts without a failure.
    pub(crate) fn forget(&self) {
        self.last.set(MaybeUninit::new(None));
        self.message_of.set(Handle(0));
    }

    /// `function` failed with `error` on `handle` (0: it was not about one).
    pub(crate) fn set(&self, function: &'static str, handle: Handle, error: Error) {
        self.last.set(MaybeUninit::new(Some((error, function, handle))));
    }

    /// The callback that has just failed may have had nothing to say.
    pub(super) fn forget_message(&self) {
        self.message_of.set(Handle(0));
    }

    /// Shows what the callback that has just failed on this thread had to say, if anything.
    pub(crate) fn with_message<T>(&self, reader: impl FnOnce(&[u8]) -> T) -> Option<T> {
        (self.message_of.get().0 != 0).then(|| reader(self.message().as_bytes()))
    }

    /// What a callback that has failed on another thread had to say.
    pub(crate) fn set_message_bytes(&self, handle: Handle, bytes: &[u8]) {
        // SAFETY: as in `set_message`.
        unsafe { (*self.message.get()).set(format_args!("{}", Lossy(bytes))) };
        self.message_of.set(handle);
    }

    /// What the callback that has just failed had to say.
    pub(super) fn set_message(&self, handle: Handle, text: &Text) {
        // SAFETY: only the owning thread comes here, and it holds no reference into the buffer.
        unsafe { (*self.message.get()).clone_from(text) };
        self.message_of.set(handle);
    }

    /// The message of this thread's last failed call.
    fn message(&self) -> &str {
        // SAFETY: only the owning thread writes, in `set_message`, never while this lives.
        unsafe { (*self.message.get()).as_str() }
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
            if of.0 != 0 && (handle.0 == 0 || handle == of) && !self.message().is_empty() {
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
            Self::Full => write!(out, "the queue is full"),
            Self::Empty => write!(out, "there is nothing to dispatch"),
            Self::Closed => write!(out, "it is closing, or closed, and takes nothing new"),
            Self::Exists => write!(out, "it is set already, and the first one stays"),
            Self::NotFound => write!(out, "there is none"),
            Self::NoMemory => write!(out, "out of memory"),
            Self::System { what, errno } => {
                write!(out, "{what}: {}", SystemError(errno))
            }
            Self::Callback => write!(out, "the callback failed"),
            Self::Panic => write!(out, "the callback panicked"),
        }
    }
}

impl std::error::Error for Error {}
