//! Counts of durations in buckets whose width grows with the duration.

use std::time::Duration;

/// Buckets of each power of two: what a quantile tells is at most 1/64 too much.
const BUCKETS_PER_OCTAVE: u64 = 64;
/// Twice that many hold the small numbers exactly, and each of the 57 powers of two above adds one
/// octave.
const BUCKETS: usize = 59 * BUCKETS_PER_OCTAVE as usize;

/// How often each duration was seen, to 1.6 %; any duration fits, in 30 KiB.
#[derive(Clone, Debug)]
pub struct Histogram {
    counts: Vec<u64>,
    count: u64,
    sum_nanos: u128,
    max_nanos: u64,
}

impl Histogram {
    /// Has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self { counts: vec![0; BUCKETS], count: 0, sum_nanos: 0, max_nanos: 0 }
    }

    /// Counts a duration.
    pub fn record(&mut self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.counts[bucket(nanos)] += 1;
        self.count += 1;
        self.sum_nanos += u128::from(nanos);
        self.max_nanos = self.max_nanos.max(nanos);
    }

    /// Adds all that another one has seen.
    pub fn merge(&mut self, other: &Self) {
        for (own, others) in self.counts.iter_mut().zip(&other.counts) {
            *own += others;
        }
        self.count += other.count;
        self.sum_nanos += other.sum_nanos;
        self.max_nanos = self.max_nanos.max(other.max_nanos);
    }

    /// How many durations it has seen.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The longest one, exactly.
    #[must_use]
    pub fn max(&self) -> Duration {
        Duration::from_nanos(self.max_nanos)
    }

    /// The average, exactly; 0 of nothing.
    #[must_use]
    pub fn mean(&self) -> Duration {
        let nanos = self.sum_nanos.checked_div(u128::from(self.count)).unwrap_or_default();
        Duration::from_nanos(nanos as u64)
    }

    /// What this part of the durations does not exceed, such as 0.99 for the 99th percentile. Never
    /// too little, and at most 1/64 too much; 0 of nothing.
    #[must_use]
    pub fn quantile(&self, part: f64) -> Duration {
        let wanted = ((self.count as f64 * part).ceil() as u64).clamp(1, self.count.max(1));
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return Duration::from_nanos(highest_of(index).min(self.max_nanos));
            }
        }
        Duration::ZERO
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

/// The bucket of a number: its leading seven bits, and how many follow them.
fn bucket(nanos: u64) -> usize {
    let shift = (u64::BITS - nanos.leading_zeros()).saturating_sub(7);
    (u64::from(shift) * BUCKETS_PER_OCTAVE + (nanos >> shift)) as usize
}

/// The largest number of a bucket.
fn highest_of(index: usize) -> u64 {
    let index = index as u64;
    let shift = (index / BUCKETS_PER_OCTAVE).saturating_sub(1);
    let leading = u128::from(index - shift * BUCKETS_PER_OCTAVE);
    let next = (leading + 1) << shift;
    u64::try_from(next - 1).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_lies_in_a_bucket_that_is_at_most_a_64th_wide() {
        let around = |power: u32| [(1_u64 << power) - 1, 1 << power, (1 << power) + 1];
        let numbers = (1..64).flat_map(around).chain([0, 100, 12_345_678_901, u64::MAX]);
        for number in numbers {
            let index = bucket(number);
            let highest = highest_of(index);
            assert!(index < BUCKETS, "{number}");
            assert!(highest >= number, "{number}: {highest}");
            assert!(highest - number <= number / 64, "{number}: {highest}");
            assert!(index == 0 || highest_of(index - 1) < number, "{number}");
        }
    }

    #[test]
    fn quantiles_of_a_known_distribution() {
        let mut histogram = Histogram::new();
        (1..=1000).for_each(|micros| histogram.record(Duration::from_micros(micros)));
        for (part, micros) in [(0.0, 1), (0.5, 500), (0.99, 990), (0.999, 999), (1.0, 1000)] {
            let exact = Duration::from_micros(micros);
            let told = histogram.quantile(part);
            assert!(exact <= told && told <= exact + exact / 64, "{part}: {told:?}");
        }
        assert_eq!(histogram.max(), Duration::from_micros(1000));
        assert_eq!(histogram.mean(), Duration::from_nanos(500_500));
    }

    #[test]
    fn merging_is_as_if_one_had_seen_all() {
        let (mut one, mut other, mut both) = <(Histogram, Histogram, Histogram)>::default();
        for nanos in (0..10_000).map(|at| at * 7919) {
            let half = if nanos % 2 == 0 { &mut one } else { &mut other };
            half.record(Duration::from_nanos(nanos));
            both.record(Duration::from_nanos(nanos));
        }
        one.merge(&other);
        assert_eq!(one.counts, both.counts);
        assert_eq!((one.count(), one.max(), one.mean()), (both.count(), both.max(), both.mean()));
    }

    #[test]
    fn nothing_has_no_quantiles() {
        let nothing = Histogram::new();
        assert_eq!((nothing.quantile(0.99), nothing.mean()), (Duration::ZERO, Duration::ZERO));
    }
}
