//! Enter, leave and revoke against each other.

use super::world::{Mode, Subject, World, explore, explore_in, explore_many};
use crate::error::Error;

#[test]
fn model_a_call_runs_with_live_data_or_finds_the_callback_gone() {
    explore(|mode| {
        let world = World::new(mode);
        let (record, subject) = (world.record(), Subject::new(1));
        let handle = world.register(record, &subject);
        let caller = world.spawn(move |world, record| world.try_call(record, handle));
        assert_eq!(world.engine().unregister(record, handle), Ok(()));
        assert_eq!(world.call(record, handle), Err(Error::Stale), "no call after unregister");
        caller.join().unwrap();
        assert_eq!(subject.destroyed(), 1);
    });
}

#[test]
fn model_a_call_that_was_on_its_way_when_another_thread_ends_the_callback() {
    explore(|mode| {
        let world = World::new(mode);
        let (record, subject) = (world.record(), Subject::new(1));
        let handle = world.register(record, &subject);
        // The caller is first, and the one who ends it is not who made it.
        let caller = world.spawn(move |world, record| world.try_call(record, handle));
        let ender = world.spawn(move |world, record| {
            assert_eq!(world.engine().unregister(record, handle), Ok(()));
        });
        caller.join().unwrap();
        ender.join().unwrap();
        assert_eq!(subject.destroyed(), 1);
    });
}

#[test]
fn model_a_biased_call_runs_with_live_data_or_finds_the_callback_gone() {
    explore_in(Mode::Membarrier, |mode| {
        let world = World::new(mode);
        let (record, subject) = (world.record(), Subject::new(1));
        let handle = world.register(record, &subject);
        let caller =
            world.spawn_biased(handle, move |world, record| world.try_call(record, handle));
        assert_eq!(world.engine().unregister(record, handle), Ok(()));
        caller.join().unwrap();
        assert_eq!(subject.destroyed(), 1);
    });
}

#[test]
fn model_a_thread_that_drops_its_bias_shows_the_call_that_it_is_inside() {
    explore_in(Mode::Membarrier, |mode| {
        let world = World::new(mode);
        let (record, subject, other) = (world.record(), Subject::new(1), Subject::new(2));
        let handle = world.register(record, &subject);
        let next = world.register(record, &other);
        let caller = world.spawn_biased(handle, move |world, record| {
            let engine = world.engine();
            if let Ok(stay) = engine.enter::<false>(record, handle) {
                world.try_call(record, next);
                engine.leave(stay).unwrap();
            }
        });
        assert_eq!(world.engine().unregister(record, handle), Ok(()));
        caller.join().unwrap();
        assert_eq!(world.engine().unregister(record, next), Ok(()));
        assert_eq!((subject.destroyed(), other.destroyed()), (1, 1));
    });
}

#[test]
fn model_of_two_leavers_exactly_one_finalizes() {
    explore_many(|mode| {
        let world = World::new(mode);
        let (record, subject) = (world.record(), Subject::new(1));
        let handle = world.register(record, &subject);
        let callers =
            [(); 2].map(|()| world.spawn(move |world, record| world.try_call(record, handle)));
        assert_eq!(world.engine().unregister(record, handle), Ok(()));
        for caller in callers {
            caller.join().unwrap();
        }
        assert_eq!(subject.destroyed(), 1);
    });
}

#[test]
fn model_a_callback_that_ends_itself_is_destroyed_after_its_last_call() {
    explore(|mode| {
        let world = World::new(mode);
        let (record, subject) = (world.record(), Subject::new(1));
        let handle = world.register(record, &subject);
        let caller = world.spawn(move |world, record| world.try_call(record, handle));
        let engine = world.engine();
        let stay = engine.enter::<false>(record, handle).unwrap();
        assert_eq!(engine.unregister(record, handle), Ok(()));
        assert_eq!(subject.destroyed(), 0, "we are inside");
        engine.leave(stay).unwrap();
        caller.join().unwrap();
        assert_eq!(subject.destroyed(), 1);
    });
}

#[test]
fn model_a_nested_call_is_seen_by_a_scan() {
    explore(|mode| {
        let world = World::new(mode);
        let (record, subject, outer) = (world.record(), Subject::new(1), Subject::new(2));
        let handle = world.register(record, &subject);
        let around = world.register(record, &outer);
        let caller = world.spawn(move |world, record| {
            // Deeper than the frames that every scan looks at.
            let stay = world.engine().enter::<false>(record, around).unwrap();
            world.try_call(record, handle);
            world.engine().leave(stay).unwrap();
        });
        assert_eq!(world.engine().unregister(record, handle), Ok(()));
        caller.join().unwrap();
        assert_eq!(world.engine().unregister(record, around), Ok(()));
        assert_eq!((subject.destroyed(), outer.destroyed()), (1, 1));
    });
}

#[test]
fn model_a_hold_keeps_the_data_until_another_thread_leaves_it() {
    explore(|mode| {
        let world = World::new(mode);
        let (record, subject) = (world.record(), Subject::new(1));
        let handle = world.register(record, &subject);
        let engine = world.engine();
        let token = engine.hold(engine.enter::<false>(record, handle).unwrap()).unwrap();
        let held = subject.clone();
        let leaver = world.spawn(move |world, record| {
            assert_eq!(held.destroyed(), 0, "held");
            assert_eq!(world.engine().end_hold(record, token), Ok(()));
            assert_eq!(world.engine().end_hold(record, token), Err(Error::Stale), "left once");
        });
        assert_eq!(engine.unregister(record, handle), Ok(()));
        leaver.join().unwrap();
        assert_eq!(subject.destroyed(), 1);
    });
}

#[test]
fn model_a_hold_that_races_the_end_is_refused_or_keeps_the_data() {
    explore(|mode| {
        let world = World::new(mode);
        let (record, subject) = (world.record(), Subject::new(1));
        let handle = world.register(record, &subject);
        let holder = world.spawn({
            let subject = subject.clone();
            move |world, record| {
                let engine = world.engine();
                let Ok(stay) = engine.enter::<false>(record, handle) else {
                    return;
                };
                let token = engine.hold(stay).unwrap();
                assert_eq!(subject.destroyed(), 0, "held");
                assert_eq!(engine.end_hold(record, token), Ok(()));
            }
        });
        assert_eq!(world.engine().unregister(record, handle), Ok(()));
        holder.join().unwrap();
        assert_eq!(subject.destroyed(), 1);
    });
}

#[test]
fn model_a_thread_that_ends_inside_a_pin_leaves_it() {
    explore(|mode| {
        let world = World::new(mode);
        let (record, subject) = (world.record(), Subject::new(1));
        let handle = world.register(record, &subject);
        let caller = world.spawn(move |world, record| {
            let _ = world.engine().enter_pin::<false>(record, handle, None);
        });
        assert_eq!(world.engine().unregister(record, handle), Ok(()));
        caller.join().unwrap();
        assert_eq!(subject.destroyed(), 1);
    });
}
