//! Signaling: the hub against a model under churn, and the server over real sockets, with
//! WebSocket clients that are not ours.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod abuse;
mod churn;
#[path = "../common/mod.rs"]
mod common;
mod credentials;
mod foreign;
mod session;
mod socket;
