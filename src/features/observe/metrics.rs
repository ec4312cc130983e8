//! Metrics as OpenMetrics text, <https://prometheus.io/docs/specs/om/open_metrics_spec/>.

use super::contract::{
    CounterOf, GaugeOf, HistogramOf, InfoOf, Known, Metric, SCOPE_LABEL, STATUSES,
};
use super::queue::QueueNumbers;
use super::text::Text;
use crate::engine::Metered;
use crate::engine::histogram::{BOUNDS, Times};
use crate::engine::series::Sums;
use crate::error::Error;
use std::fmt::{self, Display};

/// What is counted of everything.
pub(crate) struct Numbers {
    pub(crate) live: u64,
    pub(crate) registered: u64,
    pub(crate) destroyed: u64,
    pub(crate) pending: u64,
    pub(crate) calls: u64,
    pub(crate) in_flight: u64,
    /// In the order of [`STATUSES`].
    pub(crate) failures: [u64; STATUSES.len()],
    pub(crate) stale: u64,
    pub(crate) threads: u64,
    pub(crate) thunks: u64,
    pub(crate) thunk_stale: u64,
}

/// What is counted of the queues of one name.
pub(crate) struct Queue<'a> {
    pub(crate) name: &'a str,
    pub(crate) open: u64,
    pub(crate) numbers: QueueNumbers,
}

/// Writes metrics, each of them once.
pub(crate) struct Exposition<'a> {
    text: &'a mut Text,
    /// Of a scope its name.
    scope: Option<&'a str>,
}

/// A text between quotes.
struct Quoted<'a>(&'a str);

impl Display for Quoted<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in self.0.split_inclusive(['\\', '"', '\n']) {
            match part.char_indices().next_back() {
                Some((end, '\\')) => write!(out, "{}\\\\", &part[..end])?,
                Some((end, '"')) => write!(out, "{}\\\"", &part[..end])?,
                Some((end, '\n')) => write!(out, "{}\\n", &part[..end])?,
                _ => out.write_str(part)?,
            }
        }
        Ok(())
    }
}

/// Nanoseconds as seconds.
struct Seconds(u64);

impl Display for Seconds {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}.{:09}", self.0 / 1_000_000_000, self.0 % 1_000_000_000)
    }
}

impl<'a> Exposition<'a> {
    pub(crate) fn new(text: &'a mut Text, scope: Option<&'a str>) -> Self {
        Self { text, scope }
    }

    /// What there is to say of the metric itself. False: of a scope nothing.
    fn begin(&mut self, metric: &Metric) -> Result<bool, Error> {
        let Metric { name, kind, unit, help, of_scope, .. } = metric;
        if self.scope.is_some() && !of_scope {
            return Ok(false);
        }
        self.text.put(format_args!("# TYPE {name} {}\n", kind.name()))?;
        if !unit.is_empty() {
            self.text.put(format_args!("# UNIT {name} {unit}\n"))?;
        }
        self.text.put(format_args!("# HELP {name} {}\n", Quoted(help)))?;
        Ok(true)
    }

    /// One sample. `bound`: of a bucket.
    fn sample(
        &mut self,
        metric: &Metric,
        suffix: &str,
        values: &[&str],
        bound: Option<&str>,
        number: &dyn Display,
    ) -> Result<(), Error> {
        self.text.put(format_args!("{}{suffix}", metric.name))?;
        let scope = self.scope.map(|scope| (SCOPE_LABEL, scope));
        let own = metric.labels.iter().copied().zip(values.iter().copied());
        let mut before = '{';
        for (label, value) in scope.into_iter().chain(own).chain(bound.map(|bound| ("le", bound))) {
            self.text.put(format_args!("{before}{label}=\"{}\"", Quoted(value)))?;
            before = ',';
        }
        let end = if before == '{' { "" } else { "}" };
        self.text.put(format_args!("{end} {number}\n"))
    }

    /// A counter, a gauge or an info: samples with the values of their labels.
    fn plain<'v, const KIND: u8, const LABELS: usize>(
        &mut self,
        which: Known<KIND, LABELS>,
        samples: impl IntoIterator<Item = ([&'v str; LABELS], u64)>,
    ) -> Result<(), Error> {
        let metric = which.metric();
        if self.begin(metric)? {
            for (values, number) in samples {
                self.sample(metric, metric.kind.suffix(), &values, None, &number)?;
            }
        }
        Ok(())
    }

    fn histogram<'v, const LABELS: usize>(
        &mut self,
        which: HistogramOf<LABELS>,
        samples: impl IntoIterator<Item = ([&'v str; LABELS], &'v Times)>,
    ) -> Result<(), Error> {
        let metric = which.metric();
        if !self.begin(metric)? {
            return Ok(());
        }
        let bounds = BOUNDS.iter().map(|(_, words)| *words).chain(["+Inf"]);
        for (values, times) in samples {
            let mut count = 0;
            for (bound, here) in bounds.clone().zip(times.buckets) {
                count += here;
                self.sample(metric, "_bucket", &values, Some(bound), &count)?;
            }
            self.sample(metric, "_count", &values, None, &count)?;
            self.sample(metric, "_sum", &values, None, &Seconds(times.sum))?;
        }
        Ok(())
    }

    /// Everything, in the order of the contract. `callbacks`: those that are metered.
    pub(crate) fn write(
        &mut self,
        all: &Numbers,
        queues: &[Queue<'_>],
        callbacks: &Sums<Metered>,
    ) -> Result<(), Error> {
        const BUILD: InfoOf<1> = Known::named("callbridge_build");
        const LIVE: GaugeOf<0> = Known::named("callbridge_callbacks_live");
        const REGISTERED: CounterOf<0> = Known::named("callbridge_callbacks_registered");
        const DESTROYED: CounterOf<0> = Known::named("callbridge_callbacks_destroyed");
        const PENDING: GaugeOf<0> = Known::named("callbridge_destroys_pending");
        const CALLS: CounterOf<0> = Known::named("callbridge_calls");
        const IN_FLIGHT: GaugeOf<0> = Known::named("callbridge_calls_in_flight");
        const FAILURES: CounterOf<1> = Known::named("callbridge_failures");
        const STALE: CounterOf<0> = Known::named("callbridge_stale_calls");
        const THREADS: GaugeOf<0> = Known::named("callbridge_threads");
        const THUNKS: GaugeOf<0> = Known::named("callbridge_thunks_open");
        const THUNK_STALE: CounterOf<0> = Known::named("callbridge_thunk_stale_calls");
        const OPEN: GaugeOf<1> = Known::named("callbridge_queues_open");
        const DEPTH: GaugeOf<1> = Known::named("callbridge_queue_depth");
        const CAPACITY: GaugeOf<1> = Known::named("callbridge_queue_capacity");
        const POSTED: CounterOf<1> = Known::named("callbridge_queue_posted");
        const DISPATCHED: CounterOf<1> = Known::named("callbridge_queue_dispatched");
        const DROPPED: CounterOf<1> = Known::named("callbridge_queue_dropped");
        const REFUSED: CounterOf<1> = Known::named("callbridge_queue_refused");
        const BLOCKED: CounterOf<1> = Known::named("callbridge_queue_blocked");
        const WAITED: HistogramOf<1> = Known::named("callbridge_dispatch_latency_seconds");
        const CALLBACK_CALLS: CounterOf<1> = Known::named("callbridge_callback_calls");
        const CALLBACK_FAILURES: CounterOf<1> = Known::named("callbridge_callback_failures");
        const TOOK: HistogramOf<1> = Known::named("callbridge_call_duration_seconds");
        let each = |number: fn(&Queue<'_>) -> u64| {
            queues.iter().map(move |queue| ([queue.name], number(queue)))
        };
        let of = |number: fn(&Metered) -> u64| {
            callbacks.iter().map(move |(name, metered)| ([name], number(metered)))
        };
        let failures = STATUSES.iter().zip(all.failures).map(|(status, count)| ([*status], count));
        self.plain(BUILD, [([env!("CARGO_PKG_VERSION")], 1)])?;
        self.plain(LIVE, [([], all.live)])?;
        self.plain(REGISTERED, [([], all.registered)])?;
        self.plain(DESTROYED, [([], all.destroyed)])?;
        self.plain(PENDING, [([], all.pending)])?;
        self.plain(CALLS, [([], all.calls)])?;
        self.plain(IN_FLIGHT, [([], all.in_flight)])?;
        self.plain(FAILURES, failures)?;
        self.plain(STALE, [([], all.stale)])?;
        self.plain(THREADS, [([], all.threads)])?;
        self.plain(THUNKS, [([], all.thunks)])?;
        self.plain(THUNK_STALE, [([], all.thunk_stale)])?;
        self.plain(OPEN, each(|queue| queue.open))?;
        self.plain(DEPTH, each(|queue| queue.numbers.depth))?;
        self.plain(CAPACITY, each(|queue| queue.numbers.capacity))?;
        self.plain(POSTED, each(|queue| queue.numbers.posted))?;
        self.plain(DISPATCHED, each(|queue| queue.numbers.dispatched))?;
        self.plain(DROPPED, each(|queue| queue.numbers.dropped))?;
        self.plain(REFUSED, each(|queue| queue.numbers.refused))?;
        self.plain(BLOCKED, each(|queue| queue.numbers.blocked))?;
        self.histogram(WAITED, queues.iter().map(|queue| ([queue.name], &queue.numbers.waited)))?;
        self.plain(CALLBACK_CALLS, of(|metered| metered.calls))?;
        self.plain(CALLBACK_FAILURES, of(|metered| metered.failures))?;
        self.histogram(TOOK, callbacks.iter().map(|(name, it)| ([name], &it.times)))?;
        self.text.put(format_args!("# EOF\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_between_quotes_is_escaped() {
        for (plain, quoted) in [
            ("", ""),
            ("plain", "plain"),
            ("\\", "\\\\"),
            ("a\"b\nc\\", "a\\\"b\\nc\\\\"),
            ("\n\nä\n", "\\n\\nä\\n"),
        ] {
            assert_eq!(Quoted(plain).to_string(), quoted);
        }
    }

    #[test]
    fn nanoseconds_are_written_as_seconds() {
        assert_eq!(Seconds(0).to_string(), "0.000000000");
        assert_eq!(Seconds(12_345_678_901).to_string(), "12.345678901");
    }
}
