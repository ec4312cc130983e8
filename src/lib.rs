//! Safe, almost free callbacks across languages: reference-counted handles behind a C ABI.
//!
//! C programs use `include/callbridge.h`; Rust programs use [`Callback`], [`Handle`], [`Thunk`] and [`Queue`],
//! which need no `unsafe`.
//!
//! Layers, each knowing only those below:
//!
//! ```text
//! ffi/        the C surface, one file a header section      api/          the Rust surface
//! registry    where the features meet                       at_exit.rs    the process's end
//! features/   hooks, names, keys, queues, thunks            none knows another
//! engine/     handles, slots, in-flight protection, finalization, waiting, scopes
//! platform/   the operating system       sync.rs  atomics       error.rs  what can go wrong
//! ```

#![cfg_attr(loom, allow(dead_code, reason = "models make their own engine and use no C surface"))]

#[cfg(not(loom))]
mod api;
#[cfg(not(any(loom, miri)))]
mod at_exit;
mod engine;
mod error;
mod features;
#[cfg(not(loom))]
mod ffi;
mod platform;
#[cfg(not(loom))]
mod registry;
mod sync;
#[cfg(test)]
mod tests;

#[cfg(not(loom))]
pub use api::*;
pub use engine::Handle;
pub use error::Error;
#[cfg(not(loom))]
pub use ffi::*;
