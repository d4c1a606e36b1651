//! Clients over TCP that a network takes away without a word.

use std::time::Duration;

use hairpin::net::clock;

use crate::namespaces::World;
use crate::netns::{Namespace, serve};
use crate::server::{ConfigFile, DEADLINE, Process, Settings, eventually, field, run};

/// How long the server's kernel waits for an answer to what was sent: what `net::stream` sets.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(30);
/// For the last retransmission before, and a machine that does other things too. In all less than
/// the minute after which a silent client would be probed.
const MARGIN: Duration = Duration::from_secs(20);
/// Bytes from the server that are more than allocating takes: a hundred datagrams.
const FLOWING: u64 = 20_000;

#[test]
fn allocation_ends_when_nothing_that_is_sent_is_acknowledged() {
    let Some(world) = World::new("table ip nothing {}") else { return };
    let settings = Settings { listen: r#"["203.0.113.1:3478"]"#, ..Settings::default() };
    let allow = r#"allow = ["10.0.0.0/24", "#;
    let config = ConfigFile::new(&settings.toml().replace("allow = [", allow));
    let server = serve(&world.server, &config.path());
    // The client's peer is in the same process, reaches the relay over UDP, and never pauses.
    let mut bench = world.client.hairpin();
    bench.args(["bench", "turn:203.0.113.1?transport=tcp", "--pattern", "to-client"]);
    bench.args(["--user", "alice", "--pass", "wonderland", "--clients", "1", "--rate", "50"]);
    let bench = Process::spawn(bench.args(["--size", "200", "--duration", "4m", "--yes-really"]));
    eventually("data flows", || (received(&world.nat, "wan") > FLOWING).then_some(()));
    world.nat.nft(
        "table ip filter { chain pass { type filter hook forward priority 0; ip protocol tcp drop; } }",
    );
    let start = clock::now().instant;
    assert!(UNACKNOWLEDGED_MAX + MARGIN < DEADLINE);
    let closed = server.stderr().wait_for("allocation closed", 1);
    let took = clock::now().instant.saturating_duration_since(start);
    assert!(took < UNACKNOWLEDGED_MAX + MARGIN, "only after {took:?}: {closed:?}");
    // By the deadline, and by nothing else.
    assert!(took > UNACKNOWLEDGED_MAX / 2, "already after {took:?}: {closed:?}");
    let sent: u64 = field(&closed[0], "to_client_packets").parse().unwrap();
    assert!(sent > 0 && field(&closed[0], "reason") == "disconnected", "{closed:?}");
    drop(bench);
}

/// Bytes that have come in at a device.
fn received(namespace: &Namespace, device: &str) -> u64 {
    let table = run(namespace.command("cat").arg("/proc/net/dev")).stdout;
    let row =
        table.lines().find_map(|row| row.trim_start().strip_prefix(device)?.strip_prefix(':'));
    row.and_then(|row| row.split_whitespace().next()?.parse().ok()).unwrap()
}
