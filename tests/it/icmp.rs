//! ICMP errors about what was relayed, as the system reports them and as anybody may forge them, and
//! the bit that asks for some of them.
#![allow(unsafe_code, reason = "what a raw socket has read is not known to be")]

use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};

use socket2::{Domain, Protocol, SockAddr, SockFilter, Socket, Type};

use tokio::time::Instant;

use super::client::{Client, DEADLINE, DONT_FRAGMENT, Peer, Received};
use super::common::TestServer;
use super::datagrams::Dtls;
use super::relay::{loopback, server_at};
use super::tls::Tls;

const IPV6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);
/// More than one turn takes.
const MANY: usize = 100;

/// An address where nobody is.
fn closed(ip: IpAddr) -> SocketAddr {
    Peer::at(ip).address()
}

fn unreachable(peer: SocketAddr) -> Received {
    let kind_and_code = if peer.is_ipv4() { [3, 3] } else { [1, 4] };
    Received::Icmp(peer, kind_and_code, 0)
}

/// Errors come, by Send and by channel, and data still goes both ways.
async fn is_told(client: &mut Client, ip: IpAddr) {
    assert_eq!(client.allocate().await, 200);
    let (nobody, peer) = (closed(ip), Peer::at(ip));
    assert_eq!(client.permit(peer.address()).await, 200);
    for number in 0..3 {
        client.send(nobody, b"nobody home").await;
        assert_eq!(client.recv().await, unreachable(nobody));
        client.send(peer.address(), &[number]).await;
        assert_eq!(peer.recv().await, (client.relayed(), vec![number]));
        peer.send(client.relayed(), &[number]).await;
        assert_eq!(client.recv().await, Received::Data(peer.address(), vec![number]));
    }
    assert_eq!(client.bind(0x4000, nobody).await, 200);
    client.send_channel(0x4000, b"still nobody").await;
    assert_eq!(client.recv().await, unreachable(nobody));
}

#[tokio::test]
async fn closed_port_of_a_peer_is_told_over_every_transport() {
    let server = Tls::start(40, |_| {});
    let (turn, ip) = (server.server.turn(), server.server.turn().ip());
    is_told(&mut Client::new(turn), ip).await;
    is_told(&mut Client::tcp(turn).await, ip).await;
    is_told(&mut server.any_client().await, ip).await;
    is_told(&mut Client::within(Dtls::connected(ip, turn).await), ip).await;
    assert_eq!(server.server.dropped("icmp_unknown").await, 0.0);
    assert_eq!(server.server.dropped("send_failed").await, 0.0);
}

#[tokio::test]
async fn closed_port_of_an_ipv6_peer_is_told() {
    let server = server_at(IPV6);
    is_told(&mut Client::new(server.turn()), IPV6).await;
    is_told(&mut Client::tcp(server.turn()).await, IPV6).await;
}

#[tokio::test]
async fn more_errors_than_a_turn_takes_are_all_told() {
    let server = server_at(loopback(48, 1));
    let mut client = Client::new(server.turn());
    assert_eq!(client.allocate().await, 200);
    let nobody = closed(loopback(48, 1));
    assert_eq!(client.permit(nobody).await, 200);
    for size in 0..MANY {
        // Each larger than the one before: no two leave in one piece, and share an error.
        client.send(nobody, &vec![0; size]).await;
    }
    for _ in 0..MANY {
        assert_eq!(client.recv().await, unreachable(nobody));
    }
    // None is left that would keep this from being heard.
    let peer = Peer::at(loopback(48, 1));
    peer.send(client.relayed(), b"and on").await;
    assert_eq!(client.recv().await, Received::Data(peer.address(), b"and on".to_vec()));
}

/// Errors wait in the socket for the turn that reads them, and meanwhile fail whatever is sent
/// next, to whomever.
#[tokio::test]
async fn peers_lose_nothing_to_errors_about_others() {
    let server = server_at(loopback(48, 2));
    let client = &mut Client::new(server.turn());
    assert_eq!(client.allocate().await, 200);
    let (nobody, peer) = (closed(loopback(48, 2)), Peer::at(loopback(48, 2)));
    assert_eq!(client.permit(nobody).await, 200);
    for number in 0..MANY {
        client.send(nobody, &vec![0; number]).await;
        client.send(peer.address(), &[number as u8]).await;
        assert_eq!(peer.recv().await.1, [number as u8]);
    }
    assert_eq!(server.dropped("send_failed").await, 0.0);
}

/// Abuse case F.86.
#[tokio::test]
async fn forged_errors_are_told_for_permitted_peers_only_and_close_nothing() {
    let Some(forger) = Forger::new() else { return };
    let server = server_at(loopback(48, 3));
    let mut client = Client::new(server.turn());
    assert_eq!(client.allocate().await, 200);
    let (peer, stranger) = (Peer::at(loopback(48, 4)), Peer::at(loopback(48, 5)));
    assert_eq!(client.bind(0x4000, peer.address()).await, 200);

    // Before anything was sent there can be no error, and none is heard.
    forger.forge([3, 1], 0, client.relayed(), peer.address());
    client.send_channel(0x4000, b"first").await;
    assert_eq!(peer.recv().await.1, b"first");
    forger.forge([3, 1], 0, client.relayed(), stranger.address());
    server.until_dropped("no_permission", 1.0).await;
    forger.forge([12, 0], 0, client.relayed(), peer.address());
    server.until_dropped("icmp_unknown", 1.0).await;
    // The first thing it hears is the first one that it may hear.
    for kind_and_code in [[3, 1], [3, 13], [11, 0]] {
        forger.forge(kind_and_code, 0xFFFF, client.relayed(), peer.address());
        assert_eq!(client.recv().await, Received::Icmp(peer.address(), kind_and_code, 0));
    }
    for number in 0..MANY {
        forger.forge([3, 1], 0, client.relayed(), stranger.address());
        client.send_channel(0x4000, &[number as u8]).await;
        assert_eq!(peer.recv().await.1, [number as u8]);
        peer.send(client.relayed(), &[number as u8]).await;
        assert_eq!(client.recv().await, Received::Channel(0x4000, vec![number as u8]));
    }
    server.until_dropped("no_permission", 1.0 + MANY as f64).await;
    assert_eq!(server.dropped("send_failed").await, 0.0);
}

/// RFC 8656 §18.13: where the client has asked not to fragment, and so wants to know.
#[tokio::test]
async fn mtu_of_a_path_is_told_to_who_asked_not_to_fragment() {
    let Some(forger) = Forger::new() else { return };
    let server = server_at(loopback(48, 6));
    let mut client = Client::new(server.turn());
    assert_eq!(client.allocate().await, 200);
    let peer = Peer::at(loopback(48, 7));
    assert_eq!(client.permit(peer.address()).await, 200);
    client.send_whole(peer.address(), b"whole").await;
    assert_eq!(peer.recv().await.1, b"whole");
    forger.forge([3, 4], 1_400, client.relayed(), peer.address());
    assert_eq!(client.recv().await, Received::Icmp(peer.address(), [3, 4], 1_400));
}

/// RFC 8656 §7.2 (4), §15: the bit is in the packets themselves, of those that asked for it alone.
#[tokio::test]
async fn dont_fragment_is_the_df_bit_of_the_packet() {
    let ip = loopback(48, 8);
    let peer = Peer::at(ip);
    let Some(tap) = Tap::before(&peer) else { return };
    let server = TestServer::start(|config| {
        config.net.listen = vec![SocketAddr::new(ip, 0), SocketAddr::new(IPV6, 0)];
    });
    let ipv6 = server.listening()[1];
    let over_udp = Client::new(server.turn());
    let over_tcp = Client::tcp(server.turn()).await;
    // What arrives over IPv6 has no DF bit to go by: a datagram's own, or a stream's attribute.
    let (udp_of_ipv6, tcp_of_ipv6) = (Client::new(ipv6), Client::tcp(ipv6).await);
    for (mut client, sets) in
        [(over_udp, true), (over_tcp, true), (udp_of_ipv6, false), (tcp_of_ipv6, true)]
    {
        let asks = (DONT_FRAGMENT, Vec::new());
        assert_eq!(client.allocate_with(&[asks]).await.code(), 200);
        assert_eq!(client.bind(0x4000, peer.address()).await, 200);
        for _ in 0..3 {
            client.send_whole(peer.address(), b"whole").await;
            assert_eq!(tap.has_df(&peer, client.relayed()).await, sets);
            client.send(peer.address(), b"as it comes").await;
            assert!(!tap.has_df(&peer, client.relayed()).await);
            client.send_channel(0x4000, b"by channel").await;
            assert!(!tap.has_df(&peer, client.relayed()).await);
        }
    }
}

/// Somebody who sees the IP headers of datagrams to one port of this machine.
struct Tap(Socket);

impl Tap {
    /// None for who may not open raw sockets, which CI does not accept.
    fn before(peer: &Peer) -> Option<Self> {
        let raw = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::UDP));
        assert!(raw.is_ok() || std::env::var_os("CI").is_none(), "in CI nothing is skipped");
        let raw = raw.ok()?;
        raw.set_nonblocking(true).unwrap();
        // Skip the IP header, compare the destination port; other tests must not fill the buffer.
        let port = u32::from(peer.address().port());
        let filter =
            [(0xB1, 0, 0, 0), (0x48, 0, 0, 2), (0x15, 0, 1, port), (6, 0, 0, 0xFFFF), (6, 0, 0, 0)];
        let filter = filter.map(|(code, yes, no, value)| SockFilter::new(code, yes, no, value));
        raw.attach_filter(&filter).unwrap();
        Some(Self(raw))
    }

    /// Whether the datagram that the peer gets next, from there, has the DF bit.
    async fn has_df(&self, peer: &Peer, from: SocketAddr) -> bool {
        let (source, data) = peer.recv().await;
        assert_eq!(source, from);
        let mut packet = [MaybeUninit::uninit(); 2048];
        let deadline = Instant::now() + DEADLINE;
        loop {
            assert!(Instant::now() < deadline, "it has passed here");
            let Ok(length) = self.0.recv(&mut packet) else {
                tokio::task::yield_now().await;
                continue;
            };
            // SAFETY: so many bytes have been written.
            let packet: Vec<u8> =
                packet[..length].iter().map(|byte| unsafe { byte.assume_init() }).collect();
            let header = usize::from(packet[0] & 0x0F) * 4;
            let ports = [from.port(), peer.address().port()].map(u16::to_be_bytes).concat();
            if packet[header..header + 4] == ports && packet[header + 8..] == data {
                return packet[6] & 0x40 != 0;
            }
        }
    }
}

/// Somebody who sends ICMP errors about datagrams that they have never seen.
struct Forger(Socket);

impl Forger {
    /// None for who may not open raw sockets, which CI does not accept.
    fn new() -> Option<Self> {
        let raw = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4));
        assert!(raw.is_ok() || std::env::var_os("CI").is_none(), "in CI nothing is skipped");
        raw.ok().map(Self)
    }

    /// An error about a datagram on its way from `relay` to `peer`.
    fn forge(&self, [kind, code]: [u8; 2], mtu: u16, relay: SocketAddr, peer: SocketAddr) {
        let (SocketAddr::V4(relay), SocketAddr::V4(peer)) = (relay, peer) else { panic!("IPv4") };
        let mut error = vec![kind, code, 0, 0, 0, 0];
        error.extend(mtu.to_be_bytes());
        error.extend(ip_header(relay, peer));
        error.extend([relay.port(), peer.port(), 8, 0].map(u16::to_be_bytes).concat());
        let sum = checksum(&error);
        error[2..4].copy_from_slice(&sum.to_be_bytes());
        let to = SockAddr::from(SocketAddrV4::new(*relay.ip(), 0));
        self.0.send_to(&error, &to).unwrap();
        // Raw sockets hear everybody's errors; nobody listens here.
        self.0.set_nonblocking(true).unwrap();
        while self.0.recv(&mut [MaybeUninit::uninit(); 1]).is_ok() {}
    }
}

/// Of a datagram without data.
fn ip_header(from: SocketAddrV4, to: SocketAddrV4) -> Vec<u8> {
    let mut header = vec![0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0];
    header.extend([from, to].map(|address| Ipv4Addr::octets(address.ip())).concat());
    let sum = checksum(&header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    header
}

fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let sum: u32 = words.sum();
    !((sum & 0xFFFF) + (sum >> 16)) as u16
}
