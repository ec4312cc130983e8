//! Closing a scope with all patience: several threads close it at once, and each is back when it has
//! ended.
//!
//! A closer is seen by its cell while it passes over what the scope owns, which is one callback here
//! or none; so is a thread that ends while it detaches. Who finds the scope empty and nobody there
//! ends it, one of them; the others sleep until something changes. What changes tells them as long as
//! the scope is only revoked: for all that comes later, who ends it has told them.
//!
//! Nobody closes inside of what it closes, so no deadlocks are looked for; and no barrier is refused.

use crate::ghost::Event;
use crate::machine::{Kind, Loc, Op};
use crate::mutations::Mutation::*;
use crate::thread::{Thread, cells, user_data_of, word_of};
use crate::values::{CLOSING, Handle, Val, word};

pub(crate) const SCOPE: Handle = Handle { slot: 2, generation: 0 };

/// How many callbacks the scope has. A step on it stands for what is done under the lock of the list.
pub(crate) const MEMBERS: Loc = Loc(Kind::Members, SCOPE.slot);
const CHANGES: Loc = Loc(Kind::Changes, SCOPE.slot);

impl Thread {
    /// `unwound`: out of its pass, by a destroy function. Others do what is left of it, and wait.
    pub(crate) async fn close_scope(&self, unwound: bool) {
        let close = async {
            self.revoke_word(SCOPE).await;
            if self.is_gone(SCOPE).await {
                return;
            }
            if let Some(member) = self.rules.member {
                self.revoke_word(member).await;
            }
            self.end_members().await;
            if unwound {
                return;
            }
            let round = || async {
                let late = self.is(ChangesAfterLook);
                let seen = if late { None } else { Some(self.load(CHANGES).await) };
                if self.is_quiet().await || !self.is_revoked(SCOPE).await {
                    self.end_empty().await;
                    return Some(());
                }
                let expect = match seen {
                    Some(seen) => seen,
                    None => self.load(CHANGES).await,
                };
                let sleep =
                    Op::FutexWait { at: CHANGES, mask: Val::MAX, expect, may_time_out: false };
                self.port.step(sleep).await;
                None
            };
            self.port.repeat(round).await;
        };
        self.step("close", SCOPE, close).await;
    }

    /// Finalizes the member, unless somebody is inside.
    async fn end_members(&self) {
        let pass = async {
            let cell = self.cell(self.free_cell().await);
            self.swap(cell, CLOSING).await;
            if !self.rules.fallback {
                self.port.step(Op::HeavyBarrier).await;
            }
            if let Some(member) = self.rules.member
                && !self.is_occupied(member).await
            {
                self.finalize_unless_kept(member, false).await;
            }
            self.swap(cell, 0).await;
            if !self.is(PassTellsNobody) {
                self.tell_closers_if_revoked().await;
            }
        };
        self.port.scope("pass", pass).await;
    }

    /// Has every destroy returned, and does nobody detach, nor pass over the scope?
    async fn is_quiet(&self) -> bool {
        let look = async {
            if self.test(MEMBERS, |count| count != 0).await {
                return false;
            }
            self.port.step(Op::Fence).await;
            for sought in [SCOPE.id(), CLOSING] {
                for cell in (0..self.rules.records).flat_map(cells) {
                    if self.test(cell, |found| found == sought).await {
                        return false;
                    }
                }
            }
            true
        };
        self.port.scope("look", look).await
    }

    /// One of those who close the scope ends it.
    async fn end_empty(&self) {
        let (revoked, ends) = (word::new(SCOPE, word::REVOKED), word::new(SCOPE, word::FINALIZING));
        if self.cas(word_of(SCOPE), revoked, ends).await.is_err() {
            self.sleep_until_gone(SCOPE, false).await;
            return;
        }
        if let Some(member) = self.rules.member {
            self.tell(Event::Awaited(member));
        }
        if !self.is(WinnerTellsNobody) {
            self.tell_closers().await;
        }
        self.destroy_and_free(SCOPE).await;
    }

    /// The member's destroy has returned: takes it off the list.
    pub(crate) async fn leave_scope(&self) {
        let leave = async {
            self.port.step(Op::Add(MEMBERS, Val::MAX)).await;
            if !self.is_live(SCOPE).await && !self.is(LastMemberTellsNobody) {
                self.tell_closers().await;
            }
        };
        self.port.scope("leave the scope", leave).await;
    }

    /// The thread ends, and had been attached to the scope.
    pub(crate) async fn detach(&self) {
        let detach = async {
            if !self.is_live(SCOPE).await {
                return;
            }
            let cell = self.cell(self.free_cell().await);
            self.swap_or_store(self.is(PlainDetach), cell, SCOPE.id()).await;
            let runs = self.is(DetachUnchecked) || self.is_live(SCOPE).await;
            if runs {
                self.tell(Event::Begins(SCOPE));
                let found = self.load(user_data_of(SCOPE)).await;
                self.tell(Event::Reads(SCOPE, found));
            }
            self.swap_or_store(self.is(DetachLeavesPlainly), cell, 0).await;
            if runs {
                self.tell(Event::Ends(SCOPE));
            }
            if !self.is(DetachTellsNobody) {
                self.tell_closers_if_revoked().await;
            }
        };
        self.step("detach", SCOPE, detach).await;
    }

    /// The cell, then the word. Not revoked any more: who ends the scope has told them.
    async fn tell_closers_if_revoked(&self) {
        if self.is_revoked(SCOPE).await {
            self.tell_closers().await;
        }
    }

    async fn tell_closers(&self) {
        self.port.step(Op::Add(CHANGES, 1)).await;
        self.port.step(Op::FutexWake(CHANGES)).await;
    }
}
