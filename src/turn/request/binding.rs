//! Binding: tells a client its reflexive address (RFC 8489 §6.3.1), and where it is asked for from
//! where else it can be reached (RFC 5780 §6.1). Needs no credentials, and the answer is hardly
//! larger than the question.

use std::net::SocketAddr;

use super::{Reject, refuse_unknown};
use crate::stun::attribute::{
    AttributeType, ChangeRequest, MappedAddress, OtherAddress, Padding, ResponseOrigin,
    XorMappedAddress,
};
use crate::stun::{Builder, Code, Message};
use crate::turn::allocation::{FiveTuple, Transport};
use crate::turn::server::Server;

/// The PADDING of a response is as long as the request's, and no longer than this. An Ethernet
/// frame's worth: with what is around it, the datagram must be fragmented.
const PADDING_LEN_MAX: usize = 1500;

/// What a Binding response says.
#[derive(Debug)]
pub(in crate::turn) struct Bound {
    mapped: SocketAddr,
    discovered: Option<Discovered>,
}

/// What RFC 5780 adds.
#[derive(Debug)]
struct Discovered {
    /// Where it was asked, and where the response leaves from.
    at: SocketAddr,
    origin: SocketAddr,
    /// Where the response comes from, and the other address, as the client knows them.
    shown_origin: SocketAddr,
    shown_other: SocketAddr,
    padding: Option<usize>,
}

impl Bound {
    /// The address that the response must leave from, where that is not the one asked.
    pub(in crate::turn) fn changed_origin(&self) -> Option<SocketAddr> {
        let discovered = self.discovered.as_ref()?;
        (discovered.origin != discovered.at).then_some(discovered.origin)
    }

    pub(in crate::turn) fn write<'b>(&self, builder: Builder<'b>) -> Builder<'b> {
        let builder = builder.put(&XorMappedAddress(self.mapped));
        let Some(discovered) = &self.discovered else { return builder };
        let padding = discovered.padding.map(|length| &[0; PADDING_LEN_MAX][..length]);
        builder
            .put(&MappedAddress(self.mapped))
            .put(&ResponseOrigin(discovered.shown_origin))
            .put(&OtherAddress(discovered.shown_other))
            .put_some(padding.map(Padding).as_ref())
    }
}

impl Server {
    /// RFC 8489 §6.3.1.2: XOR-MAPPED-ADDRESS is the source of the request.
    pub(in crate::turn) fn binding(
        &self,
        message: &Message<'_>,
        from: &FiveTuple,
    ) -> Result<Bound, Reject> {
        let both = ChangeRequest { ip: true, port: true };
        let discovery = self.config.discovery.as_ref();
        let other = discovery.and_then(|four| four.origin(from.server, both));
        // Nobody can be answered over a stream from an address that it is not open to.
        let may_change = other.is_some() && from.transport == Transport::Udp;
        let has = |kind| message.has(kind);
        if other.is_some() && has(AttributeType::PADDING) && has(AttributeType::RESPONSE_PORT) {
            return Err(Reject::Code(Code::BadRequest));
        }
        refuse_unknown(message, |kind| match kind {
            AttributeType::CHANGE_REQUEST => may_change,
            AttributeType::PADDING => other.is_some(),
            _ => self.understands(kind),
        })?;
        let mut bound = Bound { mapped: from.client, discovered: None };
        let (Some(discovery), Some(other)) = (discovery, other) else { return Ok(bound) };
        let change = message.read::<ChangeRequest>()?.unwrap_or_default();
        let padding = message.value(AttributeType::PADDING);
        let origin = discovery.origin(from.server, change).unwrap_or(from.server);
        bound.discovered = Some(Discovered {
            at: from.server,
            origin,
            shown_origin: self.policy.external(origin),
            shown_other: self.policy.external(other),
            padding: padding.map(|padding| padding.len().min(PADDING_LEN_MAX)),
        });
        Ok(bound)
    }
}
