//! Two servers whose relays lead to each other: RFC 8656 §21.1.7.

use std::net::SocketAddr;
use std::time::Duration;

use hairpin::net::quota::{Limits, QuotaLease, Quotas};
use hairpin::turn::stats::Direction;
use hairpin::turn::{DropReason, Transport};

use crate::world::{Client, Delivery, Outcome, World, ip};

/// The two machines.
const MACHINES: [&str; 2] = ["8.8.8.8", "9.9.9.9"];
const NUMBER: u16 = 0x4000;
/// Bytes per second of one user.
const CAP: u64 = 100_000;
const DATAGRAM: usize = 1_000;

/// One server, with an allocation whose client is the other one: whoever asked for it has forged
/// the source, and has read or guessed the answers.
struct Half {
    world: World,
    client: Client,
    relay: SocketAddr,
    _lease: QuotaLease,
}

fn half(own: &str, other: &str) -> Half {
    let mut world = World::with(|setup| {
        setup.host.endpoints = vec![SocketAddr::new(ip(own), 3478)];
        setup.host.addresses = vec![ip(own)];
        setup.host.relay_addresses = vec![ip(own)];
    });
    let limits = Limits { user_bandwidth: CAP, ..Limits::default() };
    let lease = Quotas::new(limits).take("alice").unwrap();
    world.meter = lease.meter();
    let mut client = Client::at(&format!("{other}:3478"));
    let relay = client.allocate(&mut world);
    Half { world, client, relay, _lease: lease }
}

#[test]
fn what_goes_round_between_two_servers_is_dropped_and_counted_beyond_the_bandwidth() {
    const INJECTED: usize = 50;
    let [a, b] = MACHINES;
    let (mut first, mut second) = (half(a, b), half(b, a));
    let (there, here) = (second.relay.to_string(), first.relay.to_string());
    assert_eq!(first.client.bind(&mut first.world, NUMBER, &there), 0);
    assert_eq!(second.client.bind(&mut second.world, NUMBER, &here), 0);
    let mut going_round = vec![vec![7; DATAGRAM]; INJECTED];
    let (mut rounds, mut dropped) = (0, 0);
    while !going_round.is_empty() {
        // A fast network: what is left would go round a thousand times a second.
        first.world.pass(Duration::from_millis(1));
        second.world.pass(Duration::from_millis(1));
        rounds += 1;
        assert!(rounds < 10_000, "it ends");
        let mut back = Vec::new();
        for data in going_round {
            match pass(&mut first, &mut second, &data) {
                Ok(data) => back.push(data),
                Err(reason) => {
                    assert_eq!(reason, DropReason::Bandwidth);
                    dropped += 1;
                }
            }
        }
        going_round = back;
    }
    assert_eq!(dropped, INJECTED);
    let counted =
        [&first, &second].map(|half| half.world.server.stats().dropped(DropReason::Bandwidth));
    assert_eq!(counted.iter().sum::<u64>(), INJECTED as u64);
    let most = CAP * (rounds / 1_000 + 2);
    for (half, direction) in [(&first, Direction::ToPeer), (&second, Direction::ToClient)] {
        let relayed = half.world.server.stats().relayed(direction, Transport::Udp).bytes;
        assert!(relayed > 0 && relayed <= most, "{relayed} bytes, {most} at most");
    }
}

/// Once round: into the first one from the second, out to the second one's relayed address, and from
/// there, as ChannelData, to its client, which is the first.
fn pass(first: &mut Half, second: &mut Half, data: &[u8]) -> Result<Vec<u8>, DropReason> {
    let out = match first.client.channel_data(&mut first.world, NUMBER, data) {
        Outcome::ToPeer { relay, peer, data } => {
            assert_eq!((relay, peer), (first.relay, second.relay));
            data
        }
        other => return Err(other.dropped()),
    };
    match second.world.peer_sends(second.relay, &first.relay.to_string(), &out) {
        Delivery::Channel { client, number, data } => {
            assert_eq!((client.to_string(), number), (format!("{}:3478", MACHINES[0]), NUMBER));
            Ok(data)
        }
        Delivery::Dropped(reason) => Err(reason),
        other => panic!("{other:?}"),
    }
}
