//! A deterministic simulator: clients and peers, a network that loses, doubles, reorders, cuts
//! and flips, a clock that jumps, and beside the server a naive model that must agree with it.
//!
//! After every step it holds, by the names that failures give, that:
//!
//! - ports: every port of the pool is free, reserved or an allocation's, and never lost;
//! - quota: what the driver counts for a user is what the user holds and has reserved;
//! - to peers: data leaves only from the sender's own relayed address, to an address that has a
//!   permission and that the policy allows;
//! - to clients: data arrives only from a peer that has a permission, in its channel if it has one;
//! - amplification: without authentication the answer is at most 2.3 times the request;
//! - liveness: the same allocations live here and in the model, none of them longer or shorter;
//! - lifetimes: answers tell what is left, and the next timeout is the earliest expiry;
//! - retransmissions: an Allocate, however often it is sent, names one relayed address, and one token;
//! - bindings: channels and peers are one to one, and the events tell every one of them;
//! - answers: no more of them than requests;
//! - moves: a ticket moves the allocation it was given for, to its user, once; quota and port stay;
//! - caps: no allocation has more permissions or channels than are allowed;
//! - ending: when everybody has vanished and time has passed, nothing is left.
//!
//! Everything follows from a seed. `HAIRPIN_SIM_SEED=7 cargo test --test sim` repeats a run,
//! `HAIRPIN_SIM_STEPS=1000000` makes it longer.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod client;
mod driver;
mod model;
mod sim;
#[allow(dead_code, reason = "shared with the conformance tests, which need all of it")]
#[path = "../conformance/wire.rs"]
mod wire;

use sim::Sim;

/// What CI runs: few seconds in a debug build.
const SEEDS: std::ops::Range<u64> = 0..10;
const STEPS: u64 = 1_000;

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn server_and_model_agree_whatever_happens() {
    let steps = from_environment("HAIRPIN_SIM_STEPS").unwrap_or(STEPS);
    let seeds = from_environment("HAIRPIN_SIM_SEED").map_or(SEEDS, |seed| seed..seed + 1);
    for seed in seeds {
        Sim::new(seed).run(steps);
    }
}

/// The same seed is the same run, to the last byte sent.
#[test]
fn run_is_determined_by_its_seed() {
    let digests = [1, 1, 2].map(|seed| {
        let mut sim = Sim::new(seed);
        sim.run(1_000);
        sim.digest
    });
    assert_eq!(digests[0], digests[1]);
    assert_ne!(digests[0], digests[2]);
}
