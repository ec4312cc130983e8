//! The end of a life: revoke, quiesce, finalize. Who leaves last finalizes.

use crate::ghost::Event;
use crate::machine::{Kind, Loc, Op};
use crate::mutations::Mutation::*;
use crate::program::{Pack, pack};
use crate::thread::{Thread, bias_of, cells, holds_of, mark_of, user_data_of, word_of};
use crate::values::{Handle, Val, generation, mark, word};

/// Where the other threads are.
#[derive(Clone, Copy, PartialEq)]
enum Others {
    Outside,
    /// One is inside, and entered by exchange.
    Inside,
    /// One is biased: before a heavy barrier its cells say nothing.
    Biased,
}

pack! {
    Others, packed => [Others::Outside, Others::Inside, Others::Biased][usize::from(packed)];
}

impl Thread {
    pub(crate) async fn unregister(&self, h: Handle) {
        let attempt = || async {
            let word = self.load(word_of(h)).await;
            (!word::is(word, h, word::LIVE) || self.end(h, word).await).then_some(())
        };
        self.step("unregister", h, self.port.repeat(attempt)).await;
    }

    /// Ends the life for everybody. False: the word has changed.
    pub(crate) async fn end(&self, h: Handle, word: Val) -> bool {
        let revoked = word::new(h, word::REVOKED);
        // Nobody else has called it, so most likely nobody is inside: one exchange instead of two.
        if self.is_mine(h).await && !self.inside(h, [self.record]).await {
            if self.cas(word_of(h), word, word::new(h, word::FINALIZING)).await.is_err() {
                return false;
            }
            let outside = self.is(ShortCutUnchecked) || self.is_mine(h).await;
            if outside && (self.is(ShortCutIgnoresHolds) || !self.is_held(h).await) {
                self.destroy_and_free(h).await;
                return true;
            }
            self.swap(word_of(h), revoked).await;
            self.quiesce(h, None).await;
            return true;
        }
        let early = self.is(MarkBeforeRevoke);
        let early = if early { Some(self.load(mark_of(h)).await) } else { None };
        if self.is(PlainRevoke) {
            self.store(word_of(h), revoked).await;
        } else if self.cas(word_of(h), word, revoked).await.is_err() {
            return false;
        }
        self.quiesce(h, early).await;
        true
    }

    /// Has nobody called, or this thread alone?
    async fn is_mine(&self, h: Handle) -> bool {
        let mine = [mark::FREE, mark::NOBODY, 1 + self.record];
        self.test(mark_of(h), |mark| mine.contains(&mark::who(mark))).await
    }

    /// Without the short cut: the beginning of a wait, also if somebody else has revoked.
    pub(crate) async fn revoke(&self, h: Handle) {
        let revoke = async {
            self.revoke_word(h).await;
            self.quiesce(h, None).await;
        };
        self.step("revoke", h, revoke).await;
    }

    pub(crate) async fn revoke_word(&self, h: Handle) {
        let attempt = || async {
            let word = self.load(word_of(h)).await;
            let live = word::is(word, h, word::LIVE);
            (!live || self.cas(word_of(h), word, word::new(h, word::REVOKED)).await.is_ok())
                .then_some(())
        };
        self.port.repeat(attempt).await;
    }

    /// The word is revoked: finalizes, unless somebody inside will come by later and do it.
    pub(crate) async fn quiesce(&self, h: Handle, early_mark: Option<Val>) {
        let quiesce = async {
            if self.is(OwnCellsFirst) && self.inside(h, [self.record]).await {
                return;
            }
            let held_early = self.is(HoldsBeforeScan) && self.is_held(h).await;
            let mark = match early_mark {
                Some(mark) => mark,
                None => self.load(mark_of(h)).await,
            };
            if self.others(h, mark).await != Others::Outside {
                if self.rules.refused && !self.is(RefusalNotPending) {
                    self.swap(Loc(Kind::Pending, 0), h.id()).await;
                }
                if self.rules.refused || self.rules.fallback {
                    return;
                }
                if !self.is(NoHeavyBarrier) {
                    self.port.step(Op::HeavyBarrier).await;
                }
                let ignored = self.is(SecondScanIgnored);
                let still = !ignored && self.inside(h, self.named_by(mark)).await;
                if still || self.is(NoSecondScan) {
                    return;
                }
            }
            self.finalize_unless_kept(h, held_early).await;
        };
        self.port.scope("quiesce", quiesce).await;
    }

    /// The end of every way out.
    pub(crate) async fn finalize_if_revoked(&self, h: Handle) {
        if self.is_revoked(h).await {
            self.finalize_cold(h).await;
        }
    }

    /// This thread's clearing is in memory: one scan tells whether it was the last to leave.
    pub(crate) async fn finalize_cold(&self, h: Handle) {
        let cold = async {
            if !self.is(NoLeaverFence) {
                self.port.step(Op::Fence).await;
            }
            let held_early = self.is(HoldsBeforeScan) && self.is_held(h).await;
            let mark = self.load(mark_of(h)).await;
            match self.others(h, mark).await {
                Others::Outside => self.finalize_unless_kept(h, held_early).await,
                Others::Inside => {}
                Others::Biased => self.quiesce(h, None).await,
            }
        };
        self.port.scope("cold", cold).await;
    }

    /// The others are outside; this thread may be inside, and holds may be out.
    pub(crate) async fn finalize_unless_kept(&self, h: Handle, held_early: bool) {
        if !self.is(OwnCellsIgnored) && self.inside(h, [self.record]).await {
            return;
        }
        let looks = !self.is(HoldsIgnored) && !self.is(HoldsBeforeScan);
        if !(held_early || looks && self.is_held(h).await) && self.win_finalization(h).await {
            self.destroy_and_free(h).await;
        }
    }

    pub(crate) async fn is_held(&self, h: Handle) -> bool {
        self.test(holds_of(h), |holds| holds != 0).await
    }

    fn named_by(&self, mark: Val) -> impl Iterator<Item = u8> {
        let others = (0..self.rules.records).filter(|&other| other != self.record);
        others.filter(move |&other| mark::names(mark, other))
    }

    /// The scan of the other records that `mark` names.
    async fn others(&self, h: Handle, mark: Val) -> Others {
        let scan = async {
            let mut found = Others::Outside;
            for other in self.named_by(mark) {
                // The bias first: a thread that has just dropped it shows its calls.
                let early = self.is(CellsBeforeBias);
                let inside = early && self.inside(h, [other]).await;
                let biased = self.test(bias_of(other), |bias| bias == h.id()).await;
                if biased && !self.is(BiasIgnored) {
                    return Others::Biased;
                }
                if inside || !early && self.inside(h, [other]).await {
                    found = Others::Inside;
                }
            }
            found
        };
        self.port.scope("scan", scan).await
    }

    async fn inside(&self, h: Handle, records: impl IntoIterator<Item = u8>) -> bool {
        let scan = async {
            for cell in records.into_iter().flat_map(cells) {
                if self.protects(cell, h).await {
                    return true;
                }
            }
            false
        };
        self.port.scope("", scan).await
    }

    async fn protects(&self, cell: Loc, h: Handle) -> bool {
        let any = self.is(CellsWithoutGeneration);
        let same = |found: Handle| found == h || any && found.slot == h.slot;
        self.test(cell, |found| Handle::from_id(found).is_some_and(same)).await
    }

    async fn win_finalization(&self, h: Handle) -> bool {
        let (mut expect, mut new) = (word::new(h, word::REVOKED), word::new(h, word::FINALIZING));
        if self.is(FinalizeWithoutWinner) {
            let won = self.is_revoked(h).await;
            if won {
                self.store(word_of(h), new).await;
            }
            return won;
        }
        if self.is(FinalizeAnyGeneration) {
            let whose = generation(self.load(word_of(h)).await);
            let other = Handle { generation: whose, ..h };
            (expect, new) = (word::new(other, word::REVOKED), word::new(other, word::FINALIZING));
        }
        self.cas(word_of(h), expect, new).await.is_ok()
    }

    pub(crate) async fn destroy_and_free(&self, h: Handle) {
        let finalize = async {
            // Who destroys counts as inside: a destroy function that waits can close a cycle.
            let cell = self.cell(self.free_cell().await);
            if !self.is(DestroyNotNoted) {
                self.store(cell, h.id()).await;
            }
            let found = self.load(user_data_of(h)).await;
            self.tell(Event::DestroyBegins(h, found));
            match &self.rules.destroy {
                Some((whose, body)) if *whose == h => body(self.clone()).await,
                _ => {}
            }
            self.tell(Event::DestroyReturns(h));
            if self.rules.member == Some(h) {
                self.leave_scope().await;
            }
            let who = if self.is(MarkWithoutGeneration) { mark::NOBODY } else { mark::FREE };
            self.store(mark_of(h), self.mark(h.next(), who)).await;
            let plain = !self.rules.fallback || self.is(PlainFree);
            self.swap_or_store(plain, word_of(h), word::new(h.next(), word::FREE)).await;
            self.wake_waiters(h).await;
            if !self.is(DestroyNotNoted) {
                self.store(cell, 0).await;
            }
        };
        self.step("finalize", h, finalize).await;
    }

    /// Takes over what refused barriers have left behind, for ever.
    pub(crate) async fn drain_pending(&self) {
        let at = Loc(Kind::Pending, 0);
        let round = || async {
            self.port.step(Op::Await { at, value: 0, other: true, idle: true }).await;
            if let Some(h) = Handle::from_id(self.swap(at, 0).await) {
                self.settle_pending(h).await;
            }
            None::<()>
        };
        self.port.repeat(round).await;
    }

    /// Looks again and again, until somebody has begun to finalize.
    pub(crate) async fn settle_pending(&self, h: Handle) {
        let attempt = || async {
            if !self.is_revoked(h).await {
                return Some(());
            }
            self.port.step(Op::Fence).await;
            for cell in (0..self.rules.records).flat_map(cells) {
                if self.protects(cell, h).await {
                    self.until_not(cell, h.id()).await;
                    return None;
                }
            }
            if self.is_held(h).await {
                self.until(holds_of(h), 0).await;
            }
            self.finalize_unless_kept(h, false).await;
            None
        };
        self.step("drain", h, self.port.repeat(attempt)).await;
    }
}
