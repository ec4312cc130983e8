//! Type-stable memory for small objects that are found by number.
//!
//! A directory of chunks of doubling size, never moved and never freed: an index resolves with a
//! leading-zero count and two loads, without a lock, and reading an entry is memory-safe whatever
//! the number's origin. Chunk `k` holds the indices `2^k .. 2^(k+1)`, so index and place need no
//! conversion; indices below `2^FIRST` do not exist, which also keeps 0 free to mean none.
//!
//! Free entries travel in batches: a thread keeps some of its own ([`Cache`]) and exchanges whole
//! batches with a shared lock-free stack (Treiber's, with a counter against ABA), so that
//! churn on two threads does not meet.

use super::handle::INDEX_BITS;
use crate::error::Error;
use crate::platform::pages;
use crate::sync::{AcqRel, Acquire, AtomicPtr, AtomicU64, Relaxed};
use std::cell::Cell;
use std::ptr::NonNull;

/// What a slab holds.
pub(crate) trait Entry {
    /// The same as all bytes zero.
    #[cfg(loom)]
    fn new() -> Self;

    /// `next batch:32 | next entry:32` while the entry is free; the object's own use otherwise.
    fn link(&self) -> &AtomicU64;

    /// Called once, before the entry is handed out for the first time.
    fn first_use(&self, generation: u32);
}

#[cfg(not(any(loom, miri)))]
const BATCH: usize = 64;
#[cfg(any(loom, miri))]
const BATCH: usize = 1;

const CHUNKS: usize = 32;

pub(crate) struct Slab<T: Entry, const FIRST: u32> {
    /// Each points `2^k` entries below its chunk, so that the index is added as it is.
    chunks: [AtomicPtr<T>; CHUNKS],
    /// The lowest index that was never handed out.
    next: AtomicU64,
    /// `counter:32 | first entry of the first batch:32`.
    free: AtomicU64,
}

impl<T: Entry, const FIRST: u32> Slab<T, FIRST> {
    #[cfg(not(loom))]
    pub(crate) const fn new() -> Self {
        Self {
            chunks: [const { AtomicPtr::new(std::ptr::null_mut()) }; CHUNKS],
            next: AtomicU64::new(1 << FIRST),
            free: AtomicU64::new(0),
        }
    }
    #[cfg(loom)]
    pub(crate) fn new() -> Self {
        Self {
            chunks: std::array::from_fn(|_| AtomicPtr::new(std::ptr::null_mut())),
            next: AtomicU64::new(1 << FIRST),
            free: AtomicU64::new(0),
        }
    }

    /// The entry with this index, if there is memory behind it.
    #[inline(always)]
    pub(crate) fn get(&self, index: u32) -> Option<&T> {
        let chunk = (index | 1).ilog2();
        // Acquire: partner: the exchange in `chunk_for`, which publishes the chunk's contents.
        let base = self.chunks[chunk as usize].load(Acquire);
        if base.is_null() {
            return None;
        }
        // SAFETY: chunk `k` lies at `base + 2^k` and has `2^k` entries, and `2^k <= index < 2^(k+1)`
        // for every index but 0, whose chunk 0 does not exist (FIRST > 0). Chunks are never freed
        // while `self` lives, and all bytes of an entry are atomics, valid from the zeroed start.
        Some(unsafe { &*base.wrapping_add(index as usize) })
    }

    /// The first index never handed out: what a scan of everything goes up to.
    pub(crate) fn end(&self) -> u32 {
        // SeqCst: a record that a scan does not reach yet was published after it, see records.rs.
        self.next.load(crate::sync::SeqCst) as u32
    }

    pub(crate) const fn begin() -> u32 {
        1 << FIRST
    }

    /// Every entry that was ever handed out.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        (Self::begin()..self.end()).map(|index| (index, self.at(index)))
    }

    /// Hands out `count` (a power of two up to 64) neighbouring entries that were never used.
    pub(crate) fn carve(&self, count: u32, generation: u32) -> Result<u32, Error> {
        loop {
            // Relaxed: the compare-exchange confirms it.
            let first = self.next.load(Relaxed);
            if first + u64::from(count) > 1 << INDEX_BITS {
                return Err(Error::Limit("2^28 objects exist at once"));
            }
            // The memory first, so that no index is lost when there is none.
            self.chunk_for(first as u32)?;
            let claimed = self.next.compare_exchange(
                first,
                first + u64::from(count),
                crate::sync::SeqCst,
                Relaxed,
            );
            if claimed.is_ok() {
                let first = first as u32;
                for index in first..first + count {
                    self.at(index).first_use(generation);
                }
                return Ok(first);
            }
        }
    }

    /// The entry with this index, of a slab that is used beside another one and hands out none.
    pub(crate) fn reserve(&self, index: u32) -> Result<&T, Error> {
        self.chunk_for(index)?;
        Ok(self.at(index))
    }

    fn chunk_for(&self, index: u32) -> Result<(), Error> {
        let chunk = index.ilog2();
        let place = &self.chunks[chunk as usize];
        if !place.load(Acquire).is_null() {
            return Ok(());
        }
        let memory = Self::alloc(1 << chunk).ok_or(Error::NoMemory)?;
        let base = memory.as_ptr().wrapping_sub(1 << chunk);
        // AcqRel: partner: the load in `get`.
        if place.compare_exchange(std::ptr::null_mut(), base, AcqRel, Acquire).is_err() {
            // SAFETY: another thread's chunk won; nobody has seen ours.
            unsafe { pages::free(memory, 1 << chunk) };
        }
        Ok(())
    }

    fn alloc(count: usize) -> Option<NonNull<T>> {
        // SAFETY: entries are atomics, valid when zero (loom's are constructed below).
        let memory = unsafe { pages::alloc_zeroed::<T>(count) };
        #[cfg(loom)]
        for index in 0..count {
            // SAFETY: inside the allocation, which nobody else has.
            unsafe { memory?.as_ptr().add(index).write(T::new()) };
        }
        memory
    }

    /// An entry that this slab has handed out.
    #[inline(always)]
    pub(crate) fn at(&self, index: u32) -> &T {
        self.get(index).expect("an index that was handed out has memory behind it")
    }

    /// Puts a batch, chained from `first` through the lower halves of the links, on the shared stack.
    pub(crate) fn give(&self, first: u32) {
        let link = self.at(first).link();
        // Relaxed: the batch is ours alone until the exchange below.
        let next_entry = link.load(Relaxed) & u64::from(u32::MAX);
        let mut head = self.free.load(Relaxed);
        loop {
            link.store(head << 32 | next_entry, Relaxed);
            let new = (head >> 32).wrapping_add(1) << 32 | u64::from(first);
            // AcqRel: release, partner `take`: the links and the last owner's writes.
            match self.free.compare_exchange_weak(head, new, AcqRel, Relaxed) {
                Ok(_) => return,
                Err(current) => head = current,
            }
        }
    }

    /// Takes a batch: its first entry; the rest is chained behind it.
    pub(crate) fn take(&self) -> Option<u32> {
        let mut head = self.free.load(Acquire);
        loop {
            let first = head as u32;
            if first == 0 {
                return None;
            }
            // Relaxed: may be another use's value if the batch was taken meanwhile: then the counter
            // has moved and the exchange fails.
            let next_batch = self.at(first).link().load(Relaxed) >> 32;
            let new = (head >> 32).wrapping_add(1) << 32 | next_batch;
            // AcqRel: acquire, partner `give`.
            match self.free.compare_exchange_weak(head, new, AcqRel, Acquire) {
                Ok(_) => return Some(first),
                Err(current) => head = current,
            }
        }
    }
}

impl<T: Entry, const FIRST: u32> Drop for Slab<T, FIRST> {
    /// Only tests drop a slab.
    fn drop(&mut self) {
        for (chunk, place) in self.chunks.iter().enumerate() {
            let base = place.load(Relaxed);
            if base.is_null() {
                continue;
            }
            let memory =
                NonNull::new(base.wrapping_add(1 << chunk)).expect("a chunk's own address");
            #[cfg(loom)]
            for index in 0..1 << chunk {
                // SAFETY: constructed in `alloc`, dropped once, here.
                unsafe { memory.as_ptr().add(index).drop_in_place() };
            }
            // SAFETY: this chunk came from `alloc` with this count, and `self` is going.
            unsafe { pages::free(memory, 1 << chunk) };
        }
    }
}

/// One thread's free entries of a slab. Zeroed memory is an empty cache.
pub(crate) struct Cache {
    len: Cell<u32>,
    free: [Cell<u32>; 2 * BATCH],
}

impl Cache {
    #[cfg(loom)]
    pub(crate) fn new() -> Self {
        Self { len: Cell::new(0), free: std::array::from_fn(|_| Cell::new(0)) }
    }

    /// A free entry's index.
    #[inline(always)]
    pub(crate) fn pop<T: Entry, const FIRST: u32>(
        &self,
        slab: &Slab<T, FIRST>,
        generation: u32,
    ) -> Result<u32, Error> {
        if self.len.get() == 0 {
            self.refill(slab, generation)?;
        }
        let len = self.len.get() - 1;
        self.len.set(len);
        Ok(self.free[len as usize].get())
    }

    /// Gives an entry back.
    #[inline(always)]
    pub(crate) fn push<T: Entry, const FIRST: u32>(&self, slab: &Slab<T, FIRST>, index: u32) {
        if self.len.get() as usize == self.free.len() {
            self.spill(slab, BATCH);
        }
        let len = self.len.get();
        self.free[len as usize].set(index);
        self.len.set(len + 1);
    }

    #[cold]
    fn refill<T: Entry, const FIRST: u32>(
        &self,
        slab: &Slab<T, FIRST>,
        generation: u32,
    ) -> Result<(), Error> {
        let mut len = 0;
        if let Some(mut index) = slab.take() {
            while index != 0 {
                self.free[len].set(index);
                len += 1;
                // Relaxed: the batch is ours since `take`.
                index = slab.at(index).link().load(Relaxed) as u32;
            }
        } else {
            let first = slab.carve(BATCH as u32, generation)?;
            // The lowest index on top, to be used first.
            for index in (first..first + BATCH as u32).rev() {
                self.free[len].set(index);
                len += 1;
            }
        }
        self.len.set(len as u32);
        Ok(())
    }

    /// Moves `count` entries, or all there are, to the shared stack.
    #[cold]
    fn spill<T: Entry, const FIRST: u32>(&self, slab: &Slab<T, FIRST>, count: usize) {
        let len = self.len.get() as usize;
        let keep = len.saturating_sub(count);
        let mut next = 0;
        for cell in &self.free[keep..len] {
            // Relaxed: ours alone until `give`.
            slab.at(cell.get()).link().store(u64::from(next), Relaxed);
            next = cell.get();
        }
        if next != 0 {
            slab.give(next);
        }
        self.len.set(keep as u32);
    }

    /// Gives everything to the shared stack: the thread ends.
    pub(crate) fn drain<T: Entry, const FIRST: u32>(&self, slab: &Slab<T, FIRST>) {
        while self.len.get() > 0 {
            self.spill(slab, BATCH);
        }
    }

    /// Forgets what it holds, for the child of a fork, where its owner may have been cut off in the
    /// middle of a change. A few entries are lost to the child.
    pub(crate) fn forget(&self) {
        self.len.set(0);
    }
}
