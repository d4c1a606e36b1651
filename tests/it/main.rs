//! Real sockets, a real server in this process, and clients that share no code with it.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

#[path = "../common/mod.rs"]
mod common;

mod addresses;
mod alternate;
mod client;
mod datagrams;
mod discovery;
mod dtls;
mod dual;
mod external;
mod foreign;
#[cfg(target_os = "linux")]
mod headers;
#[cfg(all(target_os = "linux", not(feature = "portable")))]
mod icmp;
mod lifetimes;
mod limits;
mod mobility;
mod observability;
mod one_port;
mod proxy;
mod relay;
mod relay_addresses;
mod renewal;
mod reservations;
mod shared;
mod stream;
mod stream_abuse;
mod tcp;
mod tcp_relay;
mod tls;
mod tls_abuse;
#[path = "../common/trust.rs"]
mod trust;
