//! What is shown: a document, and what has happened since the one before.

use crate::document::{Callback, Document, FORMAT, Queue, Rows, Times};
use crate::places::Places;
use crate::times::Latency;
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};

/// Statistics that only grow.
const COUNTERS: [&str; 10] = [
    "calls",
    "failures",
    "stale",
    "registered",
    "destroyed",
    "posted",
    "dispatched",
    "dropped",
    "refused",
    "thunk_stale",
];

#[derive(Serialize)]
pub(crate) struct View {
    callbridge: u64,
    pub(crate) version: String,
    pub(crate) pid: u64,
    pub(crate) name: String,
    pub(crate) time_ns: u64,
    /// Since the library's first use.
    pub(crate) uptime_ns: u64,
    /// What the rates are of. None: this is the first document.
    pub(crate) interval_ns: Option<u64>,
    pub(crate) stats: BTreeMap<String, u64>,
    pub(crate) per_second: BTreeMap<&'static str, f64>,
    pub(crate) queues: Rows<QueueRow>,
    pub(crate) callbacks: Rows<CallbackRow>,
}

#[derive(Serialize)]
pub(crate) struct CallbackRow {
    pub(crate) handle: String,
    pub(crate) name: String,
    pub(crate) scope: String,
    /// Where its function is.
    pub(crate) function: String,
    pub(crate) references: u64,
    pub(crate) in_flight: u64,
    pub(crate) age_ns: Option<u64>,
    /// What is not counted is None.
    pub(crate) calls: Option<u64>,
    pub(crate) failures: Option<u64>,
    pub(crate) calls_per_second: Option<f64>,
    pub(crate) failures_per_second: Option<f64>,
    /// Of the calls since the last document, and of all.
    pub(crate) latency: Option<Latency>,
    pub(crate) latency_total: Option<Latency>,
}

#[derive(Serialize)]
pub(crate) struct QueueRow {
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
    pub(crate) posted_per_second: Option<f64>,
    pub(crate) dispatched_per_second: Option<f64>,
    pub(crate) dropped_per_second: Option<f64>,
    pub(crate) refused_per_second: Option<f64>,
    pub(crate) wait: Option<Latency>,
    pub(crate) wait_total: Option<Latency>,
}

/// How much more a second.
fn rate(now: u64, then: u64, interval_ns: u64) -> f64 {
    now.saturating_sub(then) as f64 * 1e9 / interval_ns as f64
}

fn recent(now: &Times, then: Option<&Times>, bounds: &[u64]) -> Option<Latency> {
    now.since(then?).latency(bounds)
}

impl View {
    pub(crate) fn new(now: &Document, before: Option<&Document>, places: &mut Places) -> Self {
        // Of the same process, and earlier.
        let before = before.filter(|it| {
            (it.pid, it.began_ns) == (now.pid, now.began_ns) && it.time_ns < now.time_ns
        });
        let interval_ns = before.map(|before| now.time_ns - before.time_ns);
        let per_second = before.zip(interval_ns).map(|(before, interval)| {
            let rate = |name| (name, rate(now.stat(name), before.stat(name), interval));
            COUNTERS.map(rate).into()
        });
        let queues: HashMap<_, _> =
            before.into_iter().flat_map(|it| &it.queues.rows).map(|it| (&it.handle, it)).collect();
        let callbacks: HashMap<_, _> = before
            .into_iter()
            .flat_map(|it| &it.callbacks.rows)
            .map(|it| (&it.handle, it))
            .collect();
        let of_queue = |queue: &Queue| {
            let then = queues.get(&queue.handle).copied();
            let rate =
                |number: fn(&Queue) -> u64| Some(rate(number(queue), number(then?), interval_ns?));
            QueueRow {
                handle: queue.handle.clone(),
                name: queue.name.clone(),
                scope: queue.scope.clone(),
                depth: queue.depth,
                capacity: queue.capacity,
                posted: queue.posted,
                dispatched: queue.dispatched,
                dropped: queue.dropped,
                refused: queue.refused,
                blocked: queue.blocked,
                posted_per_second: rate(|it| it.posted),
                dispatched_per_second: rate(|it| it.dispatched),
                dropped_per_second: rate(|it| it.dropped),
                refused_per_second: rate(|it| it.refused),
                wait: recent(&queue.wait, then.map(|then| &then.wait), &now.bounds_ns),
                wait_total: queue.wait.latency(&now.bounds_ns),
            }
        };
        let of_callback = |callback: &Callback| {
            let then = callbacks.get(&callback.handle).copied();
            let rate = |number: fn(&Callback) -> Option<u64>| {
                Some(rate(number(callback)?, number(then?)?, interval_ns?))
            };
            let latency = callback.latency.as_ref();
            let latency_then = then.and_then(|then| then.latency.as_ref());
            CallbackRow {
                handle: callback.handle.clone(),
                name: callback.name.clone(),
                scope: callback.scope.clone(),
                function: places.name(&callback.function),
                references: callback.references,
                in_flight: callback.in_flight,
                age_ns: callback.age_ns,
                calls: callback.calls,
                failures: callback.failures,
                calls_per_second: rate(|it| it.calls),
                failures_per_second: rate(|it| it.failures),
                latency: latency.and_then(|now_| recent(now_, latency_then, &now.bounds_ns)),
                latency_total: latency.and_then(|it| it.latency(&now.bounds_ns)),
            }
        };
        Self {
            callbridge: FORMAT,
            version: now.version.clone(),
            pid: now.pid,
            name: now.name.clone(),
            time_ns: now.time_ns,
            uptime_ns: now.time_ns.saturating_sub(now.began_ns),
            interval_ns,
            stats: now.stats.clone(),
            per_second: per_second.unwrap_or_default(),
            queues: Rows {
                rows: now.queues.rows.iter().map(of_queue).collect(),
                total: now.queues.total,
                truncated: now.queues.truncated,
            },
            callbacks: Rows {
                rows: now.callbacks.rows.iter().map(of_callback).collect(),
                total: now.callbacks.total,
                truncated: now.callbacks.truncated,
            },
        }
    }

    pub(crate) fn stat(&self, name: &str) -> u64 {
        self.stats.get(name).copied().unwrap_or(0)
    }

    /// None: this is the first document.
    pub(crate) fn stat_per_second(&self, name: &str) -> Option<f64> {
        self.per_second.get(name).copied()
    }

    pub(crate) fn sort(&mut self, by: Sort) {
        use std::cmp::Reverse;
        // What is not counted comes last, and of equals the one that comes first by name.
        self.callbacks.rows.sort_by(|one, other| {
            let ordering = match by {
                Sort::Rate => more(one.calls_per_second, other.calls_per_second)
                    .then_with(|| Reverse(one.calls).cmp(&Reverse(other.calls))),
                Sort::P99 => {
                    let p99 =
                        |row: &CallbackRow| row.latency.or(row.latency_total).map(|it| it.p99_ns);
                    Reverse(p99(one)).cmp(&Reverse(p99(other)))
                }
                Sort::Inside => Reverse(one.in_flight).cmp(&Reverse(other.in_flight)),
                Sort::Failures => more(one.failures_per_second, other.failures_per_second)
                    .then_with(|| Reverse(one.failures).cmp(&Reverse(other.failures))),
                Sort::Calls => Reverse(one.calls).cmp(&Reverse(other.calls)),
                Sort::Age => Reverse(one.age_ns).cmp(&Reverse(other.age_ns)),
                Sort::Name => std::cmp::Ordering::Equal,
            };
            ordering.then_with(|| (&one.name, &one.handle).cmp(&(&other.name, &other.handle)))
        });
        // Queues that lose events first, then those that are fullest.
        self.queues.rows.sort_by(|one, other| {
            let lost = |row: &QueueRow| Some(row.dropped_per_second? + row.refused_per_second?);
            more(lost(one), lost(other))
                .then_with(|| Reverse(one.depth).cmp(&Reverse(other.depth)))
                .then_with(|| (&one.name, &one.handle).cmp(&(&other.name, &other.handle)))
        });
    }
}

/// The greater one first, none last.
fn more(one: Option<f64>, other: Option<f64>) -> std::cmp::Ordering {
    let number = |it: Option<f64>| it.unwrap_or(-1.0);
    number(other).total_cmp(&number(one))
}

/// What callbacks are sorted by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Sort {
    Rate,
    P99,
    Inside,
    Failures,
    Calls,
    Age,
    Name,
}

impl Sort {
    const ALL: [Self; 7] =
        [Self::Rate, Self::P99, Self::Inside, Self::Failures, Self::Calls, Self::Age, Self::Name];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::P99 => "p99",
            Self::Inside => "inside",
            Self::Failures => "failures",
            Self::Calls => "calls",
            Self::Age => "age",
            Self::Name => "name",
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.name() == name)
    }

    pub(crate) fn next(self) -> Self {
        Self::ALL[(self as usize + 1) % Self::ALL.len()]
    }

    pub(crate) fn previous(self) -> Self {
        Self::ALL[(self as usize + Self::ALL.len() - 1) % Self::ALL.len()]
    }

    /// Which ones the library is asked for, if there are more than are asked for.
    pub(crate) fn order(self) -> &'static str {
        match self {
            Self::Inside => "inside",
            Self::Failures => "failures",
            Self::Calls => "calls",
            Self::Rate | Self::P99 | Self::Age | Self::Name => "rate",
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn document(json: &str) -> Document {
        serde_json::from_str(json).unwrap()
    }

    /// A process of which these are two documents, two seconds apart.
    pub(crate) fn two_documents() -> [Document; 2] {
        [
            r#"{"pid":7,"name":"host","began_ns":1000000000,"time_ns":3000000000,
              "stats":{"calls":100,"failures":1,"live":3,"threads":2,"queues":1,"dropped":4},
              "bounds_ns":[100,1000],
              "queues":{"total":1,"truncated":0,"rows":[{"handle":"0xa","name":"events","depth":3,
                "capacity":8,"posted":10,"dispatched":4,"dropped":3,"refused":0,"wait":{}}]},
              "callbacks":{"total":3,"truncated":0,"rows":[
                {"handle":"0x1","name":"slow","calls":10,"failures":1,"in_flight":1,"function":"0x10",
                  "latency":{"sum_ns":5000,"counts":[0,10,0]}},
                {"handle":"0x2","name":"plain","function":"0x10"}]}}"#,
            r#"{"pid":7,"name":"host","began_ns":1000000000,"time_ns":5000000000,
              "stats":{"calls":300,"failures":2,"live":3,"threads":2,"queues":1,"dropped":10},
              "bounds_ns":[100,1000],
              "queues":{"total":1,"truncated":0,"rows":[{"handle":"0xa","name":"events","depth":8,
                "capacity":8,"posted":110,"dispatched":14,"dropped":9,"refused":1,"wait":{}}]},
              "callbacks":{"total":9,"truncated":6,"rows":[
                {"handle":"0x2","name":"plain","scope":"plugin","function":"0x10","age_ns":4000000000},
                {"handle":"0x1","name":"slow","calls":30,"failures":2,"in_flight":2,"function":"0x10",
                  "references":4,"latency":{"sum_ns":6000,"counts":[20,10,0]}},
                {"handle":"0x3","name":"new","calls":500,"failures":0,"function":"0x10",
                  "latency":{"sum_ns":500,"counts":[500,0,0]}}]}}"#,
        ]
        .map(document)
    }

    #[test]
    fn rates_are_what_came_since_the_last_document() {
        let [before, now] = two_documents();
        let view = View::new(&now, Some(&before), &mut Places::default());
        assert_eq!((view.uptime_ns, view.interval_ns), (4_000_000_000, Some(2_000_000_000)));
        assert_eq!(view.stat_per_second("calls"), Some(100.0));
        let queue = &view.queues.rows[0];
        assert_eq!((queue.posted_per_second, queue.dropped_per_second), (Some(50.0), Some(3.0)));
        assert_eq!((queue.dispatched_per_second, queue.refused_per_second), (Some(5.0), Some(0.5)));
        let [plain, slow, new] = &view.callbacks.rows[..] else { panic!() };
        assert_eq!((plain.calls_per_second, plain.latency), (None, None));
        assert_eq!((slow.calls_per_second, slow.failures_per_second), (Some(10.0), Some(0.5)));
        // The 20 new ones were fast.
        assert_eq!(slow.latency.map(|it| (it.count, it.mean_ns, it.p50_ns)), Some((20, 50, 50)));
        assert_eq!(slow.latency_total.map(|it| (it.count, it.p99_ns)), Some((30, 973)));
        assert_eq!((new.calls_per_second, new.latency), (None, None));
        assert_eq!(new.latency_total.map(|it| it.count), Some(500));
    }

    #[test]
    fn another_processs_document_is_no_beginning() {
        let [before, now] = two_documents();
        for other in [
            Document { pid: 8, ..before.clone() },
            Document { began_ns: 2, ..before.clone() },
            Document { time_ns: now.time_ns, ..before },
        ] {
            let view = View::new(&now, Some(&other), &mut Places::default());
            assert_eq!((view.interval_ns, view.stat_per_second("calls")), (None, None));
            assert_eq!(view.callbacks.rows[1].calls_per_second, None);
        }
    }

    #[test]
    fn the_first_is_the_one_with_most() {
        let [before, now] = two_documents();
        let mut view = View::new(&now, Some(&before), &mut Places::default());
        let mut names = |sort| {
            view.sort(sort);
            let names: Vec<_> = view.callbacks.rows.iter().map(|it| it.name.as_str()).collect();
            names.join(" ")
        };
        assert_eq!(names(Sort::Rate), "slow new plain");
        assert_eq!(names(Sort::P99), "new slow plain");
        assert_eq!(names(Sort::Inside), "slow new plain");
        assert_eq!(names(Sort::Failures), "slow new plain");
        assert_eq!(names(Sort::Calls), "new slow plain");
        assert_eq!(names(Sort::Age), "plain new slow");
        assert_eq!(names(Sort::Name), "new plain slow");
    }

    #[test]
    fn every_sort_has_a_name_and_a_next() {
        let mut sort = Sort::Rate;
        for expected in Sort::ALL {
            assert_eq!(sort, expected);
            assert_eq!(Sort::from_name(sort.name()), Some(sort));
            assert_eq!(sort.next().previous(), sort);
            sort = sort.next();
        }
        assert_eq!(sort, Sort::Rate);
        assert_eq!(Sort::from_name("x"), None);
    }
}
