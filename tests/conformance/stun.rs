//! RFC 8489, as far as it concerns UDP.

use hairpin::stun::Code;
use hairpin::turn::stats::RequestMethod;
use hairpin::turn::{DropReason, Transport, Verdict};

use crate::wire::{self, ALLOCATE, BINDING, Msg, REFRESH, attr, peer, raw};
use crate::world::{Client, Mode, Outcome, PEER, World, allocated, five_tuple};

const ID: wire::Txid = *b"0123456789ab";

fn binding() -> Msg {
    Msg::new(BINDING, ID)
}

fn deliver(packet: &[u8]) -> Outcome {
    let mut world = World::new();
    let outcome = world.deliver(five_tuple("198.51.100.1:4000"), packet);
    Client::at("198.51.100.1:4000").is_served(&mut world);
    outcome
}

#[track_caller]
fn is_silent(packet: &[u8]) {
    deliver(packet).dropped();
}

/// RFC 8489 §5
#[test]
fn first_two_bits_of_a_message_are_zero() {
    for bits in [0x40, 0x80, 0xC0] {
        let mut packet = binding().finish();
        packet[0] |= bits;
        is_silent(&packet);
    }
}

/// RFC 8489 §5, RFC 3489
#[test]
fn wrong_magic_cookie_is_silent() {
    for bit in 0..32 {
        let mut packet = binding().finish();
        packet[4 + bit / 8] ^= 1 << (bit % 8);
        is_silent(&packet);
    }
}

/// RFC 3489 clients have 16 random bytes there; what they ask in TURN drafts is not known here.
#[test]
fn classic_allocate_is_silent() {
    let (mut world, mut client, _) = allocated();
    for kind in [ALLOCATE, REFRESH] {
        let mut packet = Msg::new(kind, ID).add(&[wire::transport(17)]).finish();
        packet[4..8].copy_from_slice(b"\x9e\x37\x79\xb9");
        is_silent(&packet);
        let mut signed = client.request(kind, &[wire::transport(17), wire::lifetime(0)]);
        signed[4..8].copy_from_slice(b"\x9e\x37\x79\xb9");
        world.deliver(client.five, &signed).dropped();
    }
    assert_eq!(world.server.allocations(), 1);
}

/// RFC 8489 §11: told so, as the client of a session has shown where it is
#[test]
fn request_without_the_cookie_within_dtls_is_500() {
    let mut world = World::new();
    let mut five = five_tuple("198.51.100.1:4000");
    five.transport = Transport::Dtls;
    for kind in [BINDING, ALLOCATE, REFRESH, 0x0002, 0x02AC] {
        let mut packet = Msg::new(kind, ID).add(&[wire::transport(17)]).finish();
        packet[4..8].copy_from_slice(b"\x9e\x37\x79\xb9");
        let mut reply = Vec::new();
        let verdict = world.server.handle_client(five, &packet, world.now, &mut reply);
        assert!(matches!(verdict, Verdict::Reply), "{kind:#06x}: {verdict:?}");
        assert_eq!(reply[..2], (kind | 0x0110).to_be_bytes());
        assert_eq!(reply[4..20], packet[4..20], "all 128 bits of the transaction id");
        assert_eq!(reply[20..], *b"\x00\x09\x00\x04\x00\x00\x05\x00");
        // An indication, a response, and what is cut.
        for class in [0x0010, 0x0100, 0x0110] {
            packet[..2].copy_from_slice(&(kind | class).to_be_bytes());
            assert_eq!(world.deliver(five, &packet).dropped(), DropReason::Malformed);
        }
        packet[..2].copy_from_slice(&kind.to_be_bytes());
        packet.pop();
        assert_eq!(world.deliver(five, &packet).dropped(), DropReason::Malformed);
    }
    let answers = world.server.stats();
    let counted =
        answers.answered(RequestMethod::Binding, Transport::Dtls, Some(Code::ServerError));
    assert_eq!(counted, 1);
}

/// RFC 8489 §5
#[test]
fn length_that_is_not_a_multiple_of_four_is_silent() {
    for length in [1_u8, 2, 3, 5, 6, 7] {
        let mut packet = binding().finish();
        packet[3] = length;
        packet.extend(vec![0; usize::from(length)]);
        is_silent(&packet);
    }
}

/// RFC 8489 §5
#[test]
fn transaction_id_is_echoed() {
    let mut world = World::new();
    for seed in 0..1000_u64 {
        let mut id = [0; 12];
        id[..8].copy_from_slice(&seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes());
        let packet = Msg::new(BINDING, id).finish();
        let reply = world.deliver(five_tuple("198.51.100.1:4000"), &packet).reply();
        assert_eq!(reply.id, id);
    }
}

/// RFC 8489 §5
#[test]
fn length_must_fill_the_datagram_exactly() {
    let mut longer = binding().finish();
    longer.extend([0; 4]);
    is_silent(&longer);
    let mut shorter = binding().finish();
    shorter[3] = 8;
    is_silent(&shorter);
}

/// RFC 8489 §6.1
#[test]
fn largest_responses_stay_below_548_bytes() {
    let realm = "r".repeat(127);
    let mut world = World::with(|setup| {
        setup.config.auth.realm = realm.clone();
        setup.config.software = Some("s".repeat(128));
    });
    let mut client = Client::at("198.51.100.1:4000");
    client.fingerprint = true;
    client.greet(&mut world);
    client.allocate(&mut world);
    let unknown: Vec<_> = (0x7F00..0x7F40).map(|kind| raw(kind, b"")).collect();
    assert_eq!(client.code(&mut world, REFRESH, &unknown), 420);
    client.is_served(&mut world);
}

/// RFC 8489 §6.1, for challenges: the longest realm of a configuration, and all that can go along
#[test]
fn largest_challenges_stay_below_548_bytes() {
    for realm in ["r".repeat(127), "é".repeat(63)] {
        let mut world = World::with(|setup| {
            setup.config.auth.realm = realm.clone();
            setup.config.software = Some("s".repeat(128));
        });
        let mut client = Client::at("198.51.100.1:4000").mode(Mode::Sha256);
        client.fingerprint = true;
        client.greet(&mut world);
        world.pass_secs(3600);
        let stale = client.request(REFRESH, &[]);
        let bare = Msg::new(ALLOCATE, ID).fingerprint().finish();
        let fresh = World::with(|setup| setup.config.auth.realm = realm.clone());
        for (mut world, packet, code) in [(fresh, bare, 401), (world, stale, 438)] {
            let reply = world.deliver(client.five, &packet).reply();
            assert_eq!((reply.code(), reply.text(attr::REALM)), (code, realm.clone()));
            assert!(reply.has(attr::FINGERPRINT) && reply.has(attr::PAS));
            assert!(reply.bytes.len() < 548, "{} bytes", reply.bytes.len());
        }
    }
}

/// RFC 8489 §6.3
#[test]
fn class_that_the_method_does_not_have_is_silent() {
    for kind in [0x0013, 0x0014, 0x0018, 0x0019, 0x0006, 0x0007, 0x0017, 0x001C, 0x000C] {
        is_silent(&Msg::new(kind, ID).add(&[wire::transport(17)]).finish());
    }
}

/// RFC 8489 §6.3
#[test]
fn responses_are_silent() {
    for kind in [0x0101, 0x0111, 0x0103, 0x0113, 0x0104, 0x0118, 0x0109] {
        is_silent(&Msg::new(kind, ID).finish());
    }
}

/// RFC 8489 §6.3
#[test]
fn unknown_method_is_silent() {
    for method in [0x0000, 0x0002, 0x0005, 0x000D, 0x00EF, 0x02EF] {
        assert_eq!(deliver(&Msg::new(method, ID).finish()).dropped(), DropReason::UnknownMethod);
    }
    assert_eq!(deliver(&Msg::new(0x3EEF, ID).finish()).dropped(), DropReason::Demux);
}

/// RFC 8489 §6.3
#[test]
fn unknown_comprehension_optional_attribute_is_ignored() {
    for kind in [0xFFFE, 0x8000, 0x8030, 0xC057, 0x802F] {
        assert!(deliver(&binding().attr(kind, b"abcd").finish()).reply().is_success());
    }
}

/// RFC 8489 §6.3
#[test]
fn known_but_unexpected_attributes_are_ignored() {
    let packet = binding()
        .attr(attr::PRIORITY, &[0, 0, 1, 0])
        .attr(attr::USE_CANDIDATE, b"")
        .attr(attr::ICE_CONTROLLED, &[1; 8])
        .attr(attr::USERNAME, b"a:b")
        .attr(attr::MAPPED_ADDRESS, &[0, 1, 0, 80, 1, 2, 3, 4])
        .attr(attr::ERROR_CODE, &[0, 0, 4, 0])
        .mi(b"whatever")
        .finish();
    assert!(deliver(&packet).reply().is_success());
}

/// RFC 8489 §6.3.1
#[test]
fn unknown_comprehension_required_attributes_are_420_and_listed() {
    let packet = binding().attr(0x7F00, b"abcde").attr(0xFFFE, b"x").attr(0x7F02, b"").finish();
    let reply = deliver(&packet).reply();
    assert_eq!(reply.code(), 420);
    assert_eq!(reply.unknown(), [0x7F00, 0x7F02]);
}

/// RFC 8489 §6.3.1, RFC 5766: reserved ones, those of RFC 3489, RFC 5780 and RFC 7635
#[test]
fn attributes_of_what_is_not_offered_are_420() {
    for kind in [
        0x0002, 0x0003, 0x0004, 0x0005, 0x0007, 0x000B, 0x0010, 0x0021, 0x0026, 0x0027, 0x001A,
        0x001B,
    ] {
        let reply = deliver(&binding().attr(kind, &[0; 4]).finish()).reply();
        assert_eq!((reply.code(), reply.unknown()), (420, vec![kind]), "{kind:#06x}");
    }
}

/// RFC 5766 had BANDWIDTH and TIMER-VAL in drafts; they stayed reserved, and required.
#[test]
fn reserved_attributes_of_old_drafts_are_420_in_an_allocate() {
    for kind in [0x0010, 0x0021] {
        let mut world = World::new();
        let mut client = Client::at("198.51.100.1:4000");
        let reply = client.ask(&mut world, ALLOCATE, &[wire::transport(17), raw(kind, &[0; 4])]);
        assert_eq!((reply.code(), reply.unknown()), (420, vec![kind]), "{kind:#06x}");
        assert_eq!(world.server.allocations(), 0);
        client.allocate(&mut world);
    }
}

/// RFC 8489 §6.3.1
#[test]
fn list_of_unknown_attributes_is_capped() {
    let many = (0..300).fold(binding(), |msg, n| msg.attr(0x7000 + n, b""));
    let request = many.finish();
    let reply = deliver(&request).reply();
    assert_eq!(reply.code(), 420);
    assert!(reply.bytes.len() <= request.len());
    assert_eq!(reply.unknown().len(), 16);
}

/// RFC 8489 §6.3.1
#[test]
fn many_copies_of_one_unknown_attribute_do_not_hide_another() {
    let copies = (0..16).fold(binding(), |msg, _| msg.attr(0x7F00, b""));
    let request = copies.attr(0x7F02, b"").attr(0x7F00, b"").finish();
    assert_eq!(deliver(&request).reply().unknown(), [0x7F00, 0x7F02]);
}

/// RFC 8489 §6.3.1
#[test]
fn authentication_comes_before_unknown_attributes() {
    let bare = Msg::new(ALLOCATE, ID).attr(0x7F00, b"").finish();
    assert_eq!(deliver(&bare).reply().code(), 401);
    let (mut world, mut client, _) = allocated();
    let reply = client.ask(&mut world, REFRESH, &[raw(0x7F00, b"")]);
    assert_eq!((reply.code(), reply.has(attr::MI)), (420, true));
}

/// RFC 8489 §6.3.1
#[test]
fn retransmitted_requests_get_the_same_answer() {
    let mut world = World::new();
    let mut client = Client::at("198.51.100.1:4000");
    client.greet(&mut world);
    let requests = [
        client.request(ALLOCATE, &[wire::transport(17)]),
        client.request(wire::CREATE_PERMISSION, &[peer(PEER)]),
        client.request(wire::CHANNEL_BIND, &[wire::channel(0x4000), peer(PEER)]),
        client.request(REFRESH, &[wire::lifetime(700)]),
    ];
    for request in requests {
        let first = world.deliver(client.five, &request).reply();
        assert!(first.is_success());
        for _ in 0..4 {
            let again = world.deliver(client.five, &request).reply();
            assert_eq!(again.bytes, first.bytes);
        }
    }
    assert_eq!(world.server.stats().allocations_opened, 1);
}

/// RFC 8489 §6.3.1: LIFETIME counts down, the rest stays
#[test]
fn late_retransmission_of_allocate_gets_the_same_relayed_address() {
    let mut world = World::new();
    let mut client = Client::at("198.51.100.1:4000");
    client.greet(&mut world);
    let request = client.request(ALLOCATE, &[wire::transport(17)]);
    let first = world.deliver(client.five, &request).reply();
    world.pass_secs(30);
    let again = world.deliver(client.five, &request).reply();
    assert_eq!(again.address(attr::XRA), first.address(attr::XRA));
    assert_eq!(again.lifetime(), 570);
    world.pass(std::time::Duration::from_millis(400));
    let again = world.deliver(client.five, &request).reply();
    assert_eq!(again.lifetime(), 570, "a started second counts");
}

/// RFC 8489 §6.3.1.1
#[test]
fn binding_success_carries_the_source_address() {
    let mut world = World::new();
    for address in ["198.51.100.1:4000", "[2001:db8::7]:65535", "1.2.3.4:1"] {
        Client::at(address).is_served(&mut world);
    }
}

/// RFC 8489 §6.3.1.1
#[test]
fn software_is_sent_only_where_configured() {
    assert!(!deliver(&binding().finish()).reply().has(attr::SOFTWARE));
    let mut world = World::with(|setup| setup.config.software = Some("hairpin".into()));
    let reply = world.deliver(five_tuple("198.51.100.1:4000"), &binding().finish()).reply();
    assert_eq!(reply.text(attr::SOFTWARE), "hairpin");
    let bare = Msg::new(ALLOCATE, ID).finish();
    let challenge = world.deliver(five_tuple("198.51.100.1:4000"), &bare).reply();
    assert!(!challenge.has(attr::SOFTWARE));
    let mut client = Client::at("198.51.100.1:4000");
    for (kind, attribute) in [(ALLOCATE, wire::transport(17)), (REFRESH, wire::lifetime(600))] {
        let reply = client.ask(&mut world, kind, &[attribute]);
        assert_eq!((reply.code(), &reply.text(attr::SOFTWARE)[..]), (0, "hairpin"));
        assert!(reply.verifies(attr::MI, &client.key()), "in front of the integrity");
    }
}

/// RFC 8489 §6.3.2
#[test]
fn indications_are_not_answered() {
    is_silent(&Msg::new(0x0011, ID).finish());
    is_silent(&Msg::new(0x0011, ID).attr(0x7F00, b"").finish());
}

/// RFC 8489 §7
#[test]
fn fingerprint_is_not_required_but_must_be_right() {
    assert!(!deliver(&binding().finish()).reply().has(attr::FINGERPRINT));
    let right = binding().fingerprint().finish();
    assert!(deliver(&right).reply().has(attr::FINGERPRINT));
    for bit in 0..32 {
        let mut wrong = right.clone();
        let at = wrong.len() - 4 + bit / 8;
        wrong[at] ^= 1 << (bit % 8);
        is_silent(&wrong);
    }
    is_silent(&binding().attr(attr::FINGERPRINT, &[0; 3]).finish());
    is_silent(&binding().attr(attr::FINGERPRINT, &[0; 8]).finish());
}

/// RFC 8489 §14.7
#[test]
fn fingerprint_that_is_not_last_is_silent() {
    is_silent(&binding().fingerprint().attr(0x8022, b"").finish());
    is_silent(&binding().fingerprint().fingerprint().finish());
}

/// RFC 8489 §9
#[test]
fn lifetime_behind_integrity_is_ignored() {
    let (mut world, mut client, _) = allocated();
    let message = Msg::new(REFRESH, client.id())
        .add(&[wire::lifetime(700)])
        .add(&client.credentials())
        .mi(&client.key())
        .add(&[wire::lifetime(0)]);
    for packet in [message.clone().finish(), message.fingerprint().finish()] {
        assert_eq!(world.deliver(client.five, &packet).reply().lifetime(), 700);
    }
    assert_eq!(world.server.allocations(), 1);
}

/// RFC 8489 §9
#[test]
fn peer_behind_integrity_gets_no_permission() {
    let (mut world, mut client, _) = allocated();
    let packet = Msg::new(wire::CREATE_PERMISSION, client.id())
        .add(&[peer(PEER)])
        .add(&client.credentials())
        .mi(&client.key())
        .add(&[peer("9.9.9.9:1")])
        .finish();
    assert!(world.deliver(client.five, &packet).reply().is_success());
    assert_eq!(client.send(&mut world, "9.9.9.9:1", b"x").dropped(), DropReason::NoPermission);
    client.send(&mut world, PEER, b"x").relayed();
}

/// RFC 8489 §9: between the two integrities nothing counts either
#[test]
fn attributes_between_the_integrities_are_ignored() {
    let (mut world, mut client, _) = allocated();
    let packet = Msg::new(REFRESH, client.id())
        .add(&[wire::lifetime(700)])
        .add(&client.credentials())
        .mi(&client.key())
        .add(&[wire::lifetime(0)])
        .mi2(&client.key())
        .finish();
    assert_eq!(world.deliver(client.five, &packet).reply().lifetime(), 700);
}

/// RFC 8489 §12
#[test]
fn binding_needs_no_credentials_and_asks_for_none() {
    let packet = binding().attr(attr::USERNAME, b"nobody").mi(b"no key").finish();
    assert!(deliver(&packet).reply().is_success());
}

/// RFC 8489 §14: the harness checks the other half, that ours is zero
#[test]
fn padding_is_ignored_on_receipt() {
    let packet = binding().attr_padded(attr::SOFTWARE, b"abcde", 0x20).fingerprint().finish();
    assert!(deliver(&packet).reply().is_success());
    let mut world = World::new();
    let mut client = Client::named("198.51.100.1:4000", "alice", "secret1");
    client.greet(&mut world);
    let message = Msg::new(ALLOCATE, client.id())
        .add(&[wire::transport(17)])
        .attr_padded(attr::USERNAME, b"alice", 0x20)
        .attr_padded(attr::REALM, b"example.org", 0xFF)
        .attr_padded(attr::NONCE, client.nonce.as_bytes(), 0x20);
    let packet = client.sign(message);
    assert!(world.deliver(client.five, &packet).reply().is_success());
}

/// RFC 8489 §14
#[test]
fn of_duplicates_the_first_counts() {
    let (mut world, mut client, _) = allocated();
    let reply = client.ask(&mut world, REFRESH, &[wire::lifetime(900), wire::lifetime(0)]);
    assert_eq!(reply.lifetime(), 900);
    client.permit(&mut world, &[PEER]);
    let two = [peer(PEER), peer("9.9.9.9:1"), raw(attr::DATA, b"x"), raw(attr::DATA, b"y")];
    let (to, data) = client.indicate(&mut world, &two).relayed();
    assert_eq!((to, &data[..]), (PEER.parse().unwrap(), &b"x"[..]));
    let message =
        Msg::new(REFRESH, client.id()).add(&client.credentials()).attr(attr::USERNAME, b"bob");
    let packet = client.sign(message);
    assert!(world.deliver(client.five, &packet).reply().is_success());
}

/// RFC 8489 §14.1, for each attribute value that is no address
#[test]
fn peer_address_of_wrong_family_or_length_is_400_or_dropped() {
    let (mut world, mut client, _) = allocated();
    client.permit(&mut world, &[PEER]);
    for value in bad_addresses() {
        let bad = raw(attr::XPA, &value);
        assert_eq!(
            client.code(&mut world, wire::CREATE_PERMISSION, std::slice::from_ref(&bad)),
            400
        );
        let both = [wire::channel(0x4000), bad.clone()];
        assert_eq!(client.code(&mut world, wire::CHANNEL_BIND, &both), 400, "{value:?}");
        let outcome = client.indicate(&mut world, &[bad, raw(attr::DATA, b"x")]);
        assert_eq!(outcome.dropped(), DropReason::IndicationMalformed, "{value:?}");
    }
}

/// RFC 8489 §14.1
#[test]
fn first_byte_of_an_address_is_ignored() {
    let (mut world, mut client, _) = allocated();
    let mut value = wire::xor_value(PEER.parse().unwrap(), ID);
    value[0] = 0xFF;
    assert_eq!(client.code(&mut world, wire::CREATE_PERMISSION, &[raw(attr::XPA, &value)]), 0);
}

pub(crate) fn bad_addresses() -> Vec<Vec<u8>> {
    let v4 = wire::xor_value(PEER.parse().unwrap(), ID);
    let v6 = wire::xor_value("[2a00::1]:1".parse().unwrap(), ID);
    let with_family = |value: &[u8], family: u8| {
        let mut value = value.to_vec();
        value[1] = family;
        value
    };
    let mut bad = vec![with_family(&v6, 1), with_family(&v4, 2)];
    bad.extend([0, 3, 255].map(|family| with_family(&v4, family)));
    bad.extend([0, 1, 4, 7, 9].map(|length| [&v4[..], &v4[..]].concat()[..length].to_vec()));
    bad.push([&v6[..], &[0]].concat());
    bad
}
