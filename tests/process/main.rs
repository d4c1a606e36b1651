//! The real binary as its operators and its enemies meet it: exit codes, lines and datagrams.
//!
//! Nothing here knows the server's insides. Deadlines are generous and only keep a failing test
//! from hanging; nothing is timed.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bench;
mod cli;
mod client;
mod closing;
mod deploy;
mod descriptors;
mod drain;
mod dtls;
mod hostile;
mod logs;
mod memory;
mod origins;
mod permission;
mod proxy;
mod scan;
mod server;
mod signaling;
mod snippets;
#[path = "../zero_alloc/stream.rs"]
mod stream;
mod streams;
mod tls;
#[path = "../common/trust.rs"]
mod trust;
mod turnutils;
