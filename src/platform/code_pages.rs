//! Pages of this library's own code, mapped once more: the same bytes of the same file, at another
//! address, beside other data. Nothing is written that is ever executed, and no page is writable and
//! executable.

use super::cancel::NotNow;
use super::maps::Mapping;
use super::pages::leak_sanitizer;
use crate::error::Error;
use crate::sync::{AcqRel, Acquire, AtomicPtr};
use std::ffi::{c_int, c_void};
use std::ptr::NonNull;

/// What is to be mapped again: all in whole pages.
#[derive(Clone, Copy)]
pub(crate) struct Layout {
    pub(crate) code: NonNull<u8>,
    pub(crate) code_len: usize,
    /// How far above its code the data of a copy lies.
    pub(crate) distance: usize,
    pub(crate) data_len: usize,
}

/// A copy of the code, for good, with zeroed data; where the data is.
pub(crate) fn copy(layout: Layout) -> Result<NonNull<u8>, Error> {
    let _not_now = NotNow::begin();
    let span = layout.distance + layout.data_len;
    let anywhere = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // A place for both, so that nobody else's mapping comes between the steps.
    // SAFETY: a new mapping at an address of the kernel's choice.
    let place = unsafe { libc::mmap(std::ptr::null_mut(), span, libc::PROT_NONE, anywhere, -1, 0) };
    if place == libc::MAP_FAILED {
        return Err(refused("mmap of a place for thunks"));
    }
    // SAFETY: `place` has this many bytes, and is ours alone.
    let filled = unsafe { fill(place, layout) };
    if filled.is_err() {
        // SAFETY: as above.
        unsafe { libc::munmap(place, span) };
    }
    filled
}

/// # Safety
/// `place` is a mapping of `layout`'s span that nobody uses.
unsafe fn fill(place: *mut c_void, layout: Layout) -> Result<NonNull<u8>, Error> {
    let Layout { code_len, distance, data_len, .. } = layout;
    let data = place.wrapping_byte_add(distance);
    let (rights, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE);
    let flags = flags | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
    // SAFETY: inside `place`.
    if unsafe { libc::mmap(data, data_len, rights, flags, -1, 0) } == libc::MAP_FAILED {
        return Err(refused("mmap of the data of thunks"));
    }
    // SAFETY: inside `place`.
    unsafe { map_code(place, layout) }?;
    if distance > code_len {
        // SAFETY: what lies between the two is nobody's.
        unsafe { libc::munmap(place.wrapping_byte_add(code_len), distance - code_len) };
    }
    leak_sanitizer::register(data, data_len);
    NonNull::new(data.cast()).ok_or(Error::NoMemory)
}

/// Maps the code at `place`: from the file that it was loaded from; from the program's, which can be
/// opened also when its name is gone; else from a sealed copy in memory, for a library whose file was
/// replaced or cannot be read.
///
/// # Safety
/// `place` is a mapping of at least the code's length that nobody uses.
unsafe fn map_code(place: *mut c_void, layout: Layout) -> Result<(), Error> {
    if let Some(source) = source(layout.code.addr().get()) {
        for name in [source.name(), c"/proc/self/exe"] {
            // Not waiting, should something else than a file have its name by now.
            let flags = libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NONBLOCK;
            // SAFETY: a string.
            let file = File(unsafe { libc::open(name.as_ptr(), flags) });
            // SAFETY: the caller's promise.
            if file.0 >= 0 && unsafe { map_file(place, &file, source.offset, layout) } {
                return Ok(());
            }
        }
    }
    let bytes = std::ptr::slice_from_raw_parts(layout.code.as_ptr(), layout.code_len);
    // SAFETY: the library's own code, which is there for good.
    let bytes = unsafe { &*bytes };
    let file = sealed_copy(bytes)?;
    // SAFETY: the caller's promise.
    match unsafe { map_file(place, &file, 0, layout) } {
        true => Ok(()),
        false => Err(refused("mmap of a copy of the code")),
    }
}

/// Maps the code from this file, if it is the same there.
///
/// # Safety
/// As [`map_code`].
unsafe fn map_file(place: *mut c_void, file: &File, offset: i64, layout: Layout) -> bool {
    let Layout { code, code_len, .. } = layout;
    if !file.holds(offset, code, code_len) {
        return false;
    }
    let (rights, flags) = (libc::PROT_READ | libc::PROT_EXEC, libc::MAP_PRIVATE | libc::MAP_FIXED);
    // SAFETY: the caller's promise.
    unsafe { libc::mmap(place, code_len, rights, flags, file.0, offset) != libc::MAP_FAILED }
}

/// A file in memory with these bytes, which nobody can change any more.
fn sealed_copy(bytes: &[u8]) -> Result<File, Error> {
    const EXECUTABLE: libc::c_uint = 0x10;
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    let name = c"callbridge-thunks".as_ptr();
    // SAFETY: a string. Kernels before 6.3 do not know the flag, and need none.
    let file = unsafe {
        match libc::memfd_create(name, flags | EXECUTABLE) {
            -1 => File(libc::memfd_create(name, flags)),
            file => File(file),
        }
    };
    if file.0 < 0 {
        return Err(refused("memfd_create"));
    }
    let seals = libc::F_SEAL_WRITE | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
    // SAFETY: reads `bytes`.
    let written = unsafe { libc::write(file.0, bytes.as_ptr().cast(), bytes.len()) };
    // SAFETY: takes numbers.
    let sealed = unsafe { libc::fcntl(file.0, libc::F_ADD_SEALS, seals) };
    if written != bytes.len() as isize || sealed < 0 {
        return Err(refused("write of a copy of the code"));
    }
    Ok(file)
}

/// What the system has just refused.
fn refused(what: &'static str) -> Error {
    match std::io::Error::last_os_error().raw_os_error().unwrap_or(0) {
        libc::ENOMEM => Error::NoMemory,
        errno => Error::System { what, errno },
    }
}

struct File(c_int);

impl File {
    /// Are the bytes at `offset` those of the code? Not looked at through a mapping, whose pages would
    /// then be in memory before anybody calls them.
    fn holds(&self, offset: i64, code: NonNull<u8>, code_len: usize) -> bool {
        let mut buffer = [0u8; 4096];
        (0..code_len).step_by(buffer.len()).all(|at| {
            let part = buffer.len().min(code_len - at);
            // SAFETY: the buffer has this much room, and so much code is there.
            unsafe {
                libc::pread(self.0, buffer.as_mut_ptr().cast(), part, offset + at as i64)
                    == part as isize
                    && libc::memcmp(buffer.as_ptr().cast(), code.as_ptr().add(at).cast(), part) == 0
            }
        })
    }
}

impl Drop for File {
    fn drop(&mut self) {
        if self.0 >= 0 {
            // SAFETY: opened by us, closed once.
            unsafe { libc::close(self.0) };
        }
    }
}

/// Where the library's code was mapped from. Looked for once, because every copy makes the list longer.
fn source(code: usize) -> Option<&'static Mapping> {
    static FOUND: AtomicPtr<Mapping> = AtomicPtr::new(std::ptr::null_mut());
    // Acquire: partner: the exchange below.
    // SAFETY: null, or what is put there below, never freed.
    if let Some(found) = unsafe { FOUND.load(Acquire).as_ref() } {
        return Some(found);
    }
    let found = Mapping::of(code).ok()?.filter(|it| !it.name().is_empty())?;
    // SAFETY: the layout is not empty.
    let memory = unsafe { std::alloc::alloc(std::alloc::Layout::new::<Mapping>()) };
    let memory = NonNull::new(memory.cast::<Mapping>())?.as_ptr();
    // SAFETY: fresh memory of this layout.
    unsafe { memory.write(found) };
    let none = std::ptr::null_mut();
    // AcqRel: partner: the load above. If another thread was first, it has found the same.
    let _ = FOUND.compare_exchange(none, memory, AcqRel, Acquire);
    // SAFETY: one of the two, neither is freed.
    unsafe { FOUND.load(Acquire).as_ref() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_in_memory_can_be_mapped_and_not_changed() {
        let page = [0xc3u8; 4096];
        let file = sealed_copy(&page).unwrap();
        // SAFETY: takes numbers; a new mapping.
        unsafe {
            assert!(libc::write(file.0, page.as_ptr().cast(), 1) < 0);
            let (code_len, rights) = (page.len(), libc::PROT_NONE);
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let place = libc::mmap(std::ptr::null_mut(), code_len, rights, flags, -1, 0);
            let code = NonNull::from(&page).cast();
            assert!(map_file(place, &file, 0, Layout { code, code_len, distance: 0, data_len: 0 }));
            libc::munmap(place, code_len);
        }
    }
}
