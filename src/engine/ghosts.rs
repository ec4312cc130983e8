//! The names of callbacks that have ended lately, so that the log can say whose handle it is that somebody
//! still uses. Remembered only while somebody listens to warnings.

use super::census::NameCopy;
use super::handle::Handle;
use super::name::Text;
use std::sync::Mutex;

const COUNT: usize = 256;

/// One for each remainder of a handle's index. Whoever finds it locked does without: it never waits, and so
/// a fork cannot leave anybody waiting.
static GHOSTS: Mutex<[Option<Ghost>; COUNT]> = Mutex::new([const { None }; COUNT]);

struct Ghost {
    handle: Handle,
    name: Text,
}

// SAFETY: a text is bytes that do not change, and counts its owners by atomics.
unsafe impl Send for Ghost {}

/// The callback ends, and this was its name, of which the ghost becomes an owner.
#[cold]
pub(super) fn remember(handle: Handle, name: Text) {
    let old = match GHOSTS.try_lock() {
        Ok(mut ghosts) => ghosts[handle.index() as usize % COUNT].replace(Ghost { handle, name }),
        Err(_) => Some(Ghost { handle, name }),
    };
    if let Some(old) = old {
        old.name.release();
    }
}

/// The name that this callback had, if it is remembered.
pub(super) fn name_of(handle: Handle) -> Option<NameCopy> {
    let ghosts = GHOSTS.try_lock().ok()?;
    let ghost = ghosts[handle.index() as usize % COUNT].as_ref()?;
    (ghost.handle == handle).then(|| NameCopy::of(ghost.name.as_str()))
}
