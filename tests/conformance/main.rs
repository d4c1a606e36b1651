//! The protocol core against the RFCs, one test for each requirement, in virtual time.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod abuse;
mod allocate;
mod amplification;
mod auth;
mod channels;
mod discovery;
mod drain;
mod dual;
mod icmp;
mod limits;
mod loops;
mod mobility;
mod permissions;
mod policy;
mod redirect;
mod refresh;
mod renumbering;
mod reservations;
mod send_data;
mod stun;
mod tcp_relay;
mod wire;
mod world;
