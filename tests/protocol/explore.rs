//! Breadth first through every interleaving. A state is remembered by 128 bits of hash; a violation
//! comes with the shortest way to it.

use std::collections::{HashSet, VecDeque};
use std::hash::{Hash, Hasher};
use std::time::{Duration, Instant};

use crate::machine::{Action, State};
use crate::scenarios::Setting;

struct Fingerprint(u128);

impl Fingerprint {
    fn of(state: &State) -> u128 {
        let mut hasher = Fingerprint(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        state.hash(&mut hasher);
        hasher.0
    }
}

impl Hasher for Fingerprint {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut part = [0; 8];
            part[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(part));
        }
    }
    fn write_u64(&mut self, part: u64) {
        const ODD: u128 = 0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645;
        self.0 = (self.0 ^ u128::from(part)).wrapping_mul(ODD);
        self.0 ^= self.0 >> 67;
    }
    fn finish(&self) -> u64 {
        self.0 as u64
    }
}

pub(crate) struct Violation {
    pub(crate) what: &'static str,
    pub(crate) trace: Vec<String>,
}

pub(crate) struct Report {
    pub(crate) states: usize,
    pub(crate) took: Duration,
    pub(crate) violation: Option<Violation>,
}

type Frontier = VecDeque<(State, u32)>;

pub(crate) fn explore(mut setting: Setting) -> Report {
    let begun = Instant::now();
    // Depth first comes to the late steps soon, and so finds out who writes what.
    search(&mut setting, 20_000, VecDeque::pop_back);
    loop {
        let (states, violation) = search(&mut setting, usize::MAX, VecDeque::pop_front);
        if !setting.machine.misjudged {
            return Report { states, took: begun.elapsed(), violation };
        }
    }
}

fn search(
    setting: &mut Setting,
    limit: usize,
    pop: fn(&mut Frontier) -> Option<(State, u32)>,
) -> (usize, Option<Violation>) {
    let start = setting.machine.start();
    let mut seen = HashSet::new();
    seen.insert(Fingerprint::of(&start));
    // How each state was reached first: from which, by whom, by what.
    let mut origins = vec![(0, 0, Action::Step)];
    let mut frontier = Frontier::from([(start, 0)]);
    let mut found = None;
    while let Some((state, number)) = pop(&mut frontier) {
        let mut stuck = true;
        for thread in 0..setting.machine.programs.len() as u8 {
            for action in [Action::Flush, Action::Step, Action::TimeOut] {
                let Some(next) = setting.machine.apply(&state, thread, action) else {
                    continue;
                };
                stuck = false;
                if next.fault.is_some() || seen.insert(Fingerprint::of(&next.state)) {
                    let reached = origins.len() as u32;
                    origins.push((number, thread, action));
                    found = found.or(next.fault.map(|what| (what, reached)));
                    frontier.push_back((next.state, reached));
                }
            }
        }
        if stuck {
            found = found.or(setting.at_the_end(&state).err().map(|what| (what, number)));
        }
        // While the writers are being found out, a violation can be one of a wrong guess.
        let guessing = setting.machine.misjudged;
        if seen.len() > limit || guessing && limit == usize::MAX || found.is_some() && !guessing {
            break;
        }
    }
    if setting.machine.misjudged {
        return (seen.len(), None);
    }
    let violation = found.map(|(what, mut number)| {
        let mut steps = Vec::new();
        while number != 0 {
            let (from, thread, action) = origins[number as usize];
            steps.push((thread, action));
            number = from;
        }
        let mut state = setting.machine.start();
        let line = |(thread, action)| {
            let next =
                setting.machine.apply(&state, thread, action).expect("the step is possible again");
            let text = setting.machine.describe(&state, thread, action, &next);
            state = next.state;
            text
        };
        Violation { what, trace: steps.into_iter().rev().map(line).collect() }
    });
    (seen.len(), violation)
}
