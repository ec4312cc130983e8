//! Section "Checks": how much is checked.

use super::status::cbr_status;
use super::{report, with_record};
use crate::engine::ENGINE;
use crate::engine::check::Level;
use crate::error::Error;
use crate::platform::logging;

/// cbr_set_check sets how much is checked from now on, also for callbacks that were registered before.
/// `level`: 0: handles only; the signature that is given to cbr_enter and cbr_hold is not compared.
/// 1: the default. 2: also, whether functions that are registered are code (CBR_ERR_INVALID), and how
/// long calls (not pins) take: from CALLBRIDGE_SLOW_MS
/// milliseconds on (default 100) the callback is logged by name; and where each callback is registered is
/// noted, for cbr_report. Level 2 makes calls slower; back at
/// level 1 they are as before.
/// The environment variable CALLBRIDGE_CHECK sets the level at the first use of the library.
/// Threads: any.
/// Returns: CBR_OK; CBR_ERR_INVALID for another level.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn cbr_set_check(level: u32) -> cbr_status {
    const UNKNOWN: Error = Error::Invalid("the level is not 0, 1 or 2");
    let set = with_record(|_| {
        ENGINE.set_check_level(Level::from_number(level).ok_or(UNKNOWN)?);
        logging::debug(format_args!("the check level is {level}"));
        Ok(())
    });
    report("cbr_set_check", 0, set)
}
