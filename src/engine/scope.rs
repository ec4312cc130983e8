//! Scopes: an owner and everything it registered.
//!
//! A scope is an object of the slab like a callback: its word says open (live), closing (revoked), and
//! gone. What it owns is in its lists (engine/members.rs).
//!
//! Entries are type-stable: a stale handle may lead to another scope's, and then the owner tells.

use super::Engine;
use super::gate::Section;
use super::handle::{Handle, Kind};
use super::invoke::{self, AttachFn, DestroyFn, DetachFn};
use super::members::{SHARDS, Shard};
use super::meter::Ended;
use super::name::Name;
use super::record::Record;
use super::slab::{Entry, Slab};
use super::slot::{Mark, Phase, Slot, Word};
use crate::error::Error;
use crate::platform::futex;
use crate::sync::{
    Acquire, AtomicPtr, AtomicU32, AtomicU64, Lock, MutexGuard, Relaxed, Release, SeqCst,
};
use std::ffi::c_void;
use std::ptr;

/// Locks of all scopes: neighbouring shards have different ones.
const LOCKS: usize = if cfg!(any(loom, miri)) { 1 } else { 64 };
/// See [`Slab`].
const FIRST: u32 = if cfg!(any(loom, miri)) { 2 } else { 4 };

/// All scopes, and the locks that they share.
pub(crate) struct Scopes {
    entries: Slab<Scope, FIRST>,
    locks: [Padded; LOCKS],
}

/// On a cache line of its own.
#[repr(align(64))]
struct Padded(Lock);

impl Scopes {
    /// The entry at `index`, whoever's it is, and its shard's lock, taken.
    pub(super) fn lock(&self, index: u32, shard: u32) -> Option<(&Scope, MutexGuard<'_, ()>)> {
        let scope = self.entries.get(index)?;
        Some((scope, self.locks[(index * SHARDS + shard) as usize % LOCKS].0.lock()))
    }

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
    pub(super) settled: AtomicU32,
    /// Counts what somebody who closes may be waiting for.
    pub(super) changes: AtomicU32,
    /// The scope's handle if a pass over its callbacks was cut short: by an unwind, a longjmp, or the
    /// limit of nesting.
    pub(super) unfinished: AtomicU64,
    /// What its metered callbacks have done that have ended.
    pub(super) ended: Ended,
    pub(super) shards: [Shard; SHARDS as usize],
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
            ended: Ended::new(),
            shards: std::array::from_fn(|_| Shard::new()),
        }
    }

    fn link(&self) -> &AtomicU64 {
        &self.link
    }

    fn first_use(&self, _generation: u32) {}
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
        // ORDER[wait] after the change; partner: the load in `close_scope`, before its look.
        self.changes.fetch_add(1, SeqCst);
        futex::wake_all(&self.changes);
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
        entry.ended.clear();
        entry.shards.iter().for_each(Shard::begin);
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
    pub(super) fn end_scope(&self, _section: &Section<'_>, slot: &Slot) {
        let index = slot.cold.load(Relaxed);
        // None: a fork has come in between, and this is the child.
        let Some(entry) = self.scopes.entries.get(index) else { return };
        slot.cold.store(0, Relaxed);
        entry.owner.store(0, Relaxed);
        // Who has found the scope under one of its locks has done with it; others find that it ends.
        for number in 0..SHARDS {
            drop(self.scopes.lock(index, number));
        }
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
        self.cold_read(callback, |cold| cold.membership.scope())
    }

    /// Is who is inside `cell` inside `target`: the same object, or the scope that owns it?
    pub(crate) fn is_part_of(&self, cell: Handle, target: Handle) -> bool {
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
