//! A bounded ring for many producers and consumers, each cell one cache line.
//!
//! The positions and sequence numbers are Vyukov's (Bounded MPMC queue, 1024cores.net). Unlike there an
//! event is claimed by its cell and not by the ring's head, so that one in the middle can be taken out
//! (its scope closes) or given another payload (COALESCE) while others are dispatched:
//!
//! ```text
//! FREE(p) → FULL(p)   the producer that has moved the tail from p to p+1
//! FULL(p) → BUSY(p) → FREE(p + size)   a consumer; then the head moves on, whoever moves it
//! FULL(p) → HELD(p) → FULL(p)          another payload
//! FULL(p) → HELD(p) → GONE(p)          taken out; whoever finds it at the head makes it FREE
//! GONE(p) → HELD(p) → FULL(p)          an earlier event is moved up, so that the hole comes to the head
//! ```
//!
//! Contents are atomics, relaxed: a reader that meets a change reads nonsense, and then its exchange of
//! the sequence number fails. `src/tests/model_ring.rs` explores it.

use crate::platform::membarrier::{Barrier, Heavy};
use crate::platform::{cache, pages, wake};
use crate::sync::{
    AcqRel, Acquire, AtomicU64, Relaxed, Release, SeqCst, TotalOrder, light_barrier, spin_hint,
};
use std::ptr::NonNull;

/// Payload words of a cell.
pub(crate) const WORDS: usize = 5;

/// What a cell carries.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Event {
    /// First, so that they are aligned as what the event lies in.
    pub(crate) words: [u64; WORDS],
    pub(crate) handle: u64,
    /// When it was posted, and what `words` are.
    pub(crate) meta: u64,
}

impl Event {
    pub(crate) const NONE: Self = Self { words: [0; WORDS], handle: 0, meta: 0 };
}

/// The oldest event as it was seen, and nobody's yet.
#[derive(Clone, Copy)]
pub(crate) struct Oldest {
    pub(crate) position: u64,
    pub(crate) handle: u64,
    pub(crate) meta: u64,
}

#[derive(PartialEq, Eq)]
enum Look {
    Event,
    Nothing,
    /// A producer has taken the place of the next event, which has not come.
    Place,
}

#[repr(C, align(64))]
pub(crate) struct Cell {
    /// `position:61 | state:3`.
    sequence: AtomicU64,
    handle: AtomicU64,
    meta: AtomicU64,
    words: [AtomicU64; WORDS],
}

const FREE: u64 = 0;
const FULL: u64 = 1;
const BUSY: u64 = 2;
const HELD: u64 = 3;
const GONE: u64 = 4;

fn at(position: u64, state: u64) -> u64 {
    position << 3 | state
}

/// A number that others than its writer read, on cache lines of its own.
#[repr(align(128))]
struct Padded(AtomicU64);

pub(crate) struct Ring {
    cells: NonNull<Cell>,
    mask: u64,
    capacity: u64,
    /// The next position to be filled.
    tail: Padded,
    /// A head that was seen: producers look at the real one only when this one leaves no room.
    seen: AtomicU64,
    /// The oldest position that may have an event.
    head: Padded,
    /// Cells that are GONE.
    gone: AtomicU64,
    /// 1 while a thread moves events up.
    closing_holes: AtomicU64,
    moves: AtomicU64,
}

// SAFETY: the cells are atomics.
unsafe impl Send for Ring {}
// SAFETY: as above.
unsafe impl Sync for Ring {}

impl Cell {
    pub(crate) fn write(&self, event: &Event) {
        self.begin(event.handle, event.meta);
        for (place, word) in event.words.iter().enumerate() {
            self.put(place, *word);
        }
    }

    /// Writes all of an event but its words.
    #[inline(always)]
    pub(crate) fn begin(&self, handle: u64, meta: u64) {
        // Relaxed: the sequence number publishes it.
        self.handle.store(handle, Relaxed);
        self.meta.store(meta, Relaxed);
    }

    #[inline(always)]
    pub(crate) fn put(&self, place: usize, word: u64) {
        // Relaxed: as above.
        self.words[place].store(word, Relaxed);
    }

    #[inline(always)]
    fn read(&self) -> Event {
        // Relaxed: as in `begin`.
        Event {
            handle: self.handle.load(Relaxed),
            meta: self.meta.load(Relaxed),
            words: std::array::from_fn(|place| self.words[place].load(Relaxed)),
        }
    }
}

impl Ring {
    /// None if there is no memory.
    pub(crate) fn new(capacity: usize) -> Option<Self> {
        // One more, so that a producer does not have to wait for the last consumer to leave its cell.
        let size = capacity.checked_add(1)?.checked_next_power_of_two()?;
        // SAFETY: all bytes zero are a cell.
        let cells = unsafe { pages::alloc_zeroed::<Cell>(size)? };
        #[cfg(loom)]
        for index in 0..size {
            let cell = Cell {
                sequence: AtomicU64::new(0),
                handle: AtomicU64::new(0),
                meta: AtomicU64::new(0),
                words: std::array::from_fn(|_| AtomicU64::new(0)),
            };
            // SAFETY: inside the allocation, which nobody else has.
            unsafe { cells.as_ptr().add(index).write(cell) };
        }
        let ring = Self {
            cells,
            mask: size as u64 - 1,
            capacity: capacity as u64,
            tail: Padded(AtomicU64::new(0)),
            seen: AtomicU64::new(0),
            head: Padded(AtomicU64::new(0)),
            gone: AtomicU64::new(0),
            closing_holes: AtomicU64::new(0),
            moves: AtomicU64::new(0),
        };
        Some(ring)
    }

    /// Zeroed memory is FREE(0) everywhere, and means FREE(position) in the first round: so that a queue
    /// with much room costs no memory before it is used.
    #[inline(always)]
    fn sequence_of(&self, position: u64, order: crate::sync::Ordering) -> u64 {
        let sequence = self.cell(position).sequence.load(order);
        if sequence == 0 { at(position & self.mask, FREE) } else { sequence }
    }

    /// Changes FREE(position) to `new`, be it written or not.
    fn exchange(&self, position: u64, old: u64, new: u64) -> bool {
        // AcqRel: acquires what the cell has; releases what was read of it.
        self.cell(position).sequence.compare_exchange(old, new, AcqRel, Relaxed).is_ok()
    }

    #[inline(always)]
    fn cell(&self, position: u64) -> &Cell {
        // SAFETY: `mask` keeps it inside the allocation.
        unsafe { &*self.cells.as_ptr().add((position & self.mask) as usize) }
    }

    pub(crate) fn capacity(&self) -> u64 {
        self.capacity
    }

    fn size(&self) -> u64 {
        self.mask + 1
    }

    /// Puts the event in; None if there is no room.
    pub(crate) fn push(&self, event: &Event) -> Option<u64> {
        self.push_with(false, |cell| cell.write(event))
    }

    /// The same with what `write` writes, which must neither fail nor wait. `plainly`: the event is
    /// published by a plain store, and not by exchange; [`Ring::has_event_before_sleep`] says why that may
    /// be. Not where a heavy barrier is not to be had.
    ///
    /// ORDER[signal] the place is taken, and without `plainly` the event published, in the total order,
    /// before the caller looks for sleepers.
    #[inline(always)]
    pub(crate) fn push_with(&self, plainly: bool, write: impl FnOnce(&Cell)) -> Option<u64> {
        let mut position = self.tail.0.load(Relaxed);
        loop {
            if position.wrapping_sub(self.seen.load(Relaxed)) as i64 >= self.capacity as i64 {
                match self.look_for_room(position) {
                    true => position = self.tail.0.load(Relaxed),
                    false => return None,
                }
                continue;
            }
            let cell = self.cell(position);
            // Acquire: partner: whoever freed the cell.
            let sequence = cell.sequence.load(Acquire);
            if sequence == at(position, FREE) || (sequence == 0 && position <= self.mask) {
                match self.tail.0.cas_sc(position, position + 1) {
                    Ok(_) => {
                        write(cell);
                        if plainly {
                            // Release: partner: the consumer.
                            cell.sequence.store(at(position, FULL), Release);
                            light_barrier();
                        } else {
                            cell.sequence.swap_sc(at(position, FULL));
                        }
                        return Some(position);
                    }
                    Err(now) => position = now,
                }
            } else {
                if self.tail.0.load(Relaxed) == position {
                    // The head has moved on, and a consumer is about to leave the cell.
                    spin_hint();
                }
                position = self.tail.0.load(Relaxed);
            }
        }
    }

    /// The head that was seen last leaves no room for `position`: looks at the real one. False: neither
    /// does that, and there are no holes.
    #[cold]
    fn look_for_room(&self, position: u64) -> bool {
        // Acquire: partner: `move_head`: the cells before it are free.
        let head = self.head.0.load(Acquire);
        self.seen.store(head, Relaxed);
        if (position.wrapping_sub(head) as i64) < self.capacity as i64 {
            return true;
        }
        // No holes, and no head that has moved on because one was closed meanwhile.
        self.tail.0.load(Relaxed) != position
            || self.close_holes()
            || self.head.0.load(Acquire) != head
    }

    /// Takes the oldest event out. `before` sees what it may be before it is claimed, and again if it
    /// was another one; if it says no, none is.
    pub(crate) fn pop(&self, mut before: impl FnMut(&Event) -> bool) -> Option<Event> {
        loop {
            let position = self.head.0.load(Acquire);
            let sequence = self.sequence_of(position, Acquire);
            if sequence == at(position, FULL) {
                if !before(&self.cell(position).read()) {
                    return None;
                }
                let mut event = Event::NONE;
                if self.claim(position, &mut event) {
                    return Some(event);
                }
            } else if !self.skip(position, sequence) {
                return None;
            }
        }
    }

    /// The oldest event, if it has come. As long as it is the oldest, its place is not another one's; its
    /// content may be replaced.
    #[inline(always)]
    pub(crate) fn oldest(&self) -> Option<Oldest> {
        let position = self.head.0.load(Acquire);
        let cell = self.cell(position);
        if cell.sequence.load(Acquire) != at(position, FULL) {
            return None;
        }
        // Relaxed: as in `Cell::read`.
        let (handle, meta) = (cell.handle.load(Relaxed), cell.meta.load(Relaxed));
        Some(Oldest { position, handle, meta })
    }

    /// The event at `position` is about to be taken out.
    #[inline(always)]
    pub(crate) fn expect(&self, position: u64) {
        cache::prefetch_for_write(self.cell(position));
    }

    /// Takes the event out that was seen at `position`; false: it was another thread's.
    #[inline(always)]
    pub(crate) fn claim(&self, position: u64, event: &mut Event) -> bool {
        let cell = self.cell(position);
        let (full, busy) = (at(position, FULL), at(position, BUSY));
        // AcqRel: as in `exchange`.
        if cell.sequence.compare_exchange(full, busy, AcqRel, Relaxed).is_err() {
            return false;
        }
        *event = cell.read();
        // Release: partner: the producer of the next round.
        cell.sequence.store(at(position + self.size(), FREE), Release);
        self.move_head(position);
        true
    }

    /// The cell at `position` is free in the next round: the head moves on.
    #[inline(always)]
    fn move_head(&self, position: u64) {
        // ORDER[room] in the total order, after the cell is free; partners: the loads of the head, and who
        // waits for room where there is no membarrier.
        let _ = self.head.0.cas_sc(position, position + 1);
    }

    /// What is at the head is no event: moves on if it is over; false if it has not come yet.
    #[cold]
    fn skip(&self, position: u64, sequence: u64) -> bool {
        if Self::is_to_come(position, sequence) {
            // Unless the head has moved on and come around since.
            return self.head.0.load(Acquire) != position;
        }
        if sequence == at(position, GONE) {
            if self.exchange(position, sequence, at(position + self.size(), FREE)) {
                self.move_head(position);
                // After the head: who finds no holes, and then the old head, has seen that there is no room.
                self.gone.fetch_sub(1, AcqRel);
            }
        } else if sequence == at(position, HELD) {
            spin_hint();
        } else {
            // Claimed, or freed, by a consumer that has not moved the head yet; or it has been moved.
            self.move_head(position);
        }
        true
    }

    /// Is the event at `position` still to come? Its cell is free, or a consumer of the round before, whom
    /// the head has left behind, is about to free it: the head must not go further.
    fn is_to_come(position: u64, sequence: u64) -> bool {
        sequence <= at(position, FREE)
    }

    /// What there is for `pop`. In the total order.
    fn look(&self) -> Look {
        loop {
            let position = self.head.0.load_sc();
            if !Self::is_to_come(position, self.sequence_of(position, SeqCst)) {
                return Look::Event;
            }
            let tail = self.tail.0.load_sc();
            if self.head.0.load_sc() == position {
                return if tail == position { Look::Nothing } else { Look::Place };
            }
        }
    }

    /// Is there something for `pop`? In the total order.
    pub(crate) fn has_event(&self) -> bool {
        self.look() == Look::Event
    }

    /// The same once the caller has said, in the total order, that it will sleep, or that events must be
    /// told of: if it finds none, whoever brings the next one finds that.
    ///
    /// ORDER[signal] *Nothing*: the place is taken after this look, and then the producer looks for
    /// sleepers. *A place*: its producer may have looked for them before its event was to be seen, as it
    /// publishes by a plain store. The barrier lies between what the caller has said and the second
    /// look, and somewhere in the producer's course: before the event is published, and so before the
    /// producer looks; or behind, and the event is there to be seen.
    pub(crate) fn has_event_before_sleep(&self, barrier: &Barrier) -> bool {
        match self.look() {
            Look::Event => true,
            Look::Nothing => false,
            Look::Place => {
                if barrier.heavy() == Heavy::Refused {
                    // Then nothing but time can tell: no store is under way for so long.
                    wake::pause();
                }
                self.has_event()
            }
        }
    }

    /// Events, or places for them, that were taken and not given back.
    pub(crate) fn is_empty(&self) -> bool {
        self.head.0.load_sc() == self.tail.0.load_sc()
    }

    /// The position that the next event will have.
    pub(crate) fn tail(&self) -> u64 {
        self.tail.0.load_sc()
    }

    /// The position of the oldest event.
    pub(crate) fn head(&self) -> u64 {
        self.head.0.load_sc()
    }

    /// How many events there are.
    pub(crate) fn len(&self) -> usize {
        let head = self.head.0.load(Acquire);
        let tail = self.tail.0.load(Acquire);
        (tail.saturating_sub(head)).saturating_sub(self.gone.load(Acquire)) as usize
    }

    /// Takes the first event from `position` on, before `end`, out that `wanted` says yes of, and gives the position to
    /// go on with. `before` sees it while nobody can miss it any more who looks for it.
    pub(crate) fn take_from(
        &self,
        mut position: u64,
        end: u64,
        wanted: impl Fn(&Event) -> bool,
        before: impl FnOnce(&Event),
    ) -> Option<(Event, u64)> {
        position = position.max(self.head.0.load_sc());
        while position < end {
            let cell = self.cell(position);
            // ORDER[close] after what makes new events refused; partner: the exchange in `push`, or, if it is
            // a plain store, the barrier in `close`.
            let sequence = self.sequence_of(position, SeqCst);
            if sequence == at(position, HELD) {
                // Another thread's for a moment, which may put it back, or in another place.
                spin_hint();
                continue;
            }
            if sequence == at(position, FULL)
                && wanted(&cell.read())
                && self.exchange(position, sequence, at(position, HELD))
            {
                let event = cell.read();
                before(&event);
                self.leave_hole(position);
                self.skip_holes();
                return Some((event, position + 1));
            }
            position += 1;
        }
        None
    }

    /// The cell at `position`, which is HELD, has nothing any more.
    fn leave_hole(&self, position: u64) {
        self.gone.fetch_add(1, AcqRel);
        // Release: partner: `skip`.
        self.cell(position).sequence.store(at(position, GONE), Release);
    }

    /// Moves the head past what is gone: that makes room.
    fn skip_holes(&self) {
        loop {
            let head = self.head.0.load(Acquire);
            let sequence = self.sequence_of(head, Acquire);
            if sequence != at(head, GONE) {
                return;
            }
            self.skip(head, sequence);
        }
    }

    /// There is no room, but what was taken out of the middle has left holes: moves the events before them
    /// up, in their order, so that the holes come to the head. True if there may be room now.
    #[cold]
    fn close_holes(&self) -> bool {
        if self.gone.load(Acquire) == 0 {
            return false;
        }
        // One at a time; another thread's is as good.
        if self.closing_holes.compare_exchange(0, 1, AcqRel, Relaxed).is_err() {
            spin_hint();
            return true;
        }
        // The highest hole that nothing but holes lies above, down to where we are.
        let mut hole = None;
        let mut moved = false;
        let mut position = self.tail.0.load_sc();
        while position > self.head.0.load_sc() {
            position -= 1;
            let sequence = self.sequence_of(position, Acquire);
            hole = match (sequence, hole) {
                (sequence, None) if sequence == at(position, GONE) => Some(position),
                (sequence, Some(hole)) if sequence == at(position, GONE) => Some(hole),
                (sequence, Some(hole)) if sequence == at(position, FULL) => {
                    let up = self.move_up(position, hole);
                    moved |= up;
                    up.then_some(hole - 1)
                }
                // Not published yet: what comes before must not pass it. Or held, or claimed.
                _ => None,
            };
        }
        if moved {
            self.moves.fetch_add(1, AcqRel);
        }
        self.closing_holes.store(0, Release);
        self.skip_holes();
        if !moved {
            // What lies in between is about to be published, taken or put back.
            spin_hint();
        }
        true
    }

    /// Moves the event at `position` to `hole`. False: one of the two has changed.
    fn move_up(&self, position: u64, hole: u64) -> bool {
        // The hole first: it must not be freed by a consumer that comes to it.
        if !self.exchange(hole, at(hole, GONE), at(hole, HELD)) {
            return false;
        }
        let moved = self.exchange(position, at(position, FULL), at(position, HELD));
        if moved {
            let cell = self.cell(hole);
            cell.write(&self.cell(position).read());
            // Release: partner: the consumer. The event is there before it is no longer here.
            cell.sequence.store(at(hole, FULL), Release);
            self.cell(position).sequence.store(at(position, GONE), Release);
        } else {
            self.cell(hole).sequence.store(at(hole, GONE), Release);
        }
        moved
    }

    /// How often events have changed their places.
    pub(crate) fn moves(&self) -> u64 {
        self.moves.load(Acquire)
    }

    /// Shows every event that waits, with its place.
    pub(crate) fn for_each(&self, mut show: impl FnMut(u64, &Event)) {
        for position in self.head.0.load_sc()..self.tail.0.load_sc() {
            if self.sequence_of(position, Acquire) == at(position, FULL) {
                show(position, &self.cell(position).read());
            }
        }
    }

    /// Gives the event at `position`, if it is still there and the same callback's, another content. The
    /// old one, which `before` has seen while nobody else could.
    pub(crate) fn replace(
        &self,
        position: u64,
        event: &Event,
        before: impl FnOnce(&Event),
    ) -> Option<Event> {
        let full = at(position, FULL);
        if self.sequence_of(position, Acquire) != full
            || !self.exchange(position, full, at(position, HELD))
        {
            return None;
        }
        let cell = self.cell(position);
        let old = cell.read();
        let same = old.handle == event.handle;
        if same {
            before(&old);
            cell.write(event);
        }
        // Release: partner: the consumer.
        cell.sequence.store(full, Release);
        same.then_some(old)
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        let size = self.mask as usize + 1;
        #[cfg(loom)]
        for index in 0..size {
            // SAFETY: constructed in `new`, dropped once, here.
            unsafe { self.cells.as_ptr().add(index).drop_in_place() };
        }
        // SAFETY: from `new` with this count, and `self` is going.
        unsafe { pages::free(self.cells, size) };
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn event(handle: u64) -> Event {
        Event { handle, ..Event::NONE }
    }

    /// A consumer stops between claiming a cell and leaving it, while others take the ring around.
    #[test]
    fn the_head_does_not_overtake_the_tail() {
        let ring = Ring::new(1).unwrap();
        assert_eq!(ring.push(&event(1)), Some(0));
        // One consumer claims it, and is slow to free the cell.
        assert!(ring.exchange(0, at(0, FULL), at(0, BUSY)));
        // Others go on.
        assert!(ring.pop(|_| true).is_none());
        assert_eq!(ring.push(&event(2)), Some(1));
        assert_eq!(ring.pop(|_| true).map(|event| event.handle), Some(2));
        assert!(ring.pop(|_| true).is_none());
        assert!(!ring.has_event());
        assert!(ring.head() <= ring.tail());
        // The slow one leaves.
        ring.cell(0).sequence.store(at(ring.size(), FREE), Release);
        ring.move_head(0);
        assert_eq!(ring.push(&event(3)), Some(2));
        assert!(ring.has_event());
        assert_eq!(ring.pop(|_| true).map(|event| event.handle), Some(3));
    }
}
