//! Text that grows as long as there is memory, and is then given to the host.

use crate::error::Error;
use std::fmt;

pub(crate) struct Text(Vec<u8>);

impl Text {
    pub(crate) fn new() -> Self {
        Self(Vec::new())
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn as_str(&self) -> &str {
        // SAFETY: made of `str`s.
        unsafe { std::str::from_utf8_unchecked(&self.0) }
    }

    pub(crate) fn put(&mut self, words: fmt::Arguments<'_>) -> Result<(), Error> {
        // What is written formats itself without fail: only memory can be out.
        fmt::Write::write_fmt(self, words).map_err(|_| Error::NoMemory)
    }
}

impl fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.try_reserve(text.len()).map_err(|_| fmt::Error)?;
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

/// "3 things".
pub(crate) struct Count(pub(crate) u64, pub(crate) &'static str);

impl fmt::Display for Count {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {}{}", self.0, self.1, if self.0 == 1 { "" } else { "s" })
    }
}
