//! A closure's address, for C functions that take no user_data.

use super::Callback;
use super::function::{Function, PlainFunction};
use super::with_record;
use crate::engine::Handle;
use crate::engine::signature::Signature;
use crate::error::Error;
use crate::features::thunk;
use crate::registry;

/// A plain C function that calls a [`Callback`]. It lives as long as this, and the closure as long as its
/// [`Callback`]; called later, it returns the callback's fallback and does no harm.
///
/// ```
/// use callbridge::Callback;
/// use std::ffi::{c_int, c_void};
///
/// // What libc's qsort is told, with a closure that has something to say of its own.
/// let calls = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
/// let seen = calls.clone();
/// let compare = Callback::new(move |a: *const c_void, b: *const c_void| -> c_int {
///     seen.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
///     # #[allow(clippy::undocumented_unsafe_blocks, reason = "an example")]
///     let (a, b) = unsafe { (*a.cast::<i32>(), *b.cast::<i32>()) };
///     a.cmp(&b) as c_int
/// })?;
/// let thunk = compare.thunk()?;
/// let mut numbers = [3, 1, 2];
/// // C's function is unsafe to call, whatever it is given.
/// unsafe { libc::qsort(numbers.as_mut_ptr().cast(), 3, 4, Some(thunk.function())) };
/// assert_eq!(numbers, [1, 2, 3]);
/// assert!(calls.load(std::sync::atomic::Ordering::Relaxed) >= 2);
/// # Ok::<(), callbridge::Error>(())
/// ```
#[derive(Debug)]
#[must_use = "dropped, its function returns the fallback"]
pub struct Thunk<F: Function> {
    function: F::Pointer,
    thunk: Handle,
}

impl<F: Function> Callback<F> {
    /// Opens a C function that calls this.
    ///
    /// # Errors
    /// [`Error::Stale`] if somebody has unregistered the callback; when memory is out, or at one of the
    /// limits of `cbr_thunk_open`.
    pub fn thunk(&self) -> Result<Thunk<F>, Error> {
        let callback = self.handle();
        with_record("Callback::thunk", callback, |record| {
            let (function, thunk) = thunk::open(record, callback, Signature(F::SIGNATURE), false)?;
            // SAFETY: a thunk of this signature.
            Ok(Thunk { function: unsafe { F::pointer(function) }, thunk })
        })
    }
}

impl<F: Function> Thunk<F> {
    /// The function, to give to C.
    #[must_use]
    pub fn function(&self) -> F::Pointer {
        self.function
    }
}

macro_rules! calls {
    ($(($($name:ident: $type:ident),*),)*) => { $(
        impl<R, $($type),*> Thunk<fn($($type),*) -> R>
        where
            fn($($type),*) -> R: PlainFunction<
                Arguments = ($($type,)*), Output = R, Pointer = unsafe extern "C" fn($($type),*) -> R>,
        {
            /// Calls the function, as C would: what goes wrong is the fallback.
            pub fn call(&self, arguments: ($($type,)*)) -> R {
                let ($($name,)*) = arguments;
                // SAFETY: it is open, and takes no pointers.
                unsafe { (self.function)($($name),*) }
            }
        }
    )* };
}
calls! {
    (),
    (a: A),
    (a: A, b: B),
    (a: A, b: B, c: D),
    (a: A, b: B, c: D, d: E),
    (a: A, b: B, c: D, d: E, e: G),
    (a: A, b: B, c: D, d: E, e: G, f: H),
    (a: A, b: B, c: D, d: E, e: G, f: H, g: I),
    (a: A, b: B, c: D, d: E, e: G, f: H, g: I, h: J),
}

impl<F: Function> Drop for Thunk<F> {
    fn drop(&mut self) {
        if let Ok(record) = registry::joined() {
            // Open until now, so that it cannot fail.
            let _ = thunk::close(record, self.thunk);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thunk_outlives_its_callback_and_returns_the_fallback() {
        let callback =
            Callback::<fn(f32) -> f32>::builder().fallback(-2.5).register(|a: f32| a).unwrap();
        let thunk = callback.thunk().unwrap();
        assert_eq!(thunk.call((1.25,)), 1.25);
        drop(callback);
        assert_eq!(thunk.call((1.25,)), -2.5);
        let function = thunk.function();
        drop(thunk);
        // SAFETY: a closed thunk's function may be called for ever.
        assert_eq!(unsafe { function(1.25) }, -2.5);
    }

    #[test]
    fn a_panic_in_a_thunks_callback_is_the_fallback() {
        let callback = Callback::<fn(i32) -> i16>::builder()
            .fallback(-7)
            .register(|_: i32| -> i16 { panic!("no") })
            .unwrap();
        assert_eq!(callback.thunk().unwrap().call((1,)), -7);
    }
}
