//! What is going on, in words: for people and for monitoring. Numbers in, text out; who gathers them is
//! [`crate::registry`].

pub(crate) mod contract;
mod gzip;
#[cfg(not(miri))]
mod json;
pub(crate) mod leaks;
pub(crate) mod metrics;
pub(crate) mod profile;
pub(crate) mod queue;
pub(crate) mod report;
#[cfg(not(miri))]
pub(crate) mod request;
#[cfg(not(miri))]
pub(crate) mod serve;
#[cfg(not(miri))]
pub(crate) mod snapshot;
pub(crate) mod text;
