//! All records of the process: found by number or one after the other, taken and given back.

use super::record::Record;
use super::slab::{Entry, Slab};
use crate::error::Error;
use crate::platform::pages;
use crate::sync::{AtomicPtr, AtomicU64, Relaxed, SeqCst};
use std::ptr::NonNull;

/// Where a record is, by its number.
pub(crate) struct Entrance {
    record: AtomicPtr<Record>,
    link: AtomicU64,
}

impl Entry for Entrance {
    #[cfg(loom)]
    fn new() -> Self {
        Self { record: AtomicPtr::new(std::ptr::null_mut()), link: AtomicU64::new(0) }
    }

    fn link(&self) -> &AtomicU64 {
        &self.link
    }

    fn first_use(&self, _generation: u32) {}
}

#[cfg(not(any(loom, miri)))]
const FIRST: u32 = 6;
#[cfg(any(loom, miri))]
const FIRST: u32 = 2;

/// All records there ever were, in use or free. A record is never freed.
pub(crate) struct Records {
    entrances: Slab<Entrance, FIRST>,
}

impl Records {
    #[cfg(not(loom))]
    pub(crate) const fn new() -> Self {
        Self { entrances: Slab::new() }
    }
    #[cfg(loom)]
    pub(crate) fn new() -> Self {
        Self { entrances: Slab::new() }
    }

    /// A record for the calling thread, used by another one before or new.
    pub(crate) fn acquire(&self, leaves_by_exchange: bool) -> Result<&Record, Error> {
        // `take` acquires what the last owner released in `release`.
        let record = match self.entrances.take() {
            Some(id) => self.by_id(id).expect("a released record was published"),
            None => self.make()?,
        };
        record.take_over(leaves_by_exchange);
        Ok(record)
    }

    fn make(&self) -> Result<&Record, Error> {
        let memory = Self::alloc().ok_or(Error::NoMemory)?;
        let id = match self.entrances.carve(1, 0) {
            Ok(id) => id,
            Err(error) => {
                // SAFETY: from `alloc`, seen by nobody else.
                unsafe { pages::free(memory, 1) };
                return Err(error);
            }
        };
        // SAFETY: a zeroed record is valid, and this reference is to memory that is never freed.
        let record = unsafe { memory.as_ref() };
        record.begin(id);
        // ORDER[inflight] publish before the owner's first exchange; partner: the load in `by_id`.
        //  - a scan that misses the record was before this, so the owner's first enter, which comes
        //    after, loads the word after the revoke: STALE.
        self.entrances.at(id).record.store(memory.as_ptr(), SeqCst);
        crate::sync::fence(SeqCst);
        Ok(record)
    }

    fn alloc() -> Option<NonNull<Record>> {
        // SAFETY: every field is valid when all bytes are zero (loom's are constructed below).
        let memory = unsafe { pages::alloc_zeroed::<Record>(1) };
        #[cfg(loom)]
        {
            let fresh = Record::new();
            // SAFETY: fresh memory of the right size.
            unsafe { memory?.as_ptr().write(fresh) };
        }
        memory
    }

    /// Gives back a record whose owner is inside nothing.
    pub(crate) fn release(&self, record: &Record) {
        record.give_up();
        let link = self.entrances.at(record.id()).link();
        // Relaxed: a batch of one; `give` publishes it, and with it what this owner wrote.
        link.store(0, Relaxed);
        self.entrances.give(record.id());
    }

    /// The record with this id; none if it does not exist or is not published yet.
    pub(crate) fn by_id(&self, id: u32) -> Option<&Record> {
        let entrance = self.entrances.get(id)?;
        // ORDER[inflight] see `make`.
        let record = entrance.record.load(SeqCst);
        // SAFETY: null or a record that `make` has published; never freed while `self` lives.
        unsafe { record.as_ref() }
    }

    /// Every record that existed when the iteration began, and maybe newer ones.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Record> {
        (Slab::<Entrance, FIRST>::begin()..self.entrances.end()).filter_map(|id| self.by_id(id))
    }
}

impl Drop for Records {
    /// Only tests drop the records.
    fn drop(&mut self) {
        for id in Slab::<Entrance, FIRST>::begin()..self.entrances.end() {
            // Relaxed: the threads that made them have ended.
            let record = self.entrances.at(id).record.load(crate::sync::Relaxed);
            // Not through a reference: that must not free what it refers to.
            if let Some(memory) = NonNull::new(record) {
                #[cfg(loom)]
                // SAFETY: constructed in `alloc`, dropped once, here.
                unsafe {
                    memory.as_ptr().drop_in_place();
                }
                // SAFETY: from `alloc`; nobody uses the records any more.
                unsafe { pages::free(memory, 1) };
            }
        }
    }
}
