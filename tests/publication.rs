//! Explores how an event that a plain store publishes is not missed by who goes to sleep: every
//! interleaving of a few threads, with the store buffers of x86 and with membarrier as it is.
//!
//! This is a model, written beside `src/features/queue/ring.rs` (`push_with`, `has_event_before_sleep`) and
//! `signal.rs` (`tell`, `watch`, `lower`) and not of their code: change them together. What loom explores
//! of the same (`src/tests/model_queue.rs`) has a fence for every membarrier, so that it cannot show what
//! would come of leaving one out.

use std::collections::{BTreeSet, VecDeque};

/// The variables of a queue. A place of the ring is taken by moving the tail; its event has then come or
/// not.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Place {
    Tail,
    Event(u8),
    /// 1: somebody watches, and nothing is raised; 0: who brings an event need not tell.
    Watched,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Step {
    /// Moves the tail by a locked instruction, and notes whose the place is.
    Take,
    /// Publishes the event in the place that was taken.
    Publish,
    /// Raises the signal if it is watched and not raised yet.
    Tell,
    /// Says by a locked instruction that who brings an event must tell.
    Watch,
    /// Looks for the oldest event: goes to `Sleep` without one, if no place is taken either.
    LookAtEvent,
    LookAtTail,
    Membarrier,
    LookAgain,
    Sleep,
    Done,
}

use Step::*;

const POSTER: &[Step] = &[Take, Publish, Tell, Done];
const SLEEPER: &[Step] = &[Watch, LookAtEvent, LookAtTail, Membarrier, LookAgain, Sleep, Done];

/// What is left out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Without {
    Nothing,
    Membarrier,
    LookAtTail,
    LookAgain,
    /// The tail is moved by a load and a plain store.
    LockedTake,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Thread {
    program: &'static [Step],
    at: usize,
    place: u8,
    /// Stores that have not reached memory, oldest first.
    buffer: VecDeque<(Place, u8)>,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct State {
    tail: u8,
    events: [u8; 2],
    watched: u8,
    raised: u8,
    threads: Vec<Thread>,
}

impl State {
    fn new(posters: usize) -> Self {
        let thread = |program| Thread { program, at: 0, place: 0, buffer: VecDeque::new() };
        let mut threads = vec![thread(SLEEPER)];
        threads.extend((0..posters).map(|_| thread(POSTER)));
        Self { tail: 0, events: [0; 2], watched: 0, raised: 0, threads }
    }

    fn memory(&mut self, place: Place) -> &mut u8 {
        match place {
            Place::Tail => &mut self.tail,
            Place::Event(number) => &mut self.events[usize::from(number)],
            Place::Watched => &mut self.watched,
        }
    }

    /// What a thread reads: its own stores first.
    fn load(&mut self, thread: usize, place: Place) -> u8 {
        let own = self.threads[thread].buffer.iter().rev().find(|(of, _)| *of == place);
        match own {
            Some((_, value)) => *value,
            None => *self.memory(place),
        }
    }

    fn store(&mut self, thread: usize, place: Place, value: u8) {
        self.threads[thread].buffer.push_back((place, value));
    }

    /// The oldest store of a thread reaches memory.
    fn flush_one(&mut self, thread: usize) {
        if let Some((place, value)) = self.threads[thread].buffer.pop_front() {
            *self.memory(place) = value;
        }
    }

    fn flush(&mut self, thread: usize) {
        while !self.threads[thread].buffer.is_empty() {
            self.flush_one(thread);
        }
    }

    fn step(&mut self, thread: usize, without: Without) {
        let step = self.threads[thread].program[self.threads[thread].at];
        let mut next = self.threads[thread].at + 1;
        let go_to = |step| SLEEPER.iter().position(|it| *it == step).unwrap_or_default();
        match step {
            Take => {
                if without == Without::LockedTake {
                    let tail = self.load(thread, Place::Tail);
                    self.store(thread, Place::Tail, tail + 1);
                    self.threads[thread].place = tail;
                } else {
                    self.flush(thread);
                    self.threads[thread].place = self.tail;
                    self.tail += 1;
                }
            }
            Publish => self.store(thread, Place::Event(self.threads[thread].place), 1),
            Tell => {
                if self.load(thread, Place::Watched) == 1 {
                    // Exchange, then a system call.
                    self.flush(thread);
                    self.watched = 0;
                    self.raised = 1;
                }
            }
            Watch => {
                self.flush(thread);
                self.watched = 1;
            }
            LookAtEvent if self.load(thread, Place::Event(0)) == 1 => next = go_to(Done),
            LookAtEvent => {}
            LookAtTail if without == Without::LookAtTail => next = go_to(Sleep),
            LookAtTail if self.load(thread, Place::Tail) == 0 => next = go_to(Sleep),
            LookAtTail => {}
            Membarrier if without == Without::Membarrier => {}
            Membarrier => (0..self.threads.len()).for_each(|each| self.flush(each)),
            LookAgain if without == Without::LookAgain => {}
            LookAgain if self.load(thread, Place::Event(0)) == 1 => next = go_to(Done),
            LookAgain => {}
            Done => return,
            // Does not go on before it is told.
            Sleep if self.raised == 0 => return,
            Sleep => {}
        }
        self.threads[thread].at = next;
    }

    fn is_at(&self, thread: usize, step: Step) -> bool {
        self.threads[thread].program[self.threads[thread].at] == step
    }

    /// Nothing will change any more, and an event waits while its dispatcher sleeps.
    fn is_missed(&self) -> bool {
        let posters = 1..self.threads.len();
        posters
            .into_iter()
            .all(|each| self.is_at(each, Done) && self.threads[each].buffer.is_empty())
            && self.is_at(0, Sleep)
            && self.raised == 0
            && self.events[0] == 1
    }
}

/// Is there an interleaving in which an event is missed?
fn misses(posters: usize, without: Without) -> bool {
    let mut seen = BTreeSet::new();
    let mut left = vec![State::new(posters)];
    while let Some(state) = left.pop() {
        if state.is_missed() {
            return true;
        }
        for thread in 0..state.threads.len() {
            let mut stepped = state.clone();
            stepped.step(thread, without);
            let mut flushed = state.clone();
            flushed.flush_one(thread);
            for next in [stepped, flushed] {
                if next != state && seen.insert(next.clone()) {
                    left.push(next);
                }
            }
        }
    }
    println!("{posters} posters: {} states", seen.len());
    false
}

#[test]
fn an_event_that_a_plain_store_publishes_is_not_missed() {
    assert!(!misses(1, Without::Nothing));
    assert!(!misses(2, Without::Nothing));
}

#[test]
fn nothing_can_be_left_out() {
    for without in
        [Without::Membarrier, Without::LookAtTail, Without::LookAgain, Without::LockedTake]
    {
        assert!(misses(1, without));
    }
}
