//! One cache line an object: everything that a call reads.

use super::handle::{Handle, INDEX_BITS, Kind};
use super::slab::Entry;
use crate::error::Error;
use crate::sync::{AcqRel, Acquire, AtomicPtr, AtomicU32, AtomicU64, Relaxed, TotalOrder};

/// The life of a slot: `Free → Live → Revoked → Finalizing → Free` of the next generation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
pub(crate) enum Phase {
    Free = 0,
    Live = 1,
    /// No new call starts; calls in flight finish.
    Revoked = 2,
    /// One thread, the winner of the compare-exchange, runs destroy.
    Finalizing = 3,
}

const PHASE_SHIFT: u32 = 30;
const _: () = assert!((Kind::Callback as u32) << INDEX_BITS >> PHASE_SHIFT == 0);
const REFERENCES_MASK: u64 = (1 << PHASE_SHIFT) - 1;
/// More than this many references is refused.
pub(crate) const MAX_REFERENCES: u32 = 1 << PHASE_SHIFT;

/// The state word, `generation:32 | phase:2 | references - 1:30`: every transition is one
/// compare-exchange of the whole, so a count and a phase can never disagree.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Word(pub(crate) u64);

impl Word {
    pub(crate) fn new(generation: u32, phase: Phase) -> Self {
        Self(u64::from(generation) << 32 | (phase as u64) << PHASE_SHIFT)
    }

    pub(crate) fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Is this `handle`'s generation in this phase? Whatever the count.
    #[inline(always)]
    pub(crate) fn is(self, handle: Handle, phase: Phase) -> bool {
        self.0 >> PHASE_SHIFT == u64::from(handle.generation()) << 2 | phase as u64
    }

    /// Is it this callback's, and live? For handles whose kind is known to be `Callback`, 1: of the
    /// handle, only the generation lies where phase and generation are.
    #[inline(always)]
    pub(crate) fn is_live_callback(self, handle: Handle) -> bool {
        (self.0 ^ handle.0) >> PHASE_SHIFT == Phase::Live as u64
    }

    /// Is it in this phase, whatever the generation?
    #[inline(always)]
    pub(crate) fn in_phase(self, phase: Phase) -> bool {
        self.0 as u32 >> PHASE_SHIFT == phase as u32
    }

    /// Is it revoked or being finalized, whatever the generation? One bit tells.
    #[inline(always)]
    pub(crate) fn has_ended(self) -> bool {
        const ENDED: u32 = Phase::Revoked as u32 & Phase::Finalizing as u32;
        self.0 as u32 & (ENDED << PHASE_SHIFT) != 0
    }

    /// How many references a live word counts.
    pub(crate) fn references(self) -> u32 {
        (self.0 & REFERENCES_MASK) as u32 + 1
    }

    pub(crate) fn retained(self) -> Self {
        debug_assert!(self.references() < MAX_REFERENCES);
        Self(self.0 + 1)
    }

    pub(crate) fn released(self) -> Self {
        debug_assert!(self.references() > 1);
        Self(self.0 - 1)
    }
}

/// Says which threads have called this generation, so that ending a callback looks at those only:
/// `generation:32 | kind:4 | typed:1 | special:1 | who:26`. Kind 0 is a free slot. `who` only ever
/// changes nobody → one → many.
///
/// The two bits make the hot path's one comparison fail for whatever is not a plain call.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark(pub(crate) u64);

const WHO_BITS: u32 = INDEX_BITS - 2;
/// More than one thread has called.
pub(crate) const MANY: u32 = (1 << WHO_BITS) - 1;
/// The callback has another signature than the default: `cbr_call` must not call it.
pub(crate) const TYPED: u64 = 1 << (WHO_BITS + 1);
/// A call of it has more to do than to call: see `invoke::call_not_entered`.
pub(crate) const SPECIAL: u64 = 1 << WHO_BITS;

impl Mark {
    /// A free slot's: no call can take it for its own.
    pub(crate) fn free(generation: u32) -> Self {
        Self(u64::from(generation) << 32)
    }

    /// A free slot's whose last object was a queue: who asks for that one is told that it was closed.
    pub(crate) fn was_queue(generation: u32) -> Self {
        Self(u64::from(generation) << 32 | Kind::Queue as u64)
    }

    /// A new object's, called by nobody.
    #[inline(always)]
    pub(crate) fn fresh(handle: Handle, bits: u64) -> Self {
        Self(handle.without_index() | bits)
    }

    /// The mark of a plain callback that `who` has called.
    #[inline(always)]
    pub(crate) fn plain(handle: Handle, who: u32) -> Self {
        Self(handle.without_index() | u64::from(who))
    }

    /// The handle of the object at `index`.
    pub(crate) fn handle(self, index: u32) -> Handle {
        Handle(self.0 >> INDEX_BITS << INDEX_BITS | u64::from(index))
    }

    /// Is it of the generation and kind of `handle`?
    pub(crate) fn belongs_to(self, handle: Handle) -> bool {
        self.0 >> INDEX_BITS == handle.0 >> INDEX_BITS
    }

    #[inline(always)]
    pub(crate) fn ignoring(self, bits: u64) -> Self {
        Self(self.0 & !bits)
    }

    pub(crate) fn has(self, bits: u64) -> bool {
        self.0 & bits != 0
    }

    /// 0: nobody.
    pub(crate) fn who(self) -> u32 {
        (self.0 & u64::from(MANY)) as u32
    }

    /// Has nobody called, or this thread alone?
    #[inline(always)]
    pub(crate) fn is_mine(self, id: u32) -> bool {
        self.who() == 0 || self.who() == id
    }

    pub(crate) fn with(self, bits: u64) -> Self {
        Self(self.0 | bits)
    }

    pub(crate) fn with_who(self, who: u32) -> Self {
        Self(self.0 & !u64::from(MANY) | u64::from(who))
    }
}

/// A slot. All fields are atomics, because a stale handle may lead a thread to a slot that is
/// someone else's by now; what it then reads is never used before word and mark have been checked.
#[repr(C, align(64))]
pub(crate) struct Slot {
    pub(crate) word: AtomicU64,
    pub(crate) mark: AtomicU64,
    pub(crate) function: AtomicPtr<()>,
    pub(crate) user_data: AtomicPtr<()>,
    pub(crate) destroy: AtomicPtr<()>,
    /// Of a callback its signature; of a hold's token the handle that it holds; of a queue who
    /// dispatches it, see [`super::owner`]; of a free slot the link of the free list.
    pub(crate) signature: AtomicU64,
    /// Pins of `cbr_hold` that have not left.
    pub(crate) holds: AtomicU32,
    /// 1 if somebody may sleep until this slot's generation has moved on. Reset when the slot serves
    /// again: then nobody can wait for that generation yet.
    pub(crate) waited_for: AtomicU32,
    /// Index of what calls do not need (engine/cold.rs); 0: nothing.
    pub(crate) cold: AtomicU32,
    /// Link of the list of slots that wait for another look (engine/pending.rs); 0: not in it.
    pub(crate) pending: AtomicU32,
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<Slot>() == 64);

impl Slot {
    #[cfg(not(loom))]
    pub(super) const fn new() -> Self {
        Self {
            word: AtomicU64::new(0),
            mark: AtomicU64::new(0),
            function: AtomicPtr::new(std::ptr::null_mut()),
            user_data: AtomicPtr::new(std::ptr::null_mut()),
            destroy: AtomicPtr::new(std::ptr::null_mut()),
            signature: AtomicU64::new(0),
            holds: AtomicU32::new(0),
            waited_for: AtomicU32::new(0),
            cold: AtomicU32::new(0),
            pending: AtomicU32::new(0),
        }
    }
}

impl Entry for Slot {
    #[cfg(loom)]
    fn new() -> Self {
        Self {
            word: AtomicU64::new(0),
            mark: AtomicU64::new(0),
            function: AtomicPtr::new(std::ptr::null_mut()),
            user_data: AtomicPtr::new(std::ptr::null_mut()),
            destroy: AtomicPtr::new(std::ptr::null_mut()),
            signature: AtomicU64::new(0),
            holds: AtomicU32::new(0),
            waited_for: AtomicU32::new(0),
            cold: AtomicU32::new(0),
            pending: AtomicU32::new(0),
        }
    }

    fn link(&self) -> &AtomicU64 {
        &self.signature
    }

    fn first_use(&self, generation: u32) {
        // Relaxed: whoever carved the slot owns it alone; register publishes it.
        self.word.store(Word::new(generation, Phase::Free).0, Relaxed);
        self.mark.store(Mark::free(generation).0, Relaxed);
    }
}

impl Slot {
    /// Begins a generation: what its predecessor's waiters have left behind goes. The slot is the
    /// caller's alone, and its handle nobody's yet.
    #[inline(always)]
    pub(crate) fn reuse(&self) {
        // Relaxed: a late waiter of the old generation does not sleep any more.
        if self.waited_for.load(Relaxed) != 0 {
            self.waited_for.store(0, Relaxed);
        }
    }

    /// The word, if it is live and this handle's.
    #[inline(always)]
    pub(crate) fn live(&self, handle: Handle) -> Result<Word, Error> {
        // Acquire: partner: the store of LIVE, which publishes the mark.
        let word = Word(self.word.load(Acquire));
        // The word has no kind; the mark of a live generation has, and does not change it.
        let same_kind = Mark(self.mark.load(Relaxed)).belongs_to(handle);
        if word.is(handle, Phase::Live) && same_kind { Ok(word) } else { Err(Error::Stale) }
    }

    /// Is this object revoked, and its destroy has not returned?
    pub(crate) fn is_ending(&self, handle: Handle) -> bool {
        // ORDER[wait] partner: `free_slot`.
        let word = Word(self.word.load_sc());
        // The word has no kind; the mark has, until destroy has run. Acquire: partner: `free_slot`.
        let same_kind = Mark(self.mark.load(Acquire)).belongs_to(handle);
        (word.is(handle, Phase::Revoked) || word.is(handle, Phase::Finalizing)) && same_kind
    }

    /// Was the last object here the queue `handle`?
    pub(crate) fn was_queue(&self, handle: Handle) -> bool {
        let next = handle.generation().wrapping_add(1);
        // Acquire: partner: `free_slot`, the mark, then the word.
        handle.has_kind(Kind::Queue)
            && Word(self.word.load(Acquire)).is(Handle::new(next, Kind::Queue, 0), Phase::Free)
            && self.mark.load(Relaxed) == Mark::was_queue(next).0
    }

    /// Is it revoked, and nobody ends it yet?
    pub(crate) fn is_revoked(&self, handle: Handle) -> bool {
        // ORDER[inflight] after a cell that the caller has changed; partner: the revoke.
        Word(self.word.load_sc()).is(handle, Phase::Revoked)
    }

    /// Revoked → finalizing: true for the one thread that is to end the object.
    pub(crate) fn begin_finalizing(&self, handle: Handle) -> bool {
        let revoked = Word::new(handle.generation(), Phase::Revoked);
        let finalizing = Word::new(handle.generation(), Phase::Finalizing);
        // AcqRel: one winner; acquires what registered, retained and released before.
        self.word.compare_exchange(revoked.0, finalizing.0, AcqRel, Relaxed).is_ok()
    }

    /// The word, for a decision that a compare-exchange or a later check will confirm.
    pub(crate) fn peek(&self) -> Word {
        // Relaxed: by contract above.
        Word(self.word.load(Relaxed))
    }
}
