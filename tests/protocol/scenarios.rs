//! The situations to explore: who does what at once.
//!
//! A slot is `a`, `b` or `c`, live and called by nobody at the start; `a'` is its next occupant.
//! What is unregistered, revoked, released or waited for must have been destroyed in the end.

use std::rc::Rc;

use crate::closers::{MEMBERS, SCOPE};
use crate::closing::SET;
use crate::machine::{Kind, Loc, Machine, State, THREADS};
use crate::mutations::Mutation;
use crate::program::{Pack, Program, Running};
use crate::thread::{Rules, Thread, cells};
use crate::values::{Handle, mark, word};
use crate::waiting::Outcome;

/// Name, what is at stake, the threads. `T@0` has record 0, which others may have, too. Before the
/// threads: `a:MANY` or `a:0` for a mark at the start, `refused` for a heavy barrier that fails,
/// `~a` for what destroy does, `owns a` if the scope c owns a. `close` ends a and b at once; `close c`
/// closes the scope, `quit c` is unwound out of that, `detach c` runs its detach function. A verb with
/// `?` is done only if the last hold, retain or hearing went well.
pub(crate) struct Scenario(pub(crate) &'static str, pub(crate) &'static str, &'static str);

/// The letters are the groups of the tests.
#[rustfmt::skip]
pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario("A1", "one caller", "T: call a, call a | R: unregister a"),
    Scenario("A2", "no call begins once unregister has returned, here or where it was told",
        "T: call a | R: unregister a, tell, refused a | U: hear, refused a"),
    Scenario("A3", "the same after an unregister that came second",
        "T: call a | R: unregister a | Q: unregister a, refused a"),
    Scenario("B1", "two callers, the first ever", "T: call a | U: call a | R: unregister a"),
    Scenario("B2", "two callers, after many", "a:MANY | T: call a | U: call a | R: unregister a"),
    Scenario("B3", "two callers, after the revoker",
        "a:2 | T: call a | U: call a | R: unregister a"),
    Scenario("B4", "two callers, after one of them",
        "a:0 | T: call a | U: call a | R: unregister a"),
    Scenario("B5", "three callers, after the revoker",
        "a:3 | T: call a | U: call a | V: call a | R: revoke a"),
    Scenario("C1", "a revoke inside a nested call, another caller",
        "T: enter a, enter a, unregister a, run a, leave a, run a, leave a | U: call a"),
    Scenario("C2", "a revoke inside a nested call, another revoker",
        "T: enter a, enter a, unregister a, run a, leave a, run a, leave a | R: unregister a"),
    Scenario("C3", "a nested call, a revoker",
        "T: enter a, enter a, run a, leave a, run a, leave a, call a | R: unregister a"),
    Scenario("C4", "a revoke inside a nested call, another caller, another revoker",
        "T: enter a, enter a, unregister a, run a, leave a, run a, leave a | U: call a \
         | R: unregister a"),
    Scenario("D1", "a stalled old handle, a caller of the next occupant",
        "T: call a | U: given a', call a' | R: unregister a, register a', unregister a'"),
    Scenario("D2", "two stalled old handles, one caller goes on with the next",
        "T: call a, given a', call a' | U: call a | R: unregister a, register a', unregister a'"),
    Scenario("D3", "a stalled old handle, two callers of the next occupant",
        "T: call a | U: given a', call a' | V: given a', call a' \
         | R: revoke a, register a', revoke a'"),
    Scenario("D4", "a handle can be called as soon as it is handed out",
        "T: call a, call a | R: unregister a, register a' \
         | Q: given a', accepted a', unregister a'"),
    Scenario("D5", "a guessed next handle",
        "T: call a, call a' | R: unregister a, register a', unregister a'"),
    Scenario("D6", "a guessed next handle, a caller who was given it",
        "T: call a' | U: given a', call a' | R: unregister a, register a', unregister a'"),
    Scenario("D7", "a guessed next handle ends while it is registered",
        "R: unregister a, register a', unregister a' | Q: unregister a' \
         | V: register a'', accepted a'', unregister a''"),
    Scenario("D8", "three generations, a caller of each",
        "T: call a | U: given a', call a' | V: given a'', call a'' \
         | R: revoke a, register a', revoke a', register a'', revoke a''"),
    Scenario("E1", "the last release against a retain: who holds a reference can call",
        "P: retain a, accepted? a, release? a | Q: release a | T: call a"),
    Scenario("E2", "the last release, a retain, a revoker, a caller",
        "P: retain a, release? a | Q: release a | R: unregister a | T: call a"),
    Scenario("F1", "two revokers, one caller",
        "T: call a, call a | Q: unregister a | R: unregister a"),
    Scenario("F2", "two revokers, two callers",
        "T: call a | U: call a | Q: release a | R: unregister a"),
    Scenario("H1", "a hold that another thread lets go",
        "T: hold a, tell | U: hear, unhold? a | R: unregister a"),
    Scenario("H2", "a hold that another thread lets go, a caller",
        "T: hold a, tell | U: hear, unhold? a | V: call a | R: unregister a"),
    Scenario("H3", "two holds", "T: hold a, unhold? a | U: hold a, unhold? a | R: unregister a"),
    Scenario("H4", "the holder itself revokes, another thread lets go, a caller",
        "T: hold a, tell, unregister a | U: hear, unhold? a | V: call a"),
    Scenario("H5", "a hold outlives the revoke; the next occupant is held and ends",
        "T: hold a, tell | U: hear, unhold? a \
         | R: unregister a, register a', hold a', unregister a', unhold? a'"),
    Scenario("H6", "a hold let go inside a call, another caller",
        "T: enter a, hold a, unhold? a, leave a | V: call a | R: unregister a"),
    Scenario("I1", "a record goes to the next thread while it is scanned",
        "T@0: take, call a, give | T'@0: take, call a, give | R: unregister a"),
    Scenario("I2", "a thread ends inside a pin; its record goes on with another handle",
        "T@0: take, enter a, run a, end a, give | T'@0: take, call b, call a, give \
         | R: unregister a"),
    Scenario("J1", "a wait for one caller", "T: call a, call a | R: wait a"),
    Scenario("J2", "a wait for two callers", "T: call a | U: call a | R: wait a"),
    Scenario("J3", "two waits for one caller", "T: call a | Q: wait a | R: wait a"),
    Scenario("J4", "two waits, one with a deadline", "T: call a | Q: try a | R: wait a"),
    Scenario("J5", "a late waker of the old occupant",
        "T: call a | U: given a', call a' | R: wait a, register a', wait a'"),
    Scenario("J6", "a late waiter of the old occupant",
        "Q: wait a | U: given a', call a' | R: wait a, register a', wait a'"),
    Scenario("J7", "a wait inside its own callback",
        "T: enter a, stuck a, run a, leave a | U: call a, unregister a"),
    Scenario("J8", "a destroy function that waits for its own callback",
        "~a: stuck a | T: call a | R: unregister a"),
    Scenario("J9", "a cycle of two", "A: enter a, cycle b, leave a | B: enter b, cycle a, leave b"),
    Scenario("J10", "a cycle through a destroy function",
        "~a: cycle b | A: enter b, cycle a, leave b | B: call a"),
    Scenario("J11", "a ring of three",
        "a:0 | b:1 | c:2 | A: enter a, cycle b, leave a | B: enter b, cycle c, leave b \
         | C: enter c, cycle a, leave c"),
    Scenario("J12", "no cycle: who waits has left before",
        "A: enter a, wait b, leave a | B: call b, wait a"),
    Scenario("J13", "no cycle: who is inside has given up its wait",
        "A: enter a, wait b, leave a | B: try a, call b | C: call b"),
    Scenario("J14", "no cycle: who waits again was inside in between",
        "A: enter a, wait b, leave a | B: try a, call b, wait a | C: call b"),
    Scenario("J15", "no cycle of three: one has given up before another began",
        "A: enter a, wait b, leave a | B: enter b, try c, leave b, tell \
         | C: enter c, hear, wait a, leave c"),
    Scenario("G1", "a biased caller", "T: lean a, call a | R: unregister a"),
    Scenario("G2", "a biased caller, another one",
        "T: lean a, call a | U: call a | R: unregister a"),
    Scenario("G3", "two biased callers", "T: lean a, call a | U: lean a, call a | R: revoke a"),
    Scenario("G4", "a bias dropped inside",
        "T: lean a, enter a, call b, leave a | R: unregister a"),
    Scenario("G5", "a bias dropped inside, another caller",
        "T: lean a, enter a, call b, leave a | U: call a | R: unregister a"),
    Scenario("G6", "a biased caller, reuse, a guessed next handle",
        "T: lean a, call a, call a', call a | R: unregister a, register a', unregister a'"),
    Scenario("G7", "a revoke inside a biased call, another caller",
        "T: lean a, enter a, unregister a, leave a | U: call a"),
    Scenario("G8", "a biased thread ends, its record goes on",
        "T@0: take, lean a, call a, give | T'@0: take, call a, give | R: unregister a"),
    Scenario("G9", "a biased holder",
        "T: lean a, hold a, tell | U: hear, unhold? a | R: unregister a"),
    Scenario("G10", "a wait for a biased caller", "T: lean a, call a | U: call a | R: wait a"),
    Scenario("L1", "a refused barrier", "refused | T: call a | R: unregister a | D: drain"),
    Scenario("L2", "a refused barrier, two callers",
        "refused | T: call a | U: call a | R: unregister a | D: drain"),
    Scenario("L3", "a refused barrier, a hold",
        "refused | T: hold a, tell | U: hear, unhold? a | R: unregister a | D: drain"),
    Scenario("L4", "a refused barrier, reuse before the drain comes by",
        "refused | T: call a | U: given a', call a' \
         | R: unregister a, register a', unregister a' | D: drain"),
    Scenario("L5", "a refused barrier, nobody but the waiter to drain",
        "refused | T: call a | R: wait a"),
    Scenario("L6", "a refused barrier, ending many",
        "refused | T: call a | R: close | D: drain"),
    Scenario("M1", "a caller of each", "T: call a | U: call b | R: close"),
    Scenario("M2", "one caller of both", "T: call a, call b, call a | R: close"),
    Scenario("M3", "a nested call of both",
        "T: enter a, enter b, run b, leave b, run a, leave a | R: close"),
    Scenario("M4", "two callers of the last one", "b:0 | T: call b | U: call b | R: close"),
    Scenario("M5", "a biased caller of one, who then calls the other",
        "T: lean a, call a, call b | R: close"),
    Scenario("M6", "a biased caller of each", "T: lean a, call a | U: lean b, call b | R: close"),
    Scenario("M7", "a biased caller and another one of the last one",
        "T: lean b, call b | U: call b | R: close"),
    Scenario("M8", "two close, a caller of both", "T: call a, call b | Q: close | R: close"),
    Scenario("M9", "two close, a biased caller", "T: lean b, call b | Q: close | R: close"),
    Scenario("M10", "one is unregistered meanwhile", "T: call a | Q: unregister a | R: close"),
    Scenario("M11", "one is unregistered meanwhile, a biased caller",
        "T: lean a, call a | Q: unregister a | R: close"),
    Scenario("M12", "one is unregistered meanwhile, two callers",
        "a:0 | T: call a | U: call a | Q: unregister a | R: close"),
    Scenario("M13", "one is unregistered and its slot reused meanwhile",
        "T: call a, call a' | U: given a', accepted a', unregister a' \
         | Q: unregister a, register a' | R: close"),
    Scenario("M14", "a hold that another thread lets go",
        "T: hold b, tell | U: hear, unhold? b | R: close"),
    Scenario("M15", "a hold let go inside a call of the other one",
        "T: enter a, hold b, unhold? b, leave a | R: close"),
    Scenario("M16", "a close inside a nested call, another caller",
        "T: enter b, enter a, close, run a, leave a, run b, leave b | U: call b"),
    Scenario("M17", "a close inside a biased call, another caller",
        "T: lean a, enter a, close, run a, leave a | U: call b, call a"),
    Scenario("M18", "two close inside the calls of each other",
        "T: enter a, close, run a, leave a | U: enter b, close, run b, leave b"),
    Scenario("M19", "a destroy function that calls the other one",
        "~a: call b | T: call a, call b | R: close"),
    Scenario("M20", "no call begins once close has returned",
        "T: call a, call b | R: close, tell, refused b | U: hear, refused a, refused b"),
    Scenario("M21", "a wait for one meanwhile", "T: call b | Q: wait b | R: close"),
    Scenario("M22", "a biased thread ends, its record goes on with the other one",
        "T@0: take, lean a, call a, give | T'@0: take, call b, give | R: close"),
    Scenario("N1", "two closers", "Q: close c | R: close c"),
    Scenario("N2", "three closers", "P: close c | Q: close c | R: close c"),
    Scenario("N3", "two closers, a thread that ends and detaches",
        "T: detach c | Q: close c | R: close c"),
    Scenario("N4", "two closers, a call inside", "owns a | T: call a | Q: close c | R: close c"),
    Scenario("N5", "a closer, a call inside, a thread that ends and detaches",
        "owns a | T: call a | U: detach c | R: close c"),
    Scenario("N6", "a closer, another one that is unwound", "Q: quit c | R: close c"),
    Scenario("N7", "a closer, another one that is unwound, a call inside",
        "owns a | T: call a | Q: quit c | R: close c"),
    Scenario("N8", "two closers, another one that is unwound",
        "P: quit c | Q: close c | R: close c"),
];

type Verb = (&'static str, Handle);

fn handle(text: &str) -> Handle {
    let slot = text.bytes().next().map_or(0, |letter| letter - b'a');
    Handle { slot, generation: text.matches('\'').count() as u8 }
}

fn verbs(script: &'static str) -> Rc<[Verb]> {
    let parts =
        script.split(',').map(|part| part.trim().split_once(' ').unwrap_or((part.trim(), "")));
    parts.map(|(verb, object)| (verb, handle(object))).collect()
}

/// How far a script is: its next verb, whether the last one that says so went well, and the cells
/// of the calls that it is inside (0 outside, 1 refused, else the cell's number + 2).
#[derive(Clone, Copy)]
struct Progress {
    next: u8,
    ok: bool,
    outer: u8,
    inner: u8,
}

impl Pack for Progress {
    fn pack(self) -> u16 {
        let pins = u16::from(self.outer) << 2 | u16::from(self.inner);
        u16::from(self.next) << 5 | pins << 1 | u16::from(self.ok)
    }
    fn unpack(packed: u16) -> Progress {
        let (outer, inner) = ((packed >> 3 & 3) as u8, (packed >> 1 & 3) as u8);
        Progress { next: (packed >> 5) as u8, ok: packed & 1 == 1, outer, inner }
    }
}

fn run(t: Thread, script: Rc<[Verb]>) -> Running {
    Box::pin(async move {
        let start = Progress { next: 0, ok: true, outer: 0, inner: 0 };
        t.port.fold(start, |progress| act(&t, &script, progress)).await;
    })
}

/// Does the next verb of the script.
async fn act(t: &Thread, script: &[Verb], mut now: Progress) -> Option<Progress> {
    let &(verb, h) = script.get(usize::from(now.next))?;
    now.next += 1;
    let (verb, conditional) = verb.strip_suffix('?').map_or((verb, false), |verb| (verb, true));
    if conditional && !now.ok {
        return Some(now);
    }
    let given = |h: Handle| Loc(Kind::Told, h.generation);
    let pin = if now.inner != 0 { &mut now.inner } else { &mut now.outer };
    let inside = pin.checked_sub(2);
    match verb {
        "call" => _ = t.call(h).await,
        "lean" => t.lean(h).await,
        "accepted" => t.expect(t.call(h).await, "a live callback refused a call"),
        "refused" => t.expect(!t.call(h).await, "a call began after unregister had returned"),
        "enter" => {
            let pin = if now.outer == 0 { &mut now.outer } else { &mut now.inner };
            *pin = t.enter(h).await.map_or(1, |cell| cell + 2);
        }
        "run" | "leave" | "end" => {
            if verb != "run" {
                *pin = 0;
            }
            match (verb, inside) {
                ("run", Some(_)) => t.run_callback(h).await,
                ("leave", Some(cell)) => t.leave(h, cell).await,
                ("end", Some(cell)) => t.end_inside(h, cell).await,
                _ => {}
            }
        }
        "hold" => now.ok = t.hold(h).await,
        "unhold" => t.unhold(h).await,
        "retain" => now.ok = t.retain(h).await,
        "release" => t.release(h).await,
        "unregister" => t.unregister(h).await,
        "revoke" => t.revoke(h).await,
        "close" | "quit" if h == SCOPE => t.close_scope(verb == "quit").await,
        "close" => t.close().await,
        "detach" => t.detach().await,
        "register" => t.register(h, given(h)).await,
        "given" => t.until(given(h), 1).await,
        "tell" => t.store(given(h), 1 + u8::from(now.ok)).await,
        "hear" => now.ok = t.until_not(given(h), 0).await == 2,
        "wait" | "try" | "cycle" | "stuck" => {
            let deadlock = t.unregister_wait(h, verb == "try").await == Outcome::Deadlock;
            let possible = verb == "stuck" || verb == "cycle";
            let possible = possible && (inside.is_some() || *pin == 0);
            t.expect(possible || !deadlock, "a deadlock was reported that is none");
            t.expect(deadlock || verb != "stuck" || !possible, "a deadlock was not seen");
        }
        "take" => t.take_record().await,
        "give" => t.give_record_back().await,
        "drain" => t.drain_pending().await,
        _ => unreachable!("no verb: {verb}"),
    }
    Some(now)
}

/// A scenario, ready to be explored.
pub(crate) struct Setting {
    pub(crate) machine: Machine,
    ends: Vec<Handle>,
}

impl Setting {
    pub(crate) fn new(scenario: &Scenario, fallback: bool, mutation: Option<Mutation>) -> Setting {
        let (records, refused, destroy, member) = (0, false, None, None);
        let mut rules = Rules { fallback, mutation, records, refused, destroy, member };
        let mut setting = Setting { machine: Machine::default(), ends: Vec::new() };
        for slot in 0..3 {
            let h = Handle { slot, generation: 0 };
            let mark = mark::new(0, mark::NOBODY);
            let live = [(Kind::Word, word::live(h)), (Kind::Mark, mark), (Kind::UserData, h.id())];
            setting.machine.initial.extend(live.map(|(kind, value)| (Loc(kind, slot), value)));
        }
        let mut threads = Vec::new();
        for part in scenario.2.split('|') {
            let (name, script) = part.split_once(':').unwrap_or((part, ""));
            match (name.trim(), script.trim()) {
                ("refused", _) => rules.refused = true,
                ("owns a", _) => {
                    rules.member = Some(handle("a"));
                    setting.machine.initial.push((MEMBERS, 1));
                    setting.ends.extend(rules.member);
                }
                (name @ ("a" | "b" | "c"), who) => {
                    let who = if who == "MANY" {
                        mark::MANY
                    } else {
                        1 + who.parse::<u8>().expect("a record")
                    };
                    let at = Loc(Kind::Mark, handle(name).slot);
                    setting.machine.initial.push((at, mark::new(0, who)));
                }
                (name, script) => {
                    let script = verbs(script);
                    setting.ends.extend(script.iter().flat_map(ended));
                    if let Some(whose) = name.strip_prefix('~') {
                        rules.destroy =
                            Some((handle(whose), Box::new(move |t| run(t, script.clone()))));
                        continue;
                    }
                    let (name, record) =
                        name.split_once('@').map_or((name, None), |(n, r)| (n, r.parse().ok()));
                    let record = record.unwrap_or(rules.records);
                    rules.records = rules.records.max(record + 1);
                    threads.push((name, record, script));
                }
            }
        }
        let rules = Rc::new(rules);
        for (name, record, script) in threads {
            let rules = rules.clone();
            let body =
                move |port| run(Thread { port, rules: rules.clone(), record }, script.clone());
            setting.machine.programs.push(Program::new(name, Box::new(body)));
        }
        assert!(setting.machine.programs.len() <= THREADS);
        setting
    }

    /// What must hold when no thread can move any more.
    pub(crate) fn at_the_end(&self, state: &State) -> Result<(), &'static str> {
        if !self.machine.finished(state) {
            return Err("HANG: no thread can go on");
        }
        if !self.ends.iter().all(|&h| state.lives.ended(h)) {
            return Err("LOST: revoked, everybody has left, and destroy never ran");
        }
        match (0..THREADS as u8).flat_map(cells).all(|cell| state.memory(cell) == 0) {
            true => Ok(()),
            false => Err("a cell was left set"),
        }
    }
}

/// What must have been destroyed if a script says this.
fn ended(&(verb, h): &Verb) -> Vec<Handle> {
    match verb.trim_end_matches('?') {
        "close" if h != SCOPE => SET.into(),
        "close" | "unregister" | "revoke" | "release" | "wait" | "try" | "cycle" | "stuck" => {
            vec![h]
        }
        _ => Vec::new(),
    }
}
