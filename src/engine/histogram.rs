//! How long things took, in buckets that grow by a little more than two, from 100 ns to 10 s.

use crate::sync::{AtomicU64, Relaxed};

/// The upper bounds of all buckets but the last, inclusive: in nanoseconds, and as OpenMetrics writes
/// seconds. Part of the contract (features/observe/contract.rs).
pub(crate) const BOUNDS: [(u64, &str); 25] = [
    (100, "1e-07"),
    (250, "2.5e-07"),
    (500, "5e-07"),
    (1_000, "1e-06"),
    (2_500, "2.5e-06"),
    (5_000, "5e-06"),
    (10_000, "1e-05"),
    (25_000, "2.5e-05"),
    (50_000, "5e-05"),
    (100_000, "0.0001"),
    (250_000, "0.00025"),
    (500_000, "0.0005"),
    (1_000_000, "0.001"),
    (2_500_000, "0.0025"),
    (5_000_000, "0.005"),
    (10_000_000, "0.01"),
    (25_000_000, "0.025"),
    (50_000_000, "0.05"),
    (100_000_000, "0.1"),
    (250_000_000, "0.25"),
    (500_000_000, "0.5"),
    (1_000_000_000, "1.0"),
    (2_500_000_000, "2.5"),
    (5_000_000_000, "5.0"),
    (10_000_000_000, "10.0"),
];

pub(crate) const BUCKETS: usize = BOUNDS.len() + 1;

/// By the number of a time's bits the first bucket that it may belong to: at most two look-ups are left.
const FIRST: [u8; 65] = {
    let (mut first, mut bits) = ([0; 65], 1);
    while bits < 65 {
        let (shortest, mut bucket) = (1_u64 << (bits - 1), 0);
        while bucket < BOUNDS.len() && BOUNDS[bucket].0 < shortest {
            bucket += 1;
        }
        first[bits] = bucket as u8;
        bits += 1;
    }
    first
};

/// The bucket of a time in nanoseconds.
fn bucket_of(time: u64) -> usize {
    let mut bucket = usize::from(FIRST[64 - time.leading_zeros() as usize]);
    while bucket < BOUNDS.len() && BOUNDS[bucket].0 < time {
        bucket += 1;
    }
    bucket
}

/// How often each bucket was met. Zeroed memory is an empty one.
pub(crate) struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    sum: AtomicU64,
}

impl Histogram {
    pub(crate) fn new() -> Self {
        Self { buckets: std::array::from_fn(|_| AtomicU64::new(0)), sum: AtomicU64::new(0) }
    }

    // Relaxed in what follows: statistics.

    /// Something took so many nanoseconds.
    pub(crate) fn count(&self, time: u64) {
        self.buckets[bucket_of(time)].fetch_add(1, Relaxed);
        self.sum.fetch_add(time, Relaxed);
    }

    /// The same where no other thread counts: no read-modify-write.
    pub(crate) fn count_alone(&self, time: u64) {
        let bucket = &self.buckets[bucket_of(time)];
        bucket.store(bucket.load(Relaxed).wrapping_add(1), Relaxed);
        self.sum.store(self.sum.load(Relaxed).wrapping_add(time), Relaxed);
    }

    /// Empties it: nobody counts.
    pub(crate) fn clear(&self) {
        self.buckets.iter().chain([&self.sum]).for_each(|number| number.store(0, Relaxed));
    }

    pub(crate) fn add_to(&self, times: &mut Times) {
        for (sum, bucket) in times.buckets.iter_mut().zip(&self.buckets) {
            *sum += bucket.load(Relaxed);
        }
        times.sum += self.sum.load(Relaxed);
    }
}

/// What one or several histograms have counted.
#[derive(Clone, Copy, Default)]
pub(crate) struct Times {
    pub(crate) buckets: [u64; BUCKETS],
    /// Nanoseconds.
    pub(crate) sum: u64,
}

impl Times {
    pub(crate) const NONE: Self = Self { buckets: [0; BUCKETS], sum: 0 };

    pub(crate) fn add(&mut self, other: &Self) {
        for (sum, more) in self.buckets.iter_mut().zip(other.buckets) {
            *sum += more;
        }
        self.sum += other.sum;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_in_the_first_bucket_whose_bound_is_not_below_it() {
        let edges = BOUNDS.iter().flat_map(|(bound, _)| [bound - 1, *bound, bound + 1]);
        for time in edges.chain([0, 1, 2, 99, u64::MAX]) {
            let expected = BOUNDS.iter().position(|(bound, _)| time <= *bound);
            assert_eq!(bucket_of(time), expected.unwrap_or(BOUNDS.len()), "{time}");
        }
    }

    #[test]
    fn the_bounds_grow_and_their_words_are_their_numbers() {
        assert!(BOUNDS.windows(2).all(|pair| pair[0].0 < pair[1].0));
        for (nanoseconds, seconds) in BOUNDS {
            let said: f64 = seconds.parse().unwrap();
            assert_eq!((said * 1e9).round() as u64, nanoseconds, "{seconds}");
            // OpenMetrics' canonical numbers have a point or an exponent.
            assert!(seconds.contains(['.', 'e']), "{seconds}");
        }
    }

    #[test]
    fn what_was_counted_is_summed() {
        let (histogram, mut times) = (Histogram::new(), Times::NONE);
        for time in [50, 100, 20_000_000_000] {
            histogram.count(time);
        }
        histogram.count_alone(101);
        histogram.add_to(&mut times);
        let twice = times;
        times.add(&twice);
        assert_eq!((times.buckets[0], times.buckets[1], times.buckets[BUCKETS - 1]), (4, 2, 2));
        assert_eq!(times.sum, 2 * 20_000_000_251);
        histogram.clear();
        let mut times = Times::NONE;
        histogram.add_to(&mut times);
        assert_eq!((times.buckets, times.sum), (Times::NONE.buckets, 0));
    }
}
