#![allow(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use super::*;
use crate::stun::attribute::{Lifetime, Software, Username, XorPeerAddress};
use crate::stun::integrity::{IntegrityKind, Key};
use crate::stun::wire::{ID, Wire};

const KEY: [u8; 16] = *b"sixteen byte key";
const KEY_SHA256: [u8; 32] = *b"a key of SHA-256 has 32 bytes ..";
const USERNAME: u16 = 0x0006;
const LIFETIME: u16 = 0x000D;
const SOFTWARE: u16 = 0x8022;

fn error_of(bytes: &[u8]) -> ParseError {
    Message::parse(bytes).expect_err("must be refused")
}

fn kinds(message: &Message<'_>) -> Vec<u16> {
    message.attributes().map(|(kind, _)| kind.0).collect()
}

#[test]
fn type_interleaves_method_and_class_as_the_registry_prints_it() {
    use Class::{Error, Indication, Request, Success};
    let table = [
        (0x0001, Method::Binding, Request),
        (0x0011, Method::Binding, Indication),
        (0x0101, Method::Binding, Success),
        (0x0111, Method::Binding, Error),
        (0x0003, Method::Allocate, Request),
        (0x0103, Method::Allocate, Success),
        (0x0113, Method::Allocate, Error),
        (0x0004, Method::Refresh, Request),
        (0x0104, Method::Refresh, Success),
        (0x0114, Method::Refresh, Error),
        (0x0016, Method::Send, Indication),
        (0x0017, Method::Data, Indication),
        (0x0008, Method::CreatePermission, Request),
        (0x0108, Method::CreatePermission, Success),
        (0x0118, Method::CreatePermission, Error),
        (0x0009, Method::ChannelBind, Request),
        (0x0109, Method::ChannelBind, Success),
        (0x0119, Method::ChannelBind, Error),
        (0x000A, Method::Connect, Request),
        (0x010A, Method::Connect, Success),
        (0x011A, Method::Connect, Error),
        (0x000B, Method::ConnectionBind, Request),
        (0x010B, Method::ConnectionBind, Success),
        (0x011B, Method::ConnectionBind, Error),
        (0x001C, Method::ConnectionAttempt, Indication),
        // Each method bit on its own side of the class bits.
        (0x000F, Method::Unknown(0x00F), Request),
        (0x00E0, Method::Unknown(0x070), Request),
        (0x3E00, Method::Unknown(0xF80), Request),
        (0x3FFF, Method::Unknown(0xFFF), Error),
    ];
    for (kind, method, class) in table {
        assert_eq!(message_type(method, class), kind, "{method:?} {class:?}");
        let bytes = Wire::new(kind).0;
        let message = Message::parse(&bytes).unwrap();
        assert_eq!((message.method(), message.class()), (method, class), "{kind:#06x}");
    }
}

#[test]
fn all_16384_types_are_read_and_written_alike() {
    for kind in 0..0x4000 {
        let bytes = Wire::new(kind).0;
        let message = Message::parse(&bytes).unwrap();
        assert_eq!(message_type(message.method(), message.class()), kind);
    }
}

#[test]
fn known_methods_have_one_name_only() {
    for kind in 0..0x4000 {
        if let Method::Unknown(number) = Message::parse(&Wire::new(kind).0).unwrap().method() {
            assert!(![1, 3, 4, 6, 7, 8, 9].contains(&number), "{number:#05x}");
        }
    }
}

#[test]
fn first_two_bits_must_be_zero() {
    for top in [0x4000, 0x8000, 0xC000] {
        assert_eq!(error_of(&Wire::new(top | 1).0), ParseError::NotStun, "{top:#x}");
    }
}

#[test]
fn every_bit_of_the_cookie_counts() {
    for bit in 0..32 {
        let mut bytes = Wire::binding().0;
        bytes[4 + bit / 8] ^= 1 << (bit % 8);
        assert_eq!(error_of(&bytes), ParseError::MagicCookie, "bit {bit}");
    }
}

#[test]
fn transaction_id_is_the_last_twelve_bytes_of_the_header() {
    let bytes = Wire::binding().with(SOFTWARE, b"after the header").0;
    assert_eq!(Message::parse(&bytes).unwrap().transaction_id(), ID);
}

#[test]
fn less_than_a_header_is_truncated() {
    let header = Wire::binding().0;
    for length in 0..HEADER_LEN {
        assert_eq!(error_of(&header[..length]), ParseError::Truncated, "{length} bytes");
    }
    assert!(Message::parse(&header).is_ok());
}

#[test]
fn length_must_be_a_multiple_of_four() {
    for extra in 1..4 {
        let mut bytes = Wire::binding().0;
        bytes.extend(vec![0; extra]);
        let wire = Wire(bytes).announce(extra);
        assert_eq!(error_of(&wire.0), ParseError::Length, "{extra} bytes");
    }
}

#[test]
fn length_must_be_that_of_the_datagram() {
    let wire = Wire::binding().with(SOFTWARE, b"hairpin!");
    for announced in (0..=40).chain([0x7FFC, 0xFFFC, 0xFFFF]).filter(|&length| length != 12) {
        let wire = wire.clone().announce(announced);
        assert_eq!(error_of(&wire.0), ParseError::Length, "announced {announced}");
    }
    let mut bytes = wire.0;
    bytes.extend([0, 0, 0, 0]);
    assert_eq!(error_of(&bytes), ParseError::Length, "four stray bytes");
}

#[test]
fn attribute_must_end_within_the_message() {
    for announced in [5, 6, 7, 8, 0x7FFF, 0xFFFC, 0xFFFD, 0xFFFF] {
        let mut bytes = Wire::binding().with(SOFTWARE, b"four").0;
        bytes[22..24].copy_from_slice(&u16::to_be_bytes(announced));
        assert_eq!(error_of(&bytes), ParseError::AttributeOverrun, "announced {announced}");
    }
}

#[test]
fn attribute_length_ffff_does_not_wrap_around() {
    let bytes = Wire::binding().with(SOFTWARE, &vec![0; 65_000]).0;
    let mut longest = bytes.clone();
    longest[22..24].copy_from_slice(&[0xFF, 0xFF]);
    assert!(Message::parse(&bytes).is_ok());
    assert_eq!(error_of(&longest), ParseError::AttributeOverrun);
}

#[test]
fn last_attribute_needs_its_padding() {
    for missing in 1..4 {
        let mut bytes = Wire::binding().with(SOFTWARE, &[b'x'; 1]).0;
        bytes.truncate(bytes.len() - missing);
        let body = bytes.len() - HEADER_LEN;
        assert_eq!(error_of(&Wire(bytes).announce(body).0), ParseError::Length, "{missing}");
    }
}

#[test]
fn overrun_behind_the_integrity_is_refused_too() {
    let mut bytes = Wire::binding().integrity(&KEY).with(SOFTWARE, b"four").0;
    let end = bytes.len();
    bytes[end - 6..end - 4].copy_from_slice(&[0, 5]);
    assert_eq!(error_of(&bytes), ParseError::AttributeOverrun);
}

#[test]
fn received_padding_may_be_anything() {
    for filler in [0x00, 0x20, 0xFF] {
        let bytes = Wire::binding().padded(USERNAME, b"evtj:", filler).0;
        let message = Message::parse(&bytes).unwrap();
        assert_eq!(message.read::<Username<'_>>(), Ok(Some(Username("evtj:"))));
    }
}

#[test]
fn received_padding_is_covered_by_integrity_and_fingerprint() {
    let bytes = Wire::binding().padded(USERNAME, b"me", 0x20).integrity(&KEY).fingerprint().0;
    let message = Message::parse(&bytes).unwrap();
    assert!(message.integrity().unwrap().verify(&Key::Md5(KEY)));
    assert!(message.has_fingerprint());

    let mut changed = Wire::binding().padded(USERNAME, b"me", 0x20).integrity(&KEY).0;
    changed[27] = 0;
    let message = Message::parse(&changed).unwrap();
    assert!(!message.integrity().unwrap().verify(&Key::Md5(KEY)));
}

#[test]
fn absent_attribute_is_none() {
    let bytes = Wire::binding().0;
    let message = Message::parse(&bytes).unwrap();
    assert_eq!(message.read::<Username<'_>>(), Ok(None));
    assert!(!message.has(AttributeType::USERNAME));
    assert!(message.integrity().is_none());
    assert!(!message.has_fingerprint());
}

#[test]
fn first_of_duplicates_counts() {
    let bytes = Wire::binding().with(LIFETIME, &[0, 0, 2, 88]).with(LIFETIME, &[0, 0, 0, 0]).0;
    assert_eq!(Message::parse(&bytes).unwrap().read(), Ok(Some(Lifetime(600))));
}

#[test]
fn malformed_first_of_duplicates_is_not_skipped() {
    let bytes = Wire::binding().with(LIFETIME, &[0, 0]).with(LIFETIME, &[0, 0, 2, 88]).0;
    assert_eq!(Message::parse(&bytes).unwrap().read::<Lifetime>(), Err(Malformed));
}

#[test]
fn read_all_yields_each_in_order_and_reports_the_malformed_one() {
    let first = b"\x00\x01\x21\x12\x21\x12\xa4\x42";
    let bytes = Wire::binding()
        .with(0x0012, first)
        .with(SOFTWARE, b"between")
        .with(0x0012, b"\x00\x03\x00\x00\x00\x00\x00\x00")
        .with(0x0012, b"\x00\x01\x21\x12\x21\x12\xa4\x43")
        .0;
    let message = Message::parse(&bytes).unwrap();
    let peers: Vec<_> = message.read_all::<XorPeerAddress>().collect();
    assert_eq!(
        peers,
        [
            Ok(XorPeerAddress("0.0.0.0:0".parse().unwrap())),
            Err(Malformed),
            Ok(XorPeerAddress("0.0.0.1:0".parse().unwrap())),
        ]
    );
}

#[test]
fn attributes_behind_message_integrity_are_unseen() {
    let bytes = Wire::new(0x0004)
        .with(LIFETIME, &[0, 0, 2, 88])
        .integrity(&KEY)
        .with(LIFETIME, &[0, 0, 0, 0])
        .with(USERNAME, b"mallory")
        .fingerprint()
        .0;
    let message = Message::parse(&bytes).unwrap();
    assert!(message.integrity().unwrap().verify(&Key::Md5(KEY)));
    assert_eq!(message.read(), Ok(Some(Lifetime(600))));
    assert_eq!(message.read_all::<Lifetime>().count(), 1);
    assert!(!message.has(AttributeType::USERNAME));
    assert_eq!(kinds(&message), [LIFETIME]);
}

#[test]
fn attributes_between_the_two_integrities_are_unseen() {
    let bytes =
        Wire::binding().integrity(&KEY).with(USERNAME, b"mallory").integrity_sha256(&KEY_SHA256).0;
    let message = Message::parse(&bytes).unwrap();
    assert!(!message.has(AttributeType::USERNAME));
    assert!(message.integrity().unwrap().verify(&Key::Sha256(KEY_SHA256)));
}

#[test]
fn attributes_behind_message_integrity_sha256_are_unseen() {
    let bytes = Wire::binding()
        .with(SOFTWARE, b"seen")
        .integrity_sha256(&KEY_SHA256)
        .with(USERNAME, b"mallory")
        .0;
    let message = Message::parse(&bytes).unwrap();
    assert_eq!(message.read(), Ok(Some(Software("seen"))));
    assert_eq!(kinds(&message), [SOFTWARE]);
}

#[test]
fn message_integrity_sha256_behind_message_integrity_decides() {
    let good = Wire::binding().integrity(&KEY).integrity_sha256(&KEY_SHA256).0;
    let integrity = Message::parse(&good).unwrap().integrity().unwrap();
    assert_eq!(integrity.kind(), IntegrityKind::Sha256);
    assert!(integrity.verify(&Key::Sha256(KEY_SHA256)));

    let bad_sha1 = Wire::binding().integrity(b"wrong").integrity_sha256(&KEY_SHA256).0;
    let integrity = Message::parse(&bad_sha1).unwrap().integrity().unwrap();
    assert!(integrity.verify(&Key::Sha256(KEY_SHA256)));

    let bad_sha256 = Wire::binding().integrity(&KEY).integrity_sha256(b"wrong").0;
    let integrity = Message::parse(&bad_sha256).unwrap().integrity().unwrap();
    assert_eq!(integrity.kind(), IntegrityKind::Sha256);
    assert!(!integrity.verify(&Key::Md5(KEY)));
    assert!(!integrity.verify(&Key::Sha256(KEY_SHA256)));
}

#[test]
fn message_integrity_behind_message_integrity_sha256_is_ignored() {
    let bytes = Wire::binding().integrity_sha256(b"wrong").integrity(&KEY).0;
    let integrity = Message::parse(&bytes).unwrap().integrity().unwrap();
    assert_eq!(integrity.kind(), IntegrityKind::Sha256);
    assert!(!integrity.verify(&Key::Md5(KEY)));
}

#[test]
fn first_of_two_equal_integrities_decides() {
    for (first, second, verdict) in [(&KEY[..], &b"wrong"[..], true), (b"wrong", &KEY, false)] {
        let bytes = Wire::binding().integrity(first).integrity(second).0;
        let integrity = Message::parse(&bytes).unwrap().integrity().unwrap();
        assert_eq!(integrity.verify(&Key::Md5(KEY)), verdict);
    }
    let bytes = Wire::binding().integrity_sha256(b"wrong").integrity_sha256(&KEY_SHA256).0;
    let integrity = Message::parse(&bytes).unwrap().integrity().unwrap();
    assert!(!integrity.verify(&Key::Sha256(KEY_SHA256)));
}

#[test]
fn fingerprint_may_follow_any_integrity_or_none() {
    for wire in [
        Wire::binding(),
        Wire::binding().with(SOFTWARE, b"odd"),
        Wire::binding().integrity(&KEY),
        Wire::binding().integrity_sha256(&KEY_SHA256),
        Wire::binding().integrity(&KEY).integrity_sha256(&KEY_SHA256),
        Wire::binding().integrity(&KEY).with(SOFTWARE, b"unseen"),
    ] {
        let bytes = wire.fingerprint().0;
        let message = Message::parse(&bytes).unwrap();
        assert!(message.has_fingerprint());
        assert!(!message.has(AttributeType::FINGERPRINT), "it is not an attribute to act on");
    }
}

#[test]
fn each_bit_of_message_and_fingerprint_counts() {
    let bytes = Wire::binding().with(SOFTWARE, b"four").fingerprint().0;
    // The type's lower bits, the transaction id, the value, the fingerprint itself.
    let places = (1..2).chain(8..20).chain(24..28).chain(32..36);
    for (at, bit) in places.flat_map(|at| (0..8).map(move |bit| (at, bit))) {
        let mut changed = bytes.clone();
        changed[at] ^= 1 << bit;
        assert_eq!(error_of(&changed), ParseError::Fingerprint, "byte {at} bit {bit}");
    }
}

#[test]
fn fingerprint_covers_the_length_of_the_whole_message() {
    let mut wire = Wire::binding().with(SOFTWARE, b"four");
    let short_by_eight = crc32fast::hash(&wire.0) ^ 0x5354_554E;
    wire = wire.with(0x8028, &short_by_eight.to_be_bytes());
    assert_eq!(error_of(&wire.0), ParseError::Fingerprint);
}

#[test]
fn fingerprint_must_be_masked() {
    let masked = Wire::binding().fingerprint().0;
    let value = u32::from_be_bytes(masked[24..28].try_into().unwrap()) ^ 0x5354_554E;
    let bytes = Wire::binding().with(0x8028, &value.to_be_bytes()).0;
    assert_eq!(error_of(&bytes), ParseError::Fingerprint);
}

#[test]
fn fingerprint_must_be_last() {
    let then_software = Wire::binding().fingerprint().with(SOFTWARE, b"late").0;
    assert_eq!(error_of(&then_software), ParseError::Fingerprint);
    let then_integrity = Wire::binding().fingerprint().integrity(&KEY).0;
    assert_eq!(error_of(&then_integrity), ParseError::Fingerprint);
    let twice = Wire::binding().fingerprint().fingerprint().0;
    assert_eq!(error_of(&twice), ParseError::Fingerprint);
}

#[test]
fn fingerprint_right_for_the_whole_message_must_still_be_last() {
    let whole = Wire::binding().with(0x8028, &[0; 4]).with(SOFTWARE, b"late");
    for claimed in [28, 36] {
        let mut header = Wire::binding().announce(claimed - 20).0;
        header.truncate(20);
        let value = crc32fast::hash(&header) ^ 0x5354_554E;
        let mut bytes = whole.0.clone();
        bytes[24..28].copy_from_slice(&value.to_be_bytes());
        assert_eq!(error_of(&bytes), ParseError::Fingerprint);
    }
}

#[test]
fn fingerprint_must_have_four_bytes() {
    let right = Wire::binding().fingerprint().0[24..28].to_vec();
    for length in [0, 1, 2, 3, 5, 8] {
        let value: Vec<u8> = right.iter().copied().cycle().take(length).collect();
        let bytes = Wire::binding().with(0x8028, &value).0;
        assert_eq!(error_of(&bytes), ParseError::Fingerprint, "{length} bytes");
    }
}

#[test]
fn zero_length_attributes_fill_a_message() {
    let mut bytes = Wire::binding().0;
    bytes.extend([0x7F, 0x00, 0, 0].repeat(4_089));
    let wire = Wire(bytes).announce(4 * 4_089);
    assert_eq!(Message::parse(&wire.0).unwrap().attributes().count(), 4_089);
}

#[test]
fn largest_message_of_the_length_field_is_read() {
    let mut bytes = Wire::binding().0;
    bytes.extend([0x7F, 0x00, 0, 0].repeat(16_383));
    let wire = Wire(bytes).announce(65_532);
    assert_eq!(Message::parse(&wire.0).unwrap().attributes().count(), 16_383);
}
