//! The log's ways out: the `log` facade, which prints to stderr what env_logger lets through, and a sink of
//! the host's. A line is made on the stack, and takes no memory. (A Rust host's own logger may.)

use super::cancel::NotNow;
use super::words::Words;
use super::{environment, output, reserve};
use crate::error::Error;
pub(crate) use log::Level;
use std::ffi::CStr;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
// Not by the door to atomics: these belong to the process, and no model has them.
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicPtr, AtomicU32, fence};

/// What all lines have as their target.
pub(crate) const TARGET: &CStr = c"callbridge";
const TARGET_STR: &str = "callbridge";

/// What there is of a line at most, in bytes.
const WORDS: usize = 1023;
/// The same with what stands before the words, and the end of the line.
const LINE: usize = WORDS + 64;

/// Hands a line to the host's sink, which lies above.
pub(crate) type Forward = fn(Level, &CStr);

/// Lines of up to this level go to the sink; 0: none.
static SINK_LEVEL: AtomicU32 = AtomicU32::new(0);
/// A [`Forward`], or null.
static FORWARD: AtomicPtr<()> = AtomicPtr::new(ptr::null_mut());

/// Does anybody listen to lines of that level?
pub(crate) fn is_on(level: Level) -> bool {
    // Relaxed: from about now on.
    level <= log::max_level() || level as u32 <= SINK_LEVEL.load(Relaxed)
}

/// Lines of up to `level` go to `forward` from now on.
pub(crate) fn set_sink(level: u32, forward: Forward) {
    // Release: partner: the load in `line`.
    FORWARD.store(forward as *mut (), Release);
    SINK_LEVEL.store(level, Release);
}

/// A warning, whose words are made only if somebody listens.
pub(crate) fn warn(words: fmt::Arguments<'_>) {
    line(Level::Warn, words);
}

/// What a developer may want to follow.
pub(crate) fn debug(words: fmt::Arguments<'_>) {
    line(Level::Debug, words);
}

/// A line, whose words are made only if somebody listens.
pub(crate) fn line(level: Level, words: fmt::Arguments<'_>) {
    if is_on(level) {
        write(level, words);
    }
}

#[cold]
fn write(level: Level, words: fmt::Arguments<'_>) {
    let prints = contained(|| log::log_enabled!(target: TARGET_STR, level));
    // Acquire: partner: the store in `set_sink`.
    let sinks = level as u32 <= SINK_LEVEL.load(Acquire);
    if !prints && !sinks {
        return;
    }
    let words = {
        // Who is cancelled in the middle of a line would leave what it was about to do after it.
        let _not_now = NotNow::begin();
        let words = Words::<WORDS>::of(words);
        if prints {
            contained(|| {
                log::log!(target: TARGET_STR, level, "{}", words.as_str());
                true
            });
        }
        words
    };
    let forward = FORWARD.load(Relaxed);
    if sinks && !forward.is_null() {
        // SAFETY: stored by `set_sink`.
        let forward = unsafe { std::mem::transmute::<*mut (), Forward>(forward) };
        let mut line = [0; WORDS + 1];
        line[..words.as_str().len()].copy_from_slice(words.as_str().as_bytes());
        // (No text that C gave, or that we write, has a NUL; another would end the line.)
        forward(level, CStr::from_bytes_until_nul(&line).unwrap_or_default());
    }
}

/// Asks the logger. It may be a Rust host's, and panic: that must not pass through what we are in the middle
/// of, nor into C. (A logger is Rust code; nothing foreign unwinds out of it.)
fn contained(ask: impl FnOnce() -> bool) -> bool {
    catch_unwind(AssertUnwindSafe(ask)).unwrap_or_else(|payload| {
        // It may panic as it goes.
        std::mem::forget(payload);
        false
    })
}

/// A logger that has been asked for. They stay: another thread may be in the middle of one.
struct Filtered {
    filter: String,
    logger: env_logger::Logger,
    next: *const Filtered,
}

/// All of them, a list that only grows: by one for each different filter.
static FILTERED: AtomicPtr<Filtered> = AtomicPtr::new(ptr::null_mut());
/// The one that prints, or null.
static CURRENT: AtomicPtr<Filtered> = AtomicPtr::new(ptr::null_mut());

/// What the `log` crate is given once: the logger of the moment.
struct Stderr;
static STDERR: Stderr = Stderr;

fn current() -> Option<&'static env_logger::Logger> {
    // Acquire: partner: the store in `to_stderr`.
    let current = CURRENT.load(Acquire);
    // SAFETY: null, or one of the list, which stays.
    unsafe { current.as_ref() }.map(|it| &it.logger)
}

impl log::Log for Stderr {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        current().is_some_and(|it| it.enabled(metadata))
    }
    /// As env_logger would, but for the lock of the standard error, which another thread may hold while
    /// this one forks: its child would wait for ever.
    fn log(&self, record: &log::Record<'_>) {
        if current().is_some_and(|it| it.matches(record)) {
            let (level, target, words) = (record.level(), record.target(), record.args());
            // What a Rust host logs through us may be longer, and is cut.
            let words = Words::<{ LINE - 1 }>::of(format_args!("[{level:<5} {target}] {words}"));
            let mut line = [b'\n'; LINE];
            line[..words.as_str().len()].copy_from_slice(words.as_str().as_bytes());
            output::to_stderr(&line[..=words.as_str().len()]);
        }
    }
    fn flush(&self) {}
}

/// Prints the log to stderr if `CALLBRIDGE_LOG` says so (env_logger's syntax).
pub(crate) fn start() {
    if let Some(Ok(filter)) = environment::variable(c"CALLBRIDGE_LOG").map(CStr::to_str) {
        // A Rust host that links the crate may have a logger of its own: that one stays. And what is wrong in
        // a filter env_logger says itself, and goes on with the rest.
        let _not_now = NotNow::begin();
        if filter.len() <= FILTER {
            let _ = print(filter);
        } else {
            output::to_stderr(b"callbridge: CALLBRIDGE_LOG is longer than 1,500 bytes: ignored\n");
        }
    }
}

/// Prints the log to stderr from now on, as far as the filter lets it through. None: as `CALLBRIDGE_LOG`
/// says, and warnings if it says nothing.
pub(crate) fn to_stderr(filter: Option<&str>) -> Result<(), Error> {
    const WRONG: Error = Error::Invalid("the filter is not in env_logger's syntax");
    let from_environment = || {
        let value = environment::variable(c"CALLBRIDGE_LOG")?;
        value.to_str().ok().filter(|value| !value.is_empty())
    };
    let filter = filter.or_else(from_environment).unwrap_or("warn");
    if filter.len() > FILTER {
        return Err(Error::Invalid("the filter is longer than 1,500 bytes"));
    }
    // What is wrong in it may be printed, and that is a cancellation point.
    let _not_now = NotNow::begin();
    let parsed = reserve::section(|| {
        env_filter::Builder::new().try_parse(filter).map(drop).map_err(|_| WRONG)
    });
    parsed??;
    print(filter)
}

/// The longest filter, in bytes. A directive has two bytes or more, and is a name and a few words in lists that
/// grow by copying.
const FILTER: usize = 1500;
const _: () = assert!((4 << 10) + 256 * FILTER < reserve::MOST);

fn print(filter: &str) -> Result<(), Error> {
    // Fails if there is a logger, which may be ours.
    if log::set_logger(&STDERR).is_err()
        && !ptr::addr_eq(ptr::from_ref(log::logger()), &raw const STDERR)
    {
        return Err(Error::Exists);
    }
    let filtered = match find(filter) {
        Some(known) => known,
        None => {
            let new = reserve::section(|| Filtered::new(filter))?;
            keep(new)
        }
    };
    // Release: partner: the load in `current`.
    CURRENT.store(ptr::from_ref(filtered).cast_mut(), Release);
    // Another thread may do the same: the level that stays is that of the logger that stays. Fences: the logger,
    // then the look at it, whose level follows; the level, then the look whether it is the logger's still.
    fence(SeqCst);
    let mut known = CURRENT.load(Acquire);
    loop {
        // SAFETY: one of the list, which stays.
        let logger = unsafe { known.as_ref() };
        log::set_max_level(logger.map_or(log::LevelFilter::Off, |it| it.logger.filter()));
        fence(SeqCst);
        let now = CURRENT.load(Acquire);
        if now == known {
            return Ok(());
        }
        known = now;
    }
}

fn find(filter: &str) -> Option<&'static Filtered> {
    // Acquire: partner: the compare-exchange in `keep`.
    let mut next = FILTERED.load(Acquire).cast_const();
    // SAFETY: null, or one of the list, which stays.
    while let Some(it) = unsafe { next.as_ref() } {
        if it.filter == filter {
            return Some(it);
        }
        next = it.next;
    }
    None
}

impl Filtered {
    fn new(filter: &str) -> Box<Self> {
        let logger = env_logger::Builder::new().parse_filters(filter).build();
        Box::new(Self { filter: filter.to_owned(), logger, next: ptr::null() })
    }
}

fn keep(new: Box<Filtered>) -> &'static Filtered {
    let new = Box::into_raw(new);
    let mut first = FILTERED.load(Relaxed);
    loop {
        // SAFETY: nobody else has it yet.
        unsafe { (*new).next = first };
        // Release in AcqRel: partner: the load in `find`.
        match FILTERED.compare_exchange_weak(first, new, AcqRel, Relaxed) {
            // SAFETY: it stays from now on.
            Ok(_) => return unsafe { &*new },
            Err(now) => first = now,
        }
    }
}
