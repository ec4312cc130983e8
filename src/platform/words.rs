//! Text that takes no memory.

use std::fmt::{self, Write};

/// Text of at most so many bytes, in place; more is cut, between characters.
#[derive(Clone)]
pub(crate) struct Words<const MOST: usize> {
    len: usize,
    bytes: [u8; MOST],
}

impl<const MOST: usize> Words<MOST> {
    pub(crate) const fn empty() -> Self {
        Self { len: 0, bytes: [0; MOST] }
    }

    pub(crate) fn of(words: fmt::Arguments<'_>) -> Self {
        let mut it = Self::empty();
        it.set(words);
        it
    }

    pub(crate) fn set(&mut self, words: fmt::Arguments<'_>) {
        self.len = 0;
        // An error says that it is full.
        let _ = self.write_fmt(words);
    }

    pub(crate) fn as_str(&self) -> &str {
        // `write_str` keeps it UTF-8.
        std::str::from_utf8(&self.bytes[..self.len]).unwrap_or_default()
    }
}

impl<const MOST: usize> Write for Words<MOST> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let fits = text.floor_char_boundary(MOST - self.len);
        self.bytes[self.len..self.len + fits].copy_from_slice(&text.as_bytes()[..fits]);
        self.len += fits;
        if fits == text.len() { Ok(()) } else { Err(fmt::Error) }
    }
}
