//! Putting events in.

use super::body::Owner;
use super::event::Payload;
use super::ring::{Cell, Event};
use super::{Inside, Policy, Queue, Taken};
use crate::engine::{ENGINE, Engine, Frame, Handle, Kind, Note, Patience, Record, Tag, probes};
use crate::error::Error;
use crate::platform::futex;
use foldhash::fast::FixedState;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Where the events are that a post of the same callback replaces: position by handle. An entry whose
/// event has gone is found out by the ring.
pub(crate) struct Waiting(Mutex<Places>);

type Places = HashMap<u64, u64, FixedState>;

impl Waiting {
    pub(super) fn new() -> Self {
        Self(Mutex::new(HashMap::with_hasher(FixedState::default())))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Places> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The queue that is meant: 0 is the callback's home.
#[inline(always)]
pub(super) fn target(engine: &Engine, queue: Handle, handle: Handle) -> Result<Handle, Error> {
    if queue.0 != 0 {
        return Ok(queue);
    }
    let home = engine.home_of(handle);
    if home.0 == 0 {
        // Of one that has ended meanwhile the home is not known. One that lives still has none.
        engine.check_live(handle)?;
        return Err(Error::Invalid("queue is 0, and the callback has no home"));
    }
    Ok(home)
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
    if !record.deliveries.get().is_null() {
        record.posts_itself.set(true);
    }
    let queue_handle = target(engine, queue, handle)?;
    if payload.owner.0 != 0 {
        return post_owned(record, (queue, queue_handle), handle, payload, wait);
    }
    let inside = enter(engine, record, queue, queue_handle)?;
    let it = inside.queue();
    if !payload.is_plain(record)
        || it.waiting.is_some()
        || it.check_open(engine).is_err()
        || !engine.retain_for_plain_event(handle)
    {
        return post_inside(engine, record, &inside, handle, payload, wait);
    }
    // The common case: straight from the poster's memory into the cell.
    payload.touch();
    let plainly = !record.leaves_by_exchange.get();
    // SAFETY: it is plain.
    let write = |cell: &Cell| unsafe { payload.write(handle, cell) };
    if it.ring.push_with(plainly, write).is_some() {
        probes::post(handle, queue_handle);
        it.tell(engine, record);
        return Ok(());
    }
    put_slowly(engine, record, &inside, &Event::new(record, handle, payload)?, wait)
}

/// Enters the queue that `target` has found for `asked`: a home that is gone was closed.
#[inline(always)]
pub(super) fn enter<'a>(
    engine: &'a Engine,
    record: &'a Record,
    asked: Handle,
    found: Handle,
) -> Result<Inside<'a>, Error> {
    Inside::enter(engine, record, found, found).map_err(|error| match error {
        Error::Stale if asked.0 == 0 => Error::Closed,
        error => error,
    })
}

/// The same with an owner, which cannot close meanwhile.
#[cold]
fn post_owned(
    record: &Record,
    (asked, found): (Handle, Handle),
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
    let inside = enter(&ENGINE, record, asked, found)?;
    inside.queue().has_owned.store(1, crate::sync::SeqCst);
    let posted = post_inside(&ENGINE, record, &inside, handle, payload, wait);
    drop(inside);
    drop(owner);
    posted
}

/// The poster is inside the queue.
#[cold]
#[inline(never)]
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
        Ok(()) => match Event::new(record, handle, payload) {
            Ok(event) => {
                put(engine, record, inside, &event, wait).inspect_err(|_| event.give_back())
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
pub(super) fn put(
    engine: &Engine,
    record: &Record,
    inside: &Inside<'_>,
    event: &Event,
    wait: Option<Patience>,
) -> Result<(), Error> {
    let queue = inside.queue();
    if queue.waiting.is_none() && queue.ring.push(event).is_some() {
        probes::post(event.handle(), queue.handle);
        queue.tell(engine, record);
        return Ok(());
    }
    put_slowly(engine, record, inside, event, wait)
}

#[cold]
#[inline(never)]
fn put_slowly(
    engine: &Engine,
    record: &Record,
    inside: &Inside<'_>,
    event: &Event,
    wait: Option<Patience>,
) -> Result<(), Error> {
    let queue = inside.queue();
    let mut displaced = None;
    let mut put = queue.offer(engine, record, event, &mut displaced);
    if put == Err(Error::Full) {
        let patience = wait.or((queue.policy == Policy::Block).then_some(Patience::Forever));
        put = match patience {
            Some(patience) => block(engine, record, inside, event, patience, &mut displaced),
            None if queue.policy == Policy::DropOldest => {
                return drop_oldest(engine, record, queue, event);
            }
            None => put,
        };
    }
    finish(engine, record, queue, event, put, displaced)
}

/// The event was put in, or not; what it has displaced goes.
fn finish(
    engine: &Engine,
    record: &Record,
    queue: &Queue,
    event: &Event,
    put: Result<(), Error>,
    displaced: Option<Taken<'_>>,
) -> Result<(), Error> {
    if put.is_err() {
        if put == Err(Error::Full) {
            queue.numbers.count_refused();
        }
        engine.release_events(record, event.handle(), 1);
    } else {
        probes::post(event.handle(), queue.handle);
        queue.tell(engine, record);
    }
    // Last: freeing is host code, which may unwind.
    if let Some(displaced) = displaced {
        displaced.drop_it(queue, Error::Full);
    }
    put
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
            Err(error) => return finish(engine, record, queue, event, Err(error), None),
        };
        let mut displaced = None;
        match queue.offer(engine, record, event, &mut displaced) {
            Err(Error::Full) => {
                if let Some(oldest) = oldest {
                    oldest.drop_it(queue, Error::Full);
                }
            }
            put => {
                let finished = finish(engine, record, queue, event, put, oldest);
                if let Some(displaced) = displaced {
                    displaced.drop_it(queue, Error::Full);
                }
                return finished;
            }
        }
    }
}

/// Waits for room.
fn block<'a>(
    engine: &'a Engine,
    record: &'a Record,
    inside: &Inside<'_>,
    event: &Event,
    patience: Patience,
    displaced: &mut Option<Taken<'a>>,
) -> Result<(), Error> {
    let queue = inside.queue();
    if engine.owns_queue(record, inside.slot) {
        return Err(Error::Deadlock);
    }
    queue.numbers.count_blocked();
    loop {
        let waits = queue.room.wait();
        // ORDER[room] the count, the barrier, then the try; partner: `Room::tell`. Where there is no
        // barrier consumers free cells by exchange.
        let _ = engine.barrier.heavy();
        queue.check_open(engine)?;
        if !engine.is_open(event.owner())? {
            return Err(Error::Closed);
        }
        match queue.offer(engine, record, event, displaced) {
            Err(Error::Full) => {}
            result => return result,
        }
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
    fn offer<'a>(
        &self,
        engine: &'a Engine,
        record: &'a Record,
        event: &Event,
        displaced: &mut Option<Taken<'a>>,
    ) -> Result<(), Error> {
        let Some(waiting) = &self.waiting else {
            return self.ring.push(event).map(|_| ()).ok_or(Error::Full);
        };
        let mut places = waiting.lock();
        if event.as_request().is_some() {
            return self.push_among(&mut places, event).map(|_| ());
        }
        if let Some(position) = places.get(&event.handle) {
            let mut note = Owner::new(engine, record);
            let old =
                self.ring.replace(*position, event, |old| note.enter_if_possible(old.owner()));
            if let Some(event) = old {
                self.numbers.count_coalesced();
                *displaced = Some(Taken { engine, record, event, note });
                return Ok(());
            }
        }
        if places.len() == places.capacity() {
            let head = self.ring.head();
            places.retain(|_, position| *position >= head);
            let more = places.len().max(4);
            places.try_reserve(more).map_err(|_| Error::NoMemory)?;
        }
        let position = self.push_among(&mut places, event)?;
        places.insert(event.handle, position);
        Ok(())
    }

    /// Puts the event in; should others have moved, their places are noted anew.
    fn push_among(&self, places: &mut Places, event: &Event) -> Result<u64, Error> {
        let moves = self.ring.moves();
        let position = self.ring.push(event);
        if self.ring.moves() != moves {
            // No event of this queue comes or changes but under the lock. All have an entry already.
            self.ring.for_each(|position, event| {
                if let Some(place) = places.get_mut(&event.handle) {
                    *place = position;
                }
            });
        }
        position.ok_or(Error::Full)
    }

    /// An event was put in: tells who waits for one.
    #[inline(always)]
    fn tell(&self, engine: &Engine, record: &Record) {
        if self.signal.tell() {
            self.posted_while_closing(engine, record);
        }
    }

    /// The signal said that the queue is closing: perhaps after the close has taken out what there was.
    #[cold]
    fn posted_while_closing(&self, engine: &Engine, record: &Record) {
        if self.is_closed() {
            self.drop_events(engine, record, Error::Closed, |_| true);
        }
    }
}
