//! What becomes of relay sockets at the ends of their lives.

use std::net::UdpSocket;

use hairpin::stun::ChannelNumber;
use hairpin::stun::Method;
use hairpin::stun::attribute::Lifetime;

use crate::client::{self, Client};
#[cfg(all(target_os = "linux", not(feature = "portable")))]
use crate::server::hairpin;
use crate::server::{Server, Settings};

/// The data and the Refresh that deletes the allocation arrive together: what was sent first leaves.
#[test]
fn what_a_client_sent_before_it_deleted_its_allocation_still_leaves() {
    const SENT: u8 = 20;
    let server = Server::start(&Settings { threads: 1, ..Settings::default() });
    let client = Client::allocate(server.turn, "alice", "wonderland").unwrap();
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.bind(ChannelNumber::MIN, peer.local_addr().unwrap()).unwrap();
    let delete = client.bytes_of(Method::Refresh, |builder| builder.put(&Lifetime(0)));
    server.process().signal("STOP");
    for number in 0..SENT {
        client.socket.send(&client::channel_data(ChannelNumber::MIN, &[number])).unwrap();
    }
    client.socket.send(&delete).unwrap();
    server.process().signal("CONT");
    for number in 0..SENT {
        assert_eq!(client::receive(&peer), (vec![number], client.relayed));
    }
    let answer = client.receive();
    assert_eq!(answer[..2], [0x01, 0x04], "a success response to Refresh");
    server.stop();
}

/// Linux lets a user watch only so many files: an allocation whose socket would never be heard must
/// not be granted.
#[cfg(all(target_os = "linux", not(feature = "portable")))]
#[test]
fn where_no_more_sockets_can_be_watched_clients_are_refused_and_nothing_is_kept() {
    let settings = Settings {
        relay_ports: "65532-65535",
        limits: "allocations_per_user = 2\nunauthenticated_per_source = 0",
        ..Settings::default()
    };
    let directory = tempfile::tempdir().unwrap();
    let library = directory.path().join("unwatched.so");
    compile(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/process/unwatched.c"), &library);
    let mut command = hairpin();
    command.env("LD_PRELOAD", &library).env("UNWATCHED_FROM", "65532");
    let server = Server::start_as(&mut command, &settings);
    // More often than there are ports, and places for the user.
    for _ in 0..10 {
        let refused = Client::allocate(server.turn, "alice", "wonderland").map(|_| ());
        assert_eq!(refused, Err(508));
    }
    let metrics = server.metrics();
    assert_eq!(metrics.sum(&["hairpin_allocations{"]), 0);
    assert_eq!(metrics.sum(&["hairpin_allocation_errors_total", "508"]), 10);
    let log = server.stop();
    let told: Vec<_> = log.iter().filter(|line| line.contains("refused with 508")).collect();
    assert!(matches!(told[..], [line] if line.contains("No space left")), "{log:#?}");
}

/// Rust links with it, so it is there.
#[cfg(all(target_os = "linux", not(feature = "portable")))]
fn compile(source: &str, library: &std::path::Path) {
    let mut compiler = std::process::Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-Wall", "-Werror", "-o"]).arg(library).arg(source);
    assert!(compiler.status().unwrap().success());
}
