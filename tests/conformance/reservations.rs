//! Pairs of ports: EVEN-PORT with R, and RESERVATION-TOKEN (RFC 8656 §7.2).

use std::net::SocketAddr;

use hairpin::turn::{FiveTuple, Transport};

use crate::wire::{ALLOCATE, Attr, Msg, Parsed, attr, family, raw, transport};
use crate::world::{Client, RELAY_V6, World, ip};

const HERE: &str = "198.51.100.1:4000";
const ELSEWHERE: &str = "198.51.100.2:5000";

fn pair() -> [Attr; 2] {
    [transport(17), raw(attr::EVEN_PORT, &[0x80])]
}

fn with_token(token: &[u8]) -> [Attr; 2] {
    [transport(17), raw(attr::TOKEN, token)]
}

/// The lower port of a pair, and the token of the upper one.
fn reserve(world: &mut World, client: &mut Client) -> (SocketAddr, Vec<u8>) {
    let reply = client.ask(world, ALLOCATE, &pair());
    assert_eq!((reply.code(), reply.count(attr::TOKEN)), (0, 1));
    let relay = reply.address(attr::XRA);
    assert_eq!(relay.port() % 2, 0);
    (relay, reply.get(attr::TOKEN).unwrap().to_vec())
}

fn next(relay: SocketAddr) -> SocketAddr {
    SocketAddr::new(relay.ip(), relay.port() + 1)
}

/// RFC 8656 §7.2
#[test]
fn token_is_claimed_from_another_five_tuple_and_only_once() {
    let mut world = World::new();
    let (relay, token) = reserve(&mut world, &mut Client::at(HERE));
    assert_eq!(token.len(), 8);
    let mut second = Client::at(ELSEWHERE);
    let reply = second.ask(&mut world, ALLOCATE, &with_token(&token));
    assert_eq!(reply.address(attr::XRA), next(relay));
    assert!(!reply.has(attr::TOKEN));
    let mut third = Client::at("198.51.100.3:6000");
    assert_eq!(third.code(&mut world, ALLOCATE, &with_token(&token)), 508);
}

/// RFC 8656 §7.2
#[test]
fn token_is_claimed_over_another_transport() {
    let mut world = World::new();
    let (relay, token) = reserve(&mut world, &mut Client::at(HERE));
    let mut over_tls = Client::at(ELSEWHERE);
    over_tls.five = FiveTuple { transport: Transport::Tls, ..over_tls.five };
    let reply = over_tls.ask(&mut world, ALLOCATE, &with_token(&token));
    assert_eq!(reply.address(attr::XRA), next(relay));
}

/// RFC 8656 §7.2: where it was reserved decides the family.
#[test]
fn token_of_an_ipv6_port_is_claimed_without_a_family() {
    let mut world = World::with(|setup| setup.host.relay_addresses = vec![ip(RELAY_V6)]);
    let attributes = [&pair()[..], &[family(2)]].concat();
    let reply = Client::at(HERE).ask(&mut world, ALLOCATE, &attributes);
    let token = reply.get(attr::TOKEN).unwrap().to_vec();
    let claimed = Client::at(ELSEWHERE).ask(&mut world, ALLOCATE, &with_token(&token));
    assert_eq!(claimed.address(attr::XRA), next(reply.address(attr::XRA)));
}

/// RFC 8656 §7.2: at least 30 seconds.
#[test]
fn reservation_is_held_for_30_seconds_and_no_longer() {
    for (seconds, code) in [(29, 0), (30, 508)] {
        let mut world = World::new();
        let (_, token) = reserve(&mut world, &mut Client::at(HERE));
        world.pass_secs(seconds);
        let mut second = Client::at(ELSEWHERE);
        assert_eq!(second.code(&mut world, ALLOCATE, &with_token(&token)), code, "{seconds}");
    }
}

/// RFC 8656 §7.2
#[test]
fn reserved_port_is_given_to_nobody_else_until_its_time_is_over() {
    let mut world = World::with(|setup| setup.host.relay_ports = 50_000..=50_001);
    reserve(&mut world, &mut Client::at(HERE));
    let mut other = Client::at(ELSEWHERE);
    assert_eq!(other.code(&mut world, ALLOCATE, &[transport(17)]), 508);
    world.pass_secs(30);
    assert_eq!(other.allocate(&mut world).port(), 50_001);
}

/// RFC 8656 §7.2: what is not a pair does not do.
#[test]
fn pair_that_cannot_be_had_is_508() {
    let mut world = World::with(|setup| setup.host.relay_ports = 50_001..=50_002);
    let mut client = Client::at(HERE);
    assert_eq!(client.code(&mut world, ALLOCATE, &pair()), 508);
    let even = [transport(17), raw(attr::EVEN_PORT, &[0])];
    assert_eq!(client.code(&mut world, ALLOCATE, &even), 0);
}

/// RFC 8656 §7.2, the note at the end: the token is told again.
#[test]
fn retransmission_is_told_the_same_token() {
    let mut world = World::new();
    let mut client = Client::at(HERE);
    client.greet(&mut world);
    let request = client.request(ALLOCATE, &pair());
    let replies: Vec<Parsed> =
        (0..3).map(|_| world.deliver(client.five, &request).reply()).collect();
    assert!(replies[0].has(attr::TOKEN));
    for kind in [attr::TOKEN, attr::XRA] {
        assert!(replies.iter().all(|reply| reply.get(kind) == replies[0].get(kind)));
    }
}

/// What is reserved counts as what is allocated, until it is claimed or its time is over.
#[test]
fn reservation_counts_against_the_quota() {
    let mut world = World::with(|setup| setup.quota = 2);
    let mut first = Client::at(HERE);
    let (_, token) = reserve(&mut world, &mut first);
    let mut second = Client::at(ELSEWHERE);
    assert_eq!(second.code(&mut world, ALLOCATE, &[transport(17)]), 486);
    assert_eq!(second.code(&mut world, ALLOCATE, &with_token(&token)), 0, "it is counted already");
    let mut third = Client::at("198.51.100.3:6000");
    assert_eq!(third.code(&mut world, ALLOCATE, &[transport(17)]), 486);
    second.refresh(&mut world, 0);
    assert_eq!(third.code(&mut world, ALLOCATE, &pair()), 486, "one place is not enough for two");
    third.allocate(&mut world);
}

#[test]
fn token_of_another_user_is_508() {
    let mut world = World::new();
    let (_, token) = reserve(&mut world, &mut Client::at(HERE));
    assert_eq!(Client::bob(ELSEWHERE).code(&mut world, ALLOCATE, &with_token(&token)), 508);
    assert_eq!(Client::at(ELSEWHERE).code(&mut world, ALLOCATE, &with_token(&token)), 0);
}

/// The order of the steps: who asks comes first, and the token before all that follows.
#[test]
fn token_is_looked_at_after_authentication_and_transport() {
    let mut world = World::new();
    let bare = Msg::new(ALLOCATE, [1; 12]).add(&with_token(&[1; 8])).finish();
    assert_eq!(world.deliver(Client::at(HERE).five, &bare).reply().code(), 401);
    let mut client = Client::at(HERE);
    assert_eq!(client.code(&mut world, ALLOCATE, &[raw(attr::TOKEN, &[1; 8])]), 400);
    let sctp = [transport(132), raw(attr::TOKEN, &[1; 8])];
    assert_eq!(client.code(&mut world, ALLOCATE, &sctp), 442);
}
