//! Section "Signatures".

use super::status::{CBR_OK, cbr_status};
use super::{Buffer, failed, utf8};
use crate::engine::signature::Signature;
use crate::error::Error;
use libc::size_t;
use std::ffi::c_char;
use std::fmt::Write;

/// cbr_signature says what a callback takes, after its `user_data`, and returns. A 64-bit constant
/// made by CBR_SIG: bits 63..60 the number of arguments (0 to 14), 59..56 the return type, then 4
/// bits an argument from bit 55 down. 0 is no signature.
#[allow(non_camel_case_types, reason = "a C type")]
pub type cbr_signature = u64;

/// cbr_signature_parse reads a signature such as "i32(ptr,ptr)" or "void()". The types are void,
/// bool, i8, u8, i16, u16, i32, u32, i64, u64, f32, f64 and ptr, and the platform's int, long, size
/// and intptr. Blanks between them are allowed.
/// Threads: any.
/// Returns: CBR_OK; CBR_ERR_INVALID if the text is NULL or no signature (a void argument, more than
/// 14 arguments, an unknown type), or `out` is NULL. Then `out` is unchanged.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn cbr_signature_parse(
    text: *const c_char,
    out: *mut cbr_signature,
) -> cbr_status {
    // SAFETY: the caller's promise.
    let text = unsafe { utf8(text, "the signature is not UTF-8") };
    let signature = text.and_then(|text| {
        if out.is_null() {
            return Err(Error::Invalid("out is NULL"));
        }
        let text = text.ok_or(Error::Invalid("the signature is NULL"))?;
        Signature::parse(text).map_err(Error::Invalid)
    });
    match signature {
        Ok(signature) => {
            // SAFETY: not NULL, and the caller's promise.
            unsafe { *out = signature.0 };
            CBR_OK
        }
        Err(error) => failed("cbr_signature_parse", 0, error),
    }
}

/// cbr_signature_format writes a signature in words, as cbr_signature_parse reads it;
/// "invalid(0x...)" for a number that is none. `buf`, `len` and the result are those of snprintf;
/// `buf` may be NULL to ask for the length.
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbr_signature_format(
    signature: cbr_signature,
    buf: *mut c_char,
    len: size_t,
) -> size_t {
    // SAFETY: the caller's promise.
    let mut out = unsafe { Buffer::new(buf, len) };
    let _ = write!(out, "{}", Signature(signature));
    out.finish()
}
