//! The sockets: the only place with the operating system, tokio and a clock.

pub mod clock;

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

pub mod egress;
pub mod sys;

/// Where to listen and relay, and the process-wide caps.
#[derive(Clone, Debug)]
pub struct Config {
    /// Each address: UDP. Port 0 takes any free port (tests).
    pub listen: Vec<SocketAddr>,
    /// Shards; 0 is one per core.
    pub threads: usize,
    /// Ports of relay sockets.
    pub relay_ports: RangeInclusive<u16>,
    /// Local addresses of relay sockets, at most one per family; empty: the listeners' own.
    pub relay_addresses: Vec<IpAddr>,
    /// Allocations one user may hold; 0 is no limit.
    pub allocations_per_user: usize,
    /// Allocations in all; 0 is no limit.
    pub allocations: usize,
    /// Bytes per second one user may relay, both directions together; 0 is no limit.
    pub user_bandwidth: u64,
}
