//! Being inside: enter, leave, hold.

use crate::ghost::Event;
use crate::machine::{Loc, Op};
use crate::mutations::Mutation::*;
use crate::thread::{Thread, bias_of, cells, holds_of, mark_of, user_data_of, word_of};
use crate::values::{Handle, Val, generation, mark, word};

impl Thread {
    /// Whether the call was let in.
    pub(crate) async fn call(&self, h: Handle) -> bool {
        let call = async {
            let Some(cell) = self.enter(h).await else { return false };
            self.run_callback(h).await;
            self.leave(h, cell).await;
            true
        };
        self.step("call", h, call).await
    }

    pub(crate) async fn run_callback(&self, h: Handle) {
        let found = self.load(user_data_of(h)).await;
        self.tell(Event::Reads(h, found));
    }

    /// The cell that protects the call, by number, unless the call is refused.
    pub(crate) async fn enter(&self, h: Handle) -> Option<u8> {
        let enter = async {
            let number = self.free_cell().await;
            let cell = self.cell(number);
            let biased = self.test(bias_of(self.record), |bias| bias == h.id()).await;
            self.swap_or_store(biased || self.is(PlainPublish), cell, h.id()).await;
            let let_in = if biased {
                self.is_live(h).await
            } else if self.is(WordBeforeMark) {
                self.is_live(h).await
                    && (self.test(mark_of(h), |mark| mark::names(mark, self.record)).await
                        || self.claim_mark(h).await && self.is_live(h).await)
            } else {
                self.claim_mark(h).await && self.is_live(h).await
            };
            if let_in {
                self.tell(Event::Begins(h));
            } else if !self.is(FailedEnterStays) {
                let plain = !self.rules.fallback || self.is(FailedEnterClearsPlainly);
                self.swap_or_store(plain, cell, 0).await;
                if !self.is(FailedEnterOnlyClears) {
                    self.finalize_if_revoked(h).await;
                }
            }
            if !(biased && let_in) {
                self.drop_bias().await;
            }
            let_in.then_some(number)
        };
        self.step("enter", h, enter).await
    }

    /// The last of a long run of calls that are published by exchange: the next ones are not.
    pub(crate) async fn lean(&self, h: Handle) {
        let lean = async {
            let Some(cell) = self.enter(h).await else { return };
            if !self.rules.fallback {
                self.swap_or_store(self.is(PlainBias), bias_of(self.record), h.id()).await;
            }
            self.leave(h, cell).await;
        };
        self.step("lean", h, lean).await;
    }

    pub(crate) async fn drop_bias(&self) {
        if self.test(bias_of(self.record), |bias| bias != 0).await {
            self.store(bias_of(self.record), 0).await;
        }
    }

    pub(crate) async fn free_cell(&self) -> u8 {
        let search = async {
            for (number, cell) in (0..).zip(cells(self.record)) {
                if self.load(cell).await == 0 {
                    return number;
                }
            }
            self.tell(Event::Fault("no cell is free: one was left set, or there are too few"));
            0
        };
        self.port.scope("", search).await
    }

    pub(crate) fn cell(&self, number: u8) -> Loc {
        cells(self.record)[usize::from(number)]
    }

    /// Makes sure that the mark names this record. One of another generation is never touched.
    async fn claim_mark(&self, h: Handle) -> bool {
        let claim = async {
            let (mine, many) = (self.mark(h, 1 + self.record), self.mark(h, mark::MANY));
            let mut seen = self.load(mark_of(h)).await;
            while seen != mine && seen != many {
                let free = mark::who(seen) == mark::FREE;
                if generation(seen) != generation(mine) || free && !self.is(ClaimsFreeMark) {
                    return false;
                }
                let first = free || mark::who(seen) == mark::NOBODY;
                let new = if first { mine } else { many };
                if self.is(MarkBySwap) {
                    if self.swap(mark_of(h), new).await != seen && first {
                        self.store(mark_of(h), many).await;
                    }
                    return true;
                }
                match self.cas(mark_of(h), seen, new).await {
                    Ok(()) => return true,
                    Err(found) => seen = found,
                }
            }
            true
        };
        self.port.scope("", claim).await
    }

    pub(crate) fn mark(&self, h: Handle, who: Val) -> Val {
        mark::new(if self.is(MarkWithoutGeneration) { 0 } else { h.generation }, who)
    }

    pub(crate) async fn is_live(&self, h: Handle) -> bool {
        let any = self.is(EnterIgnoresGeneration);
        let live = |w| if any { word::any_live(w) } else { word::is(w, h, word::LIVE) };
        self.test(word_of(h), live).await
    }

    pub(crate) async fn is_revoked(&self, h: Handle) -> bool {
        self.test(word_of(h), |word| word::is(word, h, word::REVOKED)).await
    }

    pub(crate) async fn leave(&self, h: Handle, cell: u8) {
        let leave = async {
            let early = self.is(NoLightBarrier) && self.is_revoked(h).await;
            let plain = !self.rules.fallback || self.is(LeavesPlainly);
            self.swap_or_store(plain, self.cell(cell), 0).await;
            self.tell(Event::Ends(h));
            if !self.is(NoLightBarrier) {
                self.finalize_if_revoked(h).await;
            } else if early {
                self.finalize_cold(h).await;
            }
        };
        self.step("leave", h, leave).await;
    }

    /// A thread ends inside a pin.
    pub(crate) async fn end_inside(&self, h: Handle, cell: u8) {
        if !self.is(ThreadEndOnlyClears) {
            return self.leave(h, cell).await;
        }
        self.store(self.cell(cell), 0).await;
        self.tell(Event::Ends(h));
    }

    /// Whether the hold was granted.
    pub(crate) async fn hold(&self, h: Handle) -> bool {
        let hold = async {
            let Some(cell) = self.enter(h).await else { return false };
            if self.is(HoldLeavesFirst) {
                self.leave(h, cell).await;
            }
            self.port.step(Op::Add(holds_of(h), 1)).await;
            self.tell(Event::Begins(h));
            if !self.is(HoldLeavesFirst) {
                self.leave(h, cell).await;
            }
            true
        };
        self.step("hold", h, hold).await
    }

    pub(crate) async fn unhold(&self, h: Handle) {
        let unhold = async {
            self.port.step(Op::Add(holds_of(h), Val::MAX)).await;
            self.tell(Event::Ends(h));
            if !self.is(UnholdOnlyCounts) {
                self.finalize_if_revoked(h).await;
            }
        };
        self.step("unhold", h, unhold).await;
    }
}
