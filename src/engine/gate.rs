//! The gate that a fork closes: what other threads change under locks must be whole in the child,
//! where those threads do not exist and nobody would ever unlock.
//!
//! A thread says in its record that it is in a [`Section`] before it looks at the gate; a fork closes
//! the gate before it looks at the records. So either the fork sees the thread and waits, or the
//! thread sees the gate and waits.
//!
//! The thread that forks goes through, for the host's handlers of this fork: those that it had registered
//! before its first use of the library run between ours. In the child no other thread is there.

use super::Engine;
use super::record::Record;
use crate::platform::{fork, futex};
use crate::sync::{
    Acquire, AtomicU32, AtomicU64, Relaxed, Release, SeqCst, TotalOrder, fence, light_barrier,
    spin_hint,
};
use std::time::{Duration, Instant};

/// How long a fork waits for other threads at most. Their sections take microseconds; but one may wait
/// for an allocator that another library has locked for this very fork, and another fork's handlers for
/// what the host has locked around this one.
const PATIENCE: Duration = Duration::from_secs(1);

/// Closed by one fork at a time.
pub(crate) struct ForkGate {
    closed: AtomicU32,
    /// The thread that has closed it ([`fork::this_thread`]), 0 if none.
    forker: AtomicU64,
}

/// While it lives no fork happens. No host code runs in it, and nothing in it waits for another thread
/// but for another section's end.
pub(crate) struct Section<'a>(Option<&'a Record>);

impl ForkGate {
    #[cfg(not(loom))]
    pub(crate) const fn new() -> Self {
        Self { closed: AtomicU32::new(0), forker: AtomicU64::new(0) }
    }
    #[cfg(loom)]
    pub(crate) fn new() -> Self {
        Self { closed: AtomicU32::new(0), forker: AtomicU64::new(0) }
    }

    /// Has the calling thread closed it, in this process or in the one that it was forked from?
    #[cold]
    fn is_mine(&self) -> bool {
        // Relaxed: who finds itself there has written it.
        self.forker.load(Relaxed) == fork::this_thread()
    }

    /// Closes it, when no other fork has it closed any more, or it is time.
    fn close(&self, until: Instant) {
        while self.closed.cas_sc(0, 1).is_err() {
            if self.is_mine() || Instant::now() >= until {
                return;
            }
            futex::wait(&self.closed, 1, Some(until));
        }
        self.forker.store(fork::this_thread(), Relaxed);
    }

    fn open(&self) {
        // Relaxed: before the next one can close it.
        self.forker.store(0, Relaxed);
        self.closed.store(0, Release);
    }
}

impl Engine {
    /// Begins a section. They do not nest.
    pub(crate) fn section<'a>(&self, record: &'a Record) -> Section<'a> {
        loop {
            debug_assert!(record.in_section.load(Relaxed) == 0);
            // ORDER[fork] ourselves, then the gate, by the light barrier or by exchange; partner:
            // `before_fork`, the gate, the heavy barrier, then the records.
            if record.leaves_by_exchange.get() {
                record.in_section.swap_sc(1);
            } else {
                record.in_section.store(1, Relaxed);
                light_barrier();
            }
            // Acquire: partner: `open`.
            if self.fork_gate.closed.load(Acquire) == 0 || self.fork_gate.is_mine() {
                return Section(Some(record));
            }
            record.in_section.store(0, Release);
            futex::wait(&self.fork_gate.closed, 1, None);
        }
    }

    /// This thread is about to fork: waits until no other one is in a section.
    pub(crate) fn before_fork(&self, mine: Option<&Record>) {
        let until = Instant::now() + PATIENCE;
        self.fork_gate.close(until);
        // Refused: their stores are on the way, and arrive long before the fork is done.
        let _ = self.barrier.heavy();
        fence(SeqCst);
        for record in self.records.iter() {
            if mine.is_some_and(|mine| std::ptr::eq(mine, record)) {
                continue;
            }
            while record.in_section.load_sc() != 0 && Instant::now() < until {
                spin_hint();
            }
        }
    }

    /// The fork is done, and this is the parent.
    pub(crate) fn after_fork_in_parent(&self) {
        // Not so if another fork had it closed for too long, or the library's first use and a fork came at
        // once.
        if self.fork_gate.is_mine() {
            self.fork_gate.open();
            futex::wake_all(&self.fork_gate.closed);
        }
    }

    /// The same in the child, which has one thread: what follows in the handler may use `Section`.
    pub(crate) fn open_gate_in_child(&self) -> Section<'static> {
        self.fork_gate.open();
        Section(None)
    }
}

impl Drop for Section<'_> {
    fn drop(&mut self) {
        if let Some(record) = self.0 {
            // Release: partner: the load in `before_fork`: the child sees what was done.
            record.in_section.store(0, Release);
        }
    }
}
