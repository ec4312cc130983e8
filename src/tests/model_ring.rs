//! The ring: producers, consumers, and those who take out or change what is in the middle.

use super::world::{Arc, explore, thread};
use crate::features::queue::ring::{Event, Ring};

fn event(number: u64) -> Event {
    Event { handle: number, meta: !number, words: [number; 5] }
}

/// Says which it is, if it is whole.
fn number(event: &Event) -> u64 {
    assert_eq!((event.meta, event.words), (!event.handle, [event.handle; 5]), "torn");
    event.handle
}

fn pop(ring: &Ring) -> Option<u64> {
    ring.pop(|_| true).as_ref().map(number)
}

fn wait_and_pop(ring: &Ring) -> u64 {
    loop {
        match pop(ring) {
            Some(number) => return number,
            None => thread::yield_now(),
        }
    }
}

#[test]
fn model_two_producers_lose_nothing() {
    explore(|_| {
        let ring = Arc::new(Ring::new(2).unwrap());
        let inner = ring.clone();
        let producer = thread::spawn(move || assert!(inner.push(&event(1)).is_some()));
        assert!(ring.push(&event(2)).is_some());
        let first = wait_and_pop(&ring);
        let second = wait_and_pop(&ring);
        producer.join().unwrap();
        assert_eq!(first + second, 3);
        assert_eq!((pop(&ring), ring.len(), ring.is_empty()), (None, 0, true));
    });
}

#[test]
fn model_an_event_that_a_plain_store_publishes_is_whole() {
    explore(|_| {
        let ring = Arc::new(Ring::new(1).unwrap());
        let inner = ring.clone();
        let producer = thread::spawn(move || {
            assert!(inner.push_with(true, |cell| cell.write(&event(1))).is_some());
        });
        assert_eq!(wait_and_pop(&ring), 1);
        producer.join().unwrap();
    });
}

#[test]
fn model_a_producers_events_come_in_order_through_a_ring_of_one() {
    explore(|_| {
        let ring = Arc::new(Ring::new(1).unwrap());
        let inner = ring.clone();
        let producer = thread::spawn(move || {
            for number in 1..=2 {
                while inner.push(&event(number)).is_none() {
                    thread::yield_now();
                }
            }
        });
        assert_eq!(wait_and_pop(&ring), 1);
        assert_eq!(wait_and_pop(&ring), 2);
        producer.join().unwrap();
    });
}

#[test]
fn model_two_consumers_take_every_event_once() {
    explore(|_| {
        let ring = Arc::new(Ring::new(2).unwrap());
        assert!(ring.push(&event(1)).is_some() && ring.push(&event(2)).is_some());
        let inner = ring.clone();
        let consumer = thread::spawn(move || pop(&inner));
        let (mine, theirs) = (pop(&ring), consumer.join().unwrap());
        let mut all = [mine.unwrap(), theirs.unwrap()];
        all.sort_unstable();
        assert_eq!(all, [1, 2]);
        assert!(ring.push(&event(3)).is_some(), "there is room again");
        assert_eq!(pop(&ring), Some(3));
    });
}

#[test]
fn model_what_is_taken_out_of_the_middle_is_not_popped_as_well() {
    explore(|_| {
        let ring = Arc::new(Ring::new(2).unwrap());
        assert!(ring.push(&event(1)).is_some() && ring.push(&event(2)).is_some());
        let inner = ring.clone();
        let closer = thread::spawn(move || {
            inner
                .take_from(0, 2, |event| event.handle == 2, |_| ())
                .map(|(event, _)| number(&event))
        });
        assert_eq!(pop(&ring), Some(1));
        let popped = pop(&ring);
        let taken = closer.join().unwrap();
        assert_ne!(popped, taken, "one of the two has it");
        assert_eq!(popped.or(taken), Some(2));
        assert_eq!((pop(&ring), ring.len(), ring.is_empty()), (None, 0, true));
        for number in 3..7 {
            assert!(ring.push(&event(number)).is_some(), "all places serve again");
            assert_eq!(pop(&ring), Some(number));
        }
    });
}

#[test]
fn model_a_replaced_payload_is_popped_or_displaced_but_not_both() {
    explore(|_| {
        let ring = Arc::new(Ring::new(2).unwrap());
        let old = Event { handle: 1, meta: !1, words: [1; 5] };
        let new = Event { handle: 1, meta: 7, words: [7; 5] };
        let position = ring.push(&old).unwrap();
        let inner = ring.clone();
        let poster =
            thread::spawn(move || inner.replace(position, &new, |_| ()).map(|old| old.words));
        let popped = ring.pop(|_| true).unwrap();
        assert_eq!(popped.words[0], popped.words[4], "torn");
        match poster.join().unwrap() {
            Some(displaced) => assert_eq!((displaced, popped.words), ([1; 5], [7; 5])),
            None => assert_eq!(popped.words, [1; 5]),
        }
        assert_eq!(pop(&ring), None);
    });
}

#[test]
fn model_holes_that_are_closed_keep_the_order_and_lose_nothing() {
    explore(|_| {
        let ring = Arc::new(Ring::new(2).unwrap());
        assert!(ring.push(&event(1)).is_some() && ring.push(&event(2)).is_some());
        assert!(ring.take_from(0, 2, |event| event.handle == 2, |_| ()).is_some());
        let inner = ring.clone();
        // Two places, one hole in the middle: the push moves 1 up, while it is popped perhaps.
        let producer = thread::spawn(move || assert!(inner.push(&event(3)).is_some()));
        let first = wait_and_pop(&ring);
        producer.join().unwrap();
        assert_eq!((first, pop(&ring), pop(&ring)), (1, Some(3), None));
        assert_eq!((ring.len(), ring.is_empty()), (0, true));
    });
}

#[test]
fn model_what_a_slow_consumer_reads_is_not_the_next_rounds() {
    explore(|_| {
        let ring = Arc::new(Ring::new(1).unwrap());
        assert!(ring.push(&event(1)).is_some());
        let inner = ring.clone();
        let consumer = thread::spawn(move || pop(&inner));
        // Two places: the third event lies where the first one was.
        let mut mine = Vec::new();
        for number in 2..=3 {
            while ring.push(&event(number)).is_none() {
                thread::yield_now();
            }
            mine.extend(pop(&ring));
        }
        mine.extend(consumer.join().unwrap());
        mine.extend(pop(&ring));
        mine.sort_unstable();
        assert_eq!(mine, [1, 2, 3], "every one once");
    });
}
