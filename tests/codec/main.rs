//! The codec against two others, `stun` 0.17.2 and `stun-types` 2.0, and against its own writing.
//!
//! The differences that are meant stand in two tables: `rules.rs` for messages, `attributes.rs`
//! for values. The seed is fixed; PROPTEST_CASES asks for that many cases from a random one.

// clippy.toml allows it in test functions; this binary is one test.
#![allow(clippy::unwrap_used)]

mod attributes;
mod item;
mod plan;
mod robustness;
mod rules;
mod view;
mod wire;

use proptest::prelude::ProptestConfig;
use proptest::test_runner::RngSeed;

fn config(cases: u32) -> ProptestConfig {
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    if std::env::var_os("PROPTEST_CASES").is_some() {
        return config;
    }
    ProptestConfig { cases, rng_seed: RngSeed::Fixed(0x2112_A442), ..config }
}
