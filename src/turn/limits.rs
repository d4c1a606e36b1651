//! Lifetimes, caps and the token buckets: every named bound of the protocol core.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use ahash::RandomState;

use crate::stun::attribute::Lifetime;

/// Connections between one relayed address and its peers (RFC 6062): being opened, waiting for the
/// client, or open. More is 508.
pub const PEER_CONNECTIONS_MAX: usize = 128;

/// The bounds an operator sets. In every count, 0 means no limit;
/// of permissions and channels an allocation may hold 4,096 even then.
#[derive(Clone, Debug)]
pub struct Config {
    /// Installed permissions an allocation may hold; more is 508.
    pub permissions_per_allocation: usize,
    /// Bound channels an allocation may hold; more is 508.
    pub channels_per_allocation: usize,
    /// Replies per second to requests that are not authenticated, for each source address.
    pub unauthenticated_per_source: u32,
    /// What an allocation lives where the client asks for less or nothing.
    pub default_lifetime: Duration,
    /// The most an allocation lives without a Refresh.
    pub max_lifetime: Duration,
    /// Five minutes in RFC 8656 §9; other values are for tests.
    pub permission_lifetime: Duration,
    /// Ten minutes in RFC 8656 §12; other values are for tests.
    pub channel_lifetime: Duration,
    /// How long a connection to a peer may take: 30 seconds or more in RFC 6062 §5.2. No setting;
    /// other values are for tests.
    pub connect_deadline: Duration,
    /// How long a peer's connection waits for its ConnectionBind: 30 seconds in RFC 6062 §5.2 and
    /// §5.3. No setting; other values are for tests.
    pub unbound_lifetime: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            permissions_per_allocation: 256,
            channels_per_allocation: 256,
            unauthenticated_per_source: 20,
            default_lifetime: Duration::from_secs(600),
            max_lifetime: Duration::from_secs(3600),
            permission_lifetime: Duration::from_secs(300),
            channel_lifetime: Duration::from_secs(600),
            connect_deadline: Duration::from_secs(30),
            unbound_lifetime: Duration::from_secs(30),
        }
    }
}

impl Config {
    /// The lifetime granted where this much is asked for: between the default and the maximum
    /// (RFC 8656 §7.2).
    pub(super) fn lifetime(&self, requested: Option<Lifetime>) -> Duration {
        let requested = requested.map_or(0, |Lifetime(seconds)| seconds);
        Duration::from_secs(u64::from(requested)).min(self.max_lifetime).max(self.default_lifetime)
    }
}

/// A user's bandwidth, shared by all of the user's allocations in the process.
///
/// The core asks before each relayed datagram; who answers, and how shards agree, is the
/// driver's business.
pub trait Meter: Send + Sync {
    /// Takes `bytes` from the budget, or says that they are not to be had now.
    fn admit(&self, bytes: usize, now: Instant) -> bool;
}

/// Sources that are counted at once; collisions share a budget.
const SOURCE_BUCKETS: usize = 4096;

/// Token buckets for what sources get that have proven nothing: a table of fixed size, so that no
/// flood of source addresses makes it grow.
///
/// Each bucket is one number, the theoretical arrival time of the generic cell rate algorithm:
/// it runs ahead of the clock by one interval for each token, and one that would push it further
/// ahead than the burst is not given.
pub struct SourceBuckets {
    interval_micros: u64,
    burst_micros: u64,
    epoch: Option<Instant>,
    ahead_until_micros: Box<[u64; SOURCE_BUCKETS]>,
    hasher: RandomState,
}

const SECOND_MICROS: u64 = 1_000_000;

impl SourceBuckets {
    /// `per_second` tokens for each source, 0 being no limit, and those of so many seconds at once.
    #[must_use]
    pub fn new(per_second: u32, burst_secs: u32, hasher: RandomState) -> Self {
        let interval_micros = SECOND_MICROS.checked_div(u64::from(per_second)).unwrap_or(0);
        Self {
            interval_micros,
            burst_micros: u64::from(burst_secs) * SECOND_MICROS,
            epoch: None,
            ahead_until_micros: Box::new([0; SOURCE_BUCKETS]),
            hasher,
        }
    }

    /// Takes one token from the budget of `source`, if it has one left.
    pub fn admit(&mut self, source: IpAddr, now: Instant) -> bool {
        if self.interval_micros == 0 {
            return true;
        }
        let epoch = *self.epoch.get_or_insert(now);
        let now_micros = now.saturating_duration_since(epoch).as_micros() as u64;
        let index = self.hasher.hash_one(source_prefix(source)) as usize % SOURCE_BUCKETS;
        let bucket = &mut self.ahead_until_micros[index];
        let next = (*bucket).max(now_micros) + self.interval_micros;
        if next > now_micros + self.burst_micros {
            return false;
        }
        *bucket = next;
        true
    }
}

impl std::fmt::Debug for SourceBuckets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SourceBuckets").finish_non_exhaustive()
    }
}

/// One subscriber: an IPv4 address, or the /64 an IPv6 host picks its addresses from.
#[must_use]
pub fn source_prefix(source: IpAddr) -> u64 {
    match source {
        IpAddr::V4(ip) => u64::from(ip.to_bits()),
        IpAddr::V6(ip) => (ip.to_bits() >> 64) as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_gets_its_share_and_others_are_not_touched() {
        let start = crate::turn::tests::epoch();
        let mut buckets = SourceBuckets::new(20, 1, RandomState::with_seeds(1, 2, 3, 4));
        let source = "198.51.100.1".parse().unwrap();
        let admitted = (0..1000).filter(|_| buckets.admit(source, start)).count();
        assert_eq!(admitted, 20);
        assert!(buckets.admit("198.51.100.2".parse().unwrap(), start));
        let later = start + Duration::from_secs(1);
        let admitted = (0..1000).filter(|_| buckets.admit(source, later)).count();
        assert_eq!(admitted, 20);
    }

    #[test]
    fn a_burst_is_that_of_so_many_seconds() {
        let start = crate::turn::tests::epoch();
        let mut buckets = SourceBuckets::new(20, 5, RandomState::with_seeds(1, 2, 3, 4));
        let source = "198.51.100.1".parse().unwrap();
        let admitted = |buckets: &mut SourceBuckets, at| {
            (0..1000).filter(|_| buckets.admit(source, at)).count()
        };
        assert_eq!(admitted(&mut buckets, start), 100);
        assert_eq!(admitted(&mut buckets, start + Duration::from_secs(1)), 20);
    }

    #[test]
    fn zero_is_no_limit() {
        let start = crate::turn::tests::epoch();
        let mut buckets = SourceBuckets::new(0, 1, RandomState::with_seeds(1, 2, 3, 4));
        let source = "198.51.100.1".parse().unwrap();
        assert!((0..100_000).all(|_| buckets.admit(source, start)));
    }

    #[test]
    fn an_ipv6_source_is_its_64_bit_prefix() {
        let start = crate::turn::tests::epoch();
        let mut buckets = SourceBuckets::new(2, 1, RandomState::with_seeds(1, 2, 3, 4));
        let hosts = (1..100).map(|host| IpAddr::from([0x2600, 0, 0, 1, 0, 0, 0, host]));
        assert_eq!(hosts.filter(|&host| buckets.admit(host, start)).count(), 2);
    }
}
