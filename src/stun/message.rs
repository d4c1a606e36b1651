//! The STUN message: header and attributes, borrowed from the datagram (RFC 8489 §5, §14).

use super::attribute::{Attribute, AttributeType};
use super::error::{Malformed, ParseError};
use super::integrity::{self, Integrity};

/// Bytes before the first attribute.
pub const HEADER_LEN: usize = 20;
/// Bytes before the value of an attribute.
pub const ATTRIBUTE_HEADER_LEN: usize = 4;
/// The constant in bytes 4 to 7 of each message, in network byte order.
pub const MAGIC_COOKIE: u32 = 0x2112_A442;

/// The 96 random bits that tie a response to its request.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct TransactionId(pub [u8; 12]);

/// Two bits of the message type (RFC 8489 §5). In the order of their values.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Class {
    /// 0b00: wants a response.
    Request,
    /// 0b01: wants none.
    Indication,
    /// 0b10: the request was carried out.
    Success,
    /// 0b11: the request was refused.
    Error,
}

/// The methods a TURN server meets (RFC 8489 §18.2, RFC 8656 §17, RFC 6062 §6.1). In the order of their values.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Method {
    /// 0x001
    Binding,
    /// 0x003
    Allocate,
    /// 0x004
    Refresh,
    /// 0x006
    Send,
    /// 0x007
    Data,
    /// 0x008
    CreatePermission,
    /// 0x009
    ChannelBind,
    /// 0x00A
    Connect,
    /// 0x00B
    ConnectionBind,
    /// 0x00C
    ConnectionAttempt,
    /// Any other 12-bit number.
    Unknown(u16),
}

impl Method {
    fn from_number(number: u16) -> Self {
        match number {
            0x001 => Self::Binding,
            0x003 => Self::Allocate,
            0x004 => Self::Refresh,
            0x006 => Self::Send,
            0x007 => Self::Data,
            0x008 => Self::CreatePermission,
            0x009 => Self::ChannelBind,
            0x00A => Self::Connect,
            0x00B => Self::ConnectionBind,
            0x00C => Self::ConnectionAttempt,
            other => Self::Unknown(other),
        }
    }

    /// The 12-bit number.
    #[must_use]
    pub fn number(self) -> u16 {
        match self {
            Self::Binding => 0x001,
            Self::Allocate => 0x003,
            Self::Refresh => 0x004,
            Self::Send => 0x006,
            Self::Data => 0x007,
            Self::CreatePermission => 0x008,
            Self::ChannelBind => 0x009,
            Self::Connect => 0x00A,
            Self::ConnectionBind => 0x00B,
            Self::ConnectionAttempt => 0x00C,
            Self::Unknown(number) => number & 0x0FFF,
        }
    }
}

/// Interleaves method and class: the class bits are bits 4 and 8 of the type (RFC 8489 §5).
#[must_use]
pub fn message_type(method: Method, class: Class) -> u16 {
    let m = method.number();
    let c = match class {
        Class::Request => 0b0_0000_0000_0000,
        Class::Indication => 0b0_0000_0001_0000,
        Class::Success => 0b0_0001_0000_0000,
        Class::Error => 0b0_0001_0001_0000,
    };
    (m & 0b1111_1000_0000) << 2 | (m & 0b0000_0111_0000) << 1 | m & 0b0000_0000_1111 | c
}

/// The class bits of a message type.
pub(super) fn class_of(kind: u16) -> Class {
    match (kind & 0x0100 != 0, kind & 0x0010 != 0) {
        (false, false) => Class::Request,
        (false, true) => Class::Indication,
        (true, false) => Class::Success,
        (true, true) => Class::Error,
    }
}

/// All other bits of a message type.
pub(super) fn method_of(kind: u16) -> Method {
    Method::from_number((kind & 0x3E00) >> 2 | (kind & 0x00E0) >> 1 | kind & 0x000F)
}

/// A structurally valid STUN message.
///
/// Every attribute lies within the datagram, and the fingerprint, where there is one, is right.
/// Nothing is authenticated: that is [`Message::integrity`] and [`Integrity::verify`].
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    bytes: &'a [u8],
    integrity: Option<Integrity<'a>>,
    has_fingerprint: bool,
}

impl<'a> Message<'a> {
    /// Checks a whole datagram: the message must fill it exactly (RFC 8489 §5, §6.3).
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ParseError> {
        let (header, body) =
            bytes.split_first_chunk::<HEADER_LEN>().ok_or(ParseError::Truncated)?;
        let &[t0, _, l0, l1, c0, c1, c2, c3, ..] = header;
        if t0 & 0b1100_0000 != 0 {
            return Err(ParseError::NotStun);
        }
        if u32::from_be_bytes([c0, c1, c2, c3]) != MAGIC_COOKIE {
            return Err(ParseError::MagicCookie);
        }
        let length = usize::from(u16::from_be_bytes([l0, l1]));
        if length % 4 != 0 || length != body.len() {
            return Err(ParseError::Length);
        }
        Self::check_attributes(bytes, body)
    }

    /// One pass over all attributes, those behind the integrity too: their lengths must add up.
    fn check_attributes(bytes: &'a [u8], body: &'a [u8]) -> Result<Self, ParseError> {
        let mut message = Self { bytes, integrity: None, has_fingerprint: false };
        let mut rest = body;
        while !rest.is_empty() {
            if message.has_fingerprint {
                return Err(ParseError::Fingerprint);
            }
            let before = bytes.len().saturating_sub(rest.len());
            let (kind, value, tail) = split_attribute(rest).ok_or(ParseError::AttributeOverrun)?;
            rest = tail;
            match kind {
                AttributeType::FINGERPRINT => {
                    let covered = bytes.get(..before).unwrap_or_default();
                    if !integrity::fingerprint_matches(covered, value) {
                        return Err(ParseError::Fingerprint);
                    }
                    message.has_fingerprint = true;
                }
                AttributeType::MESSAGE_INTEGRITY | AttributeType::MESSAGE_INTEGRITY_SHA256 => {
                    let covered = bytes.get(..before).unwrap_or_default();
                    message.integrity = Integrity::prefer(message.integrity, kind, covered, value);
                }
                _ => {}
            }
        }
        Ok(message)
    }

    /// The class: two bits of the type.
    #[must_use]
    pub fn class(&self) -> Class {
        class_of(self.kind())
    }

    /// The method: twelve bits of the type.
    #[must_use]
    pub fn method(&self) -> Method {
        method_of(self.kind())
    }

    fn kind(&self) -> u16 {
        self.bytes.first_chunk().map_or(0, |&kind| u16::from_be_bytes(kind))
    }

    /// The transaction id, to be echoed.
    #[must_use]
    pub fn transaction_id(&self) -> TransactionId {
        let id = self.bytes.get(8..HEADER_LEN).and_then(|id| id.try_into().ok());
        TransactionId(id.unwrap_or_default())
    }

    /// The message as received.
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The integrity attribute that decides: MESSAGE-INTEGRITY-SHA256 where both are present
    /// (RFC 8489 §9.2.4).
    #[must_use]
    pub fn integrity(&self) -> Option<Integrity<'a>> {
        self.integrity
    }

    /// Whether the message carried a (correct) FINGERPRINT.
    #[must_use]
    pub fn has_fingerprint(&self) -> bool {
        self.has_fingerprint
    }

    /// The attributes a server may act on: those in front of the first integrity attribute
    /// (RFC 8489 §14.5, §14.6). What stands behind is not covered by it and so not seen.
    #[must_use]
    pub fn attributes(&self) -> Attributes<'a> {
        Attributes { rest: self.bytes.get(HEADER_LEN..).unwrap_or_default() }
    }

    /// The first attribute of type `T`: `None` where absent (RFC 8489 §14: of duplicates the
    /// first counts).
    pub fn read<T: Attribute<'a>>(&self) -> Result<Option<T>, Malformed> {
        let Some(value) = self.value(T::TYPE) else { return Ok(None) };
        T::decode(value, self.transaction_id()).map(Some)
    }

    /// Every attribute of type `T`, in their order.
    pub fn read_all<T: Attribute<'a>>(&self) -> impl Iterator<Item = Result<T, Malformed>> + 'a {
        let id = self.transaction_id();
        self.attributes()
            .filter(|&(kind, _)| kind == T::TYPE)
            .map(move |(_, value)| T::decode(value, id))
    }

    /// Whether an attribute of this type is there, whatever its value.
    #[must_use]
    pub fn has(&self, kind: AttributeType) -> bool {
        self.value(kind).is_some()
    }

    /// The bytes of the first attribute of this type.
    #[must_use]
    pub fn value(&self, wanted: AttributeType) -> Option<&'a [u8]> {
        self.attributes().find(|&(kind, _)| kind == wanted).map(|(_, value)| value)
    }
}

/// Iterator over type and value of the visible attributes; see [`Message::attributes`].
#[derive(Clone, Debug)]
pub struct Attributes<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (AttributeType, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (kind, value, tail) = split_attribute(self.rest)?;
        let ends = matches!(
            kind,
            AttributeType::MESSAGE_INTEGRITY
                | AttributeType::MESSAGE_INTEGRITY_SHA256
                | AttributeType::FINGERPRINT
        );
        if ends {
            self.rest = &[];
            return None;
        }
        self.rest = tail;
        Some((kind, value))
    }
}

/// Type, value and what follows the padding; `None` where the bytes do not suffice.
fn split_attribute(bytes: &[u8]) -> Option<(AttributeType, &[u8], &[u8])> {
    let (&[t0, t1, l0, l1], rest) = bytes.split_first_chunk::<ATTRIBUTE_HEADER_LEN>()?;
    let length = usize::from(u16::from_be_bytes([l0, l1]));
    let (padded, tail) = rest.split_at_checked(length.next_multiple_of(4))?;
    Some((AttributeType(u16::from_be_bytes([t0, t1])), padded.get(..length)?, tail))
}

#[cfg(test)]
mod tests;
