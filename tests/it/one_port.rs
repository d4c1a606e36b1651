//! Everything on one port number, at the same time.

use rustls::version::TLS13;

use super::client::{Client, Peer, Received};
use super::common::get;
use super::relay::loopback;
use super::shared::{answer, is_healthy};
use super::tls::{Tls, handshake};

const ROUNDS: u8 = 25;
const CHANNEL: u16 = 0x4000;

#[tokio::test]
async fn one_port_serves_turn_over_udp_tcp_and_tls_and_http_and_https() {
    let server = Tls::start(50, |config| config.http.shared = true);
    let port = server.server.turn();
    assert_eq!(server.server.listening(), [port]);
    let trusting = || server.config(&[&TLS13], server.trusting());

    let udp = relays(Client::new(port), 1);
    let tcp = async { relays(Client::tcp(port).await, 2).await };
    let tls = async { relays(server.client(trusting()).await, 3).await };
    let http = async {
        for _ in 0..ROUNDS {
            assert_eq!(get(port, "/healthz").await, (200, "ok\n".to_owned()));
        }
    };
    let https = async {
        for _ in 0..ROUNDS {
            let tls = handshake(trusting(), "localhost", server.tcp().await).await.unwrap();
            let request = b"GET /readyz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
            assert!(answer(tls, request).await.ends_with("\r\n\r\nready\n"));
            let tls = handshake(trusting(), "localhost", server.tcp().await).await.unwrap();
            let request = b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
            assert!(is_healthy(&answer(tls, request).await));
        }
    };
    tokio::join!(udp, tcp, tls, http, https);
}

/// Both ways over a channel, again and again.
async fn relays(mut client: Client, last: u8) {
    let peer = Peer::at(loopback(7, last));
    assert_eq!(client.allocate().await, 200);
    assert_eq!(client.bind(CHANNEL, peer.address()).await, 200);
    for round in 0..ROUNDS {
        client.send_channel(CHANNEL, &[round; 100]).await;
        assert_eq!(peer.recv().await, (client.relayed(), vec![round; 100]));
        peer.send(client.relayed(), &[round; 99]).await;
        assert_eq!(client.recv().await, Received::Channel(CHANNEL, vec![round; 99]));
    }
}
