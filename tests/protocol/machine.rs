//! A small x86-TSO machine: memory, a FIFO store buffer for each thread, futexes, and membarrier as
//! a promise about buffers.

use std::hash::{Hash, Hasher};

use crate::ghost::Lives;
use crate::program::Program;
use crate::values::{CLOSING, Handle, Val, generation, mark, note, word};

pub(crate) const THREADS: usize = 5;
const BUFFER: usize = 10;

/// What a shared location is for; with the number of a slot or a record it is one location.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Word,
    Mark,
    UserData,
    Holds,
    WaitFlag,
    /// Of a scope: how many callbacks it has, and what its closers sleep on.
    Members,
    Changes,
    /// The two cells of a record.
    Cell,
    CellAbove,
    /// The callback whose calls a thread publishes by a plain store.
    Bias,
    Note,
    InUse,
    /// What a refused barrier left behind.
    Pending,
    /// One thread telling another something outside the library.
    Told,
}
use Kind::*;

const KINDS: [Kind; 14] = [
    Word, Mark, UserData, Holds, WaitFlag, Members, Changes, Cell, CellAbove, Bias, Note, InUse,
    Pending, Told,
];
const LOCATIONS: usize = KINDS.len() * THREADS;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Loc(pub(crate) Kind, pub(crate) u8);

impl Loc {
    fn index(self) -> usize {
        self.0 as usize * THREADS + usize::from(self.1)
    }

    fn from_index(index: usize) -> Loc {
        Loc(KINDS[index / THREADS], (index % THREADS) as u8)
    }

    fn text(self, value: Val) -> String {
        let handle = |h: Option<Handle>| h.map_or("none".into(), |h| h.to_string());
        let high = generation(value);
        match (self.0, mark::who(value)) {
            (Word, _) => {
                let phase =
                    ["FREE", "LIVE", "REVOKED", "FINALIZING"][usize::from(word::phase(value))];
                format!("({high}, {phase}, {})", word::strong(value))
            }
            (Mark, mark::FREE) => format!("({high}, FREE)"),
            (Mark, mark::NOBODY) => format!("({high}, nobody)"),
            (Mark, mark::MANY) => format!("({high}, MANY)"),
            (Mark, who) => format!("({high}, record {})", who - 1),
            (Note, _) => format!("({}, epoch {high})", handle(note::handle(value))),
            (Cell | CellAbove, _) if value == CLOSING => "closing".into(),
            (UserData | Cell | CellAbove | Bias | Pending, _) => handle(Handle::from_id(value)),
            _ => value.to_string(),
        }
    }
}

impl std::fmt::Display for Loc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}[{}]", self.0, self.1)
    }
}

/// One atomic step of a thread. All but loads and stores drain the thread's own buffer, as locked
/// instructions do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Op {
    Load(Loc),
    Store(Loc, Val),
    Swap(Loc, Val),
    Cas {
        at: Loc,
        expect: Val,
        new: Val,
    },
    Add(Loc, Val),
    Fence,
    /// membarrier: returns when every other thread's buffer has been empty at some moment since the
    /// call began. (The interrupt that drains a buffer makes it empty; one that empties by itself
    /// is as good.)
    HeavyBarrier,
    /// Waits for a value, or for any `other`; stands for a loop of loads. Who is `idle` here has
    /// done its work.
    Await {
        at: Loc,
        value: Val,
        other: bool,
        idle: bool,
    },
    /// Sleeps while the bits of `mask` are `expect`.
    FutexWait {
        at: Loc,
        mask: Val,
        expect: Val,
        may_time_out: bool,
    },
    /// Wakes everybody.
    FutexWake(Loc),
    End,
}

#[derive(Clone, Copy, Default)]
struct Local {
    node: u16,
    asleep: bool,
    /// While in a heavy barrier: the threads whose buffers have not been empty yet.
    barrier: u8,
    /// Oldest first; location + 1 in the high byte, 0 where empty.
    buffer: [u16; BUFFER],
}

impl Local {
    fn buffered(&self) -> bool {
        self.buffer[0] != 0
    }
}

impl Hash for Local {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let pack = |parts: &[u16]| parts.iter().fold(0, |all, &part| all << 16 | u64::from(part));
        let flags = u16::from(self.barrier) << 1 | u16::from(self.asleep);
        hasher.write_u64(pack(&[self.node, flags, self.buffer[0], self.buffer[1]]));
        for rest in self.buffer[2..].chunks(4).take_while(|rest| rest[0] != 0) {
            hasher.write_u64(pack(rest));
        }
    }
}

#[derive(Clone, Hash)]
pub(crate) struct State {
    memory: [Val; LOCATIONS],
    pub(crate) lives: Lives,
    threads: [Local; THREADS],
}

impl State {
    pub(crate) fn memory(&self, at: Loc) -> Val {
        self.memory[at.index()]
    }

    /// What a load sees: the thread's own newest store comes before memory.
    fn look(&self, thread: u8, at: Loc) -> Val {
        let tag = at.index() as u16 + 1;
        let mut newest_first = self.local(thread).buffer.iter().rev();
        newest_first
            .find(|&&entry| entry >> 8 == tag)
            .map_or(self.memory(at), |&entry| entry as Val)
    }

    fn local(&self, thread: u8) -> &Local {
        &self.threads[usize::from(thread)]
    }

    fn local_mut(&mut self, thread: u8) -> &mut Local {
        &mut self.threads[usize::from(thread)]
    }

    fn flush_oldest(&mut self, thread: u8) {
        let buffer = &mut self.threads[usize::from(thread)].buffer;
        self.memory[usize::from(buffer[0] >> 8) - 1] = buffer[0] as Val;
        buffer.rotate_left(1);
        buffer[BUFFER - 1] = 0;
    }

    /// The threads, as bits, whose stores are not all in memory.
    fn unflushed(&self) -> u8 {
        (0..THREADS)
            .filter(|&thread| self.threads[thread].buffered())
            .map(|thread| 1 << thread)
            .sum()
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Step,
    /// The oldest buffered store reaches memory.
    Flush,
    TimeOut,
}

/// Where one action led, what it saw, and the promise that it broke.
pub(crate) struct Move {
    pub(crate) state: State,
    pub(crate) fault: Option<&'static str>,
    seen: Val,
}

/// The threads of a scenario and the memory they start from.
#[derive(Default)]
pub(crate) struct Machine {
    pub(crate) programs: Vec<Program>,
    pub(crate) initial: Vec<(Loc, Val)>,
    /// Which threads write a location, as bits, as far as they have been seen to. What nobody else
    /// writes, or only who has ended, a thread loads together with the step before: no one can tell
    /// the difference, and there are fewer states.
    writers: Vec<u8>,
    /// A writer was found that had not been reckoned with: what was explored does not count.
    pub(crate) misjudged: bool,
}

impl Machine {
    pub(crate) fn start(&mut self) -> State {
        self.misjudged = false;
        self.writers.resize(LOCATIONS, 0);
        let (memory, threads) = ([0; LOCATIONS], [Local::default(); THREADS]);
        let mut state = State { memory, lives: Lives::default(), threads };
        for &(at, value) in &self.initial {
            state.memory[at.index()] = value;
        }
        for thread in 0..self.programs.len() as u8 {
            assert_eq!(self.settle(&mut state, thread), None, "before the first step");
        }
        state
    }

    fn op(&self, state: &State, thread: u8) -> Op {
        self.programs[usize::from(thread)].op(state.local(thread).node)
    }

    /// Carries `thread` on to its next step that others can see.
    fn resume(&mut self, state: &mut State, thread: u8, seen: Val) -> Option<&'static str> {
        let local = state.local_mut(thread);
        (local.asleep, local.barrier) = (false, 0);
        let edge = self.programs[usize::from(thread)].advance(local.node, seen);
        local.node = edge.to;
        let fault = edge.events.iter().find_map(|&event| state.lives.apply(event));
        fault.or_else(|| self.settle(state, thread))
    }

    fn settle(&mut self, state: &mut State, thread: u8) -> Option<&'static str> {
        let Op::Load(at) = self.op(state, thread) else { return None };
        let mut others = (0..self.programs.len() as u8).filter(|&other| other != thread);
        let written = others.any(|other| {
            let ended = self.op(state, other) == Op::End && !state.local(other).buffered();
            self.writers[at.index()] >> other & 1 == 1 && !ended
        });
        if written { None } else { self.resume(state, thread, state.look(thread, at)) }
    }

    /// What `action` of `thread` leads to, or None where it is not possible.
    pub(crate) fn apply(&mut self, before: &State, thread: u8, action: Action) -> Option<Move> {
        let op = self.op(before, thread);
        let local = before.local(thread);
        let possible = match (action, op) {
            (Action::Flush, _) => local.buffered(),
            (Action::TimeOut, op) => matches!(op, Op::FutexWait { may_time_out: true, .. }),
            (_, Op::Await { at, value, other, .. }) => (before.look(thread, at) == value) != other,
            (_, op) => op != Op::End && !local.asleep && local.barrier == 0,
        };
        if !possible {
            return None;
        }
        let mut after = Move { state: before.clone(), fault: None, seen: 0 };
        let state = &mut after.state;
        match action {
            Action::Flush => state.flush_oldest(thread),
            Action::TimeOut => after.fault = self.resume(state, thread, 1),
            Action::Step => {
                after.seen = self.execute(state, thread, op);
                match op {
                    Op::HeavyBarrier if state.unflushed() != 0 => {
                        state.local_mut(thread).barrier = state.unflushed();
                    }
                    Op::FutexWait { mask, expect, .. } if after.seen & mask == expect => {
                        state.local_mut(thread).asleep = true;
                    }
                    _ => after.fault = self.resume(state, thread, after.seen),
                }
            }
        }
        after.fault = after.fault.or(self.release_others(state, op));
        Some(after)
    }

    /// The memory side of one step, and the value it sees.
    fn execute(&mut self, state: &mut State, thread: u8, op: Op) -> Val {
        if let Op::Store(at, _) | Op::Swap(at, _) | Op::Cas { at, .. } | Op::Add(at, _) = op {
            let writers = &mut self.writers[at.index()];
            self.misjudged |= *writers >> thread & 1 == 0;
            *writers |= 1 << thread;
        }
        match op {
            Op::Load(at) | Op::Await { at, .. } => return state.look(thread, at),
            Op::Store(at, value) => {
                let free = state.local_mut(thread).buffer.iter_mut().find(|entry| **entry == 0);
                let entry = (at.index() as u16 + 1) << 8 | u16::from(value);
                *free.expect("the store buffer is too short for this scenario") = entry;
                return 0;
            }
            _ => {}
        }
        while state.local(thread).buffered() {
            state.flush_oldest(thread);
        }
        let (at, new): (_, &dyn Fn(Val) -> Val) = match op {
            Op::Swap(at, value) => (at, &move |_| value),
            Op::Cas { at, expect, new } => (at, &move |old| if old == expect { new } else { old }),
            Op::Add(at, value) => (at, &move |old: Val| old.wrapping_add(value)),
            Op::FutexWait { at, .. } => (at, &|old| old),
            _ => return 0,
        };
        let old = state.memory(at);
        state.memory[at.index()] = new(old);
        old
    }

    /// Lets go on who was asleep where `op` woke, or in a barrier that is over by now.
    fn release_others(&mut self, state: &mut State, op: Op) -> Option<&'static str> {
        let mut fault = None;
        for thread in 0..self.programs.len() as u8 {
            let local = *state.local(thread);
            let still = local.barrier & state.unflushed();
            state.local_mut(thread).barrier = still;
            let woken = match (op, self.op(state, thread)) {
                (Op::FutexWake(here), Op::FutexWait { at, .. }) => local.asleep && at == here,
                _ => false,
            };
            fault = fault.or(match woken || local.barrier != 0 && still == 0 {
                true => self.resume(state, thread, 0),
                false => self.settle(state, thread),
            });
        }
        fault
    }

    /// Whether every thread has come to its end, or idles.
    pub(crate) fn finished(&self, state: &State) -> bool {
        let mut ops = (0..self.programs.len() as u8).map(|thread| self.op(state, thread));
        ops.all(|op| matches!(op, Op::End | Op::Await { idle: true, .. }))
    }

    /// One line of a trace: what `action` did in `before`.
    pub(crate) fn describe(
        &self,
        before: &State,
        thread: u8,
        action: Action,
        after: &Move,
    ) -> String {
        let local = before.local(thread);
        let program = &self.programs[usize::from(thread)];
        let (name, seen) = (program.name, after.seen);
        let what = match (action, self.op(before, thread)) {
            (Action::Flush, _) => {
                let at = Loc::from_index(usize::from(local.buffer[0] >> 8) - 1);
                return format!(
                    "{name}: [store buffer] {at} := {}",
                    at.text(local.buffer[0] as Val)
                );
            }
            (Action::TimeOut, _) => "time out".into(),
            (_, Op::Load(at)) => format!("load {at} -> {}", at.text(seen)),
            (_, Op::Store(at, value)) => format!("store {at} := {} -> buffered", at.text(value)),
            (_, Op::Swap(at, value)) => {
                format!("swap {at} := {} -> was {}", at.text(value), at.text(seen))
            }
            (_, Op::Cas { at, expect, new }) => {
                let done = if seen == expect { "done" } else { "FAILED" };
                format!(
                    "compare-exchange {at} := {} -> {done}, was {}",
                    at.text(new),
                    at.text(seen)
                )
            }
            (_, Op::Add(at, value)) => format!("add {at} {:+} -> was {seen}", value as i8),
            (_, Op::Await { at, .. }) => format!("await {at} -> {}", at.text(seen)),
            (_, Op::FutexWait { at, .. }) => format!("futex wait {at} -> is {}", at.text(seen)),
            (_, op) => format!("{op:?}"),
        };
        format!("{name}: {}{what}", program.path(local.node))
    }
}
