//! Everything on one port number, at the same time.

use rustls::version::TLS13;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::client::{Client, Peer, Received};
use super::common::get;
use super::datagrams::Dtls;
use super::relay::loopback;
use super::shared::{answer, is_healthy};
use super::stream::Stream;
use super::tls::{Tls, handshake};

const ROUNDS: u8 = 25;
const CHANNEL: u16 = 0x4000;

#[tokio::test]
async fn one_port_serves_turn_over_udp_tcp_tls_and_dtls_and_http_https_and_websocket() {
    let server = Tls::start(50, |config| config.http.shared = true);
    let port = server.server.turn();
    assert_eq!(server.server.listening(), [port]);
    let trusting = || server.config(&[&TLS13], server.trusting());

    let udp = relays(Client::new(port), 1);
    let tcp = async { relays(Client::tcp(port).await, 2).await };
    let tls = async { relays(server.client(trusting()).await, 3).await };
    let dtls = async {
        relays(Client::within(Dtls::connected(port.ip(), port).await), 4).await;
    };
    let websocket = async {
        for _ in 0..ROUNDS {
            let tls = handshake(trusting(), "localhost", server.tcp().await).await.unwrap();
            meets_the_hub(tls).await;
        }
    };
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
    tokio::join!(udp, tcp, tls, dtls, http, https, websocket);
}

/// A WebSocket handshake with the key of RFC 6455 §1.3, and a word with who is behind it.
async fn meets_the_hub(mut stream: impl Stream) {
    let upgrade = b"GET /ws HTTP/1.1\r\nHost: localhost\r\nOrigin: https://localhost\r\n\
        Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(upgrade).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    assert!(head.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="), "{head}");
    let join = br#"{"type":"join","room":"r"}"#;
    // A text frame, whole, masked with zeros.
    let mut frame = vec![0x81, 0x80 | join.len() as u8, 0, 0, 0, 0];
    frame.extend_from_slice(join);
    stream.write_all(&frame).await.unwrap();
    // A longer one comes back: two bytes of length, and no mask.
    assert_eq!([stream.read_u8().await.unwrap(), stream.read_u8().await.unwrap()], [0x81, 126]);
    let mut welcome = vec![0; usize::from(stream.read_u16().await.unwrap())];
    stream.read_exact(&mut welcome).await.unwrap();
    assert!(welcome.starts_with(br#"{"type":"welcome""#));
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
