//! The protocol: one TURN server's state, as a function of bytes, time and configuration.

pub mod allocation;
pub mod auth;
pub mod limits;
pub mod policy;
pub mod rest;
pub mod server;
pub mod stats;

use std::time::Instant;

/// The time a packet is handled at, as the driver read it.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// For lifetimes: never goes back.
    pub instant: Instant,
    /// Seconds since 1970, for credentials and nonces that other machines must agree on.
    pub unix_secs: u64,
}
