//! Explores the in-flight protocol: every interleaving of a few threads, with the store buffers of
//! x86 and with membarrier as it is.
//!
//! This is a model, written beside the library and not of its code: change both together. The
//! hardware is `machine.rs`; the protocol is `calls.rs`, `ending.rs`, `closing.rs`, `closers.rs`,
//! `references.rs` and `waiting.rs`; its promises are `ghost.rs`; who does what at once is
//! `scenarios.rs`; what must not be left out is `mutations.rs`; the search is `program.rs` and
//! `explore.rs`.
//!
//!     cargo test --test protocol -- --nocapture --test-threads=1
//!
//! A violation is printed with the shortest way to it, a line for each step: thread, where it is,
//! what it did and saw. `[store buffer]` is a store that reaches memory.

mod calls;
mod closers;
mod closing;
mod ending;
mod explore;
mod ghost;
mod machine;
mod mutations;
mod program;
mod references;
mod scenarios;
mod thread;
mod values;
mod waiting;

use explore::{Report, explore};
use mutations::{MUTATIONS, Mutation};
use scenarios::{SCENARIOS, Scenario, Setting};

fn run(scenario: &Scenario, fallback: bool, mutation: Option<Mutation>) -> Report {
    explore(Setting::new(scenario, fallback, mutation))
}

fn variant(fallback: bool) -> &'static str {
    if fallback { "fallback" } else { "membarrier" }
}

/// Explores the scenarios of one letter, with and without membarrier.
fn verify(letter: char) {
    for scenario in SCENARIOS.iter().filter(|scenario| scenario.0.starts_with(letter)) {
        for fallback in [false, true] {
            let Report { states, took, violation } = run(scenario, fallback, None);
            let title = format!("{:3} {:10}", scenario.0, variant(fallback));
            println!("{title} {states:8} states {:5.2} s  {}", took.as_secs_f64(), scenario.1);
            if let Some(violation) = violation {
                panic!("{title}: {}\n  {}", violation.what, violation.trace.join("\n  "));
            }
        }
    }
}

macro_rules! groups {
    ($($test:ident $letter:literal)*) => {
        $(#[test]
        fn $test() {
            verify($letter);
        })*

        #[test]
        fn every_scenario_is_in_a_group() {
            let letters = [$($letter),*];
            assert!(SCENARIOS.iter().all(|scenario| scenario.0.starts_with(letters)));
        }
    };
}

groups! {
    a_call_and_a_revoke 'A'
    several_callers 'B'
    a_nested_call_that_revokes 'C'
    a_slot_is_reused 'D'
    references 'E'
    several_revokers 'F'
    a_biased_caller 'G'
    holds 'H'
    a_record_is_recycled 'I'
    waiting_and_deadlocks 'J'
    a_refused_barrier 'L'
    ending_many_at_once 'M'
    closers_of_a_scope_wait 'N'
}

#[test]
fn every_mutation_is_caught() {
    for &(mutation, place, by, what) in MUTATIONS {
        for by in by.split(' ') {
            let scenario = SCENARIOS.iter().find(|scenario| scenario.0 == by);
            let scenario = scenario.expect("a scenario of that name");
            for fallback in [false, true].into_iter().filter(|&fallback| place.applies(fallback)) {
                let Report { states, violation, .. } = run(scenario, fallback, Some(mutation));
                let title = format!("{mutation:?} ({what}), {}", variant(fallback));
                let violation = violation.unwrap_or_else(|| panic!("{title}: not caught by {by}"));
                println!(
                    "{title}: {by}, {} steps, {states} states: {}",
                    violation.trace.len(),
                    violation.what
                );
            }
        }
    }
}
