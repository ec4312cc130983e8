//! A name that an object has for reports and logs.

use crate::error::Error;
use crate::sync::{Acquire, AtomicPtr, Relaxed, Release};
use std::ptr;

/// Longest name in bytes.
pub(crate) const NAME_MAX: usize = 255;

/// At most one name. The place is type-stable: it may be read while it changes hands, but only what
/// keeps the object alive keeps the text.
pub(crate) struct Name {
    /// A length byte and so many bytes of UTF-8, from the allocator; or null.
    text: AtomicPtr<u8>,
}

impl Name {
    #[cfg(loom)]
    pub(crate) fn new() -> Self {
        Self { text: AtomicPtr::new(ptr::null_mut()) }
    }

    /// Takes a copy. The place is empty, and the caller's alone.
    pub(crate) fn set(&self, name: &str) -> Result<(), Error> {
        let Ok(len) = u8::try_from(name.len()) else {
            return Err(Error::Invalid("a name is longer than 255 bytes"));
        };
        if len == 0 {
            return Ok(());
        }
        // SAFETY: the layout has at least one byte.
        let text = unsafe { std::alloc::alloc(layout(name.len())) };
        if text.is_null() {
            return Err(Error::NoMemory);
        }
        // SAFETY: `text` has room for the length and the bytes, and is not shared yet.
        unsafe {
            *text = len;
            ptr::copy_nonoverlapping(name.as_ptr(), text.add(1), name.len());
        }
        self.text.store(text, Release);
        Ok(())
    }

    /// The name, "" if there is none; the object must be protected or in the caller's hands alone.
    pub(crate) fn get(&self) -> &str {
        // Acquire: partner: the store in `set`, for readers that got here by a scan.
        let text = self.text.load(Acquire);
        if text.is_null() {
            return "";
        }
        // SAFETY: `set` wrote length and UTF-8 of that length; freed in `clear` only, when the object
        // has ended.
        unsafe {
            let bytes = std::slice::from_raw_parts(text.add(1), usize::from(*text));
            std::str::from_utf8_unchecked(bytes)
        }
    }

    /// Forgets the name: the object has ended, or never began.
    pub(crate) fn clear(&self) {
        // Relaxed: the caller has the object alone.
        let text = self.text.load(Relaxed);
        if !text.is_null() {
            self.text.store(ptr::null_mut(), Relaxed);
            // SAFETY: allocated in `set` with this layout; the caller is the only user.
            unsafe { std::alloc::dealloc(text, layout(usize::from(*text))) };
        }
    }
}

fn layout(len: usize) -> std::alloc::Layout {
    std::alloc::Layout::array::<u8>(len + 1).expect("at most 256 bytes")
}
