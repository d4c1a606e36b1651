//! What passes through a relay, unchanged, in order, and from the right address.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::client::{Client, Peer, Received, binding_request};
use super::common::{TestServer, scrape};

const IPV6: IpAddr = IpAddr::V6(std::net::Ipv6Addr::LOCALHOST);
const SIZES: [usize; 10] = [0, 1, 3, 500, 1_200, 1_472, 1_500, 4_096, 9_000, 65_000];
const BURST: usize = 64;

/// A server at an address of the test's own, so that no other test's socket takes a port that
/// this one has closed.
pub(crate) fn server_at(ip: IpAddr) -> TestServer {
    TestServer::start(|config| config.net.listen = vec![SocketAddr::new(ip, 0)])
}

pub(crate) fn loopback(third: u8, fourth: u8) -> IpAddr {
    IpAddr::from([127, 0, third, fourth])
}

async fn allocated(server: &TestServer) -> Client {
    let mut client = Client::new(server.turn());
    assert_eq!(client.allocate().await, 200);
    client
}

/// Bytes that tell where they come from and how many there should be.
fn pattern(seed: usize, length: usize) -> Vec<u8> {
    (0..length).map(|at| (seed.wrapping_mul(31) + at) as u8).collect()
}

async fn indications_carry_every_size(ip: IpAddr) {
    let server = server_at(ip);
    let mut client = allocated(&server).await;
    let peer = Peer::at(ip);
    assert_eq!(client.permit(peer.address()).await, 200);
    for size in SIZES {
        let data = pattern(size, size);
        client.send(peer.address(), &data).await;
        assert!(peer.recv().await == (client.relayed(), data), "{size} bytes to the peer");
        let data = pattern(size + 1, size);
        peer.send(client.relayed(), &data).await;
        assert!(
            client.recv().await == Received::Data(peer.address(), data),
            "{size} bytes to the client"
        );
    }
}

async fn channels_carry_every_size(ip: IpAddr) {
    let server = server_at(ip);
    let mut client = allocated(&server).await;
    let peer = Peer::at(ip);
    assert_eq!(client.bind(0x4000, peer.address()).await, 200);
    for size in SIZES {
        let data = pattern(size, size);
        client.send_channel(0x4000, &data).await;
        assert!(peer.recv().await == (client.relayed(), data), "{size} bytes to the peer");
        let data = pattern(size + 1, size);
        peer.send(client.relayed(), &data).await;
        assert!(
            client.recv().await == Received::Channel(0x4000, data),
            "{size} bytes to the client"
        );
    }
}

#[tokio::test]
async fn indications_carry_every_size_over_ipv4() {
    indications_carry_every_size(loopback(1, 1)).await;
}

#[tokio::test]
async fn indications_carry_every_size_over_ipv6() {
    indications_carry_every_size(IPV6).await;
}

#[tokio::test]
async fn channels_carry_every_size_over_ipv4() {
    channels_carry_every_size(loopback(1, 2)).await;
}

#[tokio::test]
async fn channels_carry_every_size_over_ipv6() {
    channels_carry_every_size(IPV6).await;
}

#[tokio::test]
async fn padding_of_data_indications_is_zero_whatever_came_before() {
    let server = server_at(loopback(1, 3));
    let mut client = allocated(&server).await;
    let peer = Peer::at(loopback(1, 3));
    assert_eq!(client.permit(peer.address()).await, 200);
    // The client looks at the padding of each message.
    for round in 0..4 {
        for length in [1_000, 1, 2, 3, 5, 999, 998, 997] {
            peer.send(client.relayed(), &vec![0xFF - round; length]).await;
        }
        for length in [1_000, 1, 2, 3, 5, 999, 998, 997] {
            let data = vec![0xFF - round; length];
            assert_eq!(client.recv().await, Received::Data(peer.address(), data));
        }
    }
}

#[tokio::test]
async fn without_permission_nothing_passes_either_way() {
    let server = server_at(loopback(1, 4));
    let mut client = allocated(&server).await;
    let (friend, stranger) = (Peer::at(loopback(1, 5)), Peer::at(loopback(1, 6)));
    assert_eq!(client.permit(friend.address()).await, 200);

    // One socket after the other takes them in this order.
    stranger.send(client.relayed(), b"unwanted").await;
    friend.send(client.relayed(), b"wanted").await;
    assert_eq!(client.recv().await, Received::Data(friend.address(), b"wanted".to_vec()));

    client.send(stranger.address(), b"unwanted").await;
    client.send(friend.address(), b"wanted").await;
    assert_eq!(friend.recv().await, (client.relayed(), b"wanted".to_vec()));
    assert_eq!(stranger.try_recv(), None);
    assert_eq!(server.dropped("no_permission").await, 2.0);
}

#[tokio::test]
async fn one_clients_permission_does_not_open_anothers_relay() {
    let server = server_at(loopback(1, 7));
    let mut one = allocated(&server).await;
    let mut other = allocated(&server).await;
    let (peer, friend) = (Peer::at(loopback(1, 8)), Peer::at(loopback(1, 9)));
    assert_eq!(one.permit(peer.address()).await, 200);
    assert_eq!(other.permit(friend.address()).await, 200);
    peer.send(other.relayed(), b"unwanted").await;
    friend.send(other.relayed(), b"wanted").await;
    assert_eq!(other.recv().await, Received::Data(friend.address(), b"wanted".to_vec()));
}

#[tokio::test]
async fn channel_belongs_to_one_port_and_permission_to_all() {
    let ip = loopback(1, 10);
    let server = server_at(ip);
    let mut client = allocated(&server).await;
    let (bound, neighbour) = (Peer::at(ip), Peer::at(ip));
    assert_eq!(client.bind(0x4FFF, bound.address()).await, 200);
    for round in 0..4 {
        let data = pattern(round, 100);
        neighbour.send(client.relayed(), &data).await;
        assert_eq!(client.recv().await, Received::Data(neighbour.address(), data.clone()));
        bound.send(client.relayed(), &data).await;
        assert_eq!(client.recv().await, Received::Channel(0x4FFF, data.clone()));
        client.send(neighbour.address(), &data).await;
        assert_eq!(neighbour.recv().await, (client.relayed(), data));
    }
}

#[tokio::test]
async fn peer_whose_port_is_closed_stops_nothing() {
    let ip = loopback(1, 11);
    let server = server_at(ip);
    let mut client = allocated(&server).await;
    let (peer, closed) = (Peer::at(ip), Peer::at(ip).address());
    assert_eq!(client.bind(0x4000, peer.address()).await, 200);
    assert_eq!(client.bind(0x4001, closed).await, 200);
    for round in 0..16 {
        let data = pattern(round, 300);
        client.send(closed, &data).await;
        client.send_channel(0x4001, &data).await;
        client.send_channel(0x4000, &data).await;
        assert_eq!(peer.recv().await, (client.relayed(), data.clone()));
        client.send(closed, &data).await;
        peer.send(client.relayed(), &data).await;
        let received = loop {
            match client.recv().await {
                Received::Icmp(about, ..) => assert_eq!(about, closed),
                other => break other,
            }
        };
        assert_eq!(received, Received::Channel(0x4000, data));
    }
}

#[tokio::test]
async fn bursts_arrive_complete_and_in_order() {
    let ip = loopback(1, 12);
    let server = server_at(ip);
    let mut client = allocated(&server).await;
    let peer = Peer::at(ip);
    assert_eq!(client.bind(0x4000, peer.address()).await, 200);
    // Of one size, growing, shrinking, and with empty ones between: what segmentation offload
    // takes, and what it does not.
    let shapes: [fn(usize) -> usize; 5] = [
        |_| 1_000,
        |at| 10 * at + 1,
        |at| 700 - 10 * at,
        |at| (at % 3) * 400,
        |at| (at * 97) % 900,
    ];
    for shape in shapes {
        let burst: Vec<_> = (0..BURST).map(|at| pattern(at, shape(at))).collect();
        for data in &burst {
            client.send_channel(0x4000, data).await;
        }
        for data in &burst {
            assert_eq!(peer.recv().await, (client.relayed(), data.clone()));
        }
        for data in &burst {
            client.send(peer.address(), data).await;
        }
        for data in &burst {
            assert_eq!(peer.recv().await, (client.relayed(), data.clone()));
        }
        for data in &burst {
            peer.send(client.relayed(), data).await;
        }
        for data in &burst {
            assert_eq!(client.recv().await, Received::Channel(0x4000, data.clone()));
        }
    }
}

#[tokio::test]
async fn interleaved_flows_stay_apart() {
    const FLOWS: usize = 4;
    let ip = loopback(1, 13);
    let server = server_at(ip);
    let mut clients = Vec::new();
    for _ in 0..FLOWS {
        clients.push(allocated(&server).await);
    }
    let peers: Vec<_> = (0..FLOWS).map(|_| Peer::at(ip)).collect();
    for client in &mut clients {
        for (number, peer) in (0x4000..).zip(&peers) {
            assert_eq!(client.bind(number, peer.address()).await, 200);
        }
    }
    let data = |client: usize, peer: usize, round: usize| {
        [&[client as u8, peer as u8, round as u8], &pattern(round, 40 * round)[..]].concat()
    };
    for round in 0..16 {
        for (from, client) in clients.iter().enumerate() {
            for (number, to) in (0x4000..).zip(0..FLOWS) {
                client.send_channel(number, &data(from, to, round)).await;
            }
        }
        for (to, peer) in peers.iter().enumerate() {
            // Clients are on several shards, between which there is no order.
            let mut arrived = Vec::new();
            for _ in 0..FLOWS {
                arrived.push(peer.recv().await);
            }
            for (from, client) in clients.iter().enumerate() {
                assert!(arrived.contains(&(client.relayed(), data(from, to, round))));
            }
        }
        for (from, peer) in peers.iter().enumerate() {
            for (to, client) in clients.iter().enumerate() {
                peer.send(client.relayed(), &data(to, from, round)).await;
            }
        }
        for (to, client) in clients.iter_mut().enumerate() {
            for (number, from) in (0x4000..).zip(0..FLOWS) {
                let expected = Received::Channel(number, data(to, from, round));
                assert_eq!(client.recv().await, expected);
            }
        }
    }
}

/// Whether the kernel gave both clients to one shard, on a server that grants a source address
/// one unauthenticated reply per second and shard: then only the first is answered.
async fn share_a_shard(server: &TestServer, one: &Client, other: &Client) -> bool {
    const REFILL: Duration = Duration::from_millis(1_050);
    const CERTAIN: Duration = Duration::from_millis(900);
    for _ in 0..20 {
        sleep(REFILL).await;
        let limited = server.dropped("rate_limited").await;
        let start = Instant::now();
        one.send_raw(&binding_request()).await;
        other.send_raw(&binding_request()).await;
        let mut answered = [0.0, 0.0];
        let mut refused = 0.0;
        while answered[0] + answered[1] + refused < 2.0 {
            for (client, answered) in [one, other].into_iter().zip(&mut answered) {
                let until = Instant::now() + Duration::from_millis(10);
                *answered += f64::from(u8::from(client.recv_raw(until).await.is_some()));
            }
            refused = server.dropped("rate_limited").await - limited;
        }
        if answered[0] == 1.0 && start.elapsed() < CERTAIN {
            return answered[1] == 0.0;
        }
    }
    panic!("this machine is too slow to tell");
}

/// `from` sends, `to` receives, everything and in order.
async fn relay_to_relay(server: &TestServer, from: &Client, to: &mut Client) {
    let count = |metrics: &super::common::Metrics, direction: &str| {
        metrics.get(&format!(
            r#"hairpin_relay_packets_total{{direction="{direction}",transport="udp"}}"#
        ))
    };
    let before = scrape(server.http()).await;
    for at in 0..BURST {
        from.send(to.relayed(), &pattern(at, 10 * at)).await;
    }
    for at in 0..BURST {
        let expected = Received::Data(from.relayed(), pattern(at, 10 * at));
        assert_eq!(to.recv().await, expected);
    }
    let after = scrape(server.http()).await;
    for direction in ["to_peer", "to_client"] {
        assert_eq!(count(&after, direction) - count(&before, direction), BURST as f64);
    }
}

#[tokio::test]
async fn two_clients_meet_at_their_relays_on_one_shard_and_on_two() {
    let ip = loopback(1, 14);
    let server = TestServer::start(|config| {
        config.net.listen = vec![SocketAddr::new(ip, 0)];
        config.turn.limits.unauthenticated_per_source = 1;
    });
    let mut one = Client::new(server.turn());
    let (mut same, mut different) = (None, None);
    while same.is_none() || different.is_none() {
        let other = Client::new(server.turn());
        let place = match share_a_shard(&server, &one, &other).await {
            true => &mut same,
            false => &mut different,
        };
        *place = Some(other);
    }
    assert_eq!(one.allocate().await, 200);
    for mut other in [same.unwrap(), different.unwrap()] {
        assert_eq!(other.allocate().await, 200);
        assert_eq!(one.permit(other.relayed()).await, 200);
        // One side has permitted, the other has not.
        let before = server.dropped("no_permission").await;
        one.send(other.relayed(), b"unwanted").await;
        server.until_dropped("no_permission", before + 1.0).await;
        assert_eq!(other.permit(one.relayed()).await, 200);
        relay_to_relay(&server, &other, &mut one).await;
        relay_to_relay(&server, &one, &mut other).await;

        let number = 0x4000 + other.relayed().port() % 0x1000;
        assert_eq!(one.bind(number, other.relayed()).await, 200);
        other.send(one.relayed(), b"by number").await;
        assert_eq!(one.recv().await, Received::Channel(number, b"by number".to_vec()));
        one.send_channel(number, b"and back").await;
        assert_eq!(other.recv().await, Received::Data(one.relayed(), b"and back".to_vec()));
    }
    assert_eq!(server.dropped("no_permission").await, 2.0);
}
