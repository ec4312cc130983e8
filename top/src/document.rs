//! What the library says of itself (docs/STATS_SOCKET.md).

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The format that this program understands.
pub(crate) const FORMAT: u64 = 1;

/// An answer: a document or an error.
#[derive(Deserialize)]
pub(crate) struct Answer {
    pub(crate) callbridge: u64,
    pub(crate) error: Option<String>,
}

#[derive(Clone, Deserialize, Default)]
#[serde(default)]
pub(crate) struct Document {
    pub(crate) version: String,
    pub(crate) pid: u64,
    pub(crate) name: String,
    pub(crate) time_ns: u64,
    pub(crate) began_ns: u64,
    pub(crate) stats: BTreeMap<String, u64>,
    pub(crate) bounds_ns: Vec<u64>,
    pub(crate) queues: Rows<Queue>,
    pub(crate) callbacks: Rows<Callback>,
}

#[derive(Clone, Deserialize, Serialize)]
pub(crate) struct Rows<T> {
    pub(crate) rows: Vec<T>,
    pub(crate) total: u64,
    pub(crate) truncated: u64,
}

impl<T> Default for Rows<T> {
    fn default() -> Self {
        Self { rows: Vec::new(), total: 0, truncated: 0 }
    }
}

#[derive(Clone, Deserialize, Default)]
#[serde(default)]
pub(crate) struct Callback {
    pub(crate) handle: String,
    pub(crate) name: String,
    pub(crate) scope: String,
    pub(crate) function: String,
    pub(crate) references: u64,
    pub(crate) in_flight: u64,
    pub(crate) age_ns: Option<u64>,
    pub(crate) calls: Option<u64>,
    pub(crate) failures: Option<u64>,
    pub(crate) latency: Option<Times>,
}

#[derive(Clone, Deserialize, Default)]
#[serde(default)]
pub(crate) struct Queue {
    pub(crate) handle: String,
    pub(crate) name: String,
    pub(crate) scope: String,
    pub(crate) depth: u64,
    pub(crate) capacity: u64,
    pub(crate) posted: u64,
    pub(crate) dispatched: u64,
    pub(crate) dropped: u64,
    pub(crate) refused: u64,
    pub(crate) blocked: u64,
    pub(crate) wait: Times,
}

/// How many took at most as long as each of the document's bounds, and longer than the last.
#[derive(Clone, Deserialize, Default)]
#[serde(default)]
pub(crate) struct Times {
    pub(crate) sum_ns: u64,
    pub(crate) counts: Vec<u64>,
}

impl Document {
    pub(crate) fn stat(&self, name: &str) -> u64 {
        self.stats.get(name).copied().unwrap_or(0)
    }
}
