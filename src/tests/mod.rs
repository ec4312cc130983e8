//! Races, each a test body of two or three threads and few steps. Built with `--cfg loom` a body is
//! explored in every interleaving; built plainly the same body runs many times with real threads.

mod world;

mod model_events;
mod model_hook;
mod model_inflight;
mod model_mark;
mod model_memo;
mod model_observe;
mod model_queue;
mod model_references;
mod model_reuse;
mod model_ring;
mod model_scope;
mod model_slab;
mod model_wait;

#[cfg(not(loom))]
mod contract;
#[cfg(not(loom))]
mod generations;
#[cfg(not(loom))]
mod header;
