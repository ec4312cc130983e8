//! References that events own, against the ends of other references.

use super::world::{Subject, World, explore};
use crate::error::Error;

#[test]
fn model_an_event_that_is_posted_while_the_last_one_ends_owns_a_reference() {
    explore(|mode| {
        let world = World::new(mode);
        let (record, subject) = (world.record(), Subject::new(1));
        let handle = world.register(record, &subject);
        let engine = world.engine();
        engine.retain_for_event(record, handle).unwrap();
        let dispatcher = world.spawn(move |world, record| {
            world.engine().release_events(record, handle, 1);
        });
        // The poster owns a reference, posts, and gives its own away: the event's must be enough.
        engine.retain_for_event(record, handle).unwrap();
        engine.release(record, handle).unwrap();
        assert_eq!(world.call(record, handle), Ok(1), "the event keeps it");
        engine.release_events(record, handle, 1);
        dispatcher.join().unwrap();
        assert_eq!(subject.destroyed(), 1, "with the last event");
    });
}

#[test]
fn model_events_of_two_posters_leave_no_reference_behind() {
    explore(|mode| {
        let world = World::new(mode);
        let (record, subject) = (world.record(), Subject::new(1));
        let handle = world.register(record, &subject);
        let poster = world.spawn(move |world, record| {
            let engine = world.engine();
            engine.retain_for_event(record, handle).unwrap();
            engine.release_events(record, handle, 1);
        });
        let engine = world.engine();
        engine.retain_for_event(record, handle).unwrap();
        engine.release_events(record, handle, 1);
        poster.join().unwrap();
        assert_eq!(engine.references(handle), Ok(1));
        assert_eq!(engine.unregister(record, handle), Ok(()));
        assert_eq!(subject.destroyed(), 1);
    });
}

#[test]
fn model_a_post_that_meets_unregister_touches_no_later_callback() {
    explore(|mode| {
        let world = World::new(mode);
        let (record, first, second) = (world.record(), Subject::new(1), Subject::new(2));
        let handle = world.register(record, &first);
        let poster = world.spawn(move |world, record| {
            let engine = world.engine();
            match engine.retain_for_event(record, handle) {
                Ok(()) => engine.release_events(record, handle, 1),
                Err(error) => assert_eq!(error, Error::Stale),
            }
        });
        let engine = world.engine();
        assert_eq!(engine.unregister(record, handle), Ok(()));
        let next = world.register(record, &second);
        engine.retain_for_event(record, next).unwrap();
        assert_eq!(engine.references(next), Ok(2));
        poster.join().unwrap();
        assert_eq!(engine.references(next), Ok(2));
        engine.release_events(record, next, 1);
        assert_eq!(engine.release(record, next), Ok(()));
        assert_eq!((first.destroyed(), second.destroyed()), (1, 1));
    });
}
