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
mod vanished;

use std::time::Duration;

use hairpin::net::clock;
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

/// What a run with a timeout of a second or two may take altogether: more than all its steps on a
/// machine that does other things too, and less than the harness waits for the end of a process.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs what has deadlines of its own, and sees to it that they held.
fn in_time<T>(run: impl FnOnce() -> T) -> T {
    let start = clock::now().instant;
    let outcome = run();
    let took = clock::now().instant.saturating_duration_since(start);
    assert!(took < PATIENCE, "it ended only after {took:?}");
    outcome
}
