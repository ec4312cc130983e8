//! The end of a slot's numbers.

use super::world::{Mode, Subject, World};
use crate::error::Error;
use std::collections::HashSet;

#[test]
fn a_slot_whose_generations_are_used_up_is_never_handed_out_again() {
    let world = World::new(Mode::Membarrier);
    world.engine().begin_generations_at(u32::MAX - 1);
    let record = world.record();
    let mut seen = HashSet::new();
    let mut retired = Vec::new();
    for number in 0..200 {
        let subject = Subject::new(number);
        let handle = world.register(record, &subject);
        assert!(seen.insert(handle.to_raw()), "a handle was issued twice");
        assert_ne!(handle.to_raw() >> 32, 0, "generation 0 is what a wrap would give");
        assert_eq!(world.call(record, handle), Ok(number));
        assert_eq!(world.engine().unregister(record, handle), Ok(()));
        assert_eq!(subject.destroyed(), 1);
        retired.push(handle);
    }
    for handle in retired {
        assert_eq!(world.call(record, handle), Err(Error::Stale));
        assert_eq!(world.engine().retain(handle), Err(Error::Stale));
    }
    world.engine().end_thread(record);
}
