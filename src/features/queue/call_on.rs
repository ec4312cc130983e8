//! A call on the thread that dispatches a queue, with its result.

use super::body::EventReference;
use super::ring::Event;
use super::{Inside, Queue, post};
use crate::engine::{ENGINE, Engine, Handle, Kind, Note, Patience, Record, invoke};
use crate::error::Error;
use crate::platform::futex;
use crate::sync::{AcqRel, Acquire, AtomicU32, Release};
use std::alloc::{Layout, alloc, dealloc};
use std::cell::UnsafeCell;
use std::ffi::c_void;

/// Nobody has begun it.
const WAITING: u32 = 0;
/// A dispatcher runs it.
const STARTED: u32 = 1;
/// `outcome` says how it ended.
const ENDED: u32 = 2;
/// Nobody waits for it any more, and it must not run.
const CANCELLED: u32 = 3;

/// What caller and dispatcher share. Each owns a share.
pub(crate) struct Request {
    /// The number of the caller's record.
    caller: u32,
    shares: AtomicU32,
    state: AtomicU32,
    outcome: UnsafeCell<Outcome>,
}

struct Outcome {
    result: Result<isize, Error>,
    /// What a callback that failed had to say.
    text: [u8; TEXT],
    len: usize,
}

const TEXT: usize = crate::engine::MESSAGE_MAX;

impl Request {
    fn new(caller: &Record) -> Result<*const Self, Error> {
        // SAFETY: the layout is not empty.
        let it = unsafe { alloc(Layout::new::<Self>()) }.cast::<Self>();
        if it.is_null() {
            return Err(Error::NoMemory);
        }
        let outcome = Outcome { result: Err(Error::Closed), text: [0; TEXT], len: 0 };
        let fresh = Self {
            caller: caller.id(),
            shares: AtomicU32::new(2),
            state: AtomicU32::new(WAITING),
            outcome: UnsafeCell::new(outcome),
        };
        // SAFETY: fresh memory of this layout.
        unsafe { it.write(fresh) };
        Ok(it)
    }

    /// # Safety
    /// The caller owns a share, and gives it up.
    unsafe fn drop_share(it: *const Self) {
        // SAFETY: the caller's share.
        if unsafe { (*it).shares.fetch_sub(1, AcqRel) } == 1 {
            // SAFETY: the last one; from `new`.
            unsafe { dealloc(it.cast_mut().cast(), Layout::new::<Self>()) };
        }
    }

    fn change(&self, from: u32, to: u32) -> bool {
        // AcqRel: one winner.
        self.state.compare_exchange(from, to, AcqRel, Acquire).is_ok()
    }

    /// It will not run: tells the caller why.
    ///
    /// # Safety
    /// The caller of this owns the event's share, and gives it up.
    pub(crate) unsafe fn refuse(it: *const Self, why: Error) {
        // SAFETY: the caller's share keeps it.
        let request = unsafe { &*it };
        if request.change(WAITING, STARTED) {
            request.end(Err(why));
        }
        // SAFETY: the caller's promise.
        unsafe { Self::drop_share(it) };
    }

    /// Runs it, unless nobody waits any more; true if it has run. The event's reference goes.
    ///
    /// # Safety
    /// As [`Request::refuse`].
    pub(super) unsafe fn run(
        it: *const Self,
        engine: &Engine,
        record: &Record,
        handle: Handle,
        arg: *mut c_void,
    ) -> bool {
        /// Ends it also when an unwind leaves the callback: then it has failed. The caller finds the
        /// event's reference gone.
        struct Running<'a>(&'a Request, Result<isize, Error>);
        impl Drop for Running<'_> {
            fn drop(&mut self) {
                self.0.end(self.1);
                // SAFETY: the event's share, which `run` was given.
                unsafe { Request::drop_share(self.0) };
            }
        }
        // SAFETY: the event's share keeps it.
        let request = unsafe { &*it };
        if !request.change(WAITING, STARTED) {
            // SAFETY: the event's share.
            unsafe { Self::drop_share(it) };
            engine.release_events(record, handle, 1);
            return false;
        }
        engine.run_call(record, request.caller);
        let mut running = Running(request, Err(Error::Callback));
        let reference = EventReference(engine, record, handle);
        let called = invoke::call(engine, record, handle, arg);
        running.1 = called.map_err(|fault| record.explain(fault));
        if let Err(Error::Callback | Error::Panic) = running.1 {
            record.last_error.with_message(|text| {
                // SAFETY: STARTED: the dispatcher alone has it.
                let outcome = unsafe { &mut *request.outcome.get() };
                outcome.len = text.len().min(TEXT);
                outcome.text[..outcome.len].copy_from_slice(&text[..outcome.len]);
            });
        }
        drop(reference);
        drop(running);
        true
    }

    /// It was running, and was left by a longjmp: it has failed.
    ///
    /// # Safety
    /// As [`Request::run`], which does not return.
    pub(super) unsafe fn abandon(
        it: *const Self,
        engine: &Engine,
        record: &Record,
        handle: Handle,
    ) {
        // SAFETY: the event's share keeps it.
        unsafe { &*it }.end(Err(Error::Callback));
        // SAFETY: the caller's promise.
        unsafe { Self::drop_share(it) };
        engine.release_events(record, handle, 1);
    }

    fn end(&self, result: Result<isize, Error>) {
        // SAFETY: STARTED: the dispatcher alone has it.
        unsafe { (*self.outcome.get()).result = result };
        // Release: partner: the load in `wait`.
        self.state.store(ENDED, Release);
        futex::wake_all(&self.state);
    }

    /// Waits for the end; the patience is for its beginning.
    fn wait(
        &self,
        engine: &Engine,
        record: &Record,
        call: Handle,
        handle: Handle,
        patience: Patience,
    ) -> Result<isize, Error> {
        let mut deadlock = engine.would_deadlock(record, call);
        loop {
            // Acquire: partner: `end`.
            match self.state.load(Acquire) {
                WAITING => {
                    if deadlock && self.change(WAITING, CANCELLED) {
                        return Err(Error::Deadlock);
                    }
                    if patience.is_over() && self.change(WAITING, CANCELLED) {
                        return Err(Error::Timeout);
                    }
                    futex::wait(&self.state, WAITING, patience.next_look(false));
                    deadlock = false;
                }
                STARTED => futex::wait(&self.state, STARTED, None),
                _ => break,
            }
        }
        // SAFETY: ENDED: the dispatcher does not touch it any more.
        let outcome = unsafe { &*self.outcome.get() };
        if outcome.result.is_err() {
            record.last_error.set_message_bytes(handle, &outcome.text[..outcome.len]);
        }
        outcome.result
    }
}

/// Runs the callback on the thread that dispatches the queue, and brings its result.
pub(crate) fn call_on(
    record: &Record,
    queue: Handle,
    handle: Handle,
    arg: *mut c_void,
    patience: Patience,
) -> Result<isize, Error> {
    let engine = &ENGINE;
    let asked = queue;
    let queue = post::target(engine, asked, handle)?;
    let call = engine.begin_call(record);
    // Before it is posted: who begins it at once, and waits for something that we are inside of, must see it.
    let note = Note::publish(record, call);
    let request = {
        let inside = post::enter(engine, record, asked, queue)?;
        let it = inside.queue();
        it.check_open(engine)?;
        post::check_callback(engine, it, handle)?;
        if engine.owns_queue(record, inside.slot)
            || record.is_inside(queue.with_kind(Kind::Dispatching))
        {
            drop(note);
            drop(inside);
            return invoke::call(engine, record, handle, arg)
                .map_err(|fault| record.explain(fault));
        }
        post_request(engine, record, it, &inside, (handle, arg), patience)?
    };
    engine.call_is_posted(record, queue);
    // SAFETY: our share, given up below.
    let result = unsafe { &*request }.wait(engine, record, call, handle, patience);
    // SAFETY: our share.
    unsafe { Request::drop_share(request) };
    result
}

fn post_request(
    engine: &Engine,
    record: &Record,
    queue: &Queue,
    inside: &Inside<'_>,
    (handle, arg): (Handle, *mut c_void),
    patience: Patience,
) -> Result<*const Request, Error> {
    let request = Request::new(record)?;
    let event = Event::request(record, handle, request, arg);
    let wait = (queue.policy == super::Policy::Block).then_some(patience);
    let posted = engine
        .retain_for_event(record, handle)
        .and_then(|()| post::put(engine, record, inside, &event, wait));
    if let Err(error) = posted {
        event.give_back();
        // Not posted: both shares are ours.
        // SAFETY: as above.
        unsafe {
            Request::drop_share(request);
            Request::drop_share(request);
        }
        return Err(error);
    }
    Ok(request)
}
