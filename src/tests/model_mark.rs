//! The caller mark: it must name everybody who may be inside.

use super::world::{Mode, Subject, World, explore, explore_many, explore_many_in};
use crate::engine::Handle;

#[test]
fn model_three_callers_are_all_seen() {
    explore_many_in(Mode::Membarrier, |mode| {
        let world = World::new(mode);
        let (record, subject) = (world.record(), Subject::new(1));
        let handle = world.register(record, &subject);
        let callers =
            [(); 3].map(|()| world.spawn(move |world, record| world.try_call(record, handle)));
        assert_eq!(world.engine().unregister(record, handle), Ok(()));
        for caller in callers {
            caller.join().unwrap();
        }
        assert_eq!(subject.destroyed(), 1);
    });
}

#[test]
fn model_a_mark_that_is_someone_elses_already_becomes_many() {
    explore_many(|mode| {
        let world = World::new(mode);
        let (record, subject) = (world.record(), Subject::new(1));
        let handle = world.register(record, &subject);
        // A thread that has called and is gone.
        let gone = world.record();
        world.try_call(gone, handle);
        let callers =
            [(); 2].map(|()| world.spawn(move |world, record| world.try_call(record, handle)));
        assert_eq!(world.engine().unregister(record, handle), Ok(()));
        for caller in callers {
            caller.join().unwrap();
        }
        world.engine().end_thread(gone);
        assert_eq!(subject.destroyed(), 1);
    });
}

#[test]
fn model_the_guessed_next_handle_is_protected_or_refused() {
    explore(|mode| {
        let world = World::new(mode);
        let (record, first, second) = (world.record(), Subject::new(1), Subject::new(2));
        let old = world.register(record, &first);
        let guess = Handle::from_raw(old.to_raw() + (1 << 32));
        let guesser = world.spawn(move |world, record| world.try_call(record, guess));
        assert_eq!(world.engine().unregister(record, old), Ok(()));
        let new = world.register(record, &second);
        assert_eq!(new, guess, "the slot is used again at once");
        assert_eq!(world.engine().unregister(record, new), Ok(()));
        guesser.join().unwrap();
        assert_eq!((first.destroyed(), second.destroyed()), (1, 1));
    });
}
