//! Signaling: a hub that introduces peers to each other, as a function of messages, time and
//! randomness.
//!
//! [`Hub`] is the whole face: what a connection says goes in with the time, and [`Action`]s come
//! out. No socket, clock, lock or task lives below here; the driver in `http` owns those. What
//! peers say to each other is carried as it came, and neither read nor logged.

mod connection;
mod hub;
mod join;
mod message;
mod peer;
mod rates;
mod relay;
mod room;
pub mod stats;
#[cfg(test)]
mod tests;
mod timers;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;

pub use connection::{CloseReason, ConnectionId};
pub use hub::{Action, Hub, Refused};
pub use message::Problem;
pub use rates::Rates;
pub use stats::Stats;

/// A message, and so what several frames may add up to.
pub const MAX_MESSAGE_BYTES: usize = 64 * 1024;
/// Brackets within brackets in a message. Some readers of JSON recurse, and the next peer's may.
pub const MAX_DEPTH: usize = 32;
/// An id, a room's name and a message's type.
pub const MAX_NAME_BYTES: usize = 128;
/// What a peer tells a room about itself: every newcomer gets it from everyone.
pub const MAX_META_BYTES: usize = 256;
/// What a connection may send on average, and what it may have saved up: trickling candidates
/// come in bursts.
pub const MESSAGES_PER_SECOND: u32 = 50;
/// See [`MESSAGES_PER_SECOND`].
pub const MESSAGE_BURST: u32 = 200;
/// A join counts as so many messages: whoever tries names of rooms shall not try many.
pub const JOIN_COST: u32 = 10;
/// Joins from one source address, over all of its connections.
pub const JOINS_PER_SECOND: u32 = 20;
/// Rooms a peer may be in.
pub const ROOMS_PER_CONNECTION: usize = 16;
/// Peers a room may hold: each message to a room costs as many.
pub const PEERS_PER_ROOM: usize = 64;
/// Open connections in all.
pub const CONNECTIONS: usize = 20_000;
/// Open connections of one source address; of IPv6, one /64. Loopback is not counted: there, a
/// proxy on this machine stands for everybody.
pub const CONNECTIONS_PER_SOURCE: usize = 256;
/// Messages that wait for one connection; one that reads slower is closed.
pub const OUTBOUND_MESSAGES: usize = 512;
/// The same in bytes.
pub const OUTBOUND_BYTES: usize = 1024 * 1024;
/// Bytes that wait for all connections together; where there are more, the connection that most
/// wait for is closed.
pub const OUTBOUND_BYTES_IN_ALL: usize = 256 * 1024 * 1024;
/// How long messages wait for a connection that takes none. It has to take one 64 KB message in
/// this time, which the slowest of networks carry.
pub const UNREAD: Duration = Duration::from_secs(20);
/// How long a lost peer's place is kept; in this time its loss is no leave.
pub const RESUME_WINDOW: Duration = Duration::from_secs(30);
/// How long a message waits for a lost peer.
pub const KEEP: Duration = Duration::from_secs(5);
/// Messages that wait for one lost peer.
pub const KEPT_MESSAGES: usize = 64;
/// The same in bytes.
pub const KEPT_BYTES: usize = 256 * 1024;
/// Bytes that wait for all lost peers together.
pub const KEPT_BYTES_IN_ALL: usize = 16 * 1024 * 1024;
/// How often a connection is pinged.
pub const HEARTBEAT: Duration = Duration::from_secs(25);
/// A connection that says nothing for so long, not even a pong, is lost.
pub const SILENCE: Duration = Duration::from_secs(60);
/// A connection that has not joined after so long is closed.
pub const JOIN_DEADLINE: Duration = Duration::from_secs(10);
/// Between a user's name and what tells its peers apart; in no user's name.
pub const SEPARATOR: char = '#';
/// The name of a user, which leaves its peers' ids room for more.
pub const MAX_USER_BYTES: usize = 96;
/// What calls itself so is the hub, and no peer may.
pub const SERVER: &str = "server";

/// Who may join, and what happens to an id that is taken.
#[derive(Clone, Copy, Debug, Default)]
pub struct Config {
    /// Whether guests without a token may join, under any id and in any room.
    pub open: bool,
    /// What becomes of a second join with an id.
    pub replace: Replace,
    /// Connections of one source address that is not loopback; 0 is [`CONNECTIONS_PER_SOURCE`].
    pub connections_per_source: usize,
    /// Bytes that wait for all connections together; 0 is [`OUTBOUND_BYTES_IN_ALL`].
    pub outbound_bytes_in_all: usize,
}

/// What a join needs to take over an id that another connection holds.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Replace {
    /// The secret that the holder was welcomed with.
    #[default]
    Secret,
    /// Nothing: who joins last has the id.
    Always,
}

/// What a good token says of its holder.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Grant {
    /// Who it is. Its peers are called so, or so with [`SEPARATOR`] and more
    /// behind it.
    pub user: String,
    /// Where it may go.
    pub rooms: Rooms,
    /// How much longer the token is good.
    pub valid_for: Duration,
}

/// Which rooms a token opens.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Rooms {
    /// Any room, and none at all.
    All,
    /// No room: the holder can be reached by its id alone.
    None,
    /// These.
    Only(Vec<String>),
}

/// ICE servers for one user, as `RTCPeerConnection` wants them.
#[derive(Clone, Debug)]
pub struct IceServers {
    /// The array, as JSON.
    pub json: Box<RawValue>,
    /// How long their credentials are good.
    pub ttl: Duration,
}

/// Whose credentials are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Account<'a> {
    /// The user whom a token names.
    User(&'a str),
    /// Whoever comes from this address without a token, under whatever id.
    Guest(IpAddr),
}

/// What the hub asks of the rest of the server, which knows keys and the wall clock.
pub trait Authority: Send + Sync {
    /// Who holds this token; `None` where it is not good.
    fn grant(&self, token: &str) -> Option<Grant>;

    /// ICE servers for this account, good for `at_most` so long; `None` where it has asked too often
    /// of late.
    fn ice_servers(&self, account: Account<'_>, at_most: Duration) -> Option<IceServers>;
}

/// A text that may go to many.
type Text = Arc<str>;
