//! What the protocol's locations hold, in one byte each: three slots, three generations.

/// The content of one memory location.
pub(crate) type Val = u8;

/// How many handles there are, with 0 for none.
pub(crate) const HANDLES: usize = 10;

/// Not a handle: what the cell of a thread holds that passes over a scope which it closes.
pub(crate) const CLOSING: Val = 10;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Handle {
    pub(crate) slot: u8,
    pub(crate) generation: u8,
}

impl Handle {
    pub(crate) fn id(self) -> Val {
        1 + self.slot + 3 * self.generation
    }
    pub(crate) fn from_id(id: Val) -> Option<Handle> {
        id.checked_sub(1).map(|id| Handle { slot: id % 3, generation: id / 3 })
    }
    /// The slot's next occupant.
    pub(crate) fn next(self) -> Handle {
        Handle { generation: self.generation + 1, ..self }
    }
}

/// As in the scenarios: the slot's letter, a dash for each reuse.
impl std::fmt::Display for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let letter = char::from(b'a' + self.slot);
        write!(f, "{letter}{}", "'".repeat(self.generation.into()))
    }
}

/// The generation is the high half of a word and of a mark, as the epoch is of a note.
pub(crate) fn generation(value: Val) -> u8 {
    value >> 4
}

/// The state word: generation, phase, strong count.
pub(crate) mod word {
    use super::{Handle, Val};

    pub(crate) const FREE: Val = 0;
    pub(crate) const LIVE: Val = 1;
    pub(crate) const REVOKED: Val = 2;
    pub(crate) const FINALIZING: Val = 3;

    pub(crate) fn new(h: Handle, phase: Val) -> Val {
        h.generation << 4 | phase << 2
    }
    pub(crate) fn live(h: Handle) -> Val {
        new(h, LIVE) | 1
    }
    pub(crate) fn phase(word: Val) -> Val {
        word >> 2 & 3
    }
    pub(crate) fn strong(word: Val) -> Val {
        word & 3
    }
    pub(crate) fn any_live(word: Val) -> bool {
        phase(word) == LIVE
    }
    pub(crate) fn is(word: Val, h: Handle, phase: Val) -> bool {
        word & !3 == new(h, phase)
    }
}

/// The caller mark: generation and who has called it. FREE stands for the kind field's 0.
pub(crate) mod mark {
    use super::Val;

    pub(crate) const FREE: Val = 0;
    pub(crate) const NOBODY: Val = 14;
    pub(crate) const MANY: Val = 15;

    pub(crate) fn new(generation: u8, who: Val) -> Val {
        generation << 4 | who
    }
    pub(crate) fn who(mark: Val) -> Val {
        mark & 15
    }
    pub(crate) fn names(mark: Val, record: u8) -> bool {
        who(mark) == MANY || who(mark) == 1 + record
    }
}

/// What a thread waits for, and an epoch that tells two waits for the same handle apart.
pub(crate) mod note {
    use super::{Handle, Val};

    pub(crate) fn new(epoch: Val, waits_for: Option<Handle>) -> Val {
        epoch << 4 | waits_for.map_or(0, Handle::id)
    }
    pub(crate) fn handle(note: Val) -> Option<Handle> {
        Handle::from_id(note & 15)
    }
}
