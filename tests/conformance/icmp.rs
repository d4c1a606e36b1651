//! ICMP errors about what was relayed: RFC 8656 §11.5, §12.5 and §18.13.

use std::net::SocketAddr;
use std::time::Duration;

use hairpin::stun::attribute::Icmp;
use hairpin::turn::{AllocationId, DropReason, Verdict};

use crate::wire::{self, Parsed, attr};
use crate::world::{Client, PEER, PEER_V6, World, allocated, allocated_v6};

const HERE: &str = "198.51.100.1:4000";
const PORT_UNREACHABLE: Icmp = Icmp { kind: 3, code: 3, data: 0 };

/// An ICMP error about what left `relay` for `peer`: what the client is told.
fn arrives(
    world: &mut World,
    relay: SocketAddr,
    peer: &str,
    error: Icmp,
) -> Result<Parsed, DropReason> {
    let id = world.allocation_at(relay);
    judged(world, id, peer, error)
}

fn judged(
    world: &mut World,
    on: AllocationId,
    peer: &str,
    error: Icmp,
) -> Result<Parsed, DropReason> {
    match world.server.handle_icmp(on, peer.parse().unwrap(), error, world.now) {
        Verdict::Drop(reason) => Err(reason),
        Verdict::ToClient { to, header, padding: 0 } => {
            assert_eq!(to, on, "told to its own client");
            Ok(Parsed::strict(header.as_bytes()))
        }
        other => panic!("an ICMP error becomes {other:?}"),
    }
}

/// The value of ICMP in a Data indication that must hold nothing but XOR-PEER-ADDRESS besides.
fn icmp(told: &Parsed, peer: &str) -> Vec<u8> {
    assert_eq!(told.kind, wire::DATA_INDICATION);
    assert_eq!(told.attributes.len(), 2, "XOR-PEER-ADDRESS and ICMP: no DATA, no integrity");
    assert_eq!(told.address(attr::XPA).to_string(), peer);
    told.get(attr::ICMP).unwrap().to_vec()
}

#[test]
fn error_about_a_permitted_peer_is_a_data_indication_with_icmp() {
    let (mut world, mut client, relay) = allocated();
    assert_eq!(client.permit(&mut world, &[PEER]), 0);
    let told = arrives(&mut world, relay, PEER, PORT_UNREACHABLE).unwrap();
    // Two reserved bytes, seven bits of type, nine of code, error data.
    assert_eq!(icmp(&told, PEER), [0, 0, 3 << 1, 3, 0, 0, 0, 0]);
    let again = arrives(&mut world, relay, PEER, PORT_UNREACHABLE).unwrap();
    assert_ne!(told.id, again.id, "each has a transaction id of its own");
}

#[test]
fn error_about_an_ipv6_peer_is_told_too() {
    let (mut world, mut client, relay) = allocated_v6();
    assert_eq!(client.permit(&mut world, &[PEER_V6]), 0);
    let unreachable = Icmp { kind: 1, code: 4, data: 0 };
    let told = arrives(&mut world, relay, PEER_V6, unreachable).unwrap();
    assert_eq!(icmp(&told, PEER_V6), [0, 0, 1 << 1, 4, 0, 0, 0, 0]);
}

/// RFC 8656 §11.5: 3 and 11 of ICMP, 1 to 3 of ICMPv6, whatever their codes.
#[test]
fn types_that_are_relayed_are_those_of_the_family() {
    let (mut world, mut client, relay) = allocated();
    client.permit(&mut world, &[PEER]);
    let (mut world6, mut client6, relay6) = allocated_v6();
    client6.permit(&mut world6, &[PEER_V6]);
    for kind in 0..=255 {
        for code in [0, 1, 255] {
            let error = Icmp { kind, code, data: 0 };
            let told = arrives(&mut world, relay, PEER, error);
            assert_eq!(told.is_ok(), [3, 11].contains(&kind), "ICMP type {kind}");
            let told6 = arrives(&mut world6, relay6, PEER_V6, error);
            assert_eq!(told6.is_ok(), [1, 2, 3].contains(&kind), "ICMPv6 type {kind}");
            for told in [told, told6] {
                assert!(told.is_ok() || told.unwrap_err() == DropReason::IcmpUnknown);
            }
        }
    }
    assert_eq!(world.server.stats().dropped(DropReason::IcmpUnknown), 254 * 3);
}

/// RFC 8656 §18.13: and zero in all others, whatever the driver found there.
#[test]
fn error_data_is_the_mtu_where_the_error_tells_one() {
    let (mut world, mut client, relay) = allocated();
    client.permit(&mut world, &[PEER]);
    let (mut world6, mut client6, relay6) = allocated_v6();
    client6.permit(&mut world6, &[PEER_V6]);
    let mtu = 0x0000_0514_u32;
    let mut data = |kind, code| {
        let told = arrives(&mut world, relay, PEER, Icmp { kind, code, data: mtu }).unwrap();
        u32::from_be_bytes(icmp(&told, PEER)[4..].try_into().unwrap())
    };
    assert_eq!([data(3, 4), data(3, 3), data(3, 1), data(11, 0), data(11, 4)], [mtu, 0, 0, 0, 0]);
    let mut data = |kind, code| {
        let told = arrives(&mut world6, relay6, PEER_V6, Icmp { kind, code, data: mtu }).unwrap();
        u32::from_be_bytes(icmp(&told, PEER_V6)[4..].try_into().unwrap())
    };
    assert_eq!([data(2, 0), data(1, 4), data(3, 4)], [mtu, 0, 0]);
}

/// Abuse case F.86: a forger does not know who is permitted.
#[test]
fn error_about_a_peer_without_permission_is_dropped_and_counted() {
    let (mut world, mut client, relay) = allocated();
    let none = arrives(&mut world, relay, PEER, PORT_UNREACHABLE);
    assert_eq!(none.unwrap_err(), DropReason::NoPermission);
    client.permit(&mut world, &[PEER]);
    let other = arrives(&mut world, relay, "8.8.4.4:9000", PORT_UNREACHABLE);
    assert_eq!(other.unwrap_err(), DropReason::NoPermission);
    assert_eq!(world.server.stats().dropped(DropReason::NoPermission), 2);
    world.pass(Duration::from_secs(300));
    let late = arrives(&mut world, relay, PEER, PORT_UNREACHABLE);
    assert_eq!(late.unwrap_err(), DropReason::NoPermission, "a permission of the past is none");
}

/// RFC 8656 §11.5: only addresses are compared. Without a port it is told as 0.
#[test]
fn port_of_the_peer_needs_no_permission_and_is_told() {
    let (mut world, mut client, relay) = allocated();
    client.permit(&mut world, &["8.8.8.8:1"]);
    for peer in ["8.8.8.8:0", "8.8.8.8:53", "8.8.8.8:65535"] {
        icmp(&arrives(&mut world, relay, peer, PORT_UNREACHABLE).unwrap(), peer);
    }
}

/// RFC 8656 §12.5.
#[test]
fn error_about_a_peer_with_a_channel_is_a_data_indication_too() {
    let (mut world, mut client, relay) = allocated();
    assert_eq!(client.bind(&mut world, 0x4000, PEER), 0);
    icmp(&arrives(&mut world, relay, PEER, PORT_UNREACHABLE).unwrap(), PEER);
}

/// Abuse case F.86: whatever is forged, the allocation stays as it is.
#[test]
fn errors_change_nothing() {
    let (mut world, mut client, relay) = allocated();
    client.bind(&mut world, 0x4000, PEER);
    for kind in 0..=255 {
        for peer in [PEER, "8.8.4.4:9000", "203.0.113.5:3478"] {
            let _ = arrives(&mut world, relay, peer, Icmp { kind, code: 0, data: u32::MAX });
        }
    }
    assert_eq!(client.channel_data(&mut world, 0x4000, b"on").relayed().1, b"on");
    world.pass(Duration::from_secs(299));
    assert!(arrives(&mut world, relay, PEER, PORT_UNREACHABLE).is_ok());
    world.pass(Duration::from_secs(1));
    assert_eq!(
        arrives(&mut world, relay, PEER, PORT_UNREACHABLE).unwrap_err(),
        DropReason::NoPermission,
        "errors refresh no permission"
    );
}

#[test]
fn error_for_an_allocation_that_is_over_is_dropped() {
    let (mut world, mut client, relay) = allocated();
    client.permit(&mut world, &[PEER]);
    let id = world.allocation_at(relay);
    assert!(client.refresh(&mut world, 0).is_success());
    let late = judged(&mut world, id, PEER, PORT_UNREACHABLE);
    assert_eq!(late.unwrap_err(), DropReason::NoAllocation);

    let mut client = Client::at(HERE);
    let relay = client.allocate(&mut world);
    client.permit(&mut world, &[PEER]);
    // Its timer has not run yet.
    world.now.instant += Duration::from_secs(600);
    let late = arrives(&mut world, relay, PEER, PORT_UNREACHABLE);
    assert_eq!(late.unwrap_err(), DropReason::NoAllocation);
}

/// Each half of a dual allocation has its own errors and permissions.
#[test]
fn error_for_a_half_asks_the_permissions_of_that_half() {
    let mut world = World::new();
    let mut client = Client::at(HERE);
    let v4 = client.allocate_with(&mut world, &[wire::raw(attr::AAF, &[2, 0, 0, 0])]);
    let v6 = world.server.other_family(world.allocation_at(v4)).unwrap();
    client.permit(&mut world, &[PEER_V6]);
    let no = arrives(&mut world, v4, PEER, PORT_UNREACHABLE);
    assert_eq!(no.unwrap_err(), DropReason::NoPermission);
    let unreachable = Icmp { kind: 1, code: 4, data: 0 };
    icmp(&judged(&mut world, v6, PEER_V6, unreachable).unwrap(), PEER_V6);
}
