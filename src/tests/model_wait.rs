//! Waiting for the end.

use super::world::{Arc, AtomicU64, Ordering, Subject, World, explore, explore_many};
use crate::engine::{Handle, Patience};
use crate::error::Error;

#[test]
fn model_unregister_wait_returns_after_destroy() {
    explore(|mode| {
        let world = World::new(mode);
        let (record, subject) = (world.record(), Subject::new(1));
        let handle = world.register(record, &subject);
        let caller = world.spawn(move |world, record| world.try_call(record, handle));
        let waited = world.engine().unregister_wait(record, handle, Patience::Forever);
        assert_eq!(waited, Ok(()));
        assert_eq!(subject.destroyed(), 1);
        caller.join().unwrap();
    });
}

#[test]
#[cfg_attr(loom, ignore = "loom polls where threads sleep, two without end; tests/protocol has it")]
fn model_two_that_wait_for_one_callback_both_return() {
    explore(|mode| {
        let world = World::new(mode);
        let (record, subject) = (world.record(), Subject::new(1));
        let handle = world.register(record, &subject);
        let caller = world.spawn(move |world, record| world.try_call(record, handle));
        let waiter = world.spawn(move |world, record| {
            let waited = world.engine().unregister_wait(record, handle, Patience::Forever);
            assert!(matches!(waited, Ok(()) | Err(Error::Stale)));
        });
        let waited = world.engine().unregister_wait(record, handle, Patience::Forever);
        assert!(matches!(waited, Ok(()) | Err(Error::Stale)));
        assert_eq!(subject.destroyed(), 1);
        caller.join().unwrap();
        waiter.join().unwrap();
    });
}

#[test]
fn model_of_two_that_wait_for_each_other_one_is_told_and_none_hangs() {
    explore(|mode| {
        let world = World::new(mode);
        let (record, first, second) = (world.record(), Subject::new(1), Subject::new(2));
        let (a, b) = (world.register(record, &first), world.register(record, &second));
        let inside_b = world.spawn(move |world, record| wait_inside(world, record, b, a));
        wait_inside(&world, record, a, b);
        inside_b.join().unwrap();
        // Whoever was not inside any more when the other revoked: all the same both have ended.
        assert_eq!((first.destroyed(), second.destroyed()), (1, 1));
    });
}

/// From inside `own`, waits for the end of `other`.
fn wait_inside(world: &World, record: &crate::engine::Record, own: Handle, other: Handle) {
    let engine = world.engine();
    let Ok(stay) = engine.enter::<false>(record, own) else {
        // Ended by the other one before we came: then we end theirs without being inside anything.
        let ended = engine.unregister_wait(record, other, Patience::Forever);
        assert!(matches!(ended, Ok(()) | Err(Error::Stale)));
        return;
    };
    let waited = engine.unregister_wait(record, other, Patience::Forever);
    assert!(matches!(waited, Ok(()) | Err(Error::Stale | Error::Deadlock)), "{waited:?}");
    engine.leave(stay).unwrap();
}

#[test]
fn model_a_wait_that_can_end_is_no_deadlock() {
    explore(|mode| {
        let world = World::new(mode);
        let (record, first, second) = (world.record(), Subject::new(1), Subject::new(2));
        let (a, b) = (world.register(record, &first), world.register(record, &second));
        // Calls b and leaves it, and only then waits for a: never inside what the other waits for.
        let passes = world.spawn(move |world, record| {
            world.try_call(record, b);
            let waited = world.engine().unregister_wait(record, a, Patience::Forever);
            assert_eq!(waited, Ok(()));
        });
        let engine = world.engine();
        if let Ok(stay) = engine.enter::<false>(record, a) {
            let waited = engine.unregister_wait(record, b, Patience::Forever);
            assert_eq!(waited, Ok(()));
            engine.leave(stay).unwrap();
        } else {
            assert_eq!(engine.unregister(record, b), Ok(()));
        }
        passes.join().unwrap();
        assert_eq!((first.destroyed(), second.destroyed()), (1, 1));
    });
}

#[test]
fn model_a_cycle_through_a_destroy_function_is_found() {
    use std::ffi::c_void;

    /// What the destroy function of `a` needs to wait for `b`.
    struct Waits {
        world: World,
        other: Handle,
        result: AtomicU64,
    }
    unsafe extern "C-unwind" fn wait_for_other(user_data: *mut c_void) {
        // SAFETY: the test keeps it until all threads have joined.
        let waits = unsafe { &*user_data.cast::<Waits>() };
        let record = waits.world.current_record();
        let waited = waits.world.engine().unregister_wait(record, waits.other, Patience::Forever);
        let code = match waited {
            Ok(()) | Err(Error::Stale) => 1,
            Err(Error::Deadlock) => 2,
            Err(error) => panic!("{error:?}"),
        };
        waits.result.store(code, Ordering::Release);
    }

    explore(|mode| {
        let world = World::new(mode);
        let (record, subject) = (world.record(), Subject::new(2));
        let b = world.register(record, &subject);
        let waits = Arc::new(Waits { world: world.clone(), other: b, result: AtomicU64::new(0) });
        let a = world.register_with(record, &*waits, wait_for_other);
        // Inside b, waits for a; the other thread runs a's destroy function, which waits for b.
        let inside_b = world.spawn(move |world, record| {
            let engine = world.engine();
            let Ok(stay) = engine.enter::<false>(record, b) else {
                return;
            };
            let waited = engine.unregister_wait(record, a, Patience::Forever);
            assert!(matches!(waited, Ok(()) | Err(Error::Stale | Error::Deadlock)), "{waited:?}");
            engine.leave(stay).unwrap();
        });
        if let Err(error) = world.engine().unregister(record, a) {
            assert_eq!(error, Error::Stale);
        }
        inside_b.join().unwrap();
        let _ = world.engine().unregister(record, b);
        assert_eq!(subject.destroyed(), 1);
        assert_ne!(waits.result.load(Ordering::Acquire), 0, "a was destroyed");
    });
}

#[test]
fn model_a_wait_that_begins_after_a_leave_is_no_deadlock() {
    explore_many(|mode| {
        let world = World::new(mode);
        let (first, second) = (Subject::new(1), Subject::new(2));
        let inside = world.record();
        let a = world.register(inside, &first);
        let b = world.register(inside, &second);
        let pin = world.engine().enter_pin::<false>(inside, b, None).unwrap().pin;
        // Leaves b, and only then waits for a: inside b and waiting, but never at a time.
        let passes = world.spawn_with(inside, move |world, record| {
            let engine = world.engine();
            engine.leave_pin(record, pin).unwrap();
            assert_eq!(engine.unregister_wait(record, a, Patience::Forever), Ok(()));
        });
        let (record, engine) = (world.record(), world.engine());
        if let Ok(stay) = engine.enter::<false>(record, a) {
            assert_eq!(engine.unregister_wait(record, b, Patience::Forever), Ok(()));
            engine.leave(stay).unwrap();
        } else {
            assert_eq!(engine.unregister(record, b), Ok(()));
        }
        passes.join().unwrap();
        assert_eq!((first.destroyed(), second.destroyed()), (1, 1));
    });
}
