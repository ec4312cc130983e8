//! The end of a scope, and of all that it owns.
//!
//! Ending many at once takes the steps of ending one (see [`super::inflight`]) for all together: every
//! word is revoked, then comes one heavy barrier, and only then the look at the records. A call that
//! the look finds was published before the barrier or found REVOKED after it, so its leave finalizes;
//! what the look does not find is outside, and is finalized here. `tests/protocol` has it as "ending
//! many", and the waiting of several who close as "closers of a scope wait".

use super::frame::{Failed, Frame, StackPlace, Tag};
use super::handle::{Handle, Kind};
use super::members::SHARDS;
use super::record::Record;
use super::scope::Scope;
use super::wait::{Note, Patience};
use super::{Engine, probes};
use crate::error::Error;
use crate::platform::futex;
use crate::platform::membarrier::Heavy;
use crate::sync::{AcqRel, Acquire, Relaxed, Release, SeqCst, TotalOrder, fence};

/// How many are taken from a list, or found in the records, at a time.
const BATCH: usize = 64;

/// Some callbacks of a scope.
struct Batch {
    len: usize,
    handles: [Handle; BATCH],
}

impl Batch {
    const EMPTY: Self = Self { len: 0, handles: [Handle(0); BATCH] };

    fn handles(&self) -> &[Handle] {
        &self.handles[..self.len]
    }

    fn is_full(&self) -> bool {
        self.len == BATCH
    }

    /// Takes one more, if there is room.
    fn push(&mut self, handle: Handle) {
        if !self.is_full() {
            self.handles[self.len] = handle;
            self.len += 1;
        }
    }
}

/// What somebody who closed a scope gets to know: how much of it still runs, and whether it is closed.
pub(crate) type Closed = (usize, Result<(), Error>);

impl Engine {
    /// Closes a scope, or waits on for one that is closing. `unbind` takes away what refers to the scope
    /// from elsewhere, and may run destroy functions.
    pub(crate) fn close_scope(
        &self,
        record: &Record,
        scope: Handle,
        patience: Patience,
        unbind: impl Fn(),
    ) -> Result<Closed, Error> {
        self.revoke_scope(record, scope)?;
        // None: another one who closes it was faster, and is about to free its slot. An entry that
        // serves another scope by now does no harm: its locks are refused to us.
        let Some(entry) = self.find_scope(scope) else {
            let slot = self.slots.at(scope.index());
            return Ok((0, self.wait_until_ended(record, slot, scope, patience)));
        };
        self.end_members(record, scope, entry, &unbind)?;
        Ok(loop {
            // ORDER[wait] the counter, then the look; partner: `tell_closers`.
            let seen = entry.changes.load_sc();
            let running = self.running(record, scope);
            let is_quiet = running == 0 && !self.is_passed_over(scope);
            // A pass was cut short. Seen at the latest now: it said so before it cleared its cell.
            // AcqRel: partner: the store in `leave_scope_frame`. One of those who wait.
            if entry.unfinished.compare_exchange(scope.0, 0, AcqRel, Relaxed).is_ok() {
                self.end_members(record, scope, entry, &unbind)?;
                continue;
            }
            // Not revoked any more: another one ends it, and is what runs.
            if is_quiet || !self.slots.at(scope.index()).is_revoked(scope) {
                break (0, self.end_empty(record, scope, patience));
            }
            self.run_own_destroys(record, scope);
            if self.is_inside(record, scope) {
                break (running, Err(Error::Deadlock));
            }
            let note = Note::publish(record, scope);
            if self.would_deadlock(record, scope) {
                break (running, Err(Error::Deadlock));
            }
            if patience.is_over() {
                break (running, Err(Error::Timeout));
            }
            // Without barriers a leave may pass by unseen (engine/pending.rs).
            let soon = self.has_pending() || self.barrier.is_refused();
            futex::wait(&entry.changes, seen, patience.next_look(soon));
            // Without a note: what follows may run destroy functions, inside which we do not wait.
            drop(note);
            if self.has_pending() {
                self.drain_pending(record);
            }
        })
    }

    /// Registrations are refused from now on, and everything that the scope owns is revoked. Nothing
    /// new happens to a scope that is closing already.
    fn revoke_scope(&self, record: &Record, scope: Handle) -> Result<(), Error> {
        let slot = self.resolve(scope, Kind::Scope)?;
        if self.revoke(slot, scope).is_err() && !slot.is_ending(scope) {
            return Err(Error::Stale);
        }
        for number in 0..SHARDS {
            let section = self.section(record);
            let Ok(shard) = self.lock_shard(&section, scope, number) else { break };
            for member in shard.members() {
                // Revoked by somebody else before: all the same to us.
                if self.revoke(self.slots.at(member.index()), member).is_ok() {
                    probes::unregister(member);
                }
            }
        }
        Ok(())
    }

    /// Nothing is left of the scope but itself. One of those who close it ends it.
    fn end_empty(&self, record: &Record, scope: Handle, patience: Patience) -> Result<(), Error> {
        let slot = self.slots.at(scope.index());
        if !slot.begin_finalizing(scope) {
            return self.wait_until_ended(record, slot, scope, patience);
        }
        // Whoever sleeps because of something that ends from now on would not be told by it: only what
        // finds the scope revoked tells. They see that it is not, and wait for the slot.
        self.scope_of_slot(slot).tell_closers();
        self.run_destroy(record, slot, scope);
        Ok(())
    }

    /// Is a thread that closes the scope still ending what it owns? After `running`.
    fn is_passed_over(&self, scope: Handle) -> bool {
        let closing = scope.with_kind(Kind::Closing);
        self.records.iter().any(|other| other.holds(closing))
    }

    /// Callbacks whose destroy has not returned, and threads that detach.
    fn running(&self, record: &Record, scope: Handle) -> usize {
        let mut running = 0;
        for number in 0..SHARDS {
            let section = self.section(record);
            let shard = self.lock_shard(&section, scope, number);
            running += shard.map_or(0, |shard| shard.count() as usize);
        }
        // ORDER[inflight] after the scope's word; partner: the exchange in `detach_from`.
        fence(SeqCst);
        running + self.records.iter().filter(|other| other.holds(scope)).count()
    }

    /// Unbinds the scope, and finalizes every callback of it that nobody is inside of.
    fn end_members(
        &self,
        record: &Record,
        scope: Handle,
        entry: &Scope,
        unbind: &impl Fn(),
    ) -> Result<(), Error> {
        // A destroy function closes the scope again that this thread is passing over: the pass comes to
        // what is left, and nesting would overflow the stack.
        let closing = scope.with_kind(Kind::Closing);
        if record.is_inside(closing) {
            return Ok(());
        }
        let here = 0;
        let frame = record.push_cold(Tag::CLOSE).inspect_err(|_| {
            // At the limit of nesting: left to whoever waits for it, or closes it again. No cell keeps the
            // entry: what was seen while it was the scope's may be replaced, but nothing of a later one.
            // Acquire: partner: the stores of a later one, so that its owner is seen with them.
            let seen = entry.unfinished.load(Acquire);
            if entry.belongs_to(scope) {
                // Release: as in `leave_scope_frame`.
                let _ = entry.unfinished.compare_exchange(seen, scope.0, Release, Relaxed);
            }
        })?;
        frame.set_stack_place(StackPlace::of(&here));
        // ORDER[inflight] as a call; partner: the scan in `running`.
        frame.cell.swap_sc(closing.0);
        let pass = InsideScope { engine: self, record, frame };
        unbind();
        // ORDER[inflight] after every word; partner: the light barriers in `leave` and `enter`.
        let certain = self.barrier.heavy() != Heavy::Refused;
        let occupied = self.occupied(record, scope);
        for number in 0..SHARDS {
            let mut left = {
                let section = self.section(record);
                self.lock_shard(&section, scope, number).map_or(0, |shard| shard.count() as usize)
            };
            // Each goes to the end of the list when its turn comes, so that those that stay are met
            // once.
            while left > 0 {
                let batch = self.next_batch(record, scope, number, left.min(BATCH));
                if batch.len == 0 {
                    break;
                }
                left -= batch.len;
                for handle in batch.handles() {
                    let slot = self.slots.at(handle.index());
                    if !certain || occupied.is_full() {
                        // One at a time: it puts what it cannot know on the list of engine/pending.rs.
                        self.quiesce(record, slot, *handle);
                    } else if !occupied.handles().contains(handle) {
                        self.finalize_unless_kept(record, slot, *handle);
                    }
                }
            }
        }
        std::mem::forget(pass);
        self.leave_scope_frame(record, frame, true);
        Ok(())
    }

    /// Whatever this thread did with the scope, as `frame` says, has ended; a pass over its callbacks is
    /// perhaps not done.
    pub(crate) fn leave_scope_frame(&self, record: &Record, frame: &Frame, done: bool) {
        let scope = frame.handle().with_kind(Kind::Scope);
        // As long as the cell says that we are there, the scope cannot end, nor its entry serve another.
        let entry = self.find_scope(scope);
        // An event of the scope was posted: perhaps after the pass that drops them.
        let unfinished = match frame.tag.get() {
            Tag::CLOSE => !done,
            tag => tag == Tag::POST && self.slots.at(scope.index()).is_revoked(scope),
        };
        if let Some(entry) = entry
            && unfinished
        {
            // Release: partner: the exchange in `close_scope`.
            entry.unfinished.store(scope.0, Release);
        }
        frame.tag.set(Tag::CALL);
        frame.failed.set(Failed::NO);
        // ORDER[inflight] the cell, then the word; partner: revoke, then the scan in `running`.
        frame.cell.swap_sc(0);
        record.settle();
        // Not revoked any more: then whoever ends it has told the others.
        if let Some(entry) = entry
            && self.slots.at(scope.index()).is_revoked(scope)
        {
            entry.tell_closers();
        }
    }

    fn next_batch(&self, record: &Record, scope: Handle, number: u32, max: usize) -> Batch {
        let mut batch = Batch::EMPTY;
        let section = self.section(record);
        if let Ok(shard) = self.lock_shard(&section, scope, number) {
            while batch.len < max
                && let Some(member) = shard.rotate()
            {
                batch.push(member);
            }
        }
        batch
    }

    /// What of the scope other threads are inside of.
    fn occupied(&self, record: &Record, scope: Handle) -> Batch {
        let mut occupied = Batch::EMPTY;
        // ORDER[inflight] after every word, before the first record; partner: `Records::make`, and the
        // exchange of enter.
        fence(SeqCst);
        for other in self.records.iter().filter(|other| other.id() != record.id()) {
            other.for_each_cell(|cell| {
                if self.is_part_of(cell, scope) && !occupied.handles().contains(&cell) {
                    occupied.push(cell);
                }
            });
        }
        occupied
    }

    /// Waits for every callback of the scope that has ended and whose destroy has not returned. The
    /// default scope, 0, keeps no list: for it, a look at every slot.
    pub(crate) fn drain_scope(
        &self,
        record: &Record,
        scope: Handle,
        patience: Patience,
    ) -> Result<(), Error> {
        self.check_scope(scope)?;
        if scope.0 == 0 {
            for (index, slot) in self.slots.iter() {
                let handle = Handle::new(slot.peek().generation(), Kind::Callback, index);
                if slot.is_ending(handle) && self.scope_of(handle).0 == 0 {
                    self.drain(record, handle, patience)?;
                }
            }
            return Ok(());
        }
        for number in 0..SHARDS {
            loop {
                let ending = self.ending(record, scope, number);
                if ending.handles().is_empty() {
                    break;
                }
                // What this thread is about to end itself, above what it ends now, would never end.
                if self.is_ending_part_of(record, scope) {
                    return Err(Error::Deadlock);
                }
                for handle in ending.handles() {
                    self.drain(record, *handle, patience)?;
                }
            }
        }
        Ok(())
    }

    fn drain(&self, record: &Record, handle: Handle, patience: Patience) -> Result<(), Error> {
        let slot = self.slots.at(handle.index());
        // Nobody else may come to it: a pass over its scope may have been cut short.
        self.quiesce(record, slot, handle);
        self.wait_until_ended(record, slot, handle, patience)
    }

    /// Does this thread run a destroy function of the scope's, or a pass over it?
    fn is_ending_part_of(&self, record: &Record, scope: Handle) -> bool {
        record.stack().any(|frame| {
            matches!(frame.tag.get(), Tag::DESTROY | Tag::CLOSE)
                && self.is_part_of(frame.handle(), scope)
        })
    }

    /// Callbacks of the shard that have ended and whose destroy has not returned: all, or a batch.
    fn ending(&self, record: &Record, scope: Handle, number: u32) -> Batch {
        let mut ending = Batch::EMPTY;
        let section = self.section(record);
        if let Ok(shard) = self.lock_shard(&section, scope, number) {
            let is_ending = |handle: &Handle| self.slots.at(handle.index()).is_ending(*handle);
            shard.members().filter(is_ending).take(BATCH).for_each(|handle| ending.push(handle));
        }
        ending
    }
}

/// Host code runs that is the scope's, or that ends it. Dropped when that returns, or when an unwind
/// passes through.
pub(super) struct InsideScope<'a> {
    pub(super) engine: &'a Engine,
    pub(super) record: &'a Record,
    pub(super) frame: &'a Frame,
}

impl Drop for InsideScope<'_> {
    fn drop(&mut self) {
        self.engine.leave_scope_frame(self.record, self.frame, false);
    }
}
