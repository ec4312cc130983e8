//! Taking events out, and running what they are for.

use super::call_on::Request;
use super::ring::Event;
use super::{Inside, Queue, Taken};
use crate::engine::{
    ENGINE, Engine, Frame, Handle, Kind, Patience, Record, StackPlace, Text, current, invoke,
    probes, trace,
};
use crate::error::Error;
use crate::platform::{clock, wake};
use crate::sync::{Relaxed, SeqCst, spin_hint};
use std::alloc::{Layout, alloc};
use std::ffi::{c_char, c_void};
use std::mem::MaybeUninit;
use std::ptr::{self, NonNull};
use std::time::{Duration, Instant};

/// So many cells ahead a dispatch asks for what it will read, so that it comes from the poster's processor
/// meanwhile. (Cells that nobody has written yet are left alone: asking takes them from the poster.)
const AHEAD: u64 = 12;

/// A dispatcher that keeps up with the poster would take every event as soon as it is there, and the two
/// would wait for the same cache lines all the time, an event in five times as long. So after a dispatch
/// that had not to sleep, and whose callbacks have not posted, the next one of that queue looks away for a
/// moment when so few events wait.
const FEW: u64 = 16;
const MOMENT: Duration = Duration::from_micros(9);
/// After so long there is more if others are posting at all.
const GLANCE: Duration = Duration::from_micros(1);

/// What a callback may ask of the event that it was called for. Laid out as C's `cbr_event`.
#[repr(C)]
pub(crate) struct CurrentEvent {
    pub(crate) handle: u64,
    pub(crate) data: *const c_void,
    pub(crate) len: usize,
    pub(crate) queue: u64,
    /// 0 until somebody asks.
    pub(crate) posted_ns: i64,
    pub(crate) traceparent: *const c_char,
}

/// One dispatch in progress on this thread. On the heap, where a longjmp out of a callback leaves it.
#[repr(C, align(16))]
pub(super) struct Delivery {
    /// What is delivered. Its payload may lie in it, and is then aligned for whatever it is.
    event: Event,
    /// Is the event not freed yet?
    holds: bool,
    outer: *mut Delivery,
    frame: *const Frame,
    /// The frame of the event's owner, if it has one.
    owner: *const Frame,
    /// What runs now for a caller that waits for it; or null.
    request: *const Request,
    shown: CurrentEvent,
    opened: (u64, u64),
    /// References of events that are over, of one callback.
    over: Handle,
    count: u64,
    /// Whose events these are, as long as its frame is there, and how many were taken out.
    queue: *const Queue,
    taken: u64,
    /// If the event says so ([`Event::has_saved`]): the context that the thread had before, and the event's,
    /// whose the callback may have been told of.
    saved: MaybeUninit<trace::Saved>,
    context: MaybeUninit<Option<Text>>,
}

/// Where probes find whose event it is, and which queue's.
const HANDLE: usize = std::mem::offset_of!(Delivery, shown.handle);
const QUEUE: usize = std::mem::offset_of!(Delivery, shown.queue);

impl Delivery {
    fn top(record: &Record) -> *mut Self {
        record.deliveries.get().cast()
    }

    /// The innermost one, of a dispatch that begins.
    fn begin(record: &Record, inside: &Inside<'_>) -> Result<*mut Self, Error> {
        let mut it: *mut Self = record.spare_delivery.replace(ptr::null_mut()).cast();
        if it.is_null() {
            // SAFETY: the layout is not empty.
            it = unsafe { alloc(Layout::new::<Self>()) }.cast();
            if it.is_null() {
                return Err(Error::NoMemory);
            }
        }
        let fresh = Self {
            event: Event::NONE,
            holds: false,
            outer: Self::top(record),
            frame: inside.frame,
            owner: ptr::null(),
            request: ptr::null(),
            shown: CurrentEvent {
                handle: 0,
                data: ptr::null(),
                len: 0,
                queue: inside.handle.0,
                posted_ns: 0,
                traceparent: ptr::null(),
            },
            opened: inside.queue().opened,
            over: Handle(0),
            count: 0,
            queue: inside.queue(),
            taken: 0,
            saved: MaybeUninit::uninit(),
            context: MaybeUninit::uninit(),
        };
        // SAFETY: memory of this layout, nobody else's.
        unsafe { it.write(fresh) };
        record.deliveries.set(it.cast());
        Ok(it)
    }

    /// The event is over, unless it was: its payload is freed, and its reference counted. Host code may
    /// run.
    #[inline(always)]
    fn end_event(&mut self) {
        if std::mem::take(&mut self.holds) {
            self.count += 1;
            if !self.event.is_plain() {
                self.end_kept();
            }
        }
    }

    #[cold]
    #[inline(never)]
    fn end_kept(&mut self) {
        self.end_context();
        // A copy, because host code may run that has another event put here.
        let event = self.event;
        event.free_payload(Error::Closed);
    }

    /// The event is about to be delivered: its context is the thread's, or none is, until it has been.
    fn begin_context(&mut self, record: &Record) {
        let context = self.event.take_context();
        if context.is_some() || record.trace.get().is_some() {
            self.save_context(record, context);
        }
    }

    /// Keeps the thread's context until the event has been delivered; meanwhile there is `context`.
    fn save_context(&mut self, record: &Record, context: Option<Text>) {
        self.event.set_saved(true);
        self.shown.traceparent = Text::into_raw(context).cast();
        self.context.write(context);
        // SAFETY: a dispatch in progress stays where it is, and takes it out of the list in `end_context`.
        unsafe { record.trace.save(self.saved.as_mut_ptr(), context.map(Text::share)) };
    }

    /// The event has been delivered: if the thread's context was kept, it comes back.
    fn end_context(&mut self) {
        if !self.event.has_saved() {
            return;
        }
        self.event.set_saved(false);
        self.shown.traceparent = ptr::null();
        // It has one: it dispatches.
        let Some(record) = current() else { return };
        // SAFETY: both written in `save_context`, for this event.
        unsafe {
            record.trace.restore(self.saved.as_mut_ptr());
            if let Some(context) = self.context.assume_init() {
                context.release();
            }
        }
    }

    /// The innermost one is over. Host code may run.
    ///
    /// # Safety
    /// `it` is from `begin` on this thread, and used no more.
    unsafe fn end(it: *mut Self, engine: &Engine, record: &Record) {
        // SAFETY: the caller's promise.
        let (outer, over, count) = unsafe { ((*it).outer, (*it).over, (*it).count) };
        // SAFETY: as above; the dispatch is inside the queue still.
        unsafe { (*(*it).queue).numbers.count_dispatched((*it).taken) };
        record.deliveries.set(outer.cast());
        let other: *mut Self = record.spare_delivery.replace(it.cast()).cast();
        if !other.is_null() {
            // SAFETY: from `begin`, and nobody's.
            unsafe { std::alloc::dealloc(other.cast(), Layout::new::<Self>()) };
        }
        // Last, because a destroy function may run, and unwind.
        if count > 0 {
            engine.release_events(record, over, count);
        }
    }

    /// Gives the references of events that are over back. Host code may run, which may come to `it` again.
    ///
    /// # Safety
    /// `it` is from `begin` on this thread, and in progress.
    unsafe fn settle(it: *mut Self, engine: &Engine, record: &Record) {
        // SAFETY: the caller's promise.
        let (handle, count) = unsafe { ((*it).over, std::mem::take(&mut (*it).count)) };
        if count > 0 {
            engine.release_events(record, handle, count);
        }
    }
}

/// A dispatch in progress. Dropped when it is over, also by an unwind.
struct Dispatch<'a> {
    inside: Inside<'a>,
    delivery: *mut Delivery,
}

impl Drop for Dispatch<'_> {
    fn drop(&mut self) {
        let Inside { engine, record, .. } = self.inside;
        // SAFETY: ours, and the last use.
        unsafe { Delivery::end(self.delivery, engine, record) };
    }
}

/// Dispatches up to `max` events, or, if that is 0, those that there are. How many, and how it ended.
pub(crate) fn dispatch(
    record: &Record,
    handle: Handle,
    max: usize,
    patience: Patience,
) -> (usize, Result<(), Error>) {
    let mut count = 0;
    let result = begin(record, handle).and_then(|dispatch| dispatch.run(max, patience, &mut count));
    (count, result)
}

fn begin(record: &Record, handle: Handle) -> Result<Dispatch<'_>, Error> {
    let cell = match handle.has_kind(Kind::Queue) {
        true => handle.with_kind(Kind::Dispatching),
        false => handle,
    };
    let inside = Inside::enter(&ENGINE, record, handle, cell)?;
    let queue = inside.queue();
    if queue.is_inherited(&ENGINE) {
        return Err(Error::Closed);
    }
    if !queue.owned {
        ENGINE.note_dispatcher(record, inside.slot);
    } else if !ENGINE.owns_queue(record, inside.slot) {
        return Err(ENGINE.not_the_owner(inside.slot));
    }
    let here = 0;
    inside.frame.set_stack_place(StackPlace::of(&here));
    let delivery = Delivery::begin(record, &inside)?;
    Ok(Dispatch { inside, delivery })
}

impl Dispatch<'_> {
    #[inline(never)]
    fn run(&self, max: usize, patience: Patience, count: &mut usize) -> Result<(), Error> {
        let Inside { engine, record, .. } = self.inside;
        let queue = self.inside.queue();
        let (mut again, mut slept) = (false, false);
        if patience != Patience::None && record.keeps_up_with.get() == self.inside.handle {
            queue.let_some_gather(patience);
        }
        record.posts_itself.set(false);
        loop {
            // What comes while we work is for the next time.
            let tail = queue.ring.tail();
            let (end, mut jobs, limit) = match max {
                0 => (tail, queue.jobs.count.load(SeqCst), usize::MAX),
                max => (u64::MAX, u32::MAX, max),
            };
            while *count < limit && self.step(queue, tail, end, &mut jobs)? {
                *count += 1;
                if queue.is_inherited(engine) {
                    return Ok(());
                }
            }
            if *count > 0 {
                let keeps_up = !slept && *count < limit && !record.posts_itself.get();
                record.keeps_up_with.set(if keeps_up { self.inside.handle } else { Handle(0) });
                // SAFETY: ours.
                unsafe { Delivery::settle(self.delivery, engine, record) };
                self.lower(queue);
                return Ok(());
            }
            if queue.has_work() {
                // Somebody else is about to take it, or it is about to be taken out; or the head has moved
                // past what was, and a destroy function's turn has come.
                spin_hint();
                if !std::mem::replace(&mut again, true) || !patience.is_over() {
                    continue;
                }
            } else if queue.is_over(engine, record, self.inside.slot)? {
                return Err(Error::Closed);
            } else if queue.is_closing() {
                // A poster is inside, and may have found the queue open.
                spin_hint();
            }
            self.lower(queue);
            if patience.is_over() {
                let waited = patience != Patience::None;
                return Err(if waited { Error::Timeout } else { Error::Empty });
            }
            self.sleep(queue, patience);
            slept = true;
        }
    }

    /// Nothing is left, perhaps: then the descriptor says so.
    #[inline(always)]
    fn lower(&self, queue: &Queue) {
        // In the child of a fork the descriptor is the parent's.
        if !queue.is_inherited(self.inside.engine) && !queue.has_work() {
            queue.signal.lower(|| queue.has_work_before_sleep(self.inside.engine));
        }
    }

    fn sleep(&self, queue: &Queue, patience: Patience) {
        queue.signal.watch();
        if !queue.is_closing() && !queue.has_work_before_sleep(self.inside.engine) {
            wake::sleep(&mut [queue.signal.wake().to_poll()], patience.next_look(false));
        }
        queue.signal.unwatch();
    }

    /// Does one thing. False: there is nothing, before the position `end`, nor one of so many `jobs`. `tail`:
    /// before that there are events.
    #[inline(always)]
    fn step(&self, queue: &Queue, tail: u64, end: u64, jobs: &mut u32) -> Result<bool, Error> {
        let Inside { engine, record, .. } = self.inside;
        // Relaxed: who put one there has told, and then we look again.
        if queue.jobs.count.load(Relaxed) != 0 && *jobs > 0 && self.run_job(queue) {
            *jobs -= 1;
            return Ok(true);
        }
        // SAFETY: ours; nested dispatches have others. No reference lives where host code runs.
        let delivery = || unsafe { &mut *self.delivery };
        loop {
            match queue.ring.oldest() {
                Some(next) if next.position < end => {
                    let Delivery { over, count, event, .. } = delivery();
                    if *count > 0 && next.handle != over.0 {
                        // Another callback's: gives the references of the last one's back while nothing is
                        // claimed, because a destroy function may run.
                        // SAFETY: ours.
                        unsafe { Delivery::settle(self.delivery, engine, record) };
                        if queue.is_inherited(engine) {
                            return Ok(false);
                        }
                        continue;
                    }
                    if next.is_plain(record) && queue.waiting.is_none() {
                        if next.position + AHEAD < tail {
                            queue.ring.expect(next.position + AHEAD);
                        }
                        if !queue.ring.claim(next.position, event) {
                            continue;
                        }
                        queue.room.tell();
                        return Ok(self.deliver(None));
                    }
                }
                Some(_) => return Ok(false),
                None if queue.ring.head() >= end => return Ok(false),
                None => {}
            }
            let Some(Taken { event, note, .. }) = queue.take_oldest(engine, record)? else {
                return Ok(false);
            };
            delivery().event = event;
            if self.deliver_under_its_context(note.frame) {
                return Ok(true);
            }
        }
    }

    #[cold]
    fn run_job(&self, queue: &Queue) -> bool {
        let Inside { engine, record, .. } = self.inside;
        let head = queue.ring.head();
        let Some(job) = queue.take_job(engine, record, |_, position| position <= head) else {
            return false;
        };
        engine.finish_deferred(record, job);
        true
    }

    /// The same as `deliver` of what may be no plain event, or come to a thread that has a context.
    fn deliver_under_its_context(&self, owner: Option<&Frame>) -> bool {
        /// Also when it was a request, or an unwind passes through.
        struct Restored(*mut Delivery);
        impl Drop for Restored {
            fn drop(&mut self) {
                // SAFETY: its dispatch lives longer.
                unsafe { (*self.0).end_context() };
            }
        }
        // SAFETY: ours; nested dispatches have others.
        unsafe { (*self.delivery).begin_context(self.inside.record) };
        let _restored = Restored(self.delivery);
        self.deliver(owner)
    }

    /// Runs the callback of the event that was taken out, whose owner's frame this is. False: nobody waits
    /// for it any more.
    #[inline(always)]
    fn deliver(&self, owner: Option<&Frame>) -> bool {
        let Inside { engine, record, .. } = self.inside;
        // SAFETY: ours; nested dispatches have others.
        let delivery = unsafe { &mut *self.delivery };
        delivery.taken += 1;
        let handle = delivery.event.handle();
        let before = (delivery.over, delivery.count);
        if delivery.over != handle {
            (delivery.over, delivery.count) = (handle, 0);
        }
        let (data, len) = delivery.event.data(&raw const delivery.event.words);
        delivery.owner = owner.map_or(ptr::null(), ptr::from_ref);
        delivery.shown.handle = handle.0;
        delivery.shown.data = data;
        delivery.shown.len = len;
        delivery.shown.posted_ns = 0;
        let request = delivery.event.as_request();
        // A request frees itself.
        delivery.holds = true;
        probes::dispatch_begin::<HANDLE, QUEUE>(self.delivery.cast());
        let delivered = Delivered { delivery: self.delivery };
        if before.0 != handle && before.1 > 0 {
            // Another dispatcher took what `step` had seen. Now that the event has its guard: a destroy
            // function may run, and unwind.
            engine.release_events(record, before.0, before.1);
        }
        let ran = match request {
            None => {
                if let Err(fault) = invoke::call(engine, record, handle, data.cast_mut()) {
                    // Gone, or failed: the dispatch goes on.
                    #[cfg_attr(loom, allow(unused_variables, reason = "models have no log"))]
                    let error = record.explain(fault);
                    #[cfg(not(loom))]
                    if matches!(error, Error::Callback | Error::Panic) {
                        engine.log_event_failed(record, handle, error);
                    }
                }
                true
            }
            // SAFETY: the event's share, which the event does not give up any more.
            Some((request, arg)) => unsafe {
                (*self.delivery).holds = false;
                (*self.delivery).request = request;
                Request::run(request, engine, record, handle, arg)
            },
        };
        drop(delivered);
        ran
    }
}

/// An event's callback runs. Dropped when it has returned, or an unwind passes through.
struct Delivered {
    delivery: *mut Delivery,
}

impl Drop for Delivered {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: its dispatch lives longer.
        let delivery = unsafe { &mut *self.delivery };
        // Ended by itself, also by an unwind.
        delivery.request = ptr::null();
        probes::dispatch_end::<HANDLE, QUEUE>(self.delivery.cast());
        delivery.end_event();
    }
}

impl Queue {
    /// Few events wait: looks at nothing that posters write for a moment, if some are posting.
    #[cold]
    fn let_some_gather(&self, patience: Patience) {
        let tail = self.ring.tail();
        if tail.saturating_sub(self.ring.head()) >= FEW {
            return;
        }
        for part in [GLANCE, MOMENT] {
            let until = Instant::now() + part;
            while Instant::now() < until && !patience.is_over() {
                (0..16).for_each(|_| std::hint::spin_loop());
            }
            if self.ring.tail() == tail {
                return;
            }
        }
    }
}

/// The dispatch that has called the calling thread's innermost callback; none if something else has.
fn calling_dispatch(record: &Record) -> Option<NonNull<Delivery>> {
    let it = NonNull::new(Delivery::top(record))?;
    // SAFETY: a dispatch in progress on this thread.
    let delivery = unsafe { it.as_ref() };
    let is_delivering = delivery.holds || !delivery.request.is_null();
    (is_delivering && record.calls_above(delivery.frame) == 1).then_some(it)
}

/// See [`crate::engine::QueueHooks`].
pub(super) fn note_latency(record: &Record, now: u64) {
    let Some(it) = calling_dispatch(record) else { return };
    // SAFETY: in progress on this thread, and it is inside the queue.
    let delivery = unsafe { it.as_ref() };
    let waited = clock::between(delivery.event.posted(), (clock::ticks(), now), delivery.opened);
    // SAFETY: as above.
    unsafe { (*delivery.queue).numbers.count_waited(waited) };
}

/// The event that the calling thread's innermost callback was called for; null if it was called otherwise.
pub(crate) fn current_event(record: &Record) -> *const CurrentEvent {
    let Some(mut it) = calling_dispatch(record) else { return ptr::null() };
    // SAFETY: in progress on this thread.
    let delivery = unsafe { it.as_mut() };
    if delivery.shown.posted_ns == 0 {
        // Of a call: when somebody asks first.
        let posted = if delivery.holds { delivery.event.posted() } else { clock::ticks() };
        delivery.shown.posted_ns = clock::when(posted, delivery.opened) as i64;
    }
    &raw const delivery.shown
}

/// See [`crate::engine::QueueHooks`].
pub(super) fn keep_context(record: &Record) {
    let mut it = Delivery::top(record);
    // SAFETY: null, or a dispatch in progress on this thread.
    while let Some(delivery) = unsafe { it.as_mut() } {
        if delivery.holds || !delivery.request.is_null() {
            if !delivery.event.has_saved() {
                // Nothing is kept yet: so there is none.
                delivery.save_context(record, None);
            }
            return;
        }
        it = delivery.outer;
    }
}

/// See [`crate::engine::QueueHooks`].
pub(super) fn abandon_dispatch(engine: &Engine, record: &Record, frame: &Frame) {
    let it = Delivery::top(record);
    // SAFETY: as in `current_event`.
    let Some(delivery) = (unsafe { it.as_mut() }) else { return };
    let is_whole = ptr::eq(delivery.frame, frame);
    if !is_whole && !ptr::eq(delivery.owner, frame) {
        return;
    }
    if delivery.holds || !delivery.request.is_null() {
        probes::dispatch_end::<HANDLE, QUEUE>(it.cast());
    }
    delivery.end_context();
    delivery.end_event();
    let request = std::mem::replace(&mut delivery.request, ptr::null());
    if !request.is_null() {
        // SAFETY: it was running, in the dispatch that was left.
        unsafe { Request::abandon(request, engine, record, Handle(delivery.shown.handle)) };
    }
    if is_whole {
        // SAFETY: the dispatch was left, and nobody comes back to it.
        unsafe { Delivery::end(it, engine, record) };
    }
}
