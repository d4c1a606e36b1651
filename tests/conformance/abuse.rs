//! Bad input: raw bytes, then attributes, classes and methods, sources, and at last state.

use hairpin::turn::{DropReason, FiveTuple};
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

use crate::wire::{
    self, ALLOCATE, BINDING, CHANNEL_BIND, CONNECT, CONNECTION_BIND, CREATE_PERMISSION, Msg,
    REFRESH, attr, channel, peer, raw, transport,
};
use crate::world::{Client, Delivery, Outcome, PEER, World, allocated, five_tuple};

const HERE: &str = "198.51.100.1:4000";

/// A fresh server, one packet, and then a Binding to see that it still serves.
fn deliver(packet: &[u8]) -> Outcome {
    let mut world = World::new();
    let outcome = world.deliver(five_tuple(HERE), packet);
    Client::at(HERE).is_served(&mut world);
    assert_eq!((world.server.allocations(), world.server.poll_timeout()), (0, None));
    outcome
}

#[track_caller]
fn is_silent(packet: &[u8]) {
    deliver(packet).dropped();
}

#[test]
fn empty_datagram_is_dropped() {
    is_silent(b"");
}

/// RFC 7983 §7: what the first byte says, and no more
#[test]
fn short_datagrams_of_every_first_byte_are_dropped() {
    for first in 0..=255 {
        for length in [1, 2, 3, 4, 8, 19, 20, 21] {
            let mut packet = vec![0; length];
            packet[0] = first;
            is_silent(&packet);
        }
    }
}

#[test]
fn two_bytes_of_a_channel_are_dropped() {
    is_silent(b"\x40\x00");
}

#[test]
fn every_prefix_of_a_message_is_dropped() {
    let whole = Msg::new(ALLOCATE, [1; 12]).add(&[transport(17)]).fingerprint().finish();
    for length in 0..whole.len() {
        is_silent(&whole[..length]);
    }
}

#[test]
fn length_field_that_lies_is_dropped() {
    for length in [1_u16, 2, 3, 4, 8, 0x7FFC, 0xFFFC, 0xFFFF] {
        let mut packet = Msg::new(BINDING, [1; 12]).finish();
        packet[2..4].copy_from_slice(&length.to_be_bytes());
        is_silent(&packet);
    }
}

#[test]
fn largest_datagrams_are_handled() {
    is_silent(&vec![0; 65_507]);
    let data = vec![7; 65_400];
    let reply = deliver(&Msg::new(BINDING, [1; 12]).attr(attr::DATA, &data).finish()).reply();
    assert!(reply.is_success(), "DATA is known, if unexpected");
    let reply = deliver(&Msg::new(BINDING, [1; 12]).attr(0x7F00, &data).finish()).reply();
    assert_eq!(reply.code(), 420);
}

/// TLS, DTLS, HTTP, SSH, QUIC and RTP
#[test]
fn other_protocols_are_dropped() {
    let hello = b"\x16\x03\x01\x00\xc4\x01\x00\x00\xc0\x03\x03";
    is_silent(hello);
    is_silent(b"\x16\xfe\xff\x00\x00\x00\x00\x00\x00\x00\x00\x00\x30");
    for kind in [0x14, 0x15, 0x17, 0x18, 0x19] {
        is_silent(&[&[kind], &b"\xfe\xfd\0\0\0\0\0\0\0\0\0\x04abcd"[..]].concat());
    }
    is_silent(b"GET / HTTP/1.1\r\n\r\n");
    is_silent(b"SSH-2.0-x\r\n");
    is_silent(b"\xc3\x00\x00\x00\x01\x08quicquic");
    is_silent(b"\x80\x60\x00\x01rtp packet..");
}

#[test]
fn random_datagrams_leave_no_state() {
    let mut rng = StdRng::seed_from_u64(15);
    let mut world = World::new();
    for _ in 0..50_000 {
        let mut packet = vec![0; rng.random_range(0..200)];
        rng.fill_bytes(&mut packet);
        if rng.random_bool(0.5) && packet.len() >= 20 {
            packet[0] &= 0x03;
            packet[4..8].copy_from_slice(&wire::COOKIE);
            packet.truncate(packet.len() / 4 * 4);
            let length = (packet.len() - 20) as u16;
            packet[2..4].copy_from_slice(&length.to_be_bytes());
        }
        let _ = world.deliver(five_tuple(HERE), &packet);
    }
    assert_eq!((world.server.allocations(), world.events.len()), (0, 0));
    Client::at(HERE).is_served(&mut world);
}

/// On a Binding and on an authenticated Refresh
#[test]
fn attribute_past_the_end_is_dropped() {
    for length in [5_u16, 8, 0x00FF, 0xFFFC, 0xFFFF] {
        let [high, low] = length.to_be_bytes();
        let overrun = [0x80, 0x22, high, low, 1, 2, 3, 4];
        is_silent(&Msg::new(BINDING, [1; 12]).raw(&overrun).finish());
        let (mut world, mut client, _) = allocated();
        let message = Msg::new(REFRESH, client.id()).add(&client.credentials());
        let packet = message.mi(&client.key()).raw(&overrun).finish();
        assert_eq!(world.deliver(client.five, &packet).dropped(), DropReason::Malformed);
    }
}

#[test]
fn last_attribute_without_padding_is_dropped() {
    for length in 1..4 {
        let cut = [&[0x80, 0x22, 0, length][..], &vec![b'x'; usize::from(length)]].concat();
        is_silent(&Msg::new(BINDING, [1; 12]).raw(&cut).finish());
    }
}

#[test]
fn thousands_of_attributes_are_handled() {
    let optional = vec![[0x80, 0x30, 0, 0]; 16_000].concat();
    assert!(deliver(&Msg::new(BINDING, [1; 12]).raw(&optional).finish()).reply().is_success());
    let required = vec![[0x7F, 0x30, 0, 0]; 16_000].concat();
    let reply = deliver(&Msg::new(BINDING, [1; 12]).raw(&required).finish()).reply();
    assert_eq!((reply.code(), reply.unknown()), (420, vec![0x7F30]));
    let integrities = vec![[0, 8, 0, 0]; 16_000].concat();
    let reply = deliver(&Msg::new(ALLOCATE, [1; 12]).raw(&integrities).finish()).reply();
    assert_eq!(reply.code(), 400);
}

#[test]
fn first_of_a_hundred_usernames_counts() {
    let mut world = World::new();
    let mut client = Client::at(HERE);
    client.greet(&mut world);
    let base = Msg::new(ALLOCATE, client.id()).add(&[transport(17)]).add(&client.credentials());
    let base = (0..100).fold(base, |msg, n| msg.attr(attr::USERNAME, format!("u{n}").as_bytes()));
    let packet = client.sign(base);
    assert!(world.deliver(client.five, &packet).reply().is_success());
    assert!(client.refresh(&mut world, 600).is_success(), "it is alice's");
}

/// Those that no other module has, on each authenticated method but Allocate
#[test]
fn malformed_values_are_400_on_each_method() {
    let (mut world, mut client, _) = allocated();
    let bad = [
        (CHANNEL_BIND, vec![raw(attr::CHANNEL_NUMBER, &[0x40, 0]), peer(PEER)]),
        (CHANNEL_BIND, vec![raw(attr::CHANNEL_NUMBER, &[0x40; 8]), peer(PEER)]),
        (CHANNEL_BIND, vec![channel(0x4000), raw(attr::XPA, &[0; 21])]),
        (CREATE_PERMISSION, vec![raw(attr::XPA, &[])]),
        (REFRESH, vec![raw(attr::LIFETIME, &[0; 2])]),
        (REFRESH, vec![raw(attr::LIFETIME, &[0; 8])]),
        (REFRESH, vec![raw(attr::RAF, &[1])]),
    ];
    for (method, attributes) in bad {
        assert_eq!(client.code(&mut world, method, &attributes), 400, "{attributes:?}");
    }
    assert_eq!(world.server.allocations(), 1);
}

#[test]
fn error_code_in_a_request_is_ignored() {
    let (mut world, mut client, _) = allocated();
    let error = raw(attr::ERROR_CODE, &[0, 0, 4, 1]);
    assert_eq!(client.code(&mut world, REFRESH, &[error]), 0);
}

/// RFC 8489 §14.7: FINGERPRINT is the last, and of the right value
#[test]
fn misplaced_or_wrong_fingerprint_is_dropped() {
    let (mut world, mut client, _) = allocated();
    let base = Msg::new(REFRESH, client.id()).add(&client.credentials()).fingerprint();
    let packet = base.mi(&client.key()).finish();
    assert_eq!(world.deliver(client.five, &packet).dropped(), DropReason::Malformed);
    let base = Msg::new(REFRESH, client.id()).add(&client.credentials());
    let packet = base.mi(&client.key()).attr(attr::FINGERPRINT, &[0; 4]).finish();
    assert_eq!(world.deliver(client.five, &packet).dropped(), DropReason::Malformed);
}

/// RFC 8489 §14.5, for CHANNEL-NUMBER; LIFETIME and XOR-PEER-ADDRESS are in `stun`
#[test]
fn channel_number_behind_the_integrity_is_ignored() {
    let (mut world, mut client, _) = allocated();
    let base = Msg::new(CHANNEL_BIND, client.id()).add(&[peer(PEER)]).add(&client.credentials());
    let packet = base.mi(&client.key()).add(&[channel(0x4000)]).finish();
    assert_eq!(world.deliver(client.five, &packet).reply().code(), 400);
}

/// All classes and methods, without authentication
#[test]
fn only_requests_of_known_methods_are_answered() {
    let mut world = World::new();
    for method in 0..=0x0FF_u16 {
        for class in [0x0000, 0x0010, 0x0100, 0x0110] {
            let kind = (method & 0x70) << 1 | method & 0x0F | (method & 0x80) << 2 | class;
            let packet = Msg::new(kind, [1; 12]).finish();
            let outcome = world.deliver(five_tuple(HERE), &packet);
            match kind {
                BINDING => assert!(outcome.reply().is_success()),
                ALLOCATE | REFRESH | CREATE_PERMISSION | CHANNEL_BIND | CONNECT
                | CONNECTION_BIND => {
                    assert_eq!(outcome.reply().code(), 401);
                }
                _ => drop(outcome.dropped()),
            }
        }
    }
    assert_eq!(world.server.allocations(), 0);
}

/// With right credentials and an allocation, too
#[test]
fn wrong_classes_are_dropped_even_when_signed() {
    let (mut world, mut client, _) = allocated();
    for kind in [0x0013, 0x0014, 0x0018, 0x0019, 0x0006, 0x0007, 0x0017, 0x001C] {
        let packet = client.request(kind, &[wire::lifetime(0), peer(PEER), channel(0x4000)]);
        let dropped = world.deliver(client.five, &packet).dropped();
        assert!(
            matches!(dropped, DropReason::ClassNotAllowed | DropReason::UnknownMethod),
            "{kind:#06x}: {dropped:?}"
        );
    }
    assert_eq!(world.server.allocations(), 1);
    assert_eq!(client.send(&mut world, PEER, b"x").dropped(), DropReason::NoPermission);
}

/// Our own answers, sent back to us: no loop
#[test]
fn answers_sent_back_are_dropped() {
    let mut world = World::new();
    for kind in [BINDING, ALLOCATE] {
        let request = Msg::new(kind, [1; 12]).finish();
        let reply = world.deliver(five_tuple(HERE), &request).reply();
        world.deliver(five_tuple(HERE), &reply.bytes).dropped();
    }
}

#[test]
fn sources_that_must_not_be_answered_are_dropped() {
    let mut world = World::new();
    let sources = [
        "203.0.113.5:3478",
        "203.0.113.5:8080",
        "198.51.100.1:0",
        "198.51.100.1:7",
        "198.51.100.1:19",
        "198.51.100.1:53",
        "0.0.0.0:4000",
        "255.255.255.255:4000",
        "224.0.0.1:4000",
        "239.1.2.3:4000",
        "[::]:4000",
        "[ff02::1]:4000",
    ];
    for source in sources {
        let five = FiveTuple { client: source.parse().unwrap(), ..five_tuple(HERE) };
        for kind in [BINDING, ALLOCATE] {
            let packet = Msg::new(kind, [1; 12]).finish();
            let dropped = world.deliver(five, &packet).dropped();
            assert_eq!(dropped, DropReason::SourceForbidden, "{source}");
        }
    }
}

/// Who is asked in the name of a whole network would have all of it answered.
#[test]
fn broadcast_addresses_of_our_networks_are_no_clients() {
    let mut world = World::with(|setup| {
        setup.host.broadcasts = vec!["203.0.113.255".parse().unwrap()];
    });
    for port in [1024, 4000, 65_535] {
        let client = std::net::SocketAddr::from(([203, 0, 113, 255], port));
        let five = FiveTuple { client, ..five_tuple(HERE) };
        for kind in [BINDING, ALLOCATE] {
            let packet = Msg::new(kind, [1; 12]).finish();
            assert_eq!(world.deliver(five, &packet).dropped(), DropReason::SourceForbidden);
        }
    }
    Client::at("203.0.113.254:4000").is_served(&mut world);
}

/// The source may be one of our own relayed addresses.
#[test]
fn relayed_address_as_a_client_is_dropped() {
    let (mut world, client, relay) = allocated();
    let five = FiveTuple { client: relay, ..client.five };
    let packet = Msg::new(ALLOCATE, [1; 12]).finish();
    assert_eq!(world.deliver(five, &packet).dropped(), DropReason::SourceForbidden);
}

#[test]
fn a_thousand_retransmissions_make_one_allocation() {
    let mut world = World::new();
    let mut client = Client::at(HERE);
    client.greet(&mut world);
    let request = client.request(ALLOCATE, &[transport(17)]);
    let first = world.deliver(client.five, &request).reply();
    for _ in 0..1000 {
        let again = world.deliver(client.five, &request).reply();
        assert_eq!(again.address(attr::XRA), first.address(attr::XRA));
    }
    assert_eq!((world.server.allocations(), world.relay_count()), (1, 1));
}

/// What arrives after the end reaches nobody, the port's next owner least of all
#[test]
fn next_owner_of_a_port_gets_nothing_of_the_old_one() {
    let mut world = World::with(|setup| setup.host.relay_ports = 50_000..=50_000);
    let mut alice = Client::at(HERE);
    let relay = alice.allocate(&mut world);
    alice.bind(&mut world, 0x4000, PEER);
    let old = world.server.relayed_at(relay).unwrap();
    alice.refresh(&mut world, 0);
    let mut bob = Client::bob("198.51.100.1:5000");
    assert_eq!(bob.allocate(&mut world), relay, "the same port");
    let delivery = world.peer_sends(relay, PEER, b"late");
    assert_eq!(delivery, Delivery::Dropped(DropReason::NoPermission));
    let verdict = world.server.handle_peer(old, PEER.parse().unwrap(), b"late", world.now);
    assert!(matches!(verdict, hairpin::turn::Verdict::Drop(DropReason::NoAllocation)));
    let dropped = alice.channel_data(&mut world, 0x4000, b"late").dropped();
    assert_eq!(dropped, DropReason::NoAllocation);
}

#[test]
fn one_bad_peer_of_two_hundred_is_400_and_none_is_installed() {
    let (mut world, mut client, _) = allocated();
    let mut peers: Vec<_> = (1..=200).map(|host| peer(&format!("8.8.8.{host}:1"))).collect();
    peers[150] = raw(attr::XPA, &[0, 1, 2]);
    assert_eq!(client.code(&mut world, CREATE_PERMISSION, &peers), 400);
    for host in 1..=200 {
        let to = format!("8.8.8.{host}:1");
        assert_eq!(client.send(&mut world, &to, b"x").dropped(), DropReason::NoPermission);
    }
}

/// Spoofed sources, each with its own nonce, leave nothing behind that shows
#[test]
fn many_sources_open_no_allocation_and_no_timer() {
    let mut world = World::new();
    for host in 0..20_000_u32 {
        let source = std::net::Ipv4Addr::from_bits(0x0901_0000 + host);
        let five = FiveTuple { client: (source, 4000).into(), ..five_tuple(HERE) };
        let _ = world.deliver(five, &Msg::new(ALLOCATE, [1; 12]).finish());
        let forged = Msg::new(ALLOCATE, [1; 12]).attr(attr::USERNAME, b"alice").mi(b"x");
        let _ = world.deliver(five, &forged.finish());
    }
    assert_eq!((world.server.allocations(), world.server.poll_timeout()), (0, None));
    assert!(world.events.is_empty());
}

/// The clock may stand at 1970, in 2106 or at the end of time
#[test]
fn odd_clocks_do_not_panic() {
    for unix_secs in [0, 1, u64::from(u32::MAX) - 1, u64::from(u32::MAX) + 1, u64::MAX] {
        let mut world = World::new();
        world.now.unix_secs = unix_secs;
        let mut client = Client::at(HERE);
        client.allocate(&mut world);
        assert_eq!(client.permit(&mut world, &[PEER]), 0);
    }
}

#[test]
fn steps_of_the_wall_clock_move_no_lifetime() {
    for step in [-3600_i64, 3600, 86_400] {
        let (mut world, mut client, _) = allocated();
        client.permit(&mut world, &[PEER]);
        world.now.unix_secs = world.now.unix_secs.saturating_add_signed(step);
        client.send(&mut world, PEER, b"x").relayed();
        world.server.handle_timeout(world.now);
        assert_eq!(world.server.allocations(), 1);
        assert!(client.refresh(&mut world, 600).is_success(), "after a 438 at most");
    }
}
