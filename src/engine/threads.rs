//! The process's engine, and each thread's way to its record.

use super::Engine;
use super::record::Record;
use crate::error::Error;
use crate::platform::{fork, logging, random, reserve, tls};
use crate::sync::Relaxed;
use std::ffi::c_void;
use std::ptr::NonNull;

/// The one of this process.
pub(crate) static ENGINE: Engine = Engine::new();

/// Tells of the ends of threads. Set once the engine has started.
static THREAD_END: tls::ThreadEndOnce = tls::ThreadEndOnce::new();

/// This thread's record, if it has one.
#[inline(always)]
pub(crate) fn current() -> Option<&'static Record> {
    let record = tls::get()?;
    // SAFETY: `join` set it to a record of ENGINE, which is never freed, and `at_thread_end` clears
    // it before this thread comes here again.
    Some(unsafe { record.cast::<Record>().as_ref() })
}

/// This thread's record; made on the thread's first use of the library.
pub(crate) fn joined() -> Result<&'static Record, Error> {
    match current() {
        Some(record) => Ok(record),
        None => join(),
    }
}

#[cold]
#[inline(never)]
fn join() -> Result<&'static Record, Error> {
    let thread_end = match THREAD_END.get() {
        Some(thread_end) => thread_end,
        None => start()?,
    };
    let record = ENGINE.records.acquire(ENGINE.barrier.is_exchange())?;
    if let Err(errno) = thread_end.set(NonNull::from(record).cast()) {
        ENGINE.records.release(record);
        return Err(Error::System { what: "pthread_setspecific", errno });
    }
    if ENGINE.has_pending() {
        ENGINE.drain_pending(record);
    }
    Ok(record)
}

/// The first use in the process. What fails here is tried again at the next use. Several threads may
/// be here at once: every step may be taken twice, and none waits for another thread, which a fork
/// might have cut off.
fn start() -> Result<tls::ThreadEnd, Error> {
    let around = fork::AroundFork {
        before: before_fork,
        in_parent: after_fork_in_parent,
        in_child: after_fork_in_child,
    };
    fork::at_fork(around).map_err(|errno| Error::System { what: "pthread_atfork", errno })?;
    let thread_end = tls::ThreadEnd::new(at_thread_end)
        .map_err(|errno| Error::System { what: "pthread_key_create", errno })?;
    ENGINE.barrier.choose();
    // 1 to 2^31: at least 2^31 generations are left to every slot. Relaxed: before the first record.
    let first = (random::u32() >> 1) + 1;
    let _ = ENGINE.first_generation.compare_exchange(0, first, Relaxed, Relaxed);
    logging::start();
    ENGINE.read_check_level();
    let by = if ENGINE.barrier.is_exchange() { "exchange" } else { "membarrier" };
    let version = env!("CARGO_PKG_VERSION");
    let words = format_args!("callbridge {version}: calls are protected by {by}");
    logging::line(logging::Level::Info, words);
    Ok(THREAD_END.set(thread_end))
}

unsafe extern "C" fn at_thread_end(record: *mut c_void) {
    // SAFETY: the key's value is what `join` has set on this thread.
    let record = unsafe { &*record.cast::<Record>() };
    ENGINE.end_thread(record);
    // Only now: what runs above is still this thread's. A later destructor that calls us joins anew.
    tls::clear();
}

unsafe extern "C" fn before_fork() {
    ENGINE.before_fork(current());
}

unsafe extern "C" fn after_fork_in_parent() {
    ENGINE.after_fork_in_parent();
}

unsafe extern "C" fn after_fork_in_child() {
    reserve::after_fork_in_child();
    ENGINE.after_fork_in_child(current());
}
