//! Whose a queue is: the thread that dispatches it, and what other threads must leave to that one.
//!
//! A queue's slot says so in place of a signature: the token of its owner ([`Record::token`]). A queue
//! that any thread may dispatch has the token of the only one that ever has, or `SEVERAL`; 0 is nobody.

use super::Engine;
use super::frame::Frame;
use super::handle::{Handle, Kind};
use super::members::SHARDS;
use super::record::Record;
use super::signature::Signature;
use super::slot::{Mark, Phase, Slot, TYPED};
use crate::error::{Error, Fault};
use crate::platform;
use crate::sync::{Acquire, AtomicPtr, Relaxed, SeqCst, TotalOrder};

/// More than one thread has dispatched the queue.
const SEVERAL: u64 = u64::MAX;

/// What the engine asks of queues, which lie above it: handed down when the first one is opened.
pub(crate) struct QueueHooks {
    /// Has the queue run the destroy function of a callback that is being finalized. False: it does not.
    pub(crate) defer_destroy: fn(&Engine, &Record, Handle, &Slot, Handle) -> bool,
    /// Runs the destroy functions that wait in queues of this thread and end the callback, or callbacks
    /// of the scope.
    pub(crate) run_own_destroys: fn(&Engine, &Record, Handle),
    /// A dispatch was left by a longjmp, or its thread ends: lets go of what it was delivering.
    pub(crate) abandon_dispatch: fn(&Engine, &Record, &Frame),
    /// The thread is about to set its trace context. If a dispatch has called what does, that is undone when
    /// its callback is over.
    pub(crate) keep_context: fn(&Record),
    /// The call that has just been entered, at so many nanoseconds, is of a metered callback. If it is for an
    /// event, counts how long that has waited.
    pub(crate) note_latency: fn(&Record, u64),
}

/// The queues that a callback has to do with; 0: none.
pub(crate) struct Queues {
    pub(crate) home: Handle,
    pub(crate) destroy_queue: Handle,
}

/// Where they are; null before the first queue.
pub(crate) struct HooksPlace(AtomicPtr<QueueHooks>);

impl HooksPlace {
    #[cfg(not(loom))]
    pub(crate) const fn new() -> Self {
        Self(AtomicPtr::new(std::ptr::null_mut()))
    }
    #[cfg(loom)]
    pub(crate) fn new() -> Self {
        Self(AtomicPtr::new(std::ptr::null_mut()))
    }

    pub(crate) fn set(&self, hooks: &'static QueueHooks) {
        // Before the first queue's handle is anybody's.
        self.0.store(std::ptr::from_ref(hooks).cast_mut(), SeqCst);
    }

    pub(super) fn get(&self) -> Option<&'static QueueHooks> {
        // SAFETY: null, or a `&'static` from `set`.
        unsafe { self.0.load(SeqCst).as_ref() }
    }
}

impl Engine {
    /// Makes the thread the owner of a queue that it is inside of.
    pub(crate) fn own_queue(&self, record: &Record, slot: &Slot) {
        slot.signature.store(record.token(), SeqCst);
    }

    /// The thread dispatches a queue that anybody may.
    #[inline(always)]
    pub(crate) fn note_dispatcher(&self, record: &Record, slot: &Slot) {
        // Relaxed: only this thread writes its token; a search for deadlocks looks in the total order.
        let known = slot.signature.load(Relaxed);
        if known != record.token() && known != SEVERAL {
            let new = if known == 0 { record.token() } else { SEVERAL };
            if slot.signature.cas_sc(known, new).is_err() {
                slot.signature.store(SEVERAL, SeqCst);
            }
        }
    }

    /// Is the thread the one that dispatches the queue?
    #[inline(always)]
    pub(crate) fn owns_queue(&self, record: &Record, slot: &Slot) -> bool {
        slot.signature.load_sc() == record.token()
    }

    /// The same of a queue's handle, whatever has become of it.
    pub(super) fn owns_queue_named(&self, record: &Record, queue: Handle) -> bool {
        self.resolve(queue, Kind::Queue)
            .is_ok_and(|slot| slot.live(queue).is_ok() && self.owns_queue(record, slot))
    }

    /// What a thread that is not the owner is told.
    #[cold]
    pub(crate) fn not_the_owner(&self, slot: &Slot) -> Error {
        let token = slot.signature.load(Relaxed);
        let owner = self.records.by_id(token as u32).filter(|owner| owner.token() == token);
        // Relaxed: for the words.
        let owner = owner.map_or(0, |owner| owner.thread.load(Relaxed));
        Error::Thread { owner, caller: platform::thread_id() }
    }

    /// May the thread call the callback that it is inside of? If not, leaves it.
    pub(super) fn check_home(
        &self,
        record: &Record,
        frame: &Frame,
        slot: &Slot,
    ) -> Result<(), Fault> {
        let home = self.cold_of(slot).map_or(Handle(0), super::cold::Cold::home);
        if home.0 == 0 {
            return Ok(());
        }
        if self.owns_queue_named(record, home) {
            return Ok(());
        }
        let error = self.why_not_home(home);
        let _ = self.leave_cold(record, frame, slot);
        Err(record.fault(error))
    }

    /// Has somebody else to run the destroy function? Then that one does.
    #[inline(always)]
    pub(super) fn defers_destroy(&self, record: &Record, slot: &Slot, handle: Handle) -> bool {
        // Relaxed: published with LIVE.
        slot.cold.load(Relaxed) != 0
            && handle.has_kind(Kind::Callback)
            && self.defer_destroy(record, slot, handle)
    }

    #[cold]
    fn defer_destroy(&self, record: &Record, slot: &Slot, handle: Handle) -> bool {
        let queue = self.cold_of(slot).map_or(Handle(0), super::cold::Cold::destroy_queue);
        queue.0 != 0
            && self
                .queue_hooks
                .get()
                .is_some_and(|hooks| (hooks.defer_destroy)(self, record, queue, slot, handle))
    }

    /// Runs what ends `target`, a callback or a scope, and waits in a queue of the calling thread. True if
    /// it is worth another look before a wake-up.
    pub(super) fn run_own_destroys(&self, record: &Record, target: Handle) -> bool {
        let Some(hooks) = self.queue_hooks.get() else { return false };
        (hooks.run_own_destroys)(self, record, target);
        // A scope's closers are told by a count of theirs. A callback's destroy function may come to a
        // queue at any time, and then whose that is matters to the search for deadlocks.
        target.has_kind(Kind::Callback) && self.destroy_queue_of(target).0 != 0
    }

    /// The thread is about to have a dispatching thread run something; what it will wait for, and waits for
    /// as soon as that one has begun.
    pub(crate) fn begin_call(&self, record: &Record) -> Handle {
        record.call_queue.store(0, SeqCst);
        record.call_runner.store(0, SeqCst);
        Handle::new(0, Kind::Call, record.id())
    }

    /// It was posted to this queue: from now on the thread waits for that one's.
    pub(crate) fn call_is_posted(&self, record: &Record, queue: Handle) {
        record.call_queue.store(queue.0, SeqCst);
    }

    /// The thread runs it, for the owner of the record `caller`.
    pub(crate) fn run_call(&self, record: &Record, caller: u32) {
        if let Some(caller) = self.records.by_id(caller) {
            caller.call_runner.store(record.id(), SeqCst);
        }
    }

    /// A destroy function that another thread had been left to run runs here.
    pub(crate) fn finish_deferred(&self, record: &Record, callback: Handle) {
        self.run_destroy_here(record, self.slots.at(callback.index()), callback);
    }

    /// The cold data of a callback that is being finalized; None for 0.
    pub(crate) fn cold_of_ending(&self, callback: Handle) -> Option<&super::cold::Cold> {
        if callback.0 == 0 { None } else { self.cold_of(self.slots.at(callback.index())) }
    }

    /// Whoever waits for the callback's end, or its scope's, looks again.
    pub(crate) fn wake_waiters(&self, slot: &Slot, callback: Handle) {
        if slot.waited_for.load_sc() != 0 {
            crate::platform::futex::wake_all(&slot.word);
        }
        if let Some(scope) = self.find_scope(self.scope_of(callback)) {
            scope.tell_closers();
        }
    }

    /// Is another thread posting to the queue?
    pub(crate) fn others_post(&self, record: &Record, queue: Handle) -> bool {
        let others = || self.records.iter().filter(|other| other.id() != record.id());
        if others().any(|other| other.is_biased_to(queue)) {
            // ORDER[inflight] partner: the light barrier of a biased post, before it looks whether the
            // queue is open. (Refused: then an event may be dropped by a close that it came before.)
            let _ = self.barrier.heavy();
        }
        others().any(|other| other.holds(queue))
    }

    pub(crate) fn slot_of(&self, handle: Handle) -> &Slot {
        self.slots.at(handle.index())
    }

    /// Is it a callback that lives?
    pub(crate) fn check_live(&self, callback: Handle) -> Result<(), Error> {
        self.live(callback, Kind::Callback).map(|_| ())
    }

    /// A thread has called, or posted to another queue, what belongs to the owner of this one.
    #[cold]
    pub(crate) fn why_not_home(&self, home: Handle) -> Error {
        match self.resolve(home, Kind::Queue) {
            Ok(slot) if slot.live(home).is_ok() => self.not_the_owner(slot),
            _ => Error::Closed,
        }
    }

    /// What a post must know of the callback; None: nothing special. Fails if it takes no events.
    pub(crate) fn postable(&self, callback: Handle) -> Result<Option<Queues>, Error> {
        let slot = self.resolve(callback, Kind::Callback)?;
        // Acquire: partner: the mark is published by LIVE; of another generation the retain will say so.
        let mark = Mark(slot.mark.load(Acquire));
        if mark.has(TYPED) && mark.belongs_to(callback) {
            let have = slot.signature.load(Relaxed);
            slot.live(callback)?;
            return Err(Error::Signature { have, want: Signature::DEFAULT.0 });
        }
        if slot.cold.load(Relaxed) == 0 {
            return Ok(None);
        }
        let (home, destroy_queue) = (self.home_of(callback), self.destroy_queue_of(callback));
        Ok(Some(Queues { home, destroy_queue }))
    }

    /// Has the callback to do with a queue of its own? Racy, like [`Engine::scope_of`].
    #[inline(never)]
    pub(crate) fn has_queues(&self, callback: Handle) -> bool {
        self.home_of(callback).0 != 0 || self.destroy_queue_of(callback).0 != 0
    }

    /// The queue that the callback's destroy runs in, 0 if none. Racy, like [`Engine::scope_of`].
    pub(crate) fn destroy_queue_of(&self, callback: Handle) -> Handle {
        self.cold_read(callback, super::cold::Cold::destroy_queue)
    }

    /// The callback's home, 0 if none. Racy in the same way.
    pub(crate) fn home_of(&self, callback: Handle) -> Handle {
        self.cold_read(callback, super::cold::Cold::home)
    }

    /// Does `target`'s end, or progress, hang on what the owner of `other` is inside of, or on what that
    /// thread alone does?
    pub(super) fn is_held_up_by(&self, me: &Record, other: &Record, target: Handle) -> bool {
        if target.has_kind(Kind::Queue) {
            return self.owns_queue_named(other, target);
        }
        if target.has_kind(Kind::Call) {
            let Some(caller) = self.records.by_id(target.index()) else { return false };
            // ORDER[deadlock] partner: `begin_call`, `run_call`.
            return match caller.call_runner.load_sc() {
                0 => self.owns_queue_named(other, Handle(caller.call_queue.load_sc())),
                runner => runner == other.id(),
            };
        }
        if target.has_kind(Kind::Callback) {
            let queue = self.destroy_queue_of(target);
            if queue.0 != 0
                && self.slots.at(target.index()).peek().is(target, Phase::Finalizing)
                && self.owns_queue_named(other, queue)
            {
                return true;
            }
        }
        let mut found = false;
        other.for_each_cell(|cell| found |= self.is_part_of(cell, target));
        found
            || (target.has_kind(Kind::Scope)
                && self.deferred.load_sc() != 0
                && self.destroys_of_scope_wait_for(me, other, target))
    }

    /// Does the destroy function of a callback of the scope wait in a queue of `other`'s owner?
    fn destroys_of_scope_wait_for(&self, me: &Record, other: &Record, scope: Handle) -> bool {
        (0..SHARDS).any(|number| {
            let section = self.section(me);
            let Ok(shard) = self.lock_shard(&section, scope, number) else { return false };
            let mut members = shard.members();
            members.any(|member| {
                self.slots.at(member.index()).peek().is(member, Phase::Finalizing)
                    && self.owns_queue_named(other, self.destroy_queue_of(member))
            })
        })
    }
}
