//! Trace contexts: what is accepted is what W3C's Trace Context allows, is kept as it was given, and goes
//! with an event.
#![no_main]

mod c;

use c::*;
use libfuzzer_sys::fuzz_target;
use std::ffi::{CStr, CString};
use std::ptr::null;

/// As the standard has it, in other words than the library's.
fn is_valid(text: &[u8]) -> bool {
    let hex = |part: &[u8]| part.iter().all(|it| matches!(it, b'0'..=b'9' | b'a'..=b'f'));
    let Some((head, rest)) = text.split_at_checked(55) else { return false };
    let parts: Vec<_> = head.split(|it| *it == b'-').collect();
    let [version, trace, parent, flags] = parts[..] else { return false };
    let lengths = (version.len(), trace.len(), parent.len(), flags.len()) == (2, 32, 16, 2);
    let nonzero = |part: &[u8]| part.iter().any(|it| *it != b'0');
    lengths
        && parts.iter().all(|it| hex(it))
        && nonzero(trace)
        && nonzero(parent)
        && version != b"ff"
        && (rest.is_empty() || version != b"00" && rest[0] == b'-')
}

fn get() -> CString {
    let mut buf = [0_u8; 4096];
    // SAFETY: the buffer is as long as it is said.
    let len = unsafe { cbr_trace_get(buf.as_mut_ptr().cast(), buf.len()) };
    let text = CStr::from_bytes_until_nul(&buf).unwrap().to_owned();
    assert!(len >= buf.len() || text.to_bytes().len() == len);
    text
}

fuzz_target!(|bytes: &[u8]| {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let text = CString::new(&bytes[..end]).unwrap();
    // SAFETY: NUL-terminated, or NULL.
    unsafe { assert_eq!(cbr_trace_set(null()), CBR_OK) };
    // SAFETY: as above.
    let status = unsafe { cbr_trace_set(text.as_ptr()) };
    if status == CBR_OK {
        assert!(is_valid(text.to_bytes()), "{text:?} was accepted");
        assert_eq!(get(), text);
    } else {
        // A limit on the length of what later versions append is the library's own.
        assert!(!is_valid(text.to_bytes()) || text.to_bytes().len() > 55, "{text:?} was refused");
        assert_eq!(get(), c"".to_owned());
    }
});
