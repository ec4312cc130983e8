//! Calls that somebody watches.
//!
//! A call costs nothing for it when nobody does: then its callback is plain, and nothing is asked. What
//! wants to see calls makes their callbacks special ([`SPECIAL`]): all of them ([`Engine::change_observers`])
//! or, from their registration on, single ones. A call of a special callback comes here.

use super::Engine;
use super::guest::GuestPlace;
use super::handle::{Handle, Kind};
use super::meter::Measured;
use super::record::Stay;
use super::slot::{Mark, Phase, SPECIAL, Slot, Word};
use crate::platform::{logging, thread_id};
use crate::sync::{AcqRel, AtomicU32, AtomicU64, Relaxed, Release, SeqCst, TotalOrder, spin_hint};

/// Who watches all callbacks.
pub(crate) struct Observers {
    /// What every callback has in its mark because of them: [`SPECIAL`] or nothing.
    bits: AtomicU64,
    /// A tracer, which is told of every call.
    pub(super) call_hooks: GuestPlace,
    /// 1 while somebody changes them.
    busy: AtomicU32,
}

impl Observers {
    #[cfg(not(loom))]
    pub(crate) const fn new() -> Self {
        Self { bits: AtomicU64::new(0), call_hooks: GuestPlace::new(), busy: AtomicU32::new(0) }
    }
    #[cfg(loom)]
    pub(crate) fn new() -> Self {
        Self { bits: AtomicU64::new(0), call_hooks: GuestPlace::new(), busy: AtomicU32::new(0) }
    }

    /// What new callbacks have in their mark because of them.
    #[inline(always)]
    pub(super) fn bits(&self) -> u64 {
        // Relaxed: who is missed here is found by `bits_for_all`.
        self.bits.load(Relaxed)
    }
}

impl Engine {
    /// Changes who watches all callbacks, by `change`, and so which ones are special from now on, also of
    /// those that there are.
    pub(super) fn change_observers(&self, change: impl FnOnce()) {
        // One at a time, or the callbacks might get what one says and the observers what the other says.
        // AcqRel: acquire, partner: the store at the end.
        while self.observers.busy.compare_exchange(0, 1, AcqRel, Relaxed).is_err() {
            spin_hint();
        }
        change();
        let bits = self.wanted_bits();
        // ORDER[observe] before the look at the callbacks; partner: `bits_for_all`.
        if self.observers.bits.swap_sc(bits) != bits {
            self.change_all(bits);
        }
        self.observers.busy.store(0, Release);
    }

    fn wanted_bits(&self) -> u64 {
        let is_watched = self.check.is_thorough() || self.observers.call_hooks.get().0 != 0;
        if is_watched { SPECIAL } else { 0 }
    }

    /// In the child of a fork: what a thread that does not exist was in the middle of changing is done.
    pub(super) fn finish_change_in_child(&self) {
        // Relaxed: there is one thread.
        if self.observers.busy.load(Relaxed) == 0 {
            return;
        }
        self.check.choose_registrations();
        let bits = self.wanted_bits();
        self.observers.bits.store(bits, Relaxed);
        // Whichever of the callbacks that thread had come to.
        self.change_all(bits);
        self.observers.busy.store(0, Relaxed);
    }

    fn change_all(&self, bits: u64) {
        for (index, slot) in self.slots.iter() {
            // Acquire (as which it is loaded): partner: register, for what is read of the callback's scope.
            let word = Word(slot.word.load_sc());
            if word.in_phase(Phase::Live) {
                let handle = Handle::new(word.generation(), Kind::Callback, index);
                self.change_bits(slot, handle, bits);
            }
        }
        if bits != 0 {
            // Threads that call without a look at the mark look from now on; partner: `begin_bias`.
            self.records.iter().for_each(super::Record::suspend_bias);
        }
    }

    /// Makes the callback special, or, if nothing else does, plain.
    fn change_bits(&self, slot: &Slot, handle: Handle, bits: u64) {
        let scope = self.scope_of(handle);
        let is_special = self.find_scope(scope).is_some_and(|scope| scope.attach().is_some())
            || self.home_of(handle).0 != 0
            || self.is_metered(handle);
        let mut mark = Mark(slot.mark.load_sc());
        while mark.belongs_to(handle) {
            let new = match bits == 0 && !is_special {
                true => mark.ignoring(SPECIAL),
                false => mark.with(SPECIAL),
            };
            // A mark that is still of this generation says that what we read of the scope was right.
            match slot.mark.cas_sc(mark.0, new.0) {
                Ok(_) => return,
                Err(current) => mark = Mark(current),
            }
        }
    }

    /// What a callback that was found live should have in its mark. One that was being registered while all
    /// were made special may lack it: then [`Engine::make_special`] is for the caller to call.
    ///
    /// Who asks has found the callback live, and made no plain call of it before. So either it finds the bits
    /// here, or they are set later, and then the callback is found live there, too.
    #[inline(always)]
    pub(super) fn bits_for_all(&self) -> u64 {
        // ORDER[observe] after the word was found live, in the total order (for loom by that load's fence);
        // partner: `change_observers`.
        self.observers.bits.load(SeqCst)
    }

    #[cfg(test)]
    pub(crate) fn is_special(&self, handle: Handle) -> bool {
        Mark(self.slots.at(handle.index()).mark.load_sc()).has(SPECIAL)
    }

    /// Makes a callback special that all others have been made.
    #[cold]
    pub(super) fn make_special(&self, slot: &Slot, handle: Handle) {
        self.change_bits(slot, handle, SPECIAL);
        if self.bits_for_all() == 0 {
            // Not any more: who says so may have passed the callback before.
            self.change_bits(slot, handle, 0);
        }
    }
}

impl Engine {
    /// Has another tracer, or none, told of calls from now on. The one before, which is for the caller to
    /// end; 0: none.
    pub(crate) fn replace_call_hooks(&self, guest: Handle) -> Handle {
        let mut before = Handle(0);
        self.change_observers(|| before = self.observers.call_hooks.replace(guest));
        before
    }

    /// If the tracer is gone, because its scope is closing, callbacks are plain again.
    pub(crate) fn forget_gone_call_hooks(&self) {
        let guest = self.observers.call_hooks.get();
        if guest.0 != 0 && !self.is_live(guest) {
            self.change_observers(|| {
                self.observers.call_hooks.forget(guest);
            });
        }
    }
}

/// A call of a special callback that is entered. Dropped when it is over, also by an unwind, and before the
/// callback is left.
pub(super) struct Observed<'a> {
    engine: &'a Engine,
    stay: Stay<'a>,
    /// When it began, if somebody wants to know how long it takes.
    began: Option<u64>,
    measured: Option<Measured<'a>>,
}

impl<'a> Observed<'a> {
    /// A tracer's function runs here, and may unwind. (Its other one runs when the frame is left.)
    pub(super) fn begin(engine: &'a Engine, stay: Stay<'a>) -> Self {
        engine.begin_span(stay.record, stay.frame, stay.slot, false);
        let began = engine.check.begin();
        // Last, so that what others do is not measured.
        Self { engine, stay, began, measured: engine.measure(stay) }
    }

    /// The callback has returned.
    pub(super) fn end(self) {
        drop(self);
    }
}

impl Drop for Observed<'_> {
    fn drop(&mut self) {
        let Self { engine, stay, began, measured } = self;
        drop(measured.take());
        if let Some(took) = began.and_then(|began| engine.check.took_long(began)) {
            let (name, thread) = (engine.name_for_log(stay.handle), thread_id());
            logging::warn(format_args!("the callback {name} took {took} ms on thread {thread}"));
        }
    }
}
