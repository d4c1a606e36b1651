//! What `hairpin nat` and `hairpin doctor` say of networks and servers that are known.
//!
//! The machine in virtual time behind every NAT of RFC 4787; the program against this server and
//! against coturn, on loopback and through real NATs in network namespaces.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod broken;
#[path = "../process/client.rs"]
mod client;
mod coturn;
mod doctor;
mod fakes;
mod model;
mod namespaces;
mod nat;
mod netns;
mod pki;
#[path = "../process/server.rs"]
#[allow(dead_code, reason = "shared with another binary, which uses more of it")]
mod server;
mod sim;

use serde_json::Value;

use server::{Ended, hairpin, run};

/// Runs the program with `--json`; how it ended and what it printed.
fn told(arguments: &[&str]) -> (Ended, Value) {
    told_by(&mut hairpin(), arguments)
}

fn told_by(command: &mut std::process::Command, arguments: &[&str]) -> (Ended, Value) {
    let ended = run(command.args(arguments).arg("--json"));
    let json = serde_json::from_str(&ended.stdout).unwrap_or_else(|_| panic!("{ended:?}"));
    (ended, json)
}
