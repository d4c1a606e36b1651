//! Bytes that nobody meant: no panic, and the oracles agree save the rules.

use hairpin::stun::attribute::{Attribute, UnknownAttributes, XorPeerAddress};
use hairpin::stun::{ChannelData, Key, Message};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::item::Item;
use crate::plan::plan;
use crate::rules::agree;
use crate::view::{FINGERPRINT, MI, MI2};
use crate::wire::Wire;
use crate::{config, view};

/// Calls all that reads bytes.
fn exercise(bytes: &[u8]) {
    let _ = ChannelData::parse(bytes);
    let Ok(message) = Message::parse(bytes) else { return };
    let _ = (message.method(), message.class(), message.transaction_id(), message.bytes());
    for kind in Item::KINDS {
        let _ = Item::read_by_us(kind, &message);
    }
    let _ = message.read_all::<XorPeerAddress>().filter(Result::is_err).count();
    for (_, value) in message.attributes().take(100) {
        let _ = UnknownAttributes::types(value);
        let _ = XorPeerAddress::decode(value, message.transaction_id());
    }
    if let Some(integrity) = message.integrity() {
        let _ = integrity.verify(&Key::md5("user", "realm", "pass"));
        let _ = integrity.verify(&Key::sha256("user", "realm", "pass"));
    }
}

/// A part of a message that may stand anywhere, in any number.
#[derive(Clone, Debug)]
enum Piece {
    Attribute(u16, Vec<u8>),
    Integrity,
    IntegritySha256(usize),
    Fingerprint,
}

fn piece() -> impl Strategy<Value = Piece> {
    const KINDS: &[u16] = &[MI, MI2, FINGERPRINT, 0x0006, 0x000D, 0x0020, 0x7F00, 0x8020, 0x8022];
    let kind = prop_oneof![proptest::sample::select(KINDS), any::<u16>()];
    let length = prop_oneof![0_usize..12, Just(16), Just(20), Just(32), Just(33)];
    let value = length.prop_flat_map(|length| vec(any::<u8>(), length));
    prop_oneof![
        4 => (kind, value).prop_map(|(kind, value)| Piece::Attribute(kind, value)),
        2 => Just(Piece::Integrity),
        2 => (0_usize..=8).prop_map(|quarter| Piece::IntegritySha256(4 * quarter)),
        2 => Just(Piece::Fingerprint),
    ]
}

/// Attributes, integrities and fingerprints in any order, each right where it stands.
fn disordered() -> impl Strategy<Value = Vec<u8>> {
    (0_u16..0x4000, vec(piece(), 0..7)).prop_map(|(kind, pieces)| {
        let wire = pieces.into_iter().fold(Wire::new(kind), |wire, piece| match piece {
            Piece::Attribute(kind, value) => wire.with(kind, &value),
            Piece::Integrity => wire.integrity(),
            Piece::IntegritySha256(length) => wire.integrity_sha256(length),
            Piece::Fingerprint => wire.fingerprint(),
        });
        wire.0
    })
}

#[derive(Clone, Debug)]
enum Mutation {
    Flip(Index, u8),
    Truncate(Index),
    Append(Vec<u8>),
    HeaderLength(u16),
    HeaderLengthRight,
    AttributeLength(Index, u16),
    Splice(Index, Vec<u8>),
    Remove(Index, usize),
}

impl Mutation {
    fn apply(&self, bytes: &mut Vec<u8>) {
        let at = |index: &Index, bytes: &[u8]| index.index(bytes.len() + 1);
        match self {
            Self::Flip(index, bit) => {
                let at = at(index, bytes);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << bit;
                }
            }
            Self::Truncate(index) => bytes.truncate(at(index, bytes)),
            Self::Append(tail) => bytes.extend(tail),
            Self::HeaderLength(length) => put_u16(bytes, 2, *length),
            Self::HeaderLengthRight => {
                let body = bytes.len().saturating_sub(20);
                put_u16(bytes, 2, body as u16);
            }
            Self::AttributeLength(index, length) => {
                let at = at(index, bytes) / 4 * 4 + 2;
                put_u16(bytes, at, *length);
            }
            Self::Splice(index, insert) => {
                let at = at(index, bytes);
                bytes.splice(at..at, insert.iter().copied());
            }
            Self::Remove(index, count) => {
                let at = at(index, bytes);
                bytes.drain(at..bytes.len().min(at + count));
            }
        }
    }
}

fn put_u16(bytes: &mut [u8], at: usize, value: u16) {
    if let Some(place) = bytes.get_mut(at..at + 2) {
        place.copy_from_slice(&value.to_be_bytes());
    }
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let length = prop_oneof![0_u16..80, Just(0xFFFC), Just(0xFFFF), any::<u16>()];
    prop_oneof![
        3 => (any::<Index>(), 0_u8..8).prop_map(|(index, bit)| Mutation::Flip(index, bit)),
        1 => any::<Index>().prop_map(Mutation::Truncate),
        1 => vec(any::<u8>(), 1..9).prop_map(Mutation::Append),
        1 => length.clone().prop_map(Mutation::HeaderLength),
        3 => Just(Mutation::HeaderLengthRight),
        2 => (any::<Index>(), length).prop_map(|(index, to)| Mutation::AttributeLength(index, to)),
        1 => (any::<Index>(), vec(any::<u8>(), 1..9))
            .prop_map(|(index, bytes)| Mutation::Splice(index, bytes)),
        1 => (any::<Index>(), 1_usize..9).prop_map(|(index, count)| Mutation::Remove(index, count)),
    ]
}

proptest! {
    #![proptest_config(config(3_000))]

    #[test]
    fn disordered_messages_are_read_alike(bytes in disordered()) {
        agree(&bytes).map_err(TestCaseError::fail)?;
        exercise(&bytes);
    }

    #[test]
    fn mutated_messages_are_read_alike(
        bytes in prop_oneof![plan().prop_map(|plan| plan.by_us()), disordered()],
        mutations in vec(mutation(), 1..4),
    ) {
        let mut bytes = bytes;
        for mutation in mutations {
            mutation.apply(&mut bytes);
        }
        agree(&bytes).map_err(TestCaseError::fail)?;
        exercise(&bytes);
    }

}

proptest! {
    #![proptest_config(config(250))]

    #[test]
    fn random_bytes_are_read_alike(bytes in vec(any::<u8>(), 0..=2_000)) {
        agree(&bytes).map_err(TestCaseError::fail)?;
        exercise(&bytes);
    }

    #[test]
    fn random_bytes_behind_a_valid_header_are_read_alike(
        kind in 0_u16..0x4000,
        body in vec(prop_oneof![3 => Just(0_u8), 2 => 0_u8..40, 1 => any::<u8>()], 0..=1_980),
    ) {
        let mut bytes = Wire::new(kind).0;
        bytes.extend(&body[..body.len() / 4 * 4]);
        let wire = Wire(bytes).announce(body.len() / 4 * 4);
        agree(&wire.0).map_err(TestCaseError::fail)?;
        exercise(&wire.0);
    }
}

#[test]
fn every_prefix_and_every_flipped_bit_of_a_message_is_read_alike() {
    let bytes = Wire::new(0x0003)
        .with(0x0019, &[17, 0, 0, 0])
        .with(0x0006, b"user")
        .integrity()
        .integrity_sha256(32)
        .fingerprint()
        .0;
    assert!(view::ours(&bytes).is_some());
    for length in 0..bytes.len() {
        agree(&bytes[..length]).unwrap();
        exercise(&bytes[..length]);
    }
    for bit in 0..8 * bytes.len() {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        agree(&flipped).unwrap();
        exercise(&flipped);
    }
}

/// The largest payload of a UDP datagram over IPv4.
const DATAGRAM_LEN_MAX: usize = 65_507;

#[test]
fn largest_datagrams_are_read_alike() {
    let zeros = vec![0; DATAGRAM_LEN_MAX];
    let mut beyond = Wire::new(0x0016).with(0x0013, &vec![0xAB; 65_480]).0;
    let whole = beyond.clone();
    beyond.resize(DATAGRAM_LEN_MAX, 0);
    let mut unaligned = Wire::new(0x0016).0;
    unaligned.resize(DATAGRAM_LEN_MAX, 0);
    let unaligned = Wire(unaligned).announce(DATAGRAM_LEN_MAX - 20).0;

    assert!(view::ours(&whole).is_some());
    for (bytes, accepted) in [(zeros, false), (whole, true), (beyond, false), (unaligned, false)] {
        assert_eq!(view::ours(&bytes).is_some(), accepted);
        agree(&bytes).unwrap();
        exercise(&bytes);
    }
}

#[test]
fn thousands_of_attributes_are_read_alike() {
    for (count, kind) in [(4_089, 0x8022_u16), (16_000, 0x7F00), (16_000, 0x0012), (16_000, MI)] {
        let [high, low] = kind.to_be_bytes();
        let mut bytes = Wire::new(1).0;
        bytes.extend([high, low, 0, 0].repeat(count));
        let wire = Wire(bytes).announce(4 * count);
        agree(&wire.0).unwrap();
        exercise(&wire.0);
    }
}
