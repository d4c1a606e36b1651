//! SIGTERM: nobody new comes in, and who is there may finish.

use std::net::UdpSocket;

use hairpin::stun::ChannelNumber;

use crate::client::{self, Client};
use crate::server::{Server, Settings, eventually, field};

/// A server that has been told to end while a client has an allocation.
fn draining(settings: &Settings<'_>) -> (Server, Client) {
    let server = Server::start(settings);
    let client = Client::allocate(server.turn, "alice", "wonderland").unwrap();
    server.process().signal("TERM");
    let told = server.process().stderr().wait_for("draining", 1);
    assert_eq!(
        (field(&told[0], "signal"), field(&told[0], "allocations")),
        ("SIGTERM".into(), "1".into())
    );
    (server, client)
}

/// Whether bytes go to a peer through the relay, and back.
fn relays(client: &Client) -> bool {
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    let number = ChannelNumber::new(0x4000).unwrap();
    client.bind(number, peer.local_addr().unwrap()).unwrap();
    // Loopback loses nothing that fits into the buffers.
    client.socket.send(&client::channel_data(number, b"out")).unwrap();
    let (out, relayed) = client::receive(&peer);
    peer.send_to(b"in", relayed).unwrap();
    let back = client.receive();
    out == b"out" && back == client::channel_data(number, b"in")
}

#[test]
fn drained_server_relays_on_lets_nobody_in_and_ends_with_the_last_allocation() {
    let settings = Settings { turn: r#"drain_to = ["[2001:db8::7]:3478"]"#, ..Settings::default() };
    let (server, client) = draining(&settings);
    client.refresh(600).unwrap();
    assert_eq!(server.get("/readyz").0, 503, "a load balancer sends nobody here");
    assert_eq!(server.get("/healthz").0, 200, "and nobody needs to restart it");
    assert_eq!(server.metrics().sum(&["hairpin_draining"]), 1);
    let refused = Client::allocate(server.turn, "bob", "builder");
    assert_eq!(refused.unwrap_err(), 508, "there is no other server of this family");
    assert!(client::is_served(server.turn), "Binding keeps nobody");
    assert!(relays(&client));
    client.refresh(0).unwrap();
    let ended = server.wait();
    assert!(ended.status.success(), "{ended:?}");
    assert!(ended.stderr.iter().any(|line| line.contains("drained; stopping")), "{ended:?}");
}

#[test]
fn drained_server_sends_newcomers_where_it_drains_to() {
    let settings = Settings { turn: r#"drain_to = ["192.0.2.7:3478"]"#, ..Settings::default() };
    let server = Server::start(&settings);
    let first = Client::allocate(server.turn, "alice", "wonderland").unwrap();
    assert_eq!(server.metrics().sum(&["hairpin_draining"]), 0);
    assert_eq!(server.get("/readyz").0, 200);
    server.process().signal("TERM");
    server.process().stderr().wait_for("draining", 1);
    assert_eq!(Client::allocate(server.turn, "bob", "builder").unwrap_err(), 300);
    first.refresh(0).unwrap();
    assert!(server.wait().status.success());
}

#[test]
fn second_signal_ends_the_drain() {
    for signal in ["TERM", "INT"] {
        let (server, client) = draining(&Settings::default());
        // Certificates may still be replaced.
        server.process().signal("HUP");
        server.process().stderr().wait_for("reading certificates again", 1);
        assert!(relays(&client));
        server.process().signal(signal);
        let ended = server.wait();
        assert!(ended.status.success(), "{ended:?}");
        let closed = ended.stderr.iter().find(|line| line.contains("allocation closed")).unwrap();
        assert_eq!(field(closed, "reason"), "shutdown");
    }
}

#[test]
fn deadline_ends_the_drain() {
    let (server, client) =
        draining(&Settings { turn: r#"drain_for = "1s""#, ..Settings::default() });
    let ended = server.wait();
    assert!(ended.status.success(), "{ended:?}");
    let told = ended.stderr.iter().find(|line| line.contains("still not drained")).unwrap();
    assert_eq!(field(told, "allocations"), "1");
    UdpSocket::bind(client.relayed).expect("the relay port is free again");
}

/// Both within the deadline of the test, which is far below that of the drain.
#[test]
fn nothing_is_waited_for_without_allocations_or_with_a_drain_of_0s() {
    let server = Server::start(&Settings::default());
    let client = Client::allocate(server.turn, "alice", "wonderland").unwrap();
    client.refresh(0).unwrap();
    eventually("it is gone", || {
        (server.metrics().sum(&["hairpin_allocations{"]) == 0).then_some(())
    });
    server.process().signal("TERM");
    assert!(server.wait().status.success());

    let server = Server::start(&Settings { turn: r#"drain_for = "0s""#, ..Settings::default() });
    let _client = Client::allocate(server.turn, "alice", "wonderland").unwrap();
    server.process().signal("TERM");
    let ended = server.wait();
    assert!(ended.status.success(), "{ended:?}");
    assert!(!ended.stderr.iter().any(|line| line.contains("draining")), "{ended:?}");
}
