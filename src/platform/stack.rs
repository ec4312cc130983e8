//! Who has called into the library. Walks the stack, which takes microseconds.

use std::ffi::c_void;
use std::ptr;

/// The frames that are noted of one stack.
pub(crate) const MAX_FRAMES: usize = 32;
/// Frames of the library itself that may lie above.
const OURS: usize = 16;
/// At a thread's first use the function calls itself, so that it shows twice, at most so many frames apart. (A
/// destroy function that runs then, and registers, is further away.)
const AGAIN: usize = 4;

#[allow(unused_doc_comments, reason = "for cbindgen, which takes them for the header")]
/// cbindgen:ignore
#[cfg(not(miri))]
unsafe extern "C" {
    fn _Unwind_Backtrace(
        show: unsafe extern "C" fn(*mut c_void, *mut c_void) -> i32,
        data: *mut c_void,
    ) -> i32;
    fn _Unwind_GetIP(frame: *mut c_void) -> usize;
    fn _Unwind_FindEnclosingFunction(address: *mut c_void) -> *mut c_void;
}

/// Return addresses, the innermost first.
pub(crate) struct Frames {
    all: [u64; OURS + MAX_FRAMES],
    begin: usize,
    end: usize,
    /// Did the function show that they are to begin behind?
    pub(crate) found: bool,
}

impl Frames {
    pub(crate) fn as_slice(&self) -> &[u64] {
        &self.all[self.begin..self.end]
    }
}

/// Those behind the function `entry` of the library, which is being called on this thread: at most `wanted`,
/// the first of them its caller. If `entry` does not show, all that there are.
#[cold]
#[inline(never)]
pub(crate) fn behind(entry: *const (), wanted: usize) -> Frames {
    let mut frames = Frames { all: [0; _], begin: 0, end: 0, found: false };
    #[cfg(miri)]
    let _ = (entry, wanted, &mut frames);
    #[cfg(not(miri))]
    {
        struct Walk<'a> {
            frames: &'a mut Frames,
            entry: usize,
            wanted: usize,
        }
        unsafe extern "C" fn look(frame: *mut c_void, walk: *mut c_void) -> i32 {
            const GO_ON: i32 = 0;
            const STOP: i32 = 4;
            // SAFETY: `_Unwind_Backtrace` gives a frame, and our own data.
            let (walk, address) = unsafe { (&mut *walk.cast::<Walk>(), _Unwind_GetIP(frame)) };
            let Walk { frames, entry, wanted } = walk;
            if address == 0 || frames.end == frames.all.len() {
                return STOP;
            }
            frames.all[frames.end] = address as u64;
            frames.end += 1;
            if frames.found && frames.end - frames.begin > AGAIN {
                return if frames.end - frames.begin < *wanted { GO_ON } else { STOP };
            }
            // The address is behind the call, which may be the function's last instruction.
            let inside = ptr::without_provenance_mut(address.wrapping_sub(1));
            // SAFETY: looks into the unwind tables, with any address.
            if unsafe { _Unwind_FindEnclosingFunction(inside) }.addr() == *entry {
                frames.found = true;
                frames.begin = frames.end;
            }
            GO_ON
        }
        let wanted = wanted.clamp(1, MAX_FRAMES);
        let mut walk = Walk { frames: &mut frames, entry: entry.addr(), wanted };
        // SAFETY: `look` gets what it expects, as long as this call lasts.
        unsafe { _Unwind_Backtrace(look, (&raw mut walk).cast()) };
        if !frames.found {
            // The first one is this function.
            frames.begin = frames.end.min(1);
        }
        frames.end = frames.end.min(frames.begin + wanted);
    }
    frames
}

#[cfg(all(test, not(any(loom, miri))))]
mod tests {
    use super::*;

    #[inline(never)]
    fn outer() -> (Frames, Frames) {
        let pair = (inner(), std::hint::black_box(behind(ptr::null(), MAX_FRAMES)));
        std::hint::black_box(pair)
    }

    #[inline(never)]
    fn inner() -> Frames {
        std::hint::black_box(behind(inner as *const (), 2))
    }

    #[test]
    fn frames_begin_with_the_caller_and_end_where_they_are_to() {
        let (behind_inner, all) = outer();
        assert_eq!(behind_inner.as_slice().len(), 2);
        let offset = behind_inner.as_slice()[0] as usize - outer as *const () as usize;
        assert!(offset < 4096, "{offset}");
        // The same stack: but for the place in `outer`, where it is another call.
        assert_eq!(behind_inner.as_slice()[1], all.as_slice()[1]);
        assert!(all.as_slice().len() > 3);
    }
}
