//! The one door to atomics: std's, or loom's under `--cfg loom`.
//!
//! The in-flight protocol needs one total order over some accesses of different variables (store
//! buffering). Those go through the `*_sc` methods, so that each can be found, and so that loom,
//! which treats a SeqCst access as acquire/release, gets the fences that it does understand.

#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{
    AtomicPtr, AtomicU16, AtomicU32, AtomicU64, Ordering,
    Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst},
    fence,
};

#[cfg(loom)]
pub(crate) use loom::sync::MutexGuard;
#[cfg(not(loom))]
pub(crate) use std::sync::MutexGuard;

#[cfg(loom)]
use loom::sync::Mutex;
#[cfg(not(loom))]
use std::sync::Mutex;
use std::sync::PoisonError;

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{
    Ordering,
    Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst},
    fence,
};
#[cfg(loom)]
pub(crate) use shadowed::{AtomicPtr, AtomicU32, AtomicU64};

/// loom's atomics, each with a second one that every access exchanges, relaxed, beforehand. loom tries other
/// orders of two accesses only if they conflict, and remembers the last one alone: the load of one thread is
/// forgotten when another one loads and then writes, as every loop around a compare-exchange does. Exchanges
/// all conflict, so that none is forgotten. Relaxed, they order nothing but what fences make them: so every model
/// runs without them as well.
#[cfg(loom)]
pub(crate) mod shadowed {
    use super::Ordering;
    use loom::sync::atomic;

    std::thread_local! {
        /// Not in models of many threads: there it takes too long. (All threads of a model are one of the
        /// process's.)
        pub(crate) static IS_ON: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
    }

    macro_rules! shadowed {
        ($name:ident $(<$of:ident>)?, $value:ty, $($arithmetic:ident)*) => {
            pub(crate) struct $name $(<$of>)? {
                inner: atomic::$name $(<$of>)?,
                shadow: atomic::AtomicU32,
            }

            impl $(<$of>)? $name $(<$of>)? {
                pub(crate) fn new(value: $value) -> Self {
                    Self { inner: atomic::$name::new(value), shadow: atomic::AtomicU32::new(0) }
                }

                fn touch(&self) -> &atomic::$name $(<$of>)? {
                    if IS_ON.get() {
                        // Relaxed: see above.
                        self.shadow.swap(0, Ordering::Relaxed);
                    }
                    &self.inner
                }

                pub(crate) fn load(&self, order: Ordering) -> $value {
                    self.touch().load(order)
                }

                pub(crate) fn store(&self, value: $value, order: Ordering) {
                    self.touch().store(value, order);
                }

                pub(crate) fn swap(&self, value: $value, order: Ordering) -> $value {
                    self.touch().swap(value, order)
                }

                pub(crate) fn compare_exchange(
                    &self,
                    old: $value,
                    new: $value,
                    order: Ordering,
                    failure: Ordering,
                ) -> Result<$value, $value> {
                    self.touch().compare_exchange(old, new, order, failure)
                }

                pub(crate) fn compare_exchange_weak(
                    &self,
                    old: $value,
                    new: $value,
                    order: Ordering,
                    failure: Ordering,
                ) -> Result<$value, $value> {
                    self.touch().compare_exchange_weak(old, new, order, failure)
                }

                $(pub(crate) fn $arithmetic(&self, value: $value, order: Ordering) -> $value {
                    self.touch().$arithmetic(value, order)
                })*
            }
        };
    }
    shadowed!(AtomicU32, u32, fetch_add fetch_sub fetch_or fetch_and);
    shadowed!(AtomicU64, u64, fetch_add fetch_sub fetch_or fetch_and);
    shadowed!(AtomicPtr<T>, *mut T,);
}

/// Accesses that take part in the single total order.
pub(crate) trait TotalOrder {
    type Value;
    fn load_sc(&self) -> Self::Value;
    fn swap_sc(&self, value: Self::Value) -> Self::Value;
    /// Failure orders like [`TotalOrder::load_sc`].
    fn cas_sc(&self, old: Self::Value, new: Self::Value) -> Result<Self::Value, Self::Value>;
}

macro_rules! total_order {
    ($atomic:ty, $value:ty) => {
        impl TotalOrder for $atomic {
            type Value = $value;
            #[inline(always)]
            fn load_sc(&self) -> $value {
                loom_fence();
                let value = self.load(SeqCst);
                loom_fence();
                value
            }
            #[inline(always)]
            fn swap_sc(&self, value: $value) -> $value {
                loom_fence();
                let old = self.swap(value, SeqCst);
                loom_fence();
                old
            }
            #[inline(always)]
            fn cas_sc(&self, old: $value, new: $value) -> Result<$value, $value> {
                loom_fence();
                let result = self.compare_exchange(old, new, SeqCst, SeqCst);
                loom_fence();
                result
            }
        }
    };
}
total_order!(AtomicU32, u32);
total_order!(AtomicU64, u64);

#[inline(always)]
fn loom_fence() {
    #[cfg(loom)]
    fence(SeqCst);
}

/// The cheap half of the asymmetric barrier: keeps the compiler from moving the load of the word
/// above the clearing of the cell. The processor is held to it by [`crate::platform::membarrier`].
///
/// loom and Miri cannot see a membarrier, so there it is a real fence (the protocol explorer in
/// `tests/protocol` models the barrier itself). ThreadSanitizer needs nothing here: it checks that
/// data is handed over, and every hand-over of this library is a release store or read-modify-write
/// that an acquire load reads (the cell's clearing by the scan, LIVE by enter, FINALIZING by its
/// winner); the fences only decide who finalizes.
#[inline(always)]
pub(crate) fn light_barrier() {
    #[cfg(not(any(loom, miri)))]
    std::sync::atomic::compiler_fence(SeqCst);
    #[cfg(any(loom, miri))]
    fence(SeqCst);
}

/// A lock for a few instructions; never held while host code runs.
pub(crate) struct Lock(Mutex<()>);

impl Lock {
    #[cfg(not(loom))]
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(()))
    }
    #[cfg(loom)]
    pub(crate) fn new() -> Self {
        Self(Mutex::new(()))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, ()> {
        // Poison says that a thread has panicked in here: it protects no data of its own.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What waits give the processor between two looks.
pub(crate) fn spin_hint() {
    #[cfg(not(loom))]
    std::thread::yield_now();
    #[cfg(loom)]
    loom::thread::yield_now();
}

/// A subtraction that takes part in the total order.
pub(crate) fn fetch_sub_sc(atomic: &AtomicU32, value: u32) -> u32 {
    loom_fence();
    let old = atomic.fetch_sub(value, SeqCst);
    loom_fence();
    old
}
