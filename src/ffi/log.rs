//! Section "Log": where the library's lines go.

use super::callback::cbr_destroy_fn;
use super::scope::cbr_scope;
use super::status::cbr_status;
use super::{report, utf8, with_record};
use crate::engine::invoke::{AnyFn, function_at};
use crate::engine::{ColdParts, Handle, Registration};
use crate::error::Error;
use crate::features::log;
use crate::platform::logging;
use crate::registry;
use std::ffi::{c_char, c_void};

/// Levels of log lines. OFF is no line's.
pub const CBR_LOG_OFF: u32 = 0;
/// What the system refused: memory, descriptors.
pub const CBR_LOG_ERROR: u32 = 1;
/// What the host has done wrong, and was kept from harm.
pub const CBR_LOG_WARN: u32 = 2;
pub const CBR_LOG_INFO: u32 = 3;
/// What a developer may want to follow.
pub const CBR_LOG_DEBUG: u32 = 4;
pub const CBR_LOG_TRACE: u32 = 5;

/// cbr_log_fn takes a line of the log: its level, CBR_LOG_ERROR to CBR_LOG_TRACE, its target, "callbridge",
/// and its words, which live until it returns. It is called on the thread that the line is about, inside the
/// function of the library that has something to say, and holds no lock. It may use the library: lines that
/// come of that do not reach it again, and cbr_last_error is afterwards what it was before. An exception,
/// pthread_exit or a cancellation passes through, but ends the process if the line is about something that
/// an exception or a thread's end is leaving already. Lines are cut at 1,023 bytes.
#[allow(non_camel_case_types, reason = "a C type")]
pub type cbr_log_fn = Option<
    unsafe extern "C-unwind" fn(
        user_data: *mut c_void,
        level: u32,
        target: *const c_char,
        message: *const c_char,
    ),
>;

/// cbr_log_to has the log's lines of up to `level` go to `fn` from now on, in place of the sink before;
/// other threads may be in the middle of a line for that one. Beside it, lines still go to stderr, if
/// CALLBRIDGE_LOG or cbr_log_to_stderr says so. There is a warning for whatever is refused because the host
/// has done something wrong, with the callback's name; the first, second, fourth and so on of each callback
/// and reason, and 100 a second at most. (Of a callback that is gone the name is known if it ended lately,
/// and somebody was listening.) Nobody listens at first, and then nothing is formatted.
/// `fn` NULL: no sink from now on; `user_data` and `destroy` are not looked at.
/// `level`: CBR_LOG_OFF to CBR_LOG_TRACE.
/// `owner`: the scope whose code `fn` is: closing it ends the sink, and waits for it. 0: nobody's.
/// Ownership: as cbr_register: `destroy` runs exactly once, when another sink has taken the place or the
/// owner is closed, and nobody is inside `fn`. The sink counts as a callback in statistics and reports, with
/// the name "cbr_log_to"; its lines do not count as calls.
/// Threads: any, also inside the sink.
/// Returns: CBR_OK; CBR_ERR_INVALID for another level, or, with cbr_set_check(2), a function that is no
/// code; CBR_ERR_CLOSED, CBR_ERR_STALE or CBR_ERR_KIND for the owner; CBR_ERR_LIMIT at 2^28 objects;
/// CBR_ERR_NOMEM.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn cbr_log_to(
    r#fn: cbr_log_fn,
    user_data: *mut c_void,
    destroy: cbr_destroy_fn,
    owner: cbr_scope,
    level: u32,
) -> cbr_status {
    let set = with_record(|record| {
        if level > CBR_LOG_TRACE {
            return Err(Error::Invalid("the level is not one of CBR_LOG_OFF to CBR_LOG_TRACE"));
        }
        let sink = match r#fn {
            None => Handle(0),
            Some(function) => {
                // Called as what it is, in `invoke::sink`.
                let function: AnyFn = function_at(function as *const ());
                let new = Registration {
                    function,
                    user_data,
                    destroy,
                    signature: log::SINK,
                    cold: ColdParts::of_guest("cbr_log_to", Handle(owner), 0),
                };
                registry::register(record, &new, false, cbr_log_to as *const ())?
            }
        };
        log::set_sink(record, sink, level);
        Ok(())
    });
    report("cbr_log_to", owner, set)
}

/// cbr_log_to_stderr prints the log to stderr from now on, as far as `filter` lets it through, beside the
/// sink of cbr_log_to. Each different filter takes some memory that stays.
/// `filter`: env_logger's syntax, such as "warn", "callbridge=debug" or "off"; copied. NULL: as the variable
/// CALLBRIDGE_LOG says, and "warn" if it is not set or empty. (With the variable the log is printed from the
/// library's first use on.)
/// Threads: any.
/// Returns: CBR_OK; CBR_ERR_INVALID if the filter is not UTF-8, of another syntax, or longer than 1,500
/// bytes: the one before stays; CBR_ERR_EXISTS in a Rust program that has a logger of its own, where the lines
/// go; CBR_ERR_NOMEM.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn cbr_log_to_stderr(filter: *const c_char) -> cbr_status {
    let set = with_record(|_| {
        // SAFETY: the caller's promise.
        let filter = unsafe { utf8(filter, "the filter is not UTF-8") }?;
        logging::to_stderr(filter)
    });
    report("cbr_log_to_stderr", 0, set)
}

const _: () = {
    use logging::Level::{Debug, Error, Info, Trace, Warn};
    assert!(CBR_LOG_ERROR == Error as u32 && CBR_LOG_WARN == Warn as u32);
    assert!(CBR_LOG_INFO == Info as u32 && CBR_LOG_DEBUG == Debug as u32);
    assert!(CBR_LOG_TRACE == Trace as u32);
};
