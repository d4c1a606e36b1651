//! Requests and the Send indication, one file for each method; here is what they share.

pub(super) mod allocate;
mod binding;
mod channel_bind;
pub(super) mod connect;
mod connection_attempt;
pub(super) mod connection_bind;
mod create_permission;
mod refresh;
mod resume;
mod send;

use super::Now;
use super::allocation::{AllocationId, FiveTuple, PeerTransport};
use super::alternate::Alternate;
use super::auth::{Denial, User};
use super::policy::Forbidden;
use super::server::Server;
use crate::stun::attribute::{AttributeType, RequestedTransport};
use crate::stun::{Code, Malformed, Message};

/// A 420 names at most so many types, so that it stays smaller than what it answers.
const UNKNOWN_ATTRIBUTES_MAX: usize = 16;

/// An authentic request.
#[derive(Debug)]
pub(super) struct Request<'a> {
    pub(super) message: Message<'a>,
    pub(super) from: FiveTuple,
    pub(super) user: User,
    pub(super) now: Now,
}

/// Why a request is refused. Only `answer.rs` makes bytes of it.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Reject {
    /// Before it was known who asks.
    Denied(Denial),
    /// For a reason that a code says all about.
    Code(Code),
    /// 300, with the server to ask instead.
    Elsewhere(Alternate),
    /// 420, with the types in question.
    UnknownAttributes(Vec<AttributeType>),
}

impl Reject {
    pub(super) fn code(&self) -> Code {
        match self {
            Self::Denied(denial) => denial.code(),
            Self::Code(code) => *code,
            Self::Elsewhere(_) => Code::TryAlternate,
            Self::UnknownAttributes(_) => Code::UnknownAttribute,
        }
    }
}

impl From<Malformed> for Reject {
    fn from(_: Malformed) -> Self {
        Self::Code(Code::BadRequest)
    }
}

impl From<Forbidden> for Reject {
    fn from(_: Forbidden) -> Self {
        Self::Code(Code::Forbidden)
    }
}

impl From<Code> for Reject {
    fn from(code: Code) -> Self {
        Self::Code(code)
    }
}

/// RFC 8489 §6.3.1: a comprehension-required attribute that is not understood ends the request.
fn refuse_unknown(
    message: &Message<'_>,
    understood: impl Fn(AttributeType) -> bool,
) -> Result<(), Reject> {
    let mut unknown = Vec::new();
    for (kind, _) in message.attributes() {
        if unknown.len() == UNKNOWN_ATTRIBUTES_MAX {
            break;
        }
        // Once, so that many of one type do not hide another.
        if !understood(kind) && !unknown.contains(&kind) {
            unknown.push(kind);
        }
    }
    if unknown.is_empty() { Ok(()) } else { Err(Reject::UnknownAttributes(unknown)) }
}

/// RFC 6062 §5.1 knows DONT-FRAGMENT, if only to refuse it: Allocate does.
fn is_for_tcp(kind: AttributeType, message: &Message<'_>) -> bool {
    kind == AttributeType::DONT_FRAGMENT && message.read() == Ok(Some(RequestedTransport::TCP))
}

/// Understood, if only enough to know that it may be ignored where it is not expected
/// (RFC 8489 §6.3).
fn is_understood(kind: AttributeType) -> bool {
    !kind.is_comprehension_required()
        || matches!(
            kind,
            AttributeType::MAPPED_ADDRESS
                | AttributeType::USERNAME
                | AttributeType::ERROR_CODE
                | AttributeType::UNKNOWN_ATTRIBUTES
                | AttributeType::CHANNEL_NUMBER
                | AttributeType::LIFETIME
                | AttributeType::XOR_PEER_ADDRESS
                | AttributeType::DATA
                | AttributeType::REALM
                | AttributeType::NONCE
                | AttributeType::XOR_RELAYED_ADDRESS
                | AttributeType::REQUESTED_ADDRESS_FAMILY
                | AttributeType::EVEN_PORT
                | AttributeType::REQUESTED_TRANSPORT
                | AttributeType::PASSWORD_ALGORITHM
                | AttributeType::USERHASH
                | AttributeType::XOR_MAPPED_ADDRESS
                | AttributeType::RESERVATION_TOKEN
                | AttributeType::PRIORITY
                | AttributeType::USE_CANDIDATE
                | AttributeType::CONNECTION_ID
        )
}

impl Server {
    /// Whether an attribute is understood here. A server that cannot set the DF bit does not know
    /// DONT-FRAGMENT (RFC 8656 §7.2 (4), §11.2).
    pub(super) fn understands(&self, kind: AttributeType) -> bool {
        is_understood(kind) || kind == AttributeType::DONT_FRAGMENT && self.config.dont_fragment
    }

    /// RFC 8489 §6.3.1, for everything but Binding.
    pub(super) fn check_attributes(&self, message: &Message<'_>) -> Result<(), Reject> {
        refuse_unknown(message, |kind| self.understands(kind) || is_for_tcp(kind, message))
    }

    /// The allocation a request is about, if it is the asker's own (RFC 8656 §5).
    fn allocation_of(&self, request: &Request<'_>) -> Result<AllocationId, Reject> {
        let id = self.allocations.id_of_client(&request.from).ok_or(Code::AllocationMismatch)?;
        let allocation = self.allocations.get(id).ok_or(Code::AllocationMismatch)?;
        if allocation.username != request.user.name {
            return Err(Reject::Code(Code::WrongCredentials));
        }
        Ok(id)
    }

    /// The same, for what only one kind of allocation can do: where it is of the other kind, there
    /// is none for the request.
    fn allocation_over(
        &self,
        peers: PeerTransport,
        request: &Request<'_>,
    ) -> Result<AllocationId, Reject> {
        let id = self.allocation_of(request)?;
        match self.allocations.get(id) {
            Some(allocation) if allocation.peer_transport() == peers => Ok(id),
            _ => Err(Reject::Code(Code::AllocationMismatch)),
        }
    }
}
