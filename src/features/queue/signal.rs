//! Telling who waits for events that there are some, and no one else.
//!
//! The descriptor is raised when an event comes while somebody watches and it is not raised yet; it is
//! lowered by a dispatcher that finds nothing more. So it costs two system calls for a burst of
//! events, and none while nobody watches.
//!
//! *Post against sleep*: the event is published, then the word is looked at; a watcher says so in the
//! word, then looks for events. One of the two sees the other. *Post against lowering*: who lowers says
//! CLEARING, empties the descriptor, says QUIET, then looks for events; a post that finds it not QUIET
//! comes before that look. `src/tests/model_signal.rs` explores both.

use crate::platform::wake::Wake;
use crate::sync::{AtomicU32, SeqCst, TotalOrder};

/// Nothing is to be told, or nobody is there.
const QUIET: u32 = 0;
const RAISED: u32 = 1;
/// One thread is lowering it.
const CLEARING: u32 = 2;
/// Raised, and never lowered again: the queue takes no more.
const FOR_GOOD: u32 = 7;
/// About to be RAISED: not to be lowered before it is.
const RAISING: u32 = 4;
const STATE: u32 = 7;
/// One who watches.
const WATCHER: u32 = 8;

pub(crate) struct Signal {
    /// `watchers:29 | state:3`.
    word: AtomicU32,
    wake: Wake,
}

impl Signal {
    /// Fails with an errno.
    pub(crate) fn new() -> Result<Self, i32> {
        Ok(Self { word: AtomicU32::new(0), wake: Wake::new()? })
    }

    pub(crate) fn wake(&self) -> &Wake {
        &self.wake
    }

    /// Something was published: tells. True if the queue is closing, or closed.
    #[inline(always)]
    pub(crate) fn tell(&self) -> bool {
        // ORDER[signal] after the publication; partner: `watch`, then the watcher's look.
        let word = self.word.load_sc();
        match word & STATE {
            QUIET if word >= WATCHER => {
                self.raise(word);
                false
            }
            state => state == FOR_GOOD,
        }
    }

    #[cold]
    #[inline(never)]
    fn raise(&self, mut word: u32) {
        while word & STATE == QUIET {
            match self.word.cas_sc(word, word | RAISING) {
                Ok(_) => return self.finish_raising(),
                Err(now) => word = now,
            }
        }
    }

    fn finish_raising(&self) {
        self.wake.raise();
        let mut word = self.word.load_sc();
        // Else closed meanwhile.
        while word & STATE == RAISING {
            match self.word.cas_sc(word, word ^ RAISING ^ RAISED) {
                Ok(_) => return,
                Err(now) => word = now,
            }
        }
    }

    /// Somebody watches from now on, and looks for events before it sleeps.
    pub(crate) fn watch(&self) {
        // ORDER[signal] partner: `tell`.
        self.word.fetch_add(WATCHER, SeqCst);
        crate::sync::fence(SeqCst);
    }

    pub(crate) fn unwatch(&self) {
        self.word.fetch_sub(WATCHER, SeqCst);
    }

    /// Lowers the descriptor, unless `has_more`. Nothing was found.
    pub(crate) fn lower(&self, has_more: impl Fn() -> bool) {
        let mut word = self.word.load_sc();
        while word & STATE == RAISED {
            match self.word.cas_sc(word, word ^ RAISED ^ CLEARING) {
                Ok(_) => return self.clear(has_more),
                Err(now) => word = now,
            }
        }
    }

    #[cold]
    fn clear(&self, has_more: impl Fn() -> bool) {
        self.wake.lower();
        let mut word = self.word.load_sc();
        while word & STATE == CLEARING {
            // ORDER[signal] QUIET, then the look; partner: a post that still saw CLEARING.
            match self.word.cas_sc(word, word & !STATE) {
                Ok(_) => {
                    if has_more() {
                        self.tell();
                    }
                    return;
                }
                Err(now) => word = now,
            }
        }
        // Closed meanwhile: what was swallowed said so.
        self.wake.raise();
    }

    /// Raises it for ever.
    pub(crate) fn raise_for_good(&self) {
        self.word.fetch_or(FOR_GOOD, SeqCst);
        self.wake.raise();
    }
}
