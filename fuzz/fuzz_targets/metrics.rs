//! Names in metrics: whatever a callback is called, the text stays one that OpenMetrics' grammar allows, and a
//! label's value is the name.
#![no_main]

mod c;

use c::*;
use libfuzzer_sys::fuzz_target;
use std::ffi::{CString, c_char, c_void};
use std::ptr::null_mut;

unsafe extern "C" fn nothing(_: *mut c_void, _: *mut c_void) -> isize {
    0
}

unsafe extern "C" fn keep(text: *mut c_void, data: *const c_char, len: usize) {
    // SAFETY: from `metrics`; the library's text.
    let (text, data) = unsafe {
        (&mut *text.cast::<Vec<u8>>(), std::slice::from_raw_parts(data.cast::<u8>(), len))
    };
    text.extend_from_slice(data);
}

fn metrics() -> String {
    let mut text = Vec::new();
    // SAFETY: `keep` gets what it expects.
    assert_eq!(unsafe { cbr_metrics(0, Some(keep), (&raw mut text).cast()) }, CBR_OK);
    String::from_utf8(text).expect("UTF-8")
}

/// `{name="value",...} number`: the values, unescaped, and what is behind the brace.
fn labels(mut rest: &str) -> (Vec<String>, &str) {
    let mut values = Vec::new();
    loop {
        let (name, more) = rest.split_once("=\"").expect("a label");
        assert!(name.bytes().all(|it| it.is_ascii_lowercase() || it == b'_'), "{name}");
        let (mut value, mut letters) = (String::new(), more.char_indices());
        let end = loop {
            match letters.next().expect("a quote at the end") {
                (end, '"') => break end + 1,
                (_, '\\') => value.push(match letters.next().expect("an escape").1 {
                    'n' => '\n',
                    escaped @ ('"' | '\\') => escaped,
                    other => panic!("\\{other}"),
                }),
                (_, letter) => value.push(letter),
            }
        };
        values.push(value);
        let more = &more[end..];
        match more.strip_prefix(',') {
            Some(next) => rest = next,
            None => return (values, more.strip_prefix('}').expect("a brace at the end")),
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let name = CString::new(&bytes[..end]).unwrap();
    let options = cbr_callback_options {
        size: size_of::<cbr_callback_options>(),
        // SAFETY: never called.
        function: unsafe { std::mem::transmute::<*const (), cbr_any_fn>(nothing as *const ()) },
        user_data: null_mut(),
        destroy: None,
        signature: 0,
        name: name.as_ptr(),
        scope: 0,
        home: 0,
        destroy_queue: 0,
        flags: CBR_METERED,
        on_error: None,
        fallback: 0,
    };
    let mut handle = 0;
    // SAFETY: what the header asks for.
    let status = unsafe { cbr_register_with(&options, &mut handle) };
    let is_name = name.to_bytes().len() <= 255 && name.to_str().is_ok();
    assert_eq!(status == CBR_OK, is_name);
    if status != CBR_OK {
        return;
    }
    let text = metrics();
    let (body, end) = text.split_at(text.len() - "# EOF\n".len());
    assert_eq!(end, "# EOF\n");
    let mut found = false;
    for line in body.lines().filter(|line| !line.starts_with("# ")) {
        let split = line.find(['{', ' ']).expect("a sample");
        let (metric, rest) = line.split_at(split);
        assert!(metric.bytes().all(|it| it.is_ascii_alphanumeric() || it == b'_'), "{line}");
        let rest = match rest.strip_prefix('{') {
            Some(rest) => {
                let (values, rest) = labels(rest);
                // After 256 names it is called "other".
                found |= metric == "callbridge_callback_calls_total"
                    && (values[0].as_bytes() == name.to_bytes() || values[0] == "other");
                rest
            }
            None => rest,
        };
        let number = rest.strip_prefix(' ').expect("a blank");
        assert!(number.parse::<f64>().is_ok(), "{line}");
    }
    assert!(found, "{name:?} is no label's value");
    // SAFETY: a handle.
    unsafe { cbr_unregister(handle) };
});
