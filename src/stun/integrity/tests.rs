#![allow(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use super::*;
use crate::stun::attribute::{Nonce, Realm, Software, UserHash, Username, XorMappedAddress};
use crate::stun::error::ParseError;
use crate::stun::message::{Class, Message, Method};
use crate::stun::wire::Wire;

const KEY: [u8; 16] = *b"sixteen byte key";
const KEY_SHA256: [u8; 32] = *b"a key of SHA-256 has 32 bytes ..";

fn verifies(bytes: &[u8], key: &Key) -> bool {
    Message::parse(bytes).unwrap().integrity().unwrap().verify(key)
}

/// The short-term mechanism, which the server does not offer: the key is the password's bytes.
fn verifies_short_term(message: &Message<'_>, password: &str) -> bool {
    let Integrity { covered, value, .. } = message.integrity().unwrap();
    hmac::<Hmac<Sha1>>(password.as_bytes(), covered, SHA1_LEN).verify_slice(value).is_ok()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn long_term_keys_are_digests_of_user_realm_password() {
    let md5 = Key::md5("user", "realm", "pass");
    assert_eq!(hex(md5.bytes()), "8493fbc53ba582fb4c044c456bdc40eb");
    let sha256 = Key::sha256("user", "realm", "pass");
    assert_eq!(
        hex(sha256.bytes()),
        "07e934117abd40836e7c6329b54731b2b2d2a5f9a71f544922d75e0730d8251b"
    );
}

#[test]
fn key_is_never_shown() {
    assert_eq!(format!("{:?}", Key::md5("user", "realm", "pass")), "Key(..)");
    assert_eq!(format!("{:?}", Key::Sha256(KEY_SHA256)), "Key(..)");
}

#[test]
fn right_integrity_verifies_and_each_changed_bit_is_noticed() {
    let sha1 = Wire::binding().with(0x8022, b"odd").integrity(&KEY).0;
    let sha256 = Wire::binding().with(0x8022, b"odd").integrity_sha256(&KEY_SHA256).0;
    for (bytes, key) in [(sha1, Key::Md5(KEY)), (sha256, Key::Sha256(KEY_SHA256))] {
        assert!(verifies(&bytes, &key));
        // Type, transaction id, value, padding and the HMAC; not what makes it a message.
        let places = (1..2).chain(8..20).chain(24..28).chain(32..bytes.len());
        for (at, bit) in places.flat_map(|at| (0..8).map(move |bit| (at, bit))) {
            let mut changed = bytes.clone();
            changed[at] ^= 1 << bit;
            assert!(!verifies(&changed, &key), "byte {at} bit {bit}");
        }
    }
}

#[test]
fn key_of_another_user_or_algorithm_does_not_verify() {
    let bytes = Wire::binding().integrity(&KEY).0;
    assert!(!verifies(&bytes, &Key::md5("user", "realm", "pass")));
    assert!(!verifies(&bytes, &Key::Sha256(KEY_SHA256)));
}

#[test]
fn integrity_covers_a_length_that_ends_with_itself() {
    let bytes = Wire::binding().integrity(&KEY).with(0x8022, b"behind").fingerprint().0;
    assert!(verifies(&bytes, &Key::Md5(KEY)));

    let wire = Wire::binding();
    let header_only = <Hmac<Sha1> as KeyInit>::new_from_slice(&KEY).unwrap().chain_update(&wire.0);
    let bytes = wire.with(0x0008, &header_only.finalize().into_bytes()).0;
    assert!(!verifies(&bytes, &Key::Md5(KEY)), "length as before the attribute");
}

#[test]
fn message_integrity_of_another_length_never_verifies() {
    let start = Wire::binding().with(0x8022, b"odd");
    for length in [0, 1, 16, 19, 21, 24, 32] {
        for value in of_length(length, &start, &KEY, 0x0008) {
            let bytes = start.clone().with(0x0008, &value).0;
            assert!(!verifies(&bytes, &Key::Md5(KEY)), "{length} bytes");
        }
    }
}

#[test]
fn message_integrity_sha256_of_another_length_never_verifies() {
    let start = Wire::binding().with(0x8022, b"odd");
    for length in [0, 4, 12, 16, 20, 24, 28, 31, 33, 36, 64] {
        for value in of_length(length, &start, &KEY_SHA256, 0x001C) {
            let bytes = start.clone().with(0x001C, &value).0;
            assert!(!verifies(&bytes, &Key::Sha256(KEY_SHA256)), "{length} bytes");
        }
    }
}

/// Values of `length` bytes that a lax receiver might take: the HMAC for the full length cut or
/// prolonged, and the one over a header length that fits the wrong value.
fn of_length(length: usize, start: &Wire, key: &[u8], kind: u16) -> [Vec<u8>; 2] {
    let body = start.clone().announce(start.0.len() - 20 + 4 + length.next_multiple_of(4)).0;
    let (full, fitting) = if kind == 0x0008 {
        let mac = <Hmac<Sha1> as KeyInit>::new_from_slice(key).unwrap().chain_update(body);
        (start.hmac_sha1(key), mac.finalize().into_bytes().to_vec())
    } else {
        let mac = <Hmac<Sha256> as KeyInit>::new_from_slice(key).unwrap().chain_update(body);
        (start.hmac_sha256(key), mac.finalize().into_bytes().to_vec())
    };
    [full, fitting].map(|value| value.into_iter().chain([0; 64]).take(length).collect())
}

#[test]
fn rfc5769_2_1_sample_request() {
    let message = Message::parse(SAMPLE_REQUEST).unwrap();
    assert_eq!((message.method(), message.class()), (Method::Binding, Class::Request));
    assert_eq!(message.transaction_id().0, SAMPLE_REQUEST[8..20]);
    assert_eq!(message.read(), Ok(Some(Software("STUN test client"))));
    assert_eq!(message.read(), Ok(Some(Username("evtj:h6vY"))));
    let kinds: Vec<_> = message.attributes().map(|(kind, _)| kind.0).collect();
    assert_eq!(kinds, [0x8022, 0x0024, 0x8029, 0x0006]);
    assert!(message.has_fingerprint());
    assert!(verifies_short_term(&message, "VOkJxbRl1RmTxUk/WvJxBt"));
    assert!(!verifies_short_term(&message, "VOkJxbRl1RmTxUk/WvJxBT"));
}

#[test]
fn rfc5769_2_2_and_2_3_sample_responses() {
    for (bytes, address) in [
        (SAMPLE_IPV4_RESPONSE, "192.0.2.1:32853"),
        (SAMPLE_IPV6_RESPONSE, "[2001:db8:1234:5678:11:2233:4455:6677]:32853"),
    ] {
        let message = Message::parse(bytes).unwrap();
        assert_eq!((message.method(), message.class()), (Method::Binding, Class::Success));
        assert_eq!(message.read(), Ok(Some(Software("test vector"))));
        assert_eq!(message.read(), Ok(Some(XorMappedAddress(address.parse().unwrap()))));
        assert!(message.has_fingerprint());
        assert!(verifies_short_term(&message, "VOkJxbRl1RmTxUk/WvJxBt"));
        assert!(!verifies_short_term(&message, "another password"));
    }
}

#[test]
fn rfc5769_2_4_sample_request_with_long_term_authentication() {
    let message = Message::parse(SAMPLE_LONG_TERM_REQUEST).unwrap();
    assert_eq!(message.read(), Ok(Some(Username("マトリックス"))));
    assert_eq!(message.read(), Ok(Some(Nonce("f//499k954d6OL34oL9FSTvy64sA"))));
    assert_eq!(message.read(), Ok(Some(Realm("example.org"))));
    assert!(!message.has_fingerprint());
    // The password as SASLprep leaves it; preparing it is not the codec's business.
    assert!(verifies(
        SAMPLE_LONG_TERM_REQUEST,
        &Key::md5("マトリックス", "example.org", "TheMatrIX")
    ));
    assert!(!verifies(SAMPLE_LONG_TERM_REQUEST, &Key::md5("マトリックス", "example.org", "x")));
}

#[test]
fn rfc8489_b_1_is_refused_as_printed_and_its_hmac_and_userhash_are_right() {
    assert_eq!(Message::parse(B1_REQUEST).unwrap_err(), ParseError::Length);

    let key = Key::sha256("マトリックス", "example.org", "TheMatrIX");
    let (covered, value) = B1_REQUEST.split_at(B1_REQUEST.len() - SHA256_LEN);
    let covered = &covered[..covered.len() - ATTRIBUTE_HEADER_LEN];
    let as_printed =
        <Hmac<Sha256> as KeyInit>::new_from_slice(key.bytes()).unwrap().chain_update(covered);
    assert!(as_printed.verify_slice(value).is_ok());

    let repaired = Wire(B1_REQUEST.to_vec()).announce(B1_REQUEST.len() - 20).0;
    let message = Message::parse(&repaired).unwrap();
    let user_hash = user_hash("マトリックス", "example.org");
    assert_eq!(message.read(), Ok(Some(UserHash(user_hash))));
    assert!(!verifies(&repaired, &key), "the HMAC is over the wrong length");
}

const SAMPLE_REQUEST: &[u8] = b"\
    \x00\x01\x00\x58\
    \x21\x12\xa4\x42\
    \xb7\xe7\xa7\x01\xbc\x34\xd6\x86\xfa\x87\xdf\xae\
    \x80\x22\x00\x10\
    STUN test client\
    \x00\x24\x00\x04\
    \x6e\x00\x01\xff\
    \x80\x29\x00\x08\
    \x93\x2f\xf9\xb1\x51\x26\x3b\x36\
    \x00\x06\x00\x09\
    \x65\x76\x74\x6a\x3a\x68\x36\x76\x59\x20\x20\x20\
    \x00\x08\x00\x14\
    \x9a\xea\xa7\x0c\xbf\xd8\xcb\x56\x78\x1e\xf2\xb5\
    \xb2\xd3\xf2\x49\xc1\xb5\x71\xa2\
    \x80\x28\x00\x04\
    \xe5\x7a\x3b\xcf\
";

const SAMPLE_IPV4_RESPONSE: &[u8] = b"\
    \x01\x01\x00\x3c\
    \x21\x12\xa4\x42\
    \xb7\xe7\xa7\x01\xbc\x34\xd6\x86\xfa\x87\xdf\xae\
    \x80\x22\x00\x0b\
    \x74\x65\x73\x74\x20\x76\x65\x63\x74\x6f\x72\x20\
    \x00\x20\x00\x08\
    \x00\x01\xa1\x47\xe1\x12\xa6\x43\
    \x00\x08\x00\x14\
    \x2b\x91\xf5\x99\xfd\x9e\x90\xc3\x8c\x74\x89\xf9\
    \x2a\xf9\xba\x53\xf0\x6b\xe7\xd7\
    \x80\x28\x00\x04\
    \xc0\x7d\x4c\x96\
";

const SAMPLE_IPV6_RESPONSE: &[u8] = b"\
    \x01\x01\x00\x48\
    \x21\x12\xa4\x42\
    \xb7\xe7\xa7\x01\xbc\x34\xd6\x86\xfa\x87\xdf\xae\
    \x80\x22\x00\x0b\
    \x74\x65\x73\x74\x20\x76\x65\x63\x74\x6f\x72\x20\
    \x00\x20\x00\x14\
    \x00\x02\xa1\x47\
    \x01\x13\xa9\xfa\xa5\xd3\xf1\x79\
    \xbc\x25\xf4\xb5\xbe\xd2\xb9\xd9\
    \x00\x08\x00\x14\
    \xa3\x82\x95\x4e\x4b\xe6\x7b\xf1\x17\x84\xc9\x7c\
    \x82\x92\xc2\x75\xbf\xe3\xed\x41\
    \x80\x28\x00\x04\
    \xc8\xfb\x0b\x4c\
";

const SAMPLE_LONG_TERM_REQUEST: &[u8] = b"\
    \x00\x01\x00\x60\
    \x21\x12\xa4\x42\
    \x78\xad\x34\x33\xc6\xad\x72\xc0\x29\xda\x41\x2e\
    \x00\x06\x00\x12\
    \xe3\x83\x9e\xe3\x83\x88\xe3\x83\xaa\xe3\x83\x83\
    \xe3\x82\xaf\xe3\x82\xb9\x00\x00\
    \x00\x15\x00\x1c\
    \x66\x2f\x2f\x34\x39\x39\x6b\x39\x35\x34\x64\x36\
    \x4f\x4c\x33\x34\x6f\x4c\x39\x46\x53\x54\x76\x79\
    \x36\x34\x73\x41\
    \x00\x14\x00\x0b\
    \x65\x78\x61\x6d\x70\x6c\x65\x2e\x6f\x72\x67\x00\
    \x00\x08\x00\x14\
    \xf6\x70\x24\x65\x6d\xd6\x4a\x3e\x02\xb8\xe0\x71\
    \x2e\x85\xc9\xa2\x8c\xa8\x96\x66\
";

/// RFC 8489 B.1 as printed, with a header length that its attributes do not add up to.
const B1_REQUEST: &[u8] = b"\
    \x00\x01\x00\x9c\x21\x12\xa4\x42\x78\xad\x34\x33\xc6\xad\x72\xc0\
    \x29\xda\x41\x2e\x00\x1e\x00\x20\x4a\x3c\xf3\x8f\xef\x69\x92\xbd\
    \xa9\x52\xc6\x78\x04\x17\xda\x0f\x24\x81\x94\x15\x56\x9e\x60\xb2\
    \x05\xc4\x6e\x41\x40\x7f\x17\x04\x00\x15\x00\x29\x6f\x62\x4d\x61\
    \x74\x4a\x6f\x73\x32\x41\x41\x41\x43\x66\x2f\x2f\x34\x39\x39\x6b\
    \x39\x35\x34\x64\x36\x4f\x4c\x33\x34\x6f\x4c\x39\x46\x53\x54\x76\
    \x79\x36\x34\x73\x41\x00\x00\x00\x00\x14\x00\x0b\x65\x78\x61\x6d\
    \x70\x6c\x65\x2e\x6f\x72\x67\x00\x00\x1c\x00\x20\xe4\x68\x6c\x8f\
    \x0e\xde\xb5\x90\x13\xe0\x70\x90\x01\x0a\x93\xef\xcc\xbc\xcc\x54\
    \x4c\x0a\x45\xd9\xf8\x30\xaa\x6d\x6f\x73\x5a\x01\
";
