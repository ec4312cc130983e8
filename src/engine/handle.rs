//! The number that stands for an object: `generation:32 | kind:4 | index:28`.

/// What a handle stands for. 0 is no kind, so that no valid handle is 0 and zeroed memory is free.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub(crate) enum Kind {
    Callback = 1,
    Scope = 2,
    Queue = 3,
    Thunk = 4,
    /// The token of a `cbr_hold`, inside a pin.
    Hold = 5,
    /// In a cell only: a thread that closes the scope of this number is ending what it owns.
    Closing = 7,
    /// In a cell only: a thread that dispatches the queue of this number is inside it.
    Dispatching = 8,
    /// In a note only: the end of what the thread with this record has another one run for it.
    Call = 9,
}

/// The number of bits below the kind.
pub(crate) const INDEX_BITS: u32 = 28;
const INDEX_MASK: u64 = (1 << INDEX_BITS) - 1;

/// A weak reference that never dangles: used after its object is gone it is refused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(transparent)]
pub struct Handle(pub(crate) u64);

impl Handle {
    /// The handle with this number, as another language or thread has passed it. Any number may be
    /// tried: one that was never issued is refused as stale.
    #[must_use]
    pub const fn from_raw(number: u64) -> Self {
        Self(number)
    }

    /// The number, to pass through C.
    #[must_use]
    pub const fn to_raw(self) -> u64 {
        self.0
    }

    #[inline(always)]
    pub(crate) fn new(generation: u32, kind: Kind, index: u32) -> Self {
        debug_assert!(index < 1 << INDEX_BITS);
        Self(u64::from(generation) << 32 | u64::from(kind as u32) << INDEX_BITS | u64::from(index))
    }

    #[inline(always)]
    pub(crate) fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }

    pub(crate) fn has_kind(self, kind: Kind) -> bool {
        self.0 as u32 >> INDEX_BITS == kind as u32
    }

    /// The same number as of another kind.
    pub(crate) fn with_kind(self, kind: Kind) -> Self {
        Self::new(self.generation(), kind, self.index())
    }

    /// The object that a cell with this number keeps alive.
    pub(crate) fn protected(self) -> Self {
        if self.has_kind(Kind::Dispatching) { self.with_kind(Kind::Queue) } else { self }
    }

    pub(crate) fn index(self) -> u32 {
        (self.0 & INDEX_MASK) as u32
    }

    /// The index if the handle is of this kind, else a number that no slab holds (≥ 2^28): one XOR
    /// does for both the check and the mask.
    #[inline(always)]
    pub(crate) fn index_as(self, kind: Kind) -> u32 {
        self.0 as u32 ^ (kind as u32) << INDEX_BITS
    }

    /// Generation and kind, in the place where a [`super::slot::Mark`] has them.
    #[inline(always)]
    pub(crate) fn without_index(self) -> u64 {
        self.0 & !INDEX_MASK
    }
}
