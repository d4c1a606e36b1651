//! The long-term credential mechanism of RFC 8489 §9.2, and time-limited credentials.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hairpin::net::clock;
use hairpin::turn::{DropReason, Verdict};

use crate::wire::{self, ALLOCATE, Attr, CHANNEL_BIND, CREATE_PERMISSION, Msg, Parsed, REFRESH};
use crate::wire::{attr, peer, raw, transport};
use crate::world::{Client, EPOCH_SECS, Mode, PEER, World};

const HERE: &str = "198.51.100.1:4000";

/// A world and a client that has a nonce.
fn greeted(mode: Mode) -> (World, Client) {
    let mut world = World::new();
    let mut client = Client::at(HERE).mode(mode);
    client.greet(&mut world);
    (world, client)
}

/// An Allocate with these credentials, signed by the client.
fn allocate(world: &mut World, client: &mut Client, credentials: &[Attr]) -> Parsed {
    let message = Msg::new(ALLOCATE, client.id()).add(&[transport(17)]).add(credentials);
    let packet = client.sign(message);
    world.deliver(client.five, &packet).reply()
}

fn without(credentials: &[Attr], kind: u16) -> Vec<Attr> {
    let kept = |attribute: &&Attr| !matches!(attribute, Attr::Raw(other, _) if *other == kind);
    credentials.iter().filter(kept).cloned().collect()
}

fn replaced(credentials: &[Attr], kind: u16, value: &[u8]) -> Vec<Attr> {
    [without(credentials, kind), vec![raw(kind, value)]].concat()
}

/// An unsigned 400 says nothing that helps the next attempt.
fn is_plain_400(reply: &Parsed) {
    assert_eq!(reply.code(), 400);
    assert_eq!(reply.attributes.len(), 1, "only ERROR-CODE");
}

fn rest_password(secret: &str, username: &str) -> String {
    STANDARD.encode(wire::hmac_sha1(secret.as_bytes(), username.as_bytes()))
}

/// RFC 8489 §9.2: bit 0 for PASSWORD-ALGORITHMS, bit 1 for USERHASH
#[test]
fn nonce_starts_with_the_cookie_of_what_is_offered() {
    let offers = [(false, false, "AAAA"), (true, false, "wAAA"), (true, true, "gAAA")];
    for (sha256, secrets, features) in offers {
        let mut world = World::with(|setup| {
            setup.config.auth.sha256 = sha256;
            setup.config.auth.secrets = if secrets { vec!["s".repeat(32)] } else { vec![] };
        });
        let mut client = Client::at(HERE);
        client.greet(&mut world);
        assert_eq!(client.nonce[..13], format!("obMatJos2{features}"));
        let offered: &[u8] = if sha256 { &[0, 2, 0, 0, 0, 1, 0, 0] } else { &[] };
        assert_eq!(client.algorithms, offered);
    }
}

/// RFC 8489 §9.2.4, RFC 8656 §5 and §7.2
#[test]
fn request_without_integrity_is_401_with_realm_and_nonce() {
    for kind in [ALLOCATE, REFRESH, CREATE_PERMISSION, CHANNEL_BIND] {
        let (mut world, mut client) = greeted(Mode::Legacy);
        let bare = Msg::new(kind, client.id()).finish();
        assert_eq!(world.deliver(client.five, &bare).reply().code(), 401);
        let unsigned = Msg::new(kind, client.id()).add(&client.credentials()).finish();
        assert_eq!(world.deliver(client.five, &unsigned).reply().code(), 401);
    }
}

/// RFC 8489 §9.2.4
#[test]
fn nonce_of_another_source_is_438() {
    let (mut world, client) = greeted(Mode::Legacy);
    for other in ["198.51.100.1:4001", "198.51.100.2:4000", "[2a00::1]:4000"] {
        let mut thief = Client::at(other);
        thief.nonce.clone_from(&client.nonce);
        let request = thief.request(ALLOCATE, &[transport(17)]);
        let reply = world.deliver(thief.five, &request).reply();
        assert_eq!(reply.code(), 438, "{other}");
        assert_ne!(reply.text(attr::NONCE), client.nonce);
    }
}

/// RFC 8489 §9.2.4
#[test]
fn integrity_without_username_realm_or_nonce_is_400() {
    for mode in [Mode::Legacy, Mode::Md5, Mode::Sha256] {
        for missing in [attr::USERNAME, attr::REALM, attr::NONCE] {
            let (mut world, mut client) = greeted(mode);
            let credentials = without(&client.credentials(), missing);
            is_plain_400(&allocate(&mut world, &mut client, &credentials));
        }
    }
}

/// RFC 8489 §9.2.4
#[test]
fn client_that_names_no_algorithm_is_taken_with_md5() {
    let (mut world, mut client) = greeted(Mode::Legacy);
    client.allocate(&mut world);
}

/// RFC 8489 §9.2.4: MESSAGE-INTEGRITY-SHA256 under the MD5 key, answered with
/// MESSAGE-INTEGRITY since no algorithm was named
#[test]
fn implicit_md5_is_answered_with_message_integrity() {
    let (mut world, mut client) = greeted(Mode::Legacy);
    let message = Msg::new(ALLOCATE, client.id()).add(&[transport(17)]).add(&client.credentials());
    let packet = message.mi2(&client.key()).finish();
    let reply = world.deliver(client.five, &packet).reply();
    assert!(reply.is_success() && reply.verifies(attr::MI, &client.key()));
}

/// RFC 8489 §9.2.4, the bid-down: the list must come back as it was sent
#[test]
fn password_algorithms_that_differ_from_the_offer_are_400() {
    let lists: [&[u8]; 8] = [
        &[],
        &[0, 1, 0, 0],
        &[0, 2, 0, 0],
        &[0, 1, 0, 0, 0, 2, 0, 0],
        &[0, 2, 0, 0, 0, 1, 0, 0, 0, 3, 0, 0],
        &[0, 2, 0, 0, 0, 1, 0, 1],
        &[0, 2, 0, 0, 0, 1, 0xFF, 0xFF],
        &[0, 2, 0, 0, 0, 1, 0],
    ];
    for list in lists {
        let (mut world, mut client) = greeted(Mode::Sha256);
        let credentials = replaced(&client.credentials(), attr::PAS, list);
        is_plain_400(&allocate(&mut world, &mut client, &credentials));
    }
}

/// RFC 8489 §9.2.4
#[test]
fn only_one_of_the_algorithm_attributes_is_400() {
    for missing in [attr::PA, attr::PAS] {
        let (mut world, mut client) = greeted(Mode::Sha256);
        let credentials = without(&client.credentials(), missing);
        is_plain_400(&allocate(&mut world, &mut client, &credentials));
    }
}

/// RFC 8489 §9.2.4
#[test]
fn password_algorithm_that_is_not_offered_is_400() {
    let values: [&[u8]; 6] =
        [&[0, 3, 0, 0], &[0, 0, 0, 0], &[0, 2], &[0, 2, 0, 1], &[0, 2, 0, 4, 1, 2, 3, 4], &[]];
    for value in values {
        let (mut world, mut client) = greeted(Mode::Sha256);
        let credentials = replaced(&client.credentials(), attr::PA, value);
        is_plain_400(&allocate(&mut world, &mut client, &credentials));
    }
}

/// RFC 8489 §9.2.4: who strips both attributes from a SHA-256 request has the wrong key
#[test]
fn stripping_the_algorithms_from_a_sha256_request_is_401() {
    let (mut world, mut client) = greeted(Mode::Sha256);
    let stripped = without(&without(&client.credentials(), attr::PA), attr::PAS);
    assert_eq!(allocate(&mut world, &mut client, &stripped).code(), 401);
}

/// Algorithm attributes mean nothing to a server that did not offer any.
#[test]
fn algorithms_are_ignored_where_none_are_offered() {
    let mut world = World::with(|setup| setup.config.auth.sha256 = false);
    let mut client = Client::at(HERE);
    client.greet(&mut world);
    let credentials = [client.credentials(), vec![raw(attr::PA, &[0, 1, 0, 0])]].concat();
    let reply = allocate(&mut world, &mut client, &credentials);
    assert!(reply.is_success() && reply.has(attr::MI));
}

/// RFC 8489 §9.2.4
#[test]
fn unknown_user_and_wrong_password_look_the_same() {
    for mode in [Mode::Legacy, Mode::Md5, Mode::Sha256] {
        let (mut world, alice) = greeted(mode);
        let mut answers = Vec::new();
        for (user, password) in [("alice", "wrong"), ("mallory", "secret1"), ("", ""), ("a:b", "")]
        {
            let mut client = alice.clone();
            (client.user, client.password) = (user.into(), password.into());
            let request = client.request(ALLOCATE, &[transport(17)]);
            let reply = world.deliver(client.five, &request).reply();
            assert_eq!(reply.code(), 401);
            answers.push(reply.bytes[20..].to_vec());
        }
        answers.dedup();
        assert_eq!(answers.len(), 1, "byte for byte the same");
    }
}

/// How long it takes to say no must not tell whether there is such a user. The requests are long,
/// so that most of the time goes into the integrity, and nobody's would show if it were skipped.
#[test]
fn unknown_user_and_wrong_password_take_the_same_time() {
    const ATTEMPTS: usize = 5;
    for mode in [Mode::Legacy, Mode::Sha256] {
        let (mut world, alice) = greeted(mode);
        let refused = [("alice", false), ("mallory", false), ("alice", true), ("mallory", true)];
        let packets = refused.map(|(user, hashed)| {
            let mut client = alice.clone();
            (client.user, client.password) = (user.into(), "wrong".into());
            client.hashed = hashed;
            client.request(ALLOCATE, &[raw(attr::SOFTWARE, &[b'x'; 16_000])])
        });
        let mut ratios = Vec::new();
        // A machine that is busy in just the wrong moments must not fail the test.
        let even = (0..ATTEMPTS).any(|_| {
            let medians = median_times(&mut world, &alice, &packets);
            let (least, most) = (medians.iter().min().unwrap(), medians.iter().max().unwrap());
            ratios.push(most.as_secs_f64() / least.as_secs_f64());
            ratios.last().is_some_and(|&ratio| ratio < 1.5)
        });
        assert!(even, "{mode:?}: the slowest takes {ratios:?} times as long as the fastest");
    }
}

/// The median time of each packet's refusal, all of them in turn.
fn median_times(world: &mut World, client: &Client, packets: &[Vec<u8>; 4]) -> [Duration; 4] {
    const ROUNDS: usize = 101;
    let mut times: [Vec<Duration>; 4] = Default::default();
    for _ in 0..ROUNDS {
        for (packet, times) in packets.iter().zip(&mut times) {
            let mut reply = Vec::new();
            let begun = clock::now().instant;
            let verdict = world.server.handle_client(client.five, packet, world.now, &mut reply);
            times.push(clock::now().instant - begun);
            assert!(matches!(verdict, Verdict::Reply));
            assert_eq!(Parsed::strict(&reply).code(), 401);
        }
    }
    times.map(|mut times| {
        times.sort();
        times[ROUNDS / 2]
    })
}

/// RFC 8489 §9.2.4
#[test]
fn every_flipped_bit_of_the_integrity_is_401() {
    for mode in [Mode::Legacy, Mode::Sha256] {
        let (mut world, mut client) = greeted(mode);
        let right = client.request(ALLOCATE, &[transport(17)]);
        let length = if mode == Mode::Legacy { 20 } else { 32 };
        for bit in 0..length * 8 {
            let mut wrong = right.clone();
            let at = wrong.len() - length + bit / 8;
            wrong[at] ^= 1 << (bit % 8);
            assert_eq!(world.deliver(client.five, &wrong).reply().code(), 401);
        }
        assert_eq!(world.server.allocations(), 0);
        assert!(world.deliver(client.five, &right).reply().is_success());
    }
}

/// RFC 8489 §9.2.4, RFC 8656 §5
#[test]
fn expired_nonce_is_438_with_a_fresh_one() {
    let mut world = World::with(|setup| {
        setup.config.auth.nonce_lifetime = Duration::from_secs(5);
    });
    let mut client = Client::at(HERE);
    client.allocate(&mut world);
    world.pass_secs(6);
    let stale = client.request(REFRESH, &[]);
    let reply = world.deliver(client.five, &stale).reply();
    assert_eq!(reply.code(), 438);
    client.learn(&reply);
    let fresh = client.request(REFRESH, &[]);
    assert!(world.deliver(client.five, &fresh).reply().is_success());
    assert_eq!(world.server.allocations(), 1);
}

/// RFC 8489 §9.2.4, our choice: the nonce comes first
#[test]
fn stale_nonce_with_a_wrong_password_is_438() {
    for mode in [Mode::Legacy, Mode::Md5, Mode::Sha256] {
        let (mut world, mut client) = greeted(mode);
        client.password = "wrong".into();
        let request = client.request(ALLOCATE, &[]);
        assert_eq!(world.deliver(client.five, &request).reply().code(), 401, "still fresh");
        world.pass_secs(3600);
        let request = client.request(ALLOCATE, &[]);
        assert_eq!(world.deliver(client.five, &request).reply().code(), 438);
    }
}

/// RFC 8489 §9.2.5
#[test]
fn wrong_password_ends_in_401_and_not_in_a_loop_of_438() {
    let (mut world, mut client) = greeted(Mode::Legacy);
    client.password = "wrong".into();
    for _ in 0..5 {
        let request = client.request(ALLOCATE, &[transport(17)]);
        let reply = world.deliver(client.five, &request).reply();
        assert_eq!(reply.code(), 401);
        client.learn(&reply);
        world.pass_secs(1);
    }
}

/// RFC 8489 §9.2.4: every authenticated answer, success and error, in each mode. The harness
/// verifies the one integrity and that no credentials are in it.
#[test]
fn authenticated_answers_are_signed_as_they_were_asked() {
    for mode in [Mode::Legacy, Mode::Md5, Mode::Sha256] {
        let mut world = World::with(|setup| setup.quota = 1);
        let mut client = Client::at(HERE).mode(mode);
        let kind = if mode == Mode::Legacy { attr::MI } else { attr::MI2 };
        let mut ask = |world: &mut World, method, attributes: &[Attr], code| {
            let reply = client.ask(world, method, attributes);
            assert_eq!((reply.code(), reply.has(kind)), (code, true), "{mode:?} {method:#06x}");
        };
        ask(&mut world, REFRESH, &[], 437);
        ask(&mut world, ALLOCATE, &[], 400);
        ask(&mut world, ALLOCATE, &[transport(6)], 442);
        ask(&mut world, ALLOCATE, &[transport(17), wire::family(3)], 440);
        ask(&mut world, ALLOCATE, &[transport(17), raw(attr::TOKEN, &[1; 8])], 508);
        ask(&mut world, ALLOCATE, &[transport(17)], 0);
        ask(&mut world, ALLOCATE, &[transport(17)], 437);
        ask(&mut world, REFRESH, &[wire::family(2)], 443);
        ask(&mut world, REFRESH, &[raw(0x7F00, b"")], 420);
        ask(&mut world, CREATE_PERMISSION, &[peer(PEER)], 0);
        ask(&mut world, CREATE_PERMISSION, &[], 400);
        ask(&mut world, CREATE_PERMISSION, &[peer("10.0.0.1:1")], 403);
        ask(&mut world, CHANNEL_BIND, &[wire::channel(0x4000), peer(PEER)], 0);
        ask(&mut world, CHANNEL_BIND, &[wire::channel(0x4001), peer(PEER)], 400);
        ask(&mut world, CHANNEL_BIND, &[wire::channel(0x4002), peer("10.0.0.1:1")], 403);
        let mut second = Client::at("198.51.100.1:5000").mode(mode);
        assert_eq!(second.code(&mut world, ALLOCATE, &[transport(17)]), 486);
        let mut bob = Client::bob(HERE).mode(mode);
        assert_eq!(bob.code(&mut world, REFRESH, &[]), 441);
        ask(&mut world, REFRESH, &[wire::lifetime(0)], 0);
    }
}

/// RFC 8489 §9.2.4
#[test]
fn truncated_or_oversized_sha256_integrity_is_refused() {
    for length in [0, 12, 16, 20, 28, 31, 33, 36, 64] {
        let (mut world, mut client) = greeted(Mode::Sha256);
        let base = Msg::new(ALLOCATE, client.id()).add(&[transport(17)]);
        let base = base.add(&client.credentials());
        for packet in cut_integrity(&base, attr::MI2, &client, length) {
            assert!(matches!(world.deliver(client.five, &packet).reply().code(), 400 | 401));
        }
        assert_eq!(world.server.allocations(), 0, "{length} bytes");
    }
}

/// RFC 8489 §9.2.4
#[test]
fn truncated_or_oversized_integrity_is_refused() {
    for length in [0, 4, 16, 19, 21, 24, 32] {
        let (mut world, mut client) = greeted(Mode::Legacy);
        let base = Msg::new(ALLOCATE, client.id()).add(&[transport(17)]);
        let base = base.add(&client.credentials());
        for packet in cut_integrity(&base, attr::MI, &client, length) {
            assert!(matches!(world.deliver(client.five, &packet).reply().code(), 400 | 401));
        }
        assert_eq!(world.server.allocations(), 0, "{length} bytes");
    }
}

/// The message with the right integrity, cut or stretched to `length` bytes, under either reading
/// of the header's length that the integrity covers: up to the end of a whole one, or of this one.
fn cut_integrity(base: &Msg, kind: u16, client: &Client, length: usize) -> [Vec<u8>; 2] {
    let whole = if kind == attr::MI { 20 } else { 32 };
    [whole, length.next_multiple_of(4)].map(|counted| {
        let covered = base.covered(4 + counted);
        let mut value = if kind == attr::MI {
            wire::hmac_sha1(&client.key(), &covered)
        } else {
            wire::hmac_sha256(&client.key(), &covered)
        };
        value.resize(length, 0);
        base.clone().attr(kind, &value).finish()
    })
}

/// Neither reading is a mistake of the test's own: uncut, both are right.
#[test]
fn integrity_that_is_not_cut_is_right() {
    for (mode, kind, length) in [(Mode::Legacy, attr::MI, 20), (Mode::Sha256, attr::MI2, 32)] {
        let (mut world, mut client) = greeted(mode);
        let base = Msg::new(ALLOCATE, client.id()).add(&[transport(17)]);
        let base = base.add(&client.credentials());
        for packet in cut_integrity(&base, kind, &client, length) {
            assert!(world.deliver(client.five, &packet).reply().is_success());
        }
    }
}

/// RFC 8489 §9.2.4
#[test]
fn of_both_integrities_sha256_decides() {
    let cases = [(true, false, 401), (false, true, 0), (true, true, 0), (false, false, 401)];
    for (good_sha1, good_sha256, code) in cases {
        let (mut world, mut client) = greeted(Mode::Sha256);
        let key = client.key();
        let md5 = wire::md5_key("alice", "example.org", "secret1");
        let message = Msg::new(ALLOCATE, client.id()).add(&[transport(17)]);
        let message = message.add(&client.credentials());
        let message = if good_sha1 { message.mi(&md5) } else { message.attr(attr::MI, &[1; 20]) };
        let message =
            if good_sha256 { message.mi2(&key) } else { message.attr(attr::MI2, &[1; 32]) };
        let reply = world.deliver(client.five, &message.finish()).reply();
        assert_eq!(reply.code(), code);
    }
}

/// RFC 8489 §14.6: behind MESSAGE-INTEGRITY-SHA256 a MESSAGE-INTEGRITY does not count
#[test]
fn first_of_two_integrities_of_a_kind_counts() {
    let (mut world, mut client) = greeted(Mode::Legacy);
    let base = Msg::new(ALLOCATE, client.id()).add(&[transport(17)]).add(&client.credentials());
    let key = client.key();
    let bad_first = base.clone().attr(attr::MI, &[1; 20]).mi(&key).finish();
    assert_eq!(world.deliver(client.five, &bad_first).reply().code(), 401);
    let bad_sha256_first = base.clone().attr(attr::MI2, &[1; 32]).mi(&key).finish();
    assert_eq!(world.deliver(client.five, &bad_sha256_first).reply().code(), 401);
    let good_first = base.mi(&key).attr(attr::MI, &[1; 20]).finish();
    assert!(world.deliver(client.five, &good_first).reply().is_success());
}

/// RFC 8489 §9.2.4 and §14.4
#[test]
fn user_hash_stands_for_the_username() {
    for mode in [Mode::Legacy, Mode::Sha256] {
        let (mut world, mut client) = greeted(mode);
        client.hashed = true;
        client.allocate(&mut world);
        client.hashed = false;
        assert_eq!(client.permit(&mut world, &[PEER]), 0, "the same user by name");
    }
}

#[test]
fn user_hash_of_wrong_length_is_400_and_unknown_is_401() {
    for (length, code) in [(31, 400), (33, 400), (0, 400), (32, 401)] {
        let (mut world, mut client) = greeted(Mode::Sha256);
        let credentials = without(&client.credentials(), attr::USERNAME);
        let credentials = [credentials, vec![raw(attr::USERHASH, &vec![7; length])]].concat();
        let reply = allocate(&mut world, &mut client, &credentials);
        assert_eq!(reply.code(), code, "{length} bytes");
    }
}

/// The answer to an unknown hash must not differ from that to a wrong password.
#[test]
fn unknown_user_hash_looks_like_a_wrong_password() {
    let (mut world, mut client) = greeted(Mode::Sha256);
    client.password = "wrong".into();
    client.hashed = true;
    let known = client.request(ALLOCATE, &[]);
    let known = world.deliver(client.five, &known).reply();
    client.user = "mallory".into();
    let unknown = client.request(ALLOCATE, &[]);
    let unknown = world.deliver(client.five, &unknown).reply();
    assert_eq!((known.code(), &known.bytes[20..]), (401, &unknown.bytes[20..]));
}

/// RFC 8489 §14.3
#[test]
fn odd_usernames_are_refused_and_nothing_breaks() {
    let names: [(&[u8], u16); 14] = [
        (b"", 401),
        (&[b'a'; 508], 401),
        (&[b'a'; 509], 401),
        (&[b'a'; 763], 401),
        (&[b'a'; 764], 400),
        (&[b'a'; 40_000], 400),
        (b"\xff\xfe", 400),
        (b"a\0b", 401),
        (b"a\r\nb", 401),
        (b"%n%s", 401),
        (b"\x1b[31m", 401),
        ("\u{202e}".as_bytes(), 401),
        (b"{}\"", 401),
        (b"alice ", 401),
    ];
    for (name, code) in names {
        let (mut world, mut client) = greeted(Mode::Legacy);
        let credentials = replaced(&client.credentials(), attr::USERNAME, name);
        let reply = allocate(&mut world, &mut client, &credentials);
        assert_eq!(reply.code(), code, "{:?}", String::from_utf8_lossy(name));
    }
}

/// RFC 8489 §14.9 allows 127 characters, in up to 763 bytes.
#[test]
fn long_realm_is_401_and_not_echoed() {
    for length in [128, 763] {
        let (mut world, mut client) = greeted(Mode::Legacy);
        let credentials = replaced(&client.credentials(), attr::REALM, &vec![b'z'; length]);
        let reply = allocate(&mut world, &mut client, &credentials);
        assert_eq!((reply.code(), &reply.text(attr::REALM)[..]), (401, "example.org"));
    }
}

/// RFC 8489 §9.2.4, our choice: 401 with our realm
#[test]
fn realm_mismatch_is_401() {
    for realm in ["Example.org", "example.org ", "", "example.com", "example.org\0"] {
        let (mut world, mut client) = greeted(Mode::Legacy);
        let mut other = client.clone();
        other.realm = realm.into();
        let credentials = other.credentials();
        client.realm = realm.into();
        let reply = allocate(&mut world, &mut client, &credentials);
        assert_eq!((reply.code(), &reply.text(attr::REALM)[..]), (401, "example.org"));
    }
}

/// RFC 8489 §14.9 and §14.10
#[test]
fn oversized_realm_or_nonce_is_refused_and_not_echoed() {
    for (kind, code) in [(attr::REALM, 400), (attr::NONCE, 400)] {
        let (mut world, mut client) = greeted(Mode::Legacy);
        let credentials = replaced(&client.credentials(), kind, &[b'z'; 764]);
        let reply = allocate(&mut world, &mut client, &credentials);
        assert_eq!(reply.code(), code);
        assert!(!reply.bytes.windows(8).any(|window| window == b"zzzzzzzz"));
    }
}

#[test]
fn forged_nonces_are_438() {
    let (mut world, client) = greeted(Mode::Legacy);
    let good = client.nonce.clone();
    let mut forged: Vec<String> = vec![
        String::new(),
        "x".repeat(127),
        "x".repeat(128),
        "x".repeat(763),
        good[..13].into(),
        format!("{}{}", &good[..13], "A".repeat(19)),
        format!("{good}A"),
        format!("{good}="),
        good[..31].into(),
        good.to_uppercase(),
    ];
    for at in 0..good.len() {
        let mut bytes = good.clone().into_bytes();
        bytes[at] ^= 1;
        forged.push(String::from_utf8(bytes).unwrap());
    }
    for nonce in forged {
        let mut client = client.clone();
        client.nonce.clone_from(&nonce);
        let request = client.request(ALLOCATE, &[transport(17)]);
        let reply = world.deliver(client.five, &request).reply();
        assert_eq!(reply.code(), 438, "{nonce:?}");
    }
}

/// RFC 8489 §16: the bytes behind the time look random
#[test]
fn nonce_macs_are_distinct_and_balanced() {
    let mut world = World::new();
    let mut seen = std::collections::BTreeSet::new();
    let mut ones = 0;
    for port in 10_000..12_000 {
        let mut client = Client::at(&format!("198.51.100.1:{port}"));
        client.greet(&mut world);
        let stamp = base64::engine::general_purpose::STANDARD_NO_PAD.decode(&client.nonce[13..]);
        let mac = stamp.unwrap()[4..].to_vec();
        ones += mac.iter().map(|byte| byte.count_ones()).sum::<u32>();
        assert!(seen.insert(mac), "no two sources share a nonce");
    }
    let bits = 2000 * 80;
    assert!((bits * 49 / 100..bits * 51 / 100).contains(&ones), "{ones} of {bits} bits are set");
}

/// RFC 8489 §16: nor has anything in them a structure, over sources or over time
#[test]
fn nonces_are_no_counter_and_no_linear_generator() {
    const NONCES: usize = 10_000;
    let mut world = World::new();
    let mut macs = Vec::new();
    for at in 0..NONCES {
        // Of the same source every second or so, and in between of its neighbours.
        let mut client = Client::at(&format!("198.51.100.1:{}", 10_000 + at % 4));
        client.greet(&mut world);
        let stamp = base64::engine::general_purpose::STANDARD_NO_PAD.decode(&client.nonce[13..]);
        macs.push(u64::from_be_bytes(stamp.unwrap()[4..12].try_into().unwrap()));
        if at % 4 == 3 {
            world.pass_secs(1);
        }
    }
    // As they come, of one source, and one source against its neighbour: the differences, and of a
    // linear generator also theirs, would repeat, or leave some bits alone.
    let of_one: Vec<u64> = macs.iter().copied().step_by(4).collect();
    for series in [macs, of_one] {
        let differences = differences(&series);
        let second = self::differences(&differences);
        for numbers in [&series, &differences, &second] {
            let distinct: std::collections::BTreeSet<_> = numbers.iter().collect();
            assert_eq!(distinct.len(), numbers.len());
            let count = numbers.len();
            for bit in 0..64 {
                let ones = numbers.iter().filter(|&number| number >> bit & 1 == 1).count();
                // Eight standard deviations to either side.
                let off = (count as f64).sqrt() as usize * 4;
                assert!(ones.abs_diff(count / 2) < off, "bit {bit}: {ones} of {count}");
            }
        }
        // Nor does one number say what the next one will be like, bit by bit.
        let count = series.len() - 1;
        for bit in 0..64 {
            let flips = series.windows(2).filter(|pair| (pair[0] ^ pair[1]) >> bit & 1 == 1);
            let flips = flips.count();
            let off = (count as f64).sqrt() as usize * 4;
            assert!(flips.abs_diff(count / 2) < off, "bit {bit} flips {flips} times of {count}");
        }
    }
}

fn differences(numbers: &[u64]) -> Vec<u64> {
    numbers.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])).collect()
}

fn rest_world(users: bool) -> World {
    World::with(|setup| {
        setup.config.auth.secrets = vec!["new-secret".repeat(4), "old-secret".repeat(4)];
        if !users {
            setup.config.auth.users.clear();
        }
    })
}

/// What an Allocate under this name gets, the password made with `secret`.
fn rest_code(world: &mut World, port: u16, user: &str, secret: &str, mode: Mode) -> u16 {
    let password = rest_password(secret, user);
    let mut client = Client::named(&format!("198.51.100.1:{port}"), user, &password).mode(mode);
    client.code(world, ALLOCATE, &[transport(17)])
}

/// draft-uberti-behave-turn-rest-00 §2.2
#[test]
fn time_limited_credentials_of_every_secret_verify() {
    for mode in [Mode::Legacy, Mode::Md5, Mode::Sha256] {
        let mut world = rest_world(false);
        for (port, secret) in [(1000, "new-secret"), (1001, "old-secret")] {
            let user = format!("{}:alice", EPOCH_SECS + 60);
            assert_eq!(rest_code(&mut world, port, &user, &secret.repeat(4), mode), 0);
        }
        let user = format!("{}", EPOCH_SECS);
        assert_eq!(rest_code(&mut world, 1002, &user, &"old-secret".repeat(4), mode), 0);
        assert_eq!(rest_code(&mut world, 1003, &user, "no-secret", mode), 401);
    }
}

/// draft-uberti-behave-turn-rest-00
#[test]
fn expired_or_malformed_time_limited_names_are_401() {
    let secret = "new-secret".repeat(4);
    let names = [
        format!("{}:alice", EPOCH_SECS - 1),
        "0:x".into(),
        "-1:x".into(),
        format!("+{}:x", EPOCH_SECS + 60),
        format!(" {}:x", EPOCH_SECS + 60),
        // Another spelling of a time that has not passed, and so another user.
        format!("0{}:x", EPOCH_SECS + 60),
        format!("000{}:x", EPOCH_SECS + 60),
        "0x7fffffff:x".into(),
        "18446744073709551616:x".into(),
        "99999999999999999999999999:x".into(),
        "1e12:x".into(),
        ":x".into(),
        ":".into(),
        "x".into(),
        "x:1900000000".into(),
    ];
    let mut world = rest_world(false);
    for (port, name) in (2000..).zip(&names) {
        assert_eq!(rest_code(&mut world, port, name, &secret, Mode::Legacy), 401, "{name}");
    }
    assert_eq!(world.server.allocations(), 0);
}

/// draft-uberti-behave-turn-rest-00: the largest numbers neither panic nor wrap
#[test]
fn far_future_expiry_is_no_overflow() {
    let secret = "new-secret".repeat(4);
    let mut world = rest_world(false);
    let names = ["18446744073709551615:x", "9223372036854775807:x", "9223372036854775808:x"];
    for (port, name) in (2100..).zip(names) {
        assert_eq!(rest_code(&mut world, port, name, &secret, Mode::Legacy), 0, "{name}");
        let mut wrong = Client::named(&format!("198.51.100.1:{port}"), name, "wrong");
        assert_eq!(wrong.code(&mut world, REFRESH, &[]), 401);
    }
}

/// draft-uberti-behave-turn-rest-00: the name's other half is covered by the password
#[test]
fn tampered_user_part_is_401() {
    let mut world = rest_world(false);
    let user = format!("{}:alice", EPOCH_SECS + 60);
    let password = rest_password(&"new-secret".repeat(4), &user);
    for tampered in [user.replace("alice", "admin"), user.replace(":alice", ""), user + "x"] {
        let mut client = Client::named(HERE, &tampered, &password);
        assert_eq!(client.code(&mut world, ALLOCATE, &[transport(17)]), 401);
    }
}

/// draft-uberti-behave-turn-rest-00, our choice: asked at each request, so a Refresh after the
/// expiry fails and the allocation lives out its time
#[test]
fn credentials_that_expire_cannot_refresh_but_data_flows_on() {
    let mut world = rest_world(false);
    let user = format!("{}:alice", EPOCH_SECS + 100);
    let password = rest_password(&"new-secret".repeat(4), &user);
    let mut client = Client::named(HERE, &user, &password);
    client.allocate(&mut world);
    assert_eq!(client.permit(&mut world, &[PEER]), 0);
    world.pass_secs(101);
    assert_eq!(client.refresh(&mut world, 600).code(), 401);
    client.send(&mut world, PEER, b"x").relayed();
}

/// Static users and secrets at once
#[test]
fn static_and_time_limited_users_live_side_by_side() {
    let mut world = rest_world(true);
    Client::at(HERE).allocate(&mut world);
    let user = format!("{}:alice", EPOCH_SECS + 60);
    let secret = "old-secret".repeat(4);
    assert_eq!(rest_code(&mut world, 1000, &user, &secret, Mode::Legacy), 0);
    let mut wrong = Client::named("198.51.100.1:1001", "alice", "wrong");
    assert_eq!(wrong.code(&mut world, ALLOCATE, &[transport(17)]), 401);
}

/// Without users or secrets nobody gets in, whatever is tried.
#[test]
fn server_without_credentials_lets_nobody_in() {
    let mut world = World::with(|setup| setup.config.auth.users.clear());
    for (user, password) in [("", ""), ("alice", "secret1"), ("1900000000", ""), (":", "")] {
        for mode in [Mode::Legacy, Mode::Sha256] {
            let mut client = Client::named(HERE, user, password).mode(mode);
            assert_eq!(client.code(&mut world, ALLOCATE, &[transport(17)]), 401);
        }
    }
}

/// RFC 8656 §5
#[test]
fn request_of_another_user_is_441_and_changes_nothing() {
    let (mut world, mut alice) = greeted(Mode::Legacy);
    let relay = alice.allocate(&mut world);
    let mut bob = Client::bob(HERE);
    assert_eq!(bob.code(&mut world, REFRESH, &[wire::lifetime(0)]), 441);
    assert_eq!(bob.permit(&mut world, &[PEER]), 441);
    assert_eq!(bob.bind(&mut world, 0x4000, PEER), 441);
    assert_eq!(world.server.allocations(), 1);
    assert_eq!(alice.send(&mut world, PEER, b"x").dropped(), DropReason::NoPermission);
    assert_eq!(alice.channel_data(&mut world, 0x4000, b"x").dropped(), DropReason::ChannelUnbound);
    assert!(world.relay_count() == 1 && relay.port() >= 49152);
}
