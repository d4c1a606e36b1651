//! Behind a load balancer that speaks version 2 of the PROXY protocol.

use std::net::{IpAddr, SocketAddr};

use rustls::version::TLS13;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::client::{Client, DEADLINE, Peer, Received, binding_request};
use super::relay::loopback;
use super::shared::{answer, is_healthy};
use super::stream::Dribble;
use super::tls::{Tls, handshake, read_to_end};

const CHANNEL: u16 = 0x4000;
const SIGNATURE: &[u8] = b"\x0D\x0A\x0D\x0A\x00\x0D\x0A\x51\x55\x49\x54\x0A";

/// A server behind the load balancer at 127.0.8.`fourth`.
fn behind(fourth: u8) -> Tls {
    Tls::start(fourth, |config| {
        config.net.proxies = vec![loopback(8, fourth).into()];
        config.http.shared = true;
    })
}

impl Tls {
    async fn from(&self, source: IpAddr) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((source, 0).into()).unwrap();
        let tcp = socket.connect(self.server.turn()).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        tcp
    }

    /// A connection of the load balancer that begins with these bytes.
    async fn proxied(&self, fourth: u8, header: &[u8]) -> TcpStream {
        let mut tcp = self.from(loopback(8, fourth)).await;
        tcp.write_all(header).await.unwrap();
        tcp
    }
}

fn header(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    [SIGNATURE, &[command, family], &(rest.len() as u16).to_be_bytes(), rest].concat()
}

/// Says that `client` has connected to 203.0.113.1:443, or to its likes of IPv6.
fn proxy(client: SocketAddr) -> Vec<u8> {
    let port = client.port().to_be_bytes();
    match client.ip() {
        IpAddr::V4(ip) => {
            let ends = [&ip.octets()[..], &[203, 0, 113, 1], &port, &[1, 0xBB]].concat();
            header(0x21, 0x11, &ends)
        }
        IpAddr::V6(ip) => {
            let server: std::net::Ipv6Addr = "2001:db8::1".parse().unwrap();
            let ends = [&ip.octets()[..], &server.octets(), &port, &[1, 0xBB]].concat();
            header(0x21, 0x21, &ends)
        }
    }
}

#[tokio::test]
async fn the_client_is_the_one_of_the_header_over_tcp_and_tls() {
    let server = behind(60);
    let peer = Peer::at(loopback(8, 160));
    let [plain, secure] =
        ["198.51.100.7:40001", "198.51.100.7:40002"].map(|it| it.parse().unwrap());
    let tcp = server.proxied(60, &proxy(plain)).await;
    let tcp = Client::over(tcp, plain, server.server.turn());
    let config = server.config(&[&TLS13], server.trusting());
    let tls = server.proxied(60, &proxy(secure)).await;
    let tls = handshake(config, "localhost", tls).await.unwrap();
    let tls = Client::over(tls, secure, server.server.turn());
    for mut client in [tcp, tls] {
        // Both assert that XOR-MAPPED-ADDRESS is the header's.
        assert_eq!(client.mapped().await, client.local());
        assert_eq!(client.allocate().await, 200);
        assert_eq!(client.bind(CHANNEL, peer.address()).await, 200);
        client.send_channel(CHANNEL, b"there").await;
        assert_eq!(peer.recv().await, (client.relayed(), b"there".to_vec()));
        peer.send(client.relayed(), b"back").await;
        assert_eq!(client.recv().await, Received::Channel(CHANNEL, b"back".to_vec()));
    }
}

#[tokio::test]
async fn a_client_of_ipv6_is_one_behind_a_load_balancer_of_ipv4() {
    let server = behind(61);
    let client: SocketAddr = "[2001:db8:7::1]:40003".parse().unwrap();
    let tcp = server.proxied(61, &proxy(client)).await;
    assert_eq!(Client::over(tcp, client, server.server.turn()).mapped().await, client);
}

#[tokio::test]
async fn header_may_come_byte_for_byte_and_carry_what_nobody_reads() {
    let server = behind(62);
    let client: SocketAddr = "198.51.100.8:40004".parse().unwrap();
    let mut with_more = proxy(client);
    with_more.extend([0xEE; 300]);
    with_more[14..16].copy_from_slice(&312_u16.to_be_bytes());
    for header in [proxy(client), with_more] {
        let mut slow = Dribble(server.from(loopback(8, 62)).await);
        slow.write_all(&header).await.unwrap();
        let mut over = Client::over(slow, client, server.server.turn());
        assert_eq!(over.mapped().await, client);
    }
}

#[tokio::test]
async fn a_connection_of_the_load_balancer_itself_has_its_own_address() {
    let server = behind(63);
    for rest in [&[][..], &[9; 40]] {
        let tcp = server.proxied(63, &header(0x20, 0x00, rest)).await;
        let local = tcp.local_addr().unwrap();
        assert_eq!(Client::over(tcp, local, server.server.turn()).mapped().await, local);
    }
}

#[tokio::test]
async fn http_passes_behind_a_header_too() {
    let server = behind(64);
    let request = b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let client = "198.51.100.9:40005".parse().unwrap();
    let tcp = server.proxied(64, &proxy(client)).await;
    assert!(is_healthy(&answer(tcp, request).await));
    let tcp = server.proxied(64, &proxy(client)).await;
    let config = server.config(&[&TLS13], server.trusting());
    let tls = handshake(config, "localhost", tcp).await.unwrap();
    assert!(is_healthy(&answer(tls, request).await));
}

#[tokio::test]
async fn without_a_good_header_a_load_balancer_gets_no_answer() {
    let server = behind(65);
    let good = proxy("198.51.100.7:1".parse().unwrap());
    let changed = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        [bytes, binding_request()].concat()
    };
    let cases = [
        binding_request(),
        b"PROXY TCP4 198.51.100.7 203.0.113.1 40000 443\r\n".to_vec(),
        changed(0, 0x0A),
        changed(12, 0x11),
        changed(12, 0x22),
        changed(13, 0x12),
        changed(13, 0x31),
        changed(14, 0xFF),
        changed(15, 11),
        header(0x21, 0x00, &[]),
        proxy("0.0.0.0:5".parse().unwrap()),
        proxy("198.51.100.7:0".parse().unwrap()),
    ];
    for (refused, bytes) in (1..).zip(cases) {
        let mut tcp = server.proxied(65, &bytes).await;
        assert_eq!(read_to_end(&mut tcp).await, b"", "{bytes:02x?}");
        server.server.until_refused("proxy_header", f64::from(refused)).await;
    }
}

#[tokio::test]
async fn a_header_from_anybody_else_is_junk() {
    let server = behind(66);
    let mut tcp = server.from(loopback(8, 166)).await;
    tcp.write_all(&proxy("198.51.100.7:40006".parse().unwrap())).await.unwrap();
    tcp.write_all(&binding_request()).await.ok();
    assert_eq!(read_to_end(&mut tcp).await, b"");
    assert_eq!(server.server.refused("not_a_protocol").await, 1.0);
    // Without one it is a client like any other.
    let tcp = server.from(loopback(8, 166)).await;
    let local = tcp.local_addr().unwrap();
    assert_eq!(Client::over(tcp, local, server.server.turn()).mapped().await, local);
}

/// 1,024 connections of one source are kept, whoever brings them.
#[tokio::test]
async fn connections_are_counted_for_the_client_of_the_header() {
    let server = behind(67);
    let mut held = Vec::new();
    for port in 0..1_030_u16 {
        let client = SocketAddr::from(([198, 51, 100, 10], 10_000 + port));
        held.push(server.proxied(67, &proxy(client)).await);
    }
    server.server.until_refused("limit_source", 6.0).await;
    let mut refused = 0;
    for mut tcp in held.split_off(1_000) {
        let _ = tcp.write_all(&binding_request()).await;
        let mut answer = [0; 32];
        let read = timeout(DEADLINE, tcp.read_exact(&mut answer)).await.unwrap();
        refused += usize::from(read.is_err());
        held.push(tcp);
    }
    assert_eq!(refused, 6);
    let other: SocketAddr = "198.51.100.11:40007".parse().unwrap();
    let tcp = server.proxied(67, &proxy(other)).await;
    assert_eq!(Client::over(tcp, other, server.server.turn()).mapped().await, other);
}
