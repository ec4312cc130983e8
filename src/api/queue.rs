//! Values of one thread to a closure on another.

use super::{Callback, with_record};
use crate::engine::{Handle, Patience};
use crate::error::Error;
use crate::features::queue::{self, Closing, Options, Payload, dispatch, post};
use crate::registry;
use std::ffi::c_void;
use std::fmt;
use std::marker::PhantomData;
use std::os::fd::{FromRawFd, OwnedFd};
use std::time::Duration;

pub use crate::features::queue::Policy;

/// A bounded queue of events, which any thread posts and whoever calls [`Queue::dispatch`] gets: a loop of
/// its own, or one that polls [`Queue::descriptor`]. Dropped, it is closed, and what waits is dropped.
///
/// ```
/// use callbridge::{Error, Queue};
/// use std::sync::mpsc;
///
/// let queue = Queue::new()?;
/// let (told, heard) = mpsc::channel();
/// let lines = queue.listen(move |line: String| told.send(line).unwrap())?;
///
/// // Any thread posts, and keeps what was not taken.
/// let sender = lines.sender();
/// let poster = std::thread::spawn(move || sender.post("hello".to_owned()));
///
/// assert_eq!(queue.dispatch(1, None)?, 1);
/// assert_eq!(heard.recv().unwrap(), "hello");
/// assert!(poster.join().unwrap().is_ok());
/// drop(queue);
/// let refused = lines.post("late".to_owned()).unwrap_err();
/// assert_eq!((refused.error, refused.value.as_str()), (Error::Closed, "late"));
/// # Ok::<(), Error>(())
/// ```
#[derive(Debug)]
#[must_use = "dropped, it is closed"]
pub struct Queue {
    handle: Handle,
}

/// What may be said of a queue before it is opened, see [`Queue::builder`].
#[derive(Clone, Debug)]
#[must_use = "no queue is open yet"]
pub struct QueueBuilder {
    name: String,
    capacity: usize,
    policy: Policy,
    coalesce: bool,
}

/// A closure that gets what is posted to it, on the thread that dispatches its queue. Dropped, it is gone:
/// what waits for it is dropped when its turn comes.
#[must_use = "dropped, it gets nothing"]
pub struct Listener<T> {
    callback: Callback<fn(*mut c_void) -> isize>,
    sender: Sender<T>,
}

/// Posts to a [`Listener`], from any thread.
pub struct Sender<T> {
    queue: Handle,
    listener: Handle,
    takes: PhantomData<fn(T)>,
}

/// A value that was not posted, and why.
pub struct PostError<T> {
    /// [`Error::Full`]; [`Error::Closed`], or later [`Error::Stale`], if the queue is closed;
    /// [`Error::Stale`] if the listener is gone; [`Error::Timeout`]; [`Error::Deadlock`] if only the
    /// calling thread dispatches the queue, which is full; [`Error::NoMemory`].
    pub error: Error,
    /// The value.
    pub value: T,
}

impl Queue {
    /// Opens a queue with room for 1024 events, which refuses more.
    ///
    /// # Errors
    /// When memory is out, or the process may open no more descriptors.
    pub fn new() -> Result<Self, Error> {
        Self::builder().open()
    }

    /// Everything that may be said of a queue.
    pub fn builder() -> QueueBuilder {
        QueueBuilder { name: String::new(), capacity: 0, policy: Policy::Reject, coalesce: false }
    }

    /// The handle, to give to C.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle
    }

    /// Has `closure` called with every value that is posted to the listener, one after the other in the order
    /// of each poster, or several at once if several threads dispatch. What it panics with is logged and
    /// counted, and the dispatch goes on.
    ///
    /// # Errors
    /// As [`Callback::new`].
    pub fn listen<T, C>(&self, closure: C) -> Result<Listener<T>, Error>
    where
        T: Send + 'static,
        C: Fn(T) + Send + Sync + 'static,
    {
        self.listen_as("", closure)
    }

    /// The same with a name for logs, reports and metrics.
    ///
    /// # Errors
    /// As [`Callback::named`].
    pub fn listen_as<T, C>(&self, name: &str, closure: C) -> Result<Listener<T>, Error>
    where
        T: Send + 'static,
        C: Fn(T) + Send + Sync + 'static,
    {
        let callback = Callback::named(name, move |place: *mut c_void| {
            // SAFETY: nobody but a `Sender<T>` has the handle, and what it posts is this, which nobody
            // else has now.
            let place = unsafe { &mut *place.cast::<Option<T>>() };
            if let Some(value) = place.take() {
                closure(value);
            }
            0_isize
        })?;
        let listener = callback.handle();
        Ok(Listener {
            callback,
            sender: Sender { queue: self.handle, listener, takes: PhantomData },
        })
    }

    /// Calls the closures of up to `max` events that wait, or with 0 of all that wait now. How many.
    /// `patience`: how long to wait for the first one; None: for ever.
    ///
    /// # Errors
    /// [`Error::Empty`] if there was none and it was not to wait, or [`Error::Timeout`]; [`Error::Closed`]
    /// if the queue is closed and nothing is left.
    pub fn dispatch(&self, max: usize, patience: Option<Duration>) -> Result<usize, Error> {
        with_record("Queue::dispatch", self.handle, |record| {
            let patience = patience.map_or(Patience::Forever, Patience::lasting);
            match dispatch::dispatch(record, self.handle, max, patience) {
                (0, Err(error)) => Err(error),
                // What went wrong after them, the next one says.
                (count, _) => Ok(count),
            }
        })
    }

    /// How many events wait.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn len(&self) -> Result<usize, Error> {
        with_record("Queue::len", self.handle, |record| queue::len(record, self.handle))
    }

    /// Does none wait?
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn is_empty(&self) -> Result<bool, Error> {
        self.len().map(|len| len == 0)
    }

    /// A descriptor that is readable while events wait, and for good once the queue is closed: poll it, and
    /// dispatch with a patience of zero when it is readable. Not to be read.
    ///
    /// # Errors
    /// [`Error::System`] if the process may open no more; [`Error::Closed`].
    pub fn descriptor(&self) -> Result<OwnedFd, Error> {
        with_record("Queue::descriptor", self.handle, |record| {
            let descriptor = queue::descriptor(record, self.handle)?;
            // SAFETY: new, and the caller's.
            Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
        })
    }

    /// Takes no more events. What waits can still be dispatched; then [`Queue::dispatch`] gives
    /// [`Error::Closed`].
    ///
    /// # Errors
    /// [`Error::Closed`] if it is closed already.
    pub fn close(&self) -> Result<(), Error> {
        with_record("Queue::close", self.handle, |record| {
            queue::close(record, self.handle, Closing::Drain)
        })
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        if let Ok(record) = registry::joined() {
            // Closed already: all the same.
            let _ = queue::close(record, self.handle, Closing::Discard);
        }
    }
}

impl QueueBuilder {
    /// For logs, reports and metrics; at most 255 bytes.
    pub fn name(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// How many events have room; 0: 1024.
    pub fn capacity(mut self, events: usize) -> Self {
        self.capacity = events;
        self
    }

    /// What a post does when there is no room.
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// A value for a listener that has one waiting replaces that one, in its place.
    pub fn coalesce(mut self) -> Self {
        self.coalesce = true;
        self
    }

    /// Opens the queue.
    ///
    /// # Errors
    /// As [`Queue::new`], and when the name is longer than 255 bytes.
    pub fn open(self) -> Result<Queue, Error> {
        with_record("Queue::open", Handle(0), |record| {
            if self.name.len() > crate::engine::NAME_MAX {
                return Err(Error::Invalid("the name is longer than 255 bytes"));
            }
            let options = Options {
                name: &self.name,
                scope: Handle(0),
                capacity: self.capacity,
                policy: self.policy,
                coalesce: self.coalesce,
                owned: false,
            };
            queue::open(record, &options).map(|handle| Queue { handle })
        })
    }
}

impl<T: Send + 'static> Listener<T> {
    /// See [`Sender::post`].
    ///
    /// # Errors
    /// As [`Sender::post`].
    pub fn post(&self, value: T) -> Result<(), PostError<T>> {
        self.sender.post(value)
    }

    /// What posts to it from elsewhere.
    #[must_use]
    pub fn sender(&self) -> Sender<T> {
        self.sender.clone()
    }

    /// Ends it, and waits until nobody is inside and the closure is dropped.
    ///
    /// # Errors
    /// As [`Callback::close`].
    pub fn close(self) -> Result<(), Error> {
        self.callback.close()
    }
}

impl<T: Send + 'static> Sender<T> {
    /// Has the listener's closure called with `value` by who dispatches the queue. If that is full, its
    /// policy says what happens.
    ///
    /// # Errors
    /// With the value, see [`PostError`].
    pub fn post(&self, value: T) -> Result<(), PostError<T>> {
        self.post_patiently(value, None)
    }

    /// The same, but waits for room, whatever the policy, `patience` at most.
    ///
    /// # Errors
    /// As [`Sender::post`].
    pub fn post_within(&self, value: T, patience: Duration) -> Result<(), PostError<T>> {
        self.post_patiently(value, Some(Patience::lasting(patience)))
    }

    fn post_patiently(&self, value: T, patience: Option<Patience>) -> Result<(), PostError<T>> {
        let place = Box::into_raw(Box::new(Some(value)));
        let free: unsafe extern "C-unwind" fn(*mut c_void) = drop_value::<T>;
        let payload = Payload {
            data: place.cast(),
            len: size_of::<Option<T>>(),
            free: free as *mut (),
            owner: Handle(0),
        };
        let posted = with_record("Sender::post", self.listener, |record| {
            post::post(record, self.queue, self.listener, &payload, patience)
        });
        posted.map_err(|error| {
            // SAFETY: from `into_raw` above, and not taken.
            let place = unsafe { Box::from_raw(place) };
            match *place {
                Some(value) => PostError { error, value },
                None => unreachable!("only the listener takes it"),
            }
        })
    }
}

unsafe extern "C-unwind" fn drop_value<T>(place: *mut c_void) {
    // SAFETY: the queue runs this once, with what `post_patiently` got from `into_raw`.
    super::contained(|| drop(unsafe { Box::from_raw(place.cast::<Option<T>>()) }));
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self { queue: self.queue, listener: self.listener, takes: PhantomData }
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Sender").field("listener", &self.listener).finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Listener<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_tuple("Listener").field(&self.sender.listener).finish()
    }
}

impl<T> fmt::Debug for PostError<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_tuple("PostError").field(&self.error).finish()
    }
}

impl<T> fmt::Display for PostError<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(out)
    }
}

impl<T> std::error::Error for PostError<T> {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    const NOW: Option<Duration> = Some(Duration::ZERO);

    type Heard = Arc<Mutex<Vec<Arc<str>>>>;

    /// A listener that keeps what it hears.
    fn keeper(queue: &Queue) -> (Listener<Arc<str>>, Heard) {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let keeps = heard.clone();
        (queue.listen(move |text| keeps.lock().unwrap().push(text)).unwrap(), heard)
    }

    #[test]
    fn values_arrive_in_order_and_are_moved() {
        let queue = Queue::new().unwrap();
        let (listener, heard) = keeper(&queue);
        let text: Arc<str> = "a".into();
        listener.post(text.clone()).unwrap();
        listener.post("b".into()).unwrap();
        assert_eq!(queue.len(), Ok(2));
        assert_eq!(queue.dispatch(0, NOW), Ok(2));
        assert_eq!(*heard.lock().unwrap(), ["a".into(), "b".into()] as [Arc<str>; 2]);
        assert_eq!(Arc::strong_count(&text), 2);
        assert_eq!(queue.dispatch(0, NOW), Err(Error::Empty));
        assert_eq!(queue.is_empty(), Ok(true));
    }

    #[test]
    fn a_full_queue_gives_the_value_back() {
        let queue = Queue::builder().capacity(1).open().unwrap();
        let (listener, _) = keeper(&queue);
        listener.post("first".into()).unwrap();
        let refused = listener.post("second".into()).unwrap_err();
        assert_eq!((refused.error, &*refused.value), (Error::Full, "second"));
        let late = listener.sender().post_within("third".into(), Duration::from_millis(1));
        assert_eq!(late.unwrap_err().error, Error::Timeout);
    }

    #[test]
    fn what_is_displaced_coalesced_or_left_is_dropped_once() {
        for (policy, coalesce) in [(Policy::DropOldest, false), (Policy::Reject, true)] {
            let builder = Queue::builder().capacity(1).policy(policy);
            let queue = if coalesce { builder.coalesce() } else { builder }.open().unwrap();
            let (listener, heard) = keeper(&queue);
            let texts: [Arc<str>; 3] = ["a".into(), "b".into(), "c".into()];
            listener.post(texts[0].clone()).unwrap();
            listener.post(texts[1].clone()).unwrap();
            assert_eq!(Arc::strong_count(&texts[0]), 1, "displaced");
            assert_eq!(queue.dispatch(0, NOW), Ok(1));
            assert_eq!(*heard.lock().unwrap(), [texts[1].clone()]);
            listener.post(texts[2].clone()).unwrap();
            drop(queue);
            assert_eq!(Arc::strong_count(&texts[2]), 1, "left");
        }
    }

    #[test]
    fn a_listener_that_is_gone_hears_nothing() {
        let queue = Queue::new().unwrap();
        let (listener, heard) = keeper(&queue);
        let (sender, text) = (listener.sender(), Arc::<str>::from("late"));
        sender.post(text.clone()).unwrap();
        assert_eq!(listener.close(), Ok(()));
        assert_eq!(queue.dispatch(0, NOW), Ok(1));
        assert!(heard.lock().unwrap().is_empty());
        assert_eq!(Arc::strong_count(&text), 1);
        assert_eq!(sender.post(text).unwrap_err().error, Error::Stale);
    }

    #[test]
    fn a_listener_that_panics_does_not_stop_the_dispatch() {
        let queue = Queue::new().unwrap();
        let listener = queue.listen_as("odd", |number: u8| assert!(number % 2 == 1)).unwrap();
        for number in 0..4 {
            listener.post(number).unwrap();
        }
        assert_eq!(queue.dispatch(0, NOW), Ok(4));
    }

    #[test]
    fn a_closed_queue_is_emptied_and_then_closed() {
        let queue = Queue::new().unwrap();
        let (listener, heard) = keeper(&queue);
        listener.post("a".into()).unwrap();
        assert_eq!(queue.close(), Ok(()));
        assert_eq!(listener.post("b".into()).unwrap_err().error, Error::Closed);
        assert_eq!(queue.dispatch(0, None), Ok(1));
        assert_eq!(queue.dispatch(0, None), Err(Error::Closed));
        assert_eq!(heard.lock().unwrap().len(), 1);
    }

    #[test]
    fn a_descriptor_is_readable_while_values_wait() {
        let queue = Queue::new().unwrap();
        let (listener, _) = keeper(&queue);
        let descriptor = queue.descriptor().unwrap();
        let is_readable = || {
            let fd = std::os::fd::AsRawFd::as_raw_fd(&descriptor);
            let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
            // SAFETY: one structure.
            unsafe { libc::poll(&raw mut poll, 1, 0) == 1 }
        };
        assert!(!is_readable());
        listener.post("a".into()).unwrap();
        assert!(is_readable());
        queue.dispatch(0, NOW).unwrap();
        assert!(!is_readable());
    }
}
