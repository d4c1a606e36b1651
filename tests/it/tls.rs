//! TURN over TLS, as a client with another TLS driver sees it.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hairpin::config::Config;
use hairpin::net::certificates::{Files, Pair, Reload};
use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::client::{Client, DEADLINE, Peer, Received, binding_request};
use super::common::{TestServer, scrape};
use super::relay::loopback;
use super::stream::{Dribble, Framed, Stream, padded};

const LIVE: &str = r#"hairpin_allocations{transport="tls"}"#;

#[tokio::test]
async fn relays_both_ways_over_both_versions() {
    let server = Tls::start(1, |_| {});
    for version in [&TLS12, &TLS13] {
        let config = server.config(&[version], server.trusting());
        let mut client = server.client(config).await;
        let peer = Peer::at(loopback(6, 1));
        assert_eq!(client.allocate().await, 200);
        assert_eq!(client.bind(0x4000, peer.address()).await, 200);
        for length in [0, 1, 2, 3, 4, 1_000, 9_000, 60_000] {
            client.send_channel(0x4000, &vec![7; length]).await;
            assert_eq!(peer.recv().await, (client.relayed(), vec![7; length]));
            peer.send(client.relayed(), &vec![9; length]).await;
            assert_eq!(client.recv().await, Received::Channel(0x4000, vec![9; length]));
        }
        client.send(peer.address(), b"indicated").await;
        assert_eq!(peer.recv().await.1, b"indicated");
    }
    let metrics = scrape(server.server.http()).await;
    assert_eq!(metrics.sum("hairpin_allocations_total"), 2.0);
    let series = r#"hairpin_relay_packets_total{direction="to_client",transport="tls"}"#;
    assert_eq!(metrics.get(series), 16.0);
}

#[tokio::test]
async fn handshake_and_frames_may_come_byte_for_byte() {
    let server = Tls::start(2, |_| {});
    for version in [&TLS12, &TLS13] {
        let tcp = server.tcp().await;
        let local = tcp.local_addr().unwrap();
        let config = server.config(&[version], server.trusting());
        let tls = handshake(config, "localhost", Dribble(tcp)).await.unwrap();
        let mut client = Client::over(tls, local, server.server.turn());
        let peer = Peer::at(loopback(6, 2));
        assert_eq!(client.allocate().await, 200);
        assert_eq!(client.bind(0x4000, peer.address()).await, 200);
        client.send_channel(0x4000, b"slowly").await;
        assert_eq!(peer.recv().await, (client.relayed(), b"slowly".to_vec()));
    }
}

#[tokio::test]
async fn records_and_messages_need_not_align() {
    let server = Tls::start(3, |_| {});
    let mut config = server.config(&[&TLS13], server.trusting());
    let mut many_in_one = handshake(config.clone(), "localhost", server.tcp().await).await.unwrap();
    let requests: Vec<_> = (0..300).flat_map(|_| binding_request()).collect();
    many_in_one.write_all(&requests).await.unwrap();
    let mut framed = Framed::new(many_in_one);
    for _ in 0..300 {
        let response = framed.recv(Instant::now() + DEADLINE).await.unwrap();
        assert_eq!(response[..2], [1, 1]);
    }
    // Records that hold no more than a few bytes each.
    config.max_fragment_size = Some(32);
    let mut client = server.client(config).await;
    let peer = Peer::at(loopback(6, 3));
    assert_eq!(client.allocate().await, 200);
    assert_eq!(client.permit(peer.address()).await, 200);
    client.send(peer.address(), &[5; 20_000]).await;
    assert_eq!(peer.recv().await, (client.relayed(), vec![5; 20_000]));
}

#[tokio::test]
async fn host_chooses_the_certificate() {
    let server = Tls::start(4, |config| {
        let other = Pair::self_signed(&["turn.test", "*.wild.test"]).unwrap();
        config.net.tls.as_mut().unwrap().pairs.push(other);
    });
    for (host, expected) in
        [("localhost", 0), ("127.0.0.1", 0), ("turn.test", 1), ("a.wild.test", 1)]
    {
        let config = server.config(&[&TLS13], server.trusting());
        let tls = handshake(config, host, server.tcp().await).await.unwrap();
        assert_eq!(shown(&tls), server.shown[expected], "{host}");
    }
}

#[tokio::test]
async fn protocols_are_negotiated_where_the_client_asks() {
    let server = Tls::start(5, |_| {});
    for (offered, chosen) in [
        (&[][..], None),
        (&["stun.turn"], Some("stun.turn")),
        (&["stun.nat-discovery"], Some("stun.nat-discovery")),
        (&["h2", "stun.turn"], Some("stun.turn")),
    ] {
        let mut config = server.config(&[&TLS12, &TLS13], server.trusting());
        config.alpn_protocols = offered.iter().map(|name| name.as_bytes().to_vec()).collect();
        let tls = handshake(config, "localhost", server.tcp().await).await.unwrap();
        assert_eq!(tls.get_ref().1.alpn_protocol(), chosen.map(str::as_bytes), "{offered:?}");
        assert_answered(tls).await;
    }
    let mut config = server.config(&[&TLS13], server.trusting());
    config.alpn_protocols = vec![b"h2".to_vec()];
    let error = handshake(config, "localhost", server.tcp().await).await.unwrap_err();
    assert!(error.to_string().contains("NoApplicationProtocol"), "{error}");
}

#[tokio::test]
async fn one_port_speaks_tcp_and_tls_and_another_only_tls() {
    let server = Tls::start(6, |config| {
        let listen = config.net.listen.clone();
        config.net.tls.as_mut().unwrap().listen = listen;
    });
    let only = server.server.running().addresses().tls[0];
    assert_ne!(only, server.server.turn());
    let plain = server.tcp().await;
    let tls =
        handshake(server.config(&[&TLS13], server.trusting()), "localhost", server.tcp().await);
    let (plain_answered, tls) = tokio::join!(assert_answered(plain), tls);
    let () = plain_answered;
    assert_answered(tls.unwrap()).await;
    let tcp = TcpStream::connect(only).await.unwrap();
    let config = server.config(&[&TLS13], server.trusting());
    assert_answered(handshake(config, "localhost", tcp).await.unwrap()).await;
    let mut refused = TcpStream::connect(only).await.unwrap();
    refused.write_all(&binding_request()).await.unwrap();
    assert_eq!(read_to_end(&mut refused).await, b"");
}

#[tokio::test]
async fn old_versions_and_garbage_end_their_own_connection_only() {
    let server = Tls::start(7, |_| {});
    let config = server.config(&[&TLS13], server.trusting());
    let mut client = server.client(config).await;
    assert_eq!(client.allocate().await, 200);
    for minor in [0, 1, 2] {
        let mut tcp = server.tcp().await;
        tcp.write_all(&old_client_hello(minor)).await.unwrap();
        let answer = read_to_end(&mut tcp).await;
        // One fatal alert, handshake_failure or protocol_version, and no ServerHello.
        let refused = matches!(answer[..], [21, 3, _, 0, 2, 2, 40 | 70]);
        assert!(refused, "3.{minor}: {answer:?}");
    }
    for garbage in [&[0x16; 64][..], &[0x16, 3, 1, 0, 4, 1, 2, 3, 4], &[0x16, 3, 1, 0xFF, 0xFF]] {
        let mut tcp = server.tcp().await;
        tcp.write_all(garbage).await.unwrap();
        tcp.shutdown().await.unwrap();
        let answer = read_to_end(&mut tcp).await;
        assert!(answer.len() <= 7, "no more than an alert: {answer:?}");
    }
    assert_eq!(client.refresh(600).await, 200);
}

#[tokio::test]
async fn certificate_is_replaced_under_load() {
    let directory = tempfile::tempdir().unwrap();
    let files = write_pair(directory.path());
    let first = Pair::load(files.clone()).unwrap();
    let server = Tls::start(8, |config| config.net.tls.as_mut().unwrap().pairs = vec![first]);
    let mut client = server.client(server.config(&[&TLS13], server.trusting())).await;
    let peer = Peer::at(loopback(6, 8));
    assert_eq!(client.allocate().await, 200);
    assert_eq!(client.bind(0x4000, peer.address()).await, 200);
    let mut seen = vec![server.shown[0].clone()];
    for round in 0..20u8 {
        for packet in 0..20 {
            client.send_channel(0x4000, &[round, packet]).await;
        }
        if round % 4 == 1 {
            write_pair(directory.path());
        }
        if round % 4 == 3 {
            fs::write(&files.key, "garbage").unwrap();
        }
        server.server.running().reload_certificates(Reload::Changed);
        for packet in 0..20 {
            assert_eq!(peer.recv().await.1, [round, packet]);
            peer.send(client.relayed(), &[packet, round]).await;
        }
        for packet in 0..20 {
            assert_eq!(client.recv().await, Received::Channel(0x4000, vec![packet, round]));
        }
        let own = fs::read_to_string(&files.cert).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(der(&own).into()).unwrap();
        let config = server.config(&[&TLS13], roots);
        let tls = handshake(config, "localhost", server.tcp().await).await.unwrap();
        if seen.last() != Some(&shown(&tls)) {
            seen.push(shown(&tls));
        }
    }
    assert_eq!(seen.len(), 6, "five replacements, each seen by the next handshake");
    let metrics = scrape(server.server.http()).await;
    assert_eq!(metrics.get(r#"hairpin_tls_reloads_total{result="success"}"#), 5.0);
    assert_eq!(metrics.get(r#"hairpin_tls_reloads_total{result="failure"}"#), 5.0);
    assert!(metrics.get(r#"hairpin_tls_certificate_not_after_seconds{certificate="0"}"#) > 0.0);
}

#[tokio::test]
async fn close_notify_ends_the_allocation() {
    let server = Tls::start(9, |_| {});
    let config = server.config(&[&TLS13], server.trusting());
    let mut tls = handshake(config, "localhost", server.tcp().await).await.unwrap();
    // The last message and the close in one segment, and the TCP connection stays open.
    let (io, session) = tls.get_mut();
    let mut wire = Vec::new();
    std::io::Write::write_all(&mut session.writer(), &binding_request()).unwrap();
    session.send_close_notify();
    while session.wants_write() {
        session.write_tls(&mut wire).unwrap();
    }
    io.write_all(&wire).await.unwrap();
    let mut answer = Vec::new();
    timeout(DEADLINE, tls.read_to_end(&mut answer)).await.unwrap().unwrap();
    assert_eq!(answer[..2], [1, 1], "answered, and closed properly");

    let config = server.config(&[&TLS13], server.trusting());
    let tls = handshake(config, "localhost", server.tcp().await).await.unwrap();
    let (local, turn) = (tls.get_ref().0.local_addr().unwrap(), server.server.turn());
    let mut client = Client::over(tls, local, turn);
    assert_eq!(client.allocate().await, 200);
    assert_eq!(scrape(server.server.http()).await.get(LIVE), 1.0);
    client.shutdown().await;
    let guard = Instant::now() + DEADLINE;
    while scrape(server.server.http()).await.get(LIVE) > 0.0 {
        assert!(Instant::now() < guard, "the allocation ends with its connection");
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn slow_reader_loses_data_and_keeps_its_control_channel() {
    let server = Tls::start(10, |_| {});
    let config = server.config(&[&TLS13], server.trusting());
    let mut client = server.client(config).await;
    let peer = Peer::at(loopback(6, 10));
    assert_eq!(client.allocate().await, 200);
    assert_eq!(client.bind(0x4000, peer.address()).await, 200);
    let guard = Instant::now() + 6 * DEADLINE;
    while server.server.dropped("stream_full").await < 12_000.0 {
        // No more at once than the relay socket holds: what the kernel drops proves nothing.
        for _ in 0..20 {
            peer.send(client.relayed(), &[3; 8_000]).await;
        }
        assert!(Instant::now() < guard, "the queue has an end");
    }
    // Behind what did arrive comes the answer.
    assert_eq!(client.refresh(600).await, 200);
}

/// A server whose certificates the tests know.
pub(crate) struct Tls {
    pub(crate) server: TestServer,
    pub(crate) shown: Vec<Vec<u8>>,
}

impl Tls {
    pub(crate) fn start(fourth: u8, change: impl FnOnce(&mut Config)) -> Self {
        let mut shown = Vec::new();
        let server = TestServer::start(|config| {
            config.net.listen = vec![SocketAddr::new(loopback(6, fourth), 0)];
            change(config);
            let pairs = &config.net.tls.as_ref().unwrap().pairs;
            shown = pairs.iter().map(|pair| pair.certificate.der().to_vec()).collect();
        });
        Self { server, shown }
    }

    pub(crate) async fn tcp(&self) -> TcpStream {
        let tcp = TcpStream::connect(self.server.turn()).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        tcp
    }

    pub(crate) fn trusting(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        for shown in &self.shown {
            roots.add(shown.clone().into()).unwrap();
        }
        roots
    }

    pub(crate) fn config(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        roots: RootCertStore,
    ) -> ClientConfig {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth()
    }

    /// A client with the newest version and the right trust.
    pub(crate) async fn any_client(&self) -> Client {
        self.client(self.config(&[&TLS13], self.trusting())).await
    }

    pub(crate) async fn client(&self, config: ClientConfig) -> Client {
        let tcp = self.tcp().await;
        let local = tcp.local_addr().unwrap();
        let tls = handshake(config, "localhost", tcp).await.unwrap();
        Client::over(tls, local, self.server.turn())
    }
}

pub(crate) async fn handshake<S: Stream>(
    config: ClientConfig,
    host: &str,
    stream: S,
) -> std::io::Result<TlsStream<S>> {
    let host = ServerName::try_from(host.to_owned()).unwrap();
    let connecting = TlsConnector::from(Arc::new(config)).connect(host, stream);
    timeout(DEADLINE, connecting).await.expect("a handshake ends")
}

pub(crate) fn shown<S>(tls: &TlsStream<S>) -> Vec<u8> {
    tls.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

async fn assert_answered(stream: impl Stream) {
    let mut framed = Framed::new(stream);
    framed.send(&padded(&binding_request())).await.unwrap();
    let response = framed.recv(Instant::now() + DEADLINE).await.expect("an answer");
    assert_eq!(response[..2], [1, 1]);
}

/// What arrives until the server closes; a reset is a close too.
pub(crate) async fn read_to_end(tcp: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let read = timeout(DEADLINE, tcp.read_to_end(&mut bytes)).await;
    read.expect("the server closes the connection").ok();
    bytes
}

/// A ClientHello of SSL 3.0, TLS 1.0 or TLS 1.1, with a suite of its time.
fn old_client_hello(minor: u8) -> Vec<u8> {
    let mut body = vec![3, minor];
    body.extend([0x5A; 32]);
    body.extend([0, 0, 2, 0x00, 0x2F, 1, 0]);
    let length = body.len() as u8;
    [&[22, 3, minor, 0, length + 4, 1, 0, 0, length][..], &body].concat()
}

/// Writes another certificate for `localhost`; each file is replaced at once.
pub(crate) fn write_pair(directory: &Path) -> Files {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let cert = params.self_signed(&key).unwrap();
    let files = Files { cert: directory.join("cert.pem"), key: directory.join("key.pem") };
    for (file, label, der) in [
        (&files.cert, "CERTIFICATE", cert.der().to_vec()),
        (&files.key, "PRIVATE KEY", key.serialize_der()),
    ] {
        let next = directory.join("next");
        fs::write(&next, pem(label, &der)).unwrap();
        fs::rename(next, file).unwrap();
    }
    files
}

pub(crate) fn pem(label: &str, der: &[u8]) -> String {
    use base64::Engine;

    let text = base64::prelude::BASE64_STANDARD.encode(der);
    format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
}

pub(crate) fn der(pem: &str) -> Vec<u8> {
    use base64::Engine;

    base64::prelude::BASE64_STANDARD.decode(pem.lines().nth(1).unwrap()).unwrap()
}
