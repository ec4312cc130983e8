//! Code in memory: which shared object a function is in, and whether it is code at all.

use super::cancel::NotNow;
use super::maps::{Mapping, NotTold};
use std::ffi::{c_char, c_void};

/// A shared object, held so that it stays loaded as long as this lives.
pub(crate) struct Object {
    /// From dlopen; null for the main program, which always stays.
    handle: *mut c_void,
    name: *const c_char,
}

/// Why there is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NotFound {
    /// No shared object holds the address.
    NoObject,
    /// The loader does not find it again.
    Refused,
}

impl Object {
    /// The one that holds `code`.
    pub(crate) fn of(code: *const ()) -> Result<Self, NotFound> {
        let mut found = std::mem::MaybeUninit::<libc::Dl_info>::uninit();
        // SAFETY: dladdr reads no memory at `code`, and fills `found` when it returns other than 0.
        let found = unsafe {
            if libc::dladdr(code.cast(), found.as_mut_ptr()) == 0 {
                return Err(NotFound::NoObject);
            }
            found.assume_init()
        };
        // SAFETY: dladdr gave a string, which lives as long as the object that the caller's code is in.
        let handle = unsafe { reopen(found.dli_fname, 0) };
        if handle.is_null() && !is_main_program(found.dli_fbase) {
            return Err(NotFound::Refused);
        }
        Ok(Self { handle, name: found.dli_fname })
    }

    /// Keeps it loaded for the life of the process.
    pub(crate) fn keep(self) {
        if self.handle.is_null() {
            return;
        }
        // SAFETY: the object is loaded, and with it its name.
        let handle = unsafe { reopen(self.name, libc::RTLD_NODELETE) };
        if handle.is_null() {
            // No memory, say. A handle that is never closed keeps it as well.
            std::mem::forget(self);
        } else {
            // SAFETY: from dlopen. That the object stays does not hang on this handle.
            unsafe { libc::dlclose(handle) };
        }
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        if !self.handle.is_null() {
            // SAFETY: from dlopen, closed once.
            unsafe { libc::dlclose(self.handle) };
        }
    }
}

/// Another handle of a loaded object.
///
/// # Safety
/// `name` is a string.
unsafe fn reopen(name: *const c_char, flags: libc::c_int) -> *mut c_void {
    // The loader knows its objects by this very name, so that it looks at no file.
    // SAFETY: the caller's promise; with RTLD_NOLOAD no initializer runs.
    let handle = unsafe { libc::dlopen(name, libc::RTLD_LAZY | libc::RTLD_NOLOAD | flags) };
    if handle.is_null() {
        // SAFETY: forgets the words of the failure, which are nobody's; glibc frees them when asked again.
        unsafe {
            libc::dlerror();
            libc::dlerror();
        }
    }
    handle
}

fn is_main_program(base: *const c_void) -> bool {
    // SAFETY: takes a number.
    let headers = unsafe { libc::getauxval(libc::AT_PHDR) } as usize;
    // The main program's headers lie on its first page.
    headers.wrapping_sub(base.addr()) < 4096
}

/// Can the processor execute what lies at `address`? True also where the system does not tell.
pub(crate) fn is_executable(address: *const ()) -> bool {
    let _not_now = NotNow::begin();
    struct Search {
        address: usize,
        found: bool,
    }
    unsafe extern "C" fn look(
        object: *mut libc::dl_phdr_info,
        _size: libc::size_t,
        search: *mut c_void,
    ) -> libc::c_int {
        // SAFETY: the loader's record of an object, and our search, for the length of this call.
        let (object, search) = unsafe { (&*object, &mut *search.cast::<Search>()) };
        // SAFETY: as many headers as it says.
        let headers =
            unsafe { std::slice::from_raw_parts(object.dlpi_phdr, usize::from(object.dlpi_phnum)) };
        search.found = headers.iter().any(|header| {
            let start = (object.dlpi_addr as usize).wrapping_add(header.p_vaddr as usize);
            header.p_type == libc::PT_LOAD
                && header.p_flags & libc::PF_X != 0
                && search.address.wrapping_sub(start) < header.p_memsz as usize
        });
        search.found.into()
    }
    let mut search = Search { address: address.addr(), found: false };
    // SAFETY: `look` is called before this returns, with `search`.
    unsafe { libc::dl_iterate_phdr(Some(look), (&raw mut search).cast()) };
    // Code that was made at run time is in no object.
    search.found
        || match Mapping::of(address.addr()) {
            Ok(mapping) => mapping.is_some_and(|it| it.is_executable),
            Err(NotTold) => true,
        }
}

#[cfg(all(test, not(any(loom, miri))))]
mod tests {
    use super::*;

    #[test]
    fn code_is_executable_and_data_is_not() {
        let (on_stack, on_heap) = (0u8, Box::new(0u8));
        assert!(is_executable(is_executable as *const ()));
        assert!(is_executable(libc::getpid as *const ()));
        assert!(!is_executable((&raw const on_stack).cast()));
        assert!(!is_executable((&raw const *on_heap).cast()));
        assert!(!is_executable(std::ptr::null()));
    }

    #[test]
    fn code_made_at_run_time_is_executable_and_in_no_object() {
        let (rights, flags) =
            (libc::PROT_READ | libc::PROT_EXEC, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping at an address of the kernel's choice.
        let page = unsafe { libc::mmap(std::ptr::null_mut(), 4096, rights, flags, -1, 0) };
        assert!(is_executable(page.cast()));
        assert_eq!(Object::of(page.cast()).err(), Some(NotFound::NoObject));
        // SAFETY: mapped above.
        unsafe { libc::munmap(page, 4096) };
        assert!(!is_executable(page.cast()));
    }

    #[test]
    fn objects_are_kept_and_the_main_program_needs_nothing() {
        let library = Object::of(libc::getpid as *const ()).unwrap();
        assert!(!library.handle.is_null());
        library.keep();
        let program = Object::of(is_executable as *const ()).unwrap();
        assert!(program.handle.is_null());
        program.keep();
    }
}

/// An address in the code as people know it: `object!function+0x12`, or the bare number.
pub(crate) struct Place(pub(crate) u64);

impl std::fmt::Display for Place {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut found = std::mem::MaybeUninit::<libc::Dl_info>::uninit();
        let address = std::ptr::without_provenance::<c_void>(self.0 as usize);
        // SAFETY: dladdr reads no memory at the address, and fills `found` when it returns other than 0. Its
        // strings are those of the loader, which keeps them while the object is loaded; one that is being
        // unloaded at this moment is what its callbacks must not outlive.
        let (object, base, name, start) = unsafe {
            if libc::dladdr(address, found.as_mut_ptr()) == 0 {
                return write!(out, "{:#x}", self.0);
            }
            let found = found.assume_init();
            let text = |text: *const c_char| match text.is_null() {
                true => "",
                false => std::ffi::CStr::from_ptr(text).to_str().unwrap_or_default(),
            };
            (text(found.dli_fname), found.dli_fbase, text(found.dli_sname), found.dli_saddr)
        };
        let object = object.rsplit('/').next().unwrap_or_default();
        match name {
            "" => write!(out, "{object}+{:#x}", self.0 - base.addr() as u64),
            name => match self.0 - start.addr() as u64 {
                0 => write!(out, "{object}!{name}"),
                offset => write!(out, "{object}!{name}+{offset:#x}"),
            },
        }
    }
}
