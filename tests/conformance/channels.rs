//! Channels: RFC 8656 §12.

use hairpin::turn::{ChannelRange, DropReason, Event};

use crate::wire::{self, CHANNEL_BIND, channel, channel_data, peer, raw};
use crate::world::{Client, Delivery, PEER, PEER_V6, World, allocated, allocated_v6};

const OTHER: &str = "9.9.9.9:9000";

/// RFC 8656 §12.2
#[test]
fn channel_bind_without_number_or_peer_is_400() {
    let (mut world, mut client, _) = allocated();
    assert_eq!(client.code(&mut world, CHANNEL_BIND, &[peer(PEER)]), 400);
    assert_eq!(client.code(&mut world, CHANNEL_BIND, &[channel(0x4000)]), 400);
    assert_eq!(client.code(&mut world, CHANNEL_BIND, &[]), 400);
}

/// RFC 8656 §12.2
#[test]
fn channel_number_outside_the_range_is_400() {
    let (mut world, mut client, _) = allocated();
    for number in [0x0000, 0x3FFF, 0x5000, 0x7FFF, 0x8000, 0xFFFF] {
        assert_eq!(client.bind(&mut world, number, PEER), 400, "{number:#06x}");
    }
    assert_eq!(client.bind(&mut world, 0x4000, PEER), 0);
    assert_eq!(client.bind(&mut world, 0x4FFF, OTHER), 0);
}

#[test]
fn channel_number_of_wrong_length_is_400() {
    let (mut world, mut client, _) = allocated();
    for length in [0, 1, 2, 3, 5, 8] {
        let number = raw(wire::attr::CHANNEL_NUMBER, &vec![0x40; length]);
        assert_eq!(client.code(&mut world, CHANNEL_BIND, &[number, peer(PEER)]), 400);
    }
}

/// RFC 8656 §12.2
#[test]
fn half_of_a_bound_pair_cannot_be_bound_elsewhere() {
    let (mut world, mut client, _) = allocated();
    assert_eq!(client.bind(&mut world, 0x4000, PEER), 0);
    assert_eq!(client.bind(&mut world, 0x4000, OTHER), 400);
    assert_eq!(client.bind(&mut world, 0x4000, "8.8.8.8:9001"), 400, "another port is another");
    assert_eq!(client.bind(&mut world, 0x4001, PEER), 400);
    assert_eq!(client.bind(&mut world, 0x4000, PEER), 0, "the same pair is renewed");
    assert_eq!(client.bind(&mut world, 0x4001, "8.8.8.8:9001"), 0);
    let (to, _) = client.channel_data(&mut world, 0x4000, b"x").relayed();
    assert_eq!(to, PEER.parse().unwrap());
    assert_eq!(client.send(&mut world, OTHER, b"x").dropped(), DropReason::NoPermission);
}

/// RFC 8656 §12.2
#[test]
fn channel_to_another_family_is_443_and_to_a_forbidden_peer_403() {
    let (mut world, mut client, _) = allocated();
    assert_eq!(client.bind(&mut world, 0x4000, PEER_V6), 443);
    assert_eq!(client.bind(&mut world, 0x4000, "10.0.0.1:1"), 403);
    assert_eq!(client.bind(&mut world, 0x4000, "8.8.8.8:0"), 403);
    let (mut world, mut client, relay) = allocated_v6();
    assert_eq!(client.bind(&mut world, 0x4000, PEER), 443);
    assert_eq!(client.bind(&mut world, 0x4000, PEER_V6), 0);
    let delivery = world.peer_sends(relay, PEER_V6, b"x");
    assert!(matches!(delivery, Delivery::Channel { number: 0x4000, .. }));
}

/// RFC 8656 §12.2
#[test]
fn channel_bind_installs_a_permission_of_300_seconds() {
    let (mut world, mut client, relay) = allocated();
    client.bind(&mut world, 0x4000, PEER);
    client.send(&mut world, "8.8.8.8:77", b"x").relayed();
    world.pass_secs(299);
    client.channel_data(&mut world, 0x4000, b"x").relayed();
    world.pass_secs(1);
    let dropped = client.channel_data(&mut world, 0x4000, b"x").dropped();
    assert_eq!(dropped, DropReason::NoPermission, "the channel is there, the permission gone");
    let delivery = world.peer_sends(relay, PEER, b"x");
    assert_eq!(delivery, Delivery::Dropped(DropReason::NoPermission));
    client.bind(&mut world, 0x4000, PEER);
    client.channel_data(&mut world, 0x4000, b"x").relayed();
    assert!(matches!(world.peer_sends(relay, PEER, b"x"), Delivery::Channel { .. }));
}

/// RFC 8656 §12
#[test]
fn channel_lives_exactly_600_seconds_whatever_flows() {
    let (mut world, mut client, relay) = allocated();
    client.refresh(&mut world, 3600);
    client.bind(&mut world, 0x4000, PEER);
    for second in 0..600 {
        if second % 100 == 0 {
            client.permit(&mut world, &[PEER]);
        }
        client.channel_data(&mut world, 0x4000, b"x").relayed();
        assert!(matches!(world.peer_sends(relay, PEER, b"x"), Delivery::Channel { .. }));
        world.pass_secs(1);
    }
    let dropped = client.channel_data(&mut world, 0x4000, b"x").dropped();
    assert_eq!(dropped, DropReason::ChannelUnbound);
    assert!(matches!(world.peer_sends(relay, PEER, b"x"), Delivery::Data { .. }));
}

/// RFC 8656 §12, our choice: accepted once the old binding has expired
#[test]
fn expired_channel_can_be_bound_to_another_peer() {
    let (mut world, mut client, relay) = allocated();
    client.refresh(&mut world, 3600);
    client.bind(&mut world, 0x4000, PEER);
    world.pass_secs(599);
    assert_eq!(client.bind(&mut world, 0x4000, OTHER), 400);
    world.pass_secs(1);
    assert_eq!(client.bind(&mut world, 0x4000, OTHER), 0);
    client.permit(&mut world, &[PEER]);
    let (to, _) = client.channel_data(&mut world, 0x4000, b"x").relayed();
    assert_eq!(to, OTHER.parse().unwrap());
    assert!(matches!(world.peer_sends(relay, PEER, b"x"), Delivery::Data { .. }));
    assert_eq!(client.bind(&mut world, 0x4001, PEER), 0, "the peer is free as well");
}

/// RFC 8656 §12.5
#[test]
fn channel_is_for_the_exact_transport_address() {
    let (mut world, mut client, relay) = allocated();
    client.bind(&mut world, 0x4000, PEER);
    let client = client.five.client;
    let delivery = world.peer_sends(relay, PEER, b"x");
    assert_eq!(delivery, Delivery::Channel { client, number: 0x4000, data: b"x".to_vec() });
    let delivery = world.peer_sends(relay, "8.8.8.8:9001", b"x");
    let peer = "8.8.8.8:9001".parse().unwrap();
    assert_eq!(delivery, Delivery::Data { client, peer, data: b"x".to_vec() });
}

/// RFC 8656 §12.6
#[test]
fn first_byte_outside_the_channels_is_silent() {
    let (mut world, client, _) = allocated();
    for first in (0x04..=0x3F).chain(0x50..=0xFF) {
        let mut packet = channel_data(0x4000, b"abcd");
        packet[0] = first;
        assert_eq!(world.deliver(client.five, &packet).dropped(), DropReason::Demux);
    }
}

/// RFC 8656 §12.6
#[test]
fn channel_data_shorter_than_announced_is_silent_and_longer_is_cut() {
    let (mut world, mut client, _) = allocated();
    client.bind(&mut world, 0x4000, PEER);
    let mut packet = channel_data(0x4000, b"abc");
    packet[2..4].copy_from_slice(&35_510_u16.to_be_bytes());
    assert_eq!(world.deliver(client.five, &packet).dropped(), DropReason::Malformed);
    packet[2..4].copy_from_slice(&4_u16.to_be_bytes());
    assert_eq!(world.deliver(client.five, &packet).dropped(), DropReason::Malformed);
    packet[2..4].copy_from_slice(&2_u16.to_be_bytes());
    assert_eq!(world.deliver(client.five, &packet).relayed().1, b"ab");
}

/// RFC 8656 §12.6
#[test]
fn unbound_channel_is_silent() {
    let (mut world, mut client, _) = allocated();
    client.bind(&mut world, 0x4000, PEER);
    for number in [0x4001, 0x4FFF] {
        let dropped = client.channel_data(&mut world, number, b"x").dropped();
        assert_eq!(dropped, DropReason::ChannelUnbound);
    }
    let mut stranger = Client::at("198.51.100.1:4001");
    let dropped = stranger.channel_data(&mut world, 0x4000, b"x").dropped();
    assert_eq!(dropped, DropReason::NoAllocation);
    stranger.is_served(&mut world);
}

/// RFC 8656 §12.6
#[test]
fn empty_channel_data_is_an_empty_datagram() {
    let (mut world, mut client, relay) = allocated();
    client.bind(&mut world, 0x4000, PEER);
    assert_eq!(client.channel_data(&mut world, 0x4000, b"").relayed().1, b"");
    let (client, data) = (client.five.client, Vec::new());
    let delivery = world.peer_sends(relay, PEER, b"");
    assert_eq!(delivery, Delivery::Channel { client, number: 0x4000, data });
}

/// Channels of one allocation mean nothing to another.
#[test]
fn same_number_leads_elsewhere_in_another_allocation() {
    let (mut world, mut alice, _) = allocated();
    let mut bob = Client::bob("198.51.100.1:5000");
    bob.allocate(&mut world);
    alice.bind(&mut world, 0x4000, PEER);
    bob.bind(&mut world, 0x4000, OTHER);
    let (to, _) = alice.channel_data(&mut world, 0x4000, b"x").relayed();
    assert_eq!(to, PEER.parse().unwrap());
    let (to, _) = bob.channel_data(&mut world, 0x4000, b"x").relayed();
    assert_eq!(to, OTHER.parse().unwrap());
}

/// Each binding and renewal is told to whoever mirrors them.
#[test]
fn channel_bound_is_an_event_with_its_expiry() {
    let (mut world, mut client, _) = allocated();
    client.bind(&mut world, 0x4000, PEER);
    world.pass_secs(100);
    client.bind(&mut world, 0x4000, PEER);
    client.bind(&mut world, 0x4000, OTHER);
    let start = world.start;
    let bound = |event: &Event| match event {
        Event::ChannelBound { number, peer, expires, .. } => {
            Some((number.number(), peer.address(), (*expires - start).as_secs()))
        }
        _ => None,
    };
    let bound: Vec<_> = world.events.iter().filter_map(bound).collect();
    let peer = PEER.parse().unwrap();
    assert_eq!(bound, [(0x4000, peer, 600), (0x4000, peer, 700)]);
}

/// A ChannelBind that is refused has no effect at all.
#[test]
fn refused_channel_bind_permits_nobody() {
    let mut world = World::with(|setup| setup.config.limits.channels_per_allocation = 1);
    let mut client = Client::at("198.51.100.1:4000");
    client.allocate(&mut world);
    assert_eq!(client.bind(&mut world, 0x4000, PEER), 0);
    assert_eq!(client.bind(&mut world, 0x4001, OTHER), 508);
    assert_eq!(client.send(&mut world, OTHER, b"x").dropped(), DropReason::NoPermission);
}

/// RFC 5766 §11: what clients from before RFC 8656 choose from.
#[test]
fn channels_of_rfc5766_carry_data_where_they_are_accepted() {
    let mut world = World::with(|setup| setup.config.channels = ChannelRange::Rfc5766);
    let mut client = Client::at("198.51.100.1:4000");
    let relay = client.allocate(&mut world);
    for number in [0x3FFF, 0x8000, 0xFFFF] {
        assert_eq!(client.bind(&mut world, number, PEER), 400, "{number:#06x}");
    }
    for (number, port) in [(0x4000, 1), (0x5000, 2), (0x7FFF, 3)] {
        let peer = format!("8.8.8.8:{port}");
        assert_eq!(client.bind(&mut world, number, &peer), 0, "{number:#06x}");
        let (to, data) = client.channel_data(&mut world, number, b"there").relayed();
        assert_eq!((to, &data[..]), (peer.parse().unwrap(), &b"there"[..]));
        let delivery = world.peer_sends(relay, &peer, b"back");
        assert!(matches!(delivery, Delivery::Channel { number: on, .. } if on == number));
    }
    assert_eq!(client.channel_data(&mut world, 0x6000, b"x").dropped(), DropReason::ChannelUnbound);
    let beyond = channel_data(0x8000, b"x");
    assert_eq!(world.deliver(client.five, &beyond).dropped(), DropReason::Demux);
}
