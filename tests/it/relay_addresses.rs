//! Several relay addresses of one family: clients are spread over them, and each is what it seems.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use hairpin::config::Config;
use hairpin::net::external::Known;
use tokio::net::TcpListener;

use super::client::{Client, Peer, Received};
use super::common::{TestServer, scrape};
use super::relay::loopback;

const EVEN_PORT: u16 = 0x0018;
const RESERVATION_TOKEN: u16 = 0x0022;
/// Ports of each address.
const PORTS: std::ops::RangeInclusive<u16> = 41_000..=41_003;
/// Documentation addresses, which no packet ever reaches.
const EXTERNAL: [&str; 2] = ["203.0.113.4", "203.0.113.5"];

/// What the two relay addresses of one test are.
fn relays(test: u8) -> [IpAddr; 2] {
    [loopback(50, test), loopback(50, test + 1)]
}

/// A server that relays from two addresses, few ports each.
fn server(test: u8, change: impl FnOnce(&mut Config)) -> TestServer {
    TestServer::start(|config| {
        config.net.listen = vec![SocketAddr::new(loopback(50, test), 0)];
        config.net.relay_addresses = relays(test).into();
        config.net.relay_ports = PORTS;
        change(config);
    })
}

fn behind_nat(test: u8) -> impl FnOnce(&mut Config) {
    move |config| {
        let known = |(external, local): (&str, IpAddr)| Known {
            external: external.parse().unwrap(),
            local: Some(local),
        };
        config.net.external.known = EXTERNAL.into_iter().zip(relays(test)).map(known).collect();
    }
}

async fn allocated(server: &TestServer) -> Client {
    let mut client = Client::new(server.turn());
    assert_eq!(client.allocate().await, 200);
    client
}

/// How many clients are at each address.
fn spread(clients: &[Client]) -> BTreeMap<IpAddr, usize> {
    let mut counts = BTreeMap::new();
    for client in clients {
        *counts.entry(client.relayed().ip()).or_default() += 1;
    }
    counts
}

#[tokio::test]
async fn clients_are_spread_over_the_external_addresses_and_peers_see_the_right_one() {
    let server = server(1, behind_nat(1));
    let shown = EXTERNAL.map(|external| external.parse::<IpAddr>().unwrap());
    let mut clients = Vec::new();
    for count in 1..=8 {
        clients.push(allocated(&server).await);
        let counts = spread(&clients);
        if count % 2 == 0 {
            assert_eq!(counts, shown.map(|ip| (ip, count / 2)).into());
        }
    }
    assert_eq!(Client::new(server.turn()).allocate().await, 508, "all ports of both are taken");
    let metrics = scrape(server.http()).await;
    assert_eq!(metrics.get(r#"hairpin_relay_ports{state="used"}"#), 8.0, "of both together");
    for client in &mut clients {
        let at = shown.iter().position(|&ip| ip == client.relayed().ip()).unwrap();
        let inside = SocketAddr::new(relays(1)[at], client.relayed().port());
        let peer = Peer::at(loopback(50, 9));
        assert_eq!(client.permit(peer.address()).await, 200);
        client.send(peer.address(), b"out").await;
        assert_eq!(peer.recv().await, (inside, b"out".to_vec()), "the NAT has not seen it yet");
        peer.send(inside, b"in").await;
        assert_eq!(client.recv().await, Received::Data(peer.address(), b"in".to_vec()));
    }
}

#[tokio::test]
async fn address_without_a_free_port_leaves_its_clients_to_the_other() {
    let server = server(11, |_| {});
    let [first, second] = relays(11);
    // Another program has all of its ports.
    let squatters: Vec<_> =
        PORTS.map(|port| UdpSocket::bind(SocketAddr::new(first, port)).unwrap()).collect();
    let mut clients = Vec::new();
    for _ in PORTS {
        clients.push(allocated(&server).await);
    }
    assert_eq!(spread(&clients), [(second, PORTS.len())].into());
    assert_eq!(Client::new(server.turn()).allocate().await, 508);
    drop(squatters);
    clients.push(allocated(&server).await);
    assert_eq!(spread(&clients), [(first, 1), (second, PORTS.len())].into());
}

#[tokio::test]
async fn pairs_are_spread_and_each_is_at_one_address() {
    let server = server(21, behind_nat(21));
    let mut clients = Vec::new();
    for pairs in 1..=4 {
        let mut lower = Client::new(server.turn());
        let response = lower.allocate_with(&[(EVEN_PORT, vec![0x80])]).await;
        let token = response.get(RESERVATION_TOKEN).expect("RESERVATION-TOKEN").to_vec();
        let mut upper = Client::new(server.turn());
        assert_eq!(upper.allocate_with(&[(RESERVATION_TOKEN, token)]).await.code(), 200);
        let next = SocketAddr::new(lower.relayed().ip(), lower.relayed().port() + 1);
        assert_eq!((lower.relayed().port() % 2, upper.relayed()), (0, next));
        clients.extend([lower, upper]);
        assert_eq!(spread(&clients).len(), if pairs == 1 { 1 } else { 2 });
    }
    let mut late = Client::new(server.turn());
    assert_eq!(late.allocate_with(&[(EVEN_PORT, vec![0x80])]).await.code(), 508);
    assert!(spread(&clients).values().all(|&count| count == PORTS.len()));
}

/// On whichever of the two shards they are.
#[tokio::test]
async fn clients_at_different_addresses_meet_inside_the_process() {
    let server = server(31, behind_nat(31));
    let mut one = allocated(&server).await;
    for at in 0..5u8 {
        let mut other = allocated(&server).await;
        assert_eq!(one.permit(other.relayed()).await, 200);
        assert_eq!(other.bind(0x4000, one.relayed()).await, 200);
        one.send(other.relayed(), &[at]).await;
        assert_eq!(other.recv().await, Received::Channel(0x4000, vec![at]));
        other.send_channel(0x4000, b"back").await;
        assert_eq!(one.recv().await, Received::Data(other.relayed(), b"back".to_vec()));
    }
}

#[tokio::test]
async fn allocations_for_tcp_are_spread_and_peers_see_the_right_address() {
    let server = server(41, |_| {});
    let mut clients = Vec::new();
    for _ in 0..4 {
        let mut client = Client::tcp(server.turn()).await;
        assert_eq!(client.allocate_tcp().await, 200);
        let peer = TcpListener::bind((loopback(50, 49), 0)).await.unwrap();
        assert_eq!(client.connect(peer.local_addr().unwrap()).await.code(), 200);
        let (_stream, from) = peer.accept().await.unwrap();
        assert_eq!(from, client.relayed());
        clients.push(client);
    }
    assert_eq!(spread(&clients), relays(41).map(|ip| (ip, 2)).into());
}

#[tokio::test]
async fn no_relay_address_is_a_way_to_the_machine() {
    let server = server(51, |config| config.turn.policy.allow.clear());
    let mut client = allocated(&server).await;
    for (number, ip) in [0x4000, 0x4001].into_iter().zip(relays(51)) {
        for (port, code) in [(22, 403), (*PORTS.end() + 1, 403), (*PORTS.start(), 200)] {
            assert_eq!(client.bind(number, SocketAddr::new(ip, port)).await, code, "{ip}:{port}");
        }
    }
    // Something else of this machine that has the port of no allocation.
    let nobody = relays(51).into_iter().find(|&ip| ip != client.relayed().ip()).unwrap();
    let service = UdpSocket::bind(SocketAddr::new(nobody, *PORTS.start())).unwrap();
    service.set_nonblocking(true).unwrap();
    let before = server.dropped("no_allocation").await;
    for number in [0x4000, 0x4001] {
        client.send_channel(number, b"hello").await;
    }
    server.until_dropped("no_allocation", before + 1.0).await;
    let heard = service.recv(&mut [0; 10]).unwrap_err();
    assert_eq!(heard.kind(), std::io::ErrorKind::WouldBlock);
}
