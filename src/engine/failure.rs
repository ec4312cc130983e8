//! A callback that says it failed: `cbr_fail`.

use super::frame::Failed;
use super::message::Lossy;
use super::record::Record;
use super::{Engine, invoke};
use crate::error::Error;
use crate::platform::logging;
use std::ffi::CStr;

impl Engine {
    /// The innermost call, pin or destroy function of this thread failed: `cbr_fail`. The callback's
    /// error function is told `status`.
    pub(crate) fn fail(
        &self,
        record: &Record,
        panic: bool,
        status: i32,
        message: &CStr,
    ) -> Result<(), Error> {
        const OUTSIDE: Error = Error::Invalid("cbr_fail outside of any callback");
        let frame = record.innermost().ok_or(OUTSIDE)?;
        let handle = frame.handle();
        if !frame.tag.get().counts() {
            let (what, name) = (frame.tag.get().ending_of(handle), self.name_for_log(handle));
            let text = Lossy(message.to_bytes());
            logging::warn(format_args!("{what} {name} failed: {text}"));
            return Ok(());
        }
        record.messages.keep(frame, message.to_bytes());
        if frame.failed.get() == Failed::NO {
            record.failures.set(record.failures.get() + 1);
        }
        frame.failed.set(if panic { Failed::PANIC } else { Failed::CALLBACK });
        record.set_attention(true);
        // The frame keeps the callback alive, and with it its cold data.
        let slot = self.slots.at(handle.index());
        if let Some(on_error) = self.cold_of(slot).and_then(|cold| cold.on_error()) {
            let user_data = slot.user_data.load(crate::sync::Relaxed);
            invoke::on_error(on_error, user_data, handle, status, message);
        }
        Ok(())
    }
}
