//! Who waits for events, or for room, against who brings them; and a post against a close.

use super::world::{Arc, AtomicU32, Mode, Ordering, explore, thread};
use crate::features::queue::ring::{Event, Ring};
use crate::features::queue::room::Room;
use crate::features::queue::signal::Signal;
use crate::platform::membarrier::Barrier;

const EVENT: Event = Event { handle: 1, meta: 0, words: [0; 5] };

struct Parts {
    ring: Ring,
    signal: Signal,
    room: Room,
    closed: AtomicU32,
    barrier: Barrier,
    plainly: bool,
}

impl Parts {
    /// Puts the event in, as a post does.
    fn push(&self) -> bool {
        self.ring.push_with(self.plainly, |cell| cell.write(&EVENT)).is_some()
    }

    fn has_event_before_sleep(&self) -> bool {
        self.ring.has_event_before_sleep(&self.barrier)
    }
}

fn parts(mode: Mode) -> Arc<Parts> {
    let barrier = Barrier::new();
    let plainly = mode == Mode::Membarrier;
    match plainly {
        true => assert!(crate::platform::membarrier::sys::register()),
        false => barrier.use_exchange(),
    }
    Arc::new(Parts {
        barrier,
        plainly,
        ring: Ring::new(1).unwrap(),
        signal: Signal::new().unwrap(),
        room: Room::new(),
        closed: AtomicU32::new(0),
    })
}

fn is_raised(signal: &Signal) -> bool {
    #[cfg(any(loom, miri))]
    return signal.wake().is_raised();
    #[cfg(not(any(loom, miri)))]
    {
        let mut polled = [signal.wake().to_poll()];
        crate::platform::wake::sleep(&mut polled, Some(std::time::Instant::now()));
        polled[0].revents != 0
    }
}

#[test]
fn model_an_event_wakes_a_dispatcher_that_was_about_to_sleep() {
    explore(|mode| {
        let parts = parts(mode);
        let inner = parts.clone();
        let poster = thread::spawn(move || {
            assert!(inner.push());
            inner.signal.tell();
        });
        parts.signal.watch();
        if !parts.has_event_before_sleep() {
            // A sleep: without the signal it would last for ever.
            while !is_raised(&parts.signal) {
                thread::yield_now();
            }
        }
        parts.signal.unwatch();
        assert!(parts.ring.pop(|_| true).is_some());
        poster.join().unwrap();
    });
}

#[test]
fn model_an_event_that_meets_the_lowering_leaves_the_descriptor_readable() {
    explore(|mode| {
        let parts = parts(mode);
        // Somebody has a descriptor, and polls it at any time.
        parts.signal.watch();
        assert!(parts.push());
        parts.signal.tell();
        assert!(parts.ring.pop(|_| true).is_some());
        let inner = parts.clone();
        let poster = thread::spawn(move || {
            assert!(inner.push());
            inner.signal.tell();
        });
        parts.signal.lower(|| parts.has_event_before_sleep());
        poster.join().unwrap();
        assert!(is_raised(&parts.signal), "an event waits");
        assert!(parts.ring.pop(|_| true).is_some());
        parts.signal.lower(|| parts.has_event_before_sleep());
        assert!(!is_raised(&parts.signal), "none waits");
    });
}

#[test]
fn model_a_descriptor_that_is_raised_late_is_lowered_by_the_next_look() {
    explore(|mode| {
        let parts = parts(mode);
        parts.signal.watch();
        let inner = parts.clone();
        let poster = thread::spawn(move || {
            assert!(inner.push());
            inner.signal.tell();
        });
        while parts.ring.pop(|_| true).is_none() {
            thread::yield_now();
        }
        parts.signal.lower(|| parts.has_event_before_sleep());
        poster.join().unwrap();
        parts.signal.lower(|| parts.has_event_before_sleep());
        assert!(!is_raised(&parts.signal), "none waits");
    });
}

#[test]
fn model_two_that_lower_and_a_close_leave_the_descriptor_readable() {
    explore(|mode| {
        let parts = parts(mode);
        parts.signal.watch();
        assert!(parts.push());
        parts.signal.tell();
        assert!(parts.ring.pop(|_| true).is_some());
        let inner = parts.clone();
        let closer = thread::spawn(move || inner.signal.raise_for_good());
        parts.signal.lower(|| parts.has_event_before_sleep());
        closer.join().unwrap();
        assert!(is_raised(&parts.signal), "for ever");
    });
}

#[test]
fn model_a_poster_that_waits_for_room_is_woken() {
    fn run(mode: Mode) {
        let parts = parts(mode);
        assert!(parts.push());
        let inner = parts.clone();
        let dispatcher = thread::spawn(move || {
            assert!(inner.ring.pop(|_| true).is_some());
            inner.room.tell();
        });
        loop {
            let waits = parts.room.wait();
            let _ = parts.barrier.heavy();
            if parts.push() {
                break;
            }
            // A sleep: without the change it would last for ever.
            while parts.room.changes().load(Ordering::Acquire) == waits.seen {
                thread::yield_now();
            }
        }
        dispatcher.join().unwrap();
    }
    explore(run);
}

#[test]
fn model_an_event_that_meets_a_close_is_taken_out_by_one_of_them() {
    explore(|mode| {
        let parts = parts(mode);
        let inner = parts.clone();
        let take_out =
            |parts: &Parts| u32::from(parts.ring.take_from(0, 1, |_| true, |_| ()).is_some());
        let poster = thread::spawn(move || {
            assert!(inner.push());
            if inner.signal.tell() && inner.closed.load(Ordering::SeqCst) == 1 {
                u32::from(inner.ring.take_from(0, 1, |_| true, |_| ()).is_some())
            } else {
                0
            }
        });
        parts.closed.store(1, Ordering::SeqCst);
        parts.signal.raise_for_good();
        let _ = parts.barrier.heavy();
        let mine = take_out(&parts);
        assert_eq!(mine + poster.join().unwrap(), 1);
        assert!(parts.ring.is_empty());
    });
}
