//! The gate that a fork closes: what other threads change under locks must be whole in the child,
//! where those threads do not exist and nobody would ever unlock.
//!
//! A thread says in its record that it is in a [`Section`] before it looks at the gate; a fork closes
//! the gate before it looks at the records. So either the fork sees the thread and waits, or the
//! thread sees the gate and waits.

use super::Engine;
use super::record::Record;
use crate::platform::{clock, futex};
use crate::sync::{
    Acquire, AtomicU32, Relaxed, Release, SeqCst, TotalOrder, fence, light_barrier, spin_hint,
};

/// Milliseconds that a fork waits for other threads' sections at most. They take microseconds; but one
/// may wait for an allocator that another library has locked for this very fork.
const PATIENCE: u64 = 1000;

/// How many forks are on their way.
pub(crate) struct ForkGate(AtomicU32);

/// While it lives no fork happens. No host code runs in it, and nothing in it waits for another thread
/// but for another section's end.
pub(crate) struct Section<'a>(Option<&'a Record>);

impl ForkGate {
    #[cfg(not(loom))]
    pub(crate) const fn new() -> Self {
        Self(AtomicU32::new(0))
    }
    #[cfg(loom)]
    pub(crate) fn new() -> Self {
        Self(AtomicU32::new(0))
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
            // Acquire: partner: the parent's and the child's opening.
            let forks = self.fork_gate.0.load(Acquire);
            if forks == 0 {
                return Section(Some(record));
            }
            record.in_section.store(0, Release);
            futex::wait(&self.fork_gate.0, forks, None);
        }
    }

    /// This thread is about to fork: waits until no other one is in a section.
    pub(crate) fn before_fork(&self, mine: Option<&Record>) {
        self.fork_gate.0.fetch_add(1, SeqCst);
        // Refused: their stores are on the way, and arrive long before the fork is done.
        let _ = self.barrier.heavy();
        fence(SeqCst);
        let began = clock::milliseconds();
        for record in self.records.iter() {
            if mine.is_some_and(|mine| std::ptr::eq(mine, record)) {
                continue;
            }
            while record.in_section.load_sc() != 0 && clock::milliseconds() - began < PATIENCE {
                spin_hint();
            }
        }
    }

    /// The fork is done, and this is the parent.
    pub(crate) fn after_fork_in_parent(&self) {
        let mut forks = self.fork_gate.0.load(Relaxed);
        // Never below 0, should the library's first use and a fork come at once.
        while forks > 0 {
            match self.fork_gate.0.compare_exchange(forks, forks - 1, SeqCst, Relaxed) {
                Ok(_) => return futex::wake_all(&self.fork_gate.0),
                Err(current) => forks = current,
            }
        }
    }

    /// The same in the child, which has one thread: what follows in the handler may use `Section`.
    pub(crate) fn open_gate_in_child(&self) -> Section<'static> {
        self.fork_gate.0.store(0, Relaxed);
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
