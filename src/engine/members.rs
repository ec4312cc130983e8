//! What a scope owns: lists through the callbacks' cold entries, one for each of some shards, so that
//! threads that register and end callbacks of one scope rarely meet.
//!
//! Each list has a lock, under which a registration also looks at the scope's word: a close sets the
//! word, then takes every lock once, and so finds whatever was registered before and refuses the rest.

use super::cold::Cold;
use super::gate::Section;
use super::handle::{Handle, Kind};
use super::record::Record;
use super::scope::Scope;
use super::slot::{Phase, SPECIAL, Slot, Word};
use super::{Engine, probes};
use crate::error::Error;
use crate::sync::{Acquire, AtomicU32, AtomicU64, MutexGuard, Relaxed};

/// Lists of one scope.
pub(super) const SHARDS: u32 = if cfg!(any(loom, miri)) { 1 } else { 8 };

/// A list of callbacks, by the indices of their cold entries. Changes under the shard's lock alone.
#[repr(align(64))]
pub(super) struct Shard {
    first: AtomicU32,
    last: AtomicU32,
    count: AtomicU32,
    /// How many there ever were.
    total: AtomicU64,
}

/// A callback's place in its scope.
pub(crate) struct Membership {
    /// The scope's handle; 0: the default scope, which keeps no list.
    scope: AtomicU64,
    shard: AtomicU32,
    next: AtomicU32,
    previous: AtomicU32,
}

impl Shard {
    #[cfg(loom)]
    pub(super) fn new() -> Self {
        Self {
            first: AtomicU32::new(0),
            last: AtomicU32::new(0),
            count: AtomicU32::new(0),
            total: AtomicU64::new(0),
        }
    }
}

impl Shard {
    /// A new scope's.
    pub(super) fn begin(&self) {
        // Relaxed: published with the scope.
        self.total.store(0, Relaxed);
    }
}

impl Membership {
    #[cfg(loom)]
    pub(super) fn new() -> Self {
        Self {
            scope: AtomicU64::new(0),
            shard: AtomicU32::new(0),
            next: AtomicU32::new(0),
            previous: AtomicU32::new(0),
        }
    }

    pub(super) const SCOPE_AT: usize = std::mem::offset_of!(Self, scope);

    /// Whose the callback will be. Before it is published, or when it is not.
    pub(super) fn set_scope(&self, scope: Handle) {
        // Relaxed: published with the callback.
        self.scope.store(scope.0, Relaxed);
    }

    pub(super) fn scope(&self) -> Handle {
        // Relaxed: read inside the callback, or checked by the owner's number.
        Handle(self.scope.load(Relaxed))
    }
}

/// A shard under its lock, of a scope that is open or closing.
pub(super) struct LockedShard<'a> {
    engine: &'a Engine,
    pub(super) scope: &'a Scope,
    shard: &'a Shard,
    number: u32,
    handle: Handle,
    word: Word,
    _guard: MutexGuard<'a, ()>,
}

impl LockedShard<'_> {
    pub(super) fn is_open(&self) -> bool {
        self.word.is(self.handle, Phase::Live)
    }

    // Relaxed in what follows: all under the lock.

    pub(super) fn count(&self) -> u32 {
        self.shard.count.load(Relaxed)
    }

    /// How many callbacks were ever in it.
    pub(super) fn total(&self) -> u64 {
        self.shard.total.load(Relaxed)
    }

    /// The callbacks of this shard, oldest first.
    pub(super) fn members(&self) -> impl Iterator<Item = Handle> {
        let mut next = self.shard.first.load(Relaxed);
        std::iter::from_fn(move || {
            let cold = (next != 0).then(|| self.engine.cold.at(next))?;
            next = cold.membership.next.load(Relaxed);
            Some(cold.owner())
        })
    }

    /// Moves the oldest one to the end, and names it.
    pub(super) fn rotate(&self) -> Option<Handle> {
        let index = self.shard.first.load(Relaxed);
        let cold = (index != 0).then(|| self.engine.cold.at(index))?;
        self.unlink(&cold.membership);
        self.append(index, cold);
        Some(cold.owner())
    }

    fn append(&self, index: u32, cold: &Cold) {
        let last = self.shard.last.load(Relaxed);
        cold.membership.shard.store(self.number, Relaxed);
        cold.membership.previous.store(last, Relaxed);
        cold.membership.next.store(0, Relaxed);
        match last {
            0 => self.shard.first.store(index, Relaxed),
            last => self.engine.cold.at(last).membership.next.store(index, Relaxed),
        }
        self.shard.last.store(index, Relaxed);
        self.shard.count.store(self.count() + 1, Relaxed);
    }

    fn unlink(&self, membership: &Membership) {
        let next = membership.next.load(Relaxed);
        let previous = membership.previous.load(Relaxed);
        match previous {
            0 => self.shard.first.store(next, Relaxed),
            previous => self.engine.cold.at(previous).membership.next.store(next, Relaxed),
        }
        match next {
            0 => self.shard.last.store(previous, Relaxed),
            next => self.engine.cold.at(next).membership.previous.store(previous, Relaxed),
        }
        self.shard.count.store(self.count() - 1, Relaxed);
    }
}

impl Engine {
    /// Locks a shard of a scope that is open or closing.
    pub(super) fn lock_shard<'a>(
        &'a self,
        _section: &'a Section<'_>,
        handle: Handle,
        number: u32,
    ) -> Result<LockedShard<'a>, Error> {
        let slot = self.resolve(handle, Kind::Scope)?;
        // Relaxed: of whatever the slot serves; the owner tells, below.
        let index = slot.cold.load(Relaxed);
        let (scope, _guard) = self.scopes.lock(index, number).ok_or(Error::Stale)?;
        // The word under the lock: see the top. Acquire: partner: LIVE in `open_scope`.
        let is_its_own = scope.belongs_to(handle);
        let word = Word(slot.word.load(Acquire));
        if !is_its_own || !(word.is(handle, Phase::Live) || word.is(handle, Phase::Revoked)) {
            return Err(Error::Stale);
        }
        let shard = &scope.shards[number as usize];
        Ok(LockedShard { engine: self, scope, shard, number, handle, word, _guard })
    }

    /// Publishes a callback in the scope that its cold entry names.
    pub(super) fn publish_in_scope(
        &self,
        record: &Record,
        slot: &Slot,
        handle: Handle,
        bits: u64,
    ) -> Result<(), Error> {
        let index = slot.cold.load(Relaxed);
        let cold = self.cold.at(index);
        let section = self.section(record);
        let shard = self.lock_shard(&section, cold.membership.scope(), record.id() % SHARDS)?;
        if !shard.is_open() {
            return Err(Error::Closed);
        }
        shard.append(index, cold);
        shard.shard.total.store(shard.total() + 1, Relaxed);
        // Relaxed: under the lock; read again only under all locks of the scope. Written once, because
        // other shards' threads read the line.
        if shard.scope.settled.load(Relaxed) == 0 {
            shard.scope.settled.store(1, Relaxed);
        }
        let special = if shard.scope.attach().is_some() { SPECIAL } else { 0 };
        probes::register_more(handle, slot, cold);
        self.publish(slot, handle, bits | special);
        Ok(())
    }

    /// The callback's destroy function has run: takes it off its scope's list.
    pub(super) fn leave_scope(&self, record: &Record, cold: &Cold) {
        if cold.membership.scope().0 != 0 {
            self.leave_scope_in(&self.section(record), cold);
        }
    }

    pub(super) fn leave_scope_in(&self, section: &Section<'_>, cold: &Cold) {
        let membership = &cold.membership;
        let number = membership.shard.load(Relaxed);
        let Ok(shard) = self.lock_shard(section, membership.scope(), number) else {
            debug_assert!(false, "a scope outlives what it owns");
            return;
        };
        shard.unlink(membership);
        membership.set_scope(Handle(0));
        let last_of_closing = shard.count() == 0 && !shard.is_open();
        let scope = shard.scope;
        drop(shard);
        if last_of_closing {
            scope.tell_closers();
        }
    }
}
