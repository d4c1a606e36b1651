//! Dual allocations: RFC 8656 §7.2 (9), §8.1, §10.2, and both families on one five-tuple.

use std::net::SocketAddr;

use hairpin::turn::{AllocateError, CloseReason, DropReason, Event};

use crate::wire::{
    ALLOCATE, Attr, CREATE_PERMISSION, Parsed, REFRESH, attr, family, lifetime, peer, raw,
    transport,
};
use crate::world::{Client, Delivery, PEER, PEER_V6, RELAY_V4, RELAY_V6, World, ip};

const HERE: &str = "198.51.100.1:4000";

fn both() -> [Attr; 2] {
    [transport(17), raw(attr::AAF, &[2, 0, 0, 0])]
}

/// A client with both families, and its relayed addresses.
fn dual() -> (World, Client, [SocketAddr; 2]) {
    let mut world = World::new();
    let mut client = Client::at(HERE);
    let relayed = client.ask(&mut world, ALLOCATE, &both()).addresses(attr::XRA);
    (world, client, relayed.try_into().unwrap())
}

fn address_error(reply: &Parsed) -> (u8, u16) {
    let value = reply.get(attr::ADDRESS_ERROR_CODE).expect("ADDRESS-ERROR-CODE");
    assert_eq!((value[1], value.len()), (0, 4));
    (value[0], u16::from(value[2]) * 100 + u16::from(value[3]))
}

fn refresh(world: &mut World, client: &mut Client, byte: u8, seconds: u32) -> u16 {
    client.code(world, REFRESH, &[family(byte), lifetime(seconds)])
}

/// RFC 8656 §7.2
#[test]
fn both_families_are_two_relayed_addresses() {
    let mut world = World::new();
    let mut client = Client::at(HERE);
    let reply = client.ask(&mut world, ALLOCATE, &both());
    let relayed = reply.addresses(attr::XRA);
    assert_eq!(
        relayed.iter().map(SocketAddr::ip).collect::<Vec<_>>(),
        [RELAY_V4, RELAY_V6].map(ip)
    );
    assert_eq!((reply.lifetime(), reply.count(attr::XMA)), (600, 1));
    assert!(!reply.has(attr::ADDRESS_ERROR_CODE) && !reply.has(attr::TOKEN));
    assert_eq!(world.relay_count(), 2);
}

/// RFC 8656 §7.2
#[test]
fn retransmission_is_told_both_addresses_again() {
    let mut world = World::new();
    let mut client = Client::at(HERE);
    client.greet(&mut world);
    let request = client.request(ALLOCATE, &both());
    let [one, other] = [(), ()].map(|()| world.deliver(client.five, &request).reply());
    assert_eq!(one.addresses(attr::XRA), other.addresses(attr::XRA));
    assert_eq!(world.relay_count(), 2);
    assert_eq!(client.code(&mut world, ALLOCATE, &both()), 437);
}

/// RFC 8656 §7.2 (9): one of the two will do, and the other is accounted for.
#[test]
fn family_that_cannot_be_had_is_an_address_error() {
    for (failures, relay, missing) in [
        (vec![AllocateError::NoCapacity], RELAY_V6, (1, 508)),
        (vec![AllocateError::QuotaReached], RELAY_V6, (1, 508)),
    ] {
        let mut world = World::new();
        world.failures = failures.into();
        let mut client = Client::at(HERE);
        client.greet(&mut world);
        let request = client.request(ALLOCATE, &both());
        for _ in 0..2 {
            let reply = world.deliver(client.five, &request).reply();
            assert_eq!((reply.code(), reply.count(attr::XRA)), (0, 1));
            assert_eq!(reply.address(attr::XRA).ip(), ip(relay));
            assert_eq!(address_error(&reply), missing);
        }
    }
    let mut world = World::with(|setup| setup.host.relay_addresses = vec![ip(RELAY_V4)]);
    let reply = Client::at(HERE).ask(&mut world, ALLOCATE, &both());
    assert_eq!(reply.addresses(attr::XRA).len(), 1);
    assert_eq!(address_error(&reply), (2, 440));
}

/// RFC 8656 §7.2 (9), and (7): IPv4 is implied, and comes first.
#[test]
fn neither_family_is_an_error() {
    let mut world = World::new();
    world.failures = [AllocateError::NoCapacity; 2].into();
    let mut client = Client::at(HERE);
    assert_eq!(client.code(&mut world, ALLOCATE, &both()), 508);
    assert_eq!(world.server.allocations(), 0);
    let mut world = World::with(|setup| setup.host.relay_addresses = vec![ip(RELAY_V6)]);
    assert_eq!(Client::at(HERE).code(&mut world, ALLOCATE, &both()), 440);
}

/// Each relayed address has its place in the quota.
#[test]
fn dual_allocation_counts_twice() {
    let mut world = World::with(|setup| setup.quota = 3);
    assert_eq!(Client::at(HERE).code(&mut world, ALLOCATE, &both()), 0);
    let reply = Client::at("198.51.100.2:4000").ask(&mut world, ALLOCATE, &both());
    assert_eq!(address_error(&reply), (2, 508), "there was one place left");
    let mut third = Client::at("198.51.100.3:4000");
    assert_eq!(third.code(&mut world, ALLOCATE, &both()), 486);
}

/// RFC 8656 §7.2: EVEN-PORT without R is about both.
#[test]
fn even_port_holds_for_both_families() {
    for _ in 0..10 {
        let mut world = World::new();
        let attributes = [&both()[..], &[raw(attr::EVEN_PORT, &[0])]].concat();
        let reply = Client::at(HERE).ask(&mut world, ALLOCATE, &attributes);
        let relayed = reply.addresses(attr::XRA);
        assert!(relayed.len() == 2 && relayed.iter().all(|relay| relay.port() % 2 == 0));
    }
}

/// RFC 8656 §10.2, §11 and §12: the peer's family decides which relayed address is meant.
#[test]
fn data_goes_by_the_relayed_address_of_the_peers_family() {
    let (mut world, mut client, [v4, v6]) = dual();
    assert_eq!(client.permit(&mut world, &[PEER, PEER_V6]), 0, "both families in one request");
    for (to, relay) in [(PEER, v4), (PEER_V6, v6)] {
        let outcome = client.send(&mut world, to, b"out");
        assert!(
            matches!(outcome, crate::world::Outcome::ToPeer { relay: from, .. } if from == relay)
        );
        let delivery = world.peer_sends(relay, to, b"back");
        assert!(matches!(delivery, Delivery::Data { peer, .. } if peer == to.parse().unwrap()));
    }
    assert_eq!(client.bind(&mut world, 0x4000, PEER), 0);
    assert_eq!(client.bind(&mut world, 0x4001, PEER_V6), 0);
    for (number, to, relay) in [(0x4000, PEER, v4), (0x4001, PEER_V6, v6)] {
        match client.channel_data(&mut world, number, b"out") {
            crate::world::Outcome::ToPeer { relay: from, peer, .. } => {
                assert_eq!((from, peer), (relay, to.parse().unwrap()));
            }
            outcome => panic!("{outcome:?}"),
        }
        let delivery = world.peer_sends(relay, to, b"back");
        assert!(matches!(delivery, Delivery::Channel { number: on, .. } if on == number));
    }
    let unbound = client.channel_data(&mut world, 0x4002, b"x").dropped();
    assert_eq!(unbound, DropReason::ChannelUnbound);
}

/// RFC 8656 §12.2: a number is bound once, whatever the family.
#[test]
fn channel_number_of_one_family_is_taken_for_the_other() {
    let (mut world, mut client, _) = dual();
    assert_eq!(client.bind(&mut world, 0x4000, PEER), 0);
    assert_eq!(client.bind(&mut world, 0x4000, PEER_V6), 400);
    assert_eq!(client.bind(&mut world, 0x4001, PEER_V6), 0);
    assert_eq!(client.bind(&mut world, 0x4001, PEER), 400);
}

/// RFC 8656 §10.2: all or none, over both families.
#[test]
fn permissions_of_both_families_are_installed_together_or_not_at_all() {
    let mut world = World::with(|setup| setup.config.limits.permissions_per_allocation = 1);
    let mut client = Client::at(HERE);
    assert_eq!(client.code(&mut world, ALLOCATE, &both()), 0);
    let too_many = [peer(PEER), peer(PEER_V6), peer("[2a00:1450::9]:1")];
    assert_eq!(client.code(&mut world, CREATE_PERMISSION, &too_many), 508);
    for to in [PEER, PEER_V6] {
        let dropped = client.send(&mut world, to, b"x").dropped();
        assert_eq!(dropped, DropReason::NoPermission, "{to}");
    }
    let forbidden = [peer(PEER), peer("[fe80::1]:1")];
    assert_eq!(client.code(&mut world, CREATE_PERMISSION, &forbidden), 403);
    assert_eq!(client.send(&mut world, PEER, b"x").dropped(), DropReason::NoPermission);
    assert_eq!(client.permit(&mut world, &[PEER, PEER_V6]), 0);
}

/// RFC 8656 §8.1: what one family has is not touched when the other one goes.
#[test]
fn deleting_one_family_leaves_the_other_as_it_is() {
    for (deleted, kept) in [((1, PEER), (2, PEER_V6)), ((2, PEER_V6), (1, PEER))] {
        let (mut world, mut client, relayed) = dual();
        assert_eq!(client.bind(&mut world, 0x4001, PEER), 0);
        assert_eq!(client.bind(&mut world, 0x4002, PEER_V6), 0);
        assert_eq!(refresh(&mut world, &mut client, deleted.0, 0), 0);
        let gone = relayed[usize::from(deleted.0) - 1];
        let closed = world.events.iter().any(|event| {
            matches!(event, Event::Closed { relayed, reason: CloseReason::Deleted, .. }
                if relayed.0 == gone)
        });
        assert!(closed && world.relay_count() == 1);
        let (_, data) = client.channel_data(&mut world, 0x4000 + u16::from(kept.0), b"x").relayed();
        assert_eq!(data, b"x");
        let dropped =
            client.channel_data(&mut world, 0x4000 + u16::from(deleted.0), b"x").dropped();
        assert_eq!(dropped, DropReason::ChannelUnbound);
        assert_eq!(client.send(&mut world, kept.1, b"x").relayed().1, b"x");
        assert_eq!(client.send(&mut world, deleted.1, b"x").dropped(), DropReason::NoPermission);
        assert_eq!(client.permit(&mut world, &[deleted.1]), 443);
        assert_eq!(client.bind(&mut world, 0x4003, deleted.1), 443);
        assert_eq!(refresh(&mut world, &mut client, deleted.0, 600), 443);
        assert_eq!(client.code(&mut world, ALLOCATE, &both()), 437, "the five-tuple is in use");
        assert_eq!(refresh(&mut world, &mut client, kept.0, 0), 0);
        assert_eq!(refresh(&mut world, &mut client, kept.0, 0), 437);
        assert_eq!(client.code(&mut world, ALLOCATE, &both()), 0);
    }
}

/// RFC 8656 §8.1
#[test]
fn refresh_is_about_the_family_it_names_and_else_about_both() {
    let (mut world, mut client, [v4, v6]) = dual();
    assert_eq!(client.permit(&mut world, &[PEER, PEER_V6]), 0);
    world.pass_secs(100);
    assert_eq!(refresh(&mut world, &mut client, 2, 600), 0);
    world.pass_secs(500);
    assert_eq!((world.server.relayed_at(v4), world.relay_count()), (None, 1), "IPv4 has expired");
    assert!(world.server.relayed_at(v6).is_some());
    world.pass_secs(100);
    assert_eq!(world.relay_count(), 0);
    let (mut world, mut client, _) = dual();
    world.pass_secs(100);
    assert!(client.refresh(&mut world, 600).is_success());
    world.pass_secs(599);
    assert_eq!(world.relay_count(), 2);
    assert!(client.refresh(&mut world, 0).is_success());
    assert_eq!(world.relay_count(), 0);
    assert_eq!(world.server.poll_timeout(), None);
}

/// RFC 8656 §8.2
#[test]
fn refresh_of_a_family_that_is_not_there_is_443() {
    let mut world = World::new();
    let mut client = Client::at(HERE);
    client.allocate(&mut world);
    assert_eq!(refresh(&mut world, &mut client, 2, 0), 443);
    assert_eq!(refresh(&mut world, &mut client, 1, 600), 0);
}

/// RFC 8656 §2.1
#[test]
fn both_halves_end_with_the_connection() {
    let (mut world, client, _) = dual();
    world.server.client_gone(client.five, world.now);
    world.pass_secs(0);
    assert_eq!((world.relay_count(), world.server.poll_timeout()), (0, None));
}

/// RFC 8656 §5: the second user is told so whichever half it asks about.
#[test]
fn another_user_changes_neither_half() {
    let (mut world, _, _) = dual();
    let mut bob = Client::bob(HERE);
    for byte in [1, 2] {
        assert_eq!(refresh(&mut world, &mut bob, byte, 0), 441);
    }
    assert_eq!(bob.permit(&mut world, &[PEER_V6]), 441);
    assert_eq!(world.relay_count(), 2);
}
