//! The attribute of mobility (RFC 8016 §3.3).

use super::{Attribute, AttributeType};
use crate::stun::error::Malformed;
use crate::stun::message::TransactionId;

/// What the server knows an allocation by when its client has another address. Empty where a
/// client asks for one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct MobilityTicket<'a>(pub &'a [u8]);

impl<'a> Attribute<'a> for MobilityTicket<'a> {
    const TYPE: AttributeType = AttributeType::MOBILITY_TICKET;
    fn decode(value: &'a [u8], _: TransactionId) -> Result<Self, Malformed> {
        Ok(Self(value))
    }
    fn encode(&self, _: TransactionId, out: &mut Vec<u8>) {
        out.extend(self.0);
    }
}
