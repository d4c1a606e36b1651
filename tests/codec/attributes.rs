//! Values of single attributes, right and wrong, as three codecs read them.

use std::net::SocketAddr;

use hairpin::stun::Message;
use proptest::collection::vec;
use proptest::prelude::*;
use stun::attributes::AttrType;
use stun::message::Getter;
use stun_types::attribute as theirs;

use crate::config;
use crate::item::Item;
use crate::view::Oracle;
use crate::wire::Wire;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Difference {
    WeRefuse,
    TheyRefuse,
    /// Both read it, but not alike.
    Value,
}

/// Where the oracles read a value otherwise on purpose: the whole list.
#[derive(Debug)]
struct Rule {
    name: &'static str,
    reason: &'static str,
    oracle: Oracle,
    kinds: &'static [u16],
    difference: Difference,
    applies: fn(&[u8]) -> bool,
    example: fn() -> Vec<u8>,
}

const ADDRESSES: &[u16] = &[0x0001, 0x0012, 0x0016, 0x0020, 0x8023];
const TEXTS: &[u16] = &[0x0006, 0x0014, 0x0015, 0x8022];

const RULES: [Rule; 11] = [
    Rule {
        name: "address length",
        reason: "RFC 8489 §14.1: the family says 8 or 20; stun fills up or cuts off",
        oracle: Oracle::Stun,
        kinds: ADDRESSES,
        difference: Difference::WeRefuse,
        applies: |value| !matches!((value.get(1), value.len()), (Some(1), 8) | (Some(2), 20)),
        example: || vec![0, 1, 0, 80, 192, 0, 2],
    },
    Rule {
        name: "first byte of an address",
        reason: "RFC 8489 §14.1: it must be ignored; stun takes it for a part of the family",
        oracle: Oracle::Stun,
        kinds: ADDRESSES,
        difference: Difference::TheyRefuse,
        applies: |value| value[0] != 0,
        example: || vec![1, 1, 0, 80, 192, 0, 2, 1],
    },
    Rule {
        name: "length of texts",
        reason: "RFC 8489 §14.3, §14.9, §14.10, §14.14: 763 bytes; stun has no limit",
        oracle: Oracle::Stun,
        kinds: TEXTS,
        difference: Difference::WeRefuse,
        applies: |value| value.len() > 763,
        example: || vec![b'x'; 764],
    },
    Rule {
        name: "error code in range, reason in UTF-8 of 763 bytes",
        reason: "RFC 8489 §14.8; stun takes any bytes",
        oracle: Oracle::Stun,
        kinds: &[0x0009],
        difference: Difference::WeRefuse,
        applies: |value| {
            let (class, reason) = (value[2] & 7, &value[4..]);
            !(3..=6).contains(&class)
                || value[3] > 99
                || reason.len() > 763
                || std::str::from_utf8(reason).is_err()
        },
        example: || vec![0, 0, 7, 0],
    },
    Rule {
        name: "reserved bits of an error code",
        reason: "RFC 8489 §14.8: 21 bits for alignment; stun takes five of them for the class",
        oracle: Oracle::Stun,
        kinds: &[0x0009],
        difference: Difference::Value,
        applies: |value| value[2] > 7,
        example: || vec![0, 0, 0xFC, 0],
    },
    Rule {
        name: "channel number in range",
        reason: "RFC 5766 §11: 0x4000 to 0x7FFF at most; turn leaves it to the caller",
        oracle: Oracle::Stun,
        kinds: &[0x000C],
        difference: Difference::WeRefuse,
        applies: |value| value[0] >> 6 != 1,
        example: || vec![0x80, 0, 0, 0],
    },
    Rule {
        name: "DONT-FRAGMENT is empty",
        reason: "RFC 8656 §18.9: it has no value; turn does not look",
        oracle: Oracle::Stun,
        kinds: &[0x001A],
        difference: Difference::WeRefuse,
        applies: |value| !value.is_empty(),
        example: || vec![0; 4],
    },
    Rule {
        name: "USERNAME of 514 to 763 bytes",
        reason: "RFC 8489 §14.3: decoders take 763; stun-types keeps to RFC 5389's 513",
        oracle: Oracle::StunTypes,
        kinds: &[0x0006],
        difference: Difference::TheyRefuse,
        applies: |value| value.len() > 513,
        example: || vec![b'x'; 763],
    },
    Rule {
        name: "length of ALTERNATE-DOMAIN",
        reason: "the limit of the other texts: no domain has 764 bytes; stun-types has no limit",
        oracle: Oracle::StunTypes,
        kinds: &[0x8003],
        difference: Difference::WeRefuse,
        applies: |value| value.len() > 763,
        example: || vec![b'x'; 764],
    },
    Rule {
        name: "end of PASSWORD-ALGORITHM",
        reason: "RFC 8489 §14.12: one algorithm; stun-types drops what follows it",
        oracle: Oracle::StunTypes,
        kinds: &[0x001D],
        difference: Difference::WeRefuse,
        applies: |value| value[2..4] == [0, 0] && value.len() > 4,
        example: || vec![0, 1, 0, 0, 0, 2, 0, 0],
    },
    Rule {
        name: "PASSWORD-ALGORITHM of any number",
        reason: "whether the server offers it is not the codec's business; stun-types knows two",
        oracle: Oracle::StunTypes,
        kinds: &[0x001D],
        difference: Difference::TheyRefuse,
        applies: |value| ![[0, 1, 0, 0], [0, 2, 0, 0]].iter().any(|known| value == known),
        example: || vec![0, 3, 0, 0],
    },
];

/// What a codec makes of a value, `Err` where it refuses it.
type Reading = Result<Item, ()>;

fn by_us(kind: u16, bytes: &[u8]) -> Reading {
    let message = Message::parse(bytes).unwrap();
    Item::read_by_us(kind, &message).expect("it is there").map_err(|_| ())
}

/// `None` for types without a reader in `stun` and `turn`.
fn by_stun(kind: u16, bytes: &[u8]) -> Option<Reading> {
    use turn::proto;
    fn read<G: Getter>(message: &stun::message::Message, mut into: G) -> Result<G, ()> {
        into.get_from(message).map(|()| into).map_err(|_| ())
    }
    let mut message = stun::message::Message::new();
    message.unmarshal_binary(bytes).unwrap();
    let message = &message;
    Some(match kind {
        0x0001 | 0x8023 => {
            let mut it = stun::addr::MappedAddress::default();
            let read = it.get_from_as(message, AttrType(kind)).map_err(|_| ());
            read.map(|()| Item::Address(kind, SocketAddr::new(it.ip, it.port)))
        }
        0x0012 => read(message, proto::peeraddr::PeerAddress::default())
            .map(|it| Item::Address(kind, SocketAddr::new(it.ip, it.port))),
        0x0016 => read(message, proto::relayaddr::RelayedAddress::default())
            .map(|it| Item::Address(kind, SocketAddr::new(it.ip, it.port))),
        0x0020 => read(message, stun::xoraddr::XorMappedAddress::default())
            .map(|it| Item::Address(kind, SocketAddr::new(it.ip, it.port))),
        0x0006 | 0x0014 | 0x0015 | 0x8022 => {
            let text = stun::textattrs::TextAttribute::get_from_as(message, AttrType(kind));
            text.map(|it| Item::Text(kind, it.text)).map_err(|_| ())
        }
        0x0009 => read(message, stun::error_code::ErrorCodeAttribute::default())
            .map(|it| Item::ErrorCode(it.code.0, String::from_utf8_lossy(&it.reason).into_owned())),
        0x000A => read(message, stun::uattrs::UnknownAttributes(vec![]))
            .map(|it| Item::UnknownAttributes(it.0.iter().map(|kind| kind.0).collect())),
        0x000C => read(message, proto::channum::ChannelNumber::default())
            .map(|it| Item::ChannelNumber(it.0)),
        0x000D => read(message, proto::lifetime::Lifetime::default())
            .map(|it| Item::Lifetime(it.0.as_secs() as u32)),
        0x0013 => read(message, proto::data::Data::default()).map(|it| Item::Data(it.0)),
        0x0017 => read(message, proto::reqfamily::RequestedAddressFamily::default())
            .map(|it| Item::RequestedFamily(it.0)),
        0x0018 => read(message, proto::evenport::EvenPort::default())
            .map(|it| Item::EvenPort(it.to_string() == "reserve: true")),
        0x0019 => read(message, proto::reqtrans::RequestedTransport::default())
            .map(|it| Item::Transport(it.protocol.0)),
        0x001A => read(message, proto::dontfrag::DontFragmentAttr).map(|_| Item::DontFragment),
        0x0022 => read(message, proto::rsrvtoken::ReservationToken::default())
            .map(|it| Item::Token(it.0.try_into().unwrap())),
        _ => return None,
    })
}

/// `None` for types without a reader in `stun-types`. PASSWORD-ALGORITHMS we compare as bytes and
/// do not read, so it is not among them.
fn by_stun_types(kind: u16, bytes: &[u8]) -> Option<Reading> {
    let message = stun_types::message::Message::from_bytes(bytes).unwrap();
    let id = message.transaction_id();
    let raw = || message.raw_attribute(kind.into()).unwrap();
    let text = |it: &str| Item::Text(kind, it.to_owned());
    let read = match kind {
        0x0001 => {
            theirs::MappedSocketAddr::from_raw(&raw()).map(|it| Item::Address(kind, it.addr()))
        }
        0x0012 | 0x0016 => {
            theirs::XorSocketAddr::from_raw(&raw()).map(|it| Item::Address(kind, it.addr(id)))
        }
        0x0020 => message
            .attribute::<theirs::XorMappedAddress>()
            .map(|it| Item::Address(kind, it.addr(id))),
        0x8023 => message
            .attribute::<theirs::AlternateServer>()
            .map(|it| Item::Address(kind, it.server())),
        0x0006 => message.attribute::<theirs::Username>().map(|it| text(it.username())),
        0x0014 => message.attribute::<theirs::Realm>().map(|it| text(it.realm())),
        0x0015 => message.attribute::<theirs::Nonce>().map(|it| text(it.nonce())),
        0x8003 => message.attribute::<theirs::AlternateDomain>().map(|it| text(it.domain())),
        0x8022 => message.attribute::<theirs::Software>().map(|it| text(it.software())),
        0x0009 => message
            .attribute::<theirs::ErrorCode>()
            .map(|it| Item::ErrorCode(it.code(), it.reason().to_owned())),
        0x000A => message.attribute::<theirs::UnknownAttributes>().map(|it| {
            let pairs = raw().value.as_chunks::<2>().0.to_vec();
            let kinds = pairs.into_iter().map(u16::from_be_bytes);
            Item::UnknownAttributes(kinds.filter(|&kind| it.has_attribute(kind.into())).collect())
        }),
        0x001D => message.attribute::<theirs::PasswordAlgorithm>().map(|it| {
            let number = match it.algorithm() {
                theirs::PasswordAlgorithmValue::MD5 => 1,
                theirs::PasswordAlgorithmValue::SHA256 => 2,
            };
            Item::PasswordAlgorithm(number, vec![])
        }),
        0x001E => message.attribute::<theirs::Userhash>().map(|it| Item::UserHash(*it.hash())),
        _ => return None,
    };
    Some(read.map_err(|_| ()))
}

fn difference(ours: &Reading, theirs: &Reading) -> Option<Difference> {
    match (ours, theirs) {
        (Ok(ours), Ok(theirs)) if ours != theirs => Some(Difference::Value),
        (Ok(_), Err(())) => Some(Difference::TheyRefuse),
        (Err(()), Ok(_)) => Some(Difference::WeRefuse),
        _ => None,
    }
}

/// The differences of a value to both oracles.
fn differences(kind: u16, value: &[u8]) -> Vec<(Oracle, Difference)> {
    let bytes = Wire::new(1).with(kind, value).0;
    let ours = by_us(kind, &bytes);
    let readings =
        [(Oracle::Stun, by_stun(kind, &bytes)), (Oracle::StunTypes, by_stun_types(kind, &bytes))];
    readings
        .into_iter()
        .filter_map(|(oracle, theirs)| Some((oracle, difference(&ours, &theirs?)?)))
        .collect()
}

fn is_explained(kind: u16, value: &[u8], oracle: Oracle, difference: Difference) -> bool {
    RULES.iter().any(|rule| {
        rule.oracle == oracle
            && rule.kinds.contains(&kind)
            && rule.difference == difference
            && (rule.applies)(value)
    })
}

#[test]
fn every_rule_has_an_example_that_shows_the_difference() {
    for rule in &RULES {
        let value = (rule.example)();
        assert!((rule.applies)(&value), "{}", rule.name);
        for &kind in rule.kinds {
            let found = differences(kind, &value);
            let expected = (rule.oracle, rule.difference);
            assert!(found.contains(&expected), "{} {kind:#06x}: {found:?}", rule.name);
        }
        assert!(!rule.reason.is_empty());
    }
}

fn kind_and_value() -> impl Strategy<Value = (u16, Vec<u8>)> {
    let length = prop_oneof![
        6 => 0_usize..=12,
        2 => Just(20),
        1 => Just(32),
        2 => 0_usize..=40,
        1 => 510_usize..=515,
        1 => 760_usize..=770,
    ];
    let byte = prop_oneof![3 => 0_u8..=7, 2 => Just(0x40), 2 => Just(b'x'), 1 => any::<u8>()];
    let mixed = length.clone().prop_flat_map(move |length| vec(byte.clone(), length));
    let text = length.prop_map(|length| vec![b'x'; length]);
    let address = (0_u8..3, 0_u8..4, vec(any::<u8>(), 0..20))
        .prop_map(|(first, family, rest)| [vec![first, family], rest].concat());
    let number = proptest::sample::select(&[0_u8, 38, 99, 100, 255][..]);
    let reason = prop_oneof!["\\PC{0,9}", (762_usize..=765).prop_map(|length| "x".repeat(length))];
    let code = (any::<[u8; 2]>(), 0_u8..=15, number, reason).prop_map(
        |(reserved, class, number, reason)| {
            [&reserved[..], &[class, number], reason.as_bytes()].concat()
        },
    );
    let code = (Just(0x0009), code);
    let any_kind = proptest::sample::select(&Item::KINDS[..]);
    let any_value = prop_oneof![3 => mixed, 1 => text, 1 => address];
    prop_oneof![9 => (any_kind, any_value), 1 => code]
}

proptest! {
    #![proptest_config(config(3_000))]

    #[test]
    fn values_right_or_wrong_are_read_alike((kind, value) in kind_and_value()) {
        for (oracle, difference) in differences(kind, &value) {
            prop_assert!(
                is_explained(kind, &value, oracle, difference),
                "{:#06x} {:?} {:?}", kind, oracle, difference
            );
        }
    }
}
