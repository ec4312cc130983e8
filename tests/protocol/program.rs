//! Threads as plain async functions, explored as state machines.
//!
//! Every access to shared memory is an `.await`. What a thread has seen so far is its log, and the
//! log is its local state: the function is run again from the top with the log, up to the next
//! access. `scope` wraps a function call: when it returns, its part of the log shrinks to its
//! result, so that two ways through it that come to the same are one state. Nothing else may carry
//! a value out of a scope.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use crate::ghost::Event;
use crate::machine::Op;
use crate::values::Val;

pub(crate) type Running = Pin<Box<dyn Future<Output = ()>>>;

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Entry {
    Seen(Val),
    /// A scope that still runs; its entries follow.
    Open,
    Returned(u16),
}

#[derive(Default)]
struct Tape {
    log: Vec<Entry>,
    /// How much of the log has been replayed.
    at: usize,
    next: Option<Op>,
    path: Vec<String>,
    events: Vec<Event>,
}

impl Tape {
    fn replay(&mut self) -> Option<Entry> {
        let entry = self.log.get(self.at).copied();
        self.at += usize::from(entry.is_some());
        entry
    }

    /// Forgets the log from `from` on, but for `entry`.
    fn shrink(&mut self, from: usize, entry: Option<Entry>) {
        self.log.truncate(from);
        self.log.extend(entry);
        self.at = self.log.len();
    }
}

/// A result that fits into a log.
pub(crate) trait Pack {
    fn pack(self) -> u16;
    fn unpack(packed: u16) -> Self;
}

macro_rules! pack {
    ($($type:ty, $packed:ident => $unpack:expr;)*) => { $(
        impl Pack for $type {
            fn pack(self) -> u16 {
                self as u16
            }
            fn unpack($packed: u16) -> $type {
                $unpack
            }
        }
    )* };
}
pub(crate) use pack;

pack! {
    bool, packed => packed != 0;
    u8, packed => packed as u8;
}

impl Pack for () {
    fn pack(self) -> u16 {
        0
    }
    fn unpack(_: u16) {}
}

impl<T: Pack> Pack for Option<T> {
    fn pack(self) -> u16 {
        self.map_or(0, |value| value.pack() + 1)
    }
    fn unpack(packed: u16) -> Option<T> {
        packed.checked_sub(1).map(T::unpack)
    }
}

/// A thread's way to the machine.
#[derive(Clone, Default)]
pub(crate) struct Port(Rc<RefCell<Tape>>);

impl Port {
    pub(crate) async fn step(&self, op: Op) -> Val {
        poll_fn(|_| {
            let mut tape = self.0.borrow_mut();
            match tape.replay() {
                Some(Entry::Seen(value)) => return Poll::Ready(value),
                Some(other) => unreachable!("{op:?} replayed as {other:?}"),
                None => tape.next = Some(op),
            }
            Poll::Pending
        })
        .await
    }

    pub(crate) fn tell(&self, event: Event) {
        let mut tape = self.0.borrow_mut();
        if tape.at == tape.log.len() {
            tape.events.push(event);
        }
    }

    pub(crate) async fn scope<T: Pack>(&self, name: &str, body: impl Future<Output = T>) -> T {
        let begin = {
            let mut tape = self.0.borrow_mut();
            let begin = tape.at;
            match tape.replay() {
                Some(Entry::Returned(packed)) => return T::unpack(packed),
                Some(Entry::Open) => {}
                Some(other) => unreachable!("{name} replayed as {other:?}"),
                None => tape.shrink(begin, Some(Entry::Open)),
            }
            tape.path.push(name.into());
            begin
        };
        let packed = body.await.pack();
        let mut tape = self.0.borrow_mut();
        tape.path.pop();
        tape.shrink(begin, Some(Entry::Returned(packed)));
        T::unpack(packed)
    }

    /// A loop that ends when `body` returns something. Iterations leave nothing behind.
    pub(crate) async fn repeat<T: Pack, F>(&self, body: impl Fn() -> F) -> T
    where
        F: Future<Output = Option<T>>,
    {
        loop {
            let begin = self.0.borrow().at;
            if let Some(result) = self.scope("", body()).await {
                return result;
            }
            self.0.borrow_mut().shrink(begin, None);
        }
    }

    /// A loop with a state, of which only the last is kept. It ends when `body` returns none.
    pub(crate) async fn fold<T: Pack + Copy, F>(&self, mut state: T, body: impl Fn(T) -> F)
    where
        F: Future<Output = Option<T>>,
    {
        let begin = self.0.borrow().at;
        while let Some(next) = self.scope("", body(state)).await {
            state = next;
            let mut tape = self.0.borrow_mut();
            if tape.at > begin + 1 {
                tape.shrink(begin, Some(Entry::Returned(Some(state).pack())));
            }
        }
    }
}

pub(crate) struct Edge {
    seen: Val,
    pub(crate) to: u16,
    pub(crate) events: Vec<Event>,
}

struct Node {
    log: Vec<Entry>,
    op: Op,
    path: String,
    edges: Vec<Edge>,
}

/// One thread's local states and the steps between them, found as the exploration asks for them.
pub(crate) struct Program {
    pub(crate) name: &'static str,
    body: Box<dyn Fn(Port) -> Running>,
    nodes: Vec<Node>,
    index: HashMap<Vec<Entry>, u16>,
}

impl Program {
    pub(crate) fn new(name: &'static str, body: Box<dyn Fn(Port) -> Running>) -> Program {
        let mut program = Program { name, body, nodes: Vec::new(), index: HashMap::new() };
        let tape = program.run(Vec::new());
        program.node(tape);
        program
    }

    fn run(&self, log: Vec<Entry>) -> Tape {
        let port = Port(Rc::new(RefCell::new(Tape { log, ..Tape::default() })));
        let mut running = (self.body)(port.clone());
        let ended = running.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready();
        let mut tape = port.0.take();
        if ended {
            tape.next = Some(Op::End);
        }
        tape
    }

    fn node(&mut self, tape: Tape) -> u16 {
        if let Some(&known) = self.index.get(&tape.log) {
            return known;
        }
        let again = self.run(tape.log.clone());
        assert_eq!((again.next, &again.log), (tape.next, &tape.log), "a scope leaked a value");
        let names = tape.path.iter().filter(|name| !name.is_empty());
        let path = names.map(|name| format!("{name}: ")).collect();
        let op = tape.next.expect("a thread that has not ended has a next step");
        self.index.insert(tape.log.clone(), self.nodes.len() as u16);
        self.nodes.push(Node { log: tape.log, op, path, edges: Vec::new() });
        self.nodes.len() as u16 - 1
    }

    pub(crate) fn op(&self, node: u16) -> Op {
        self.nodes[usize::from(node)].op
    }

    pub(crate) fn path(&self, node: u16) -> &str {
        &self.nodes[usize::from(node)].path
    }

    /// The step from `node` when its access sees `seen`.
    pub(crate) fn advance(&mut self, node: u16, seen: Val) -> &Edge {
        let node = usize::from(node);
        let known = self.nodes[node].edges.iter().position(|edge| edge.seen == seen);
        let number = known.unwrap_or_else(|| {
            let log = self.nodes[node].log.iter().copied().chain([Entry::Seen(seen)]).collect();
            let mut tape = self.run(log);
            let events = std::mem::take(&mut tape.events);
            let to = self.node(tape);
            self.nodes[node].edges.push(Edge { seen, to, events });
            self.nodes[node].edges.len() - 1
        });
        &self.nodes[node].edges[number]
    }
}
