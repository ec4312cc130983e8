//! A slot, and a record, that serve again.

use super::world::{Subject, World, explore};
use crate::error::Error;

#[test]
fn model_a_stale_handle_never_reaches_the_next_callback() {
    explore(|mode| {
        let world = World::new(mode);
        let (record, first, second) = (world.record(), Subject::new(1), Subject::new(2));
        let old = world.register(record, &first);
        let caller = world.spawn(move |world, record| match world.call(record, old) {
            Ok(number) => assert_eq!(number, 1),
            Err(error) => assert_eq!(error, Error::Stale),
        });
        assert_eq!(world.engine().unregister(record, old), Ok(()));
        let new = world.register(record, &second);
        assert_ne!(new, old);
        assert_eq!(world.call(record, new), Ok(2));
        assert_eq!(world.engine().unregister(record, old), Err(Error::Stale));
        assert_eq!(world.engine().unregister(record, new), Ok(()));
        caller.join().unwrap();
        assert_eq!((first.destroyed(), second.destroyed()), (1, 1));
    });
}

#[test]
fn model_a_record_that_a_new_thread_takes_over_protects_both() {
    explore(|mode| {
        let world = World::new(mode);
        let (record, subject) = (world.record(), Subject::new(1));
        let handle = world.register(record, &subject);
        let one_after_the_other = world.spawn(move |world, record| {
            world.try_call(record, handle);
            let first = world.record();
            world.try_call(first, handle);
            world.engine().end_thread(first);
            let again = world.record();
            assert!(std::ptr::eq(first, again), "recycled");
            world.try_call(again, handle);
            world.engine().end_thread(again);
        });
        assert_eq!(world.engine().unregister(record, handle), Ok(()));
        one_after_the_other.join().unwrap();
        assert_eq!(subject.destroyed(), 1);
    });
}

#[test]
fn model_registrations_of_two_threads_never_share_a_slot() {
    explore(|mode| {
        let world = World::new(mode);
        let (record, mine, theirs) = (world.record(), Subject::new(1), Subject::new(2));
        // Two free slots on the shared list, for two threads to take.
        let handles = [(); 3].map(|()| {
            let subject = Subject::new(0);
            let handle = world.register(record, &subject);
            (handle, subject)
        });
        for (handle, _) in &handles {
            assert_eq!(world.engine().unregister(record, *handle), Ok(()));
        }
        world.engine().end_thread(record);
        let other = world.spawn({
            let theirs = theirs.clone();
            move |world, record| {
                let handle = world.register(record, &theirs);
                assert_eq!(world.call(record, handle), Ok(2));
                assert_eq!(world.engine().unregister(record, handle), Ok(()));
            }
        });
        let record = world.record();
        let handle = world.register(record, &mine);
        assert_eq!(world.call(record, handle), Ok(1));
        assert_eq!(world.engine().unregister(record, handle), Ok(()));
        other.join().unwrap();
        assert_eq!((mine.destroyed(), theirs.destroyed()), (1, 1));
    });
}
