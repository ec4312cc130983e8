//! What is going on, in words: for people and for monitoring. Numbers in, text out; who gathers them is
//! [`crate::registry`].

pub(crate) mod contract;
mod gzip;
pub(crate) mod leaks;
pub(crate) mod metrics;
pub(crate) mod profile;
pub(crate) mod report;
pub(crate) mod text;
