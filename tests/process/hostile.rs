//! What a server on the Internet gets sent: it answers those who deserve it, remembers nothing
//! of the others, and counts each packet once.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use hairpin::stun::attribute::AttributeType;
use hairpin::stun::attribute::UnknownAttributes;
use hairpin::stun::message::MAGIC_COOKIE;
use hairpin::stun::{ChannelNumber, Class, Message};
use rand::rngs::SmallRng;
use rand::{Rng, RngExt, SeedableRng};

use crate::client::{self, Client};
use crate::server::{Metrics, Server, Settings, eventually};

/// What 100,000 strangers may leave behind, in KiB.
const GROWTH_MAX: u64 = 1024;
const STRANGERS: usize = 2000;
const REQUESTS_EACH: usize = 51;
const FLOOD: usize = 200_000;
/// Sent before looking whether the server has caught up.
const BURST: usize = 500;
/// Enough for the attributes of a message, and more than a UDP datagram takes.
const NOISE: usize = 128 * 1024;

#[test]
fn every_first_byte_in_every_short_datagram_is_dropped_and_counted() {
    assert_drops_every_first_byte(&Server::start(&Settings::default()));
}

pub(crate) fn assert_drops_every_first_byte(server: &Server) {
    let socket = client::socket(server.turn);
    let start = Ledger::read(server);
    let mut sent = 0;
    for first in 0..=255_u8 {
        for length in 0..=24 {
            let mut datagram = [0; 24];
            datagram[0] = first;
            socket.send(&datagram[..length]).unwrap();
            sent += 1;
        }
    }
    let metrics = start.settle(server, sent);
    assert_eq!(metrics.sum(&["hairpin_requests_total"]), 0);
    assert!(client::is_served(server.turn));
}

#[test]
fn the_largest_datagrams_get_a_small_answer_or_none() {
    let server = Server::start(&Settings::default());
    let client = Client::allocate(server.turn, "alice", "wonderland").unwrap();
    client.socket.send(&[0; 65_507]).unwrap();
    client.socket.send(&message(0x0001, &[0; 65_484])).unwrap();
    let mut channel = vec![0; 65_507];
    channel[..4].copy_from_slice(&[0x40, 0, 0xff, 0xff]);
    client.socket.send(&channel).unwrap();

    let many = |count: u16, kind: fn(u16) -> u16| {
        let header = |at: u16| [kind(at).to_be_bytes(), [0, 0]].concat();
        (0..count).flat_map(header).collect::<Vec<u8>>()
    };
    let unknown = client::exchange(
        &client.socket,
        &message(0x0001, &many(16_000, |at| 0x4000 + at % 0x3000)),
    );
    assert_refuses_unknown(&unknown);
    let unknown = client::exchange(&client.socket, &message(0x0001, &many(4_089, |_| 0x7fff)));
    assert_refuses_unknown(&unknown);
    // Optional ones are passed over.
    let optional = client::exchange(&client.socket, &message(0x0001, &many(4_089, |_| 0xc000)));
    assert_eq!(Message::parse(&optional).unwrap().class(), Class::Success);
    assert!(optional.len() < 100, "{} bytes", optional.len());

    client.refresh(0).unwrap();
    assert!(client::is_served(server.turn));
}

#[test]
fn strangers_leave_nothing_behind() {
    strangers_leave_nothing_behind_with("unauthenticated_per_source = 0");
}

#[test]
fn strangers_leave_nothing_behind_where_their_replies_are_limited() {
    let limited = strangers_leave_nothing_behind_with("");
    assert!(limited.sum(&["dropped_packets_total", "rate_limited"]) > 0);
}

fn strangers_leave_nothing_behind_with(limits: &str) -> Metrics {
    let server = Server::start(&Settings { limits, ..Settings::default() });
    let descriptors = baseline(&server);
    meet_strangers(&server, 0, STRANGERS / 10);
    let before = (server.resident(), server.threads(), descriptors);
    let metrics = meet_strangers(&server, STRANGERS / 10, STRANGERS);
    let after = (server.resident(), server.threads());
    let growth = after.0.saturating_sub(before.0);
    let requests = STRANGERS * REQUESTS_EACH;
    eprintln!("{requests} requests of {STRANGERS} strangers ({limits:?}): +{growth} KiB");
    assert!(growth <= GROWTH_MAX, "{growth} KiB more, at {} KiB", after.0);
    assert_eq!(before.1, after.1, "threads");
    assert_descriptors(&server, before.2);
    assert_eq!(metrics.sum(&["hairpin_allocations_total"]), 0);
    metrics
}

/// Each stranger, from an address of its own, asks for its address, for an allocation without
/// credentials, and for one with made-up credentials, a third of the time each.
fn meet_strangers(server: &Server, first: usize, count: usize) -> Metrics {
    let kinds = [client::binding(), client::bare_allocate(), client::forged_allocate()];
    let start = Ledger::read(server);
    let mut sent = 0;
    for number in first..first + count {
        let [.., high, low] = (number as u32).to_be_bytes();
        let source = IpAddr::from(Ipv4Addr::new(127, 1 + high, low, 1));
        let socket = UdpSocket::bind((source, 0)).unwrap();
        for request in 0..REQUESTS_EACH {
            socket.send_to(&kinds[request % kinds.len()], server.turn).unwrap();
            sent += 1;
        }
        if sent % BURST as u64 <= REQUESTS_EACH as u64 {
            start.settle(server, sent);
        }
    }
    start.settle(server, sent)
}

#[test]
fn a_flood_of_noise_leaves_memory_flat_and_others_served() {
    let server = Server::start(&Settings::default());
    let mut rng = SmallRng::seed_from_u64(20_260_801);
    let mut noise = vec![0; NOISE];
    rng.fill_bytes(&mut noise);
    let bystander = Client::allocate(server.turn, "alice", "wonderland").unwrap();
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    bystander.bind(ChannelNumber::MIN, peer.local_addr().unwrap()).unwrap();
    let descriptors = baseline(&server);
    touch_all_buffers(&server);
    flood(&server, &mut rng, &noise, FLOOD / 10, &bystander, &peer);
    let before = (server.resident(), server.threads(), descriptors);
    flood(&server, &mut rng, &noise, FLOOD, &bystander, &peer);
    let after = (server.resident(), server.threads());
    let growth = after.0.saturating_sub(before.0);
    eprintln!("{FLOOD} datagrams of noise: +{growth} KiB");
    assert!(growth <= GROWTH_MAX, "{growth} KiB more, at {} KiB", after.0);
    assert_eq!(before.1, after.1, "threads");
    assert_descriptors(&server, before.2);
}

/// Fills every slot of the receive buffers once: they are reserved at start, and become memory
/// when first used. A stopped server finds them all filled when it goes on.
fn touch_all_buffers(server: &Server) {
    let start = Ledger::read(server);
    server.process().signal("STOP");
    let sockets: Vec<_> = (0..16).map(|_| client::socket(server.turn)).collect();
    let sent = 40 * sockets.len();
    for at in 0..sent {
        sockets[at % sockets.len()].send(&[0xff; 65_507]).unwrap();
    }
    server.process().signal("CONT");
    start.settle(server, sent as u64);
}

/// Half of it is noise from the first byte on, half has the header of a STUN message.
fn flood(
    server: &Server,
    rng: &mut SmallRng,
    noise: &[u8],
    count: usize,
    bystander: &Client,
    peer: &UdpSocket,
) {
    let start = Ledger::read(server);
    let socket = client::socket(server.turn);
    for number in 0..count {
        // Mostly what the Internet carries, sometimes as much as UDP does.
        let length = match rng.random_range(0..200) {
            0 => rng.random_range(0..=65_487),
            _ => rng.random_range(0..=1_480),
        };
        let at = rng.random_range(0..noise.len() - length);
        let body = &noise[at..at + length];
        let datagram = match number % 2 {
            0 => body.to_vec(),
            _ => message(rng.random_range(0..0x4000), body),
        };
        // A full queue is the sender's problem; what never left is sent no more.
        while socket.send(&datagram).is_err() {}
        if number % BURST == 0 {
            echo(bystander, peer, number);
            start.settle(server, number as u64 + 1);
        }
    }
    start.settle(server, count as u64);
}

/// One round trip through the relay.
fn echo(client: &Client, peer: &UdpSocket, number: usize) {
    let data = (number as u64).to_be_bytes();
    let packet = client::channel_data(ChannelNumber::MIN, &data);
    client.socket.send(&packet).unwrap();
    let (received, relayed) = client::receive(peer);
    assert_eq!(received, data);
    peer.send_to(&data, relayed).unwrap();
    assert_eq!(client.receive(), packet);
}

/// Descriptors of a server that has all its threads: one that was scraped.
fn baseline(server: &Server) -> usize {
    server.metrics();
    server.descriptors()
}

/// The descriptor of a scrape may live a moment longer than its answer.
fn assert_descriptors(server: &Server, baseline: usize) {
    eventually("descriptors are closed", || (server.descriptors() <= baseline).then_some(()));
}

/// What became of packets so far.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Ledger {
    answered: u64,
    dropped: u64,
    lost: u64,
}

impl Ledger {
    pub(crate) fn read(server: &Server) -> Self {
        Self::of(server, &server.metrics())
    }

    fn of(server: &Server, metrics: &Metrics) -> Self {
        Self {
            answered: metrics.sum(&["hairpin_requests_total"]),
            dropped: metrics.sum(&["hairpin_dropped_packets_total"]),
            lost: lost_in_kernel(server.turn),
        }
    }

    /// Waits until each of `sent` packets is answered, dropped with a reason, or lost by the
    /// kernel in front of the server; and none is counted twice.
    pub(crate) fn settle(&self, server: &Server, sent: u64) -> Metrics {
        eventually("every packet is accounted for", || {
            let metrics = server.metrics();
            let now = Self::of(server, &metrics);
            let (answered, dropped) = (now.answered - self.answered, now.dropped - self.dropped);
            assert!(
                answered + dropped <= sent,
                "{sent} sent, {answered} answered, {dropped} dropped:\n{}",
                metrics.rows("hairpin_dropped")
            );
            let accounted = answered + dropped + now.lost.saturating_sub(self.lost);
            (accounted >= sent).then_some(metrics)
        })
    }
}

/// Datagrams that found the listeners' queues full.
fn lost_in_kernel(address: SocketAddr) -> u64 {
    // Of this very address: other tests have sockets on the same port of other ones.
    let SocketAddr::V4(address) = address else { panic!("an IPv4 listener") };
    let local = format!("{:08X}:{:04X}", u32::from_ne_bytes(address.ip().octets()), address.port());
    // While sockets come and go elsewhere, a reading may miss a row: the fullest one counts.
    let reading = || {
        let sockets = fs::read_to_string("/proc/net/udp").unwrap();
        let rows = sockets.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
        let own = rows.filter(|row| row[1] == local);
        let lost = own.map(|row| row.last().unwrap().parse::<u64>().unwrap());
        lost.fold((0, 0), |(rows, sum), lost| (rows + 1, sum + lost))
    };
    (0..8).map(|_| reading()).max().unwrap().1
}

/// A STUN message of any type with any bytes for attributes.
fn message(kind: u16, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(20 + body.len());
    bytes.extend(kind.to_be_bytes());
    bytes.extend((body.len() as u16).to_be_bytes());
    bytes.extend(MAGIC_COOKIE.to_be_bytes());
    bytes.extend(client::transaction_id().0);
    bytes.extend(body);
    bytes
}

/// 420 with a list that is short however many there were.
fn assert_refuses_unknown(response: &[u8]) {
    let message = Message::parse(response).unwrap();
    assert_eq!(client::error_code(&message), 420);
    let (_, listed) =
        message.attributes().find(|(kind, _)| *kind == AttributeType::UNKNOWN_ATTRIBUTES).unwrap();
    let listed = UnknownAttributes::types(listed).unwrap();
    assert!((1..=16).contains(&listed.len()), "{listed:?}");
    assert!(response.len() < 100, "{} bytes", response.len());
}
