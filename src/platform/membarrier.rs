//! The expensive half of the asymmetric barrier: a full fence in every running thread of the
//! process, so that `leave` gets by with a plain store (membarrier(2), PRIVATE_EXPEDITED; the idea
//! is folly's AsymmetricThreadFence).

use super::environment;
use crate::sync::{AtomicU32, Relaxed};

/// How this process orders a leave against a revoke.
pub(crate) struct Barrier(AtomicU32);

/// As MEMBARRIER; nobody has asked the kernel yet.
const UNCHOSEN: u32 = 3;
/// Leaves are plain stores; who needs more calls membarrier.
const MEMBARRIER: u32 = 0;
/// Leaves are exchanges.
const EXCHANGE: u32 = 1;
/// Leaves are plain stores, and the kernel refuses what it had agreed to.
const REFUSED: u32 = 2;

/// What came of a heavy barrier.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Heavy {
    /// Every other thread has passed a full fence since the call began.
    Done,
    /// There is none: every leave is an exchange, which makes it needless.
    Needless,
    /// The kernel refused although it had agreed at the start.
    Refused,
}

impl Barrier {
    #[cfg(not(loom))]
    pub(crate) const fn new() -> Self {
        Self(AtomicU32::new(UNCHOSEN))
    }
    #[cfg(loom)]
    pub(crate) fn new() -> Self {
        Self(AtomicU32::new(UNCHOSEN))
    }

    /// Chooses once, before the first thread enters. `CALLBRIDGE_MEMBARRIER=0` forces the exchange.
    pub(crate) fn choose(&self) {
        let forbidden = environment::variable(c"CALLBRIDGE_MEMBARRIER").is_some_and(|v| v == c"0");
        let choice = if forbidden || !sys::register() { EXCHANGE } else { MEMBARRIER };
        // Relaxed: published with the first record. One choice, should two threads come at once.
        let _ = self.0.compare_exchange(UNCHOSEN, choice, Relaxed, Relaxed);
    }

    /// Every thread leaves by exchange. For models, before their first record.
    #[cfg(test)]
    pub(crate) fn use_exchange(&self) {
        // Relaxed: published with the first record.
        self.0.store(EXCHANGE, Relaxed);
    }

    pub(crate) fn is_exchange(&self) -> bool {
        // Relaxed: does not change once there are records.
        self.0.load(Relaxed) == EXCHANGE
    }

    /// Has the kernel refused what it had agreed to?
    pub(crate) fn is_refused(&self) -> bool {
        // Relaxed: a hint; who needs certainty asks for a barrier.
        self.0.load(Relaxed) == REFUSED
    }

    /// In the child of a fork, in case the kernel has forgotten the announcement.
    pub(crate) fn renew(&self) {
        // Relaxed: there is one thread.
        if self.0.load(Relaxed) == MEMBARRIER {
            sys::register();
        }
    }

    pub(crate) fn heavy(&self) -> Heavy {
        // Relaxed: who sees an old value asks the kernel itself.
        match self.0.load(Relaxed) {
            EXCHANGE => Heavy::Needless,
            MEMBARRIER | UNCHOSEN if sys::heavy() => Heavy::Done,
            _ => {
                // For good, so that all decide alike: threads go on leaving by plain stores, and
                // whoever meets one inside leaves the slot to engine/pending.rs.
                self.0.store(REFUSED, Relaxed);
                Heavy::Refused
            }
        }
    }
}

#[cfg(not(any(loom, miri)))]
pub(crate) mod sys {
    const CMD_PRIVATE_EXPEDITED: libc::c_int = 1 << 3;
    const CMD_REGISTER_PRIVATE_EXPEDITED: libc::c_int = 1 << 4;

    fn membarrier(command: libc::c_int) -> bool {
        // SAFETY: membarrier takes integers only.
        unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) == 0 }
    }

    /// Announces the use; false when kernel or seccomp filter refuse.
    pub(crate) fn register() -> bool {
        membarrier(CMD_REGISTER_PRIVATE_EXPEDITED) && heavy()
    }

    pub(super) fn heavy() -> bool {
        membarrier(CMD_PRIVATE_EXPEDITED)
    }
}

// Neither loom nor Miri has a membarrier. Their light barriers are fences, see sync.rs.
#[cfg(any(loom, miri))]
pub(crate) mod sys {
    pub(crate) fn register() -> bool {
        true
    }

    pub(super) fn heavy() -> bool {
        crate::sync::fence(crate::sync::SeqCst);
        true
    }
}
