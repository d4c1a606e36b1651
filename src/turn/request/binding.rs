//! Binding: tells a client its reflexive address (RFC 8489 §6.3.1). Needs no credentials, and the
//! answer is hardly larger than the question.

use super::{Reject, check_attributes};
use crate::stun::Message;
use crate::stun::attribute::XorMappedAddress;
use crate::turn::allocation::FiveTuple;
use crate::turn::server::Server;

impl Server {
    /// RFC 8489 §6.3.1.2: XOR-MAPPED-ADDRESS is the source of the request.
    pub(in crate::turn) fn binding(
        &self,
        message: &Message<'_>,
        from: &FiveTuple,
    ) -> Result<XorMappedAddress, Reject> {
        check_attributes(message)?;
        Ok(XorMappedAddress(from.client))
    }
}
