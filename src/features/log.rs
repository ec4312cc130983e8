//! The log's sink: a function of the host's that gets the lines.

use crate::engine::guest::GuestPlace;
use crate::engine::signature::Signature;
use crate::engine::{self, ENGINE, Handle, Record, invoke};
use crate::platform::logging::{self, Level};
use crate::sync::Lock;
use std::ffi::CStr;

/// void(u32, ptr, ptr)
pub(crate) const SINK: Signature = Signature(3 << 60 | 1 << 56 | 8 << 52 | 13 << 48 | 13 << 44);

static PLACE: GuestPlace = GuestPlace::new();
/// To be held by who changes place and level, which belong together.
static CHANGING: Lock = Lock::new();

/// Lines of up to `level` go to this callback, registered as a [`SINK`], from now on; those on their way may
/// still go to the one before, which ends.
pub(crate) fn set_sink(record: &Record, sink: Handle, level: u32) {
    let old = {
        let _section = ENGINE.section(record);
        let _changing = CHANGING.lock();
        let old = PLACE.replace(sink);
        logging::set_sink(if sink.0 == 0 { 0 } else { level }, forward);
        old
    };
    // Gone already, if its scope is closed.
    let _ = ENGINE.unregister(record, old);
}

/// Gives a line to the sink, unless this thread is inside it.
fn forward(level: Level, words: &CStr) {
    let Ok(record) = engine::joined() else { return };
    let sink = PLACE.get();
    match ENGINE.enter_guest(record, sink) {
        Ok(Some(visit)) => {
            let (function, user_data) = visit.function();
            invoke::sink(function, user_data, level as u32, logging::TARGET, words);
        }
        Ok(None) => {}
        // Its scope is closed.
        Err(_) => {
            let _section = ENGINE.section(record);
            let _changing = CHANGING.lock();
            if PLACE.forget(sink) {
                logging::set_sink(0, forward);
            }
        }
    }
}
