//! A queue's life: opening, whose it is, closing; and all queues of the process.

use super::body::{CLOSED, DRAINING, OPEN};
use super::numbers::{Numbers, Totals};
use super::post::Waiting;
use super::ring::Ring;
use super::room::Room;
use super::signal::Signal;
use super::{Inside, Policy, Queue, jobs};
use crate::engine::series::{Series, Sum};
use crate::engine::{ENGINE, Engine, Handle, Kind, QueueHooks, Record, Slot, current};
use crate::error::Error;
use crate::platform::clock;
use crate::sync::{AtomicU32, Relaxed, SeqCst, TotalOrder};
use std::alloc::{Layout, alloc};
use std::ffi::{c_int, c_void};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What a host opens.
pub(crate) struct Options<'a> {
    pub(crate) name: &'a str,
    pub(crate) scope: Handle,
    pub(crate) capacity: usize,
    pub(crate) policy: Policy,
    pub(crate) coalesce: bool,
    pub(crate) owned: bool,
}

/// What becomes of the events that wait when a queue is closed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Closing {
    /// They are dispatched.
    Drain,
    /// They are dropped.
    Discard,
}

/// More events than this have no room in an address space.
const MAX_CAPACITY: usize = 1 << 32;

static HOOKS: QueueHooks = QueueHooks {
    defer_destroy: jobs::defer_destroy,
    run_own_destroys,
    abandon_dispatch: super::dispatch::abandon_dispatch,
    keep_context: super::dispatch::keep_context,
    note_latency: super::dispatch::note_latency,
};

/// Every queue of the process that has not been freed.
pub(crate) struct Queues {
    list: Mutex<Vec<Handle>>,
    /// How many are in the list.
    count: AtomicU32,
    /// Their numbers by name. A queue leaves it under its lock in one step with the list.
    pub(super) series: Series<Totals>,
}

pub(super) static QUEUES: Queues =
    Queues { list: Mutex::new(Vec::new()), count: AtomicU32::new(0), series: Series::new() };

impl Queues {
    fn list(&self) -> MutexGuard<'_, Vec<Handle>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The queue is no member any more. What it has done stays, but not in the child of a fork what it did
    /// in the parent.
    fn remove(&self, engine: &Engine, record: &Record, queue: &Queue) {
        let last = if queue.is_inherited(engine) { Totals::NONE } else { queue.last_totals() };
        let _section = engine.section(record);
        let mut series = self.series.lock();
        series.leave(queue.scope, queue.series, &last);
        let mut list = self.list();
        if let Some(place) = list.iter().rposition(|other| *other == queue.handle) {
            // In order, see `for_each`.
            list.remove(place);
            self.count.fetch_sub(1, SeqCst);
        }
    }

    /// Shows every queue of the scope, or with 0 of the process. Under the lock of the series.
    pub(super) fn for_each_member(&self, scope: Handle, mut show: impl FnMut(&Queue)) {
        for handle in self.list().iter() {
            // It is not freed before it has left the list, which takes the lock of the series.
            let queue = Queue::of(ENGINE.slot_of(*handle));
            if !queue.is_inherited(&ENGINE) && (scope.0 == 0 || queue.scope == scope) {
                show(queue);
            }
        }
    }

    /// Shows every queue that is there all the while, from inside. Host code may run.
    pub(super) fn for_each(engine: &Engine, record: &Record, mut show: impl FnMut(&Inside<'_>)) {
        if QUEUES.count.load(SeqCst) == 0 {
            return;
        }
        // From the end: what is removed meanwhile moves only what was shown already.
        let mut place = usize::MAX;
        loop {
            let handle = {
                let _section = engine.section(record);
                let list = QUEUES.list();
                place = place.min(list.len());
                if place == 0 {
                    return;
                }
                place -= 1;
                list[place]
            };
            if let Ok(inside) = Inside::enter(engine, record, handle, handle) {
                show(&inside);
            }
        }
    }

    /// A scope closes: so do its queues, and the events that it owns go from all others.
    pub(crate) fn close_scope(engine: &Engine, record: &Record, scope: Handle) {
        Self::for_each(engine, record, |inside| {
            let queue = inside.queue();
            if queue.is_inherited(engine) {
                // Its events are the parent's.
            } else if queue.scope == scope {
                // Closed already: all the same.
                let _ = close_inside(inside, Closing::Discard);
            } else if queue.has_owned.load(SeqCst) != 0 {
                // Who waits with an event of the scope gives up.
                queue.room.tell_all();
                queue.drop_events(engine, record, Error::Closed, |event| event.owner() == scope);
            }
        });
    }

    /// May callbacks have it as their home, or for their destroy functions?
    pub(crate) fn check_owned(record: &Record, handle: Handle) -> Result<(), Error> {
        if handle.0 == 0 {
            return Ok(());
        }
        let inside = Inside::enter(&ENGINE, record, handle, handle)?;
        inside.queue().check_open(&ENGINE)?;
        match inside.queue().owned {
            true => Ok(()),
            false => Err(Error::Invalid("a home or destroy_queue must be CBR_QUEUE_OWNED")),
        }
    }
}

/// Opens a queue.
pub(crate) fn open(record: &Record, options: &Options<'_>) -> Result<Handle, Error> {
    let engine = &ENGINE;
    let capacity = if options.capacity == 0 { 1024 } else { options.capacity };
    if capacity > MAX_CAPACITY {
        return Err(Error::Limit("2^32 events in a queue"));
    }
    // SAFETY: the layout is not empty.
    let place = unsafe { alloc(Layout::new::<Queue>()) }.cast::<Queue>();
    if place.is_null() {
        return Err(Error::NoMemory);
    }
    let made = make(engine, record, options, capacity);
    let (queue, cold) = match made {
        Ok(made) => made,
        Err(error) => {
            // SAFETY: allocated above with this layout.
            unsafe { std::alloc::dealloc(place.cast(), Layout::new::<Queue>()) };
            return Err(error);
        }
    };
    engine.queue_hooks.set(&HOOKS);
    // SAFETY: fresh memory of this layout.
    unsafe { place.write(queue) };
    let opened = engine.open_object(record, Kind::Queue, free_queue, cold, |handle| {
        // SAFETY: nobody else's yet.
        unsafe { (*place).handle = handle };
        place.cast()
    });
    let handle = match opened {
        Ok(handle) => handle,
        Err(error) => {
            // SAFETY: written above, and nobody else's.
            let queue = unsafe { Box::from_raw(place) };
            QUEUES.remove(engine, record, &queue);
            return Err(error);
        }
    };
    let slot = engine.slot_of(handle);
    if options.owned {
        engine.own_queue(record, slot);
    }
    let listed = engine.while_open(record, options.scope, |_| {
        let mut list = QUEUES.list();
        list.try_reserve(1).map_err(|_| Error::NoMemory)?;
        list.push(handle);
        QUEUES.count.fetch_add(1, SeqCst);
        Ok(())
    });
    if let Err(error) = listed {
        engine.end_object(record, slot, handle);
        return Err(error);
    }
    Ok(handle)
}

fn make(
    engine: &Engine,
    record: &Record,
    options: &Options<'_>,
    capacity: usize,
) -> Result<(Queue, u32), Error> {
    let signal = Signal::new().map_err(|errno| Error::System { what: "eventfd", errno })?;
    let ring = Ring::new(capacity).ok_or(Error::NoMemory)?;
    let series = {
        let _section = engine.section(record);
        QUEUES.series.lock().join(options.scope, options.name)?
    };
    let cold = match engine.make_cold_name(record, options.name) {
        Ok(cold) => cold,
        Err(error) => {
            let _section = engine.section(record);
            QUEUES.series.lock().leave(options.scope, series, &Totals::NONE);
            return Err(error);
        }
    };
    let queue = Queue {
        handle: Handle(0),
        scope: options.scope,
        policy: options.policy,
        owned: options.owned,
        waiting: options.coalesce.then(Waiting::new),
        state: AtomicU32::new(OPEN),
        forks: engine.forks.load(Relaxed),
        ring,
        signal,
        room: Room::new(),
        jobs: jobs::Jobs::new(),
        numbers: Numbers::new(),
        series,
        has_owned: AtomicU32::new(0),
        is_polled: AtomicU32::new(0),
        opened: clock::pair(),
    };
    Ok((queue, cold))
}

/// Nobody is inside any more.
unsafe extern "C-unwind" fn free_queue(queue: *mut c_void) {
    // Whoever ends an object has a record. The list of queues must not lead to one that is freed.
    let Some(record) = current() else { return };
    // SAFETY: from `open`; the engine runs this once, when nobody is inside.
    let queue = unsafe { Box::from_raw(queue.cast::<Queue>()) };
    /// What it has done is known when its events are dropped, and they may unwind.
    struct Member<'a>(&'a Record, &'a Queue);
    impl Drop for Member<'_> {
        fn drop(&mut self) {
            QUEUES.remove(&ENGINE, self.0, self.1);
        }
    }
    let _member = Member(record, &queue);
    if queue.is_inherited(&ENGINE) {
        // The events are the parent's to free.
        return;
    }
    queue.drop_events(&ENGINE, record, Error::Closed, |_| true);
    queue.run_jobs(&ENGINE, record, |_| true);
}

impl Queue {
    pub(super) fn is_closed(&self) -> bool {
        self.state.load_sc() == CLOSED
    }

    pub(super) fn is_closing(&self) -> bool {
        self.state.load_sc() != OPEN
    }

    /// Nothing was found: is it closed, and drained? Then ends it, if nobody else has.
    pub(super) fn is_over(
        &self,
        engine: &Engine,
        record: &Record,
        slot: &Slot,
    ) -> Result<bool, Error> {
        match self.state.load_sc() {
            OPEN => Ok(false),
            CLOSED => Ok(true),
            _ => {
                // ORDER[close] after DRAINING, the look for posters, then for events: a poster that is not
                // seen finds DRAINING, or has left, and its event is there; partner: `check_open`.
                if engine.others_post(record, self.handle)
                    || !self.ring.is_empty()
                    || self.has_work()
                {
                    return Ok(false);
                }
                if self.state.cas_sc(DRAINING, CLOSED).is_ok() {
                    engine.end_object(record, slot, self.handle);
                }
                Ok(true)
            }
        }
    }
}

/// Closes a queue.
pub(crate) fn close(record: &Record, handle: Handle, how: Closing) -> Result<(), Error> {
    let inside = Inside::enter(&ENGINE, record, handle, handle)?;
    if inside.queue().is_inherited(&ENGINE) {
        return Err(Error::Closed);
    }
    close_inside(&inside, how)
}

fn close_inside(inside: &Inside<'_>, how: Closing) -> Result<(), Error> {
    let Inside { engine, record, slot, handle, .. } = *inside;
    let queue = inside.queue();
    // ORDER[close] before what follows looks for events and posters; partners: `check_open`, `tell`.
    let changed = match how {
        Closing::Drain => queue.state.cas_sc(OPEN, DRAINING).is_ok(),
        Closing::Discard => queue.state.swap_sc(CLOSED) != CLOSED,
    };
    if !changed {
        return Err(Error::Closed);
    }
    queue.signal.raise_for_good();
    queue.room.tell_all();
    if how == Closing::Drain {
        if queue.ring.is_empty() && !queue.has_work() {
            queue.is_over(engine, record, slot)?;
        }
        return Ok(());
    }
    /// Ends the queue also when freeing a payload unwinds.
    struct End<'a>(&'a Engine, &'a Record, &'a Slot, Handle);
    impl Drop for End<'_> {
        fn drop(&mut self) {
            self.0.end_object(self.1, self.2, self.3);
        }
    }
    let end = End(engine, record, slot, handle);
    // ORDER[close] a post that has not published its event yet finds the signal raised for good; partner:
    // `tell`, after a plain publication. (Refused: what it leaves is freed with the queue.)
    let _ = engine.barrier.heavy();
    queue.drop_events(engine, record, Error::Closed, |_| true);
    queue.run_jobs(engine, record, |_| true);
    drop(end);
    Ok(())
}

/// The calling thread owns the queue from now on.
pub(crate) fn adopt(record: &Record, handle: Handle) -> Result<(), Error> {
    let inside = Inside::enter(&ENGINE, record, handle, handle)?;
    let queue = inside.queue();
    if queue.is_inherited(&ENGINE) {
        return Err(Error::Closed);
    }
    if !queue.owned {
        return Err(Error::Invalid("the queue is not CBR_QUEUE_OWNED"));
    }
    ENGINE.own_queue(record, inside.slot);
    Ok(())
}

/// How many events wait.
pub(crate) fn len(record: &Record, handle: Handle) -> Result<usize, Error> {
    let inside = Inside::enter(&ENGINE, record, handle, handle)?;
    if inside.queue().is_inherited(&ENGINE) || inside.queue().is_closed() {
        return Err(Error::Closed);
    }
    Ok(inside.queue().ring.len())
}

/// A descriptor that is readable while there is something to dispatch.
pub(crate) fn descriptor(record: &Record, handle: Handle) -> Result<c_int, Error> {
    let inside = Inside::enter(&ENGINE, record, handle, handle)?;
    let queue = inside.queue();
    if queue.is_inherited(&ENGINE) {
        return Err(Error::Closed);
    }
    let copy = queue.signal.wake().duplicate();
    let copy = copy.map_err(|errno| Error::System { what: "fcntl(F_DUPFD_CLOEXEC)", errno })?;
    // Whoever has it may poll it at any time, from now on.
    if queue.is_polled.swap_sc(1) == 0 {
        queue.signal.watch();
    }
    if queue.has_work_before_sleep(&ENGINE) {
        queue.signal.tell();
    }
    Ok(copy)
}

fn run_own_destroys(engine: &Engine, record: &Record, target: Handle) {
    Queues::for_each(engine, record, |inside| {
        let queue = inside.queue();
        // In the child of a fork nobody dispatches what the parent had left to do.
        let is_ours = queue.owned && engine.owns_queue(record, inside.slot);
        if queue.jobs.count.load(SeqCst) != 0 && (is_ours || queue.is_inherited(engine)) {
            queue.run_jobs(engine, record, |job| engine.is_part_of(job, target));
        }
    });
}
