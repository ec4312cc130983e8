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
