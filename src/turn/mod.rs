//! The protocol: one TURN server's state, as a function of bytes, time and configuration.
//!
//! [`Server`] is the whole face: packets go in with the time, a [`Verdict`] comes out. No socket,
//! clock, lock, atomic, task or global lives below here; the driver in `net` owns those.

pub mod allocation;
pub mod auth;
pub mod event;
pub mod limits;
pub mod policy;
pub mod server;
pub mod stats;
mod request;

use std::time::Instant;

pub use allocation::{AllocationId, FiveTuple, RelayedAddress, Transport};
pub use event::{CloseReason, Event};
pub use policy::PeerAddress;
pub use server::{AllocateError, Allocated, Config, PendingAllocation, Server, Verdict};
pub use stats::{DropReason, Stats};

/// The time a packet is handled at, as the driver read it.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// For lifetimes: never goes back.
    pub instant: Instant,
    /// Seconds since 1970, for credentials and nonces that other machines must agree on.
    pub unix_secs: u64,
}
