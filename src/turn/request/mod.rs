//! Requests and the Send indication, one file for each method; here is what they share.

pub(super) mod allocate;
mod binding;
mod channel_bind;
mod create_permission;
mod refresh;
mod resume;
mod send;

use super::Now;
use super::allocation::{AllocationId, FiveTuple};
use super::auth::{Denial, User};
use super::policy::Forbidden;
use super::server::Server;
use crate::stun::attribute::AttributeType;
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

/// Why a request is refused. Only `server.rs` makes bytes of it.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Reject {
    /// Before it was known who asks.
    Denied(Denial),
    /// For a reason that a code says all about.
    Code(Code),
    /// 420, with the types in question.
    UnknownAttributes(Vec<AttributeType>),
}

impl Reject {
    pub(super) fn code(&self) -> Code {
        match self {
            Self::Denied(denial) => denial.code(),
            Self::Code(code) => *code,
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
pub(super) fn check_attributes(message: &Message<'_>) -> Result<(), Reject> {
    refuse_unknown(message, is_understood)
}

/// The same where it is `understood` that tells.
fn refuse_unknown(
    message: &Message<'_>,
    understood: impl Fn(AttributeType) -> bool,
) -> Result<(), Reject> {
    let unknown: Vec<_> = message
        .attributes()
        .map(|(kind, _)| kind)
        .filter(|&kind| !understood(kind))
        .take(UNKNOWN_ATTRIBUTES_MAX)
        .collect();
    if unknown.is_empty() { Ok(()) } else { Err(Reject::UnknownAttributes(unknown)) }
}

/// Understood, if only enough to know that it may be ignored where it is not expected
/// (RFC 8489 §6.3). DONT-FRAGMENT is absent: RFC 8656 §7.2 (4) wants a server that cannot set the
/// DF bit to treat it as unknown.
pub(super) fn is_understood(kind: AttributeType) -> bool {
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
        )
}

impl Server {
    /// The allocation a request is about, if it is the asker's own (RFC 8656 §5).
    fn allocation_of(&self, request: &Request<'_>) -> Result<AllocationId, Reject> {
        let id = self.allocations.id_of_client(&request.from).ok_or(Code::AllocationMismatch)?;
        let allocation = self.allocations.get(id).ok_or(Code::AllocationMismatch)?;
        if allocation.username != request.user.name {
            return Err(Reject::Code(Code::WrongCredentials));
        }
        Ok(id)
    }
}
