//! One stay inside a callback: a call, a pin, or a destroy function that runs.

use super::handle::{Handle, Kind};
use crate::error::Error;
use crate::sync::{AtomicU64, Relaxed};
use std::cell::Cell;

/// What kind of stay a frame stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub(crate) struct Tag(u32);

impl Tag {
    /// What a log line calls a function that ends something.
    pub(crate) fn ending_of(self, handle: Handle) -> &'static str {
        match (self, handle.has_kind(Kind::Callback)) {
            (Self::DETACH, _) => "the detach function of scope",
            (Self::CLOSE, _) => "the close of scope",
            (Self::GUEST, _) => "the log sink or call hook",
            (Self::QUEUE, _) => "a post or dispatch of queue",
            (Self::POST | Self::EVENT, _) => "an event of scope",
            (_, true) => "the destroy function of callback",
            (_, false) => "the thread hooks' destroy function of scope",
        }
    }

    pub(crate) const CALL: Self = Self(0);
    /// A destroy function: seen by deadlock detection, not part of the depth.
    pub(crate) const DESTROY: Self = Self(u32::MAX);

    /// A hold on its way: gone before host code runs, but for the attaching of a thread.
    pub(crate) const HOLD: Self = Self(u32::MAX - 1);

    /// A scope's detach function: seen by deadlock detection, not part of the depth.
    pub(crate) const DETACH: Self = Self(u32::MAX - 2);

    /// A pass that ends what a scope owns; the same.
    pub(crate) const CLOSE: Self = Self(u32::MAX - 3);

    /// A post to a queue, or its dispatch, which the callbacks that it calls are frames above.
    pub(crate) const QUEUE: Self = Self(u32::MAX - 4);

    /// A scope that owns an event: while that is posted, or delivered.
    pub(crate) const POST: Self = Self(u32::MAX - 5);
    pub(crate) const EVENT: Self = Self(u32::MAX - 6);

    /// A function that another operation calls, see [`super::guest`].
    pub(crate) const GUEST: Self = Self(u32::MAX - 7);

    /// What keeps a thread inside a tracer while calls are that it sees, see [`super::span`]. Hidden.
    pub(crate) const SPAN: Self = Self(u32::MAX - 8);

    /// A pin, by its number, which is never one of the other ten.
    pub(crate) fn pin(number: u32) -> Self {
        Self(number % (u32::MAX - 9) + 1)
    }

    pub(crate) fn number(self) -> u32 {
        self.0
    }

    pub(crate) fn from_number(number: u32) -> Self {
        Self(number)
    }

    pub(crate) fn is_pin(self) -> bool {
        (1..=u32::MAX - 9).contains(&self.0)
    }

    /// Is it a call or a pin, not the end of something?
    pub(crate) fn counts(self) -> bool {
        self.0 <= u32::MAX - 9 || self == Self::HOLD
    }
}

/// What a callback has said of itself, in a frame. Zero is nothing.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct Failed(u32);

impl Failed {
    pub(crate) const NO: Self = Self(0);
    pub(super) const CALLBACK: Self = Self(1);
    pub(super) const PANIC: Self = Self(2);

    pub(crate) fn error(self) -> Option<Error> {
        match self {
            Self::NO => None,
            Self::PANIC => Some(Error::Panic),
            _ => Some(Error::Callback),
        }
    }

    /// Of a [`Tag::SPAN`] frame: how many it is for.
    pub(super) fn of_count(count: u32) -> Self {
        Self(count)
    }

    pub(super) fn count(self) -> u32 {
        self.0
    }
}

/// One stay inside something. Zeroed memory is an empty frame.
#[repr(C, align(16))]
pub(crate) struct Frame {
    /// The handle, or 0.
    pub(crate) cell: AtomicU64,
    /// Owner only.
    pub(crate) tag: Cell<Tag>,
    /// Owner only: what the callback has said of itself; of what ends something, where the stack was; of a
    /// SPAN how many it is for.
    pub(crate) failed: Cell<Failed>,
}

impl Frame {
    pub(crate) fn handle(&self) -> Handle {
        // Relaxed: for the owner, who wrote it.
        Handle(self.cell.load(Relaxed))
    }

    /// The frame above. At most one past the end, which is only compared.
    #[inline(always)]
    pub(crate) fn above(&self) -> *const Self {
        std::ptr::from_ref(self).wrapping_add(1)
    }

    /// Of a frame that ends something ([`Tag::counts`]): where the native stack was when it began.
    pub(super) fn stack_place(&self) -> StackPlace {
        StackPlace(self.failed.get().0)
    }

    pub(crate) fn set_stack_place(&self, place: StackPlace) {
        self.failed.set(Failed(place.0));
    }

    #[cfg(loom)]
    pub(super) fn new() -> Self {
        Self { cell: AtomicU64::new(0), tag: Cell::new(Tag::CALL), failed: Cell::new(Failed::NO) }
    }
}

/// An address on the native stack, its lower half: stacks are smaller than 2 GiB.
#[derive(Clone, Copy)]
pub(crate) struct StackPlace(u32);

impl StackPlace {
    /// The place of a local variable of the caller.
    #[inline(always)]
    pub(crate) fn of(local: &u8) -> Self {
        Self(std::ptr::from_ref(local).addr() as u32)
    }

    /// Stacks grow downward: has whoever was called here returned, or been jumped over, when code runs
    /// at `now`?
    pub(crate) fn is_below(self, now: Self) -> bool {
        (now.0.wrapping_sub(self.0) as i32) > 0
    }
}
