//! What every race needs: an engine of its own, threads, and a callback that notices when it is
//! called after its end or destroyed at the wrong time.

use crate::engine::invoke::{self, AnyFn, CallbackFn};
use crate::engine::signature::Signature;
use crate::engine::{ColdParts, Engine, Handle, Patience, Record, Registration};
use crate::error::Error;
use std::cell::Cell;
use std::ffi::c_void;
use std::ptr::null_mut;

#[cfg(loom)]
pub(super) use loom::{
    cell::UnsafeCell,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    thread, thread_local,
};
#[cfg(not(loom))]
pub(super) use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    thread,
};

/// How leaves are ordered against revokes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Mode {
    Membarrier,
    Exchange,
}

/// Runs the body in every interleaving, or often, in both modes.
pub(super) fn explore(body: fn(Mode)) {
    for mode in [Mode::Membarrier, Mode::Exchange] {
        explore_in(mode, body);
    }
}

#[cfg(loom)]
pub(super) fn explore_in(mode: Mode, body: fn(Mode)) {
    for shadowed in [true, false] {
        check(&loom_builder(), shadowed, mode, body);
    }
}

/// Waits are polls, and each of a scope's takes its locks: that is many steps.
#[cfg(loom)]
fn loom_builder() -> loom::model::Builder {
    let mut builder = loom::model::Builder::new();
    builder.max_branches = builder.max_branches.max(20_000);
    builder
}

/// The same for three threads and more, or long ways, for which that takes hours: with one preemption; and with
/// two, but only the interleavings that loom finds by itself.
#[cfg(loom)]
pub(super) fn explore_many_in(mode: Mode, body: fn(Mode)) {
    for (preemptions, shadowed) in [(1, true), (2, false)] {
        let mut builder = loom_builder();
        let bound = builder.preemption_bound.map_or(preemptions, |bound| bound.min(preemptions));
        builder.preemption_bound = Some(bound);
        check(&builder, shadowed, mode, body);
    }
}

/// Explores, and says how many interleavings that took: `scripts/models` makes a table of it.
#[cfg(loom)]
fn check(builder: &loom::model::Builder, shadowed: bool, mode: Mode, body: fn(Mode)) {
    crate::sync::shadowed::IS_ON.set(shadowed);
    let count = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let (counted, begun) = (count.clone(), std::time::Instant::now());
    builder.check(move || {
        // Relaxed: one thread of the process runs all.
        counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        body(mode);
    });
    let (test, took) = (std::thread::current(), begun.elapsed().as_secs_f64());
    let count = count.load(std::sync::atomic::Ordering::Relaxed);
    println!("MODEL {} {mode:?} {count} {took:.2}", test.name().unwrap_or("?"));
}

/// [`explore_many_in`] both modes.
pub(super) fn explore_many(body: fn(Mode)) {
    for mode in [Mode::Membarrier, Mode::Exchange] {
        explore_many_in(mode, body);
    }
}

#[cfg(not(loom))]
pub(super) use explore_in as explore_many_in;

#[cfg(not(loom))]
pub(super) fn explore_in(mode: Mode, body: fn(Mode)) {
    // Percent of the usual number of rounds; sanitizers and Miri take less.
    let scale = std::env::var("CALLBRIDGE_TEST_SCALE").ok().and_then(|scale| scale.parse().ok());
    let usual = if cfg!(miri) { 20 } else { 2000 };
    for _ in 0..(usual * scale.unwrap_or(100u32) / 100).max(1) {
        body(mode);
    }
}

thread_local! {
    #[allow(clippy::missing_const_for_thread_local, reason = "loom's macro has no const form")]
    static CURRENT: Cell<*const Record> = Cell::new(std::ptr::null());
}

/// An engine that lives for one run of a body.
#[derive(Clone)]
pub(super) struct World(Arc<Engine>);

impl World {
    pub(super) fn new(mode: Mode) -> Self {
        let engine = Engine::new();
        match mode {
            Mode::Membarrier => assert!(crate::platform::membarrier::sys::register()),
            Mode::Exchange => engine.barrier.use_exchange(),
        }
        Self(Arc::new(engine))
    }

    pub(super) fn engine(&self) -> &Engine {
        &self.0
    }

    /// A record, as a thread of its own has it. Whoever gets it is its owner.
    pub(super) fn record(&self) -> &Record {
        let record = self.0.records().acquire(self.0.barrier.is_exchange()).expect("memory");
        CURRENT.with(|current| current.set(record));
        record
    }

    /// The record that this thread has asked for last.
    pub(super) fn current_record(&self) -> &Record {
        // SAFETY: set in `record`; a record lives as long as its engine.
        unsafe { &*CURRENT.with(Cell::get) }
    }

    /// Runs `body` on a thread with a record of its own.
    pub(super) fn spawn(
        &self,
        body: impl FnOnce(&World, &Record) + Send + 'static,
    ) -> thread::JoinHandle<()> {
        let world = self.clone();
        thread::spawn(move || {
            let record = world.record();
            body(&world, record);
            world.engine().end_thread(record);
        })
    }

    /// Runs `body` on a thread that is biased towards `handle`, which it has called before.
    pub(super) fn spawn_biased(
        &self,
        handle: Handle,
        body: impl FnOnce(&World, &Record) + Send + 'static,
    ) -> thread::JoinHandle<()> {
        let record = self.record();
        for _ in 0..=crate::engine::RUN + 1 {
            self.call(record, handle).expect("live");
        }
        self.spawn_with(record, body)
    }

    /// Runs `body` on a thread that goes on with what this one has done with the record.
    pub(super) fn spawn_with(
        &self,
        record: &Record,
        body: impl FnOnce(&World, &Record) + Send + 'static,
    ) -> thread::JoinHandle<()> {
        struct Given(*const Record);
        // SAFETY: this thread does not use the record any more once it has given it away.
        unsafe impl Send for Given {}
        let given = Given(record);
        let world = self.clone();
        thread::spawn(move || {
            let given = given;
            // SAFETY: a record lives as long as its engine, which `world` keeps.
            let record = unsafe { &*given.0 };
            CURRENT.with(|current| current.set(record));
            body(&world, record);
            world.engine().end_thread(record);
        })
    }

    pub(super) fn register(&self, record: &Record, subject: &Subject) -> Handle {
        let new = Registration {
            // SAFETY: cast back before it is called.
            function: unsafe { std::mem::transmute::<CallbackFn, AnyFn>(touch) },
            user_data: std::ptr::from_ref(subject).cast_mut().cast(),
            destroy: Some(destroy),
            signature: Signature::DEFAULT,
            cold: ColdParts::NONE,
        };
        self.0.register(record, &new).expect("memory")
    }

    /// The same in a scope, which may be closing.
    pub(super) fn register_in(
        &self,
        record: &Record,
        scope: Handle,
        subject: &Subject,
    ) -> Result<Handle, Error> {
        let new = Registration {
            // SAFETY: cast back before it is called.
            function: unsafe { std::mem::transmute::<CallbackFn, AnyFn>(touch) },
            user_data: std::ptr::from_ref(subject).cast_mut().cast(),
            destroy: Some(destroy),
            signature: Signature::DEFAULT,
            cold: ColdParts { scope, ..ColdParts::NONE },
        };
        self.0.register(record, &new)
    }

    /// Closes the scope, or finds that another thread has.
    pub(super) fn close(&self, record: &Record, scope: Handle) {
        match self.0.close_scope(record, scope, Patience::Forever, || ()) {
            Ok(closed) => assert_eq!(closed, (0, Ok(()))),
            Err(error) => assert_eq!(error, Error::Stale),
        }
    }

    /// Registers a callback that only its destroy function makes interesting.
    pub(super) fn register_with<T>(
        &self,
        record: &Record,
        user_data: *const T,
        destroy: unsafe extern "C-unwind" fn(*mut c_void),
    ) -> Handle {
        let new = Registration {
            // SAFETY: never called.
            function: unsafe { std::mem::transmute::<CallbackFn, AnyFn>(touch) },
            user_data: user_data.cast_mut().cast(),
            destroy: Some(destroy),
            signature: Signature::DEFAULT,
            cold: ColdParts::NONE,
        };
        self.0.register(record, &new).expect("memory")
    }

    /// Calls, and gives the subject's number.
    pub(super) fn call(&self, record: &Record, handle: Handle) -> Result<isize, Error> {
        invoke::call(&self.0, record, handle, null_mut()).map_err(|fault| record.explain(fault))
    }

    /// A call that may find the callback gone, but nothing else.
    pub(super) fn try_call(&self, record: &Record, handle: Handle) {
        if let Err(error) = self.call(record, handle) {
            assert_eq!(error, Error::Stale);
        }
    }
}

/// A callback's data. The cell stands for what the host's function reads and its destroy frees: loom
/// reports every access that is not ordered, and so does ThreadSanitizer.
pub(super) struct Subject {
    pub(super) number: isize,
    #[cfg(loom)]
    data: UnsafeCell<bool>,
    #[cfg(not(loom))]
    data: std::cell::UnsafeCell<bool>,
    destroyed: AtomicU32,
}

// SAFETY: that `data` is never accessed by two threads at once is what the races check.
unsafe impl Sync for Subject {}
// SAFETY: as above.
unsafe impl Send for Subject {}

impl Subject {
    /// Leaked under loom, where the engine of the next run has other subjects; freed by nobody.
    pub(super) fn new(number: isize) -> Arc<Self> {
        Arc::new(Self {
            number,
            #[cfg(loom)]
            data: UnsafeCell::new(true),
            #[cfg(not(loom))]
            data: std::cell::UnsafeCell::new(true),
            destroyed: AtomicU32::new(0),
        })
    }

    /// The registration was refused: as if it had been destroyed, so that all have the same end.
    pub(super) fn never_registered(&self) {
        assert_eq!(self.destroyed.fetch_add(1, Ordering::AcqRel), 0, "refused, and yet destroyed");
    }

    pub(super) fn destroyed(&self) -> u32 {
        self.destroyed.load(Ordering::Acquire)
    }
}

unsafe extern "C-unwind" fn touch(user_data: *mut c_void, _arg: *mut c_void) -> isize {
    // SAFETY: the races keep their subjects until all threads have joined.
    let subject = unsafe { &*user_data.cast::<Subject>() };
    #[cfg(loom)]
    // SAFETY: loom checks the access.
    subject.data.with(|alive| assert!(unsafe { *alive }, "called after destroy"));
    #[cfg(not(loom))]
    // SAFETY: destroy is the only writer, and must not run now: that is the test.
    assert!(unsafe { *subject.data.get() }, "called after destroy");
    subject.number
}

unsafe extern "C-unwind" fn destroy(user_data: *mut c_void) {
    // SAFETY: as in `touch`.
    let subject = unsafe { &*user_data.cast::<Subject>() };
    #[cfg(loom)]
    // SAFETY: loom checks the access.
    subject.data.with_mut(|alive| unsafe { *alive = false });
    #[cfg(not(loom))]
    // SAFETY: nobody else reads or writes it now: that is the test.
    unsafe {
        *subject.data.get() = false;
    }
    assert_eq!(subject.destroyed.fetch_add(1, Ordering::AcqRel), 0, "destroyed twice");
}
