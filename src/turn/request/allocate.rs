//! Allocate: a relayed address of one's own (RFC 8656 §7.2).
//!
//! The server cannot bind sockets, so a request that passes all checks becomes a
//! [`PendingAllocation`]: a value the driver holds while it binds, and hands back.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::{Reject, Request};
use crate::stun::attribute::{
    AdditionalAddressFamily, AttributeType, EvenPort, Lifetime, MobilityTicket, RequestedTransport,
    ReservationToken, XorMappedAddress, XorRelayedAddress,
};
use crate::stun::{AddressFamily, Code, Message, TransactionId};
use crate::turn::Now;
use crate::turn::allocation::{Allocation, AllocationId, FiveTuple, RelayedAddress};
use crate::turn::auth::User;
use crate::turn::event::Event;
use crate::turn::limits::Meter;
use crate::turn::mobility::Mobility;
use crate::turn::policy;
use crate::turn::server::{Answer, Server};

/// An Allocate request that only lacks its relay socket.
///
/// Whoever drops it leaves the client without an answer, to try again.
#[derive(Debug)]
#[must_use = "the client waits for Server::allocated"]
pub struct PendingAllocation {
    from: FiveTuple,
    user: User,
    transaction_id: TransactionId,
    has_fingerprint: bool,
    family: AddressFamily,
    even_port: bool,
    is_mobile: bool,
    lifetime: Duration,
}

impl PendingAllocation {
    /// Whose quota it counts against; untrusted text. Of a time-limited username only what
    /// follows the expiry.
    #[must_use]
    pub fn account(&self) -> &str {
        self.user.account()
    }

    /// The family the relayed address must have.
    #[must_use]
    pub fn family(&self) -> AddressFamily {
        self.family
    }

    /// Whether the relayed address must have an even port.
    #[must_use]
    pub fn wants_even_port(&self) -> bool {
        self.even_port
    }

    /// The client.
    #[must_use]
    pub fn client(&self) -> FiveTuple {
        self.from
    }
}

/// What the driver obtained for a [`PendingAllocation`].
pub struct Allocated {
    /// The address of the bound relay socket.
    pub relayed: RelayedAddress,
    /// The user's bandwidth, where it is limited.
    pub meter: Option<Arc<dyn Meter>>,
}

impl fmt::Debug for Allocated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Allocated").field("relayed", &self.relayed).finish_non_exhaustive()
    }
}

/// Why the driver could not obtain a relay socket.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AllocateError {
    /// No port, no descriptor, or the server holds as many allocations as it may.
    NoCapacity,
    /// The user holds as many allocations as it may.
    QuotaReached,
}

impl AllocateError {
    fn code(self) -> Code {
        match self {
            Self::NoCapacity => Code::InsufficientCapacity,
            Self::QuotaReached => Code::AllocationQuotaReached,
        }
    }
}

/// What an Allocate request leads to.
#[derive(Debug)]
pub(in crate::turn) enum Outcome {
    /// The client has its allocation already: this is a retransmission.
    Repeated(AllocationId),
    /// The driver has to bind a socket.
    Pending(PendingAllocation),
}

impl Server {
    /// The steps of RFC 8656 §7.2, by their numbers; (1) is done, (10) is the driver's.
    pub(in crate::turn) fn allocate(&mut self, request: &Request<'_>) -> Result<Outcome, Reject> {
        // (2), with the retransmissions of the note at its end
        let id = request.message.transaction_id();
        if let Some(existing) = self.existing_allocation(&request.from, id, &request.user)? {
            return Ok(Outcome::Repeated(existing));
        }
        if policy::is_tunnelled(request.from.client.ip()) {
            return Err(Reject::Code(Code::Forbidden));
        }
        // (3)
        let transport = request.message.read::<RequestedTransport>()?.ok_or(Code::BadRequest)?;
        if transport != RequestedTransport::UDP {
            return Err(Reject::Code(Code::UnsupportedTransport));
        }
        // (4) is DONT-FRAGMENT, an unknown attribute here, and so answered with 420 already
        let message = &request.message;
        check_reservation(message)?;
        let family = self.requested_family(message)?;
        let even_port = wants_even_port(message)?;
        check_additional_family(message)?;
        let is_mobile = self.wants_mobility(message)?;
        let lifetime = self.config.limits.lifetime(request.message.read::<Lifetime>()?);
        Ok(Outcome::Pending(PendingAllocation {
            from: request.from,
            user: request.user.clone(),
            transaction_id: id,
            has_fingerprint: request.message.has_fingerprint(),
            family,
            even_port,
            is_mobile,
            lifetime,
        }))
    }

    /// The allocation that the request, a retransmission, has made already; 437 where another
    /// request made it.
    fn existing_allocation(
        &self,
        from: &FiveTuple,
        id: TransactionId,
        user: &User,
    ) -> Result<Option<AllocationId>, Reject> {
        let Some(existing) = self.allocations.id_of_client(from) else { return Ok(None) };
        let allocation = self.allocations.get(existing).ok_or(Code::ServerError)?;
        if allocation.transaction_id == id && allocation.username == user.name {
            Ok(Some(existing))
        } else {
            Err(Reject::Code(Code::AllocationMismatch))
        }
    }

    /// Steps (6) and (7). Without REQUESTED-ADDRESS-FAMILY it is IPv4; a family byte that does not
    /// exist is a family that is not supported.
    fn requested_family(&self, message: &Message<'_>) -> Result<AddressFamily, Reject> {
        let requested = message.value(AttributeType::REQUESTED_ADDRESS_FAMILY);
        if requested.is_some() && message.has(AttributeType::ADDITIONAL_ADDRESS_FAMILY) {
            return Err(Reject::Code(Code::BadRequest));
        }
        let family = match requested {
            None => AddressFamily::Ipv4,
            Some(&[byte, _, _, _]) => {
                AddressFamily::from_byte(byte).map_err(|_| Code::AddressFamilyNotSupported)?
            }
            Some(_) => return Err(Reject::Code(Code::BadRequest)),
        };
        if !self.policy.relays(family) {
            return Err(Reject::Code(Code::AddressFamilyNotSupported));
        }
        Ok(family)
    }

    /// RFC 8016 §3.1.2: an empty MOBILITY-TICKET asks for one.
    fn wants_mobility(&self, message: &Message<'_>) -> Result<bool, Reject> {
        match message.read()? {
            None => Ok(false),
            Some(MobilityTicket(&[])) if self.sealer.is_some() => Ok(true),
            Some(MobilityTicket(&[])) => Err(Reject::Code(Code::MobilityForbidden)),
            Some(MobilityTicket(_)) => Err(Reject::Code(Code::BadRequest)),
        }
    }

    /// Takes back a [`PendingAllocation`] with the socket bound, or with the reason why not, and
    /// writes the response. Returns the new allocation; where there is none, the driver gives the
    /// socket back.
    pub fn allocated(
        &mut self,
        pending: PendingAllocation,
        result: Result<Allocated, AllocateError>,
        now: Now,
        reply: &mut Vec<u8>,
    ) -> Option<AllocationId> {
        let PendingAllocation {
            from,
            user,
            transaction_id,
            has_fingerprint,
            is_mobile,
            lifetime,
            ..
        } = pending;
        let answer = Answer {
            method: crate::stun::Method::Allocate,
            transaction_id,
            has_fingerprint,
            from,
            signer: Some(user.signer),
            now,
        };
        self.handle_timeout(now);
        // While the driver was binding, the client may have repeated itself, or asked anew, and
        // have its allocation by now. A second one would leave the first without its client.
        match self.existing_allocation(&from, transaction_id, &user) {
            Ok(None) => {}
            Ok(Some(existing)) => {
                self.confirm_allocation(&answer, existing, reply);
                return None;
            }
            Err(reject) => {
                self.refuse(&answer, &reject, reply);
                return None;
            }
        }
        let Allocated { relayed, meter } = match result {
            Ok(allocated) => allocated,
            Err(error) => {
                self.refuse(&answer, &Reject::Code(error.code()), reply);
                return None;
            }
        };
        let mut allocation = Allocation::new(
            from,
            relayed,
            user.name.clone(),
            transaction_id,
            now.instant,
            lifetime,
        );
        allocation.meter = meter;
        if is_mobile {
            let serial = u32::from_be_bytes(self.random());
            allocation.mobility = Some(Box::new(Mobility::new(serial)));
        }
        let id = self.allocations.insert(allocation);
        self.stats.allocation_opened(from.transport);
        self.events.push_back(Event::Opened { id, client: from, relayed, username: user.name });
        self.confirm_allocation(&answer, id, reply);
        Some(id)
    }

    /// The success response of RFC 8656 §7.2, the same for the first request and each
    /// retransmission, as long as the remaining lifetime rounds to the same second.
    pub(in crate::turn) fn confirm_allocation(
        &mut self,
        answer: &Answer,
        id: AllocationId,
        reply: &mut Vec<u8>,
    ) {
        let Some(allocation) = self.allocations.get(id) else { return };
        let RelayedAddress(relayed) = allocation.relayed;
        let left = allocation.time_to_expiry(answer.now.instant);
        let lifetime = Lifetime(left.as_millis().div_ceil(1000) as u32);
        let client: SocketAddr = answer.from.client;
        let ticket = self.ticket(id);
        let ticket = ticket.as_ref().map(|ticket| MobilityTicket(ticket.as_bytes()));
        self.succeed(answer, reply, |builder| {
            builder
                .put(&XorRelayedAddress(relayed))
                .put(&lifetime)
                .put(&XorMappedAddress(client))
                .put_some(ticket.as_ref())
        });
    }
}

/// Step (5). Ports are not reserved here, so every token is invalid.
fn check_reservation(message: &Message<'_>) -> Result<(), Reject> {
    if message.read::<ReservationToken>()?.is_none() {
        return Ok(());
    }
    let clash = [
        AttributeType::EVEN_PORT,
        AttributeType::REQUESTED_ADDRESS_FAMILY,
        AttributeType::ADDITIONAL_ADDRESS_FAMILY,
    ];
    let clashes = clash.into_iter().any(|kind| message.has(kind));
    Err(Reject::Code(if clashes { Code::BadRequest } else { Code::InsufficientCapacity }))
}

/// Step (8). Ports are not reserved here, so no pair can be had.
fn wants_even_port(message: &Message<'_>) -> Result<bool, Reject> {
    let Some(EvenPort { reserve }) = message.read()? else { return Ok(false) };
    if !reserve {
        return Ok(true);
    }
    let additional = message.has(AttributeType::ADDITIONAL_ADDRESS_FAMILY);
    Err(Reject::Code(if additional { Code::BadRequest } else { Code::InsufficientCapacity }))
}

/// Step (9). ADDITIONAL-ADDRESS-FAMILY must make sense, and is otherwise an optional attribute that
/// is not understood.
fn check_additional_family(message: &Message<'_>) -> Result<(), Reject> {
    match message.read()? {
        Some(AdditionalAddressFamily(AddressFamily::Ipv4)) => Err(Reject::Code(Code::BadRequest)),
        Some(AdditionalAddressFamily(AddressFamily::Ipv6)) | None => Ok(()),
    }
}
