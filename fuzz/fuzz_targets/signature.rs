//! Signatures in words: what is parsed is what is written, and what is written is parsed.
#![no_main]

mod c;

use c::*;
use libfuzzer_sys::fuzz_target;
use std::ffi::{CStr, CString};

fn words(signature: u64) -> CString {
    let mut buf = [0_u8; 256];
    // SAFETY: the buffer is as long as it is said.
    let len = unsafe { cbr_signature_format(signature, buf.as_mut_ptr().cast(), buf.len()) };
    assert!(len < buf.len());
    let words = CStr::from_bytes_until_nul(&buf).unwrap();
    assert_eq!(words.to_bytes().len(), len);
    words.to_owned()
}

fn parsed(text: &CStr) -> Option<u64> {
    let mut signature = 0;
    // SAFETY: NUL-terminated, and a place.
    (unsafe { cbr_signature_parse(text.as_ptr(), &mut signature) } == CBR_OK).then_some(signature)
}

fuzz_target!(|bytes: &[u8]| {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let text = CString::new(&bytes[..end]).unwrap();
    if let Some(signature) = parsed(&text) {
        assert_eq!(parsed(&words(signature)), Some(signature));
    }
    if let Some(number) = bytes.first_chunk() {
        let number = u64::from_le_bytes(*number);
        let words = words(number);
        match parsed(&words) {
            Some(signature) => assert_eq!(signature, number, "{words:?}"),
            None => assert!(words.to_bytes().starts_with(b"invalid("), "{words:?}"),
        }
    }
});
