//! How long things took, from counts in buckets.

use crate::document::Times;
use serde::Serialize;

/// Nanoseconds.
#[derive(Clone, Copy, Serialize, PartialEq, Debug)]
pub(crate) struct Latency {
    pub(crate) count: u64,
    pub(crate) mean_ns: u64,
    pub(crate) p50_ns: u64,
    pub(crate) p99_ns: u64,
}

impl Times {
    /// What came since then.
    pub(crate) fn since(&self, then: &Self) -> Self {
        let before = then.counts.iter().copied().chain(std::iter::repeat(0));
        let counts = self.counts.iter().zip(before).map(|(now, then)| now.saturating_sub(then));
        Self { sum_ns: self.sum_ns.saturating_sub(then.sum_ns), counts: counts.collect() }
    }

    /// None: there was nothing.
    pub(crate) fn latency(&self, bounds: &[u64]) -> Option<Latency> {
        let count = self.counts.iter().sum();
        (count > 0).then(|| Latency {
            count,
            mean_ns: self.sum_ns / count,
            p50_ns: self.quantile(bounds, count, 0.5),
            p99_ns: self.quantile(bounds, count, 0.99),
        })
    }

    /// Within a bucket as if all were evenly spread, as Prometheus does it; beyond the last bound that bound.
    fn quantile(&self, bounds: &[u64], count: u64, part: f64) -> u64 {
        let wanted = part * count as f64;
        let (mut below, mut lower) = (0, 0);
        for (bucket, bound) in self.counts.iter().zip(bounds) {
            if *bucket > 0 && (below + bucket) as f64 >= wanted {
                let inside = (wanted - below as f64) / *bucket as f64;
                return lower + ((bound - lower) as f64 * inside) as u64;
            }
            below += bucket;
            lower = *bound;
        }
        lower
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: [u64; 3] = [100, 200, 400];

    fn times(counts: [u64; 4], sum_ns: u64) -> Times {
        Times { sum_ns, counts: counts.to_vec() }
    }

    #[test]
    fn a_quantile_lies_in_its_bucket() {
        let latency = |counts| times(counts, 1000).latency(&BOUNDS);
        assert_eq!(latency([0, 0, 0, 0]), None);
        let all_in_one = latency([0, 10, 0, 0]).unwrap();
        assert_eq!((all_in_one.p50_ns, all_in_one.p99_ns), (150, 199));
        assert_eq!((all_in_one.count, all_in_one.mean_ns), (10, 100));
        let two = latency([50, 0, 50, 0]).unwrap();
        assert_eq!((two.p50_ns, two.p99_ns), (100, 396));
        let long = latency([0, 0, 0, 3]).unwrap();
        assert_eq!((long.p50_ns, long.p99_ns), (400, 400));
    }

    #[test]
    fn what_was_before_does_not_count() {
        let recent = times([1, 5, 7, 0], 900).since(&times([1, 2, 3, 0], 400));
        assert_eq!((recent.counts, recent.sum_ns), (vec![0, 3, 4, 0], 500));
        // Another process, or a newer library with other buckets.
        let recent = times([1, 0, 0, 0], 0).since(&Times { sum_ns: 7, counts: vec![9] });
        assert_eq!((recent.counts, recent.sum_ns), (vec![0, 0, 0, 0], 0));
    }
}
