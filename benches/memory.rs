//! Resident memory per allocation with one channel: `cargo bench --bench memory`.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use hairpin::stun::ChannelNumber;
use support::{Client, Server};

const ALLOCATIONS: usize = 10_000;
const BUDGET: u64 = 2048;

fn main() {
    let per_allocation = measure(&Server::hairpin(24_780, None));
    if let Some(coturn) = Server::coturn(24_781, None) {
        measure(&coturn);
    }
    assert!(per_allocation <= BUDGET, "over the budget of {BUDGET} bytes");
}

fn measure(server: &Server) -> u64 {
    // The first ones touch what is paid once: code, receive buffers, tables.
    let warm: Vec<_> = (0..100).map(|_| open(server)).collect();
    let before = server.resident();
    let clients: Vec<_> = (0..ALLOCATIONS).map(|_| open(server)).collect();
    let after = server.resident();
    let per_allocation = after.saturating_sub(before) / ALLOCATIONS as u64;
    println!(
        "{:8} {} allocations with a channel each: {per_allocation} bytes of resident memory per \
         allocation ({} KiB before, {} KiB after)",
        server.name,
        warm.len() + clients.len(),
        before / 1024,
        after / 1024,
    );
    per_allocation
}

fn open(server: &Server) -> Client {
    let mut client = Client::allocate(server.address);
    client.bind(ChannelNumber::MIN, ([127, 0, 0, 1], 9).into());
    client
}
