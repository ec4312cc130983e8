//! What a thread remembers of a table, against a change of the table.

use super::world::{Arc, AtomicU32, AtomicU64, Ordering, World, explore};
use crate::engine::{Handle, Question, Versions};

/// A table of one entry, which the atomic's own order keeps, as a lock would.
struct Table {
    entry: AtomicU64,
    versions: Versions,
    changed: AtomicU32,
}

const QUESTION: Question = Question { scope: Handle::from_raw(0), key: 7, event: 1 };

fn look_up(table: &Table, record: &crate::engine::Record) -> u64 {
    let version = table.versions.current(QUESTION);
    if let Some(handle) = record.memo.recall(QUESTION, version) {
        return handle.to_raw();
    }
    let found = table.entry.load(Ordering::Acquire);
    record.memo.remember(QUESTION, version, Handle::from_raw(found));
    found
}

#[test]
fn model_after_a_change_nobody_remembers_what_was_before() {
    explore(|mode| {
        let world = World::new(mode);
        let table = Arc::new(Table {
            entry: AtomicU64::new(1),
            versions: Versions::new(),
            changed: AtomicU32::new(0),
        });
        let seen = table.clone();
        let reader = world.spawn(move |_, record| {
            look_up(&seen, record);
            let changed = seen.changed.load(Ordering::Acquire) == 1;
            let found = look_up(&seen, record);
            assert!(found == 2 || (found == 1 && !changed), "{found} {changed}");
            assert!(look_up(&seen, record) >= found, "back to what was before");
        });
        table.entry.store(2, Ordering::Release);
        table.versions.count(QUESTION);
        table.changed.store(1, Ordering::Release);
        reader.join().unwrap();
    });
}
