//! Lifetimes, caps and the token buckets: every named bound of the protocol core.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use ahash::RandomState;

/// The bounds an operator sets. In every count, 0 means no limit.
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
        }
    }
}
