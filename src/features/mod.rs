//! What is built on the engine. None of them knows another; they meet in [`crate::registry`].

#[cfg(not(loom))]
pub(crate) mod directory;
pub(crate) mod hook;
#[cfg(not(loom))]
pub(crate) mod log;
#[cfg(not(loom))]
pub(crate) mod observe;
pub(crate) mod queue;
#[cfg(not(any(loom, miri)))]
pub(crate) mod thunk;
#[cfg(not(loom))]
pub(crate) mod trace;
