//! What a queue is, being inside one, and an event on its way out.

use super::jobs::Jobs;
use super::numbers::Numbers;
use super::post::Waiting;
use super::ring::{Event, Ring};
use super::room::Room;
use super::signal::Signal;
use crate::engine::{Engine, Frame, Handle, Kind, Record, Slot, Tag, probes};
use crate::error::Error;
use crate::sync::{AtomicU32, Relaxed, SeqCst, TotalOrder};

/// What a post to a full queue does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Policy {
    /// It is refused.
    Reject,
    /// The oldest event is dropped.
    DropOldest,
    /// It waits for room.
    Block,
}

/// A queue's `state`.
pub(super) const OPEN: u32 = 0;
/// Takes no more, and what there is is dispatched.
pub(super) const DRAINING: u32 = 1;
pub(super) const CLOSED: u32 = 2;

pub(crate) struct Queue {
    pub(super) handle: Handle,
    pub(super) scope: Handle,
    pub(crate) policy: Policy,
    /// One thread dispatches it.
    pub(crate) owned: bool,
    /// Of a queue that coalesces: where callbacks have an event.
    pub(super) waiting: Option<Waiting>,
    pub(super) state: AtomicU32,
    /// How often the process that opened it was the child of a fork.
    pub(super) forks: u32,
    pub(super) ring: Ring,
    pub(super) signal: Signal,
    pub(super) room: Room,
    pub(super) jobs: Jobs,
    pub(super) numbers: Numbers,
    /// Whose numbers these are as well, see [`super::open::Queues`].
    pub(super) series: u32,
    /// 1 once an event had an owner.
    pub(super) has_owned: AtomicU32,
    /// 1 once the host has a descriptor.
    pub(super) is_polled: AtomicU32,
    /// A time in ticks, and the same in nanoseconds.
    pub(super) opened: (u64, u64),
}

impl Queue {
    /// Of a slot that the caller is inside of.
    #[inline(always)]
    pub(super) fn of(slot: &Slot) -> &Self {
        // SAFETY: set when the queue was opened, freed when nobody is inside the slot any more.
        unsafe { &*slot.user_data.load(Relaxed).cast::<Self>() }
    }

    /// Does it take events?
    #[inline(always)]
    pub(super) fn check_open(&self, engine: &Engine) -> Result<(), Error> {
        // ORDER[close] after the poster's cell; partner: the exchange in `close`, then the look for
        // posters.
        if self.state.load_sc() != OPEN || self.is_inherited(engine) {
            return Err(Error::Closed);
        }
        Ok(())
    }

    /// Is this the child of a fork, and the queue the parent's?
    #[inline(always)]
    pub(super) fn is_inherited(&self, engine: &Engine) -> bool {
        // Relaxed: changes in a child that has one thread.
        self.forks != engine.forks.load(Relaxed)
    }

    /// Is there something to dispatch? In the total order.
    pub(super) fn has_work(&self) -> bool {
        self.ring.has_event() || self.jobs.count.load(SeqCst) != 0
    }

    /// The same once somebody has said that it will sleep, or that events must be told of: if there is
    /// nothing, who brings something finds that.
    pub(super) fn has_work_before_sleep(&self, engine: &Engine) -> bool {
        self.ring.has_event_before_sleep(&engine.barrier) || self.jobs.count.load(SeqCst) != 0
    }

    /// Takes the oldest event out, with its owner kept from closing.
    pub(super) fn take_oldest<'a>(
        &self,
        engine: &'a Engine,
        record: &'a Record,
    ) -> Result<Option<Taken<'a>>, Error> {
        let mut note = Owner::new(engine, record);
        let mut refused = None;
        // Where payloads are replaced, what was seen of an event must still be so when it is claimed.
        let _guard = self.waiting.as_ref().map(Waiting::lock);
        let event = self.ring.pop(|event| {
            if event.owner() != note.scope {
                note.leave();
                // Other failures: what was seen was nonsense, and will not be claimed.
                if let Err(error @ Error::Limit(_)) = note.enter(event.owner()) {
                    refused = Some(error);
                }
            }
            refused.is_none()
        });
        let Some(event) = event else {
            return refused.map_or(Ok(None), Err);
        };
        self.room.tell();
        Ok(Some(Taken { engine, record, event, note }))
    }

    /// Takes every event out that `wanted` says yes of, and frees it. Host code runs.
    pub(super) fn drop_events(
        &self,
        engine: &Engine,
        record: &Record,
        why: Error,
        wanted: impl Fn(&Event) -> bool,
    ) {
        // What comes later is refused, or taken out by its poster.
        let (mut position, mut end, mut moves) = (0, self.ring.tail(), self.ring.moves());
        loop {
            let mut note = Owner::new(engine, record);
            let taken = {
                let _guard = self.waiting.as_ref().map(Waiting::lock);
                self.ring.take_from(position, end, &wanted, |event| {
                    note.enter_if_possible(event.owner())
                })
            };
            let Some((event, next)) = taken else {
                if self.ring.moves() == moves {
                    return;
                }
                // Events have changed their places: one may have passed us.
                (position, end, moves) = (0, self.ring.tail(), self.ring.moves());
                continue;
            };
            position = next;
            self.room.tell();
            Taken { engine, record, event, note }.drop_it(self, why);
        }
    }
}

/// Keeps the scope that owns an event from closing.
pub(super) struct Owner<'a> {
    engine: &'a Engine,
    record: &'a Record,
    scope: Handle,
    pub(super) frame: Option<&'a Frame>,
}

impl<'a> Owner<'a> {
    pub(super) fn new(engine: &'a Engine, record: &'a Record) -> Self {
        Self { engine, record, scope: Handle(0), frame: None }
    }

    /// Without a frame to be had, at the limit of nesting, the event goes all the same.
    pub(super) fn enter_if_possible(&mut self, scope: Handle) {
        let _ = self.enter(scope);
    }

    fn enter(&mut self, scope: Handle) -> Result<(), Error> {
        self.scope = scope;
        if scope.0 != 0 {
            self.frame = Some(self.engine.enter_owner(self.record, scope, Tag::EVENT)?);
        }
        Ok(())
    }

    fn leave(&mut self) {
        if let Some(frame) = self.frame.take() {
            self.engine.leave_scope_frame(self.record, frame, true);
        }
        self.scope = Handle(0);
    }
}

impl Drop for Owner<'_> {
    fn drop(&mut self) {
        self.leave();
    }
}

/// An event that is this thread's alone.
pub(crate) struct Taken<'a> {
    pub(super) engine: &'a Engine,
    pub(super) record: &'a Record,
    pub(super) event: Event,
    pub(super) note: Owner<'a>,
}

impl Taken<'_> {
    /// It is not delivered by `queue`, where it was. Host code runs.
    pub(super) fn drop_it(self, queue: &Queue, why: Error) {
        queue.numbers.count_dropped();
        probes::drop(self.event.handle(), queue.handle, why);
        let Self { engine, record, event, note } = self;
        let reference = EventReference(engine, record, event.handle());
        event.free_payload(why);
        drop(note);
        drop(reference);
    }
}

/// The reference that an event owns. Dropped it is given back, also when host code unwinds.
pub(super) struct EventReference<'a>(
    pub(super) &'a Engine,
    pub(super) &'a Record,
    pub(super) Handle,
);

impl Drop for EventReference<'_> {
    fn drop(&mut self) {
        self.0.release_events(self.1, self.2, 1);
    }
}

/// The calling thread is inside a queue: as long as this lives, so does that.
pub(crate) struct Inside<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) record: &'a Record,
    pub(crate) frame: &'a Frame,
    pub(crate) slot: &'a Slot,
    pub(crate) handle: Handle,
}

impl<'a> Inside<'a> {
    /// `cell`: the handle, or that of kind Dispatching.
    #[inline(always)]
    pub(crate) fn enter(
        engine: &'a Engine,
        record: &'a Record,
        handle: Handle,
        cell: Handle,
    ) -> Result<Self, Error> {
        let stay = engine.enter_object(record, handle, Kind::Queue, cell)?;
        Ok(Self { engine, record, frame: stay.frame, slot: stay.slot, handle })
    }

    #[inline(always)]
    pub(crate) fn queue(&self) -> &'a Queue {
        Queue::of(self.slot)
    }
}

impl Drop for Inside<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        self.engine.leave_object(self.record, self.frame, self.slot, self.handle);
    }
}
