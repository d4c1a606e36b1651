//! The protocol: one TURN server's state, as a function of bytes, time and configuration.

pub mod allocation;
pub mod auth;
pub mod limits;
pub mod policy;
pub mod server;
pub mod stats;
