//! Where the features meet: all of the process, and what touches more than one of them.

use crate::engine::signature::Signature;
use crate::engine::{
    self, Census, Closed, ColdParts, ENGINE, Handle, Patience, Record, Registration, invoke, stacks,
};
use crate::error::Error;
use crate::features::directory::keys::Keys;
use crate::features::directory::names::Names;
use crate::features::observe::leaks::{self, Leaks};
use crate::features::observe::profile::{Profile, Sample};
use crate::features::observe::queue::QueueNumbers;
use crate::features::observe::{metrics, report, text::Text};
use crate::features::queue::{Queues, numbers};
#[cfg(not(miri))]
use crate::features::thunk;
use crate::platform::clock;
use crate::platform::module::{self, NotFound, Object};
use crate::platform::symbols::Symbols;
use std::ffi::{c_char, c_void};

#[cfg(not(miri))]
mod live;

/// The process's names.
pub(crate) static NAMES: Names = Names::new();
/// The process's keys.
pub(crate) static KEYS: Keys = Keys::new();

/// The calling thread's record; made on the thread's first use of the library.
#[inline(always)]
pub(crate) fn joined() -> Result<&'static Record, Error> {
    match engine::current() {
        Some(record) => Ok(record),
        None => join(),
    }
}

#[cold]
#[inline(never)]
fn join() -> Result<&'static Record, Error> {
    let record = engine::joined()?;
    #[cfg(not(miri))]
    live::begin(record);
    Ok(record)
}

/// Closes a scope, or waits on for one that is closing.
pub(crate) fn close_scope(
    record: &Record,
    scope: Handle,
    patience: Patience,
) -> Result<Closed, Error> {
    ENGINE.close_scope(record, scope, patience, || {
        NAMES.unbind_all(&ENGINE, record, scope);
        KEYS.detach_scope(&ENGINE, record, scope);
        Queues::close_scope(&ENGINE, record, scope);
        ENGINE.forget_gone_call_hooks();
    })
}

/// Registers a callback, after a look at its functions, and at who registers it, if the check level asks
/// for it. `keep_loaded`: the shared object of its function stays. `entry`: what the host has called.
#[inline(always)]
pub(crate) fn register(
    record: &Record,
    new: &Registration<'_>,
    keep_loaded: bool,
    entry: *const (),
) -> Result<Handle, Error> {
    if ENGINE.check.looks_at_registrations() {
        return register_closely(record, new, keep_loaded, entry);
    }
    register_unchecked(record, new, keep_loaded)
}

#[cold]
#[inline(never)]
fn register_closely(
    record: &Record,
    new: &Registration<'_>,
    keep_loaded: bool,
    entry: *const (),
) -> Result<Handle, Error> {
    if ENGINE.check.is_thorough() {
        look_at_functions(new)?;
    }
    let stack = stacks::of_caller(entry, ENGINE.check.keeps_stacks());
    let cold = ColdParts { stack, ..new.cold };
    register_unchecked(record, &Registration { cold, ..*new }, keep_loaded)
}

#[inline(always)]
fn register_unchecked(
    record: &Record,
    new: &Registration<'_>,
    keep_loaded: bool,
) -> Result<Handle, Error> {
    if (new.cold.home.0 | new.cold.destroy_queue.0) != 0 {
        Queues::check_owned(record, new.cold.home)?;
        Queues::check_owned(record, new.cold.destroy_queue)?;
    }
    if keep_loaded {
        return register_and_keep(record, new);
    }
    ENGINE.register(record, new)
}

#[cold]
#[inline(never)]
fn register_and_keep(record: &Record, new: &Registration<'_>) -> Result<Handle, Error> {
    const REFUSED: Error =
        Error::System { what: "dlopen of the object that holds fn", errno: libc::ENOENT };
    let object =
        Object::of(invoke::function_to_pointer(new.function)).map_err(|why| match why {
            NotFound::NoObject => Error::Invalid("CBR_PIN_MODULE: fn is in no shared object"),
            NotFound::Refused => REFUSED,
        })?;
    // Kept only once nothing can fail any more; until then it is merely held.
    let handle = ENGINE.register(record, new)?;
    object.keep();
    Ok(handle)
}

#[cold]
#[inline(never)]
fn look_at_functions(new: &Registration<'_>) -> Result<(), Error> {
    let is_code = |function: *mut ()| function.is_null() || module::is_executable(function);
    let on_error = new.cold.on_error.map_or(std::ptr::null_mut(), |function| function as *mut ());
    if !is_code(invoke::function_to_pointer(new.function)) {
        return Err(Error::Invalid("fn is no code: it lies in no executable mapping"));
    }
    if !is_code(invoke::destroy_to_pointer(new.destroy)) {
        return Err(Error::Invalid("destroy is no code: it lies in no executable mapping"));
    }
    if !is_code(on_error) {
        return Err(Error::Invalid("on_error is no code: it lies in no executable mapping"));
    }
    Ok(())
}

/// ptr(u64, ptr, ptr)
const TRACER: Signature = Signature(3 << 60 | 13 << 56 | 10 << 52 | 13 << 48 | 13 << 44);

/// What wants to be told of calls.
pub(crate) struct CallHooks {
    pub(crate) begin: Option<invoke::BeginFn>,
    pub(crate) end: Option<invoke::EndFn>,
    pub(crate) user_data: *mut c_void,
    pub(crate) destroy: Option<invoke::DestroyFn>,
    pub(crate) owner: Handle,
}

/// Has these told of every call from now on, or none if they have no function. `entry`: what the host has
/// called.
pub(crate) fn set_call_hooks(
    record: &Record,
    hooks: &CallHooks,
    entry: *const (),
) -> Result<(), Error> {
    unsafe extern "C-unwind" fn no_begin(
        _user_data: *mut c_void,
        _handle: u64,
        _name: *const c_char,
        _context: *const c_char,
    ) -> *mut c_void {
        std::ptr::null_mut()
    }
    let guest = if hooks.begin.is_none() && hooks.end.is_none() {
        Handle(0)
    } else {
        let end = hooks.end.map_or(std::ptr::null_mut(), |end| end as *mut ());
        if ENGINE.check.is_thorough() && !end.is_null() && !module::is_executable(end) {
            return Err(Error::Invalid("end is no code: it lies in no executable mapping"));
        }
        let (function, fallback) =
            invoke::begin_to_pointers(hooks.begin.unwrap_or(no_begin), hooks.end);
        let cold = ColdParts::of_guest("cbr_set_call_hooks", hooks.owner, fallback);
        let CallHooks { user_data, destroy, .. } = *hooks;
        let new = Registration { function, user_data, destroy, signature: TRACER, cold };
        register(record, &new, false, entry)?
    };
    let before = ENGINE.replace_call_hooks(guest);
    // Gone already, if its scope is closed.
    let _ = ENGINE.unregister(record, before);
    Ok(())
}

/// What there is, and what it has done.
pub(crate) struct Stats {
    pub(crate) census: Census,
    pub(crate) queues: numbers::Totals,
    pub(crate) thunks: u64,
    pub(crate) thunk_stale: u64,
}

/// Of a scope, or with 0 of the process.
pub(crate) fn stats(record: &Record, scope: Handle) -> Result<Stats, Error> {
    ENGINE.check_scope(scope)?;
    let mut census = ENGINE.census(record, scope)?;
    if scope.0 != 0 {
        // Threads count calls of all scopes together, and apart those of metered callbacks.
        (census.sums.calls, census.sums.callback) = ENGINE.metered_in(record, scope)?;
    }
    let queues = numbers::totals(record, scope);
    #[cfg(not(miri))]
    let (thunks, thunk_stale) = if scope.0 == 0 { thunk::numbers() } else { (0, 0) };
    #[cfg(miri)]
    let (thunks, thunk_stale) = (0, 0);
    Ok(Stats { census, queues, thunks, thunk_stale })
}

/// A table of the callbacks, for people.
pub(crate) fn report(record: &Record, scope: Handle) -> Result<Text, Error> {
    let (mut text, now, mut count) = (Text::new(), clock::nanoseconds(), 0);
    report::begin(&mut text)?;
    let mut result = Ok(());
    ENGINE.for_each_callback(record, scope, |row| {
        if result.is_err() {
            return;
        }
        let function = module::Place(row.function.addr() as u64);
        let site = row.stack.map(|stack| module::Place(stack.frames()[0]));
        // A scope that is gone took the callback with it.
        let Ok(scope) = ENGINE.scope_name(record, row.scope) else { return };
        count += 1;
        let line = report::Line {
            handle: row.handle.0,
            name: row.name.as_str(),
            scope: scope.as_str(),
            references: row.references,
            in_flight: row.in_flight,
            calls: row.metered.map(|metered| metered.calls),
            failures: row.metered.map(|metered| metered.failures),
            age: (row.registered != 0).then(|| now.saturating_sub(row.registered)),
            function: &function,
            site: site.as_ref().map(|site| site as &dyn std::fmt::Display),
        };
        result = report::line(&mut text, &line);
    })?;
    result?;
    report::end(&mut text, count)?;
    Ok(text)
}

/// Everything for monitoring, as OpenMetrics text.
pub(crate) fn metrics(record: &Record, scope: Handle) -> Result<Text, Error> {
    let Stats { census, thunks, thunk_stale, .. } = stats(record, scope)?;
    let scope_name = ENGINE.scope_name(record, scope)?;
    let of_queues = numbers::by_name(record, scope)?;
    let of_callbacks = ENGINE.metered_by_name(record, scope)?;
    let sums = census.sums;
    let all = metrics::Numbers {
        live: census.live,
        registered: sums.registered,
        destroyed: sums.destroyed,
        pending: census.pending,
        calls: sums.calls,
        in_flight: census.in_flight,
        failures: [sums.callback, sums.panic, sums.signature, sums.thread, sums.limit],
        stale: sums.stale,
        threads: census.threads,
        thunks,
        thunk_stale,
    };
    let mut queues = Vec::new();
    queues.try_reserve_exact(of_queues.iter().count()).map_err(|_| Error::NoMemory)?;
    queues.extend(of_queues.iter().map(|(name, totals)| metrics::Queue {
        name,
        open: totals.queues,
        numbers: queue_numbers(totals),
    }));
    let mut text = Text::new();
    let scope = (scope.0 != 0).then_some(scope_name.as_str());
    metrics::Exposition::new(&mut text, scope).write(&all, &queues, &of_callbacks)?;
    Ok(text)
}

fn queue_numbers(totals: &numbers::Totals) -> QueueNumbers {
    QueueNumbers {
        depth: totals.queued,
        capacity: totals.capacity,
        posted: totals.posted,
        dispatched: totals.dispatched,
        dropped: totals.dropped,
        refused: totals.refused,
        blocked: totals.blocked,
        waited: totals.waited,
    }
}

/// The live callbacks by where they were registered, as pprof reads it.
pub(crate) fn profile(record: &Record, scope: Handle) -> Result<Vec<u8>, Error> {
    let (mut profile, mut result) = (Profile::new()?, Ok(()));
    ENGINE.for_each_callback(record, scope, |row| {
        // As in `report`.
        if let (Ok(()), Ok(scope)) = (result, ENGINE.scope_name(record, row.scope)) {
            result = profile.add(&Sample {
                frames: row.stack.map_or(&[], stacks::Stack::frames),
                name: row.name.as_str(),
                scope: scope.as_str(),
                bytes: row.cold,
            });
        }
    })?;
    result?;
    let mut symbols = Symbols::new().map_err(|_| Error::NoMemory)?;
    profile.finish(&mut symbols, clock::since_1970())
}

/// All that is left now, in words; None: nothing is.
pub(crate) fn leaks(record: &Record) -> Result<Option<Text>, Error> {
    const PROCESS: Handle = Handle(0);
    let mut symbols = Symbols::new().map_err(|_| Error::NoMemory)?;
    let (mut leaks, mut result) = (Leaks::new(), Ok(()));
    let all = &mut leaks;
    all.ending = ENGINE.census(record, PROCESS)?.pending;
    let name_of = |callback| ENGINE.describe(record, callback).map(|row| row.name).ok();
    ENGINE.for_each_callback(record, PROCESS, |row| {
        if let (Ok(()), Ok(scope)) = (result, ENGINE.scope_name(record, row.scope)) {
            let callback = leaks::Callback {
                handle: row.handle.0,
                name: row.name.as_str(),
                scope: scope.as_str(),
                references: row.references,
                in_flight: row.in_flight,
                function: row.function.addr() as u64,
                frames: row.stack.map_or(&[], stacks::Stack::frames),
            };
            result = all.callback(&callback, &mut symbols);
        }
    })?;
    let mut also = |added: Result<(), Error>| result = result.and(added);
    ENGINE.for_each_scope(record, |scope, name| also(all.scope(scope.0, name)));
    for row in numbers::rows(record)? {
        also(all.queue(row.handle.0, row.name.as_str(), row.totals.queued));
    }
    #[cfg(not(miri))]
    thunk::for_each_open(record, |thunk, signature, name| {
        also(all.thunk(thunk.0, &signature, name));
    });
    ENGINE.for_each_hold(|callback| {
        let name = name_of(callback);
        also(all.hold(callback.0, name.as_ref().map_or("", |name| name.as_str())));
    });
    result?;
    if leaks.is_empty() { Ok(None) } else { leaks.write(&mut symbols).map(Some) }
}
