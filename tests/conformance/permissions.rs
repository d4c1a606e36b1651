//! Permissions: RFC 8656 §9 and §10.

use hairpin::turn::{DropReason, Event};

use crate::wire::{CREATE_PERMISSION, attr, peer, raw};
use crate::world::{Client, Delivery, PEER, PEER_V6, World, allocated, allocated_v6};

/// RFC 8656 §9
#[test]
fn permission_lives_exactly_300_seconds() {
    let (mut world, mut client, relay) = allocated();
    assert_eq!(client.permit(&mut world, &[PEER]), 0);
    world.pass_secs(299);
    client.send(&mut world, PEER, b"x").relayed();
    assert!(matches!(world.peer_sends(relay, PEER, b"x"), Delivery::Data { .. }));
    world.pass_secs(1);
    assert_eq!(client.send(&mut world, PEER, b"x").dropped(), DropReason::NoPermission);
    let delivery = world.peer_sends(relay, PEER, b"x");
    assert_eq!(delivery, Delivery::Dropped(DropReason::NoPermission));
    assert_eq!(client.permit(&mut world, &[PEER]), 0);
    client.send(&mut world, PEER, b"x").relayed();
}

/// RFC 8656 §9: CreatePermission starts the time anew
#[test]
fn permission_is_refreshed_by_create_permission() {
    let (mut world, mut client, _) = allocated();
    client.permit(&mut world, &[PEER]);
    world.pass_secs(200);
    client.permit(&mut world, &[PEER]);
    world.pass_secs(299);
    client.send(&mut world, PEER, b"x").relayed();
}

/// RFC 8656 §9
#[test]
fn permission_covers_every_port_of_the_address() {
    let (mut world, mut client, relay) = allocated();
    client.permit(&mut world, &["8.8.8.8:1"]);
    for port in [1_u16, 9000, 40_000, 65_535] {
        let from = format!("8.8.8.8:{port}");
        client.send(&mut world, &from, b"x").relayed();
        assert!(matches!(world.peer_sends(relay, &from, b"x"), Delivery::Data { .. }));
    }
}

/// RFC 8656 §9
#[test]
fn datagram_of_an_unpermitted_peer_is_dropped() {
    let (mut world, mut client, relay) = allocated();
    client.permit(&mut world, &[PEER]);
    for from in ["8.8.8.9:9000", "9.8.8.8:9000", "8.8.4.4:9000", "[2a00::1]:9000"] {
        let delivery = world.peer_sends(relay, from, b"x");
        assert_eq!(delivery, Delivery::Dropped(DropReason::NoPermission), "{from}");
    }
    assert_eq!(world.server.stats().dropped(DropReason::NoPermission), 4);
}

/// RFC 8656 §9
#[test]
fn permission_holds_for_one_allocation_only() {
    let (mut world, mut alice, _) = allocated();
    let mut bob = Client::bob("198.51.100.1:5000");
    let relay = bob.allocate(&mut world);
    alice.permit(&mut world, &[PEER]);
    let delivery = world.peer_sends(relay, PEER, b"x");
    assert_eq!(delivery, Delivery::Dropped(DropReason::NoPermission));
    assert_eq!(bob.send(&mut world, PEER, b"x").dropped(), DropReason::NoPermission);
}

/// RFC 8656 §9: also not for the next allocation of the same client
#[test]
fn permissions_end_with_their_allocation() {
    let (mut world, mut client, _) = allocated();
    client.bind(&mut world, 0x4000, PEER);
    client.refresh(&mut world, 0);
    client.allocate(&mut world);
    assert_eq!(client.send(&mut world, PEER, b"x").dropped(), DropReason::NoPermission);
    let dropped = client.channel_data(&mut world, 0x4000, b"x").dropped();
    assert_eq!(dropped, DropReason::ChannelUnbound);
}

/// RFC 8656 §10.2
#[test]
fn create_permission_without_a_peer_is_400() {
    let (mut world, mut client, _) = allocated();
    assert_eq!(client.code(&mut world, CREATE_PERMISSION, &[]), 400);
}

/// RFC 8656 §10.2
#[test]
fn one_malformed_peer_leaves_none_permitted() {
    for bad in crate::stun::bad_addresses() {
        for bad_first in [true, false] {
            let (mut world, mut client, _) = allocated();
            let mut peers = vec![peer(PEER), raw(attr::XPA, &bad)];
            if bad_first {
                peers.reverse();
            }
            assert_eq!(client.code(&mut world, CREATE_PERMISSION, &peers), 400);
            assert_eq!(client.send(&mut world, PEER, b"x").dropped(), DropReason::NoPermission);
        }
    }
}

/// RFC 8656 §10.2
#[test]
fn peer_of_another_family_is_443() {
    let (mut world, mut client, _) = allocated();
    assert_eq!(client.permit(&mut world, &[PEER_V6]), 443);
    assert_eq!(client.permit(&mut world, &[PEER, PEER_V6]), 443);
    assert_eq!(client.send(&mut world, PEER, b"x").dropped(), DropReason::NoPermission);
    let (mut world, mut client, _) = allocated_v6();
    assert_eq!(client.permit(&mut world, &[PEER]), 443);
    assert_eq!(client.permit(&mut world, &[PEER_V6]), 0);
    client.send(&mut world, PEER_V6, b"x").relayed();
}

/// RFC 8656 §10.2
#[test]
fn one_forbidden_peer_leaves_none_permitted() {
    let (mut world, mut client, _) = allocated();
    assert_eq!(client.permit(&mut world, &[PEER, "10.0.0.1:80", "8.8.4.4:1"]), 403);
    assert_eq!(client.send(&mut world, PEER, b"x").dropped(), DropReason::NoPermission);
    assert_eq!(client.send(&mut world, "8.8.4.4:1", b"x").dropped(), DropReason::NoPermission);
}

/// RFC 8656 §10.2
#[test]
fn all_peers_of_a_request_are_permitted() {
    let (mut world, mut client, _) = allocated();
    let peers: Vec<String> = (1..=100).map(|host| format!("8.8.8.{host}:{host}")).collect();
    let peers: Vec<&str> = peers.iter().map(String::as_str).collect();
    assert_eq!(client.permit(&mut world, &peers), 0);
    for peer in peers {
        client.send(&mut world, peer, b"x").relayed();
    }
}

/// The port of XOR-PEER-ADDRESS does not matter here, not even 0.
#[test]
fn create_permission_ignores_the_port() {
    let (mut world, mut client, _) = allocated();
    assert_eq!(client.permit(&mut world, &["8.8.8.8:0"]), 0);
    client.send(&mut world, PEER, b"x").relayed();
}

/// RFC 8656 §10.2: a refused refresh takes nothing away either
#[test]
fn refused_create_permission_keeps_what_there_was() {
    let mut world = World::new();
    let mut client = Client::at("198.51.100.1:4000");
    client.allocate(&mut world);
    client.permit(&mut world, &[PEER]);
    world.pass_secs(299);
    assert_eq!(client.permit(&mut world, &[PEER, "10.0.0.1:80"]), 403);
    client.send(&mut world, PEER, b"x").relayed();
    world.pass_secs(1);
    assert_eq!(client.send(&mut world, PEER, b"x").dropped(), DropReason::NoPermission);
}

/// Each permission and renewal is told to whoever mirrors them; a refused request tells nothing.
#[test]
fn permission_is_an_event_with_its_expiry() {
    let (mut world, mut client, _) = allocated();
    client.permit(&mut world, &[PEER]);
    world.pass_secs(100);
    client.permit(&mut world, &[PEER]);
    client.permit(&mut world, &[PEER, "10.0.0.1:1"]);
    let start = world.start;
    let permitted = |event: &Event| match event {
        Event::Permitted { peer, expires, .. } => Some((*peer, (*expires - start).as_secs())),
        _ => None,
    };
    let permitted: Vec<_> = world.events.iter().filter_map(permitted).collect();
    let peer = PEER.parse::<std::net::SocketAddr>().unwrap().ip();
    assert_eq!(permitted, [(peer, 300), (peer, 400)]);
}
