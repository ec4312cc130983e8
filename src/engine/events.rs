//! References that waiting events own, counted apart from the others.
//!
//! Who posts and who dispatches would otherwise take turns in writing the callback's own cache line,
//! which every call reads. So a callback that events wait for has a second count, on a line of its own:
//! `generation:32 | anchored:1 | count:31`. As long as it is anchored it owns one reference of the
//! callback's word (the anchor), whatever the count; who brings the count to zero lifts the anchor.
//!
//! *Post against the last event's end*: the post finds the anchor and counts itself in, by
//! compare-exchange, so the count did not come to zero; or the anchor is lifted first, and the post takes
//! a reference of the word itself before it anchors anew. Either way a reference is owned when the
//! post goes on. `src/tests/model_events.rs` explores it.

use super::Engine;
use super::handle::{Handle, Kind};
use super::record::Record;
use super::slab::Entry;
use super::slot::{Mark, Slot, TYPED};
use crate::error::Error;
use crate::sync::{AcqRel, Acquire, AtomicU64, Relaxed};

/// A callback's count of events, found by the index of its slot.
#[repr(align(64))]
pub(crate) struct EventCount(AtomicU64);

impl Entry for EventCount {
    #[cfg(loom)]
    fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    fn link(&self) -> &AtomicU64 {
        &self.0
    }

    fn first_use(&self, _generation: u32) {}
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Count(u64);

const ANCHORED: u64 = 1 << 31;
const MAX: u64 = ANCHORED - 1;

impl Count {
    fn new(generation: u32, count: u64) -> Self {
        Self(u64::from(generation) << 32 | if count == 0 { 0 } else { ANCHORED | count })
    }

    fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }

    fn is_anchored(self, handle: Handle) -> bool {
        self.generation() == handle.generation() && self.0 & ANCHORED != 0
    }

    fn events(self) -> u64 {
        self.0 & MAX
    }
}

/// Counts an event in if others anchor the callback, and it lives.
#[inline(always)]
fn count_one_more(slot: &Slot, place: &EventCount, handle: Handle) -> bool {
    let count = Count(place.0.load(Relaxed));
    count.is_anchored(handle)
        && count.events() < MAX
        && slot.live(handle).is_ok()
        // AcqRel: partner: `release_events`.
        && place.0.compare_exchange(count.0, count.0 + 1, AcqRel, Relaxed).is_ok()
}

impl Engine {
    /// One more event owns a reference of the callback, if it has events already and there is nothing
    /// special about it. False: it has not, or there is.
    #[inline(always)]
    pub(crate) fn retain_for_plain_event(&self, handle: Handle) -> bool {
        let Some(slot) = self.slots.get(handle.index_as(Kind::Callback)) else { return false };
        let Some(place) = self.events.get(handle.index()) else { return false };
        // Acquire: partner: the mark is published by LIVE.
        let mark = Mark(slot.mark.load(Acquire));
        if mark.has(TYPED)
            || !mark.belongs_to(handle)
            || (slot.cold.load(Relaxed) != 0 && self.has_queues(handle))
        {
            return false;
        }
        count_one_more(slot, place, handle)
    }

    /// One more event owns a reference of the callback.
    pub(crate) fn retain_for_event(&self, record: &Record, handle: Handle) -> Result<(), Error> {
        let slot = self.resolve(handle, Kind::Callback)?;
        match self.events.get(handle.index()) {
            Some(place) if count_one_more(slot, place, handle) => Ok(()),
            _ => self.retain_for_first_event(record, handle),
        }
    }

    #[cold]
    #[inline(never)]
    fn retain_for_first_event(&self, record: &Record, handle: Handle) -> Result<(), Error> {
        // A reference of our own, which becomes the anchor, unless there is one.
        self.retain(handle)?;
        let place = match self.events.reserve(handle.index()) {
            Ok(place) => &place.0,
            Err(error) => {
                let _ = self.release(record, handle);
                return Err(error);
            }
        };
        let mut count = Count(place.load(Acquire));
        loop {
            if count.generation() > handle.generation() {
                // Unregistered meanwhile, and the slot has served another one.
                return Err(Error::Stale);
            }
            let anchored = count.is_anchored(handle);
            let events = if anchored { count.events() } else { 0 };
            if events == MAX {
                let _ = self.release(record, handle);
                return Err(Error::Limit("2^31 events of one callback"));
            }
            let new = Count::new(handle.generation(), events + 1);
            // AcqRel: as above.
            match place.compare_exchange(count.0, new.0, AcqRel, Acquire) {
                Ok(_) if anchored => {
                    // The anchor is another one's; it cannot be lifted before our event has ended.
                    let _ = self.release(record, handle);
                    return Ok(());
                }
                Ok(_) => return Ok(()),
                Err(current) => count = Count(current),
            }
        }
    }

    /// `ended` events of the callback give their references back; the last one ends it as a release does.
    pub(crate) fn release_events(&self, record: &Record, handle: Handle, ended: u64) {
        let Some(place) = self.events.get(handle.index()) else { return };
        let mut count = Count(place.0.load(Relaxed));
        // Unregistered, and the slot serves another one: the references went with it.
        while count.is_anchored(handle) {
            debug_assert!(count.events() >= ended);
            let left = count.events() - ended;
            // AcqRel: partner: who posts next, and, through the release of the anchor, destroy.
            match place.0.compare_exchange(
                count.0,
                Count::new(handle.generation(), left).0,
                AcqRel,
                Relaxed,
            ) {
                Ok(_) => {
                    if left == 0 {
                        // Gone if it was unregistered.
                        let _ = self.release(record, handle);
                    }
                    return;
                }
                Err(current) => count = Count(current),
            }
        }
    }

    /// How many references waiting events own, beside the anchor. Racy.
    pub(super) fn references_of_events(&self, handle: Handle) -> u32 {
        let count =
            self.events.get(handle.index()).map_or(Count(0), |it| Count(it.0.load(Relaxed)));
        if count.is_anchored(handle) { count.events() as u32 - 1 } else { 0 }
    }
}
