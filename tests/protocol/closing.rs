//! Ending many at once, as the close of a scope does: the steps of ending one, taken for a whole set.
//!
//! Every word is revoked; then comes one heavy barrier, whoever is inside or biased; then each cell is
//! read once, for the whole set and whatever the marks say. Who is found inside was let in before the
//! barrier and leaves after it, or backs out: its leave finalizes. What nobody is found inside of is
//! finalized here.

use crate::machine::Op;
use crate::mutations::Mutation::*;
use crate::thread::{Thread, cells};
use crate::values::{Handle, Val};

/// What a close ends.
pub(crate) const SET: [Handle; 2] =
    [Handle { slot: 0, generation: 0 }, Handle { slot: 1, generation: 0 }];

#[derive(Clone, Copy)]
enum Part {
    Revoke(Handle),
    HeavyBarrier,
    Scan,
}

impl Thread {
    pub(crate) async fn close(&self) {
        let [first, last] = SET;
        let mut parts =
            vec![Part::Revoke(first), Part::Revoke(last), Part::HeavyBarrier, Part::Scan];
        if self.is(CloseScansBeforeRevoke) {
            parts[1..].rotate_right(1);
        } else if self.is(CloseScansBeforeBarrier) {
            parts.swap(2, 3);
        } else if self.is(CloseBarrierBeforeRevoke) {
            parts.swap(1, 2);
        }
        let close = async {
            let (mut occupied, mut held_early) = (0, [false; 2]);
            for part in parts {
                match part {
                    Part::Revoke(h) => self.revoke_word(h).await,
                    Part::HeavyBarrier if self.rules.refused => {
                        for h in SET {
                            self.quiesce(h, None).await;
                        }
                        return;
                    }
                    Part::HeavyBarrier => {
                        let asked = !self.is(CloseBarrierIfInside) || self.occupied().await != 0;
                        if asked && !self.rules.fallback && !self.is(CloseWithoutBarrier) {
                            self.port.step(Op::HeavyBarrier).await;
                        }
                    }
                    Part::Scan => {
                        for (h, held) in SET.into_iter().zip(&mut held_early) {
                            *held = self.is(HoldsBeforeScan) && self.is_held(h).await;
                        }
                        occupied = self.occupied().await;
                    }
                }
            }
            for (h, held_early) in SET.into_iter().zip(held_early) {
                if occupied & bit(h) == 0 {
                    self.finalize_unless_kept(h, held_early).await;
                }
            }
        };
        self.port.scope("close", close).await;
    }

    pub(crate) async fn is_occupied(&self, h: Handle) -> bool {
        self.occupied().await & bit(h) != 0
    }

    /// Which of the set other threads are inside of, a bit each.
    async fn occupied(&self) -> Val {
        let look = async {
            let mut occupied = 0;
            for cell in (0..self.rules.records).filter(|&r| r != self.record).flat_map(cells) {
                let found = async {
                    let found = self.load(cell).await;
                    SET.into_iter().filter(|h| h.id() == found).map(bit).sum::<Val>()
                };
                occupied |= self.port.scope("", found).await;
            }
            occupied
        };
        self.port.scope("scan for all", look).await
    }
}

fn bit(h: Handle) -> Val {
    1 << h.slot
}
