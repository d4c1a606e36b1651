//! The load generator: TURN clients and their peers, packets on a schedule, and what became of
//! each of them.
//!
//! The other side of the wire: shares the codec and the batched sockets with the server and
//! nothing else, and works against any server. A [`Fleet`] is opened once and driven as often as
//! wanted. Everything it does has a limit named here, and it sends to no public address unless
//! told to.

mod churn;
mod client;
mod drive;
mod error;
mod fleet;
mod flows;
mod histogram;
mod port;
mod report;
mod schedule;
mod search;
mod stamp;
mod stream;
mod tally;
mod target;
mod tls;
mod usage;

use std::net::IpAddr;
use std::time::Duration;

pub use error::Error;
pub use fleet::{Fleet, Progress};
pub use histogram::Histogram;
pub use report::{Generator, Latency, Report, ServerUsage};
pub use search::{Found, Search, Trial};
pub use target::{Target, Transport, Uri};
pub use tls::Trust;
pub use usage::Usage;

/// Packets, allocations or requests per second of all clients together.
pub const RATE_MAX: u64 = 10_000_000;
/// A single drive. Permissions live for five minutes, and are renewed between drives only.
pub const DURATION_MAX: Duration = Duration::from_secs(240);
/// Clients; those of relay to relay have a partner each.
pub const CLIENTS_MAX: u32 = 100_000;
/// Threads of the generator.
pub const THREADS_MAX: usize = 64;
/// Packets of a burst.
pub const BURST_MAX: u32 = 1024;
/// The data of the smallest packet: what tells it from the others.
pub const SIZE_MIN: usize = stamp::STAMP_LEN;
/// The data of the largest packet: what a Send indication has room for in a datagram.
pub const SIZE_MAX: usize = 65_507 - stamp::OVERHEAD_MAX - 3;

/// Who sends to whom.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Pattern {
    /// Clients send through the server to peers.
    ToPeer,
    /// Peers send through the server to clients.
    ToClient,
    /// Clients send to peers, which send everything back.
    Echo,
    /// Clients send to other clients of the same server, from relayed address to relayed address.
    RelayToRelay,
    /// Clients make an allocation with a channel or permission, delete it, and begin anew.
    Allocate,
    /// Clients send Binding requests.
    Binding,
}

/// What carries the data of clients.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Mode {
    /// ChannelData on a bound channel.
    Channel,
    /// Send and Data indications, with a permission.
    Send,
}

/// Who a client is.
#[derive(Clone)]
pub struct Login {
    /// The user name.
    pub user: String,
    /// The password.
    pub password: String,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login").field("user", &self.user).finish_non_exhaustive()
    }
}

/// The clients of a fleet.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Who sends to whom.
    pub pattern: Pattern,
    /// In what.
    pub mode: Mode,
    /// Clients that send or are sent to; 1 to [`CLIENTS_MAX`].
    pub clients: u32,
    /// One for each of them; 1 to [`THREADS_MAX`].
    pub threads: Vec<Core>,
    /// Local addresses of the clients, taken in turn: one address has room for some 28,000
    /// clients. Empty: what the system prefers.
    pub local: Vec<IpAddr>,
    /// Not used by Binding requests.
    pub login: Login,
    /// Relayed addresses may be public ones.
    pub public: bool,
}

/// Where a thread runs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Core {
    /// Wherever the system puts it.
    Any,
    /// On this core, counted from 0.
    Pinned(usize),
}

/// What a fleet is to send.
#[derive(Clone, Copy, Debug)]
pub struct Order {
    /// Packets per second of all clients together, up to [`RATE_MAX`]. For [`Pattern::Allocate`]
    /// 0 means that each client begins anew as soon as it has ended.
    pub rate: u64,
    /// Packets that leave at once; 1 to [`BURST_MAX`].
    pub burst: u32,
    /// Bytes of data in each packet, [`SIZE_MIN`] to [`SIZE_MAX`].
    pub size: usize,
    /// Up to [`DURATION_MAX`].
    pub duration: Duration,
    /// All clients send at the same moment instead of one after the other.
    pub together: bool,
    /// Each datagram leaves alone, instead of in trains that the kernel takes apart.
    pub one_by_one: bool,
}
