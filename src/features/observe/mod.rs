//! What is going on, in words: for people and for monitoring. Numbers in, text out; who gathers them is
//! [`crate::registry`].

pub(crate) mod contract;
pub(crate) mod metrics;
pub(crate) mod report;
pub(crate) mod text;
