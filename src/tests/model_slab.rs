//! The stack of free entries: no two threads have one, and who takes one sees what its last owner did.

use super::world::{Arc, Mode, explore_in, thread};
use crate::engine::slab::{Entry, Slab};
use crate::sync::{AtomicU64, Relaxed};

#[cfg(loom)]
use loom::cell::UnsafeCell;
#[cfg(not(loom))]
use std::cell::UnsafeCell;

/// An entry whose data only its owner may touch: loom reports what is not ordered, and so does Miri.
struct Place {
    link: AtomicU64,
    data: UnsafeCell<u64>,
}

// SAFETY: that one thread has it at a time is what the models check.
unsafe impl Sync for Place {}

impl Entry for Place {
    #[cfg(loom)]
    fn new() -> Self {
        Self { link: AtomicU64::new(0), data: UnsafeCell::new(0) }
    }

    fn link(&self) -> &AtomicU64 {
        &self.link
    }

    fn first_use(&self, _generation: u32) {}
}

type Places = Slab<Place, 2>;

/// What its owner does with it.
fn use_it(places: &Places, index: u32) {
    let data = &places.at(index).data;
    #[cfg(loom)]
    // SAFETY: loom checks the access.
    data.with_mut(|data| unsafe { *data += 1 });
    #[cfg(not(loom))]
    // SAFETY: the owner alone touches it: that is the test.
    unsafe {
        *data.get() += 1;
    }
}

#[test]
fn model_a_batch_that_is_taken_while_others_come_and_go_is_nobody_elses() {
    explore_in(Mode::Exchange, |_| {
        let places = Arc::new(Places::new());
        let first = places.carve(2, 0).unwrap();
        places.give(first + 1);
        places.give(first);
        let inner = places.clone();
        // Takes all, and puts the first one back: the stack looks as before, but for what is below.
        let other = thread::spawn(move || {
            let back = inner.take();
            let kept = inner.take();
            if let Some(kept) = kept {
                use_it(&inner, kept);
            }
            if let Some(back) = back {
                inner.give(back);
            }
            kept
        });
        let mine = [places.take(), places.take()];
        mine.iter().flatten().for_each(|mine| use_it(&places, *mine));
        let theirs = other.join().unwrap();
        assert!(theirs.is_none() || !mine.contains(&theirs), "two have one");
    });
}

#[test]
fn model_who_takes_a_batch_sees_what_its_last_owner_did() {
    explore_in(Mode::Exchange, |_| {
        let places = Arc::new(Places::new());
        let first = places.carve(2, 0).unwrap();
        let inner = places.clone();
        let giver = thread::spawn(move || {
            use_it(&inner, first);
            // Relaxed: ours alone until `give`.
            inner.at(first).link().store(u64::from(first + 1), Relaxed);
            inner.give(first);
        });
        if let Some(taken) = places.take() {
            use_it(&places, taken);
            // Relaxed: the batch is ours since `take`.
            assert_eq!(places.at(taken).link().load(Relaxed) as u32, first + 1, "the rest of it");
        }
        giver.join().unwrap();
    });
}
