//! A closure that any language can call.

use super::function::{Closure, Function, PlainFunction, Returned, Value};
use super::{contained, explained, with_record};
use crate::engine::signature::Signature;
use crate::engine::{self, ColdParts, ENGINE, Handle, METERED, Registration, invoke};
use crate::error::Error;
use crate::{ffi, registry};
use std::ffi::c_void;
use std::marker::PhantomData;

/// A closure that is registered as a callback, and unregistered when this is dropped.
///
/// The closure is dropped exactly once, when nobody is inside it any more: by the drop of this, or on the
/// thread that leaves it last. A panic in it does not pass into C: the caller gets `CBR_ERR_PANIC`, and
/// [`last_error`](super::last_error) its words.
///
/// `F` says how it is called, and is found out from the closure's types:
///
/// ```
/// use callbridge::{Callback, Error};
///
/// let factor = 3;
/// let times = Callback::new(move |a: i32| a * factor)?;
/// assert_eq!(times.call((14,)), Ok(42));
///
/// // Whoever has the handle, in whatever language, can call it as long as it lives.
/// let handle = times.handle();
/// assert_eq!(handle.call::<fn(i32) -> i32>((14,)), Ok(42));
/// drop(times);
/// assert_eq!(handle.call::<fn(i32) -> i32>((14,)), Err(Error::Stale));
/// # Ok::<(), Error>(())
/// ```
///
/// One that C calls with `cbr_call` takes a pointer and returns an `isize`: `|arg: *mut c_void| 0_isize`.
#[derive(Debug)]
#[must_use = "dropped, it is unregistered"]
pub struct Callback<F: Function> {
    handle: Handle,
    called_as: PhantomData<F>,
}

/// What else may be said of a callback before it is registered, see [`Callback::builder`].
#[derive(Clone, Debug)]
#[must_use = "nothing is registered yet"]
pub struct Builder<F: Function> {
    name: String,
    fallback: u64,
    metered: bool,
    called_as: PhantomData<F>,
}

impl<F: Function> Callback<F> {
    /// Registers `closure`. It may be called on any thread, by several at once.
    ///
    /// # Errors
    /// When memory is out, or at 2^28 callbacks.
    pub fn new<C: Closure<F>>(closure: C) -> Result<Self, Error> {
        Self::builder().register(closure)
    }

    /// The same with a name for logs, reports and metrics.
    ///
    /// # Errors
    /// As [`Callback::new`], and when the name is longer than 255 bytes.
    pub fn named<C: Closure<F>>(name: &str, closure: C) -> Result<Self, Error> {
        Self::builder().name(name).register(closure)
    }

    /// Everything that may be said of a callback.
    ///
    /// ```
    /// use callbridge::Callback;
    ///
    /// let parse = Callback::<fn(i32) -> i32>::builder()
    ///     .name("parse")
    ///     .metered()
    ///     .fallback(-1)
    ///     .register(|number: i32| if number < 0 { panic!("no") } else { number })?;
    /// let thunk = parse.thunk()?;
    /// assert_eq!(thunk.call((-5,)), -1);
    /// # Ok::<(), callbridge::Error>(())
    /// ```
    pub fn builder() -> Builder<F> {
        Builder { name: String::new(), fallback: 0, metered: false, called_as: PhantomData }
    }

    /// The handle, to give away: a weak reference that C and Rust can call.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle
    }

    /// Calls it, from inside of another call of it, too.
    ///
    /// # Errors
    /// [`Error::Panic`] if it panicked; [`Error::Stale`] if somebody has unregistered it;
    /// [`Error::Limit`] at 4096 nested calls.
    pub fn call(&self, arguments: F::Arguments) -> Result<F::Output, Error>
    where
        F: PlainFunction,
    {
        // SAFETY: there is no pointer among them.
        unsafe { self.call_with_pointers(arguments) }
    }

    /// [`Callback::call`] for a closure that takes pointers.
    ///
    /// # Safety
    /// They lead to what the closure says it expects.
    ///
    /// # Errors
    /// As [`Callback::call`].
    pub unsafe fn call_with_pointers(&self, arguments: F::Arguments) -> Result<F::Output, Error> {
        with_record("Callback::call", self.handle, |record| {
            let called = invoke::call_typed(&ENGINE, record, self.handle, |function, user_data| {
                // SAFETY: `register` was given a function of this signature with its closure, which the
                // engine keeps alive while we are inside.
                unsafe { F::call(function, user_data, arguments) }
            });
            explained(record, called)
        })
    }

    /// Ends it for everybody, and waits until nobody is inside and the closure is dropped.
    ///
    /// # Errors
    /// [`Error::Deadlock`] from inside itself: then the closure is dropped when that call is over.
    pub fn close(self) -> Result<(), Error> {
        let handle = self.handle;
        std::mem::forget(self);
        with_record("Callback::close", handle, |record| {
            match ENGINE.unregister_wait(record, handle, engine::Patience::Forever) {
                // Somebody else has ended it.
                Err(Error::Stale) => Ok(()),
                ended => ended,
            }
        })
    }
}

impl<F: Function> Drop for Callback<F> {
    fn drop(&mut self) {
        if let Ok(record) = registry::joined() {
            // Stale if somebody else has unregistered it: nothing is left to do.
            let _ = ENGINE.unregister(record, self.handle);
        }
    }
}

impl<F: Function> Builder<F> {
    /// For logs, reports and metrics; at most 255 bytes.
    pub fn name(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// How often it is called, fails, and how long calls take is counted for it alone (`CBR_METERED`).
    pub fn metered(mut self) -> Self {
        self.metered = true;
        self
    }

    /// What its thunks return when it cannot run, or panicked; 0 if nothing is said.
    pub fn fallback(mut self, value: F::Output) -> Self
    where
        F::Output: Value,
    {
        self.fallback = Returned::to_bits(value);
        self
    }

    /// Registers `closure`.
    ///
    /// # Errors
    /// As [`Callback::named`].
    pub fn register<C: Closure<F>>(self, closure: C) -> Result<Callback<F>, Error> {
        with_record("Callback::new", Handle(0), |record| {
            if self.name.len() > engine::NAME_MAX {
                return Err(Error::Invalid("the name is longer than 255 bytes"));
            }
            let closure = Box::into_raw(Box::new(closure));
            let flags = match self.metered {
                true => METERED | u64::from(ffi::CBR_METERED),
                false => 0,
            };
            let (name, fallback) = (self.name.as_str(), self.fallback);
            let new = Registration {
                function: C::trampoline(),
                user_data: closure.cast(),
                destroy: Some(drop_closure::<C>),
                signature: Signature(F::SIGNATURE),
                cold: ColdParts { name, fallback, flags, ..ColdParts::NONE },
            };
            match registry::register(record, &new, false, std::ptr::null()) {
                Ok(handle) => Ok(Callback { handle, called_as: PhantomData }),
                Err(error) => {
                    // SAFETY: from `into_raw` above, and not registered.
                    drop(unsafe { Box::from_raw(closure) });
                    Err(error)
                }
            }
        })
    }
}

unsafe extern "C-unwind" fn drop_closure<C>(closure: *mut c_void) {
    // SAFETY: the engine runs this once, with the pointer that `register` got from `into_raw`.
    contained(|| drop(unsafe { Box::from_raw(closure.cast::<C>()) }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::c_void;
    use std::sync::{Arc, Mutex};

    #[test]
    fn a_panic_reaches_the_caller_as_an_error_with_its_text() {
        let callback = Callback::new(|a: i32| {
            if a > 0 {
                panic!("no {}", "luck")
            }
        })
        .unwrap();
        assert_eq!(callback.call((0,)), Ok(()));
        assert_eq!(callback.call((1,)), Err(Error::Panic));
        assert!(super::super::last_error().contains("no luck"), "{}", super::super::last_error());
    }

    #[test]
    fn a_panic_whose_payload_panics_as_it_goes_stays_inside() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("again");
            }
        }
        let callback = Callback::new(|| std::panic::panic_any(Bomb)).unwrap();
        assert_eq!(callback.call(()), Err::<(), _>(Error::Panic));
    }

    #[test]
    fn the_closure_is_dropped_once_after_the_call_that_ended_it() {
        let data = Arc::new(());
        let seen = data.clone();
        let callback = Arc::new(Mutex::new(None::<Callback<fn() -> usize>>));
        let inner = callback.clone();
        *callback.lock().unwrap() = Some(
            Callback::new(move || {
                drop(inner.lock().unwrap().take());
                Arc::strong_count(&seen)
            })
            .unwrap(),
        );
        let handle = callback.lock().unwrap().as_ref().unwrap().handle();
        assert_eq!(handle.call::<fn() -> usize>(()), Ok(2), "alive while it runs");
        assert_eq!(Arc::strong_count(&data), 1, "dropped when it returned");
        assert_eq!(handle.call::<fn() -> usize>(()), Err(Error::Stale));
    }

    #[test]
    fn a_closure_that_panics_as_it_is_dropped_ends_its_callback() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("as it goes");
            }
        }
        let bomb = Bomb;
        let callback = Callback::new(move || {
            let _ = &bomb;
        });
        assert_eq!(callback.unwrap().close(), Ok(()));
    }

    #[test]
    fn close_waits_for_who_is_inside() {
        let (began, may_end) = (std::sync::Barrier::new(2), std::sync::Barrier::new(2));
        let (began, may_end) = (Arc::new(began), Arc::new(may_end));
        let (began_inside, may_end_inside) = (began.clone(), may_end.clone());
        let over = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let over_inside = over.clone();
        let callback = Callback::new(move || {
            began_inside.wait();
            may_end_inside.wait();
            over_inside.store(true, std::sync::atomic::Ordering::SeqCst);
        })
        .unwrap();
        let handle = callback.handle();
        let caller = std::thread::spawn(move || handle.call::<fn()>(()));
        began.wait();
        let opener = std::thread::spawn(move || {
            while handle.is_live() {
                std::thread::yield_now();
            }
            may_end.wait();
        });
        assert_eq!(callback.close(), Ok(()));
        assert!(over.load(std::sync::atomic::Ordering::SeqCst));
        assert_eq!(caller.join().unwrap(), Ok(()));
        opener.join().unwrap();
    }

    #[test]
    fn arguments_of_every_type_arrive() {
        let callback =
            Callback::new(|a: i8, b: u16, c: f32, d: bool, e: f64, f: i64, g: u32, h: usize| {
                f64::from(a)
                    + f64::from(b)
                    + f64::from(c)
                    + f64::from(u8::from(d))
                    + e
                    + f as f64
                    + f64::from(g)
                    + h as f64
            })
            .unwrap();
        assert_eq!(callback.call((-1, 2, 0.5, true, 4.0, -8, 16, 32)), Ok(46.5));
    }

    #[test]
    fn a_handle_that_is_called_as_something_else_is_refused() {
        let callback = Callback::new(|a: i32| a).unwrap();
        let handle = callback.handle();
        assert!(matches!(handle.call::<fn(i64) -> i32>((1,)), Err(Error::Signature { .. })));
        assert!(matches!(handle.call::<fn(i32)>((1,)), Err(Error::Signature { .. })));
        assert_eq!(Handle::from_raw(7).call::<fn()>(()), Err(Error::Stale));
    }

    #[test]
    fn a_callback_that_c_calls_takes_a_pointer() {
        let callback = Callback::new(|arg: *mut c_void| 2 * arg.addr() as isize).unwrap();
        let mut result = 0;
        let arg = std::ptr::without_provenance_mut(21);
        // SAFETY: the closure takes any pointer.
        let status = unsafe { ffi::cbr_call(callback.handle().to_raw(), arg, &raw mut result) };
        assert_eq!((status, result), (ffi::CBR_OK, 42));
    }

    #[test]
    fn a_name_that_is_too_long_is_refused_and_the_closure_dropped() {
        let data = Arc::new(());
        let inside = data.clone();
        let named = Callback::named(&"x".repeat(256), move || {
            let _ = &inside;
        });
        assert!(matches!(named, Err(Error::Invalid(_))));
        assert_eq!(Arc::strong_count(&data), 1);
    }
}
