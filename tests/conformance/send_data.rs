//! Send and Data indications: RFC 8656 §11.

use hairpin::turn::{DropReason, Transport};

use crate::wire::{self, Msg, attr, peer, raw};
use crate::world::{Client, Delivery, PEER, PEER_V6, World, allocated, allocated_v6};

fn data(bytes: &[u8]) -> wire::Attr {
    raw(attr::DATA, bytes)
}

/// RFC 8656 §11.2
#[test]
fn send_without_peer_or_data_is_dropped() {
    let (mut world, mut client, _) = allocated();
    client.permit(&mut world, &[PEER]);
    let bad = crate::stun::bad_addresses().into_iter().map(|value| raw(attr::XPA, &value));
    let mut cases: Vec<Vec<_>> = bad.map(|bad| vec![bad, data(b"x")]).collect();
    cases.extend([vec![], vec![peer(PEER)], vec![data(b"x")]]);
    for case in cases {
        let dropped = client.indicate(&mut world, &case).dropped();
        assert_eq!(dropped, DropReason::IndicationMalformed, "{case:?}");
    }
}

/// RFC 8656 §11.2
#[test]
fn send_of_no_bytes_is_an_empty_datagram() {
    let (mut world, mut client, _) = allocated();
    client.permit(&mut world, &[PEER]);
    let (to, bytes) = client.send(&mut world, PEER, b"").relayed();
    assert_eq!((to, bytes.len()), (PEER.parse().unwrap(), 0));
}

/// RFC 8656 §11.2: DONT-FRAGMENT among them, where the DF bit cannot be set
#[test]
fn send_with_attributes_not_understood_is_dropped() {
    let (mut world, mut client, _) = allocated();
    client.permit(&mut world, &[PEER]);
    for kind in [attr::DONT_FRAGMENT, 0x7F00, attr::CHANGE_REQUEST] {
        let attributes = [peer(PEER), raw(kind, b""), data(b"x")];
        let dropped = client.indicate(&mut world, &attributes).dropped();
        assert_eq!(dropped, DropReason::IndicationMalformed, "{kind:#06x}");
    }
    let optional = [peer(PEER), raw(0xFFFE, b"abc"), data(b"x")];
    client.indicate(&mut world, &optional).relayed();
}

/// RFC 8656 §11.2, and §13: between families, and within IPv6, it has no meaning, except to
/// clients over streams (§15).
#[test]
fn dont_fragment_sets_the_df_bit_of_ipv4_and_for_streams() {
    let mut world = World::with(|setup| setup.config.dont_fragment = true);
    let whole = raw(attr::DONT_FRAGMENT, b"");
    let ways = [
        ("198.51.100.1:4000", 1, PEER, true),
        ("198.51.100.1:4001", 2, PEER_V6, false),
        ("[2a00:99::1]:4000", 1, PEER, false),
        ("[2a00:99::1]:4001", 2, PEER_V6, false),
    ];
    let over = |transport| ways.map(|way| (transport, way));
    for (transport, (here, family, to, within_ipv4)) in
        Transport::ALL.iter().flat_map(|&transport| over(transport))
    {
        let set = within_ipv4 || transport.is_stream();
        let mut client = Client::at(here);
        client.five.transport = transport;
        client.allocate_with(&mut world, &[crate::wire::family(family), whole.clone()]);
        client.permit(&mut world, &[to]);
        client.indicate(&mut world, &[peer(to), whole.clone(), data(b"x")]).relayed();
        assert_eq!(world.dont_fragment, set, "from {here} over {transport:?} to {to}");
        client.indicate(&mut world, &[peer(to), data(b"x")]).relayed();
        assert!(!world.dont_fragment);
        assert_eq!(client.bind(&mut world, 0x4000, to), 0);
        client.channel_data(&mut world, 0x4000, b"x").relayed();
        assert!(!world.dont_fragment, "ChannelData has no such attribute");
        let malformed = [peer(to), raw(attr::DONT_FRAGMENT, &[0; 4]), data(b"x")];
        let dropped = client.indicate(&mut world, &malformed).dropped();
        assert_eq!(dropped, DropReason::IndicationMalformed);
    }
}

/// RFC 8656 §11.2
#[test]
fn send_needs_a_permission_and_never_refreshes_it() {
    let (mut world, mut client, _) = allocated();
    assert_eq!(client.send(&mut world, PEER, b"x").dropped(), DropReason::NoPermission);
    client.permit(&mut world, &[PEER]);
    for _ in 0..299 {
        client.send(&mut world, PEER, b"x").relayed();
        world.pass_secs(1);
    }
    client.send(&mut world, PEER, b"x").relayed();
    world.pass_secs(1);
    assert_eq!(client.send(&mut world, PEER, b"x").dropped(), DropReason::NoPermission);
}

/// RFC 8656 §9: incoming data refreshes nothing either
#[test]
fn incoming_data_does_not_refresh_the_permission() {
    let (mut world, mut client, relay) = allocated();
    client.permit(&mut world, &[PEER]);
    for _ in 0..300 {
        assert!(matches!(world.peer_sends(relay, PEER, b"x"), Delivery::Data { .. }));
        world.pass_secs(1);
    }
    let delivery = world.peer_sends(relay, PEER, b"x");
    assert_eq!(delivery, Delivery::Dropped(DropReason::NoPermission));
}

/// RFC 8656 §5
#[test]
fn send_without_an_allocation_is_silent() {
    let mut world = World::new();
    let mut client = Client::at("198.51.100.1:4000");
    assert_eq!(client.send(&mut world, PEER, b"x").dropped(), DropReason::NoAllocation);
}

/// RFC 8656 §11.2: asked on the data path, permission or not
#[test]
fn send_to_a_forbidden_port_of_a_permitted_peer_is_dropped() {
    let (mut world, mut client, _) = allocated();
    client.permit(&mut world, &["203.0.113.5:50000", PEER]);
    for to in ["203.0.113.5:3478", "203.0.113.5:8080", "203.0.113.5:22", "8.8.8.8:0"] {
        let dropped = client.send(&mut world, to, b"x").dropped();
        assert_eq!(dropped, DropReason::PeerForbidden, "{to}");
    }
    assert_eq!(world.server.allocations(), 1, "the allocation outlives it");
    client.send(&mut world, PEER, b"x").relayed();
}

/// RFC 8656 §11.2: from the relayed address of the sender's allocation
#[test]
fn send_leaves_from_the_relayed_address() {
    let (mut world, mut client, relay) = allocated();
    client.permit(&mut world, &[PEER]);
    let outcome = client.send(&mut world, PEER, b"x");
    let crate::world::Outcome::ToPeer { relay: from, .. } = outcome else { panic!() };
    assert_eq!(from, relay);
}

/// RFC 8656 §11.3; the harness checks that there are no other attributes
#[test]
fn data_indication_carries_source_and_data() {
    let (mut world, mut client, relay) = allocated();
    client.permit(&mut world, &[PEER]);
    for length in [0, 1, 2, 3, 4, 5, 500, 1200, 1472, 1500, 4096, 9000, 65_000] {
        let bytes: Vec<u8> = (0..length).map(|at| at as u8).collect();
        let delivery = world.peer_sends(relay, PEER, &bytes);
        let (client, peer) = (client.five.client, PEER.parse().unwrap());
        assert_eq!(delivery, Delivery::Data { client, peer, data: bytes });
    }
}

/// RFC 8656 §11.3
#[test]
fn data_indication_of_an_ipv6_peer() {
    let (mut world, mut client, relay) = allocated_v6();
    client.permit(&mut world, &[PEER_V6]);
    let delivery = world.peer_sends(relay, PEER_V6, b"abc");
    let (client, peer) = (client.five.client, PEER_V6.parse().unwrap());
    assert_eq!(delivery, Delivery::Data { client, peer, data: b"abc".to_vec() });
}

/// RFC 8656 §3.7, towards the peer
#[test]
fn full_size_datagrams_are_relayed() {
    let (mut world, mut client, _) = allocated();
    client.bind(&mut world, 0x4000, PEER);
    for length in [0, 1, 500, 1200, 1472, 1500, 4096, 9000, 65_000] {
        let bytes: Vec<u8> = (0..length).map(|at| at as u8).collect();
        assert_eq!(client.send(&mut world, PEER, &bytes).relayed().1, bytes);
        assert_eq!(client.channel_data(&mut world, 0x4000, &bytes).relayed().1, bytes);
    }
}

/// What would not fit into one datagram to the client is dropped, and cut by nobody.
#[test]
fn datagram_too_large_to_be_wrapped_is_dropped() {
    let (mut world, mut client, relay) = allocated();
    client.permit(&mut world, &[PEER]);
    let most = 65_507 - 20 - 12 - 4 - 3;
    assert!(matches!(world.peer_sends(relay, PEER, &vec![1; most]), Delivery::Data { .. }));
    let delivery = world.peer_sends(relay, PEER, &vec![1; 65_507]);
    assert_eq!(delivery, Delivery::Dropped(DropReason::TooLarge));
}

/// RFC 8656 §3.7: over a stream nothing limits a message but its length field.
#[test]
fn largest_datagrams_of_peers_fit_into_a_stream() {
    for transport in [Transport::Tcp, Transport::Tls] {
        let mut world = World::new();
        let mut client = Client::at("198.51.100.1:4000");
        client.five.transport = transport;
        let relay = client.allocate(&mut world);
        client.permit(&mut world, &[PEER]);
        let bytes = vec![7; 65_507];
        let to = |peer: &str| (client.five.client, peer.parse().unwrap());
        let (at, peer) = to(PEER);
        let data = Delivery::Data { client: at, peer, data: bytes.clone() };
        assert_eq!(world.peer_sends(relay, PEER, &bytes), data);
        assert_eq!(client.bind(&mut world, 0x4000, PEER), 0);
        let data = Delivery::Channel { client: at, number: 0x4000, data: bytes };
        assert_eq!(world.peer_sends(relay, PEER, &[7; 65_507]), data);
    }
}

/// The same of IPv6, whose largest datagram is one too large for a Data indication.
#[test]
fn largest_datagrams_of_ipv6_peers_fit_into_channel_data() {
    let mut world = World::new();
    let mut client = Client::at("198.51.100.1:4000").over_tcp();
    let relay = client.allocate_with(&mut world, &[wire::family(2)]);
    client.permit(&mut world, &[PEER_V6]);
    let (at, peer) = (client.five.client, PEER_V6.parse().unwrap());
    let most = 65_532 - (4 + 20) - 4;
    let data = Delivery::Data { client: at, peer, data: vec![7; most] };
    assert_eq!(world.peer_sends(relay, PEER_V6, &vec![7; most]), data);
    let delivery = world.peer_sends(relay, PEER_V6, &vec![7; most + 1]);
    assert_eq!(delivery, Delivery::Dropped(DropReason::TooLarge));
    client.bind(&mut world, 0x4000, PEER_V6);
    // 65,527 is what UDP holds; a client of the same server may send what ChannelData holds.
    for length in [65_527, 65_535] {
        let data = Delivery::Channel { client: at, number: 0x4000, data: vec![7; length] };
        assert_eq!(world.peer_sends(relay, PEER_V6, &vec![7; length]), data);
    }
}

/// RFC 8489 §9, in an indication: nobody checks the integrity, but what is behind it is not seen
#[test]
fn attributes_behind_an_integrity_do_not_count_in_send_either() {
    let (mut world, mut client, _) = allocated();
    client.permit(&mut world, &[PEER]);
    let base = Msg::new(wire::SEND_INDICATION, client.id()).add(&[peer(PEER)]);
    let packet = base.mi(b"key").attr(attr::DATA, b"x").finish();
    let dropped = world.deliver(client.five, &packet).dropped();
    assert_eq!(dropped, DropReason::IndicationMalformed);
}

/// Counters move while the session runs.
#[test]
fn relayed_bytes_are_counted_at_once() {
    use hairpin::turn::stats::Direction;
    let (mut world, mut client, relay) = allocated();
    client.permit(&mut world, &[PEER]);
    client.send(&mut world, PEER, b"abcde").relayed();
    let _ = world.peer_sends(relay, PEER, b"xyz");
    let udp = hairpin::turn::Transport::Udp;
    let stats = world.server.stats();
    assert_eq!(stats.relayed(Direction::ToPeer, udp).bytes, 5);
    assert_eq!(stats.relayed(Direction::ToClient, udp).bytes, 3);
}
