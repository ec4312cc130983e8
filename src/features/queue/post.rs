//! Putting events in.

use super::event::Payload;
use super::ring::Event;
use super::{Inside, Policy, Queue};
use crate::engine::{ENGINE, Engine, Frame, Handle, Kind, Note, Patience, Record, Tag};
use crate::error::Error;
use crate::platform::futex;
use foldhash::fast::FixedState;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Where the events are that a post of the same callback replaces: position by handle. An entry whose
/// event has gone is found out by the ring.
pub(crate) struct Waiting(Mutex<HashMap<u64, u64, FixedState>>);

impl Waiting {
    pub(super) fn new() -> Self {
        Self(Mutex::new(HashMap::with_hasher(FixedState::default())))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, HashMap<u64, u64, FixedState>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The queue that is meant: 0 is the callback's home.
#[inline(always)]
pub(super) fn target(engine: &Engine, queue: Handle, handle: Handle) -> Result<Handle, Error> {
    if queue.0 != 0 {
        return Ok(queue);
    }
    if !engine.is_live(handle) {
        return Err(engine.why_not_live(handle));
    }
    match engine.home_of(handle) {
        Handle(0) => Err(Error::Invalid("queue is 0, and the callback has no home")),
        home => Ok(home),
    }
}

/// May the callback have events in this queue? True if its destroy function comes to that as well.
#[inline(always)]
pub(super) fn check_callback(
    engine: &Engine,
    queue: &Queue,
    handle: Handle,
) -> Result<bool, Error> {
    let Some(more) = engine.postable(handle)? else { return Ok(false) };
    if more.home.0 != 0 && more.home != queue.handle {
        return Err(engine.why_not_home(more.home));
    }
    Ok(more.destroy_queue == queue.handle)
}

/// Puts an event of the callback in. `wait`: for how long when the queue is full; None: as its policy
/// says. When it fails, the payload stays the poster's.
#[inline(always)]
pub(crate) fn post(
    record: &Record,
    queue: Handle,
    handle: Handle,
    payload: &Payload,
    wait: Option<Patience>,
) -> Result<(), Error> {
    let engine = &ENGINE;
    let queue_handle = target(engine, queue, handle)?;
    if payload.owner.0 != 0 {
        return post_owned(record, queue_handle, handle, payload, wait);
    }
    let inside = Inside::enter(engine, record, queue_handle, queue_handle)?;
    post_inside(engine, record, &inside, handle, payload, wait)
}

/// The same with an owner, which cannot close meanwhile.
#[cold]
fn post_owned(
    record: &Record,
    queue: Handle,
    handle: Handle,
    payload: &Payload,
    wait: Option<Patience>,
) -> Result<(), Error> {
    /// Leaves the scope after the queue.
    struct Owner<'a>(&'a Record, &'a Frame);
    impl Drop for Owner<'_> {
        fn drop(&mut self) {
            ENGINE.leave_scope_frame(self.0, self.1, true);
        }
    }
    ENGINE.check_scope(payload.owner)?;
    let owner = Owner(record, ENGINE.enter_owner(record, payload.owner, Tag::POST)?);
    if !ENGINE.is_open(payload.owner)? {
        return Err(Error::Closed);
    }
    let inside = Inside::enter(&ENGINE, record, queue, queue)?;
    inside.queue().has_owned.store(1, crate::sync::SeqCst);
    let posted = post_inside(&ENGINE, record, &inside, handle, payload, wait);
    drop(inside);
    drop(owner);
    posted
}

#[inline(always)]
fn post_inside(
    engine: &Engine,
    record: &Record,
    inside: &Inside<'_>,
    handle: Handle,
    payload: &Payload,
    wait: Option<Patience>,
) -> Result<(), Error> {
    let queue = inside.queue();
    queue.check_open(engine)?;
    // Its destroy function must come after this event: so it cannot end before that is in.
    let kept = if check_callback(engine, queue, handle)? {
        Some(engine.enter_object(record, handle, Kind::Callback, handle)?)
    } else {
        None
    };
    let posted = match engine.retain_for_event(record, handle) {
        Ok(()) => match Event::new(handle, payload) {
            Ok(event) => {
                put(engine, record, queue, inside, &event, wait).inspect_err(|_| event.give_back())
            }
            Err(error) => {
                engine.release_events(record, handle, 1);
                Err(error)
            }
        },
        Err(error) => Err(error),
    };
    if let Some(stay) = kept {
        engine.leave_object(record, stay.frame, stay.slot, handle);
    }
    posted
}

/// Puts the event in, which owns a reference; on failure gives that back, and nothing else.
#[inline(always)]
pub(super) fn put(
    engine: &Engine,
    record: &Record,
    queue: &Queue,
    inside: &Inside<'_>,
    event: &Event,
    wait: Option<Patience>,
) -> Result<(), Error> {
    if queue.waiting.is_none() && queue.ring.push(event).is_some() {
        if queue.signal.tell() {
            queue.posted_while_closing(engine, record);
        }
        return Ok(());
    }
    put_slowly(engine, record, queue, inside, event, wait)
}

#[cold]
#[inline(never)]
fn put_slowly(
    engine: &Engine,
    record: &Record,
    queue: &Queue,
    inside: &Inside<'_>,
    event: &Event,
    wait: Option<Patience>,
) -> Result<(), Error> {
    let mut displaced = None;
    let put = match (queue.offer(event, &mut displaced), wait, queue.policy) {
        (Err(Error::Full), Some(patience), _) => {
            block(engine, record, queue, inside, event, patience, &mut displaced)
        }
        (Err(Error::Full), None, Policy::Block) => {
            block(engine, record, queue, inside, event, Patience::Forever, &mut displaced)
        }
        (Err(Error::Full), None, Policy::DropOldest) => {
            return drop_oldest(engine, record, queue, event);
        }
        (result, ..) => result,
    };
    if let Err(error) = put {
        engine.release_events(record, event.handle(), 1);
        return Err(error);
    }
    if queue.signal.tell() {
        queue.posted_while_closing(engine, record);
    }
    if let Some(old) = displaced {
        // Its reference, or the new one's: one of the two is left.
        engine.release_events(record, old.handle(), 1);
        old.free_payload(Error::Full);
    }
    Ok(())
}

/// Makes room by taking the oldest event out, as often as it takes.
fn drop_oldest(
    engine: &Engine,
    record: &Record,
    queue: &Queue,
    event: &Event,
) -> Result<(), Error> {
    loop {
        let oldest = match queue.take_oldest(engine, record) {
            Ok(oldest) => oldest,
            Err(error) => {
                engine.release_events(record, event.handle(), 1);
                return Err(error);
            }
        };
        let mut displaced = None;
        let put = queue.offer(event, &mut displaced);
        if put.is_ok() && queue.signal.tell() {
            queue.posted_while_closing(engine, record);
        }
        // Only now: freeing is host code, which may unwind.
        if let Some(oldest) = oldest {
            oldest.drop_it(Error::Full);
        }
        if let Some(old) = displaced {
            engine.release_events(record, old.handle(), 1);
            old.free_payload(Error::Full);
        }
        match put {
            Err(Error::Full) => {}
            Err(error) => {
                engine.release_events(record, event.handle(), 1);
                return Err(error);
            }
            Ok(()) => return Ok(()),
        }
    }
}

/// Waits for room.
fn block(
    engine: &Engine,
    record: &Record,
    queue: &Queue,
    inside: &Inside<'_>,
    event: &Event,
    patience: Patience,
    displaced: &mut Option<Event>,
) -> Result<(), Error> {
    if engine.owns_queue(record, inside.slot) {
        return Err(Error::Deadlock);
    }
    loop {
        let waits = queue.room.wait();
        // ORDER[room] the count, the barrier, then the try; partner: `Room::tell`. Where there is no
        // barrier consumers free cells by exchange.
        let _ = engine.barrier.heavy();
        match queue.offer(event, displaced) {
            Err(Error::Full) => {}
            result => return result,
        }
        queue.check_open(engine)?;
        let note = Note::publish(record, queue.handle);
        if engine.would_deadlock(record, queue.handle) {
            return Err(Error::Deadlock);
        }
        if patience.is_over() {
            return Err(Error::Timeout);
        }
        futex::wait(queue.room.changes(), waits.seen, patience.next_look(false));
        drop(note);
    }
}

impl Queue {
    /// Puts the event in if there is room, or, where events coalesce, in another one's place.
    fn offer(&self, event: &Event, displaced: &mut Option<Event>) -> Result<(), Error> {
        let Some(waiting) = &self.waiting else {
            return self.ring.push(event).map(|_| ()).ok_or(Error::Full);
        };
        if event.as_request().is_some() {
            return self.ring.push(event).map(|_| ()).ok_or(Error::Full);
        }
        let mut places = waiting.lock();
        if let Some(position) = places.get(&event.handle)
            && let Some(old) = self.ring.replace(*position, event)
        {
            *displaced = Some(old);
            return Ok(());
        }
        if places.len() == places.capacity() {
            let head = self.ring.head();
            places.retain(|_, position| *position >= head);
            let more = places.len().max(4);
            places.try_reserve(more).map_err(|_| Error::NoMemory)?;
        }
        let position = self.ring.push(event).ok_or(Error::Full)?;
        places.insert(event.handle, position);
        Ok(())
    }

    /// An event was put in, and the signal said that the queue is closing: perhaps after the close has
    /// taken out what there was.
    #[cold]
    fn posted_while_closing(&self, engine: &Engine, record: &Record) {
        if self.is_closed() {
            self.drop_events(engine, record, Error::Closed, |_| true);
        }
    }
}
