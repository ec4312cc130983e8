//! Watching all calls begins and ends while callbacks are registered and called for the first time.

use super::world::{Arc, Mode, Subject, World, explore_many_in};
use crate::engine::Handle;
use crate::engine::check::Level;
use crate::sync::{AtomicU64, Relaxed};

#[test]
fn model_a_callback_that_is_registered_while_all_are_made_special_is_when_it_was_called() {
    explore_many_in(Mode::Membarrier, |mode| {
        let world = World::new(mode);
        let (record, subject) = (world.record(), Subject::new(1));
        let (called, registered) = (subject.clone(), Arc::new(AtomicU64::new(0)));
        let given = registered.clone();
        let caller = world.spawn(move |world, record| {
            let handle = world.register(record, &called);
            assert_eq!(world.call(record, handle), Ok(1));
            given.store(handle.to_raw(), Relaxed);
        });
        world.engine().set_check_level(Level::Thorough);
        caller.join().unwrap();
        let handle = Handle::from_raw(registered.load(Relaxed));
        assert!(world.engine().is_special(handle));
        assert_eq!(world.engine().unregister(record, handle), Ok(()));
    });
}

#[test]
fn model_a_callback_that_is_called_while_watching_ends_is_plain() {
    explore_many_in(Mode::Membarrier, |mode| {
        let world = World::new(mode);
        let (record, subject) = (world.record(), Subject::new(1));
        let handle = world.register(record, &subject);
        let caller = world.spawn(move |world, record| world.try_call(record, handle));
        world.engine().set_check_level(Level::Thorough);
        world.engine().set_check_level(Level::Default);
        caller.join().unwrap();
        assert!(!world.engine().is_special(handle));
        assert_eq!(world.engine().unregister(record, handle), Ok(()));
    });
}
