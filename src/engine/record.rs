//! A thread's record: what it is inside of, as other threads see it.
//!
//! A stack of frames, each with a cell that names the handle the thread is inside. Only the owner
//! writes; whoever ends a callback's life reads. Frames may be left in any order (pins): one that is
//! left in the middle stays on the stack, hollow, until what lies above has gone.

use super::attach::Attachments;
use super::counts::{Counter, Counts};
use super::frame::{Failed, Frame, Tag};
use super::handle::{Handle, Kind};
use super::last_error::LastError;
use super::memo::Memo;
use super::message::Messages;
use super::meter::Known;
use super::slab::Cache;
use super::slot::{Mark, SPECIAL, Slot, TYPED};
use super::span::Spans;
use super::trace::Trace;
use crate::error::{Error, Fault};
use crate::platform;
use crate::sync::{AtomicU32, AtomicU64, Relaxed, Release, TotalOrder};
use std::cell::Cell;

/// Calls and pins that a thread can be inside at once.
#[cfg(not(any(loom, miri)))]
pub(crate) const MAX_DEPTH: usize = 4096;
#[cfg(any(loom, miri))]
pub(crate) const MAX_DEPTH: usize = 4;
/// Frames beyond, for destroy functions and holds at the limit.
#[cfg(not(any(loom, miri)))]
const SPARE_FRAMES: usize = 64;
#[cfg(any(loom, miri))]
const SPARE_FRAMES: usize = 1;
/// Frames that a scan looks at before the thread has ever been deeper: one cache line.
#[cfg(not(any(loom, miri)))]
const FIRST_HIGH_WATER: usize = 3;
#[cfg(any(loom, miri))]
const FIRST_HIGH_WATER: usize = 1;

/// Bit 0 of `Record::top`: the next leave must take the cold path.
const ATTENTION: usize = 1;

/// Calls of one callback in a row after which a thread is biased towards it. What a biased thread
/// saves in so many calls, 5 ns each, pays for the membarrier that another thread's unregister of this
/// callback then needs.
#[cfg(not(any(loom, miri)))]
pub(crate) const RUN: u32 = 2048;
#[cfg(any(loom, miri))]
pub(crate) const RUN: u32 = 1;

/// No valid handle. A host may pass this very number: then it finds [`nowhere`].
const NO_BIAS: u64 = u64::MAX;

/// What [`Record::usable_bias`] and [`Record::callable_bias`] are when the bias may not be used. No valid handle, and no slot that
/// is live when a host passes it: then the word tells.
const NOT_USABLE: u64 = 0;

/// The slot of no bias: never live.
fn nowhere() -> *const Slot {
    #[cfg(not(loom))]
    {
        static NOWHERE: Slot = Slot::new();
        &raw const NOWHERE
    }
    #[cfg(loom)]
    std::ptr::null()
}

/// Zeroed memory plus [`Record::begin`] is a valid record.
#[repr(C, align(128))]
pub(crate) struct Record {
    /// Owner only: the lowest unused frame. Tagged with [`ATTENTION`] when leaving needs more than
    /// the hot path does: a callback has failed, or leaves are exchanges.
    top: Cell<*const Frame>,
    /// Owner only: the hot path enters below this frame; null when it must not at all.
    limit: Cell<*const Frame>,
    /// [`Shown::bias`] as pins and thunks read it, and, if that callback has the default signature, as
    /// calls do. The owner's, but for [`Record::suspend_bias`].
    usable_bias: AtomicU64,
    callable_bias: AtomicU64,
    /// Owner only: the slot of that callback.
    biased_slot: Cell<*const Slot>,
    /// Calls and pins that have entered; where every call writes anyway.
    pub(crate) calls: Counter,
    /// Owner only: the callback that was entered last, and how often in a row.
    run_of: Cell<Handle>,
    run: Cell<u32>,
    /// Owner only: the same of the queue that was posted to.
    posts_to: Cell<Handle>,
    posts: Cell<u32>,
    biased_queue: Cell<*const Slot>,
    /// What a mark says of this thread; never 0 nor MANY. Constant.
    id: Cell<u32>,
    /// Owner only: leaves are exchanges, the heavy barrier is not to be had.
    pub(crate) leaves_by_exchange: Cell<bool>,
    /// Owner only: how many frames have `failed` set.
    pub(crate) failures: Cell<u32>,
    /// Owner only: how many frames are in use out of the order of their places, see [`Order`].
    disordered: Cell<u32>,
    /// Owner only: see [`Record::next_turn`].
    turns: Cell<u32>,
    /// Owner only: number of the last pin.
    pins: Cell<u32>,
    /// Owner only: guests that it is inside of, see [`super::guest`].
    pub(super) visits: Cell<u32>,
    /// Owner only: 1 + the place of the frame of a special callback that `enter` has entered, and that
    /// waits for [`Record::take_special`]; or 0.
    special: Cell<u32>,
    /// 1 while the owner is in a [`super::gate::Section`].
    pub(crate) in_section: AtomicU32,
    /// Kernel's number of the owner.
    pub(crate) thread: AtomicU32,
    /// How many owners there were, this one included.
    life: AtomicU32,
    /// Owner only: what it is delivering, innermost first; of the layer above (features/queue).
    pub(crate) deliveries: Cell<*mut ()>,
    /// Owner only: a place for the next delivery.
    pub(crate) spare_delivery: Cell<*mut ()>,
    /// Owner only: the queue whose last dispatch here has found others' events without a sleep, and taken
    /// all.
    pub(crate) keeps_up_with: Cell<Handle>,
    /// Owner only: what the innermost dispatch has called has posted.
    pub(crate) posts_itself: Cell<bool>,
    /// Owner only: whose work it does.
    pub(crate) trace: Trace,
    /// Owner only: what a tracer sees of its calls.
    pub(super) spans: Spans,

    /// What the owner waits for: a handle, or 0. With `epoch` read before and after, a reader knows
    /// that the owner was waiting, and so its frames unchanged, in between.
    pub(crate) waits_for: AtomicU64,
    pub(crate) epoch: AtomicU64,
    /// Of a wait for [`Kind::Call`]: the queue that the call was posted to, and the record that runs it,
    /// once one does.
    pub(crate) call_queue: AtomicU64,
    pub(crate) call_runner: AtomicU32,
    /// Under the deadlock search's lock: the last search that came by, its list of what to visit, who
    /// led here, and what was seen.
    pub(crate) visited: AtomicU64,
    pub(crate) visit_next: AtomicU32,
    pub(crate) visited_from: AtomicU32,
    pub(crate) seen_waits_for: AtomicU64,
    pub(crate) seen_epoch: AtomicU64,

    /// Owner only: free slots, free cold entries.
    pub(crate) free_slots: Cache,
    pub(crate) free_cold: Cache,
    /// Owner only: the scopes that have been told of this thread.
    pub(crate) attachments: Attachments,
    /// Owner only: what the [`Fault`] on its way up means.
    fault: Cell<Option<Error>>,
    /// Owner only: the callbacks that were found by key last.
    pub(crate) memo: Memo,
    /// Owner only: what the failed frames have to say.
    pub(super) messages: Messages,
    /// Owner only: the last failure.
    pub(crate) last_error: LastError,

    /// Owner only.
    pub(super) known_blocks: Known,
    /// What else the owner has done, and those before it.
    pub(crate) counts: Counts,
    shown: Shown,
    order: Order,
}

/// The frames in use, outermost first, while a hollow one in the middle was used again for want of
/// room: pins that are taken hand over hand need no more frames than they are at a time. Meanwhile the
/// hot paths give way.
struct Order([Cell<u16>; MAX_DEPTH + SPARE_FRAMES]);

/// What a scan reads, all of it in one cache line as long as the thread has not been deep, and apart
/// from what the owner alone writes at every call.
#[repr(C, align(128))]
struct Shown {
    /// The callback whose calls this thread publishes by a plain store, see [`super::inflight`].
    bias: AtomicU64,
    /// The queue whose posts it publishes so.
    queue_bias: AtomicU64,
    /// How many frames a scan looks at. Raised before the frame is used, never lowered: bounding
    /// the scan by a depth that is written after the cell would be a use after free.
    high_water: AtomicU32,
    frames: [Frame; MAX_DEPTH + SPARE_FRAMES],
}

// SAFETY: the fields that are not atomics are touched by the owning thread alone (`Records::acquire`
// hands a record to one thread at a time and orders one owner after the other), or, in the child of
// a fork, by the only thread there is.
unsafe impl Sync for Record {}

impl Record {
    #[cfg(loom)]
    pub(super) fn new() -> Self {
        Self {
            top: Cell::new(std::ptr::null()),
            limit: Cell::new(std::ptr::null()),
            usable_bias: AtomicU64::new(0),
            callable_bias: AtomicU64::new(0),
            biased_slot: Cell::new(std::ptr::null()),
            calls: Counter::new(),
            run_of: Cell::new(Handle(0)),
            run: Cell::new(0),
            posts_to: Cell::new(Handle(0)),
            posts: Cell::new(0),
            biased_queue: Cell::new(std::ptr::null()),
            id: Cell::new(0),
            leaves_by_exchange: Cell::new(false),
            failures: Cell::new(0),
            disordered: Cell::new(0),
            turns: Cell::new(0),
            pins: Cell::new(0),
            visits: Cell::new(0),
            special: Cell::new(0),
            in_section: AtomicU32::new(0),
            thread: AtomicU32::new(0),
            life: AtomicU32::new(0),
            deliveries: Cell::new(std::ptr::null_mut()),
            spare_delivery: Cell::new(std::ptr::null_mut()),
            keeps_up_with: Cell::new(Handle(0)),
            posts_itself: Cell::new(false),
            trace: Trace::new(),
            spans: Spans::new(),
            waits_for: AtomicU64::new(0),
            epoch: AtomicU64::new(0),
            call_queue: AtomicU64::new(0),
            call_runner: AtomicU32::new(0),
            visited: AtomicU64::new(0),
            visit_next: AtomicU32::new(0),
            visited_from: AtomicU32::new(0),
            seen_waits_for: AtomicU64::new(0),
            seen_epoch: AtomicU64::new(0),
            free_slots: Cache::new(),
            free_cold: Cache::new(),
            attachments: Attachments::new(),
            memo: Memo::new(),
            fault: Cell::new(None),
            messages: Messages::new(),
            last_error: LastError::new(),
            known_blocks: Known::new(),
            counts: Counts::new(),
            order: Order(std::array::from_fn(|_| Cell::new(0))),
            shown: Shown {
                bias: AtomicU64::new(0),
                queue_bias: AtomicU64::new(0),
                high_water: AtomicU32::new(0),
                frames: std::array::from_fn(|_| Frame::new()),
            },
        }
    }

    /// Makes zeroed memory the record with this id.
    pub(super) fn begin(&self, id: u32) {
        self.id.set(id);
        self.top.set(&raw const self.shown.frames[0]);
        // Relaxed: published with the record.
        self.shown.high_water.store(FIRST_HIGH_WATER as u32, Relaxed);
        self.shown.bias.store(NO_BIAS, Relaxed);
        self.shown.queue_bias.store(NO_BIAS, Relaxed);
        self.usable_bias.store(NO_BIAS, Relaxed);
        self.callable_bias.store(NO_BIAS, Relaxed);
        self.biased_slot.set(nowhere());
        self.biased_queue.set(nowhere());
        self.trace.begin();
        self.set_attention(false);
    }

    /// The calling thread is the owner from now on.
    pub(super) fn take_over(&self, leaves_by_exchange: bool) {
        self.leaves_by_exchange.set(leaves_by_exchange);
        self.set_attention(false);
        // Relaxed: for words, and for the child of a fork.
        self.thread.store(platform::thread_id(), Relaxed);
        self.life.store(self.life.load(Relaxed).wrapping_add(1), Relaxed);
        self.fault.set(None);
        self.visits.set(0);
        self.last_error.forget();
    }

    /// The owner, inside nothing, is no owner any more.
    pub(super) fn give_up(&self) {
        debug_assert!(self.stack().all(|frame| frame.handle().0 == 0));
        self.set_top_index(0);
        self.forget_run();
        self.trace.forget();
        self.waits_for.store(0, Relaxed);
        // Relaxed: a reader that still sees a number says who it was.
        self.thread.store(0, Relaxed);
    }

    /// The slot of `handle`, if this thread is biased towards it, and, unless `ANY_TYPE`, it has the
    /// default signature.
    #[inline(always)]
    pub(crate) fn biased<const ANY_TYPE: bool>(&self, handle: Handle) -> Option<&Slot> {
        // Relaxed: the owner reads what it wrote.
        let bias = if ANY_TYPE { &self.usable_bias } else { &self.callable_bias };
        if bias.load(Relaxed) != handle.0 {
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
        let callable = if mark.has(TYPED) { NOT_USABLE } else { handle.0 };
        self.usable_bias.store(handle.0, Relaxed);
        self.callable_bias.store(callable, Relaxed);
        self.biased_slot.set(slot);
        // ORDER[inflight] before the first plain publish; partner: the scan's load of the bias.
        self.shown.bias.swap_sc(handle.0);
        // Made special meanwhile: either this load tells, or `suspend_bias` comes after our store.
        if Mark(slot.mark.load_sc()).has(SPECIAL) {
            self.suspend_bias();
        }
    }

    /// The slot of the queue, if this thread is biased towards it.
    #[inline(always)]
    pub(crate) fn biased_queue(&self, queue: Handle) -> Option<&Slot> {
        // Relaxed: the owner reads what it wrote.
        if self.shown.queue_bias.load(Relaxed) != queue.0 {
            return None;
        }
        // SAFETY: set together with the bias, to a slot of the engine, which lives as long as we do.
        Some(unsafe { &*self.biased_queue.get() })
    }

    /// The thread has entered a queue by exchange to post to it once more; as [`Record::count_run`].
    #[inline(always)]
    pub(crate) fn count_post(&self, queue: Handle, slot: &Slot) {
        if self.posts_to.get() != queue {
            self.posts_to.set(queue);
            self.posts.set(0);
            self.drop_queue_bias();
            return;
        }
        self.posts.set(self.posts.get() + 1);
        if self.posts.get() >= RUN && !self.leaves_by_exchange.get() {
            self.posts.set(0);
            self.biased_queue.set(slot);
            // ORDER[inflight] as in `begin_bias`.
            self.shown.queue_bias.swap_sc(queue.0);
        }
    }

    #[inline(always)]
    fn drop_queue_bias(&self) {
        // ORDER[inflight] as in `drop_bias`.
        if self.shown.queue_bias.load(Relaxed) != NO_BIAS {
            self.biased_queue.set(nowhere());
            self.shown.queue_bias.store(NO_BIAS, Release);
        }
    }

    /// Calls and pins of the callback that the owner, maybe another thread, is biased towards take the way
    /// by the mark from about now on.
    pub(crate) fn suspend_bias(&self) {
        // Relaxed: it is a matter of which way, not of protection.
        self.usable_bias.store(NOT_USABLE, Relaxed);
        self.callable_bias.store(NOT_USABLE, Relaxed);
    }

    #[inline(always)]
    fn drop_bias(&self) {
        // ORDER[inflight] release: a scan that sees no bias sees every cell that was published under
        // it; partner: `is_biased_to`.
        if self.shown.bias.load(Relaxed) != NO_BIAS {
            self.usable_bias.store(NO_BIAS, Relaxed);
            self.callable_bias.store(NO_BIAS, Relaxed);
            self.biased_slot.set(nowhere());
            self.shown.bias.store(NO_BIAS, Release);
        }
    }

    /// The thread ends, or counts from the start.
    pub(crate) fn forget_run(&self) {
        self.run_of.set(Handle(0));
        self.drop_bias();
        self.posts_to.set(Handle(0));
        self.drop_queue_bias();
    }

    /// May the owner, another thread, be inside `handle` although no cell shows it yet? To be asked
    /// before [`Record::holds`].
    pub(crate) fn is_biased_to(&self, handle: Handle) -> bool {
        // ORDER[inflight] partners: `begin_bias`, `drop_bias`.
        let is_queue = handle.has_kind(Kind::Queue);
        let bias = if is_queue { &self.shown.queue_bias } else { &self.shown.bias };
        bias.load_sc() == handle.0
    }

    #[inline(always)]
    pub(crate) fn id(&self) -> u32 {
        self.id.get()
    }

    /// A number of the owning thread that no later owner of this record has.
    #[inline(always)]
    pub(crate) fn token(&self) -> u64 {
        // Relaxed: changes with the owner; others compare what they have read before.
        u64::from(self.life.load(Relaxed)) << 32 | u64::from(self.id())
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
        let is_apart = self.leaves_by_exchange.get() || self.disordered.get() > 0;
        if on || is_apart || !self.spans.is_empty() {
            self.top.set(top.map_addr(|address| address | ATTENTION));
            self.limit.set(std::ptr::null());
        } else {
            self.top.set(top);
            // Relaxed: the owner reads what it wrote.
            let high_water = self.shown.high_water.load(Relaxed) as usize;
            self.limit.set(&raw const self.shown.frames[high_water.min(MAX_DEPTH)]);
        }
    }

    fn top_index(&self) -> usize {
        let top = self.top.get().addr() & !ATTENTION;
        (top - (&raw const self.shown.frames).addr()) / size_of::<Frame>()
    }

    fn set_top_index(&self, index: usize) {
        let tag = self.top.get().addr() & ATTENTION;
        let base = (&raw const self.shown.frames).cast::<Frame>();
        self.top.set(base.wrapping_add(index).map_addr(|address| address | tag));
    }

    /// Says what went wrong with a call, for the caller of a hot function.
    #[cold]
    pub(crate) fn fault(&self, error: Error) -> Fault {
        self.counts.count_failure(error);
        self.misuse(error)
    }

    /// The same of what is no call.
    #[cold]
    pub(crate) fn misuse(&self, error: Error) -> Fault {
        self.fault.set(Some(error));
        Fault
    }

    /// What the fault that is on its way means, if one is.
    pub(super) fn take_fault(&self) -> Option<Error> {
        self.fault.take()
    }

    pub(super) fn set_fault(&self, fault: Option<Error>) {
        self.fault.set(fault);
    }

    /// What went wrong.
    pub(crate) fn explain(&self, _: Fault) -> Error {
        self.fault.take().expect("every Fault is made by `fault`")
    }

    /// `frame` is entered, and its callback special: the caller of `enter` has more to do.
    #[cold]
    pub(super) fn leave_to_special(&self, frame: &Frame) -> Fault {
        self.special.set(self.index_of(frame) as u32 + 1);
        Fault
    }

    /// The frame that `enter` has left to its caller, if that is what its fault means.
    pub(super) fn take_special(&self) -> Option<&Frame> {
        let place = self.special.take().checked_sub(1)?;
        self.frame(place as usize)
    }

    /// Does the fault say that the object is gone? Then it is explained.
    #[cold]
    pub(crate) fn is_stale(&self, _: Fault) -> bool {
        let is_stale = self.fault.get() == Some(Error::Stale);
        if is_stale {
            self.fault.set(None);
            self.counts.uncount_stale();
        }
        is_stale
    }

    /// What it is inside of, innermost; hidden frames are not what a host knows of.
    pub(crate) fn innermost(&self) -> Option<&Frame> {
        self.stack().find(|frame| frame.handle().0 != 0 && frame.tag.get() != Tag::SPAN)
    }

    /// The frames in use, uppermost first, hollow ones among them.
    pub(crate) fn stack(&self) -> impl Iterator<Item = &Frame> {
        let disordered = self.disordered.get() as usize;
        let count = if disordered > 0 { disordered } else { self.top_index() };
        (0..count).rev().map(move |place| {
            let index = if disordered > 0 { self.order.0[place].get().into() } else { place };
            &self.shown.frames[index]
        })
    }

    /// The frame of this number, if in use.
    pub(crate) fn frame(&self, index: usize) -> Option<&Frame> {
        self.shown.frames[..self.top_index()].get(index)
    }

    pub(crate) fn index_of(&self, frame: &Frame) -> usize {
        (std::ptr::from_ref(frame).addr() - (&raw const self.shown.frames).addr())
            / size_of::<Frame>()
    }

    /// Puts a frame on the stack, whatever the state of the record; its cell is still 0.
    pub(crate) fn push_cold(&self, tag: Tag) -> Result<&Frame, Error> {
        self.settle();
        // Relaxed: the owner reads what it wrote.
        let high_water = self.shown.high_water.load(Relaxed) as usize;
        let mut index = self.top_index();
        if index >= high_water.min(MAX_DEPTH) || self.disordered.get() > 0 {
            index = self.lowest_unused();
        }
        let spare = !tag.counts() || tag == Tag::HOLD;
        // Frames that are hidden take no call's place.
        let calls = (MAX_DEPTH + self.spans.hidden_frames()).min(self.shown.frames.len());
        if index >= if spare { self.shown.frames.len() } else { calls } {
            return Err(Error::Limit("4096 nested calls and pins on one thread"));
        }
        if index >= high_water {
            let raised = (high_water * 2).clamp(index + 1, self.shown.frames.len());
            // ORDER[inflight] before the cell's exchange; partner: the scan's load.
            self.shown.high_water.swap_sc(raised as u32);
            self.set_attention(self.failures.get() > 0);
        }
        if index < self.top_index() || self.disordered.get() > 0 {
            self.append_out_of_order(index);
        }
        self.set_top_index(self.top_index().max(index + 1));
        let frame = &self.shown.frames[index];
        frame.tag.set(tag);
        Ok(frame)
    }

    fn lowest_unused(&self) -> usize {
        let top = self.top_index();
        // Relaxed: the owner reads what it wrote.
        (0..top).find(|index| self.shown.frames[*index].cell.load(Relaxed) == 0).unwrap_or(top)
    }

    fn append_out_of_order(&self, index: usize) {
        let mut count = self.disordered.get();
        if count == 0 {
            for (place, frame) in self.shown.frames[..self.top_index()].iter().enumerate() {
                if frame.handle().0 != 0 {
                    self.order.0[count as usize].set(place as u16);
                    count += 1;
                }
            }
        }
        self.order.0[count as usize].set(index as u16);
        self.disordered.set(count + 1);
        self.set_attention(self.failures.get() > 0);
    }

    /// Forgets frames that were left: those at the top, and the order once it is that of the places.
    pub(crate) fn settle(&self) {
        self.drop_hollow();
        let count = self.disordered.get() as usize;
        if count == 0 {
            return;
        }
        let (mut kept, mut sorted) = (0, true);
        for place in 0..count {
            let index = self.order.0[place].get();
            // Left. (The one that is being entered is appended after this.)
            if self.shown.frames[usize::from(index)].handle().0 == 0 {
                continue;
            }
            sorted &= kept == 0 || self.order.0[kept - 1].get() < index;
            self.order.0[kept].set(index);
            kept += 1;
        }
        self.disordered.set(if sorted { 0 } else { kept as u32 });
        self.set_attention(self.failures.get() > 0);
    }

    /// Takes left frames off the top of the stack.
    fn drop_hollow(&self) {
        let mut top = self.top_index();
        // Relaxed: the owner reads what it wrote.
        while top > 0 && self.shown.frames[top - 1].cell.load(Relaxed) == 0 {
            top -= 1;
        }
        self.set_top_index(top);
    }

    /// A number that is another one the next time.
    pub(crate) fn next_turn(&self) -> u32 {
        self.turns.set(self.turns.get().wrapping_add(1));
        self.turns.get()
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
        let high_water = self.shown.high_water.load_sc() as usize;
        self.shown.frames[..high_water].iter().any(|frame| frame.cell.load_sc() == handle.0)
    }

    /// Shows every handle that the owner, maybe another thread, is inside of.
    pub(crate) fn for_each_cell(&self, mut show: impl FnMut(Handle)) {
        // ORDER[inflight] as in `holds`.
        let high_water = self.shown.high_water.load_sc() as usize;
        for frame in &self.shown.frames[..high_water] {
            match frame.cell.load_sc() {
                0 => {}
                cell => show(Handle(cell)),
            }
        }
    }

    /// In the child of a fork: the owner is gone, and inside nothing.
    pub(crate) fn abandon(&self) {
        // All that a scan sees: enter publishes a cell before it raises the top.
        let high_water = self.shown.high_water.load(Relaxed) as usize;
        for frame in &self.shown.frames[..high_water] {
            frame.cell.store(0, Relaxed);
            frame.tag.set(Tag::CALL);
            frame.failed.set(Failed::NO);
            self.messages.take(frame, |_| ());
        }
        self.failures.set(0);
        self.disordered.set(0);
        self.spans.forget();
        self.trace.forget();
        self.set_top_index(0);
        self.forget_run();
        self.waits_for.store(0, Relaxed);
        self.deliveries.set(std::ptr::null_mut());
        self.free_slots.forget();
        self.free_cold.forget();
        self.attachments.forget();
        self.known_blocks.forget();
        self.in_section.store(0, Relaxed);
    }
}

/// A place inside: the frame of a thread and the slot that it protects.
#[derive(Clone, Copy)]
pub(crate) struct Stay<'a> {
    pub(crate) record: &'a Record,
    pub(crate) frame: &'a Frame,
    pub(crate) slot: &'a Slot,
    /// What the frame's cell names: the hot path has it at hand.
    pub(crate) handle: Handle,
}
