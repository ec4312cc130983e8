//! What is counted of a queue, or of all queues of a name, whoever writes it.

use crate::engine::histogram::Times;

pub(crate) struct QueueNumbers {
    pub(crate) depth: u64,
    pub(crate) capacity: u64,
    pub(crate) posted: u64,
    pub(crate) dispatched: u64,
    pub(crate) dropped: u64,
    pub(crate) refused: u64,
    pub(crate) blocked: u64,
    pub(crate) waited: Times,
}
