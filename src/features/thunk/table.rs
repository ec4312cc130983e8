//! The data of thunks, in tables that are never moved and never freed.
//!
//! What a call reads of a thunk is its [`Stub`]. In each page of stubs the first one is no thunk: it
//! says which table the page is of, so that from a stub's address everything else is found.

use super::code;
use super::pool::Pool;
use crate::engine::{Handle, Kind, Section, Text};
use crate::error::Error;
use crate::platform::pages;
use crate::sync::{Acquire, AtomicPtr, AtomicU16, AtomicU32, AtomicU64, Lock, Relaxed, Release};
use std::ptr::{self, NonNull};

/// Stubs of a table.
pub(super) const TABLE: usize = 1024;
const PAGE_LEN: usize = 4096;
/// Stubs of a page.
const PAGE: usize = PAGE_LEN / size_of::<Stub>();
/// Thunks have an index of 28 bits.
const TABLES: usize = (1 << 28) / TABLE;

/// What a call reads.
#[repr(C, align(16))]
pub(super) struct Stub {
    /// Where the code at the thunk's address goes on. Of a page's first stub its table.
    pub(super) entry: AtomicPtr<()>,
    /// The callback; of a closed thunk [`closed`], which is no callback's. Of a page's first stub its
    /// table's number.
    handle: AtomicU64,
}

/// Zeroed memory is a table of thunks that nobody has opened yet.
#[repr(C, align(4096))]
pub(super) struct Table {
    stubs: [Stub; TABLE],
    /// What a thunk returns when its callback cannot run.
    fallback: [AtomicU64; TABLE],
    /// A [`Text`] or null.
    name: [AtomicPtr<u8>; TABLE],
    generation: [AtomicU32; TABLE],
    /// The pool's number, and [`PERMANENT`].
    pool: [AtomicU16; TABLE],
    /// See [`Place::count_stale`].
    stale: [AtomicU16; TABLE],
}

const _: () = assert!(size_of::<Table>().is_multiple_of(PAGE_LEN));

const PERMANENT: u16 = 1 << 15;
/// Pools' numbers are below this.
pub(super) const POOLS: u32 = PERMANENT as u32;

/// What a closed thunk has in a callback's place: a number of another kind, with the index of the thunk
/// that was closed next.
fn closed(next: u32) -> Handle {
    Handle::new(next, Kind::Thunk, 0)
}

impl Stub {
    /// The callback, or [`closed`].
    #[inline(always)]
    pub(super) fn handle(&self) -> Handle {
        // Acquire: partner: `set_handle`: the callback was registered before.
        Handle(self.handle.load(Acquire))
    }

    fn set_handle(&self, handle: Handle) {
        // Release: the fallback before; partner: `handle`.
        self.handle.store(handle.0, Release);
    }

    #[cold]
    pub(super) fn place(&'static self) -> Place {
        let first = ptr::from_ref(self).map_addr(|address| address & !(PAGE_LEN - 1));
        // SAFETY: stubs fill their pages, and a page's first one is as `Supply::begin` has made it.
        let first = unsafe { &*first };
        // Relaxed, both: set before any stub of the page was handed out.
        let table = first.entry.load(Relaxed).cast::<Table>();
        let number = first.handle.load(Relaxed) as u32;
        // SAFETY: a table, which is never freed.
        let table = unsafe { &*table };
        let place = (ptr::from_ref(self).addr() - ptr::from_ref(table).addr()) / size_of::<Self>();
        Place { table, number, place }
    }

    #[cold]
    pub(super) fn fallback(&'static self) -> u64 {
        let Place { table, place, .. } = self.place();
        // Acquire: partner: `Place::fill`.
        table.fallback[place].load(Acquire)
    }

    #[cold]
    pub(super) fn pool(&'static self) -> &'static Pool {
        self.place().pool().expect("a thunk that has an address has a pool")
    }
}

/// A thunk in its table.
#[derive(Clone, Copy)]
pub(super) struct Place {
    table: &'static Table,
    number: u32,
    place: usize,
}

impl Place {
    /// None: there was never a thunk of this index.
    pub(super) fn of_index(index: u32) -> Option<Self> {
        let (number, place) = (index / TABLE as u32, index as usize % TABLE);
        let table = DIRECTORY.get(number)?;
        (!place.is_multiple_of(PAGE)).then_some(Self { table, number, place })
    }

    pub(super) fn index(self) -> u32 {
        self.number * TABLE as u32 + self.place as u32
    }

    pub(super) fn stub(self) -> &'static Stub {
        &self.table.stubs[self.place]
    }

    fn generation(self) -> u32 {
        // Relaxed: compared with a number that was given away after it was stored.
        self.table.generation[self.place].load(Relaxed)
    }

    /// Its number.
    pub(super) fn thunk(self) -> Handle {
        Handle::new(self.generation(), Kind::Thunk, self.index())
    }

    /// None: never opened.
    pub(super) fn pool(self) -> Option<&'static Pool> {
        // Acquire: partner: `begin`.
        Pool::of_number((self.table.pool[self.place].load(Acquire) & !PERMANENT).into())
    }

    pub(super) fn is_permanent(self) -> bool {
        // Relaxed: set before the thunk was anybody's.
        self.table.pool[self.place].load(Relaxed) & PERMANENT != 0
    }

    pub(super) fn is_closed(self) -> bool {
        self.stub().handle().has_kind(Kind::Thunk)
    }

    pub(super) fn is_open(self, thunk: Handle) -> bool {
        self.generation() == thunk.generation() && !self.is_closed()
    }

    /// One more call since it was opened that its callback did not get. True: it is the first, second,
    /// fourth and so on, and from the 32,768th on every one of so many.
    pub(super) fn count_stale(self) -> bool {
        const HALF: u16 = 1 << 15;
        let next = |count: u16| Some(count.checked_add(1).unwrap_or(HALF));
        // Relaxed, both: a statistic.
        let count = self.table.stale[self.place].fetch_update(Relaxed, Relaxed, next);
        next(count.unwrap_or(0)).is_some_and(u16::is_power_of_two)
    }

    // The rest is for who has the pool's lock. Relaxed: what is read without it says so above.

    /// A new thunk, of this pool.
    pub(super) fn begin(self, pool: u16, generation: u32) {
        self.table.generation[self.place].store(generation, Relaxed);
        // Release: partner: `pool`.
        self.table.pool[self.place].store(pool, Release);
    }

    pub(super) fn set_permanent(self) {
        let pool = &self.table.pool[self.place];
        // Release: as in `begin`, for who reads the number.
        pool.store(pool.load(Relaxed) | PERMANENT, Release);
    }

    pub(super) fn forget_stale(self) {
        self.table.stale[self.place].store(0, Relaxed);
    }

    /// Sets what it carries; the name and the callback that it had.
    pub(super) fn fill(
        self,
        callback: Handle,
        fallback: u64,
        name: Option<Text>,
    ) -> (Option<Text>, Handle) {
        let old = (self.name(), self.stub().handle());
        self.table.name[self.place].store(Text::into_raw(name), Relaxed);
        // Release: partner: `fallback`.
        self.table.fallback[self.place].store(fallback, Release);
        self.stub().set_handle(callback);
        old
    }

    pub(super) fn fallback(self) -> u64 {
        self.table.fallback[self.place].load(Relaxed)
    }

    pub(super) fn name(self) -> Option<Text> {
        Text::from_raw(self.table.name[self.place].load(Relaxed))
    }

    /// Closes it: its number is stale from now on. False: its generations are used up.
    pub(super) fn end(self) -> bool {
        let next = self.generation().wrapping_add(1);
        self.table.generation[self.place].store(next, Relaxed);
        self.stub().set_handle(closed(0));
        next != 0
    }

    /// Of a closed one: which was closed next.
    pub(super) fn next_closed(self) -> u32 {
        self.stub().handle().generation()
    }

    pub(super) fn set_next_closed(self, next: u32) {
        self.stub().set_handle(closed(next));
    }
}

/// Things by number, never moved.
pub(super) struct Directory<T>([AtomicPtr<Leaf<T>>; LEAF]);
type Leaf<T> = [AtomicPtr<T>; LEAF];
const LEAF: usize = 512;
const _: () = assert!(TABLES == LEAF * LEAF);

impl<T> Directory<T> {
    pub(super) const fn new() -> Self {
        Self([const { AtomicPtr::new(ptr::null_mut()) }; LEAF])
    }

    pub(super) fn get(&self, number: u32) -> Option<&'static T> {
        let (leaf, place) = (number as usize / LEAF, number as usize % LEAF);
        // Acquire, both: partner: `set`.
        // SAFETY: null, or a leaf that `set` has made, which is never freed.
        let leaf = unsafe { self.0.get(leaf)?.load(Acquire).as_ref() }?;
        // SAFETY: null, or a `&'static T` from `set`.
        unsafe { leaf[place].load(Acquire).as_ref() }
    }

    /// One caller at a time.
    pub(super) fn set(&self, number: u32, it: NonNull<T>) -> Result<(), Error> {
        let leaf = &self.0[number as usize / LEAF];
        if leaf.load(Acquire).is_null() {
            // SAFETY: zeroed memory is a leaf of nulls.
            let memory = unsafe { pages::alloc_zeroed::<Leaf<T>>(1) }.ok_or(Error::NoMemory)?;
            // Release, both: partner: `get`.
            leaf.store(memory.as_ptr(), Release);
        }
        // SAFETY: not null any more, and as in `get`.
        let leaf = unsafe { &*leaf.load(Acquire) };
        leaf[number as usize % LEAF].store(it.as_ptr(), Release);
        Ok(())
    }
}

static DIRECTORY: Directory<Table> = Directory::new();

/// Thunks that were never opened.
pub(super) struct Supply {
    lock: Lock,
    /// The lowest index that was never handed out.
    next: AtomicU32,
}

pub(super) static SUPPLY: Supply = Supply { lock: Lock::new(), next: AtomicU32::new(0) };

impl Supply {
    /// The lowest index that was never handed out.
    pub(super) fn end(&self) -> u32 {
        // Relaxed: a statistic.
        self.next.load(Relaxed)
    }

    /// One of them, for the caller alone.
    pub(super) fn take(&self, _: &Section<'_>) -> Result<Place, Error> {
        let _lock = self.lock.lock();
        // Relaxed: changed under the lock only.
        let mut index = self.next.load(Relaxed);
        let number = index / TABLE as u32;
        if number >= TABLES as u32 {
            return Err(Error::Limit("2^28 thunks of which none can be used again"));
        }
        if DIRECTORY.get(number).is_none() {
            Self::begin(number)?;
        }
        if (index as usize).is_multiple_of(PAGE) {
            index += 1;
        }
        self.next.store(index + 1, Relaxed);
        Place::of_index(index).ok_or(Error::NoMemory)
    }

    fn begin(number: u32) -> Result<(), Error> {
        let memory = match number {
            0 => code::first_table().map_or_else(code::more, Ok)?,
            _ => code::more()?,
        };
        // SAFETY: zeroed memory for a table, which is there for good.
        let table = unsafe { memory.as_ref() };
        for first in table.stubs.iter().step_by(PAGE) {
            // Relaxed: published with the table.
            first.entry.store(memory.as_ptr().cast(), Relaxed);
            first.handle.store(number.into(), Relaxed);
        }
        // (Without memory for the directory the table stays unused, and the next try makes another one.)
        DIRECTORY.set(number, memory)
    }
}
