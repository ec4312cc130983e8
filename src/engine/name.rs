//! A name that an object has for reports and logs.

use crate::error::Error;
use crate::sync::{AcqRel, Acquire, AtomicPtr, Relaxed, Release};
use std::alloc::Layout;
use std::ptr::{self, NonNull};
// Not loom's: it counts owners of memory that only one thread at a time writes.
use std::sync::atomic::AtomicU32;

/// Longest name in bytes.
pub(crate) const NAME_MAX: usize = 255;

/// A text that several may share: `count:32 | length:8 | so many bytes of UTF-8 | NUL`, from the allocator.
/// Points to the bytes, so that it is C's pointer, too.
#[derive(Clone, Copy)]
pub(crate) struct Text(NonNull<u8>);

/// What lies before the bytes.
const HEADER: usize = size_of::<AtomicU32>() + 1;

impl Text {
    /// A copy, for one owner.
    pub(crate) fn copy(text: &str) -> Result<Self, Error> {
        let Ok(len) = u8::try_from(text.len()) else {
            return Err(Error::Invalid("a name is longer than 255 bytes"));
        };
        // SAFETY: the layout has at least six bytes.
        let it = NonNull::new(unsafe { std::alloc::alloc(layout(text.len())) });
        let it = it.ok_or(Error::NoMemory)?;
        // SAFETY: there is room for count, length, bytes and NUL, and nobody else has it yet.
        unsafe {
            it.cast::<AtomicU32>().write(AtomicU32::new(1));
            let bytes = it.add(HEADER);
            *bytes.sub(1).as_ptr() = len;
            ptr::copy_nonoverlapping(text.as_ptr(), bytes.as_ptr(), text.len());
            *bytes.add(text.len()).as_ptr() = 0;
            Ok(Self(bytes))
        }
    }

    fn count(&self) -> &AtomicU32 {
        // SAFETY: `copy` wrote it, and the caller's ownership keeps it.
        unsafe { self.0.sub(HEADER).cast::<AtomicU32>().as_ref() }
    }

    /// One more owner.
    pub(crate) fn share(self) -> Self {
        // Relaxed: the one that there is keeps it.
        self.count().fetch_add(1, Relaxed);
        self
    }

    /// One owner less; the last one frees it.
    pub(crate) fn release(self) {
        // AcqRel: partner: the other owners' releases; what they have read is read.
        if self.count().fetch_sub(1, AcqRel) == 1 {
            // SAFETY: allocated in `copy` with this layout; nobody owns it any more.
            unsafe {
                std::alloc::dealloc(self.0.sub(HEADER).as_ptr(), layout(self.as_str().len()));
            }
        }
    }

    /// The words, as long as the caller's ownership lasts.
    pub(crate) fn as_str<'a>(self) -> &'a str {
        // SAFETY: `copy` wrote length and UTF-8 of that length.
        unsafe {
            let len = *self.0.sub(1).as_ptr();
            let bytes = std::slice::from_raw_parts(self.0.as_ptr(), len.into());
            std::str::from_utf8_unchecked(bytes)
        }
    }

    /// How much memory it takes.
    #[cfg(not(loom))]
    pub(crate) fn bytes(self) -> usize {
        layout(self.as_str().len()).size()
    }

    /// As a pointer that [`Text::from_raw`] takes, and C; null is none.
    pub(crate) fn into_raw(text: Option<Self>) -> *mut u8 {
        text.map_or(ptr::null_mut(), |text| text.0.as_ptr())
    }

    pub(crate) fn from_raw(text: *mut u8) -> Option<Self> {
        NonNull::new(text).map(Self)
    }
}

/// At most one name. The place is type-stable: it may be read while it changes hands, but only what
/// keeps the object alive keeps the text.
#[repr(transparent)]
pub(crate) struct Name {
    /// A [`Text`] or null.
    text: AtomicPtr<u8>,
}

impl Name {
    #[cfg(loom)]
    pub(crate) fn new() -> Self {
        Self { text: AtomicPtr::new(ptr::null_mut()) }
    }

    /// Takes a copy. The place is empty, and the caller's alone.
    pub(crate) fn set(&self, name: &str) -> Result<(), Error> {
        if !name.is_empty() {
            self.text.store(Text::into_raw(Some(Text::copy(name)?)), Release);
        }
        Ok(())
    }

    /// The text, if there is one; as for `get`.
    pub(crate) fn text(&self) -> Option<Text> {
        // Acquire: partner: the store in `set`, for readers that got here by a scan.
        Text::from_raw(self.text.load(Acquire))
    }

    /// The name, "" if there is none; the object must be protected or in the caller's hands alone.
    pub(crate) fn get(&self) -> &str {
        self.text().map_or("", Text::as_str)
    }

    /// Forgets the name: the object has ended, or never began.
    pub(crate) fn clear(&self) {
        // Relaxed: the caller has the object alone.
        if let Some(text) = Text::from_raw(self.text.load(Relaxed)) {
            self.text.store(ptr::null_mut(), Relaxed);
            text.release();
        }
    }
}

fn layout(len: usize) -> Layout {
    Layout::from_size_align(HEADER + len + 1, align_of::<AtomicU32>()).expect("at most 261 bytes")
}
