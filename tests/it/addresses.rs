//! Which addresses the server listens on, answers from, reports, and refuses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

#[cfg(all(target_os = "linux", not(feature = "portable")))]
use super::client::Received;
use super::client::{Client, Peer};
use super::common::{TestServer, scrape};
use super::relay::{loopback, server_at};

const ANY4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const ANY6: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
const LOOPBACK6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// A port that is free on both wildcards, and that the system gives to nobody who asks for any.
fn free_port() -> u16 {
    loop {
        let port = rand::random_range(10_000..30_000);
        let free = |ip| UdpSocket::bind(SocketAddr::new(ip, port)).is_ok();
        if free(ANY4) && free(ANY6) {
            return port;
        }
    }
}

// The portable path cannot ask for the address a datagram was sent to.
#[cfg(all(target_os = "linux", not(feature = "portable")))]
#[tokio::test]
async fn wildcard_listener_answers_from_the_address_that_was_asked() {
    let server = TestServer::start(|config| {
        config.net.listen = vec![SocketAddr::new(ANY4, 0)];
        config.net.relay_addresses = vec![loopback(2, 1)];
    });
    let port = server.turn().port();
    // The client asserts that everything comes from the address it talks to.
    for ip in [loopback(0, 1), loopback(0, 2), loopback(2, 2)] {
        let mut client = Client::at(loopback(0, 1), SocketAddr::new(ip, port));
        assert_eq!(client.mapped().await, client.local());
        assert_eq!(client.allocate().await, 200);
        assert_eq!(client.relayed().ip(), loopback(2, 1));
        let peer = Peer::at(loopback(2, 3));
        assert_eq!(client.permit(peer.address()).await, 200);
        for at in 0..8 {
            peer.send(client.relayed(), &[at; 100]).await;
        }
        for at in 0..8 {
            let expected = Received::Data(peer.address(), vec![at; 100]);
            assert_eq!(client.recv().await, expected);
        }
    }
}

#[tokio::test]
async fn both_wildcards_share_a_port() {
    let port = free_port();
    let server = TestServer::start(|config| {
        config.net.listen = [ANY4, ANY6].map(|ip| SocketAddr::new(ip, port)).into();
        config.net.relay_addresses = vec![loopback(0, 1), LOOPBACK6];
    });
    assert_eq!(server.listening(), [ANY4, ANY6].map(|ip| SocketAddr::new(ip, port)));
    for ip in [loopback(0, 1), LOOPBACK6] {
        let mut client = Client::new(SocketAddr::new(ip, port));
        assert_eq!(client.mapped().await, client.local());
        assert_eq!(client.allocate().await, 200);
        assert_eq!(client.relayed().ip(), ip);
        let peer = Peer::at(ip);
        assert_eq!(client.permit(peer.address()).await, 200);
        client.send(peer.address(), b"hello").await;
        assert_eq!(peer.recv().await, (client.relayed(), b"hello".to_vec()));
    }
}

#[tokio::test]
async fn mapped_address_is_the_clients_own() {
    let server = TestServer::start(|config| {
        config.net.listen = [loopback(2, 6), LOOPBACK6].map(|ip| SocketAddr::new(ip, 0)).into();
    });
    for &listening in server.listening() {
        for _ in 0..20 {
            let mut client = Client::new(listening);
            assert_eq!(client.mapped().await, client.local());
        }
    }
    let mut client = Client::at(loopback(2, 4), server.turn());
    assert_eq!(client.mapped().await, client.local());
    assert_eq!(client.allocate().await, 200);
}

#[tokio::test]
async fn own_listeners_are_no_peers() {
    let server = server_at(loopback(2, 5));
    let mut client = Client::new(server.turn());
    assert_eq!(client.allocate().await, 200);
    let peer = Peer::at(loopback(2, 5));
    // A permission is for the IP address, where there are other peers too.
    assert_eq!(client.permit(peer.address()).await, 200);
    for own in [server.turn(), server.http()] {
        assert_eq!(client.permit(own).await, 403, "{own}");
        assert_eq!(client.bind(0x4000, own).await, 403, "{own}");
        client.send(own, b"hello").await;
    }
    client.send(peer.address(), b"hello").await;
    assert_eq!(peer.recv().await, (client.relayed(), b"hello".to_vec()));
    let metrics = scrape(server.http()).await;
    let forbidden = r#"hairpin_dropped_packets_total{reason="peer_forbidden"}"#;
    assert_eq!(metrics.get(forbidden), 2.0);
}

#[tokio::test]
async fn wildcard_listeners_are_no_peers_at_any_address() {
    let server = TestServer::start(|config| {
        config.net.listen = vec![SocketAddr::new(ANY4, 0)];
        config.net.relay_addresses = vec![loopback(0, 1)];
    });
    let port = server.turn().port();
    let mut client = Client::new(SocketAddr::new(loopback(0, 1), port));
    assert_eq!(client.allocate().await, 200);
    for ip in [loopback(0, 1), loopback(0, 2), loopback(255, 254)] {
        assert_eq!(client.bind(0x4000, SocketAddr::new(ip, port)).await, 403, "{ip}");
    }
}
