//! The thunks of one signature: those that were closed wait here, in the order of their closing, until
//! so many others have been closed after them that who still has the address has most likely let go of
//! it. Then they serve again, and the same signature only.

use super::code::{self, Code};
use super::table::{Directory, POOLS, Place, SUPPLY};
use super::{Target, is_open};
use crate::engine::signature::Signature;
use crate::engine::{ENGINE, Handle, NameCopy, Record, Section, Text};
use crate::error::Error;
use crate::sync::{Acquire, AtomicPtr, AtomicU32, Lock, Relaxed, Release};
use std::alloc::Layout;
use std::fmt;
use std::ptr::{self, NonNull};

/// How many are closed after a thunk before its address serves again.
const QUARANTINE: u32 = 4096;

pub(super) struct Pool {
    pub(super) signature: Signature,
    /// What its thunks have in common.
    pub(super) code: Code,
    number: u16,
    /// Another one of the same bucket.
    chain: *const Pool,
    lock: Lock,
    /// Closed thunks, first and last, and how many. Changed under the lock only, so relaxed.
    first: AtomicU32,
    last: AtomicU32,
    waiting: AtomicU32,
    /// How many are open. Likewise.
    open: AtomicU32,
}

// SAFETY: `chain` is a pool or null, and constant once the pool is published.
unsafe impl Sync for Pool {}

const BUCKETS: usize = 256;
static BY_SIGNATURE: [AtomicPtr<Pool>; BUCKETS] =
    [const { AtomicPtr::new(ptr::null_mut()) }; BUCKETS];
/// The same by number, from 1 on.
static BY_NUMBER: Directory<Pool> = Directory::new();
/// To be held by who makes one.
static MAKING: Lock = Lock::new();
/// How many there are. Changed under that lock only.
static COUNT: AtomicU32 = AtomicU32::new(0);

fn bucket(signature: Signature) -> &'static AtomicPtr<Pool> {
    // Fibonacci hashing.
    &BY_SIGNATURE[(signature.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as usize % BUCKETS]
}

impl Pool {
    pub(super) fn of_number(number: u32) -> Option<&'static Self> {
        BY_NUMBER.get(number)
    }

    /// How many thunks are open, of all signatures.
    pub(super) fn open_in_all() -> u64 {
        // Relaxed: a statistic.
        let pools = (1..=COUNT.load(Relaxed)).filter_map(Self::of_number);
        pools.map(|pool| u64::from(pool.open.load(Relaxed))).sum()
    }

    /// The signature's pool, if it has one.
    pub(super) fn find(signature: Signature) -> Option<&'static Self> {
        // Acquire: partner: the store in `make`.
        let mut pool = bucket(signature).load(Acquire).cast_const();
        // SAFETY: null, or a pool, which is never freed.
        while let Some(found) = unsafe { pool.as_ref() } {
            if found.signature == signature {
                return Some(found);
            }
            pool = found.chain;
        }
        None
    }

    /// The pool of a signature that had none.
    #[cold]
    #[inline(never)]
    pub(super) fn make(record: &Record, signature: Signature) -> Result<&'static Self, Error> {
        let _section = ENGINE.section(record);
        let _making = MAKING.lock();
        if let Some(pool) = Self::find(signature) {
            return Ok(pool);
        }
        let number = COUNT.load(Relaxed) + 1;
        if number >= POOLS {
            return Err(Error::Limit("2^15 signatures of thunks"));
        }
        let code = Code::new(signature)?;
        // Before the first thunk, and not at each: calls read what lies beside it.
        ENGINE.tell_of_thunks(is_open);
        // SAFETY: the layout is not empty.
        let memory = unsafe { std::alloc::alloc(Layout::new::<Self>()) }.cast::<Self>();
        let memory = NonNull::new(memory).ok_or(Error::NoMemory)?;
        let bucket = bucket(signature);
        let pool = Self {
            signature,
            code,
            number: number as u16,
            chain: bucket.load(Relaxed),
            lock: Lock::new(),
            first: AtomicU32::new(0),
            last: AtomicU32::new(0),
            waiting: AtomicU32::new(0),
            open: AtomicU32::new(0),
        };
        // SAFETY: fresh memory of this layout.
        unsafe { memory.write(pool) };
        if let Err(error) = BY_NUMBER.set(number, memory) {
            // SAFETY: from `alloc` with this layout, and nobody has seen it.
            unsafe { std::alloc::dealloc(memory.as_ptr().cast(), Layout::new::<Self>()) };
            return Err(error);
        }
        COUNT.store(number, Relaxed);
        // Release: partner: `find`.
        bucket.store(memory.as_ptr(), Release);
        // SAFETY: a pool, never freed.
        Ok(unsafe { memory.as_ref() })
    }

    /// Opens a thunk for the target; and the name of what its address served before.
    pub(super) fn open(
        &'static self,
        record: &Record,
        permanent: bool,
        target: &Target,
    ) -> Result<(Place, Option<Text>), Error> {
        let section = ENGINE.section(record);
        let _lock = self.lock.lock();
        let place = match self.take_closed() {
            Some(place) => place,
            None => self.begin(&section)?,
        };
        if permanent {
            place.set_permanent();
        }
        place.forget_stale();
        self.open.store(self.open.load(Relaxed) + 1, Relaxed);
        let (old_name, _) = place.fill(target.callback, target.fallback, target.name);
        Ok((place, old_name))
    }

    /// A thunk that was never opened.
    #[cold]
    fn begin(&'static self, section: &Section<'_>) -> Result<Place, Error> {
        let place = SUPPLY.take(section)?;
        code::prepare(place.stub(), self)?;
        place.begin(self.number, ENGINE.first_generation());
        Ok(place)
    }

    /// The one that has been closed for longest, if that is long enough.
    fn take_closed(&self) -> Option<Place> {
        let waiting = self.waiting.load(Relaxed);
        if waiting <= QUARANTINE {
            return None;
        }
        let place = Place::of_index(self.first.load(Relaxed))?;
        self.first.store(place.next_closed(), Relaxed);
        self.waiting.store(waiting - 1, Relaxed);
        Some(place)
    }

    /// Sets another target; what it had.
    pub(super) fn retarget(
        &self,
        record: &Record,
        place: Place,
        thunk: Handle,
        target: &Target,
    ) -> Result<Target, Error> {
        let _section = ENGINE.section(record);
        let _lock = self.lock.lock();
        if !place.is_open(thunk) {
            return Err(Error::Stale);
        }
        let fallback = place.fallback();
        let (name, callback) = place.fill(target.callback, target.fallback, target.name);
        Ok(Target { callback, fallback, name })
    }

    /// Closes the thunk: the callback that it carried. Its name and fallback stay, for who calls it still.
    pub(super) fn close(
        &self,
        record: &Record,
        place: Place,
        thunk: Handle,
    ) -> Result<Handle, Error> {
        let _section = ENGINE.section(record);
        let _lock = self.lock.lock();
        if !place.is_open(thunk) {
            return Err(Error::Stale);
        }
        let callback = place.stub().handle();
        self.open.store(self.open.load(Relaxed).wrapping_sub(1), Relaxed);
        if place.end() && !place.is_permanent() {
            self.append(place.index());
        }
        Ok(callback)
    }

    fn append(&self, index: u32) {
        let waiting = self.waiting.load(Relaxed);
        match waiting {
            0 => self.first.store(index, Relaxed),
            _ => {
                if let Some(last) = Place::of_index(self.last.load(Relaxed)) {
                    last.set_next_closed(index);
                }
            }
        }
        self.last.store(index, Relaxed);
        self.waiting.store(waiting + 1, Relaxed);
    }

    /// The name of the thunk's callback, if it has one; the caller is one more owner.
    pub(super) fn share_name(&self, record: &Record, place: Place) -> Option<Text> {
        let _section = ENGINE.section(record);
        let _lock = self.lock.lock();
        place.name().map(Text::share)
    }

    /// How a log line calls the thunk's callback.
    pub(super) fn name_for_log(&self, record: &Record, place: Place) -> NameInLog {
        let _section = ENGINE.section(record);
        let _lock = self.lock.lock();
        NameInLog(place.name().map(|name| NameCopy::of(name.as_str())))
    }
}

/// What a log line calls a thunk's callback.
pub(super) struct NameInLog(Option<NameCopy>);

impl fmt::Display for NameInLog {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(name) => write!(out, "'{}'", name.as_str()),
            None => out.write_str("without a name"),
        }
    }
}
