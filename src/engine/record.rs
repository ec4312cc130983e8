//! A thread's record: what it is inside of, as other threads see it.
//!
//! A stack of frames, each with a cell that names the handle the thread is inside. Only the owner
//! writes; whoever ends a callback's life reads. Frames may be left in any order (pins): one that is
//! left in the middle stays on the stack, hollow, until what lies above has gone.

use super::failure::{Failed, LastError};
use super::handle::Handle;
use super::slab::{Cache, Entry, Slab};
use super::slot::{Mark, SPECIAL, Slot, TYPED};
use crate::error::{Error, Fault};
use crate::platform::{self, pages};
use crate::sync::{AtomicPtr, AtomicU32, AtomicU64, Relaxed, Release, SeqCst, TotalOrder};
use std::cell::Cell;
use std::ptr::NonNull;

/// Calls and pins that a thread can be inside at once.
#[cfg(not(loom))]
pub(crate) const MAX_DEPTH: usize = 4096;
#[cfg(loom)]
pub(crate) const MAX_DEPTH: usize = 4;
/// Frames beyond, for destroy functions that run at the limit.
#[cfg(not(loom))]
const SPARE_FRAMES: usize = 64;
#[cfg(loom)]
const SPARE_FRAMES: usize = 1;
/// Frames that a scan looks at before the thread has ever been deeper: one cache line.
#[cfg(not(loom))]
const FIRST_HIGH_WATER: usize = 4;
#[cfg(loom)]
const FIRST_HIGH_WATER: usize = 1;

/// What kind of stay a frame stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub(crate) struct Tag(u32);

impl Tag {
    pub(crate) const CALL: Self = Self(0);
    /// A destroy function: seen by deadlock detection, not part of the depth.
    pub(crate) const DESTROY: Self = Self(u32::MAX);

    /// A pin, by its number, which is never one of the other two.
    pub(crate) fn pin(number: u32) -> Self {
        Self(number % (u32::MAX - 1) + 1)
    }

    pub(crate) fn number(self) -> u32 {
        self.0
    }

    pub(crate) fn from_number(number: u32) -> Self {
        Self(number)
    }

    pub(crate) fn is_pin(self) -> bool {
        self != Self::CALL && self != Self::DESTROY
    }
}

/// One stay inside something. Zeroed memory is an empty frame.
#[repr(C, align(16))]
pub(crate) struct Frame {
    /// The handle, or 0.
    pub(crate) cell: AtomicU64,
    /// Owner only.
    pub(crate) tag: Cell<Tag>,
    /// Owner only: what the callback has said of itself.
    pub(crate) failed: Cell<Failed>,
}

impl Frame {
    pub(crate) fn handle(&self) -> Handle {
        // Relaxed: for the owner, who wrote it.
        Handle(self.cell.load(Relaxed))
    }

    /// The frame above. At most one past the end, which is only compared.
    #[inline(always)]
    pub(crate) fn above(&self) -> *const Self {
        std::ptr::from_ref(self).wrapping_add(1)
    }

    #[cfg(loom)]
    fn new() -> Self {
        Self { cell: AtomicU64::new(0), tag: Cell::new(Tag::CALL), failed: Cell::new(Failed::NO) }
    }
}

/// Bit 0 of `Record::top`: the next leave must take the cold path.
const ATTENTION: usize = 1;

/// Calls of one callback in a row after which a thread is biased towards it. What a biased thread
/// saves in so many calls, 5 ns each, pays for the membarrier that another thread's unregister of this
/// callback then needs.
#[cfg(not(loom))]
pub(crate) const RUN: u32 = 2048;
#[cfg(loom)]
pub(crate) const RUN: u32 = 1;

/// No handle: its kind does not exist.
const NO_BIAS: u64 = u64::MAX;

/// Zeroed memory plus [`Record::begin`] is a valid record.
#[repr(C, align(128))]
pub(crate) struct Record {
    /// Owner only: the lowest unused frame. Tagged with [`ATTENTION`] when leaving needs more than
    /// the hot path does: a callback has failed, or leaves are exchanges.
    top: Cell<*const Frame>,
    /// Owner only: the hot path enters below this frame; null when it must not at all.
    limit: Cell<*const Frame>,
    /// The callback whose calls this thread publishes by a plain store, see [`super::inflight`].
    bias: AtomicU64,
    /// Owner only: the same if it has the default signature.
    callable_bias: Cell<u64>,
    /// Owner only: the slot of that callback.
    biased_slot: Cell<*const Slot>,
    /// Owner only: the callback that was entered last, and how often in a row.
    run_of: Cell<Handle>,
    run: Cell<u32>,
    /// What a mark says of this thread; never 0 nor MANY. Constant.
    id: Cell<u32>,
    /// How many frames a scan looks at. Raised before the frame is used, never lowered: bounding
    /// the scan by a depth that is written after the cell would be a use after free.
    high_water: AtomicU32,
    /// Owner only: leaves are exchanges, the heavy barrier is not to be had.
    pub(crate) leaves_by_exchange: Cell<bool>,
    /// Owner only: how many frames have `failed` set.
    pub(crate) failures: Cell<u32>,
    /// Owner only: number of the last pin.
    pins: Cell<u32>,
    /// Kernel's number of the owner.
    pub(crate) thread: AtomicU32,

    /// What the owner waits for: a handle, or 0. With `epoch` read before and after, a reader knows
    /// that the owner was waiting, and so its frames unchanged, in between.
    pub(crate) waits_for: AtomicU64,
    pub(crate) epoch: AtomicU64,
    /// Under the deadlock search's lock: the last search that came by, and its list of what to visit.
    pub(crate) visited: AtomicU64,
    pub(crate) visit_next: AtomicU32,

    /// Owner only: free slots, free cold entries.
    pub(crate) free_slots: Cache,
    pub(crate) free_cold: Cache,
    /// Owner only: what the [`Fault`] on its way up means.
    fault: Cell<Option<Error>>,
    /// Owner only: the last failure.
    pub(crate) last_error: LastError,

    frames: [Frame; MAX_DEPTH + SPARE_FRAMES],
}

// SAFETY: the fields that are not atomics are touched by the owning thread alone (`Records::acquire`
// hands a record to one thread at a time and orders one owner after the other), or, in the child of
// a fork, by the only thread there is.
unsafe impl Sync for Record {}

impl Record {
    fn begin(&self, id: u32) {
        self.id.set(id);
        self.top.set(&raw const self.frames[0]);
        // Relaxed: published with the record.
        self.high_water.store(FIRST_HIGH_WATER as u32, Relaxed);
        self.bias.store(NO_BIAS, Relaxed);
        self.callable_bias.set(NO_BIAS);
        self.set_attention(false);
    }

    /// The slot of `handle`, if this thread is biased towards it, and, unless `ANY_TYPE`, it has the
    /// default signature.
    #[inline(always)]
    pub(crate) fn biased<const ANY_TYPE: bool>(&self, handle: Handle) -> Option<&Slot> {
        // Relaxed: the owner reads what it wrote.
        let bias = if ANY_TYPE { self.bias.load(Relaxed) } else { self.callable_bias.get() };
        if bias != handle.0 {
            return None;
        }
        // SAFETY: set together with `bias`, to a slot of the engine, which lives as long as we do.
        Some(unsafe { &*self.biased_slot.get() })
    }

    /// The thread has entered `handle` by exchange once more. Counts, and drops the bias towards
    /// another callback. `mark` names this thread.
    #[inline(always)]
    pub(crate) fn count_run(&self, handle: Handle, slot: &Slot, mark: Mark) {
        if self.run_of.get() != handle {
            self.run_of.set(handle);
            self.run.set(0);
            self.drop_bias();
            return;
        }
        self.run.set(self.run.get() + 1);
        if self.run.get() >= RUN && !self.leaves_by_exchange.get() {
            self.begin_bias(handle, slot, mark);
        }
    }

    #[cold]
    fn begin_bias(&self, handle: Handle, slot: &Slot, mark: Mark) {
        self.run.set(0);
        if mark.has(SPECIAL) {
            return;
        }
        self.callable_bias.set(if mark.has(TYPED) { NO_BIAS } else { handle.0 });
        self.biased_slot.set(slot);
        // ORDER[inflight] before the first plain publish; partner: the scan's load of the bias.
        self.bias.swap_sc(handle.0);
    }

    #[inline(always)]
    fn drop_bias(&self) {
        // ORDER[inflight] release: a scan that sees no bias sees every cell that was published under
        // it; partner: `is_biased_to`.
        if self.bias.load(Relaxed) != NO_BIAS {
            self.callable_bias.set(NO_BIAS);
            self.bias.store(NO_BIAS, Release);
        }
    }

    /// The thread ends, or counts from the start.
    pub(crate) fn forget_run(&self) {
        self.run_of.set(Handle(0));
        self.drop_bias();
    }

    /// May the owner, another thread, be inside `handle` although no cell shows it yet? To be asked
    /// before [`Record::holds`].
    pub(crate) fn is_biased_to(&self, handle: Handle) -> bool {
        // ORDER[inflight] partners: `begin_bias`, `drop_bias`.
        self.bias.load_sc() == handle.0
    }

    #[inline(always)]
    pub(crate) fn id(&self) -> u32 {
        self.id.get()
    }

    /// The frame that the hot path may use next.
    #[inline(always)]
    pub(crate) fn next_frame(&self) -> Option<&Frame> {
        let top = self.top.get();
        if top < self.limit.get() {
            // SAFETY: `top` lies below `limit`, which is in `frames`, and has no tag, because
            // ATTENTION comes with a null limit.
            Some(unsafe { &*top })
        } else {
            None
        }
    }

    /// Puts `frame`, which is the top one, on the stack.
    #[inline(always)]
    pub(crate) fn push(&self, frame: &Frame) {
        self.top.set(frame.above());
    }

    /// Is `frame` the uppermost, and nothing to be said on leaving it?
    #[inline(always)]
    pub(crate) fn is_plain_top(&self, frame: &Frame) -> bool {
        self.top.get() == frame.above()
    }

    /// Takes the uppermost frame off the stack; `is_plain_top` was true.
    #[inline(always)]
    pub(crate) fn pop(&self, frame: &Frame) {
        self.top.set(frame);
    }

    // What follows is for cold paths.

    /// Should the hot paths give way to the cold ones?
    pub(crate) fn set_attention(&self, on: bool) {
        let top = self.top.get().map_addr(|address| address & !ATTENTION);
        if on || self.leaves_by_exchange.get() {
            self.top.set(top.map_addr(|address| address | ATTENTION));
            self.limit.set(std::ptr::null());
        } else {
            self.top.set(top);
            // Relaxed: the owner reads what it wrote.
            let high_water = self.high_water.load(Relaxed) as usize;
            self.limit.set(&raw const self.frames[high_water.min(MAX_DEPTH)]);
        }
    }

    fn top_index(&self) -> usize {
        let top = self.top.get().addr() & !ATTENTION;
        (top - (&raw const self.frames).addr()) / size_of::<Frame>()
    }

    fn set_top_index(&self, index: usize) {
        let tag = self.top.get().addr() & ATTENTION;
        let base = (&raw const self.frames).cast::<Frame>();
        self.top.set(base.wrapping_add(index).map_addr(|address| address | tag));
    }

    /// Says what went wrong, for the caller of a hot function.
    #[cold]
    pub(crate) fn fault(&self, error: Error) -> Fault {
        self.fault.set(Some(error));
        Fault
    }

    /// What went wrong.
    pub(crate) fn explain(&self, _: Fault) -> Error {
        self.fault.take().expect("every Fault is made by `fault`")
    }

    /// The frames in use, uppermost first, hollow ones among them.
    pub(crate) fn stack(&self) -> impl Iterator<Item = &Frame> {
        self.frames[..self.top_index()].iter().rev()
    }

    /// The frame of this number, if in use.
    pub(crate) fn frame(&self, index: usize) -> Option<&Frame> {
        self.frames[..self.top_index()].get(index)
    }

    pub(crate) fn index_of(&self, frame: &Frame) -> usize {
        (std::ptr::from_ref(frame).addr() - (&raw const self.frames).addr()) / size_of::<Frame>()
    }

    /// Puts a frame on the stack, whatever the state of the record; its cell is still 0.
    pub(crate) fn push_cold(&self, tag: Tag) -> Result<&Frame, Error> {
        self.drop_hollow();
        let index = self.top_index();
        let end = if tag == Tag::DESTROY { self.frames.len() } else { MAX_DEPTH };
        if index >= end {
            return Err(Error::Limit("4096 nested calls and pins on one thread"));
        }
        // Relaxed: the owner reads what it wrote.
        let high_water = self.high_water.load(Relaxed) as usize;
        if index >= high_water {
            let raised = (high_water * 2).clamp(index + 1, self.frames.len());
            // ORDER[inflight] before the cell's exchange; partner: the scan's load.
            self.high_water.swap_sc(raised as u32);
            self.set_attention(self.failures.get() > 0);
        }
        self.set_top_index(index + 1);
        let frame = &self.frames[index];
        frame.tag.set(tag);
        Ok(frame)
    }

    /// Takes left frames off the top of the stack.
    pub(crate) fn drop_hollow(&self) {
        let mut top = self.top_index();
        // Relaxed: the owner reads what it wrote.
        while top > 0 && self.frames[top - 1].cell.load(Relaxed) == 0 {
            top -= 1;
        }
        self.set_top_index(top);
    }

    /// A tag for a new pin.
    pub(crate) fn next_pin(&self) -> Tag {
        let number = self.pins.get().wrapping_add(1);
        self.pins.set(number);
        Tag::pin(number)
    }

    /// Is the calling thread, this record's owner, inside `handle`?
    pub(crate) fn is_inside(&self, handle: Handle) -> bool {
        self.stack().any(|frame| frame.handle() == handle)
    }

    /// Is the owner, another thread, inside `handle`? The scan of revoke, leave and deadlock search.
    pub(crate) fn holds(&self, handle: Handle) -> bool {
        // ORDER[inflight] scan; partner: enter's exchange of the cell.
        let high_water = self.high_water.load_sc() as usize;
        self.frames[..high_water].iter().any(|frame| frame.cell.load_sc() == handle.0)
    }

    /// In the child of a fork: the owner is gone. Returns through `left` what it was inside of.
    pub(crate) fn abandon(&self, mut left: impl FnMut(Handle, Tag)) {
        for frame in &self.frames[..self.top_index()] {
            let handle = frame.handle();
            frame.cell.store(0, Relaxed);
            if handle.0 != 0 {
                left(handle, frame.tag.get());
            }
            frame.tag.set(Tag::CALL);
            frame.failed.set(Failed::NO);
        }
        self.failures.set(0);
        self.set_top_index(0);
        self.forget_run();
        self.waits_for.store(0, Relaxed);
        self.free_slots.forget();
        self.free_cold.forget();
    }
}

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

#[cfg(not(loom))]
const FIRST: u32 = 6;
#[cfg(loom)]
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
        record.leaves_by_exchange.set(leaves_by_exchange);
        record.set_attention(false);
        record.thread.store(platform::thread_id(), Relaxed);
        record.fault.set(None);
        record.last_error.forget();
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
            let fresh = Record {
                top: Cell::new(std::ptr::null()),
                limit: Cell::new(std::ptr::null()),
                bias: AtomicU64::new(0),
                callable_bias: Cell::new(0),
                biased_slot: Cell::new(std::ptr::null()),
                run_of: Cell::new(Handle(0)),
                run: Cell::new(0),
                id: Cell::new(0),
                high_water: AtomicU32::new(0),
                leaves_by_exchange: Cell::new(false),
                failures: Cell::new(0),
                pins: Cell::new(0),
                thread: AtomicU32::new(0),
                waits_for: AtomicU64::new(0),
                epoch: AtomicU64::new(0),
                visited: AtomicU64::new(0),
                visit_next: AtomicU32::new(0),
                free_slots: Cache::new(),
                free_cold: Cache::new(),
                fault: Cell::new(None),
                last_error: LastError::new(),
                frames: std::array::from_fn(|_| Frame::new()),
            };
            // SAFETY: fresh memory of the right size.
            unsafe { memory?.as_ptr().write(fresh) };
        }
        memory
    }

    /// Gives back a record whose owner is inside nothing.
    pub(crate) fn release(&self, record: &Record) {
        debug_assert!(record.stack().all(|frame| frame.handle().0 == 0));
        record.set_top_index(0);
        record.forget_run();
        // Relaxed: a reader that still sees a number says who it was.
        record.thread.store(0, Relaxed);
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
            if let Some(record) = self.by_id(id) {
                let memory = NonNull::from(record);
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

/// A place inside: the frame of a thread and the slot that it protects.
#[derive(Clone, Copy)]
pub(crate) struct Stay<'a> {
    pub(crate) record: &'a Record,
    pub(crate) frame: &'a Frame,
    pub(crate) slot: &'a Slot,
}
