//! The attributes of RFC 8489 §14, RFC 8656 §18 and RFC 6062 §6.2, one type each.
//!
//! A type says how its value is laid out; [`Message::read`](super::Message::read) finds it in a
//! message, [`Builder::put`](super::Builder::put) writes it. Lengths are in bytes without padding.

mod discovery;
mod mobility;

use std::net::SocketAddr;

pub use discovery::{ChangeRequest, OtherAddress, Padding, ResponseOrigin};
pub use mobility::MobilityTicket;

use super::address::{self, AddressFamily};
use super::channel::{ChannelNumber, ChannelRange};
use super::error::Malformed;
use super::message::TransactionId;

/// The 16-bit type of an attribute.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct AttributeType(pub u16);

/// In the order of their numbers (RFC 8489 §18.3, RFC 8656 §18, RFC 5780 §7, RFC 6062 §6.2).
impl AttributeType {
    pub const MAPPED_ADDRESS: Self = Self(0x0001);
    pub const CHANGE_REQUEST: Self = Self(0x0003);
    pub const USERNAME: Self = Self(0x0006);
    pub const MESSAGE_INTEGRITY: Self = Self(0x0008);
    pub const ERROR_CODE: Self = Self(0x0009);
    pub const UNKNOWN_ATTRIBUTES: Self = Self(0x000A);
    pub const CHANNEL_NUMBER: Self = Self(0x000C);
    pub const LIFETIME: Self = Self(0x000D);
    pub const XOR_PEER_ADDRESS: Self = Self(0x0012);
    pub const DATA: Self = Self(0x0013);
    pub const REALM: Self = Self(0x0014);
    pub const NONCE: Self = Self(0x0015);
    pub const XOR_RELAYED_ADDRESS: Self = Self(0x0016);
    pub const REQUESTED_ADDRESS_FAMILY: Self = Self(0x0017);
    pub const EVEN_PORT: Self = Self(0x0018);
    pub const REQUESTED_TRANSPORT: Self = Self(0x0019);
    pub const DONT_FRAGMENT: Self = Self(0x001A);
    pub const MESSAGE_INTEGRITY_SHA256: Self = Self(0x001C);
    pub const PASSWORD_ALGORITHM: Self = Self(0x001D);
    pub const USERHASH: Self = Self(0x001E);
    pub const XOR_MAPPED_ADDRESS: Self = Self(0x0020);
    pub const RESERVATION_TOKEN: Self = Self(0x0022);
    pub const PRIORITY: Self = Self(0x0024);
    pub const USE_CANDIDATE: Self = Self(0x0025);
    pub const PADDING: Self = Self(0x0026);
    pub const RESPONSE_PORT: Self = Self(0x0027);
    pub const CONNECTION_ID: Self = Self(0x002A);
    pub const ADDITIONAL_ADDRESS_FAMILY: Self = Self(0x8000);
    pub const ADDRESS_ERROR_CODE: Self = Self(0x8001);
    pub const PASSWORD_ALGORITHMS: Self = Self(0x8002);
    pub const ALTERNATE_DOMAIN: Self = Self(0x8003);
    pub const ICMP: Self = Self(0x8004);
    pub const SOFTWARE: Self = Self(0x8022);
    pub const ALTERNATE_SERVER: Self = Self(0x8023);
    pub const FINGERPRINT: Self = Self(0x8028);
    pub const RESPONSE_ORIGIN: Self = Self(0x802B);
    pub const OTHER_ADDRESS: Self = Self(0x802C);
    pub const MOBILITY_TICKET: Self = Self(0x8030);

    /// Whether a receiver that does not know this type must refuse the message (RFC 8489 §14).
    #[must_use]
    pub fn is_comprehension_required(self) -> bool {
        self.0 < 0x8000
    }
}

/// A value with a layout of its own.
pub trait Attribute<'a>: Sized {
    /// The type it goes under.
    const TYPE: AttributeType;
    /// Reads a value, of exactly the attribute's length.
    fn decode(value: &'a [u8], id: TransactionId) -> Result<Self, Malformed>;
    /// Appends the value without padding.
    fn encode(&self, id: TransactionId, out: &mut Vec<u8>);
}

/// Text attributes: UTF-8, at most 763 bytes when reading (RFC 8489 §14.3, §14.8–§14.10).
const TEXT_LEN_MAX: usize = 763;

macro_rules! text_attribute {
    ($(#[$doc:meta])* $name:ident, $kind:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        pub struct $name<'a>(pub &'a str);

        impl<'a> Attribute<'a> for $name<'a> {
            const TYPE: AttributeType = AttributeType::$kind;
            fn decode(value: &'a [u8], _: TransactionId) -> Result<Self, Malformed> {
                if value.len() > TEXT_LEN_MAX {
                    return Err(Malformed);
                }
                std::str::from_utf8(value).map(Self).map_err(|_| Malformed)
            }
            fn encode(&self, _: TransactionId, out: &mut Vec<u8>) {
                out.extend(self.0.as_bytes());
            }
        }
    };
}

text_attribute!(
    /// Who asks (RFC 8489 §14.3).
    Username, USERNAME
);
text_attribute!(
    /// Where the name and password hold (RFC 8489 §14.9).
    Realm, REALM
);
text_attribute!(
    /// The server's proof that it saw this client (RFC 8489 §14.10).
    Nonce, NONCE
);
text_attribute!(
    /// The software's name, informative (RFC 8489 §14.14).
    Software, SOFTWARE
);
text_attribute!(
    /// The domain of ALTERNATE-SERVER's certificate (RFC 8489 §14.16).
    AlternateDomain, ALTERNATE_DOMAIN
);

macro_rules! address_attribute {
    ($(#[$doc:meta])* $name:ident, $kind:ident, $decode:expr, $encode:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        pub struct $name(pub SocketAddr);

        impl Attribute<'_> for $name {
            const TYPE: AttributeType = AttributeType::$kind;
            fn decode(value: &[u8], id: TransactionId) -> Result<Self, Malformed> {
                $decode(value, id).map(Self)
            }
            fn encode(&self, id: TransactionId, out: &mut Vec<u8>) {
                $encode(self.0, id, out);
            }
        }
    };
}
use address_attribute;

address_attribute!(
    /// The reflexive address in plain, for RFC 3489-minded clients (RFC 8489 §14.1).
    MappedAddress, MAPPED_ADDRESS,
    |value, _| address::decode(value),
    |value, _, out| address::encode(value, out)
);
address_attribute!(
    /// Where else to ask (RFC 8489 §14.15).
    AlternateServer, ALTERNATE_SERVER,
    |value, _| address::decode(value),
    |value, _, out| address::encode(value, out)
);
address_attribute!(
    /// The reflexive address of the client (RFC 8489 §14.2).
    XorMappedAddress, XOR_MAPPED_ADDRESS, address::decode_xor, address::encode_xor
);
address_attribute!(
    /// A peer's transport address (RFC 8656 §18.3).
    XorPeerAddress, XOR_PEER_ADDRESS, address::decode_xor, address::encode_xor
);
address_attribute!(
    /// The relayed transport address of an allocation (RFC 8656 §18.5).
    XorRelayedAddress, XOR_RELAYED_ADDRESS, address::decode_xor, address::encode_xor
);

/// A code and, for people, a phrase (RFC 8489 §14.8).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ErrorCode<'a> {
    /// 300 to 699.
    pub number: u16,
    /// May be empty; this server sends none, so that replies stay small.
    pub reason: &'a str,
}

impl<'a> Attribute<'a> for ErrorCode<'a> {
    const TYPE: AttributeType = AttributeType::ERROR_CODE;
    fn decode(value: &'a [u8], _: TransactionId) -> Result<Self, Malformed> {
        let (&[_, _, class, number], reason) = value.split_first_chunk().ok_or(Malformed)?;
        let class = u16::from(class & 0b111);
        let number = u16::from(number);
        if !(3..=6).contains(&class) || number > 99 || reason.len() > TEXT_LEN_MAX {
            return Err(Malformed);
        }
        let reason = std::str::from_utf8(reason).map_err(|_| Malformed)?;
        Ok(Self { number: class.saturating_mul(100).saturating_add(number), reason })
    }
    fn encode(&self, _: TransactionId, out: &mut Vec<u8>) {
        let [_, class] = (self.number / 100).to_be_bytes();
        let [_, number] = (self.number % 100).to_be_bytes();
        out.extend([0, 0, class, number]);
        out.extend(self.reason.as_bytes());
    }
}

/// The types a 420 complains of (RFC 8489 §14.13): pairs of bytes, in network order.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct UnknownAttributes<'a>(pub &'a [AttributeType]);

impl UnknownAttributes<'_> {
    /// Reads the list of a 420; an odd number of bytes is malformed.
    pub fn types(value: &[u8]) -> Result<Vec<AttributeType>, Malformed> {
        let (pairs, []) = value.as_chunks::<2>() else { return Err(Malformed) };
        Ok(pairs.iter().map(|&pair| AttributeType(u16::from_be_bytes(pair))).collect())
    }

    /// Appends the list without padding.
    pub fn encode(&self, out: &mut Vec<u8>) {
        for kind in self.0 {
            out.extend(kind.0.to_be_bytes());
        }
    }
}

/// The channel a request is about (RFC 8656 §18.1): two bytes and two reserved ones. May be one
/// that only RFC 5766 had.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ChannelNumberAttribute(pub ChannelNumber);

impl Attribute<'_> for ChannelNumberAttribute {
    const TYPE: AttributeType = AttributeType::CHANNEL_NUMBER;
    fn decode(value: &[u8], _: TransactionId) -> Result<Self, Malformed> {
        let &[n0, n1, _, _] = exactly(value)?;
        ChannelRange::Rfc5766.number(u16::from_be_bytes([n0, n1])).map(Self)
    }
    fn encode(&self, _: TransactionId, out: &mut Vec<u8>) {
        out.extend(self.0.number().to_be_bytes());
        out.extend([0, 0]);
    }
}

/// Seconds an allocation is to live, or lives (RFC 8656 §18.2).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Lifetime(pub u32);

impl Attribute<'_> for Lifetime {
    const TYPE: AttributeType = AttributeType::LIFETIME;
    fn decode(value: &[u8], _: TransactionId) -> Result<Self, Malformed> {
        exactly(value).map(|&seconds| Self(u32::from_be_bytes(seconds)))
    }
    fn encode(&self, _: TransactionId, out: &mut Vec<u8>) {
        out.extend(self.0.to_be_bytes());
    }
}

/// Application data in a Send or Data indication (RFC 8656 §18.4). May be empty.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Data<'a>(pub &'a [u8]);

impl<'a> Attribute<'a> for Data<'a> {
    const TYPE: AttributeType = AttributeType::DATA;
    fn decode(value: &'a [u8], _: TransactionId) -> Result<Self, Malformed> {
        Ok(Self(value))
    }
    fn encode(&self, _: TransactionId, out: &mut Vec<u8>) {
        out.extend(self.0);
    }
}

macro_rules! family_attribute {
    ($(#[$doc:meta])* $name:ident, $kind:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        pub struct $name(pub AddressFamily);

        impl Attribute<'_> for $name {
            const TYPE: AttributeType = AttributeType::$kind;
            fn decode(value: &[u8], _: TransactionId) -> Result<Self, Malformed> {
                let &[family, _, _, _] = exactly(value)?;
                AddressFamily::from_byte(family).map(Self)
            }
            fn encode(&self, _: TransactionId, out: &mut Vec<u8>) {
                out.extend([self.0.byte(), 0, 0, 0]);
            }
        }
    };
}

family_attribute!(
    /// The family the relayed address shall have (RFC 8656 §18.6).
    RequestedAddressFamily, REQUESTED_ADDRESS_FAMILY
);
family_attribute!(
    /// A second family to allocate as well (RFC 8656 §18.11).
    AdditionalAddressFamily, ADDITIONAL_ADDRESS_FAMILY
);

/// Asks for an even port, and with `reserve` for the next one too (RFC 8656 §18.7). One byte.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct EvenPort {
    /// The R bit.
    pub reserve: bool,
}

impl Attribute<'_> for EvenPort {
    const TYPE: AttributeType = AttributeType::EVEN_PORT;
    fn decode(value: &[u8], _: TransactionId) -> Result<Self, Malformed> {
        exactly(value).map(|&[byte]| Self { reserve: byte & 0x80 != 0 })
    }
    fn encode(&self, _: TransactionId, out: &mut Vec<u8>) {
        out.push(u8::from(self.reserve) << 7);
    }
}

/// The protocol between relay and peer: 17 is UDP, 6 TCP (RFC 8656 §18.8).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RequestedTransport(pub u8);

impl RequestedTransport {
    /// The number of TCP.
    pub const TCP: Self = Self(6);
    /// The number of UDP.
    pub const UDP: Self = Self(17);
}

impl Attribute<'_> for RequestedTransport {
    const TYPE: AttributeType = AttributeType::REQUESTED_TRANSPORT;
    fn decode(value: &[u8], _: TransactionId) -> Result<Self, Malformed> {
        exactly(value).map(|&[protocol, _, _, _]| Self(protocol))
    }
    fn encode(&self, _: TransactionId, out: &mut Vec<u8>) {
        out.extend([self.0, 0, 0, 0]);
    }
}

/// Asks for the DF bit towards the peer (RFC 8656 §18.9). No value.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct DontFragment;

impl Attribute<'_> for DontFragment {
    const TYPE: AttributeType = AttributeType::DONT_FRAGMENT;
    fn decode(value: &[u8], _: TransactionId) -> Result<Self, Malformed> {
        exactly(value).map(|&[]| Self)
    }
    fn encode(&self, _: TransactionId, _: &mut Vec<u8>) {}
}

/// Names a port held by EVEN-PORT (RFC 8656 §18.10).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ReservationToken(pub [u8; 8]);

impl Attribute<'_> for ReservationToken {
    const TYPE: AttributeType = AttributeType::RESERVATION_TOKEN;
    fn decode(value: &[u8], _: TransactionId) -> Result<Self, Malformed> {
        exactly(value).copied().map(Self)
    }
    fn encode(&self, _: TransactionId, out: &mut Vec<u8>) {
        out.extend(self.0);
    }
}

/// Why the other family of a dual allocation is missing (RFC 8656 §18.12).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct AddressErrorCode {
    /// The family that could not be had.
    pub family: AddressFamily,
    /// 440 or 508.
    pub number: u16,
}

impl Attribute<'_> for AddressErrorCode {
    const TYPE: AttributeType = AttributeType::ADDRESS_ERROR_CODE;
    fn decode(value: &[u8], id: TransactionId) -> Result<Self, Malformed> {
        let family = AddressFamily::from_byte(*value.first().ok_or(Malformed)?)?;
        ErrorCode::decode(value, id).map(|error| Self { family, number: error.number })
    }
    fn encode(&self, _: TransactionId, out: &mut Vec<u8>) {
        let [_, class] = (self.number / 100).to_be_bytes();
        let [_, number] = (self.number % 100).to_be_bytes();
        out.extend([self.family.byte(), 0, class, number]);
    }
}

/// An ICMP error that came back from the peer's side (RFC 8656 §18.13). The widths are those of
/// the RFC's figure; not all implementations have looked at it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Icmp {
    /// 7 bits.
    pub kind: u8,
    /// 9 bits.
    pub code: u16,
    /// The next hop's MTU where the type has one, else 0.
    pub data: u32,
}

impl Attribute<'_> for Icmp {
    const TYPE: AttributeType = AttributeType::ICMP;
    fn decode(value: &[u8], _: TransactionId) -> Result<Self, Malformed> {
        let &[_, _, t0, t1, d0, d1, d2, d3] = exactly(value)?;
        Ok(Self {
            kind: t0 >> 1,
            code: u16::from_be_bytes([t0 & 1, t1]),
            data: u32::from_be_bytes([d0, d1, d2, d3]),
        })
    }
    fn encode(&self, _: TransactionId, out: &mut Vec<u8>) {
        out.extend(self.to_bytes());
    }
}

impl Icmp {
    /// The value on the wire.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 8] {
        let kind_and_code = u16::from(self.kind) << 9 | self.code & 0x01FF;
        let ([t0, t1], [d0, d1, d2, d3]) = (kind_and_code.to_be_bytes(), self.data.to_be_bytes());
        [0, 0, t0, t1, d0, d1, d2, d3]
    }
}

/// Names a connection between a relayed address and a peer (RFC 6062 §6.2.1).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct ConnectionId(pub u32);

impl Attribute<'_> for ConnectionId {
    const TYPE: AttributeType = AttributeType::CONNECTION_ID;
    fn decode(value: &[u8], _: TransactionId) -> Result<Self, Malformed> {
        exactly(value).map(|&id| Self(u32::from_be_bytes(id)))
    }
    fn encode(&self, _: TransactionId, out: &mut Vec<u8>) {
        out.extend(self.0.to_be_bytes());
    }
}

/// SHA-256 of "username:realm": the name without showing it (RFC 8489 §14.4).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct UserHash(pub [u8; 32]);

impl Attribute<'_> for UserHash {
    const TYPE: AttributeType = AttributeType::USERHASH;
    fn decode(value: &[u8], _: TransactionId) -> Result<Self, Malformed> {
        exactly(value).copied().map(Self)
    }
    fn encode(&self, _: TransactionId, out: &mut Vec<u8>) {
        out.extend(self.0);
    }
}

/// The algorithm the client derived its key with (RFC 8489 §14.12): number and parameters.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PasswordAlgorithm<'a> {
    /// 1 is MD5, 2 is SHA-256 (RFC 8489 §18.5).
    pub number: u16,
    /// Empty for both of them.
    pub parameters: &'a [u8],
}

impl<'a> Attribute<'a> for PasswordAlgorithm<'a> {
    const TYPE: AttributeType = AttributeType::PASSWORD_ALGORITHM;
    fn decode(value: &'a [u8], _: TransactionId) -> Result<Self, Malformed> {
        let (&[n0, n1, l0, l1], rest) = value.split_first_chunk().ok_or(Malformed)?;
        let length = usize::from(u16::from_be_bytes([l0, l1]));
        let (parameters, padding) = rest.split_at_checked(length).ok_or(Malformed)?;
        // The parameters are padded inside the value (RFC 8489 §14.12); not all senders do it.
        if !padding.is_empty() && rest.len() != length.next_multiple_of(4) {
            return Err(Malformed);
        }
        Ok(Self { number: u16::from_be_bytes([n0, n1]), parameters })
    }
    fn encode(&self, _: TransactionId, out: &mut Vec<u8>) {
        out.extend(self.number.to_be_bytes());
        let length = u16::try_from(self.parameters.len()).unwrap_or(u16::MAX);
        out.extend(length.to_be_bytes());
        out.extend(self.parameters.iter().take(usize::from(length)));
        let padding = usize::from(length).next_multiple_of(4).saturating_sub(length.into());
        out.extend([0; 3].iter().take(padding));
    }
}

/// The algorithms the server takes, best first, as bytes: a client must echo them unchanged
/// (RFC 8489 §14.11, §9.2.4), so they are compared and never interpreted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PasswordAlgorithms<'a>(pub &'a [u8]);

impl<'a> Attribute<'a> for PasswordAlgorithms<'a> {
    const TYPE: AttributeType = AttributeType::PASSWORD_ALGORITHMS;
    fn decode(value: &'a [u8], _: TransactionId) -> Result<Self, Malformed> {
        Ok(Self(value))
    }
    fn encode(&self, _: TransactionId, out: &mut Vec<u8>) {
        out.extend(self.0);
    }
}

fn exactly<const N: usize>(value: &[u8]) -> Result<&[u8; N], Malformed> {
    value.try_into().map_err(|_| Malformed)
}

#[cfg(test)]
mod tests;
