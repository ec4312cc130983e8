//! Scopes: an owner and everything it registered.
//!
//! A scope is an object of the slab like a callback: its word says open (live), closing (revoked), and
//! gone. What it owns is in lists through the callbacks' cold entries, one list for each of some
//! shards, so that threads that register and end callbacks of one scope rarely meet. Each list has a
//! lock, under which a registration also looks at the word: a close sets the word, then takes every
//! lock once, and so finds whatever was registered before and refuses the rest.
//!
//! Entries are type-stable: a stale handle may lead to another scope's, and then the owner tells.

use super::Engine;
use super::gate::Section;
use super::handle::{Handle, Kind};
use super::invoke::{AttachFn, DestroyFn, DetachFn};
use super::name::Name;
use super::record::Record;
use super::slab::{Entry, Slab};
use super::slot::{Mark, Phase, SPECIAL, Slot, Word};
use super::{cold::Cold, invoke};
use crate::error::Error;
use crate::platform::futex;
use crate::sync::{
    Acquire, AtomicPtr, AtomicU32, AtomicU64, Lock, MutexGuard, Relaxed, Release, SeqCst, fence,
};
use std::ffi::c_void;
use std::ptr;

#[cfg(not(loom))]
pub(super) const SHARDS: u32 = 8;
#[cfg(loom)]
pub(super) const SHARDS: u32 = 1;
#[cfg(not(loom))]
const LOCKS: usize = 64;
#[cfg(loom)]
const LOCKS: usize = 1;
#[cfg(not(loom))]
const FIRST: u32 = 4;
#[cfg(loom)]
const FIRST: u32 = 2;

/// All scopes, and the locks that they share.
pub(crate) struct Scopes {
    entries: Slab<Scope, FIRST>,
    locks: [Padded; LOCKS],
}

/// On a cache line of its own.
#[repr(align(64))]
struct Padded(Lock);

impl Scopes {
    #[cfg(not(loom))]
    pub(crate) const fn new() -> Self {
        Self { entries: Slab::new(), locks: [const { Padded(Lock::new()) }; LOCKS] }
    }
    #[cfg(loom)]
    pub(crate) fn new() -> Self {
        Self { entries: Slab::new(), locks: std::array::from_fn(|_| Padded(Lock::new())) }
    }
}

/// One scope.
pub(crate) struct Scope {
    /// Its handle, 0 while the entry serves none.
    owner: AtomicU64,
    link: AtomicU64,
    attach: AtomicPtr<()>,
    detach: AtomicPtr<()>,
    name: Name,
    /// 1 once something was registered, or thread hooks set.
    settled: AtomicU32,
    /// Counts what somebody who closes may be waiting for.
    pub(super) changes: AtomicU32,
    /// The scope's handle if a pass over its callbacks was cut short by an unwind through it.
    pub(super) unfinished: AtomicU64,
    shards: [Shard; SHARDS as usize],
}

/// A list of callbacks, by the indices of their cold entries. Changes under the shard's lock alone.
#[repr(align(64))]
pub(super) struct Shard {
    first: AtomicU32,
    last: AtomicU32,
    count: AtomicU32,
}

/// A callback's place in its scope.
pub(crate) struct Membership {
    /// The scope's handle; 0: the default scope, which keeps no list.
    scope: AtomicU64,
    shard: AtomicU32,
    next: AtomicU32,
    previous: AtomicU32,
}

impl Entry for Scope {
    #[cfg(loom)]
    fn new() -> Self {
        Self {
            owner: AtomicU64::new(0),
            link: AtomicU64::new(0),
            attach: AtomicPtr::new(ptr::null_mut()),
            detach: AtomicPtr::new(ptr::null_mut()),
            name: Name::new(),
            settled: AtomicU32::new(0),
            changes: AtomicU32::new(0),
            unfinished: AtomicU64::new(0),
            shards: std::array::from_fn(|_| Shard {
                first: AtomicU32::new(0),
                last: AtomicU32::new(0),
                count: AtomicU32::new(0),
            }),
        }
    }

    fn link(&self) -> &AtomicU64 {
        &self.link
    }

    fn first_use(&self, _generation: u32) {}
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

/// Functions that a scope wants run on every thread that calls its callbacks.
#[derive(Clone, Copy)]
pub(crate) struct ThreadHooks {
    pub(crate) attach: AttachFn,
    pub(crate) detach: Option<DetachFn>,
    pub(crate) user_data: *mut c_void,
    pub(crate) destroy: Option<DestroyFn>,
}

impl Scope {
    pub(super) fn name(&self) -> &str {
        self.name.get()
    }

    pub(super) fn belongs_to(&self, handle: Handle) -> bool {
        // Acquire: partner: the store in `open_scope`.
        self.owner.load(Acquire) == handle.0
    }

    pub(super) fn attach(&self) -> Option<AttachFn> {
        // Relaxed: published with the first callback.
        let function = self.attach.load(Relaxed);
        // SAFETY: null or an `AttachFn` from `set_thread_hooks`; Option<fn> has null for None.
        unsafe { std::mem::transmute::<*mut (), Option<AttachFn>>(function) }
    }

    pub(super) fn detach(&self) -> Option<DetachFn> {
        // Relaxed: as above.
        let function = self.detach.load(Relaxed);
        // SAFETY: null or a `DetachFn`, as above.
        unsafe { std::mem::transmute::<*mut (), Option<DetachFn>>(function) }
    }

    /// Something has changed that somebody who closes may wait for.
    pub(super) fn tell_closers(&self) {
        // ORDER[wait] after the change; partner: the load in `finish_close`, before its look.
        self.changes.fetch_add(1, SeqCst);
        futex::wake_all(&self.changes);
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
    fn is_open(&self) -> bool {
        self.word.is(self.handle, Phase::Live)
    }

    // Relaxed in what follows: all under the lock.

    pub(super) fn count(&self) -> u32 {
        self.shard.count.load(Relaxed)
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
    /// Makes a scope that owns nothing yet.
    pub(crate) fn open_scope(&self, record: &Record, name: &str) -> Result<Handle, Error> {
        let index = match self.scopes.entries.take() {
            Some(index) => index,
            None => self.scopes.entries.carve(1, 0)?,
        };
        let entry = self.scopes.entries.at(index);
        let taken = entry.name.set(name).and_then(|()| self.take_slot(record, Kind::Scope));
        let (slot, handle) = match taken {
            Ok(taken) => taken,
            Err(error) => {
                self.give_back_scope(entry, index);
                return Err(error);
            }
        };
        // Relaxed: all of it is published by LIVE.
        entry.attach.store(ptr::null_mut(), Relaxed);
        entry.detach.store(ptr::null_mut(), Relaxed);
        entry.settled.store(0, Relaxed);
        entry.unfinished.store(0, Relaxed);
        slot.user_data.store(ptr::null_mut(), Relaxed);
        slot.destroy.store(ptr::null_mut(), Relaxed);
        slot.cold.store(index, Relaxed);
        slot.mark.store(Mark::fresh(handle, 0).0, Relaxed);
        // Release: partner: the load in `lock_shard`.
        entry.owner.store(handle.0, Release);
        slot.word.store(Word::new(handle.generation(), Phase::Live).0, Release);
        Ok(handle)
    }

    fn give_back_scope(&self, entry: &Scope, index: u32) {
        entry.name.clear();
        // Relaxed: a batch of one, which `give` publishes.
        entry.link.store(0, Relaxed);
        self.scopes.entries.give(index);
    }

    /// The scope has ended: its destroy function has run, its slot is about to be free.
    pub(super) fn end_scope(&self, slot: &Slot) {
        let index = slot.cold.load(Relaxed);
        // None: a fork has come in between, and this is the child.
        let Some(entry) = self.scopes.entries.get(index) else { return };
        slot.cold.store(0, Relaxed);
        entry.owner.store(0, Relaxed);
        self.give_back_scope(entry, index);
    }

    /// The entry of a scope that cannot end now.
    pub(super) fn scope_of_slot(&self, slot: &Slot) -> &Scope {
        self.scopes.entries.at(slot.cold.load(Relaxed))
    }

    /// The entry of a scope, unless it has ended.
    pub(super) fn find_scope(&self, handle: Handle) -> Option<&Scope> {
        let slot = self.resolve(handle, Kind::Scope).ok()?;
        let entry = self.scopes.entries.get(slot.cold.load(Relaxed))?;
        entry.belongs_to(handle).then_some(entry)
    }

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
        let scope = self.scopes.entries.get(index).ok_or(Error::Stale)?;
        let lock = (index * SHARDS + number) as usize % LOCKS;
        let _guard = self.scopes.locks[lock].0.lock();
        // The word under the lock: see the top. Acquire: partner: LIVE in `open_scope`.
        let is_its_own = scope.belongs_to(handle);
        let word = Word(slot.word.load(Acquire));
        if !is_its_own || !(word.is(handle, Phase::Live) || word.is(handle, Phase::Revoked)) {
            return Err(Error::Stale);
        }
        let shard = &scope.shards[number as usize];
        Ok(LockedShard { engine: self, scope, shard, number, handle, word, _guard })
    }

    /// Runs `body` while the scope is open and cannot close. The default scope always is.
    pub(crate) fn while_open<T>(
        &self,
        record: &Record,
        scope: Handle,
        body: impl FnOnce(&Section<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let section = self.section(record);
        if scope.0 == 0 {
            return body(&section);
        }
        let shard = self.lock_shard(&section, scope, record.id() % SHARDS)?;
        if shard.is_open() { body(&section) } else { Err(Error::Closed) }
    }

    /// Is it a scope, open or closing, or the default one?
    pub(crate) fn check_scope(&self, handle: Handle) -> Result<(), Error> {
        if handle.0 == 0 {
            return Ok(());
        }
        let slot = self.resolve(handle, Kind::Scope)?;
        if slot.live(handle).is_ok() || slot.is_ending(handle) { Ok(()) } else { Err(Error::Stale) }
    }

    /// Does the scope take work? An error if it is none, or gone.
    pub(crate) fn is_open(&self, handle: Handle) -> Result<bool, Error> {
        self.check_scope(handle)?;
        Ok(handle.0 == 0 || self.slots.at(handle.index()).live(handle).is_ok())
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
        // Relaxed: under the lock; read again only under all locks of the scope. Written once, because
        // other shards' threads read the line.
        if shard.scope.settled.load(Relaxed) == 0 {
            shard.scope.settled.store(1, Relaxed);
        }
        let special = if shard.scope.attach().is_some() { SPECIAL } else { 0 };
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

    /// Sets what runs on every thread before its first callback of the scope.
    pub(crate) fn set_thread_hooks(
        &self,
        record: &Record,
        handle: Handle,
        hooks: ThreadHooks,
    ) -> Result<(), Error> {
        let section = self.section(record);
        // All locks, so that no registration is on its way. In the order of their places.
        let mut shards = [const { None }; SHARDS as usize];
        for (number, shard) in shards.iter_mut().enumerate() {
            *shard = Some(self.lock_shard(&section, handle, number as u32)?);
        }
        let Some(shard) = &shards[0] else { return Err(Error::Stale) };
        if !shard.is_open() {
            return Err(Error::Closed);
        }
        let scope = shard.scope;
        if scope.settled.load(Relaxed) != 0 {
            return Err(Error::Exists);
        }
        let slot = self.slots.at(handle.index());
        // Relaxed: published by the locks.
        scope.settled.store(1, Relaxed);
        slot.user_data.store(hooks.user_data.cast(), Relaxed);
        slot.destroy.store(invoke::destroy_to_pointer(hooks.destroy), Relaxed);
        scope.attach.store(hooks.attach as *mut (), Relaxed);
        let detach = hooks.detach.map_or(ptr::null_mut(), |function| function as *mut ());
        scope.detach.store(detach, Relaxed);
        Ok(())
    }

    /// The scope of a callback, 0 if it is the default one's or gone. Racy, unless the caller keeps the
    /// callback from ending.
    pub(super) fn scope_of(&self, callback: Handle) -> Handle {
        let slot = self.slots.get(callback.index_as(Kind::Callback));
        let Some(cold) = slot.and_then(|slot| self.cold_of(slot)) else {
            return Handle(0);
        };
        // ORDER[fallback] whose, what, still whose, as in `Engine::fallback`.
        if cold.owner() != callback {
            return Handle(0);
        }
        let scope = cold.membership.scope();
        fence(Acquire);
        if cold.owner() == callback { scope } else { Handle(0) }
    }

    /// Is who is inside `cell` inside `target`: the same object, or the scope that owns it?
    pub(super) fn is_part_of(&self, cell: Handle, target: Handle) -> bool {
        if cell == target || !target.has_kind(Kind::Scope) {
            return cell == target;
        }
        cell == target.with_kind(Kind::Closing) || self.scope_of(cell) == target
    }

    /// Is the calling thread inside `target`?
    pub(super) fn is_inside(&self, record: &Record, target: Handle) -> bool {
        record.stack().any(|frame| self.is_part_of(frame.handle(), target))
    }
}
