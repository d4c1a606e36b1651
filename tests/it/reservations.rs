//! Pairs of relay ports over real sockets: reserved on one shard, claimed on whichever.

use std::net::SocketAddr;

use super::client::{Attribute, Client, Peer, Received};
use super::common::{TestServer, scrape};
use super::relay::{loopback, server_at};

const EVEN_PORT: u16 = 0x0018;
const RESERVATION_TOKEN: u16 = 0x0022;

fn pair() -> [Attribute; 1] {
    [(EVEN_PORT, vec![0x80])]
}

/// A client with the lower port of a pair, and the token of the upper one.
async fn reserved(server: &TestServer) -> (Client, [Attribute; 1]) {
    let mut client = Client::new(server.turn());
    let response = client.allocate_with(&pair()).await;
    assert_eq!((response.code(), client.relayed().port() % 2), (200, 0));
    let token = response.get(RESERVATION_TOKEN).expect("RESERVATION-TOKEN").to_vec();
    (client, [(RESERVATION_TOKEN, token)])
}

/// Often enough that both shards reserve, and both claim.
#[tokio::test]
async fn token_is_claimed_on_any_shard_and_over_any_transport() {
    let ip = loopback(44, 1);
    let server = server_at(ip);
    let peer = Peer::at(ip);
    for round in 0..16_u8 {
        let (lower, token) = reserved(&server).await;
        let mut upper = match round % 2 {
            0 => Client::new(server.turn()),
            _ => Client::tcp(server.turn()).await,
        };
        assert_eq!(upper.allocate_with(&token).await.code(), 200);
        assert_eq!(upper.relayed().port(), lower.relayed().port() + 1);
        assert_eq!(upper.relayed().ip(), lower.relayed().ip());
        assert_eq!(upper.permit(peer.address()).await, 200);
        upper.send(peer.address(), &[round]).await;
        assert_eq!(peer.recv().await, (upper.relayed(), vec![round]));
        peer.send(upper.relayed(), b"back").await;
        assert_eq!(upper.recv().await, Received::Data(peer.address(), b"back".to_vec()));
        assert_eq!(Client::new(server.turn()).allocate_with(&token).await.code(), 508, "once");
    }
}

#[tokio::test]
async fn reservations_are_counted_as_ports_and_against_the_quota() {
    let server = TestServer::start(|config| {
        config.net.allocations_per_user = 3;
        config.net.relay_ports = 40_000..=40_009;
    });
    let (_lower, token) = reserved(&server).await;
    let mut other = Client::new(server.turn());
    assert_eq!(other.allocate_with(&pair()).await.code(), 486, "one place is left, and two needed");
    assert_eq!(other.allocate().await, 200);
    assert_eq!(Client::new(server.turn()).allocate().await, 486);
    let metrics = scrape(server.http()).await;
    let of = |state| metrics.get(&format!(r#"hairpin_relay_ports{{state="{state}"}}"#));
    assert_eq!(["used", "reserved", "free"].map(of), [2.0, 1.0, 7.0]);
    let mut upper = Client::new(server.turn()).user("bob");
    assert_eq!(upper.allocate_with(&token).await.code(), 508, "of another user");
    let mut upper = Client::new(server.turn());
    assert_eq!(upper.allocate_with(&token).await.code(), 200, "it has its place already");
    let metrics = scrape(server.http()).await;
    let of = |state| metrics.get(&format!(r#"hairpin_relay_ports{{state="{state}"}}"#));
    assert_eq!(["used", "reserved", "free"].map(of), [3.0, 0.0, 7.0]);
}

/// RFC 8656 §7.2 (8)
#[tokio::test]
async fn pair_that_is_not_to_be_had_is_508_and_takes_nothing() {
    // The last port has no next one.
    let start = |fourth, ports| {
        TestServer::start(|config| {
            config.net.listen = vec![SocketAddr::new(loopback(44, fourth), 0)];
            config.net.relay_ports = ports;
        })
    };
    let server = start(2, 23_011..=23_012);
    assert_eq!(Client::new(server.turn()).allocate_with(&pair()).await.code(), 508);
    let mut even = Client::new(server.turn());
    assert_eq!(even.allocate_with(&[(EVEN_PORT, vec![0])]).await.code(), 200);
    assert_eq!(even.relayed().port(), 23_012);
    // One of the two ports is somebody's.
    let server = start(3, 23_014..=23_015);
    let mut holder = Client::new(server.turn());
    assert_eq!(holder.allocate().await, 200);
    assert_eq!(Client::new(server.turn()).allocate_with(&pair()).await.code(), 508);
    let metrics = scrape(server.http()).await;
    let of = |state| metrics.get(&format!(r#"hairpin_relay_ports{{state="{state}"}}"#));
    assert_eq!(["used", "reserved", "free"].map(of), [1.0, 0.0, 1.0]);
    assert_eq!(holder.refresh(0).await, 200);
    let (_lower, token) = reserved(&server).await;
    assert_eq!(Client::new(server.turn()).allocate_with(&token).await.code(), 200);
}
