//! Queues: events from any thread into the threads that dispatch them.
//!
//! A queue is an object of the slab: who posts or dispatches is inside it, and its memory goes when the
//! last one has left after it was closed. Its parts: the [`ring`] of events, the [`signal`] for who waits
//! for some, the [`room`] for who waits to post, and the [`jobs`], destroy functions that run in it.
//!
//! *Post against close*: the event is published, then the signal is looked at; a close says CLOSED, raises
//! the signal for good, then takes out what there is. So the close sees the event, or the post sees the
//! close and takes out what there is itself. *Post against drain*: a queue is drained when it is empty and
//! no poster is inside; one that comes later finds it closing.

pub(crate) mod ring;
pub(crate) mod room;
pub(crate) mod signal;

#[cfg(not(loom))]
mod body;
#[cfg(not(loom))]
pub(crate) mod call_on;
#[cfg(not(loom))]
pub(crate) mod dispatch;
#[cfg(not(loom))]
mod event;
#[cfg(not(loom))]
mod jobs;
#[cfg(not(loom))]
pub(crate) mod numbers;
#[cfg(not(loom))]
mod open;
#[cfg(not(loom))]
pub(crate) mod post;
#[cfg(not(loom))]
pub(crate) mod select;

#[cfg(not(loom))]
pub(crate) use dispatch::{CurrentEvent, current_event};
#[cfg(not(loom))]
pub(crate) use event::Payload;
#[cfg(not(loom))]
pub(crate) use open::{Closing, Options, Queues, adopt, close, descriptor, len, open};

#[cfg(not(loom))]
pub use body::Policy;
#[cfg(not(loom))]
pub(crate) use body::{Inside, Queue, Taken};
