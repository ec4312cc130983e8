//! The live view: answers who asks over a socket what is going on, if the environment wants that
//! (`CALLBRIDGE_STATS_SOCKET`).

use super::Stats;
use crate::engine::{self, ENGINE, Handle, Record};
use crate::error::Error;
use crate::features::observe::request::{Order, Request};
use crate::features::observe::snapshot::{Callback, Document, Process, Queue};
use crate::features::observe::{serve, text::Text};
use crate::features::queue::numbers;
use crate::platform::unix_socket::{self, Place, Refusal, Socket};
use crate::platform::{clock, environment, fork, logging, process, thread};
use crate::sync::{AtomicU32, AtomicU64, Relaxed};
use std::cmp::Reverse;
use std::ffi::c_void;
use std::sync::{Mutex, PoisonError};

/// Beside what the host's thread-local storage takes of it. 20 kB are used.
const STACK: usize = 256 << 10;
/// Of more callbacks it is not remembered how often they were called.
const MOST_REMEMBERED: usize = 1 << 20;

/// 1 once the environment was asked.
static ASKED: AtomicU32 = AtomicU32::new(0);
/// When that was.
static BEGAN: AtomicU64 = AtomicU64::new(0);
/// From who opens it to who serves it.
static LISTENER: Mutex<Option<Socket>> = Mutex::new(None);
/// Whoever serves has it for good.
static CLIENTS: Mutex<serve::Clients<Memory>> = Mutex::new(serve::Clients::NONE);
/// What is to be taken away at exit, and by which process.
static PLACE: Mutex<Option<(u32, Place)>> = Mutex::new(None);

/// At a thread's first use of the library; does its work at the process's. Not in the child of a fork whose
/// parent has used it.
pub(super) fn begin(record: &Record) {
    // Relaxed: one thread gets the 0.
    if ASKED.load(Relaxed) != 0 || ASKED.swap(1, Relaxed) != 0 {
        return;
    }
    BEGAN.store(clock::nanoseconds(), Relaxed);
    let Some(place) = environment::variable(c"CALLBRIDGE_STATS_SOCKET") else { return };
    if place.is_empty() {
        return;
    }
    if let Err(refusal) = open(record, place.to_bytes()) {
        logging::warn(format_args!(
            "CALLBRIDGE_STATS_SOCKET={place:?}: statistics are not served: {refusal}"
        ));
    }
}

fn open(record: &Record, place: &[u8]) -> Result<(), Refusal> {
    if process::is_privileged() {
        let what = "the program has rights that whoever starts it lacks";
        return Err(Refusal { what, errno: 0 });
    }
    let path = serve::place(place, process::id())?;
    fork::at_fork_in_child(close_in_child)
        .map_err(|errno| Refusal { what: "pthread_atfork", errno })?;
    {
        let _section = ENGINE.section(record);
        let (listener, place) = unix_socket::listen(&path)?;
        *lock(&LISTENER) = Some(listener);
        *lock(&PLACE) = Some((process::id(), place));
    }
    process::at_exit(close);
    thread::start(STACK, run).map_err(|errno| {
        let _section = ENGINE.section(record);
        *lock(&LISTENER) = None;
        close();
        Refusal { what: "pthread_create", errno }
    })
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes the path away, if this process has made it.
extern "C" fn close() {
    // Locked: by who is just about to open it, at the process's end.
    if let Ok(mut place) = PLACE.try_lock()
        && let Some((_, place)) = place.take_if(|(maker, _)| *maker == process::id())
    {
        place.remove();
    }
}

unsafe extern "C" fn close_in_child() {
    unix_socket::close_all_in_child();
}

extern "C" fn run(_: *mut c_void) -> *mut c_void {
    // As much as a name has room for.
    thread::name_this(c"callbridge-stat");
    // Not in the condition, where the lock would be held as long as it is served.
    let listener = lock(&LISTENER).take();
    if let (Some(listener), Ok(record)) = (listener, engine::joined()) {
        let _onlooker = ENGINE.become_onlooker();
        serve::serve(record, listener, &mut lock(&CLIENTS), snapshot);
    }
    close();
    std::ptr::null_mut()
}

/// What is remembered of a connection: how often callbacks had been called, in the order of their places.
#[derive(Default)]
struct Memory(Vec<(Handle, u64)>);

fn snapshot(record: &Record, request: &Request<'_>, memory: &mut Memory) -> Result<Text, Error> {
    let Stats { census, queues, thunks, thunk_stale } = super::stats(record, Handle(0))?;
    let sums = census.sums;
    let numbers = [
        ("live", census.live),
        ("registered", sums.registered),
        ("destroyed", sums.destroyed),
        ("destroy_pending", census.pending),
        ("calls", sums.calls),
        ("failures", sums.failed()),
        ("stale", sums.stale),
        ("in_flight", census.in_flight),
        ("threads", census.threads),
        ("queues", queues.queues),
        ("queued", queues.queued),
        ("capacity", queues.capacity),
        ("posted", queues.posted),
        ("dispatched", queues.dispatched),
        ("dropped", queues.dropped),
        ("refused", queues.refused),
        ("blocked", queues.blocked),
        ("thunks", thunks),
        ("thunk_stale", thunk_stale),
    ];
    let mut text = Text::new();
    let process = Process {
        id: process::id().into(),
        name: process::name(),
        now: clock::nanoseconds(),
        began: BEGAN.load(Relaxed),
        numbers: &numbers,
    };
    let mut document = Document::begin(&mut text, &process)?;
    show_queues(record, request, &mut document)?;
    show_callbacks(record, request, memory, process.now, &mut document)?;
    document.end()?;
    Ok(text)
}

/// Those that most was posted to.
fn show_queues(
    record: &Record,
    request: &Request<'_>,
    document: &mut Document<'_>,
) -> Result<(), Error> {
    let mut rows = numbers::rows(record)?;
    let total = rows.len();
    rows.sort_unstable_by_key(|row| Reverse(row.totals.posted));
    rows.truncate(request.limit);
    document.begin_rows("queues")?;
    for row in &rows {
        document.queue(&Queue {
            handle: row.handle.0,
            name: row.name.as_str(),
            // None: it is being closed.
            scope: ENGINE.scope_name(record, row.scope).as_ref().map_or("", |name| name.as_str()),
            numbers: super::queue_numbers(&row.totals),
        })?;
    }
    document.end_rows(total as u64, rows.len() as u64)
}

/// A callback that is to be shown, the more so the greater its keys are: what was asked for, how many are
/// inside, and that its place is low, which changes nothing from one time to the next.
struct Pick {
    keys: (u64, u64, Reverse<u32>),
    handle: Handle,
}

/// Leaves those of the picks that are shown first.
fn keep_best(picks: &mut Vec<Pick>, count: usize) {
    if count < picks.len() {
        picks.select_nth_unstable_by_key(count, |pick| Reverse(pick.keys));
        picks.truncate(count);
    }
}

fn show_callbacks(
    record: &Record,
    request: &Request<'_>,
    memory: &mut Memory,
    now: u64,
    document: &mut Document<'_>,
) -> Result<(), Error> {
    let onlooker = ENGINE.look_on(record)?;
    let mut picks = Vec::new();
    // Half of it is thrown away when it is full.
    picks.try_reserve_exact(2 * request.limit + 1).map_err(|_| Error::NoMemory)?;
    let mut before = match request.order {
        Order::Rate => std::mem::take(&mut memory.0),
        _ => Vec::new(),
    }
    .into_iter()
    .peekable();
    let mut total = 0;
    onlooker.for_each(|handle, inside| {
        let is_asked_for = request.is_for("")
            || request.is_for_handle(handle.0)
            || onlooker.has_name(handle, |name| request.is_for(name));
        if !is_asked_for {
            return Ok(());
        }
        total += 1;
        let (calls, failures) = onlooker.counts(handle).unwrap_or((0, 0));
        let mut key = match request.order {
            Order::Rate | Order::Calls => calls,
            Order::Failures => failures,
            Order::Inside => inside,
        };
        if request.order == Order::Rate && calls > 0 {
            while before.next_if(|(other, _)| other.index() < handle.index()).is_some() {}
            if let Some((_, then)) = before.next_if(|(other, _)| *other == handle) {
                key = calls.saturating_sub(then);
            }
            // No memory: then it counts as new the next time.
            if memory.0.len() < MOST_REMEMBERED && memory.0.try_reserve(1).is_ok() {
                memory.0.push((handle, calls));
            }
        }
        if picks.len() == picks.capacity() {
            keep_best(&mut picks, request.limit);
        }
        picks.push(Pick { keys: (key, inside, Reverse(handle.index())), handle });
        Ok(())
    })?;
    keep_best(&mut picks, request.limit);
    picks.sort_unstable_by_key(|pick| Reverse(pick.keys));

    document.begin_rows("callbacks")?;
    let mut shown = 0;
    for pick in &picks {
        // Ended meanwhile: not there any more.
        let Some(row) = onlooker.row(pick.handle) else { continue };
        shown += 1;
        document.callback(&Callback {
            handle: row.handle.0,
            name: row.name.as_str(),
            scope: ENGINE.scope_name(record, row.scope).as_ref().map_or("", |name| name.as_str()),
            function: row.function.addr() as u64,
            references: row.references.into(),
            in_flight: row.in_flight,
            age: (row.registered != 0).then(|| now.saturating_sub(row.registered)),
            metered: row.metered,
        })?;
    }
    document.end_rows(total, shown)
}
