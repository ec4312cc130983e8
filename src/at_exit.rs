//! The end of the process: `CALLBRIDGE_LEAK_CHECK`.

use crate::engine::check::LeakCheck;
use crate::engine::{ENGINE, joined};
use crate::platform::output;
use crate::registry;
use crate::sync::Relaxed;

/// Runs behind whatever else runs at the end: handlers of `atexit`, destructors of C++ and of other objects.
/// The number puts it first into the program's list, where it is linked statically, and lists are gone
/// through from behind; a shared library comes after all that depend on it.
#[cfg(target_os = "linux")]
#[used]
#[unsafe(link_section = ".fini_array.00000")]
static AT_EXIT: extern "C" fn() = at_exit;

extern "C" fn at_exit() {
    let check = ENGINE.check.leak_check();
    // What is live in the child of a fork is the parent's, or a copy of it.
    // Relaxed: changes in a child that has one thread.
    if check == LeakCheck::Off || ENGINE.forks.load(Relaxed) != 0 {
        return;
    }
    match joined().and_then(registry::leaks) {
        Ok(None) => return,
        Ok(Some(text)) => output::last_words(text.as_bytes()),
        // All that fails is memory.
        Err(_) => output::last_words(b"callbridge: no memory to say what is live at exit\n"),
    }
    if let LeakCheck::ExitWith(code) = check {
        output::exit(code);
    }
}
