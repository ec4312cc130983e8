//! unregister_wait: sleeping until destroy has returned, and seeing beforehand that it never would.

use crate::ghost::Event;
use crate::machine::{Kind, Loc, Op};
use crate::mutations::Mutation::*;
use crate::program::{Pack, pack};
use crate::thread::{Thread, cells, word_of};
use crate::values::{Handle, Val, generation, note, word};

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Destroy has returned, or this callback was gone before.
    Over,
    Deadlock,
    TimedOut,
}

pack! {
    Outcome, packed => [Outcome::Over, Outcome::Deadlock, Outcome::TimedOut][usize::from(packed)];
}

fn wait_flag_of(h: Handle) -> Loc {
    Loc(Kind::WaitFlag, h.slot)
}

impl Thread {
    pub(crate) async fn unregister_wait(&self, h: Handle, may_time_out: bool) -> Outcome {
        let wait = async {
            self.revoke(h).await;
            if self.is_gone(h).await {
                return Outcome::Over;
            }
            let note = Loc(Kind::Note, self.record);
            let last = self.load(note).await;
            let epoch = if self.is(NoteWithoutEpoch) { 0 } else { generation(last) + 1 };
            self.swap_or_store(self.is(PlainNote), note, note::new(epoch, Some(h))).await;
            let outcome = match self.never_ends(h).await {
                true => Outcome::Deadlock,
                false => self.sleep_until_gone(h, may_time_out).await,
            };
            self.store(note, note::new(epoch, None)).await;
            outcome
        };
        self.step("wait", h, wait).await
    }

    pub(crate) async fn is_gone(&self, h: Handle) -> bool {
        let gone = self.test(word_of(h), |word| generation(word) != h.generation).await;
        if gone {
            self.tell(Event::Awaited(h));
        }
        gone
    }

    pub(crate) async fn sleep_until_gone(&self, h: Handle, may_time_out: bool) -> Outcome {
        let round = || async {
            self.swap(wait_flag_of(h), 1).await;
            if !(self.rules.fallback || self.rules.refused || self.is(WaiterWithoutBarrier)) {
                self.port.step(Op::HeavyBarrier).await;
            }
            if self.is_gone(h).await {
                return Some(Outcome::Over);
            }
            if self.rules.refused && !self.is(WaiterLeavesPending) {
                // Perhaps nobody else comes by to drain, or sees the flag: looks again and again.
                self.settle_pending(h).await;
                self.until_not(word_of(h), word::new(h, word::FINALIZING)).await;
                return None;
            }
            let (at, mask, expect) = match self.is(SleepsOnFlag) {
                true => (wait_flag_of(h), Val::MAX, 1),
                // The generation: what others do to the flag cannot keep us asleep.
                false => (word_of(h), 0xf0, h.generation << 4),
            };
            let timed_out = self.port.step(Op::FutexWait { at, mask, expect, may_time_out }).await;
            (timed_out == 1).then_some(Outcome::TimedOut)
        };
        self.port.repeat(round).await
    }

    /// The registrant's part, before the slot is live: nobody waits for the new occupant yet.
    pub(crate) async fn forget_waiters(&self, h: Handle) {
        if self.test(wait_flag_of(h), |flag| flag == 1).await {
            self.store(wait_flag_of(h), 0).await;
        }
    }

    /// The finalizer's part: the word is free, in memory, before the flag is read.
    pub(crate) async fn wake_waiters(&self, h: Handle) {
        if self.test(wait_flag_of(h), |flag| flag == 1).await {
            // The flag stays: it may be that of a waiter of the next occupant already.
            if self.is(SleepsOnFlag) || self.is(WakerTakesFlag) {
                self.swap(wait_flag_of(h), 0).await;
            }
            let at = if self.is(SleepsOnFlag) { wait_flag_of(h) } else { word_of(h) };
            self.port.step(Op::FutexWake(at)).await;
        }
    }
}

// Deadlock detection: "waits for" is in the notes, "is inside" in the cells, which also hold what a
// thread destroys.
impl Thread {
    /// Follows what the end of `h` depends on; this thread inside of that closes a cycle.
    async fn never_ends(&self, h: Handle) -> bool {
        let search = || async {
            let mut needed = 1 << h.id();
            let mut followed = Vec::new();
            while !self.is_inside_any(self.record, needed).await {
                let before = followed.len();
                for other in (0..self.rules.records).filter(|&other| other != self.record) {
                    if followed.iter().any(|&(known, _)| known == other) {
                        continue;
                    }
                    let found = self.waits_inside(other, needed).await;
                    if let Some(next) = note::handle(found) {
                        needed |= 1 << next.id();
                        followed.push((other, found));
                    }
                }
                if followed.len() == before {
                    return Some(false);
                }
            }
            // Each was seen to wait, and then inside something, one after the other. If all of them
            // still wait as they did, they all have in between, and it is a cycle.
            for (other, found) in followed {
                if !self.is(CycleSeenOnce) && self.load(Loc(Kind::Note, other)).await != found {
                    return None;
                }
            }
            Some(true)
        };
        self.port.scope("deadlock", self.port.repeat(search)).await
    }

    /// The note of `other`, if it waits inside one of `needed`.
    async fn waits_inside(&self, other: u8, needed: u16) -> Val {
        let look = async {
            // The note first: who waits has left what it was inside before.
            let early = self.is(CellsBeforeNote) && self.is_inside_any(other, needed).await;
            let found = self.load(Loc(Kind::Note, other)).await;
            if note::handle(found).is_none() {
                return 0;
            }
            let inside =
                early || !self.is(CellsBeforeNote) && self.is_inside_any(other, needed).await;
            if inside { found } else { 0 }
        };
        self.port.scope("", look).await
    }

    async fn is_inside_any(&self, record: u8, handles: u16) -> bool {
        let scan = async {
            for cell in cells(record) {
                if self.test(cell, |found| found != 0 && handles >> found & 1 == 1).await {
                    return true;
                }
            }
            false
        };
        self.port.scope("", scan).await
    }
}
