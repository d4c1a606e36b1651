//! A machine whose addresses change while it serves: what the policy has let through before is
//! asked about again, at that moment.

use hairpin::turn::policy::Alias;
use hairpin::turn::{DropReason, Event};

use crate::wire::{self, ALLOCATE, CONNECT, attr, peer, transport};
use crate::world::{Client, Delivery, Outcome, PEER, RELAY_V4, RELAY_V6, World, allocated, ip};

const OTHER_PEER: &str = "8.8.4.4:9000";

/// The addresses of every world, and another one.
fn gains(world: &mut World, address: &str) {
    let own = [RELAY_V4, RELAY_V6, "127.0.0.1", "::1", address].map(ip).into();
    world.server.set_own_addresses(own, Vec::new());
}

/// Whether nothing passes between the client and `PEER`, and all does with the other peer.
fn only_the_other_is_left(world: &mut World, client: &mut Client, relay: std::net::SocketAddr) {
    assert_eq!(client.send(world, PEER, b"x").dropped(), DropReason::PeerForbidden);
    let dropped = client.channel_data(world, 0x4000, b"x").dropped();
    assert_eq!(dropped, DropReason::ChannelUnbound);
    let delivery = world.peer_sends(relay, PEER, b"x");
    assert_eq!(delivery, Delivery::Dropped(DropReason::NoPermission));
    assert_eq!(client.permit(world, &[PEER]), 403);
    assert_eq!(client.bind(world, 0x4000, PEER), 403);
    let kept = client.channel_data(world, 0x4001, b"x").relayed();
    assert_eq!(kept.0, OTHER_PEER.parse().unwrap());
    let delivery = world.peer_sends(relay, OTHER_PEER, b"x");
    assert!(matches!(delivery, Delivery::Channel { number: 0x4001, .. }), "{delivery:?}");
}

fn with_two_peers() -> (World, Client, std::net::SocketAddr) {
    let (mut world, mut client, relay) = allocated();
    assert_eq!(client.bind(&mut world, 0x4000, PEER), 0);
    assert_eq!(client.bind(&mut world, 0x4001, OTHER_PEER), 0);
    (world, client, relay)
}

#[test]
fn peer_whose_address_the_machine_gains_is_cut_off() {
    let (mut world, mut client, relay) = with_two_peers();
    gains(&mut world, "8.8.8.8");
    only_the_other_is_left(&mut world, &mut client, relay);
    // For a second data path.
    let unpermitted =
        |event: &Event| matches!(event, Event::Unpermitted { peer, .. } if *peer == ip("8.8.8.8"));
    let parted = |event: &Event| matches!(event, Event::Parted { peer, .. } if *peer == PEER.parse().unwrap());
    assert_eq!(world.events.iter().filter(|event| unpermitted(event)).count(), 1);
    assert_eq!(world.events.iter().filter(|event| parted(event)).count(), 1);
}

#[test]
fn peer_whose_address_the_nat_in_front_gains_is_cut_off() {
    let (mut world, mut client, relay) = with_two_peers();
    let alias = Alias { external: ip("8.8.8.8"), local: ip("10.0.0.4") };
    world.server.set_aliases(vec![alias], [RELAY_V4, RELAY_V6].map(ip).into());
    only_the_other_is_left(&mut world, &mut client, relay);
}

#[test]
fn broadcast_address_of_a_network_that_the_machine_joins_is_cut_off() {
    let (mut world, mut client, relay) = with_two_peers();
    let own = [RELAY_V4, RELAY_V6].map(ip).into();
    world.server.set_own_addresses(own, vec!["8.8.8.8".parse().unwrap()]);
    only_the_other_is_left(&mut world, &mut client, relay);
}

#[test]
fn loss_of_an_address_takes_nothing_from_anybody() {
    let (mut world, client, _) = with_two_peers();
    world.server.set_own_addresses(vec![ip(RELAY_V4)], Vec::new());
    for number in [0x4000, 0x4001] {
        client.channel_data(&mut world, number, b"x").relayed();
    }
}

/// What is external from now on may be reached only as a relayed address: what else listens on that
/// port is none of the client's business.
#[test]
fn channel_to_what_has_become_a_relayed_address_leads_there_alone() {
    let (mut world, mut client, _) = allocated();
    let there = "8.8.8.8:50000";
    assert_eq!(client.bind(&mut world, 0x4000, there), 0);
    assert_eq!(client.bind(&mut world, 0x4001, "8.8.8.8:9000"), 0);
    let must_be_relayed = |world: &mut World| {
        let packet = wire::channel_data(0x4000, b"x");
        let verdict = world.server.handle_client(client.five, &packet, world.now, &mut Vec::new());
        let hairpin::turn::Verdict::ToPeer { peer, .. } = verdict else { panic!("{verdict:?}") };
        peer.must_be_relayed()
    };
    assert!(!must_be_relayed(&mut world));
    let alias = Alias { external: ip("8.8.8.8"), local: ip("10.0.0.4") };
    world.server.set_aliases(vec![alias], vec![ip("8.8.8.8")]);
    assert!(must_be_relayed(&mut world));
    let dropped = client.channel_data(&mut world, 0x4001, b"x").dropped();
    assert_eq!(dropped, DropReason::ChannelUnbound, "no port of relayed addresses");
}

/// RFC 6062
#[test]
fn connection_to_a_peer_whose_address_the_machine_gains_ends() {
    let mut world = World::with(|setup| setup.config.tcp_relay = true);
    let mut client = Client::at("198.51.100.1:4000").over_tcp();
    assert_eq!(client.ask(&mut world, ALLOCATE, &[transport(6)]).code(), 0);
    for (name, to) in [(1, PEER), (2, OTHER_PEER)] {
        let Outcome::Connecting(pending) = client.begin(&mut world, CONNECT, &[peer(to)]) else {
            panic!("not connecting");
        };
        let reply = world.connected(pending, Ok(name));
        assert_eq!(reply.get(attr::CONNECTION_ID), Some(&name.to_be_bytes()[..]));
    }
    assert_eq!(world.server.stats().peer_connections, 2);
    gains(&mut world, "8.8.8.8");
    world.pass_secs(0);
    assert_eq!(world.server.stats().peer_connections, 1);
    let parted = world.events.iter().filter_map(|event| match event {
        Event::Parted { peer, .. } => Some(*peer),
        _ => None,
    });
    assert_eq!(parted.collect::<Vec<_>>(), [PEER.parse().unwrap()]);
    assert_eq!(client.code(&mut world, CONNECT, &[peer(PEER)]), 403);
    assert_eq!(client.code(&mut world, CONNECT, &[peer(OTHER_PEER)]), 446, "there still");
}
