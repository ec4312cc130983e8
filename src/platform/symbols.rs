//! Addresses in the code as people know them: which file, which function. For reports, which take their time:
//! what the loader does not know, the files' own symbol tables say.

use super::cancel::NotNow;
use std::ffi::{CStr, c_char, c_void};
use std::fmt;
use std::fs::File;
use std::os::fd::FromRawFd;
use std::os::unix::fs::FileExt;

/// There is no memory for it.
#[derive(Debug)]
pub(crate) struct NoMemory;

/// A part of an object that the processor may execute.
#[derive(Clone, Copy)]
pub(crate) struct Segment {
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// Of its start, in the file.
    pub(crate) offset: u64,
}

/// The program, or a shared object, as it is in memory.
pub(crate) struct Object {
    /// What is to be taken off an address to find it in the file.
    bias: u64,
    is_program: bool,
    /// Ends with a NUL.
    path: Vec<u8>,
    build_id: Vec<u8>,
    segments: Vec<Segment>,
    /// Its first bytes, if they are in memory: a file that is another one by now has others.
    header: Option<[u8; HEADER_LEN]>,
    /// Read when somebody asks.
    table: Option<Table>,
}

/// What is known of an address.
pub(crate) struct Symbol<'a> {
    /// "" if it is in no object.
    pub(crate) path: &'a str,
    /// In the object, as its symbol table counts.
    pub(crate) in_object: u64,
    /// As the linker knows it; "" if nobody does.
    pub(crate) function: &'a CStr,
    pub(crate) in_function: u64,
}

/// All objects of the process, as they were when this was made.
pub(crate) struct Symbols {
    objects: Vec<Object>,
}

impl Object {
    pub(crate) fn path(&self) -> &str {
        let path = CStr::from_bytes_until_nul(&self.path).unwrap_or_default();
        path.to_str().unwrap_or_default()
    }

    pub(crate) fn build_id(&self) -> &[u8] {
        &self.build_id
    }

    /// The part of it that the address is in.
    pub(crate) fn segment_of(&self, address: u64) -> Option<&Segment> {
        self.segments.iter().find(|segment| (segment.start..segment.end).contains(&address))
    }
}

impl Symbols {
    pub(crate) fn new() -> Result<Self, NoMemory> {
        let mut all = Gathering { objects: Vec::new(), result: Ok(()) };
        let _not_now = NotNow::begin();
        // SAFETY: `look_at_object` is called before this returns, with `all`.
        unsafe { libc::dl_iterate_phdr(Some(look_at_object), (&raw mut all).cast()) };
        all.result.map(|()| Self { objects: all.objects })
    }

    /// Which object an address is in.
    pub(crate) fn object_of(&self, address: u64) -> Option<(usize, &Object)> {
        self.objects.iter().enumerate().find(|(_, object)| object.segment_of(address).is_some())
    }

    /// What is known of it. If memory is out, less.
    pub(crate) fn find(&mut self, address: u64) -> Symbol<'_> {
        let mut symbol =
            Symbol { path: "", in_object: address, function: c"", in_function: address };
        let Some((index, _)) = self.object_of(address) else { return symbol };
        let object = &mut self.objects[index];
        let in_object = address.wrapping_sub(object.bias);
        symbol.in_object = in_object;
        if let Some((name, start)) = known_to_the_loader(address) {
            (symbol.function, symbol.in_function) = (name, address.wrapping_sub(start));
        } else {
            if object.table.is_none() {
                object.table = Some(Table::read(object).unwrap_or(Table::EMPTY));
            }
            if let Some((name, start)) =
                object.table.as_ref().and_then(|table| table.find(in_object))
            {
                (symbol.function, symbol.in_function) = (name, in_object - start);
            }
        }
        symbol.path = object.path();
        symbol
    }
}

/// The function's name and start, if it is one that others may link with.
fn known_to_the_loader<'a>(address: u64) -> Option<(&'a CStr, u64)> {
    let mut found = std::mem::MaybeUninit::<libc::Dl_info>::uninit();
    let address = std::ptr::without_provenance::<c_void>(address as usize);
    // SAFETY: dladdr reads no memory at the address, and fills `found` when it returns other than 0. Its
    // strings are the loader's, which keeps them while the object is loaded; one that is being unloaded at
    // this moment is what its callbacks must not outlive.
    unsafe {
        if libc::dladdr(address, found.as_mut_ptr()) == 0 {
            return None;
        }
        let found = found.assume_init();
        if found.dli_sname.is_null() {
            return None;
        }
        Some((CStr::from_ptr(found.dli_sname), found.dli_saddr.addr() as u64))
    }
}

/// A C++ function as its source calls it, if the process has what can tell: `__cxa_demangle` of the C++ runtime,
/// which also knows the older kind of Rust's names.
pub(crate) struct Readable<'a>(pub(crate) &'a CStr);

impl fmt::Display for Readable<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        type Demangle =
            unsafe extern "C" fn(*const c_char, *mut c_char, *mut usize, *mut i32) -> *mut c_char;
        let mut readable = std::ptr::null_mut();
        if self.0.to_bytes().starts_with(b"_Z") {
            // SAFETY: looks for a name among what is loaded.
            let demangle = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"__cxa_demangle".as_ptr()) };
            // SAFETY: null, or the function of this name, which the C++ ABI defines so.
            let demangle =
                unsafe { std::mem::transmute::<*mut c_void, Option<Demangle>>(demangle) };
            if let Some(demangle) = demangle {
                let (buffer, len, status) =
                    (std::ptr::null_mut(), std::ptr::null_mut(), std::ptr::null_mut());
                // SAFETY: gives a new string, or null.
                readable = unsafe { demangle(self.0.as_ptr(), buffer, len, status) };
            }
        }
        if readable.is_null() {
            return write!(out, "{}", self.0.to_str().unwrap_or("?"));
        }
        // SAFETY: not null, so it is a string.
        let result = write!(out, "{}", unsafe { CStr::from_ptr(readable) }.to_str().unwrap_or("?"));
        // SAFETY: from malloc, and nobody else's.
        unsafe { libc::free(readable.cast()) };
        result
    }
}

struct Gathering {
    objects: Vec<Object>,
    result: Result<(), NoMemory>,
}

unsafe extern "C" fn look_at_object(
    object: *mut libc::dl_phdr_info,
    _size: libc::size_t,
    all: *mut c_void,
) -> libc::c_int {
    // SAFETY: the loader's record of an object, and our gathering, for the length of this call.
    let (object, all) = unsafe { (&*object, &mut *all.cast::<Gathering>()) };
    // SAFETY: as many headers as it says.
    let headers =
        unsafe { std::slice::from_raw_parts(object.dlpi_phdr, usize::from(object.dlpi_phnum)) };
    #[allow(clippy::unnecessary_cast, reason = "they are narrower elsewhere")]
    let headers = headers.iter().map(|header| Header {
        kind: header.p_type,
        flags: header.p_flags,
        offset: header.p_offset as u64,
        address: header.p_vaddr as u64,
        in_file: header.p_filesz as u64,
        in_memory: header.p_memsz as u64,
    });
    let name = match object.dlpi_name.is_null() {
        true => c"",
        // SAFETY: a string.
        false => unsafe { CStr::from_ptr(object.dlpi_name) },
    };
    #[allow(clippy::unnecessary_cast, reason = "as above")]
    match gather(&mut all.objects, object.dlpi_addr as u64, headers, name) {
        Some(()) => 0,
        None => {
            all.result = Err(NoMemory);
            1
        }
    }
}

/// A program header.
struct Header {
    kind: u32,
    flags: u32,
    offset: u64,
    address: u64,
    in_file: u64,
    in_memory: u64,
}

/// None: there is no memory.
fn gather(
    objects: &mut Vec<Object>,
    bias: u64,
    headers: impl Iterator<Item = Header>,
    name: &CStr,
) -> Option<()> {
    let mut object = Object {
        bias,
        // The first one, which has no name.
        is_program: objects.is_empty(),
        path: Vec::new(),
        build_id: Vec::new(),
        segments: Vec::new(),
        header: None,
        table: None,
    };
    if object.is_program {
        object.path.try_reserve_exact(libc::PATH_MAX as usize).ok()?;
        object.path.resize(libc::PATH_MAX as usize, 0);
        let (path, room) = (object.path.as_mut_ptr(), object.path.len() - 1);
        // SAFETY: as much room, and a NUL behind.
        unsafe { libc::readlink(PROGRAM.as_ptr(), path.cast(), room) };
    } else {
        let name = name.to_bytes_with_nul();
        object.path.try_reserve_exact(name.len()).ok()?;
        object.path.extend_from_slice(name);
    }
    for header in headers {
        let start = bias.wrapping_add(header.address);
        if header.kind == libc::PT_LOAD && header.flags & libc::PF_X != 0 {
            object.segments.try_reserve(1).ok()?;
            let end = start.wrapping_add(header.in_memory);
            object.segments.push(Segment { start, end, offset: header.offset });
        }
        let bytes = |len: u64| {
            // SAFETY: a segment that is loaded, and readable.
            unsafe {
                let start = std::ptr::with_exposed_provenance::<u8>(start as usize);
                std::slice::from_raw_parts(start, len as usize)
            }
        };
        if header.kind == libc::PT_LOAD
            && header.offset == 0
            && header.flags & libc::PF_R != 0
            && header.in_file >= HEADER_LEN as u64
        {
            object.header = bytes(HEADER_LEN as u64).try_into().ok();
        }
        if header.kind == libc::PT_NOTE
            && let Some(id) = build_id_in(bytes(header.in_file))
        {
            object.build_id.try_reserve_exact(id.len()).ok()?;
            object.build_id.extend_from_slice(id);
        }
    }
    objects.try_reserve(1).ok()?;
    objects.push(object);
    Some(())
}

const PROGRAM: &CStr = c"/proc/self/exe";

/// What the linker has made to tell one build from another.
fn build_id_in(notes: &[u8]) -> Option<&[u8]> {
    const BUILD_ID: u32 = 3;
    let mut at = 0;
    loop {
        let (name_len, len) = (number::<u32>(notes, at)?, number::<u32>(notes, at + 4)?);
        let kind = number::<u32>(notes, at + 8)?;
        let name = at + 12;
        let content = name + (name_len as usize).next_multiple_of(4);
        if kind == BUILD_ID && notes.get(name..)?.starts_with(b"GNU\0") {
            return notes.get(content..content.checked_add(len as usize)?);
        }
        at = content + (len as usize).next_multiple_of(4);
    }
}

trait Number: Sized {
    fn from_bytes(bytes: &[u8]) -> Option<Self>;
}
macro_rules! number {
    ($($it:ty),*) => { $(
        impl Number for $it {
            fn from_bytes(bytes: &[u8]) -> Option<Self> {
                Some(Self::from_ne_bytes(bytes.get(..size_of::<Self>())?.try_into().ok()?))
            }
        }
    )* };
}
number!(u16, u32, u64);

/// The number at this place, if there is one.
fn number<T: Number>(bytes: &[u8], at: usize) -> Option<T> {
    T::from_bytes(bytes.get(at..)?)
}

const HEADER_LEN: usize = size_of::<libc::Elf64_Ehdr>();
const SECTION_LEN: usize = size_of::<libc::Elf64_Shdr>();
const SYMBOL_LEN: usize = size_of::<libc::Elf64_Sym>();
/// More than this is no symbol table.
const TABLE_MAX: u64 = 1 << 30;

/// The functions of an object's symbol table. Read, not mapped: a file that somebody cuts short meanwhile
/// must not end the process.
struct Table {
    functions: Vec<Function>,
    names: Vec<u8>,
}

struct Function {
    start: u64,
    len: u64,
    name: u32,
}

impl Table {
    const EMPTY: Self = Self { functions: Vec::new(), names: Vec::new() };

    /// None: there is none, or it is not to be had.
    fn read(object: &Object) -> Option<Self> {
        const SYMBOL_TABLE: u32 = 2;
        if cfg!(not(all(target_pointer_width = "64", target_endian = "little"))) {
            return None;
        }
        // Of the program, this is the file that was started, whatever the path leads to by now.
        let path = match object.is_program {
            true => PROGRAM,
            false => CStr::from_bytes_until_nul(&object.path).ok()?,
        };
        // Opening and reading are cancellation points.
        let _not_now = NotNow::begin();
        // (File::open may allocate.)
        // SAFETY: a string.
        let file = unsafe { libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
        if file < 0 {
            return None;
        }
        // SAFETY: just opened, and nobody else has it.
        let file = unsafe { File::from_raw_fd(file) };
        let header = bytes_of(&file, 0, HEADER_LEN as u64)?;
        if object.header.is_some_and(|here| header != here) || !header.starts_with(b"\x7fELF\x02") {
            return None;
        }
        let sections_at = number::<u64>(&header, 40)?;
        let (each, count) = (number::<u16>(&header, 58)?, number::<u16>(&header, 60)?);
        if usize::from(each) != SECTION_LEN {
            return None;
        }
        let sections = bytes_of(&file, sections_at, u64::from(each) * u64::from(count))?;
        let section = |index: usize| sections.chunks_exact(SECTION_LEN).nth(index);
        let content = |section: &[u8]| {
            bytes_of(&file, number::<u64>(section, 24)?, number::<u64>(section, 32)?)
        };
        let symbols = sections
            .chunks_exact(SECTION_LEN)
            .find(|section| number::<u32>(section, 4) == Some(SYMBOL_TABLE))?;
        let names = content(section(number::<u32>(symbols, 40)? as usize)?)?;
        Self::from(&content(symbols)?, names)
    }

    fn from(symbols: &[u8], names: Vec<u8>) -> Option<Self> {
        const FUNCTION: u8 = 2;
        const INDIRECT: u8 = 10;
        let mut functions = Vec::new();
        for symbol in symbols.chunks_exact(SYMBOL_LEN) {
            let is_function = matches!(symbol[4] & 15, FUNCTION | INDIRECT);
            // Section 0: defined elsewhere.
            if is_function && number::<u16>(symbol, 6)? != 0 {
                functions.try_reserve(1).ok()?;
                functions.push(Function {
                    name: number::<u32>(symbol, 0)?,
                    start: number::<u64>(symbol, 8)?,
                    len: number::<u64>(symbol, 16)?,
                });
            }
        }
        functions.sort_unstable_by_key(|function: &Function| function.start);
        Some(Self { functions, names })
    }

    /// The function that an address of the object is in: its name and start.
    fn find(&self, address: u64) -> Option<(&CStr, u64)> {
        let after = self.functions.partition_point(|function| function.start <= address);
        let function = self.functions.get(after.checked_sub(1)?)?;
        // Functions in assembler may have no length.
        let len = function.len.max(1);
        if address - function.start >= len {
            return None;
        }
        let name = CStr::from_bytes_until_nul(self.names.get(function.name as usize..)?).ok()?;
        Some((name, function.start))
    }
}

/// A part of a file; None if it is not all there, or there is no memory.
fn bytes_of(file: &File, at: u64, len: u64) -> Option<Vec<u8>> {
    if len > TABLE_MAX {
        return None;
    }
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(len as usize).ok()?;
    bytes.resize(len as usize, 0);
    file.read_exact_at(&mut bytes, at).ok()?;
    Some(bytes)
}

#[cfg(all(test, not(any(loom, miri))))]
mod tests {
    use super::*;

    #[inline(never)]
    fn here() -> u64 {
        std::hint::black_box(here as *const () as u64)
    }

    #[test]
    fn functions_of_the_program_and_of_libraries_have_names() {
        let mut symbols = Symbols::new().unwrap();
        let symbol = symbols.find(here() + 1);
        let function = symbol.function.to_str().unwrap();
        assert!(function.contains("symbols5tests4here"), "{function}");
        assert_eq!(symbol.in_function, 1);
        assert_eq!(symbol.path, std::env::current_exe().unwrap().to_str().unwrap());
        let symbol = symbols.find(libc::getpid as *const () as u64);
        let function = symbol.function.to_str().unwrap();
        assert!(function.contains("getpid"), "{function}");
        assert!(symbol.path.contains("libc.so"), "{}", symbol.path);
        let symbol = symbols.find(16);
        assert_eq!((symbol.path, symbol.function, symbol.in_object), ("", c"", 16));
    }

    #[test]
    fn objects_are_where_the_maps_say_and_have_a_build_id() {
        let symbols = Symbols::new().unwrap();
        let (index, object) = symbols.object_of(here()).unwrap();
        assert_eq!(index, 0);
        let segment = object.segments.iter().find(|it| (it.start..it.end).contains(&here()));
        let segment = segment.unwrap();
        let mapping = super::super::maps::Mapping::of(here() as usize).unwrap().unwrap();
        assert_eq!(mapping.offset as u64, here() - segment.start + segment.offset);
        assert!(symbols.objects.iter().any(|object| object.build_id.len() == 20));
    }

    #[test]
    fn a_symbol_table_may_be_any_bytes() {
        let mut state = 1_u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as u8
        };
        for round in 0..1000 {
            let symbols: Vec<u8> = (0..round % 97).map(|_| random()).collect();
            let names: Vec<u8> = (0..round % 13).map(|_| random()).collect();
            let table = Table::from(&symbols, names).unwrap();
            for function in &table.functions {
                let _ = table.find(function.start);
                let _ = table.find(function.start.wrapping_add(function.len));
            }
            let _ = build_id_in(&symbols);
        }
        let note = *b"\x04\0\0\0\x02\0\0\0\x03\0\0\0GNU\0\x12\x34\0\0";
        assert_eq!(build_id_in(&note), Some(&[0x12, 0x34][..]));
    }
}
