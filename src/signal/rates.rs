//! How often somebody may do something.

use std::hash::Hash;
use std::time::{Duration, Instant};

use ahash::RandomState;

/// Keys whose rate is counted at once; collisions share one.
const SLOTS: usize = 4096;

/// Rates of any number of keys, in a table of fixed size: no flood of keys makes it grow.
///
/// The generic cell rate algorithm: each slot is a time that runs ahead of the clock by one
/// interval for each admission, and never by more than the burst.
pub struct Rates {
    interval_micros: u64,
    burst_micros: u64,
    epoch: Option<Instant>,
    ahead_until_micros: Box<[u64]>,
    hasher: RandomState,
}

impl Rates {
    /// One admission each `interval` for each key, and `burst` of them at once.
    #[must_use]
    pub fn new(interval: Duration, burst: u32, hasher: RandomState) -> Self {
        let interval_micros = interval.as_micros() as u64;
        Self {
            interval_micros,
            burst_micros: interval_micros * u64::from(burst),
            epoch: None,
            ahead_until_micros: vec![0; SLOTS].into(),
            hasher,
        }
    }

    /// Takes one from what `key` has left, if there is one.
    pub fn admit(&mut self, key: impl Hash, now: Instant) -> bool {
        let epoch = *self.epoch.get_or_insert(now);
        let now = now.saturating_duration_since(epoch).as_micros() as u64;
        let slot = self.hasher.hash_one(key) as usize % SLOTS;
        let ahead = &mut self.ahead_until_micros[slot];
        let next = (*ahead).max(now) + self.interval_micros;
        if next > now + self.burst_micros {
            return false;
        }
        *ahead = next;
        true
    }
}

impl std::fmt::Debug for Rates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rates").field("interval_micros", &self.interval_micros).finish()
    }
}

/// What one connection has left to say: refills steadily up to a burst.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    left_millis: u64,
    at: Instant,
}

impl Budget {
    /// A full one.
    pub(super) fn new(burst: u32, now: Instant) -> Self {
        Self { left_millis: u64::from(burst) * 1000, at: now }
    }

    /// Takes `cost`, if there is as much.
    pub(super) fn take(&mut self, cost: u32, per_second: u32, burst: u32, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.at).as_millis() as u64;
        let refilled = passed.saturating_mul(u64::from(per_second));
        self.at = self.at.max(now);
        self.left_millis = self.left_millis.saturating_add(refilled).min(u64::from(burst) * 1000);
        let Some(left) = self.left_millis.checked_sub(u64::from(cost) * 1000) else { return false };
        self.left_millis = left;
        true
    }
}
