//! The protocol: one TURN server's state, as a function of bytes, time and configuration.
//!
//! [`Server`] is the whole face: packets go in with the time, a [`Verdict`] comes out. No socket,
//! clock, lock, atomic, task or global lives below here; the driver in `net` owns those.

pub mod allocation;
pub mod alternate;
mod answer;
pub mod auth;
pub mod connections;
pub mod discovery;
pub mod event;
mod five_tuple;
mod host;
mod icmp;
pub mod limits;
pub mod mobility;
mod nonce;
pub mod policy;
mod relay;
mod request;
pub mod rest;
pub mod server;
pub mod shares;
pub mod stats;
pub mod verdict;

use std::time::Instant;

pub use crate::stun::ChannelRange;
pub use allocation::{AllocationId, FiveTuple, PeerTransport, RelayedAddress, Transport};
pub use alternate::Alternate;
pub use discovery::Discovery;
pub use event::{CloseReason, Event};
pub use mobility::{Claim, Moved, PendingResume, Refused};
pub use policy::PeerAddress;
pub use request::allocate::{AllocateError, Allocated, PendingAllocation, PortWish};
pub use request::connect::{ConnectError, PendingConnect};
pub use request::connection_bind::{ConnectionBindError, PendingConnectionBind};
pub use server::{Config, Server};
pub use stats::{DropReason, Stats};
pub use verdict::{Header, Verdict};

/// The time a packet is handled at, as the driver read it.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// For lifetimes: never goes back.
    pub instant: Instant,
    /// Seconds since 1970, for credentials and nonces that other machines must agree on.
    pub unix_secs: u64,
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    /// Some point in time to count from.
    #[expect(clippy::disallowed_methods, reason = "an Instant can be had in no other way")]
    pub(super) fn epoch() -> Instant {
        Instant::now()
    }
}
