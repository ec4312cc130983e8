//! What failed calls have to say, until they return: one message a frame, on a list of its thread.

use super::frame::Frame;
use crate::platform::words::Words;
use std::alloc::{Layout, alloc, dealloc};
use std::cell::Cell;
use std::ptr;

/// Longer messages are cut.
pub(crate) const MESSAGE_MAX: usize = 511;

/// UTF-8 text of at most [`MESSAGE_MAX`] bytes.
pub(super) type Text = Words<MESSAGE_MAX>;

/// What a host has said: what is no UTF-8 becomes replacement characters.
pub(super) struct Lossy<'a>(pub(super) &'a [u8]);

impl std::fmt::Display for Lossy<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.utf8_chunks().try_for_each(|chunk| {
            let replacement = if chunk.invalid().is_empty() { "" } else { "\u{FFFD}" };
            write!(out, "{}{replacement}", chunk.valid())
        })
    }
}

/// A frame's message.
struct Message {
    next: *mut Message,
    frame: *const Frame,
    text: Text,
}

/// The messages of one thread's failed frames. Zeroed memory is an empty list.
pub(super) struct Messages(Cell<*mut Message>);

impl Messages {
    #[cfg(loom)]
    pub(super) fn new() -> Self {
        Self(Cell::new(ptr::null_mut()))
    }

    /// Keeps the message of `frame`, in place of an earlier one. Without memory there is none: the
    /// call has failed all the same.
    pub(super) fn keep(&self, frame: &Frame, bytes: &[u8]) {
        self.take(frame, |_| ());
        // SAFETY: the layout is not empty.
        let message = unsafe { alloc(Layout::new::<Message>()) }.cast::<Message>();
        if message.is_null() {
            return;
        }
        let text = Text::of(format_args!("{}", Lossy(bytes)));
        // SAFETY: fresh memory of this layout.
        unsafe { message.write(Message { next: self.0.get(), frame, text }) };
        self.0.set(message);
    }

    /// Shows the message of `frame` to `reader`, if there is one, and forgets it.
    pub(super) fn take(&self, frame: &Frame, reader: impl FnOnce(&Text)) {
        let mut before: *mut Message = ptr::null_mut();
        let mut message = self.0.get();
        while !message.is_null() {
            // SAFETY: nodes of this thread's list, written by `keep` and freed below only.
            let (next, of, text) = unsafe { ((*message).next, (*message).frame, &(*message).text) };
            if of == ptr::from_ref(frame) {
                reader(text);
                match before.is_null() {
                    true => self.0.set(next),
                    // SAFETY: as above.
                    false => unsafe { (*before).next = next },
                }
                // SAFETY: from `alloc` with this layout, and unlinked.
                unsafe { dealloc(message.cast(), Layout::new::<Message>()) };
                return;
            }
            before = message;
            message = next;
        }
    }
}
