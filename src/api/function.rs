//! Which closures can be callbacks, and how their arguments go through C.

use super::contained;
use crate::engine::signature::{F32, F64, PTR, Signature, VOID};
use std::ffi::c_void;
use std::fmt;

mod sealed {
    pub trait Value {}
    pub trait Returned {}
    pub trait Function {}
    pub trait Closure<F> {}
}

/// A type that C has, too: integers, floating-point numbers, `bool`, pointers.
pub trait Value: Copy + sealed::Value + 'static {
    #[doc(hidden)]
    const CODE: u64;
    #[doc(hidden)]
    const ZERO: Self;
    #[doc(hidden)]
    fn to_bits(self) -> u64;
}

/// A [`Value`] that is no pointer: whoever takes one can do nothing wrong with it that it could not do
/// without.
pub trait Plain: Value {}

/// What a callback may return: a [`Value`], or nothing.
pub trait Returned: Copy + sealed::Returned + 'static {
    #[doc(hidden)]
    const CODE: u64;
    #[doc(hidden)]
    const ZERO: Self;
    #[doc(hidden)]
    fn to_bits(self) -> u64;
}

impl<V: Value> sealed::Returned for V {}
impl<V: Value> Returned for V {
    const CODE: u64 = V::CODE;
    const ZERO: Self = V::ZERO;
    fn to_bits(self) -> u64 {
        Value::to_bits(self)
    }
}
impl sealed::Returned for () {}
impl Returned for () {
    const CODE: u64 = VOID;
    const ZERO: Self = ();
    fn to_bits(self) -> u64 {
        0
    }
}

macro_rules! values {
    ($($type:ty = $code:expr, $zero:expr, |$it:ident| $bits:expr;)*) => { $(
        impl sealed::Value for $type {}
        impl Value for $type {
            const CODE: u64 = $code;
            const ZERO: Self = $zero;
            fn to_bits(self) -> u64 {
                let $it = self;
                $bits
            }
        }
        impl Plain for $type {}
    )* };
}

const IS_64: bool = size_of::<usize>() == 8;
values! {
    bool = 2, false, |it| u64::from(it);
    i8 = 3, 0, |it| it as u64;
    u8 = 4, 0, |it| u64::from(it);
    i16 = 5, 0, |it| it as u64;
    u16 = 6, 0, |it| u64::from(it);
    i32 = 7, 0, |it| it as u64;
    u32 = 8, 0, |it| u64::from(it);
    i64 = 9, 0, |it| it as u64;
    u64 = 10, 0, |it| it;
    isize = if IS_64 { 9 } else { 7 }, 0, |it| it as u64;
    usize = if IS_64 { 10 } else { 8 }, 0, |it| it as u64;
    f32 = F32, 0.0, |it| u64::from(it.to_bits());
    f64 = F64, 0.0, |it| it.to_bits();
}

macro_rules! pointers {
    ($($type:ty, $null:ident;)*) => { $(
        impl<T: 'static> sealed::Value for $type {}
        impl<T: 'static> Value for $type {
            const CODE: u64 = PTR;
            const ZERO: Self = std::ptr::$null();
            fn to_bits(self) -> u64 {
                self.expose_provenance() as u64
            }
        }
    )* };
}
pointers! { *const T, null; *mut T, null_mut; }

/// What a [`Callback`](super::Callback) is called as: `fn(A, B) -> R` with up to eight arguments, each a
/// [`Value`].
pub trait Function: sealed::Function + Send + Sync + fmt::Debug + 'static {
    /// Its arguments as a tuple.
    type Arguments;
    /// What it returns.
    type Output: Returned;
    /// Its C function, as a [`Thunk`](super::Thunk) makes one.
    type Pointer: Copy + Send + Sync + fmt::Debug + 'static;
    #[doc(hidden)]
    const SIGNATURE: u64;
    /// # Safety
    /// `function` is of this signature, and takes `user_data` first.
    #[doc(hidden)]
    unsafe fn call(
        function: *mut (),
        user_data: *mut (),
        arguments: Self::Arguments,
    ) -> Self::Output;
    /// # Safety
    /// `function` is of this signature.
    #[doc(hidden)]
    unsafe fn pointer(function: unsafe extern "C-unwind" fn()) -> Self::Pointer;
}

/// A [`Function`] that takes no pointers, so that it can be called without `unsafe`: of a pointer nobody
/// knows where it should lead.
pub trait PlainFunction: Function {}

/// A closure that can be a callback that is called as `F`. It may run on any thread, on several at once.
///
/// Closures and functions are that, and nothing else can be: what would be called is not checked.
///
/// ```compile_fail,E0277
/// struct Mine;
/// impl callbridge::Closure<fn(i32) -> i32> for Mine {
///     fn trampoline() -> unsafe extern "C-unwind" fn() {
///         extern "C-unwind" fn of_another_signature() {}
///         of_another_signature
///     }
/// }
/// ```
pub trait Closure<F: Function>: sealed::Closure<F> + Send + Sync + 'static {
    /// The C function that takes this closure as its user_data.
    #[doc(hidden)]
    fn trampoline() -> unsafe extern "C-unwind" fn();
}

macro_rules! functions {
    ($(($($name:ident: $type:ident),*),)*) => { $(
        impl<R: Returned, $($type: Value),*> sealed::Function for fn($($type),*) -> R {}
        impl<R: Returned, $($type: Value),*> Function for fn($($type),*) -> R {
            type Arguments = ($($type,)*);
            type Output = R;
            type Pointer = unsafe extern "C" fn($($type),*) -> R;
            const SIGNATURE: u64 = Signature::of(R::CODE, &[$($type::CODE),*]).0;

            unsafe fn call(function: *mut (), user_data: *mut (), arguments: ($($type,)*)) -> R {
                type Called<R, $($type),*> =
                    unsafe extern "C-unwind" fn(*mut c_void, $($type),*) -> R;
                let ($($name,)*) = arguments;
                // SAFETY: the caller's promise.
                unsafe {
                    let function = std::mem::transmute::<*mut (), Called<R, $($type),*>>(function);
                    function(user_data.cast(), $($name),*)
                }
            }

            unsafe fn pointer(function: unsafe extern "C-unwind" fn()) -> Self::Pointer {
                // SAFETY: the caller's promise. (What unwinds through it passes through a C function.)
                unsafe {
                    std::mem::transmute::<unsafe extern "C-unwind" fn(), Self::Pointer>(function)
                }
            }
        }

        impl<R: Returned, $($type: Plain),*> PlainFunction for fn($($type),*) -> R {}

        impl<C, R: Returned, $($type: Value),*> sealed::Closure<fn($($type),*) -> R> for C where
            C: Fn($($type),*) -> R
        {
        }
        impl<C, R: Returned, $($type: Value),*> Closure<fn($($type),*) -> R> for C
        where
            C: Fn($($type),*) -> R + Send + Sync + 'static,
        {
            fn trampoline() -> unsafe extern "C-unwind" fn() {
                unsafe extern "C-unwind" fn run<C, R: Returned, $($type: Value),*>(
                    closure: *mut c_void,
                    $($name: $type),*
                ) -> R
                where
                    C: Fn($($type),*) -> R + Send + Sync + 'static,
                {
                    // SAFETY: `Builder::register` has given it with a closure of this type, which lives
                    // as long as the call.
                    let closure = unsafe { &*closure.cast::<C>() };
                    contained(|| closure($($name),*)).unwrap_or(R::ZERO)
                }
                type Run<R, $($type),*> = unsafe extern "C-unwind" fn(*mut c_void, $($type),*) -> R;
                // SAFETY: kept as a function of any signature and cast back before it is called.
                unsafe {
                    std::mem::transmute::<Run<R, $($type),*>, unsafe extern "C-unwind" fn()>(
                        run::<C, R, $($type),*>,
                    )
                }
            }
        }
    )* };
}
functions! {
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
