//! The log's way out. Formatting allocates, and where there is no memory that aborts: a line, or the
//! log, is then left out.

use super::cancel::NotNow;
use super::{environment, memory};

/// More than a line, and more than the start of the logger, takes.
const LINE: usize = 16 << 10;
const START: usize = 256 << 10;

/// Prints the log to stderr if `CALLBRIDGE_LOG` says so (env_logger's syntax).
pub(crate) fn start() {
    let Some(filter) = environment::variable(c"CALLBRIDGE_LOG") else { return };
    if let (Ok(filter), true) = (filter.to_str(), memory::is_there(START)) {
        // A Rust host that links the crate may have a logger of its own: that one stays.
        let _ = env_logger::Builder::new().parse_filters(filter).try_init();
    }
}

/// A warning, whose words are made only if somebody listens.
pub(crate) fn warn(words: impl FnOnce() -> String) {
    if log::log_enabled!(target: "callbridge", log::Level::Warn) && memory::is_there(LINE) {
        // Who is cancelled in the middle of a line would leave what it was about to do after it.
        let _not_now = NotNow::begin();
        log::warn!(target: "callbridge", "{}", words());
    }
}
