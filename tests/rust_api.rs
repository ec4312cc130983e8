//! The Rust surface as a program without `unsafe` sees it: what it may do, however odd, does no harm.

#![forbid(unsafe_code)]

use callbridge::{
    Builder, Callback, Error, Function, Handle, Listener, Policy, Queue, Sender, Thunk,
};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

const NOW: Option<Duration> = Some(Duration::ZERO);

/// Counts its drops.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, SeqCst);
    }
}

/// Panics as it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("as it goes");
    }
}

#[test]
fn all_types_may_be_sent_and_shared_whatever_the_signature() {
    fn shared<T: Send + Sync + std::fmt::Debug>(_: &T) {}
    fn of_any<F: Function>(callback: Callback<F>) {
        let thunk: Thunk<F> = callback.thunk().unwrap();
        let builder: Builder<F> = Callback::<F>::builder();
        shared(&(&callback, &thunk, builder, callback.handle()));
        let function = thunk.function();
        let (called, handle): (Arc<Mutex<Option<Handle>>>, _) = (Arc::default(), callback.handle());
        let told = called.clone();
        std::thread::spawn(move || {
            *told.lock().unwrap() = Some(callback.handle());
            drop((callback, thunk, function));
        })
        .join()
        .unwrap();
        assert_eq!(*called.lock().unwrap(), Some(handle));
        assert!(!handle.is_live(), "dropped on the other thread");
    }
    of_any(Callback::new(|| ()).unwrap());
    of_any(Callback::new(|a: *const u8, b: f64| a.is_null() && b > 0.0).unwrap());
    let queue = Queue::new().unwrap();
    let listener: Listener<u8> = queue.listen(|_| ()).unwrap();
    let sender: Sender<u8> = listener.sender();
    shared(&(queue, listener, sender));
}

#[test]
fn a_handle_is_not_called_as_something_else_at_any_check_level() {
    let callback = Callback::new(|a: i32| a).unwrap();
    let metered = Callback::<fn(i32) -> i32>::builder().metered().register(|a: i32| a).unwrap();
    for level in [0, 2, 1] {
        callbridge::cbr_set_check(level);
        for handle in [callback.handle(), metered.handle()] {
            let called = handle.call::<fn(f64) -> f64>((1.0,));
            assert!(matches!(called, Err(Error::Signature { .. })), "{level}: {called:?}");
            assert_eq!(handle.call::<fn(i32) -> i32>((3,)), Ok(3));
        }
    }
}

#[test]
fn a_panic_whose_payloads_panic_as_they_go_stays_inside() {
    struct Outer;
    impl Drop for Outer {
        fn drop(&mut self) {
            std::panic::panic_any(Bomb);
        }
    }
    let callback = Callback::new(|_: i32| -> i16 { std::panic::panic_any(Outer) }).unwrap();
    assert_eq!(callback.call((1,)), Err(Error::Panic));
    assert_eq!(callback.thunk().unwrap().call((1,)), 0);
}

#[test]
fn a_value_that_panics_as_it_is_dropped_is_not_the_posters_failure() {
    let queue = Queue::builder().capacity(1).policy(Policy::DropOldest).open().unwrap();
    let listener = queue.listen(std::mem::forget::<Bomb>).unwrap();
    let sender = listener.sender();
    let poster = Callback::new(move || {
        assert!(sender.post(Bomb).is_ok());
        assert!(sender.post(Bomb).is_ok(), "displaces the first");
    });
    assert_eq!(poster.unwrap().call(()), Ok(()));
    let queue = Mutex::new(Some(queue));
    let closer = Callback::new(move || drop(queue.lock().unwrap().take()));
    assert_eq!(closer.unwrap().call(()), Ok(()), "the second goes with the queue");
}

#[test]
fn a_listener_that_posts_to_its_own_full_queue_does_not_hang() {
    let queue = Queue::builder().capacity(1).policy(Policy::Block).open().unwrap();
    let itself: Arc<OnceLock<Sender<u8>>> = Arc::default();
    let posted = Arc::new(Mutex::new(Vec::new()));
    let (inside, posts) = (itself.clone(), posted.clone());
    let listener = queue.listen(move |_| {
        for number in [1, 2] {
            let result = inside.get().unwrap().post(number);
            posts.lock().unwrap().push(result.map_err(|refused| (refused.error, refused.value)));
        }
    });
    let listener = listener.unwrap();
    assert!(itself.set(listener.sender()).is_ok());
    listener.post(0).unwrap();
    assert_eq!(queue.dispatch(1, NOW), Ok(1));
    assert_eq!(*posted.lock().unwrap(), [Ok(()), Err((Error::Deadlock, 2))]);
}

#[test]
fn a_thread_local_callback_ends_with_its_thread() {
    struct Late(Callback<fn() -> i32>, Queue);
    impl Drop for Late {
        fn drop(&mut self) {
            assert_eq!(self.0.call(()), Ok(5));
            assert_eq!(self.1.len(), Ok(0));
            assert_eq!(Callback::new(|| 3).unwrap().call(()), Ok(3));
        }
    }
    thread_local! { static LATE: OnceLock<Late> = const { OnceLock::new() } }
    let dropped = Arc::new(AtomicUsize::new(0));
    let counted = Counted(dropped.clone());
    let thread = std::thread::spawn(move || {
        // Its destructor is known before the thread has used the library.
        LATE.with(|late| {
            let callback = Callback::new(move || {
                let _ = &counted;
                5
            });
            let _ = late.set(Late(callback.unwrap(), Queue::new().unwrap()));
        });
    });
    thread.join().unwrap();
    assert_eq!(dropped.load(SeqCst), 1);
}

#[test]
fn values_of_any_size_and_alignment_arrive() {
    #[repr(align(64))]
    struct Wide(usize);
    let queue = Queue::new().unwrap();
    let sum = Arc::new(AtomicUsize::new(0));
    let (of_wide, of_nothing, of_nested) = (sum.clone(), sum.clone(), sum.clone());
    let wide = queue.listen(move |it: Wide| {
        assert!((&raw const it).addr().is_multiple_of(64));
        of_wide.fetch_add(it.0, SeqCst);
    });
    let nothing = queue.listen(move |()| {
        of_nothing.fetch_add(10, SeqCst);
    });
    let nested = queue.listen(move |it: Option<Option<Box<i32>>>| {
        of_nested.fetch_add(if it.is_some() { 100 } else { 1000 }, SeqCst);
    });
    let (wide, nothing, nested) = (wide.unwrap(), nothing.unwrap(), nested.unwrap());
    wide.post(Wide(1)).unwrap();
    nothing.sender().post_within((), Duration::MAX).unwrap();
    nested.post(Some(None)).unwrap();
    nested.post(None).unwrap();
    assert_eq!(queue.dispatch(0, Some(Duration::MAX)), Ok(4));
    assert_eq!(sum.load(SeqCst), 1111);
}

#[test]
fn a_dropped_value_may_post_and_drop_the_queue() {
    struct Last {
        posts: Option<Sender<Last>>,
        drops: Option<Arc<Mutex<Option<Queue>>>>,
        counted: Arc<AtomicUsize>,
    }
    impl Drop for Last {
        fn drop(&mut self) {
            self.counted.fetch_add(1, SeqCst);
            let counted = self.counted.clone();
            if let Some(sender) = self.posts.take() {
                let _ = sender.post(Last { posts: None, drops: None, counted });
            }
            if let Some(queue) = self.drops.take() {
                let queue = queue.lock().unwrap().take();
                drop(queue);
            }
        }
    }
    for coalesce in [false, true] {
        let builder = Queue::builder().capacity(1).policy(Policy::DropOldest);
        let queue = if coalesce { builder.coalesce() } else { builder }.open().unwrap();
        let listener = queue.listen(drop::<Last>).unwrap();
        let queue = Arc::new(Mutex::new(Some(queue)));
        let dropped = Arc::new(AtomicUsize::new(0));
        let counted = dropped.clone();
        let posts = Some(listener.sender());
        listener.post(Last { posts, drops: None, counted: counted.clone() }).unwrap();
        // Displaces the first, which posts a third as it goes, which displaces this, which drops the queue.
        listener.post(Last { posts: None, drops: Some(queue.clone()), counted }).unwrap();
        assert!(queue.lock().unwrap().is_none());
        assert_eq!(dropped.load(SeqCst), 3, "coalesce: {coalesce}");
    }
}
