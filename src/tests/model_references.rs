//! Retain and release at zero.

use super::world::{Subject, World, explore};
use crate::error::Error;

#[test]
fn model_a_retain_that_succeeds_keeps_the_callback_alive() {
    explore(|mode| {
        let world = World::new(mode);
        let (record, subject) = (world.record(), Subject::new(1));
        let handle = world.register(record, &subject);
        let other = world.spawn(move |world, record| {
            if world.engine().retain(handle).is_ok() {
                assert_eq!(world.call(record, handle), Ok(1));
                assert_eq!(world.engine().release(record, handle), Ok(()));
            }
        });
        assert_eq!(world.engine().release(record, handle), Ok(()));
        other.join().unwrap();
        assert_eq!(subject.destroyed(), 1);
        assert_eq!(world.engine().retain(handle), Err(Error::Stale));
    });
}

#[test]
fn model_a_release_and_an_unregister_at_once_end_it_once() {
    explore(|mode| {
        let world = World::new(mode);
        let (record, subject) = (world.record(), Subject::new(1));
        let handle = world.register(record, &subject);
        let engine = world.engine();
        assert_eq!(engine.retain(handle), Ok(()));
        let releaser = world.spawn(move |world, record| {
            for _ in 0..2 {
                if let Err(error) = world.engine().release(record, handle) {
                    assert_eq!(error, Error::Stale);
                }
            }
        });
        if let Err(error) = engine.unregister(record, handle) {
            assert_eq!(error, Error::Stale);
        }
        releaser.join().unwrap();
        assert_eq!(subject.destroyed(), 1);
    });
}

#[test]
fn model_of_two_that_end_what_a_third_one_has_called_one_does() {
    explore(|mode| {
        let world = World::new(mode);
        let (record, subject) = (world.record(), Subject::new(1));
        let handle = world.register(record, &subject);
        // Called by a thread that is gone: the end takes no short cut.
        let gone = world.record();
        world.try_call(gone, handle);
        let other = world.spawn(move |world, record| {
            let ended = world.engine().unregister(record, handle);
            assert!(matches!(ended, Ok(()) | Err(Error::Stale)), "{ended:?}");
        });
        let ended = world.engine().unregister(record, handle);
        assert!(matches!(ended, Ok(()) | Err(Error::Stale)), "{ended:?}");
        other.join().unwrap();
        world.engine().end_thread(gone);
        assert_eq!(subject.destroyed(), 1);
    });
}

#[test]
fn model_a_retain_of_what_a_third_one_has_called_keeps_it_alive() {
    explore(|mode| {
        let world = World::new(mode);
        let (record, subject) = (world.record(), Subject::new(1));
        let handle = world.register(record, &subject);
        let gone = world.record();
        world.try_call(gone, handle);
        let other = world.spawn(move |world, record| {
            if world.engine().retain(handle).is_ok() {
                assert_eq!(world.call(record, handle), Ok(1), "retained");
                assert_eq!(world.engine().release(record, handle), Ok(()));
            }
        });
        assert_eq!(world.engine().release(record, handle), Ok(()));
        other.join().unwrap();
        world.engine().end_thread(gone);
        assert_eq!(subject.destroyed(), 1);
    });
}
