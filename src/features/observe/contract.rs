//! What monitoring may rely on: every metric with its type, unit, labels and meaning. The one place; what
//! `cbr_metrics` writes, the words about it in the header and `docs/METRICS.md` come from here
//! (src/tests/contract.rs, scripts/contract). After a release a stable one changes with the major version
//! only.

/// A type of OpenMetrics.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Counter,
    Gauge,
    Histogram,
    Info,
}

impl Kind {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::Info => "info",
        }
    }

    /// What its samples' names end with, those of a histogram apart.
    pub(crate) const fn suffix(self) -> &'static str {
        match self {
            Self::Counter => "_total",
            Self::Info => "_info",
            Self::Gauge | Self::Histogram => "",
        }
    }
}

/// What to have an eye on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(not(test), allow(dead_code, reason = "for the documents"))]
pub(crate) enum Signal {
    Calls,
    Failures,
    Latency,
    Queues,
    Lives,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(not(test), allow(dead_code, reason = "for the documents"))]
pub(crate) enum Stability {
    /// Changes with the major version only.
    Stable,
    /// May change with any version.
    #[allow(dead_code, reason = "none is at present")]
    Trial,
}

/// A metric.
#[cfg_attr(not(test), allow(dead_code, reason = "some of it is for the documents alone"))]
pub(crate) struct Metric {
    /// Without what the type appends.
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    /// "" or the name's last part.
    pub(crate) unit: &'static str,
    pub(crate) labels: &'static [&'static str],
    /// Known of a scope as well.
    pub(crate) of_scope: bool,
    pub(crate) signal: Option<Signal>,
    pub(crate) stability: Stability,
    pub(crate) help: &'static str,
}

/// On every sample of a scope's metrics, and on none of the process's.
pub(crate) const SCOPE_LABEL: &str = "scope";

/// What the label "status" says: names of C's constants (a test in ffi/status.rs compares).
pub(crate) const STATUSES: [&str; 5] =
    ["CBR_ERR_CALLBACK", "CBR_ERR_PANIC", "CBR_ERR_SIGNATURE", "CBR_ERR_THREAD", "CBR_ERR_LIMIT"];

const fn metric(name: &'static str, kind: Kind, help: &'static str) -> Metric {
    let (labels, stability) = (&[], Stability::Stable);
    Metric { name, kind, unit: "", labels, of_scope: false, signal: None, stability, help }
}

impl Metric {
    const fn of_scope(self) -> Self {
        Self { of_scope: true, ..self }
    }

    const fn labels(self, labels: &'static [&'static str]) -> Self {
        Self { labels, ..self }
    }

    const fn unit(self, unit: &'static str) -> Self {
        Self { unit, ..self }
    }

    const fn signal(self, signal: Signal) -> Self {
        Self { signal: Some(signal), ..self }
    }
}

use Kind::{Counter, Gauge, Histogram, Info};
use Signal::{Calls, Failures, Latency, Lives, Queues};

const QUEUE: &[&str] = &["queue"];
const CALLBACK: &[&str] = &["callback"];

/// In the order in which they are written.
pub(crate) const METRICS: [Metric; 24] = [
    metric("callbridge_build", Info, "The version of the library.").labels(&["version"]),
    metric("callbridge_callbacks_live", Gauge, "Callbacks that can be called now.")
        .of_scope()
        .signal(Lives),
    metric("callbridge_callbacks_registered", Counter, "Callbacks that were ever registered.")
        .of_scope(),
    metric("callbridge_callbacks_destroyed", Counter, "Callbacks whose end is complete.")
        .of_scope(),
    metric(
        "callbridge_destroys_pending",
        Gauge,
        "Callbacks that have ended, and whose destroy functions have not returned.",
    )
    .of_scope()
    .signal(Lives),
    metric(
        "callbridge_calls",
        Counter,
        "Calls, dispatches, pins and holds that have entered a callback.",
    )
    .signal(Calls),
    metric("callbridge_calls_in_flight", Gauge, "Calls, pins and holds inside a callback now; not in the log's sink or a call hook.")
        .of_scope(),
    metric(
        "callbridge_failures",
        Counter,
        "Calls that the callback has marked as failed, and calls that were refused, by status; stale ones \
         apart.",
    )
    .labels(&["status"])
    .signal(Failures),
    metric("callbridge_stale_calls", Counter, "Calls that found their callback gone.")
        .signal(Failures),
    metric(
        "callbridge_threads",
        Gauge,
        "Threads that use the library; of a scope: that are inside one of its callbacks now.",
    )
    .of_scope(),
    metric("callbridge_thunks_open", Gauge, "Thunks that are open."),
    metric(
        "callbridge_thunk_stale_calls",
        Counter,
        "Calls of thunks that returned the fallback, because the callback was gone or the thunk closed.",
    ),
    metric("callbridge_queues_open", Gauge, "Queues of that name that are there.")
        .of_scope()
        .labels(QUEUE),
    metric("callbridge_queue_depth", Gauge, "Events that wait in queues of that name.")
        .of_scope()
        .labels(QUEUE)
        .signal(Queues),
    metric("callbridge_queue_capacity", Gauge, "Events that queues of that name have room for.")
        .of_scope()
        .labels(QUEUE)
        .signal(Queues),
    metric(
        "callbridge_queue_posted",
        Counter,
        "Events that were put into queues of that name.",
    )
    .of_scope()
    .labels(QUEUE),
    metric("callbridge_queue_dispatched", Counter, "Events that dispatchers have taken out.")
        .of_scope()
        .labels(QUEUE),
    metric(
        "callbridge_queue_dropped",
        Counter,
        "Events that were accepted and not delivered: displaced by others, or left when the queue or their \
         owner closed.",
    )
    .of_scope()
    .labels(QUEUE)
    .signal(Queues),
    metric("callbridge_queue_refused", Counter, "Posts that failed because the queue was full.")
        .of_scope()
        .labels(QUEUE)
        .signal(Queues),
    metric("callbridge_queue_blocked", Counter, "Posts that have waited for room.")
        .of_scope()
        .labels(QUEUE),
    metric(
        "callbridge_dispatch_latency_seconds",
        Histogram,
        "From the post to the dispatch, of events of CBR_METERED callbacks.",
    )
    .unit("seconds")
    .of_scope()
    .labels(QUEUE)
    .signal(Latency),
    metric(
        "callbridge_callback_calls",
        Counter,
        "Calls, dispatches, pins and holds that have entered CBR_METERED callbacks of that name.",
    )
    .of_scope()
    .labels(CALLBACK),
    metric(
        "callbridge_callback_failures",
        Counter,
        "Calls and pins that CBR_METERED callbacks of that name have marked as failed.",
    )
    .of_scope()
    .labels(CALLBACK),
    metric(
        "callbridge_call_duration_seconds",
        Histogram,
        "How long calls of CBR_METERED callbacks of that name took; not pins and holds.",
    )
    .unit("seconds")
    .of_scope()
    .labels(CALLBACK)
    .signal(Latency),
];

/// A metric of one type, with so many labels: what the emitter takes.
#[derive(Clone, Copy)]
pub(crate) struct Known<const KIND: u8, const LABELS: usize>(usize);

pub(crate) type CounterOf<const LABELS: usize> = Known<{ Counter as u8 }, LABELS>;
pub(crate) type GaugeOf<const LABELS: usize> = Known<{ Gauge as u8 }, LABELS>;
pub(crate) type HistogramOf<const LABELS: usize> = Known<{ Histogram as u8 }, LABELS>;
pub(crate) type InfoOf<const LABELS: usize> = Known<{ Info as u8 }, LABELS>;

impl<const KIND: u8, const LABELS: usize> Known<KIND, LABELS> {
    /// The metric of this name. Evaluated by the compiler: what is not in the contract does not compile.
    pub(crate) const fn named(name: &str) -> Self {
        let mut place = 0;
        while place < METRICS.len() {
            if is_same(METRICS[place].name, name) {
                assert!(METRICS[place].kind as u8 == KIND, "of another type");
                assert!(METRICS[place].labels.len() == LABELS, "with other labels");
                return Self(place);
            }
            place += 1;
        }
        panic!("not in the contract")
    }

    pub(crate) const fn metric(self) -> &'static Metric {
        &METRICS_IN_PLACE[self.0]
    }
}

static METRICS_IN_PLACE: [Metric; METRICS.len()] = METRICS;

const fn is_same(one: &str, other: &str) -> bool {
    let (one, other, mut place) = (one.as_bytes(), other.as_bytes(), 0);
    if one.len() != other.len() {
        return false;
    }
    while place < one.len() {
        if one[place] != other[place] {
            return false;
        }
        place += 1;
    }
    true
}
