//! One attribute of each type, written and read by three codecs.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hairpin::stun::attribute::*;
use hairpin::stun::{AddressFamily, Builder, ChannelNumber, Malformed, Message, TransactionId};
use proptest::collection::vec;
use proptest::prelude::*;
use stun::message::Setter;
use stun_types::attribute as theirs;
use stun_types::message::{MessageWriteExt, MessageWriteVec};

/// An attribute of each kind that the codec knows, and four that it does not.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Item {
    AdditionalFamily(u8),
    AddressErrorCode(u8, u16),
    /// A family of texts: USERNAME, REALM, NONCE, SOFTWARE, ALTERNATE-DOMAIN.
    Text(u16, String),
    /// MAPPED-ADDRESS, ALTERNATE-SERVER and the three XOR-ed ones.
    Address(u16, SocketAddr),
    ChannelNumber(u16),
    Data(Vec<u8>),
    DontFragment,
    ErrorCode(u16, String),
    EvenPort(bool),
    Icmp(u8, u16, u32),
    Lifetime(u32),
    Opaque(u16, Vec<u8>),
    PasswordAlgorithm(u16, Vec<u8>),
    PasswordAlgorithms(Vec<u8>),
    RequestedFamily(u8),
    Token([u8; 8]),
    Transport(u8),
    UnknownAttributes(Vec<u16>),
    UserHash([u8; 32]),
}

/// An attribute that the codec has no type for.
struct Opaque<'a, const KIND: u16>(&'a [u8]);

impl<'a, const KIND: u16> Attribute<'a> for Opaque<'a, KIND> {
    const TYPE: AttributeType = AttributeType(KIND);
    fn decode(value: &'a [u8], _: TransactionId) -> Result<Self, Malformed> {
        Ok(Self(value))
    }
    fn encode(&self, _: TransactionId, out: &mut Vec<u8>) {
        out.extend(self.0);
    }
}

impl Item {
    /// The types that the codec reads.
    pub(crate) const KINDS: [u16; 26] = [
        0x0001, 0x0006, 0x0009, 0x000A, 0x000C, 0x000D, 0x0012, 0x0013, 0x0014, 0x0015, 0x0016,
        0x0017, 0x0018, 0x0019, 0x001A, 0x001D, 0x001E, 0x0020, 0x0022, 0x8000, 0x8001, 0x8002,
        0x8003, 0x8004, 0x8022, 0x8023,
    ];

    pub(crate) fn kind(&self) -> u16 {
        match self {
            Self::Text(kind, _) | Self::Address(kind, _) | Self::Opaque(kind, _) => *kind,
            Self::ErrorCode(..) => 0x0009,
            Self::UnknownAttributes(_) => 0x000A,
            Self::ChannelNumber(_) => 0x000C,
            Self::Lifetime(_) => 0x000D,
            Self::Data(_) => 0x0013,
            Self::RequestedFamily(_) => 0x0017,
            Self::EvenPort(_) => 0x0018,
            Self::Transport(_) => 0x0019,
            Self::DontFragment => 0x001A,
            Self::PasswordAlgorithm(..) => 0x001D,
            Self::UserHash(_) => 0x001E,
            Self::Token(_) => 0x0022,
            Self::AdditionalFamily(_) => 0x8000,
            Self::AddressErrorCode(..) => 0x8001,
            Self::PasswordAlgorithms(_) => 0x8002,
            Self::Icmp(..) => 0x8004,
        }
    }

    pub(crate) fn put_by_us<'b>(&self, builder: Builder<'b>) -> Builder<'b> {
        let family = |byte: u8| AddressFamily::from_byte(byte).unwrap();
        match self {
            Self::AdditionalFamily(byte) => builder.put(&AdditionalAddressFamily(family(*byte))),
            Self::AddressErrorCode(byte, number) => {
                builder.put(&AddressErrorCode { family: family(*byte), number: *number })
            }
            Self::Text(0x0006, text) => builder.put(&Username(text)),
            Self::Text(0x0014, text) => builder.put(&Realm(text)),
            Self::Text(0x0015, text) => builder.put(&Nonce(text)),
            Self::Text(0x8003, text) => builder.put(&AlternateDomain(text)),
            Self::Text(_, text) => builder.put(&Software(text)),
            Self::Address(0x0001, address) => builder.put(&MappedAddress(*address)),
            Self::Address(0x0012, address) => builder.put(&XorPeerAddress(*address)),
            Self::Address(0x0016, address) => builder.put(&XorRelayedAddress(*address)),
            Self::Address(0x0020, address) => builder.put(&XorMappedAddress(*address)),
            Self::Address(_, address) => builder.put(&AlternateServer(*address)),
            Self::ChannelNumber(number) => {
                builder.put(&ChannelNumberAttribute(ChannelNumber::new(*number).unwrap()))
            }
            Self::Data(data) => builder.put(&Data(data)),
            Self::DontFragment => builder.put(&DontFragment),
            Self::ErrorCode(number, reason) => builder.put(&ErrorCode { number: *number, reason }),
            Self::EvenPort(reserve) => builder.put(&EvenPort { reserve: *reserve }),
            &Self::Icmp(kind, code, data) => builder.put(&Icmp { kind, code, data }),
            Self::Lifetime(seconds) => builder.put(&Lifetime(*seconds)),
            Self::Opaque(0x0024, value) => builder.put(&Opaque::<0x0024>(value)),
            Self::Opaque(0x0025, value) => builder.put(&Opaque::<0x0025>(value)),
            Self::Opaque(0x7F00, value) => builder.put(&Opaque::<0x7F00>(value)),
            Self::Opaque(_, value) => builder.put(&Opaque::<0xC057>(value)),
            Self::PasswordAlgorithm(number, parameters) => {
                builder.put(&PasswordAlgorithm { number: *number, parameters })
            }
            Self::PasswordAlgorithms(list) => builder.put(&PasswordAlgorithms(list)),
            Self::RequestedFamily(byte) => builder.put(&RequestedAddressFamily(family(*byte))),
            Self::Token(token) => builder.put(&ReservationToken(*token)),
            Self::Transport(protocol) => builder.put(&RequestedTransport(*protocol)),
            Self::UnknownAttributes(kinds) => {
                let kinds: Vec<_> = kinds.iter().copied().map(AttributeType).collect();
                builder.unknown_attributes(&kinds)
            }
            Self::UserHash(hash) => builder.put(&UserHash(*hash)),
        }
    }

    /// The first attribute of this type: `None` where absent.
    pub(crate) fn read_by_us(kind: u16, message: &Message<'_>) -> Option<Result<Self, Malformed>> {
        fn read<'a, A: Attribute<'a>>(
            message: &Message<'a>,
            item: impl FnOnce(A) -> Item,
        ) -> Option<Result<Item, Malformed>> {
            message.read::<A>().map(|read| read.map(item)).transpose()
        }
        match kind {
            0x0001 => read(message, |MappedAddress(it)| Self::Address(kind, it)),
            0x0006 => read(message, |Username(it)| Self::Text(kind, it.into())),
            0x0009 => {
                read(message, |it: ErrorCode<'_>| Self::ErrorCode(it.number, it.reason.into()))
            }
            0x000A => {
                let (_, value) = message.attributes().find(|(other, _)| other.0 == kind)?;
                Some(UnknownAttributes::types(value).map(|types| {
                    Self::UnknownAttributes(types.into_iter().map(|kind| kind.0).collect())
                }))
            }
            0x000C => read(message, |ChannelNumberAttribute(it)| Self::ChannelNumber(it.number())),
            0x000D => read(message, |Lifetime(it)| Self::Lifetime(it)),
            0x0012 => read(message, |XorPeerAddress(it)| Self::Address(kind, it)),
            0x0013 => read(message, |Data(it)| Self::Data(it.into())),
            0x0014 => read(message, |Realm(it)| Self::Text(kind, it.into())),
            0x0015 => read(message, |Nonce(it)| Self::Text(kind, it.into())),
            0x0016 => read(message, |XorRelayedAddress(it)| Self::Address(kind, it)),
            0x0017 => read(message, |RequestedAddressFamily(it)| Self::RequestedFamily(it.byte())),
            0x0018 => read(message, |EvenPort { reserve }| Self::EvenPort(reserve)),
            0x0019 => read(message, |RequestedTransport(it)| Self::Transport(it)),
            0x001A => read(message, |DontFragment| Self::DontFragment),
            0x001D => read(message, |it: PasswordAlgorithm<'_>| {
                Self::PasswordAlgorithm(it.number, it.parameters.into())
            }),
            0x001E => read(message, |UserHash(it)| Self::UserHash(it)),
            0x0020 => read(message, |XorMappedAddress(it)| Self::Address(kind, it)),
            0x0022 => read(message, |ReservationToken(it)| Self::Token(it)),
            0x8000 => {
                read(message, |AdditionalAddressFamily(it)| Self::AdditionalFamily(it.byte()))
            }
            0x8001 => read(message, |it: AddressErrorCode| {
                Self::AddressErrorCode(it.family.byte(), it.number)
            }),
            0x8002 => read(message, |PasswordAlgorithms(it)| Self::PasswordAlgorithms(it.into())),
            0x8003 => read(message, |AlternateDomain(it)| Self::Text(kind, it.into())),
            0x8004 => read(message, |Icmp { kind, code, data }| Self::Icmp(kind, code, data)),
            0x8022 => read(message, |Software(it)| Self::Text(kind, it.into())),
            0x8023 => read(message, |AlternateServer(it)| Self::Address(kind, it)),
            _ => read(message, |Opaque(it): Opaque<'_, 0x7F00>| Self::Opaque(0x7F00, it.into())),
        }
    }

    /// By `stun` and, for what is TURN's, by the `turn` crate on top of it.
    pub(crate) fn put_by_stun(&self, message: &mut stun::message::Message, raw: &[u8]) {
        use turn::proto;
        let port_and_ip =
            |address: &SocketAddr| -> (IpAddr, u16) { (address.ip(), address.port()) };
        match self {
            Self::Text(kind @ (0x0006 | 0x0014 | 0x0015 | 0x8022), text) => {
                let kind = stun::attributes::AttrType(*kind);
                stun::textattrs::TextAttribute::new(kind, text.clone()).add_to(message)
            }
            Self::Address(kind @ (0x0001 | 0x8023), address) => {
                let (ip, port) = port_and_ip(address);
                let kind = stun::attributes::AttrType(*kind);
                stun::addr::MappedAddress { ip, port }.add_to_as(message, kind)
            }
            Self::Address(0x0012, address) => {
                let (ip, port) = port_and_ip(address);
                proto::peeraddr::PeerAddress { ip, port }.add_to(message)
            }
            Self::Address(0x0016, address) => {
                let (ip, port) = port_and_ip(address);
                proto::relayaddr::RelayedAddress { ip, port }.add_to(message)
            }
            Self::Address(_, address) => {
                let (ip, port) = port_and_ip(address);
                stun::xoraddr::XorMappedAddress { ip, port }.add_to(message)
            }
            Self::ErrorCode(number, reason) => stun::error_code::ErrorCodeAttribute {
                code: stun::error_code::ErrorCode(*number),
                reason: reason.clone().into_bytes(),
            }
            .add_to(message),
            Self::UnknownAttributes(kinds) => {
                let kinds = kinds.iter().copied().map(stun::attributes::AttrType).collect();
                stun::uattrs::UnknownAttributes(kinds).add_to(message)
            }
            Self::ChannelNumber(number) => proto::channum::ChannelNumber(*number).add_to(message),
            Self::Lifetime(seconds) => {
                proto::lifetime::Lifetime(Duration::from_secs((*seconds).into())).add_to(message)
            }
            Self::Data(data) => proto::data::Data(data.clone()).add_to(message),
            Self::RequestedFamily(byte) => {
                proto::reqfamily::RequestedAddressFamily(*byte).add_to(message)
            }
            Self::Transport(protocol) => {
                let protocol = proto::Protocol(*protocol);
                proto::reqtrans::RequestedTransport { protocol }.add_to(message)
            }
            Self::DontFragment => proto::dontfrag::DontFragmentAttr.add_to(message),
            Self::Token(token) => {
                proto::rsrvtoken::ReservationToken(token.to_vec()).add_to(message)
            }
            other => {
                message.add(stun::attributes::AttrType(other.kind()), raw);
                Ok(())
            }
        }
        .unwrap();
    }

    pub(crate) fn put_by_stun_types(&self, message: &mut MessageWriteVec, raw: &[u8]) {
        let id = message.transaction_id();
        let written = match self {
            Self::Text(0x0006, it) => message.add_attribute(&theirs::Username::new(it).unwrap()),
            Self::Text(0x0014, it) => message.add_attribute(&theirs::Realm::new(it).unwrap()),
            Self::Text(0x0015, it) => message.add_attribute(&theirs::Nonce::new(it).unwrap()),
            Self::Text(0x8003, it) => message.add_attribute(&theirs::AlternateDomain::new(it)),
            Self::Text(_, it) => message.add_attribute(&theirs::Software::new(it).unwrap()),
            Self::Address(0x0020, it) => {
                message.add_attribute(&theirs::XorMappedAddress::new(*it, id))
            }
            Self::Address(0x8023, it) => message.add_attribute(&theirs::AlternateServer::new(*it)),
            Self::Address(0x0001, it) => {
                message.add_attribute(&theirs::MappedSocketAddr::new(*it).to_raw(0x0001.into()))
            }
            Self::Address(kind, it) => {
                message.add_attribute(&theirs::XorSocketAddr::new(*it, id).to_raw((*kind).into()))
            }
            Self::ErrorCode(number, reason) => {
                message.add_attribute(&theirs::ErrorCode::new(*number, reason).unwrap())
            }
            Self::UnknownAttributes(kinds) => {
                let kinds: Vec<_> = kinds.iter().map(|&kind| kind.into()).collect();
                message.add_attribute(&theirs::UnknownAttributes::new(&kinds))
            }
            Self::UserHash(hash) => message.add_attribute(&theirs::Userhash::new(*hash)),
            Self::PasswordAlgorithm(number @ 1..=2, parameters) if parameters.is_empty() => {
                let algorithm = if *number == 1 {
                    theirs::PasswordAlgorithmValue::MD5
                } else {
                    theirs::PasswordAlgorithmValue::SHA256
                };
                message.add_attribute(&theirs::PasswordAlgorithm::new(algorithm))
            }
            other => message.add_attribute(&theirs::RawAttribute::new(other.kind().into(), raw)),
        };
        written.unwrap();
    }
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof!["\\PC{0,20}", (500_usize..=509).prop_map(|length| "x".repeat(length))]
}

fn address() -> impl Strategy<Value = SocketAddr> {
    let ip = prop_oneof![
        any::<[u8; 4]>().prop_map(IpAddr::from),
        any::<[u8; 16]>().prop_map(IpAddr::from)
    ];
    (ip, any::<u16>()).prop_map(SocketAddr::from)
}

pub(crate) fn item() -> impl Strategy<Value = Item> {
    let text_kind = proptest::sample::select(&[0x0006_u16, 0x0014, 0x0015, 0x8003, 0x8022][..]);
    let address_kind = proptest::sample::select(&[0x0001_u16, 0x0012, 0x0016, 0x0020, 0x8023][..]);
    let opaque_kind = proptest::sample::select(&[0x0024_u16, 0x0025, 0x7F00, 0xC057][..]);
    let algorithm = proptest::sample::select(&[[0, 1, 0, 0], [0, 2, 0, 0]][..]);
    let bytes = |max| vec(any::<u8>(), 0..max);
    prop_oneof![
        5 => (text_kind, text()).prop_map(|(kind, text)| Item::Text(kind, text)),
        5 => (address_kind, address()).prop_map(|(kind, address)| Item::Address(kind, address)),
        2 => (opaque_kind, bytes(20)).prop_map(|(kind, value)| Item::Opaque(kind, value)),
        1 => (1_u8..=2).prop_map(Item::AdditionalFamily),
        1 => (1_u8..=2).prop_map(Item::RequestedFamily),
        1 => (1_u8..=2, 300_u16..700).prop_map(|(byte, number)| Item::AddressErrorCode(byte, number)),
        1 => (0x4000_u16..=0x4FFF).prop_map(Item::ChannelNumber),
        1 => bytes(1_500).prop_map(Item::Data),
        1 => Just(Item::DontFragment),
        1 => (300_u16..700, text()).prop_map(|(number, reason)| Item::ErrorCode(number, reason)),
        1 => any::<bool>().prop_map(Item::EvenPort),
        1 => (0_u8..0x80, 0_u16..0x200, any::<u32>())
            .prop_map(|(kind, code, data)| Item::Icmp(kind, code, data)),
        1 => any::<u32>().prop_map(Item::Lifetime),
        1 => (1_u16..=3, prop_oneof![Just(vec![]), bytes(9)])
            .prop_map(|(number, parameters)| Item::PasswordAlgorithm(number, parameters)),
        1 => vec(algorithm, 1..3).prop_map(|list| Item::PasswordAlgorithms(list.concat())),
        1 => any::<[u8; 8]>().prop_map(Item::Token),
        1 => any::<u8>().prop_map(Item::Transport),
        1 => vec(any::<u16>(), 0..6).prop_map(Item::UnknownAttributes),
        1 => any::<[u8; 32]>().prop_map(Item::UserHash),
    ]
}
