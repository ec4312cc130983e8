//! The protocol with one step left out or changed. Each must be caught, or the scenarios prove
//! nothing about that step.

use Mutation::*;
use Where::*;

macro_rules! mutations {
    ($($name:ident $place:ident $by:literal $what:literal)*) => {
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub(crate) enum Mutation { $($name),* }

        /// Mutation, where it matters, the scenarios that catch it, what it does.
        pub(crate) const MUTATIONS: &[(Mutation, Where, &str, &str)] =
            &[$(($name, $place, $by, $what)),*];
    };
}

/// Some steps have nothing to do with or without membarrier.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Where {
    Both,
    Membarrier,
    Fallback,
}

impl Where {
    pub(crate) fn applies(self, fallback: bool) -> bool {
        self == Both || fallback == (self == Fallback)
    }
}

mutations! {
    PlainPublish             Both       "A1"     "enter: the cell by a plain store"
    WordBeforeMark           Both       "B3"     "enter: the word once more only if the mark changes"
    MarkBySwap               Both       "B1"     "enter: the mark by exchange"
    MarkWithoutGeneration    Both       "D5"     "the mark knows no generation"
    ClaimsFreeMark           Both       "D5"     "enter: a free slot's mark is taken as nobody's"
    EnterIgnoresGeneration   Both       "D1"     "enter: any live word will do"
    FailedEnterStays         Both       "A2"     "failed enter: the cell stays set"
    FailedEnterOnlyClears    Both       "A1"     "failed enter: no look at the word"
    FailedEnterClearsPlainly Fallback   "D5"     "failed enter: the cell by a plain store"
    LeavesPlainly            Fallback   "A1"     "leave: the cell by a plain store"
    NoLightBarrier           Both       "A1"     "leave: the word before the cell"
    NoLeaverFence            Membarrier "B2"     "cold leave: no fence before the scan"
    PlainBias                Membarrier "G1"     "bias: by a plain store"
    BiasIgnored              Membarrier "G1"     "scan: a biased thread is where its cells say"
    CellsBeforeBias          Membarrier "G4"     "scan: a thread's cells before its bias"
    ShortCutUnchecked        Both       "A1"     "short cut: no second look at the mark"
    ShortCutIgnoresHolds     Both       "H4"     "short cut: no look at the hold count"
    OwnCellsIgnored          Both       "C3 M17" "finalizes although the own record is inside"
    OwnCellsFirst            Membarrier "C1"     "revoke: inside itself, so back without the barrier"
    PlainRevoke              Both       "A1"     "revoke: the word by a plain store"
    MarkBeforeRevoke         Both       "B4"     "revoke: the mark before the word"
    NoHeavyBarrier           Membarrier "A1"     "revoke: no heavy barrier before the second scan"
    NoSecondScan             Membarrier "A1"     "revoke: no second scan, back as if it were busy"
    SecondScanIgnored        Membarrier "A1"     "revoke: no second scan, on as if it were idle"
    CellsWithoutGeneration   Both       "D5"     "scan: any handle of the slot counts"
    FinalizeWithoutWinner    Both       "A1 M8"  "finalize: FINALIZING by load and store"
    FinalizeAnyGeneration    Both       "D1"     "finalize: whatever is revoked"
    MarkAfterWord            Both       "D7"     "register: the word before the mark"
    MarkAfterHandOut         Both       "D4"     "register: the mark after the handle is out"
    RetainAfterRevoke        Both       "E1"     "retain: does not look at the phase"
    ThreadEndOnlyClears      Both       "I2"     "thread end: clears the cells and nothing more"
    HoldLeavesFirst          Both       "H1"     "hold: leaves, then counts"
    HoldsBeforeScan          Both       "H1 M14" "finalize: the hold count before the scan"
    HoldsIgnored             Both       "H1 M14" "finalize: does not look at the hold count"
    UnholdOnlyCounts         Both       "H1"     "unhold: no look at the word afterwards"
    RefusalNotPending        Membarrier "L1"     "refused barrier: back as if somebody came by"
    WaiterLeavesPending      Membarrier "L5"     "refused barrier: the waiter sleeps"
    CloseWithoutBarrier      Membarrier "M1 M6"  "ending many: no heavy barrier"
    CloseBarrierIfInside     Membarrier "M6"     "ending many: no heavy barrier if nobody seems inside"
    CloseScansBeforeBarrier  Membarrier "M1 M6"  "ending many: the scan before the heavy barrier"
    CloseBarrierBeforeRevoke Membarrier "M1 M6"  "ending many: the heavy barrier before the last word"
    CloseScansBeforeRevoke   Both       "M1"     "ending many: the scan before the last word"
    PlainFree                Fallback   "J1"     "finalize: FREE by a plain store"
    WaiterWithoutBarrier     Membarrier "J1"     "wait: no heavy barrier between flag and word"
    SleepsOnFlag             Both       "J3"     "wait: sleeps on the flag, which the waker takes"
    WakerTakesFlag           Both       "J5"     "wait: the waker takes the flag"
    PlainNote                Both       "J9"     "deadlock: the note by a plain store"
    DestroyNotNoted          Both       "J10"    "deadlock: destroying is not being inside"
    CellsBeforeNote          Both       "J12"    "deadlock: a thread's cells before its note"
    CycleSeenOnce            Both       "J15"    "deadlock: no second look at the notes"
    NoteWithoutEpoch         Both       "J14"    "deadlock: one note is like the next"
    WinnerTellsNobody        Both       "N2 N3"  "close: who ends the scope does not tell before it destroys"
    PassTellsNobody          Both       "N6 N8"  "close: the cell cleared, and nobody told"
    ChangesAfterLook         Both       "N1 N4"  "close: the counter of changes after the look"
    LastMemberTellsNobody    Both       "N4"     "finalize: the list is empty, and no closer told"
    DetachTellsNobody        Both       "N3"     "detach: the cell cleared, and nobody told"
    PlainDetach              Fallback   "N3"     "detach: the cell by a plain store"
    DetachUnchecked          Both       "N3"     "detach: no second look at the word"
    DetachLeavesPlainly      Fallback   "N3"     "detach: the cell cleared by a plain store"
}
