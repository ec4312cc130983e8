//! Hooks: a swap against a call, and two that set once.

use super::world::{Arc, Subject, World, explore};
use crate::engine::invoke;
use crate::error::Error;
use crate::features::hook::Hook;
use std::ptr::null_mut;

#[test]
fn model_a_call_that_meets_a_swap_runs_the_old_or_the_new_callback() {
    explore(|mode| {
        let world = World::new(mode);
        let (record, old, new) = (world.record(), Subject::new(1), Subject::new(2));
        let hook = Arc::new(Hook::new());
        let handles = [world.register(record, &old), world.register(record, &new)];
        let engine = world.engine();
        hook.set_once(engine, record, handles[0]).unwrap();
        // The hook's reference is the only one: the swap ends the old one while it is called.
        engine.release(record, handles[0]).unwrap();
        let called = hook.clone();
        let caller = world.spawn(move |world, record| {
            let result = called.call(world.engine(), record, null_mut());
            let result = result.map_err(|fault| record.explain(fault));
            assert!(matches!(result, Ok(1 | 2)), "{result:?}");
        });
        let swapped = hook.swap(engine, handles[1]).unwrap();
        assert_eq!(swapped, Some(handles[0]));
        engine.release(record, handles[0]).unwrap();
        caller.join().unwrap();
        assert_eq!((old.destroyed(), new.destroyed()), (1, 0));
        assert_eq!(engine.references(handles[1]), Ok(2));
    });
}

#[test]
fn model_of_two_that_set_a_hook_the_first_wins_and_no_reference_is_lost() {
    explore(|mode| {
        let world = World::new(mode);
        let (record, gone, one, two) =
            (world.record(), Subject::new(0), Subject::new(1), Subject::new(2));
        let hook = Arc::new(Hook::new());
        let engine = world.engine();
        // One that has gone counts as none: both may see it there.
        let before = world.register(record, &gone);
        hook.set_once(engine, record, before).unwrap();
        engine.unregister(record, before).unwrap();
        let handles = [world.register(record, &one), world.register(record, &two)];
        let other = hook.clone();
        let setter = world.spawn(move |world, record| {
            let set = other.set_once(world.engine(), record, handles[1]);
            assert!(matches!(set, Ok(()) | Err(Error::Exists)), "{set:?}");
        });
        let set = hook.set_once(engine, record, handles[0]);
        setter.join().unwrap();
        let (winner, loser) = if set.is_ok() { (0, 1) } else { (1, 0) };
        assert_eq!(engine.references(handles[winner]), Ok(2));
        assert_eq!(engine.references(handles[loser]), Ok(1));
        let called = hook.call(engine, record, null_mut()).map_err(|fault| record.explain(fault));
        assert_eq!(called, Ok(winner as isize + 1));
        let _ = invoke::call(engine, record, handles[loser], null_mut());
    });
}
