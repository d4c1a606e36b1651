//! What `hairpin nat` and `hairpin doctor` say of networks and servers that are known.
//!
//! The machine in virtual time behind every NAT of RFC 4787; the program against this server and
//! against coturn, on loopback and through real NATs in network namespaces.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod model;
mod sim;
