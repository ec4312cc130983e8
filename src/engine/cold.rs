//! What calls do not need of a callback: name, scope, error function, fallback. Only callbacks that
//! have any of it own an entry.

use super::handle::Handle;
use super::invoke::ErrorFn;
use super::members::Membership;
use super::meter::Meter;
use super::name::{Name, Text};
use super::record::Record;
use super::slab::Entry;
use super::slot::Slot;
use super::stacks::Stack;
use super::{Engine, handle::Kind};
use crate::error::Error;
use crate::platform::{clock, logging};
use crate::sync::{Acquire, AtomicPtr, AtomicU64, Relaxed, Release, fence};
use std::ptr;

/// An entry. Type-stable like a slot, because [`Engine::fallback`] reads it through stale handles.
pub(crate) struct Cold {
    /// The callback's handle, 0 while the entry changes hands. Handles are never issued twice, so
    /// reading it before and after another field tells whose the field was.
    owner: AtomicU64,
    /// The bits of a C `cbr_value`.
    fallback: AtomicU64,
    on_error: AtomicPtr<()>,
    name: Name,
    /// In the scope's list of its callbacks.
    pub(super) membership: Membership,
    /// The queue whose owner alone may call; 0: any thread.
    home: AtomicU64,
    /// The queue that destroy runs in; 0: where the callback ends.
    destroy_queue: AtomicU64,
    /// When it was made, in nanoseconds, and where: a [`Stack`], or null.
    registered: AtomicU64,
    stack: AtomicPtr<Stack>,
    /// As the host gave them.
    flags: AtomicU64,
    pub(super) meter: Meter,
    /// While destroy waits in that queue: the next one that does, and the place of what it comes after.
    pub(crate) next_job: AtomicU64,
    pub(crate) job_position: AtomicU64,
    /// 1 while it does.
    pub(crate) is_deferred: AtomicU64,
    link: AtomicU64,
}

impl Entry for Cold {
    #[cfg(loom)]
    fn new() -> Self {
        Self {
            owner: AtomicU64::new(0),
            fallback: AtomicU64::new(0),
            on_error: AtomicPtr::new(ptr::null_mut()),
            name: Name::new(),
            membership: Membership::new(),
            home: AtomicU64::new(0),
            destroy_queue: AtomicU64::new(0),
            registered: AtomicU64::new(0),
            stack: AtomicPtr::new(ptr::null_mut()),
            flags: AtomicU64::new(0),
            meter: Meter::new(),
            next_job: AtomicU64::new(0),
            job_position: AtomicU64::new(0),
            is_deferred: AtomicU64::new(0),
            link: AtomicU64::new(0),
        }
    }

    fn link(&self) -> &AtomicU64 {
        &self.link
    }

    fn first_use(&self, _generation: u32) {}
}

impl Cold {
    /// Where probes find the name, as C's pointer, and the scope.
    pub(super) const NAME_AT: usize = std::mem::offset_of!(Self, name);
    pub(super) const SCOPE_AT: usize =
        std::mem::offset_of!(Self, membership) + Membership::SCOPE_AT;

    /// The name; the callback must be protected or in the caller's hands alone.
    pub(crate) fn name(&self) -> &str {
        self.name.get()
    }

    /// The same, to share; None if there is none.
    pub(crate) fn name_text(&self) -> Option<Text> {
        self.name.text()
    }

    pub(crate) fn home(&self) -> Handle {
        // Relaxed: published with the callback.
        Handle(self.home.load(Relaxed))
    }

    pub(crate) fn destroy_queue(&self) -> Handle {
        // Relaxed: as above.
        Handle(self.destroy_queue.load(Relaxed))
    }

    pub(super) fn fallback(&self) -> u64 {
        // Relaxed: as above.
        self.fallback.load(Relaxed)
    }

    /// When it was registered, in nanoseconds.
    pub(super) fn registered(&self) -> u64 {
        // Relaxed: as above.
        self.registered.load(Relaxed)
    }

    /// Where it was registered, if that was noted.
    pub(super) fn stack(&self) -> Option<&'static Stack> {
        // Relaxed: as above.
        let stack = self.stack.load(Relaxed);
        // SAFETY: null, or from `ColdParts::stack`.
        unsafe { stack.as_ref() }
    }

    /// How much memory the entry takes, with what it points to.
    #[cfg(not(loom))]
    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>() + self.name_text().map_or(0, Text::bytes)
    }

    pub(super) fn flags(&self) -> u32 {
        // Relaxed: as above.
        self.flags.load(Relaxed) as u32
    }

    fn is_guest(&self) -> bool {
        // Relaxed: as above.
        self.flags.load(Relaxed) & GUEST != 0
    }

    /// The callback that owns the entry.
    pub(super) fn owner(&self) -> Handle {
        // Acquire: partner: the store in `own_cold`.
        Handle(self.owner.load(Acquire))
    }

    pub(crate) fn on_error(&self) -> Option<ErrorFn> {
        // Relaxed: published with the callback.
        let function = self.on_error.load(Relaxed);
        // SAFETY: null or an `ErrorFn` that register stored; Option<fn> has null for None.
        unsafe { std::mem::transmute::<*mut (), Option<ErrorFn>>(function) }
    }
}

/// In [`ColdParts::flags`], above the host's: the callback is metered.
pub(crate) const METERED: u64 = 1 << 32;
/// Likewise: it is one of the host's functions that other operations call, see [`super::guest`].
const GUEST: u64 = 1 << 33;

/// The cold part of a registration.
#[derive(Clone, Copy)]
pub(crate) struct ColdParts<'a> {
    pub(crate) name: &'a str,
    pub(crate) on_error: Option<ErrorFn>,
    pub(crate) fallback: u64,
    /// 0: the default scope.
    pub(crate) scope: Handle,
    /// 0: none.
    pub(crate) home: Handle,
    /// 0: none.
    pub(crate) destroy_queue: Handle,
    /// The host's flags, and [`METERED`] if they say so.
    pub(crate) flags: u64,
    /// Where it is registered, if that is noted.
    pub(crate) stack: Option<&'static Stack>,
}

impl<'a> ColdParts<'a> {
    /// Of a guest, see [`super::guest`].
    pub(crate) fn of_guest(name: &'a str, scope: Handle, fallback: u64) -> Self {
        Self { name, scope, fallback, flags: GUEST, ..Self::NONE }
    }

    /// Nothing of it.
    pub(crate) const NONE: Self = Self {
        name: "",
        on_error: None,
        fallback: 0,
        scope: Handle(0),
        home: Handle(0),
        destroy_queue: Handle(0),
        flags: 0,
        stack: None,
    };

    pub(crate) fn is_empty(&self) -> bool {
        self.name.is_empty()
            && self.on_error.is_none()
            && self.fallback | self.scope.0 | self.home.0 | self.destroy_queue.0 == 0
            && self.flags == 0
            && self.stack.is_none()
    }

    #[inline(always)]
    pub(super) fn is_metered(&self) -> bool {
        self.flags & METERED != 0
    }
}

impl Engine {
    /// Makes an entry that nobody owns yet; its index.
    pub(crate) fn make_cold(&self, record: &Record, parts: &ColdParts<'_>) -> Result<u32, Error> {
        let index = record.free_cold.pop(&self.cold, 0)?;
        let cold = self.cold.at(index);
        if let Err(error) = cold.name.set(parts.name) {
            record.free_cold.push(&self.cold, index);
            return Err(error);
        }
        let on_error = parts.on_error.map_or(ptr::null_mut(), |function| function as *mut ());
        cold.on_error.store(on_error, Relaxed);
        cold.fallback.store(parts.fallback, Relaxed);
        cold.membership.set_scope(parts.scope);
        cold.home.store(parts.home.0, Relaxed);
        cold.destroy_queue.store(parts.destroy_queue.0, Relaxed);
        cold.is_deferred.store(0, Relaxed);
        cold.registered.store(clock::nanoseconds(), Relaxed);
        let stack = parts.stack.map_or(ptr::null_mut(), |stack| ptr::from_ref(stack).cast_mut());
        cold.stack.store(stack, Relaxed);
        cold.flags.store(parts.flags, Relaxed);
        if parts.is_metered()
            && let Err(error) = self.begin_meter(record, cold, parts.scope, parts.name)
        {
            self.give_back_cold(record, index);
            return Err(error);
        }
        Ok(index)
    }

    /// An entry that is a name alone; 0 for an empty one.
    pub(crate) fn make_cold_name(&self, record: &Record, name: &str) -> Result<u32, Error> {
        if name.is_empty() {
            Ok(0)
        } else {
            self.make_cold(record, &ColdParts { name, ..ColdParts::NONE })
        }
    }

    /// Frees an entry that nobody came to own.
    pub(crate) fn give_back_cold(&self, record: &Record, index: u32) {
        let cold = self.cold.at(index);
        self.end_meter_if_any(record, cold);
        cold.name.clear();
        record.free_cold.push(&self.cold, index);
    }

    #[inline(always)]
    fn end_meter_if_any(&self, record: &Record, cold: &Cold) {
        if cold.meter.is_on() {
            self.end_meter(record, cold);
        }
    }

    /// Frees the entry of a callback that was not published.
    #[cold]
    pub(crate) fn disown_cold(&self, record: &Record, slot: &Slot) {
        if let Some(cold) = self.cold_of(slot) {
            self.end_meter_if_any(record, cold);
            cold.name.clear();
            self.drop_cold(record, slot);
        }
    }

    /// Gives the entry to `handle`, which is about to be published in `slot`.
    pub(crate) fn own_cold(&self, slot: &Slot, index: u32, handle: Handle) {
        if index != 0 {
            // Release: partner: the first load in `fallback`.
            self.cold.at(index).owner.store(handle.0, Release);
        }
        // Relaxed: published with the callback.
        slot.cold.store(index, Relaxed);
    }

    /// The callback's cold data. The caller is inside, or owns the slot alone.
    #[inline]
    pub(crate) fn cold_of(&self, slot: &Slot) -> Option<&Cold> {
        match slot.cold.load(Relaxed) {
            0 => None,
            // None for a stale reader that does not see the chunk yet.
            index => self.cold.get(index),
        }
    }

    /// The callback has ended. A fallback stays readable until the slot serves another callback.
    #[inline(always)]
    pub(crate) fn end_cold(&self, record: &Record, slot: &Slot) {
        let Some(cold) = self.cold_of(slot) else {
            return;
        };
        // Before anything is freed: who has found the callback alive has done with it, and others find that it
        // has ended.
        #[cfg(not(loom))]
        drop(self.keep_onlookers_off(record));
        // While its scope is open.
        self.end_meter_if_any(record, cold);
        self.leave_scope(record, cold);
        #[cfg(not(loom))]
        if let Some(name) = cold.name.text()
            && logging::is_on(logging::Level::Warn)
        {
            super::ghosts::remember(cold.owner(), name.share());
        }
        cold.name.clear();
        cold.on_error.store(ptr::null_mut(), Relaxed);
        if cold.fallback.load(Relaxed) == 0 {
            self.drop_cold(record, slot);
        }
    }

    /// Frees the entry. The caller owns the slot alone.
    #[cold]
    pub(crate) fn drop_cold(&self, record: &Record, slot: &Slot) {
        let index = slot.cold.load(Relaxed);
        slot.cold.store(0, Relaxed);
        let cold = self.cold.at(index);
        cold.owner.store(0, Relaxed);
        // ORDER[fallback] nobody's before it holds another's; partner: the fence in `fallback`.
        fence(Release);
        record.free_cold.push(&self.cold, index);
    }

    /// What `cbr_call_ptr` returns for a callback that cannot run: its fallback while that is known.
    pub(crate) fn fallback(&self, handle: Handle) -> u64 {
        let Some(slot) = self.slots.get(handle.index_as(Kind::Callback)) else {
            return 0;
        };
        let Some(cold) = self.cold_of(slot) else {
            return 0;
        };
        // ORDER[fallback] whose, what, still whose: a reader that saw the next owner's value sees
        // that the owner has changed, too.
        if cold.owner.load(Acquire) != handle.0 {
            return 0;
        }
        let fallback = cold.fallback.load(Relaxed);
        fence(Acquire);
        if cold.owner.load(Relaxed) == handle.0 { fallback } else { 0 }
    }

    /// A handle that the callback's cold data has, 0 if there is none or the callback is gone. Racy, unless
    /// the caller keeps the callback from ending.
    pub(super) fn cold_read(&self, callback: Handle, read: impl Fn(&Cold) -> Handle) -> Handle {
        let slot = self.slots.get(callback.index_as(Kind::Callback));
        let Some(cold) = slot.and_then(|slot| self.cold_of(slot)) else {
            return Handle(0);
        };
        // ORDER[fallback] whose, what, still whose, as in `fallback`.
        if cold.owner() != callback {
            return Handle(0);
        }
        let value = read(cold);
        fence(Acquire);
        if cold.owner() == callback { value } else { Handle(0) }
    }

    /// Is it a guest? Racy, as above.
    pub(super) fn is_guest(&self, callback: Handle) -> bool {
        self.cold_read(callback, |cold| Handle(cold.is_guest().into())).0 != 0
    }

    /// How a log line calls a callback or a scope that the caller keeps alive.
    pub(crate) fn name_for_log(&self, handle: Handle) -> Named<'_> {
        let slot = self.slots.at(handle.index());
        let is_scope = handle.has_kind(Kind::Scope) || handle.has_kind(Kind::Closing);
        let name = match is_scope {
            true => self.scope_of_slot(slot).name(),
            false => self.cold_of(slot).map_or("", Cold::name),
        };
        Named(name, handle)
    }
}

/// How a log line calls what has this name, which may be "".
pub(crate) struct Named<'a>(pub(crate) &'a str, pub(crate) Handle);

impl std::fmt::Display for Named<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            "" => write!(out, "{:#018x}", self.1.0),
            name => write!(out, "'{name}' ({:#018x})", self.1.0),
        }
    }
}
