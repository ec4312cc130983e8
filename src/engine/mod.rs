//! The heart: handles, references, in-flight protection, exactly-once destroy, waiting. Knows nothing
//! of C; [`crate::ffi`] and [`crate::callback`] are its faces.
//!
//! [`handle`] names a [`slot`] in a [`slab`]; a thread's [`record`] says what it is [`inflight`] in;
//! [`register`] begins a life, [`finalize`] ends it.

mod attach;
#[cfg(not(loom))]
mod census;
pub(crate) mod check;
mod close;
mod closed_queues;
mod cold;
mod counts;
mod events;
mod failure;
mod finalize;
mod frame;
mod gate;
#[cfg(not(loom))]
mod ghosts;
#[cfg_attr(loom, allow(dead_code, reason = "models have no guests"))]
pub(crate) mod guest;
mod handle;
pub(crate) mod histogram;
mod hold;
mod inflight;
pub(crate) mod invoke;
mod last_error;
mod members;
mod memo;
mod message;
mod meter;
#[cfg(not(loom))]
mod misuse;
mod name;
mod object;
mod observe;
#[cfg(not(loom))]
mod onlooker;
mod owner;
mod pending;
mod pin;
pub(crate) mod probes;
mod record;
mod records;
mod register;
mod scope;
pub(crate) mod series;
pub(crate) mod signature;
pub(crate) mod slab;
mod slot;
mod span;
mod stack;
pub(crate) mod stacks;
#[cfg(not(loom))]
mod threads;
pub(crate) mod trace;
mod wait;

#[cfg(not(loom))]
pub(crate) use census::{Census, NameCopy};
pub(crate) use close::Closed;
#[cfg(not(loom))]
pub(crate) use cold::{Cold, METERED};
pub(crate) use cold::{ColdParts, Named};
#[cfg(not(loom))]
pub(crate) use frame::StackPlace;
pub(crate) use frame::{Frame, Tag};
pub(crate) use gate::Section;
pub use handle::Handle;
pub(crate) use handle::Kind;
pub(crate) use memo::{Question, Versions};
#[cfg(not(loom))]
pub(crate) use message::MESSAGE_MAX;
#[cfg(not(loom))]
pub(crate) use meter::Metered;
#[cfg(not(loom))]
pub(crate) use name::{NAME_MAX, Text};
#[cfg(not(loom))]
pub(crate) use owner::QueueHooks;
#[cfg(not(loom))]
pub(crate) use pin::{Pin, Pinned};
#[cfg(test)]
pub(crate) use record::RUN;
pub(crate) use record::Record;
pub(crate) use register::Registration;
pub(crate) use scope::ThreadHooks;
pub(crate) use slot::Slot;
#[cfg(not(loom))]
pub(crate) use threads::{ENGINE, current, joined};
pub(crate) use wait::{Note, Patience};

use crate::error::Error;
use crate::platform::membarrier::Barrier;
use crate::sync::{Acquire, AtomicPtr, AtomicU32, AtomicU64, Relaxed, Release};
use check::Check;
use closed_queues::ClosedQueues;
use gate::ForkGate;
use meter::Meters;
use observe::Observers;
use owner::HooksPlace;
use records::Records;
use scope::Scopes;
use slab::Slab;
use slot::Word;
use wait::DeadlockSearch;

#[cfg(not(any(loom, miri)))]
const FIRST_SLOT: u32 = 10;
#[cfg(not(any(loom, miri)))]
const FIRST_COLD: u32 = 6;
#[cfg(any(loom, miri))]
const FIRST_SLOT: u32 = 2;
#[cfg(any(loom, miri))]
const FIRST_COLD: u32 = 2;

/// The process's engine chooses its own at the start; models and tests have no start.
#[cfg(not(any(loom, test)))]
const FIRST_GENERATION: u32 = 0;
#[cfg(any(loom, test))]
const FIRST_GENERATION: u32 = 1;

/// All state of the library. The process has one, models and tests make their own.
pub(crate) struct Engine {
    slots: Slab<Slot, FIRST_SLOT>,
    /// Beside the slots, by the same index.
    events: Slab<events::EventCount, FIRST_SLOT>,
    cold: Slab<cold::Cold, FIRST_COLD>,
    records: Records,
    scopes: Scopes,
    fork_gate: ForkGate,
    pub(crate) check: Check,
    observers: Observers,
    meters: Meters,
    pub(crate) barrier: Barrier,
    /// Generation of a slot's first object. Random, so that a handle of another process or an earlier
    /// run does not validate.
    first_generation: AtomicU32,
    /// First of the slots that need another look, see [`pending`].
    pending: AtomicU32,
    /// When a slot was put there last that was not there already.
    pending_since: AtomicU64,
    deadlock_search: DeadlockSearch,
    /// Calls and pins that a thread's end has released.
    left_by_thread_end: AtomicU64,
    pub(crate) queue_hooks: HooksPlace,
    /// Destroy functions that wait in queues.
    pub(crate) deferred: AtomicU32,
    closed_queues: ClosedQueues,
    /// How often this process is the child of a fork.
    pub(crate) forks: AtomicU32,
    #[cfg(not(loom))]
    onlookers: onlooker::Onlookers,
    /// Says of a number whether it is an open thunk's: a [`ThunkIsOpen`], handed down when the first
    /// one is opened.
    thunk_is_open: AtomicPtr<()>,
}

/// See [`Engine::tell_of_thunks`].
pub(crate) type ThunkIsOpen = fn(Handle) -> bool;

impl Engine {
    #[cfg(not(loom))]
    pub(crate) const fn new() -> Self {
        Self {
            slots: Slab::new(),
            events: Slab::new(),
            cold: Slab::new(),
            records: Records::new(),
            scopes: Scopes::new(),
            fork_gate: ForkGate::new(),
            check: Check::new(),
            observers: Observers::new(),
            meters: Meters::new(),
            barrier: Barrier::new(),
            first_generation: AtomicU32::new(FIRST_GENERATION),
            pending: AtomicU32::new(0),
            pending_since: AtomicU64::new(0),
            deadlock_search: DeadlockSearch::new(),
            left_by_thread_end: AtomicU64::new(0),
            queue_hooks: HooksPlace::new(),
            deferred: AtomicU32::new(0),
            closed_queues: ClosedQueues::new(),
            forks: AtomicU32::new(0),
            onlookers: onlooker::Onlookers::new(),
            thunk_is_open: AtomicPtr::new(std::ptr::null_mut()),
        }
    }
    #[cfg(loom)]
    pub(crate) fn new() -> Self {
        Self {
            slots: Slab::new(),
            events: Slab::new(),
            cold: Slab::new(),
            records: Records::new(),
            scopes: Scopes::new(),
            fork_gate: ForkGate::new(),
            check: Check::new(),
            observers: Observers::new(),
            meters: Meters::new(),
            barrier: Barrier::new(),
            first_generation: AtomicU32::new(FIRST_GENERATION),
            pending: AtomicU32::new(0),
            pending_since: AtomicU64::new(0),
            deadlock_search: DeadlockSearch::new(),
            left_by_thread_end: AtomicU64::new(0),
            queue_hooks: HooksPlace::new(),
            deferred: AtomicU32::new(0),
            closed_queues: ClosedQueues::new(),
            forks: AtomicU32::new(0),
            thunk_is_open: AtomicPtr::new(std::ptr::null_mut()),
        }
    }

    #[cfg(test)]
    pub(crate) fn records(&self) -> &Records {
        &self.records
    }

    #[cfg(test)]
    pub(crate) fn begin_generations_at(&self, first: u32) {
        self.first_generation.store(first, Relaxed);
    }

    /// What numbers of thunks, which lie above, are good for.
    pub(crate) fn tell_of_thunks(&self, is_open: ThunkIsOpen) {
        // Release: partner: the load in `thunk_is_open`.
        self.thunk_is_open.store(is_open as *mut (), Release);
    }

    fn thunk_is_open(&self, handle: Handle) -> bool {
        let function = self.thunk_is_open.load(Acquire);
        // SAFETY: null, or stored by `tell_of_thunks`; Option<fn> has null for None.
        let is_open = unsafe { std::mem::transmute::<*mut (), Option<ThunkIsOpen>>(function) };
        is_open.is_some_and(|is_open| is_open(handle))
    }

    pub(crate) fn first_generation(&self) -> u32 {
        // Relaxed: set before the first record is handed out.
        self.first_generation.load(Relaxed)
    }

    /// The slot that this handle names, if the handle is of this kind; whether the object is still
    /// there is for the caller to check.
    #[inline(always)]
    fn resolve(&self, handle: Handle, kind: Kind) -> Result<&Slot, Error> {
        match self.slots.get(handle.index_as(kind)) {
            Some(slot) => Ok(slot),
            None => Err(self.misnamed(handle, kind)),
        }
    }

    /// The slot and the word of a live object of this kind. The hot functions take the two steps
    /// themselves: as one result they would go through memory.
    #[inline(always)]
    fn live(&self, handle: Handle, kind: Kind) -> Result<(&Slot, Word), Error> {
        let slot = self.resolve(handle, kind)?;
        Ok((slot, slot.live(handle)?))
    }

    /// A free slot for this thread alone, and the handle that its next object will have.
    #[inline(always)]
    fn take_slot(&self, record: &Record, kind: Kind) -> Result<(&Slot, Handle), Error> {
        let index = record.free_slots.pop(&self.slots, self.first_generation())?;
        let slot = self.slots.at(index);
        slot.reuse();
        if slot.cold.load(Relaxed) != 0 {
            self.drop_cold(record, slot);
        }
        Ok((slot, Handle::new(slot.peek().generation(), kind, index)))
    }

    /// Another kind's handle, or nobody's?
    #[cold]
    pub(crate) fn misnamed(&self, handle: Handle, kind: Kind) -> Error {
        let is_there = |slot: &Slot| slot.live(handle).is_ok() || slot.is_ending(handle);
        let is_there = match handle.has_kind(Kind::Thunk) {
            true => self.thunk_is_open(handle),
            false => self.slots.get(handle.index()).is_some_and(is_there),
        };
        if is_there && !handle.has_kind(kind) { Error::Kind } else { Error::Stale }
    }

    /// Is a call through this handle possible now? Another thread may end it at any time.
    pub(crate) fn is_live(&self, handle: Handle) -> bool {
        self.live(handle, Kind::Callback).is_ok()
    }
}
