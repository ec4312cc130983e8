//! What this thread has looked up last: a small cache in front of a shared table.
//!
//! A reader that finds its answer here writes nothing that another core reads. The table counts its
//! changes, in [`Versions`]; an answer is as old as the count that was read before it was looked up, and
//! is worth nothing once the count has moved on.
//!
//! *Look-up against change*: the change is made, then counted, then its maker returns. Who reads the new
//! count looks up anew, and sees the change; who reads the old count reads it before the maker returned,
//! and the old answer is as good as the new one.

use super::handle::Handle;
use crate::sync::{AcqRel, Acquire, AtomicU64};
use std::cell::Cell;

/// Answers that a thread remembers, two a place. What is never used takes no memory: a record's pages
/// come when they are touched.
const PLACES: usize = if cfg!(any(loom, miri)) { 1 } else { 2048 };
/// Counters of a table: a change makes threads forget one in so many answers.
const COUNTERS: usize = if cfg!(any(loom, miri)) { 1 } else { 256 };

/// What is looked up: whose, which, and of what kind.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Question {
    pub(crate) scope: Handle,
    pub(crate) key: usize,
    pub(crate) event: u32,
}

impl Question {
    /// A number that spreads neighbouring keys (file descriptors, pointers) over all bits.
    #[inline(always)]
    fn mixed(self) -> u64 {
        // Fibonacci hashing (Knuth, TAOCP 6.4), with the parts folded together first.
        let folded = self.scope.0 ^ (self.key as u64) ^ u64::from(self.event) << 40;
        folded.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

/// Counts a table's changes. Counters share cache lines: they are read far more often than written, and
/// together stay in a processor's first cache.
#[repr(align(64))]
pub(crate) struct Versions([AtomicU64; COUNTERS]);

impl Versions {
    /// From 1: a fresh memo, all zero, remembers nothing.
    #[cfg(not(loom))]
    pub(crate) const fn new() -> Self {
        Self([const { AtomicU64::new(1) }; COUNTERS])
    }
    #[cfg(loom)]
    pub(crate) fn new() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(1)))
    }

    #[inline(always)]
    fn of(&self, question: Question) -> &AtomicU64 {
        &self.0[(question.mixed() >> 40) as usize % COUNTERS]
    }

    /// The count, to be read before the table is.
    #[inline(always)]
    pub(crate) fn current(&self, question: Question) -> u64 {
        // ORDER[memo] acquire; partner: `count`.
        self.of(question).load(Acquire)
    }

    /// What is asked for has changed, and no other thread changes it now.
    pub(crate) fn count(&self, question: Question) {
        // ORDER[memo] after the change, before its maker returns; partner: `current`.
        self.of(question).fetch_add(1, AcqRel);
    }
}

/// One thread's memory of one table. Zeroed memory remembers nothing.
pub(crate) struct Memo([[Cell<Answer>; 2]; PLACES]);

#[derive(Clone, Copy)]
struct Answer {
    question: Question,
    version: u64,
    handle: Handle,
}

impl Memo {
    #[cfg(loom)]
    pub(super) fn new() -> Self {
        let question = Question { scope: Handle(0), key: 0, event: 0 };
        let nothing = Answer { question, version: 0, handle: Handle(0) };
        Self(std::array::from_fn(|_| [Cell::new(nothing), Cell::new(nothing)]))
    }

    #[inline(always)]
    fn place(&self, question: Question) -> &[Cell<Answer>; 2] {
        &self.0[(question.mixed() >> 53) as usize % PLACES]
    }

    /// The answer, if the count is still `version`.
    #[inline(always)]
    pub(crate) fn recall(&self, question: Question, version: u64) -> Option<Handle> {
        self.place(question).iter().find_map(|answer| {
            let answer = answer.get();
            (answer.question == question && answer.version == version).then_some(answer.handle)
        })
    }

    /// The count was `version` before the answer was looked up.
    pub(crate) fn remember(&self, question: Question, version: u64, handle: Handle) {
        let [newer, older] = self.place(question);
        if newer.get().question != question {
            older.set(newer.get());
        }
        newer.set(Answer { question, version, handle });
    }
}
