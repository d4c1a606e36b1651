//! Allocate: RFC 8656 §6 and §7.2.

use std::collections::BTreeSet;

use hairpin::turn::{AllocateError, Verdict};

use crate::wire::{self, ALLOCATE, Attr, Parsed, attr, family, raw, transport};
use crate::world::{Client, RELAY_V4, RELAY_V6, World, allocated, ip};

const HERE: &str = "198.51.100.1:4000";

fn code(attributes: &[Attr]) -> u16 {
    ask(attributes).code()
}

fn ask(attributes: &[Attr]) -> Parsed {
    let mut world = World::new();
    let reply = Client::at(HERE).ask(&mut world, ALLOCATE, attributes);
    assert_eq!(world.server.allocations(), usize::from(reply.is_success()));
    reply
}

/// RFC 8656 §7.2
#[test]
fn allocate_success_has_relayed_address_lifetime_and_mapped_address() {
    let reply = ask(&[transport(17)]);
    assert_eq!(reply.count(attr::XRA), 1);
    assert_eq!(reply.address(attr::XRA).ip(), ip(RELAY_V4));
    assert_eq!(reply.lifetime(), 600);
    assert_eq!(reply.address(attr::XMA), HERE.parse().unwrap());
    assert!(!reply.has(attr::TOKEN));
}

/// RFC 8656 §6 and §7.2
#[test]
fn relayed_addresses_are_distinct_and_in_the_range() {
    let mut world = World::new();
    let mut seen = BTreeSet::new();
    for port in 1000..1300 {
        let relay = Client::at(&format!("198.51.100.1:{port}")).allocate(&mut world);
        assert!(relay.port() >= 49152);
        assert!(seen.insert(relay));
    }
}

/// RFC 8656 §7.2
#[test]
fn second_allocate_on_a_five_tuple_is_437() {
    let (mut world, mut client, _) = allocated();
    assert_eq!(client.code(&mut world, ALLOCATE, &[transport(17)]), 437);
    assert_eq!(client.code(&mut world, ALLOCATE, &[]), 437, "(2) comes before (3)");
    assert_eq!(world.server.allocations(), 1);
    assert!(client.refresh(&mut world, 600).is_success());
}

/// RFC 8656 §7.2: the transaction id of another user's request proves nothing
#[test]
fn retransmission_by_another_user_is_437() {
    let mut world = World::new();
    let mut alice = Client::at(HERE);
    alice.allocate(&mut world);
    let mut bob = Client::bob(HERE);
    bob.greet(&mut world);
    assert_eq!(bob.code(&mut world, ALLOCATE, &[transport(17)]), 437);
}

/// RFC 8656 §7.2
#[test]
fn allocate_without_requested_transport_is_400() {
    assert_eq!(code(&[]), 400);
    for length in [0, 1, 2, 3, 5, 8] {
        assert_eq!(code(&[raw(attr::TRANSPORT, &vec![17; length])]), 400, "{length} bytes");
    }
}

/// RFC 8656 §7.2; 6 too, where `relay.tcp` is off
#[test]
fn every_transport_but_udp_is_442() {
    for protocol in (0..=255).filter(|&protocol| protocol != 17) {
        assert_eq!(code(&[transport(protocol)]), 442, "{protocol}");
    }
}

/// RFC 8656 §7.2
#[test]
fn dont_fragment_is_accepted_where_the_df_bit_can_be_set() {
    let mut world = World::with(|setup| setup.config.dont_fragment = true);
    let mut client = Client::at(HERE);
    let malformed = [transport(17), raw(attr::DONT_FRAGMENT, &[0; 4])];
    assert_eq!(client.code(&mut world, ALLOCATE, &malformed), 400);
    client.allocate_with(&mut world, &[raw(attr::DONT_FRAGMENT, b"")]);
}

/// RFC 8656 §7.2
#[test]
fn dont_fragment_is_420_where_the_df_bit_cannot_be_set() {
    let reply = ask(&[transport(17), raw(attr::DONT_FRAGMENT, b"")]);
    assert_eq!((reply.code(), reply.unknown()), (420, vec![attr::DONT_FRAGMENT]));
    assert_eq!(code(&[transport(17), raw(attr::DONT_FRAGMENT, &[0; 4])]), 420);
}

/// RFC 8656 §7.2
#[test]
fn reservation_token_with_even_port_or_a_family_is_400() {
    let token = raw(attr::TOKEN, &[1; 8]);
    let clashes = [raw(attr::EVEN_PORT, &[0]), family(1), family(2), raw(attr::AAF, &[2, 0, 0, 0])];
    for clash in clashes {
        assert_eq!(code(&[transport(17), token.clone(), clash.clone()]), 400, "{clash:?}");
    }
}

/// RFC 8656 §7.2
#[test]
fn unknown_reservation_token_is_508_and_a_malformed_one_400() {
    assert_eq!(code(&[transport(17), raw(attr::TOKEN, &[1; 8])]), 508);
    for length in [0, 4, 7, 9, 12] {
        assert_eq!(code(&[transport(17), raw(attr::TOKEN, &vec![1; length])]), 400);
    }
}

/// RFC 8656 §7.2
#[test]
fn both_address_family_attributes_are_400() {
    assert_eq!(code(&[transport(17), family(1), raw(attr::AAF, &[2, 0, 0, 0])]), 400);
    assert_eq!(code(&[transport(17), family(2), raw(attr::AAF, &[1, 0, 0, 0])]), 400);
}

/// RFC 8656 §7.2
#[test]
fn requested_address_family_decides_the_relayed_address() {
    for (byte, relay) in [(1, RELAY_V4), (2, RELAY_V6)] {
        let reply = ask(&[transport(17), family(byte)]);
        assert_eq!(reply.address(attr::XRA).ip(), ip(relay));
    }
}

/// RFC 8656 §7.2
#[test]
fn family_that_does_not_exist_is_440() {
    for byte in [0, 3, 4, 6, 255] {
        assert_eq!(code(&[transport(17), family(byte)]), 440, "{byte}");
    }
}

/// RFC 8656 §7.2
#[test]
fn family_that_the_server_does_not_relay_is_440() {
    for (only, present, absent) in [(RELAY_V4, 1, 2), (RELAY_V6, 2, 1)] {
        let mut world = World::with(|setup| setup.host.relay_addresses = vec![ip(only)]);
        let mut client = Client::at(HERE);
        assert_eq!(client.code(&mut world, ALLOCATE, &[transport(17), family(absent)]), 440);
        if present == 2 {
            assert_eq!(client.code(&mut world, ALLOCATE, &[transport(17)]), 440, "IPv4 is implied");
        }
        assert_eq!(client.code(&mut world, ALLOCATE, &[transport(17), family(present)]), 0);
    }
}

/// RFC 8656 §7.2
#[test]
fn even_port_with_reservation_and_an_additional_family_is_400() {
    let both = [transport(17), raw(attr::EVEN_PORT, &[0x80]), raw(attr::AAF, &[2, 0, 0, 0])];
    assert_eq!(code(&both), 400);
}

/// RFC 8656 §7.2
#[test]
fn even_port_without_reservation_is_an_even_port_and_no_token() {
    for _ in 0..20 {
        let reply = ask(&[transport(17), raw(attr::EVEN_PORT, &[0])]);
        assert_eq!((reply.code(), reply.count(attr::TOKEN)), (0, 0));
        assert_eq!(reply.address(attr::XRA).port() % 2, 0);
    }
}

/// RFC 8656 §18.7
#[test]
fn even_port_of_another_length_is_400() {
    for length in [0, 2, 4] {
        assert_eq!(code(&[transport(17), raw(attr::EVEN_PORT, &vec![0; length])]), 400);
    }
}

/// RFC 8656 §7.2: step (7) comes before step (8)
#[test]
fn unsupported_family_is_440_even_with_an_even_port_that_cannot_be_had() {
    let both = [transport(17), family(3), raw(attr::EVEN_PORT, &[0x80])];
    assert_eq!(code(&both), 440);
}

/// RFC 8656 §7.2
#[test]
fn additional_address_family_ipv4_is_400() {
    assert_eq!(code(&[transport(17), raw(attr::AAF, &[1, 0, 0, 0])]), 400);
}

/// RFC 8656 §7.2: a family that does not exist is not supported, but a value that is no family is
/// malformed
#[test]
fn requested_address_family_of_another_length_is_400() {
    for length in [0, 1, 2, 8] {
        assert_eq!(code(&[transport(17), raw(attr::RAF, &vec![1; length])]), 400, "{length}");
    }
}

/// RFC 8656 §7.2: counted for the user, wherever it comes from
#[test]
fn quota_is_486_for_the_user_and_not_for_the_address() {
    let mut world = World::with(|setup| setup.quota = 3);
    for host in 1..=3 {
        Client::at(&format!("198.51.100.{host}:4000")).allocate(&mut world);
    }
    for host in 4..=6 {
        let mut client = Client::at(&format!("198.51.100.{host}:4000"));
        assert_eq!(client.code(&mut world, ALLOCATE, &[transport(17)]), 486);
    }
    Client::bob("198.51.100.4:4000").allocate(&mut world);
}

#[test]
fn quota_recovers_when_vanished_clients_expire() {
    let mut world = World::with(|setup| setup.quota = 1);
    Client::at(HERE).allocate(&mut world);
    let mut second = Client::at("198.51.100.2:4000");
    world.pass_secs(599);
    assert_eq!(second.code(&mut world, ALLOCATE, &[transport(17)]), 486);
    world.pass_secs(1);
    second.allocate(&mut world);
}

/// RFC 8656 §7.2
#[test]
fn lifetime_is_between_default_and_maximum() {
    assert_eq!(ask(&[transport(17)]).lifetime(), 600);
    let asked = [(0, 600), (1, 600), (600, 600), (1200, 1200), (3600, 3600), (3601, 3600)];
    for (asked, granted) in asked.into_iter().chain([(86_400, 3600), (u32::MAX, 3600)]) {
        assert_eq!(ask(&[transport(17), wire::lifetime(asked)]).lifetime(), granted, "{asked}");
    }
}

#[test]
fn lifetime_of_wrong_length_is_400() {
    for length in [0, 2, 3, 5, 8] {
        assert_eq!(code(&[transport(17), raw(attr::LIFETIME, &vec![1; length])]), 400);
    }
}

/// RFC 8656 §7.2
#[test]
fn exhausted_ports_are_508_until_one_is_free() {
    let mut world = World::with(|setup| setup.host.relay_ports = 50_000..=50_009);
    let mut clients: Vec<Client> =
        (1000..1010).map(|port| Client::at(&format!("198.51.100.1:{port}"))).collect();
    for client in &mut clients {
        client.allocate(&mut world);
    }
    let mut late = Client::at("198.51.100.1:2000");
    assert_eq!(late.code(&mut world, ALLOCATE, &[transport(17)]), 508);
    clients[3].refresh(&mut world, 0);
    late.allocate(&mut world);
}

/// A failed bind leaves nothing behind.
#[test]
fn failed_bind_leaves_no_state() {
    for (failure, code) in [(AllocateError::NoCapacity, 508), (AllocateError::QuotaReached, 486)] {
        let mut world = World::new();
        world.failures.push_back(failure);
        let mut client = Client::at(HERE);
        assert_eq!(client.code(&mut world, ALLOCATE, &[transport(17)]), code);
        assert_eq!((world.server.allocations(), world.events.len()), (0, 0));
        client.allocate(&mut world);
    }
}

/// RFC 8656 §21.4
#[test]
fn allocate_from_teredo_or_6to4_is_403() {
    for source in ["[2001:0:53aa:64c::1]:4000", "[2002:c633:6401::1]:4000"] {
        let mut world = World::new();
        let mut client = Client::at(source);
        assert_eq!(client.code(&mut world, ALLOCATE, &[transport(17)]), 403, "{source}");
        assert_eq!(world.server.allocations(), 0);
    }
}

/// RFC 8656 §5 and §13: a client may be IPv6 where the relay is IPv4
#[test]
fn client_of_another_family_than_the_relay_is_served() {
    let mut world = World::new();
    let mut client = Client::at("[2a00:1450::1]:4000");
    let relay = client.allocate(&mut world);
    assert_eq!(relay.ip(), ip(RELAY_V4));
    assert_eq!(client.permit(&mut world, &["8.8.8.8:1"]), 0);
}

/// The driver may take its time to bind, and the client repeat itself meanwhile.
#[test]
fn allocates_that_cross_while_binding_make_one_allocation() {
    let mut world = World::new();
    let mut client = Client::at(HERE);
    client.greet(&mut world);
    let first = client.request(ALLOCATE, &[transport(17)]);
    let other = client.request(ALLOCATE, &[transport(17)]);
    let codes = world.deliver_slowly(client.five, &[&first, &first, &other]);
    assert_eq!(codes, [0, 0, 437]);
    assert_eq!(world.server.allocations(), 1);
    assert!(client.refresh(&mut world, 0).is_success());
    assert_eq!(world.server.allocations(), 0);
    assert_eq!(world.server.poll_timeout(), None);
}

/// Whoever drops a pending allocation leaves nothing behind.
#[test]
fn dropped_pending_allocation_leaves_no_state() {
    let mut world = World::new();
    let mut client = Client::at(HERE);
    client.greet(&mut world);
    let request = client.request(ALLOCATE, &[transport(17)]);
    let mut reply = Vec::new();
    let verdict = world.server.handle_client(client.five, &request, world.now, &mut reply);
    assert!(matches!(verdict, Verdict::Bind(_)) && reply.is_empty());
    drop(verdict);
    assert_eq!(world.server.allocations(), 0);
    assert!(world.deliver(client.five, &request).reply().is_success());
}
