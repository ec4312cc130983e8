//! Scopes: a close against a registration, a call, another close and a thread's end.

use super::world::{Arc, AtomicU32, Ordering, Subject, World, explore, explore_many};
use crate::engine::ThreadHooks;
use crate::error::Error;
use std::ffi::c_void;

#[test]
fn model_a_registration_that_meets_a_close_is_refused_or_ended_by_it() {
    explore(|mode| {
        let world = World::new(mode);
        let (record, subject) = (world.record(), Subject::new(1));
        let scope = world.engine().open_scope(record, "").unwrap();
        let inner = subject.clone();
        let registrant =
            world.spawn(move |world, record| match world.register_in(record, scope, &inner) {
                Ok(handle) => world.try_call(record, handle),
                Err(error) => {
                    assert!(matches!(error, Error::Closed | Error::Stale), "{error:?}");
                    inner.never_registered();
                }
            });
        world.close(record, scope);
        registrant.join().unwrap();
        assert_eq!(subject.destroyed(), 1, "refused, or destroyed when the close returned");
    });
}

#[test]
fn model_a_close_returns_when_no_call_runs_and_destroy_has_run() {
    explore_many(|mode| {
        let world = World::new(mode);
        let (record, first, second) = (world.record(), Subject::new(1), Subject::new(2));
        let scope = world.engine().open_scope(record, "").unwrap();
        let a = world.register_in(record, scope, &first).unwrap();
        world.register_in(record, scope, &second).unwrap();
        let caller = world.spawn(move |world, record| world.try_call(record, a));
        world.close(record, scope);
        assert_eq!((first.destroyed(), second.destroyed()), (1, 1));
        caller.join().unwrap();
    });
}

#[test]
fn model_a_biased_call_keeps_its_scope_from_closing() {
    explore_many(|mode| {
        let world = World::new(mode);
        let subject = Subject::new(1);
        let record = world.record();
        let scope = world.engine().open_scope(record, "").unwrap();
        let handle = world.register_in(record, scope, &subject).unwrap();
        let caller =
            world.spawn_biased(handle, move |world, record| world.try_call(record, handle));
        let record = world.record();
        world.close(record, scope);
        assert_eq!(subject.destroyed(), 1);
        caller.join().unwrap();
    });
}

#[test]
fn model_an_unregister_and_a_close_end_a_callback_once() {
    explore_many(|mode| {
        let world = World::new(mode);
        let (record, subject) = (world.record(), Subject::new(1));
        let scope = world.engine().open_scope(record, "").unwrap();
        let handle = world.register_in(record, scope, &subject).unwrap();
        let ender = world.spawn(move |world, record| {
            let ended = world.engine().unregister(record, handle);
            assert!(matches!(ended, Ok(()) | Err(Error::Stale)), "{ended:?}");
        });
        world.close(record, scope);
        assert_eq!(subject.destroyed(), 1);
        ender.join().unwrap();
    });
}

#[test]
#[cfg_attr(loom, ignore = "loom polls where threads sleep, two without end")]
fn model_two_that_close_a_scope_both_return_after_its_end() {
    explore(|mode| {
        let world = World::new(mode);
        let (record, subject) = (world.record(), Subject::new(1));
        let scope = world.engine().open_scope(record, "").unwrap();
        let handle = world.register_in(record, scope, &subject).unwrap();
        let caller = world.spawn(move |world, record| world.try_call(record, handle));
        let other = world.spawn(move |world, record| world.close(record, scope));
        world.close(record, scope);
        assert_eq!(subject.destroyed(), 1);
        assert_eq!(world.engine().check_scope(scope), Err(Error::Stale));
        caller.join().unwrap();
        other.join().unwrap();
    });
}

#[test]
fn model_a_thread_is_detached_before_its_scope_is_closed_or_not_at_all() {
    /// What the hooks touch: gone once the scope has closed.
    struct Counts {
        alive: AtomicU32,
        attached: AtomicU32,
        detached: AtomicU32,
    }
    unsafe extern "C-unwind" fn attach(user_data: *mut c_void) -> *mut c_void {
        // SAFETY: the test keeps it until all threads have joined.
        let counts = unsafe { &*user_data.cast::<Counts>() };
        assert_eq!(counts.alive.load(Ordering::Acquire), 1, "attached after the close");
        counts.attached.fetch_add(1, Ordering::AcqRel);
        user_data
    }
    unsafe extern "C-unwind" fn detach(user_data: *mut c_void, token: *mut c_void) {
        assert_eq!(user_data, token);
        // SAFETY: as above.
        let counts = unsafe { &*user_data.cast::<Counts>() };
        assert_eq!(counts.alive.load(Ordering::Acquire), 1, "detached after the close");
        counts.detached.fetch_add(1, Ordering::AcqRel);
    }
    unsafe extern "C-unwind" fn end(user_data: *mut c_void) {
        // SAFETY: as above.
        let counts = unsafe { &*user_data.cast::<Counts>() };
        assert_eq!(counts.alive.swap(0, Ordering::AcqRel), 1, "ended twice");
    }

    explore_many(|mode| {
        let world = World::new(mode);
        let (record, subject) = (world.record(), Subject::new(1));
        let engine = world.engine();
        let scope = engine.open_scope(record, "").unwrap();
        let counts = Arc::new(Counts {
            alive: AtomicU32::new(1),
            attached: AtomicU32::new(0),
            detached: AtomicU32::new(0),
        });
        let user_data = Arc::as_ptr(&counts).cast_mut().cast();
        let hooks = ThreadHooks { attach, detach: Some(detach), user_data, destroy: Some(end) };
        engine.set_thread_hooks(record, scope, hooks).unwrap();
        let handle = world.register_in(record, scope, &subject).unwrap();
        assert_eq!(engine.set_thread_hooks(record, scope, hooks), Err(Error::Exists));
        let caller = world.spawn(move |world, record| world.try_call(record, handle));
        world.close(record, scope);
        assert_eq!(counts.alive.load(Ordering::Acquire), 0);
        caller.join().unwrap();
        let (attached, detached) =
            (counts.attached.load(Ordering::Acquire), counts.detached.load(Ordering::Acquire));
        assert!(attached <= 1 && detached <= attached, "{attached} {detached}");
    });
}
