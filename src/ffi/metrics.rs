//! Section "Metrics": numbers for monitoring, in OpenMetrics text. What there is in them is the contract's
//! (features/observe/contract.rs), which scripts/contract writes into the comment below.

use super::scope::cbr_scope;
use super::stats::{cbr_write_fn, write_text};
use super::status::cbr_status;
use crate::registry;
use std::ffi::c_void;

/// cbr_metrics writes the metrics of the process, or, if `scope` is not 0, of a scope, as OpenMetrics text
/// 1.0. A server answers with it under the content type
/// "application/openmetrics-text; version=1.0.0; charset=utf-8". Calls go on as fast as ever.
/// Queues of one name are one series, and those that are gone stay in what it has counted: nothing that
/// counts goes back. After 256 names, new ones are counted under "other". The metrics of a scope have its
/// name as the label "scope", and only those marked with (scope) below; those of the process have no such
/// label. In a scope, a series is gone with the last queue or callback of its name.
// contract: begin
/// - callbridge_build_info{version}, info: The version of the library.
/// - callbridge_callbacks_live, gauge (scope): Callbacks that can be called now.
/// - callbridge_callbacks_registered_total, counter (scope): Callbacks that were ever registered.
/// - callbridge_callbacks_destroyed_total, counter (scope): Callbacks whose end is complete.
/// - callbridge_destroys_pending, gauge (scope): Callbacks that have ended, and whose destroy functions
///   have not returned.
/// - callbridge_calls_total, counter: Calls, dispatches, pins and holds that have entered a callback.
/// - callbridge_calls_in_flight, gauge (scope): Calls, pins and holds inside a callback now; not in the
///   log's sink or a call hook.
/// - callbridge_failures_total{status}, counter: Calls that the callback has marked as failed, and calls
///   that were refused, by status; stale ones apart.
/// - callbridge_stale_calls_total, counter: Calls that found their callback gone.
/// - callbridge_threads, gauge (scope): Threads that use the library; of a scope: that are inside one of
///   its callbacks now.
/// - callbridge_thunks_open, gauge: Thunks that are open.
/// - callbridge_thunk_stale_calls_total, counter: Calls of thunks that returned the fallback, because
///   the callback was gone or the thunk closed.
/// - callbridge_queues_open{queue}, gauge (scope): Queues of that name that are there.
/// - callbridge_queue_depth{queue}, gauge (scope): Events that wait in queues of that name.
/// - callbridge_queue_capacity{queue}, gauge (scope): Events that queues of that name have room for.
/// - callbridge_queue_posted_total{queue}, counter (scope): Events that were put into queues of that
///   name.
/// - callbridge_queue_dispatched_total{queue}, counter (scope): Events that dispatchers have taken out.
/// - callbridge_queue_dropped_total{queue}, counter (scope): Events that were accepted and not
///   delivered: displaced by others, or left when the queue or their owner closed.
/// - callbridge_queue_refused_total{queue}, counter (scope): Posts that failed because the queue was
///   full.
/// - callbridge_queue_blocked_total{queue}, counter (scope): Posts that have waited for room.
/// - callbridge_dispatch_latency_seconds{queue}, histogram in seconds (scope): From the post to the
///   dispatch, of events of CBR_METERED callbacks.
/// - callbridge_callback_calls_total{callback}, counter (scope): Calls, dispatches, pins and holds that
///   have entered CBR_METERED callbacks of that name.
/// - callbridge_callback_failures_total{callback}, counter (scope): Calls and pins that CBR_METERED
///   callbacks of that name have marked as failed.
/// - callbridge_call_duration_seconds{callback}, histogram in seconds (scope): How long calls of
///   CBR_METERED callbacks of that name took; not pins and holds.
///
// contract: end
/// `write`: gets the text, in one piece or several; may use the library.
/// Threads: any.
/// Returns: CBR_OK; CBR_ERR_NULL if `write` is NULL; CBR_ERR_STALE if the scope is gone; CBR_ERR_KIND;
/// CBR_ERR_NOMEM: nothing was written.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn cbr_metrics(
    scope: cbr_scope,
    write: cbr_write_fn,
    user_data: *mut c_void,
) -> cbr_status {
    // SAFETY: the caller's promise.
    unsafe { write_text("cbr_metrics", scope, write, user_data, registry::metrics) }
}
