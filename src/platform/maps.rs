//! What /proc/self/maps says of an address. Read without allocating.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// A path and what stands before it.
const LINE: usize = libc::PATH_MAX as usize + 128;

/// The mapping that an address lies in.
#[allow(
    dead_code,
    reason = "file and offset are for platform/code_pages.rs, which is not everywhere"
)]
pub(crate) struct Mapping {
    line: [u8; LINE],
    /// Where the file's name begins; at a NUL if it is of none.
    name_at: usize,
    pub(crate) is_executable: bool,
    /// Of the address, in the file.
    pub(crate) offset: i64,
}

/// The system does not tell.
#[derive(Debug)]
pub(crate) struct NotTold;

impl Mapping {
    /// None: nothing is mapped there.
    pub(crate) fn of(address: usize) -> Result<Option<Self>, NotTold> {
        // SAFETY: a string.
        let file =
            unsafe { libc::open(c"/proc/self/maps".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
        if file < 0 {
            return Err(NotTold);
        }
        // SAFETY: just opened, and nobody else has it.
        let file = unsafe { OwnedFd::from_raw_fd(file) };
        let mut it = Self { line: [0; LINE], name_at: 0, is_executable: false, offset: 0 };
        let (mut buffer, mut len) = ([0u8; 1024], 0);
        loop {
            // SAFETY: the buffer has this much room.
            let read =
                unsafe { libc::read(file.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) };
            let Ok(read @ 1..) = usize::try_from(read) else { return Ok(None) };
            for byte in &buffer[..read] {
                if *byte != b'\n' {
                    // The last byte stays NUL.
                    if len < LINE - 1 {
                        it.line[len] = *byte;
                        len += 1;
                    }
                } else if it.parse(len, address).is_some() {
                    return Ok(Some(it));
                } else {
                    it.line[..len].fill(0);
                    len = 0;
                }
            }
        }
    }

    /// "7f12a000-7f12b000 r-xp 00001000 08:01 123    /usr/lib/..." , if the address is in it.
    fn parse(&mut self, len: usize, address: usize) -> Option<()> {
        let line = &self.line[..len];
        let name_at = line.iter().position(|byte| *byte == b'/').unwrap_or(len);
        let mut words = std::str::from_utf8(&line[..name_at]).ok()?.split(' ');
        let (start, end) = words.next()?.split_once('-')?;
        let start = usize::from_str_radix(start, 16).ok()?;
        let end = usize::from_str_radix(end, 16).ok()?;
        let rights = words.next()?;
        let offset = i64::from_str_radix(words.next()?, 16).ok()?;
        (start..end).contains(&address).then(|| {
            self.is_executable = rights.as_bytes().get(2) == Some(&b'x');
            self.offset = offset + (address - start) as i64;
            self.name_at = name_at;
        })
    }

    /// The file's name, "" if it is of none.
    #[allow(dead_code, reason = "as above")]
    pub(crate) fn name(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.line[self.name_at..]).unwrap_or_default()
    }
}

#[cfg(all(test, not(miri)))]
mod tests {
    use super::*;

    #[test]
    fn the_file_of_an_address_is_found() {
        let code = the_file_of_an_address_is_found as *const () as usize;
        let mapping = Mapping::of(code).unwrap().expect("code comes from a file");
        let program = std::env::current_exe().unwrap();
        assert_eq!(mapping.name().to_str().unwrap(), program.to_str().unwrap());
        assert!(mapping.is_executable);
        assert!(Mapping::of(0x10).unwrap().is_none());
    }
}
