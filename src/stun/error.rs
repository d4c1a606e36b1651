//! What can be wrong with bytes, and the error codes a server answers with.

use std::fmt;

/// Why bytes are not a STUN message or a ChannelData message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ParseError {
    /// An attribute runs past the end of the message.
    AttributeOverrun,
    /// FINGERPRINT is malformed, not last, or does not match the bytes (RFC 8489 §14.7).
    Fingerprint,
    /// The header's length is not a multiple of four, or is not the number of bytes that follow.
    Length,
    /// The magic cookie is missing (RFC 8489 §5): an RFC 3489 client, or not STUN at all.
    MagicCookie,
    /// The first two bits are not zero.
    NotStun,
    /// Fewer bytes than the header needs.
    Truncated,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AttributeOverrun => "an attribute runs past the end of the message",
            Self::Fingerprint => "the fingerprint does not match",
            Self::Length => "the length field does not match the datagram",
            Self::MagicCookie => "the magic cookie is missing",
            Self::NotStun => "the first two bits are not zero",
            Self::Truncated => "shorter than a header",
        })
    }
}

impl std::error::Error for ParseError {}

/// An attribute is present, but its value cannot be what its type says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Malformed;

/// STUN error codes (RFC 8489 §14.8, RFC 8656 §19, RFC 6062 §6.3). In the order of their numbers.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Code {
    /// 300: the client should try the server in ALTERNATE-SERVER.
    TryAlternate,
    /// 400: the request is malformed.
    BadRequest,
    /// 401: credentials are missing or wrong.
    Unauthenticated,
    /// 403: the peer may not be reached through this server.
    Forbidden,
    /// 405: mobility is not to be had here (RFC 8016 §3.4).
    MobilityForbidden,
    /// 420: a comprehension-required attribute is not understood.
    UnknownAttribute,
    /// 437: the five-tuple has no allocation, or has one already.
    AllocationMismatch,
    /// 438: the nonce is no longer valid.
    StaleNonce,
    /// 440: relayed addresses of this family are not to be had.
    AddressFamilyNotSupported,
    /// 441: valid credentials, but not those of the allocation.
    WrongCredentials,
    /// 442: the server does not relay over this transport.
    UnsupportedTransport,
    /// 443: the peer's address family is not the allocation's.
    PeerAddressFamilyMismatch,
    /// 446: the allocation has a connection to this peer, or is about to.
    ConnectionAlreadyExists,
    /// 447: the peer could not be connected to.
    ConnectionFailed,
    /// 486: the user holds as many allocations as it may.
    AllocationQuotaReached,
    /// 500: the server failed; trying again may help.
    ServerError,
    /// 508: the server cannot carry out the request now.
    InsufficientCapacity,
}

impl Code {
    /// Every code, in the order of the numbers.
    pub const ALL: [Self; 17] = [
        Self::TryAlternate,
        Self::BadRequest,
        Self::Unauthenticated,
        Self::Forbidden,
        Self::MobilityForbidden,
        Self::UnknownAttribute,
        Self::AllocationMismatch,
        Self::StaleNonce,
        Self::AddressFamilyNotSupported,
        Self::WrongCredentials,
        Self::UnsupportedTransport,
        Self::PeerAddressFamilyMismatch,
        Self::ConnectionAlreadyExists,
        Self::ConnectionFailed,
        Self::AllocationQuotaReached,
        Self::ServerError,
        Self::InsufficientCapacity,
    ];

    /// The number on the wire, 300 to 699.
    #[must_use]
    pub fn number(self) -> u16 {
        match self {
            Self::TryAlternate => 300,
            Self::BadRequest => 400,
            Self::Unauthenticated => 401,
            Self::Forbidden => 403,
            Self::MobilityForbidden => 405,
            Self::UnknownAttribute => 420,
            Self::AllocationMismatch => 437,
            Self::StaleNonce => 438,
            Self::AddressFamilyNotSupported => 440,
            Self::WrongCredentials => 441,
            Self::UnsupportedTransport => 442,
            Self::PeerAddressFamilyMismatch => 443,
            Self::ConnectionAlreadyExists => 446,
            Self::ConnectionFailed => 447,
            Self::AllocationQuotaReached => 486,
            Self::ServerError => 500,
            Self::InsufficientCapacity => 508,
        }
    }
}
