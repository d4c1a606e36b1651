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
    AdditionalAddressFamily, AddressErrorCode, AttributeType, DontFragment, EvenPort, Lifetime,
    MobilityTicket, RequestedTransport, ReservationToken, XorMappedAddress, XorRelayedAddress,
};
use crate::stun::{AddressFamily, Code, Message, TransactionId};
use crate::turn::Now;
use crate::turn::allocation::{Allocation, AllocationId, FiveTuple, PeerTransport, RelayedAddress};
use crate::turn::answer::Answer;
use crate::turn::auth::User;
use crate::turn::connections::{PeerConnections, Tally};
use crate::turn::event::Event;
use crate::turn::limits::Meter;
use crate::turn::mobility::Mobility;
use crate::turn::policy;
use crate::turn::server::Server;

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
    peers: PeerTransport,
    family: AddressFamily,
    /// Whether ADDITIONAL-ADDRESS-FAMILY asks for IPv6 as well.
    dual: bool,
    /// Whether IPv6 is relayed at all.
    relays_ipv6: bool,
    port: PortWish,
    is_mobile: bool,
    lifetime: Duration,
}

/// What the port of a relayed address must be like.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PortWish {
    /// Any number will do.
    Any,
    /// An even number (RFC 8656 §18.7).
    Even,
    /// An even number, and the next one reserved for another allocation.
    Pair,
    /// The one that is reserved under this token, on whatever address (RFC 8656 §18.10).
    Reserved(ReservationToken),
}

impl PendingAllocation {
    /// Whose quota it counts against; untrusted text. Of a time-limited username only what
    /// follows the expiry.
    #[must_use]
    pub fn account(&self) -> &str {
        self.user.account()
    }

    /// What the relayed address must speak.
    #[must_use]
    pub fn peers(&self) -> PeerTransport {
        self.peers
    }

    /// The name its connections are bound by, all of it; untrusted text.
    #[must_use]
    pub fn username(&self) -> &str {
        &self.user.name
    }

    /// The family the relayed address must have; what is reserved has the one it has.
    #[must_use]
    pub fn family(&self) -> AddressFamily {
        self.family
    }

    /// The family of a second relayed address, where the client asks for both and the server has
    /// both. One of the two will do.
    #[must_use]
    pub fn additional_family(&self) -> Option<AddressFamily> {
        (self.dual && self.relays_ipv6).then_some(AddressFamily::Ipv6)
    }

    /// What its port must be like.
    #[must_use]
    pub fn port(&self) -> PortWish {
        self.port
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
    /// That of a second one, of the other family, where [`PendingAllocation::additional_family`]
    /// asks for it and it could be had.
    pub also: Option<RelayedAddress>,
    /// The user's bandwidth, where it is limited.
    pub meter: Option<Arc<dyn Meter>>,
    /// Of the next port, where [`PortWish::Pair`] was asked for.
    pub reservation: Option<ReservationToken>,
    /// What its connections relay, of an allocation for TCP.
    pub tally: Option<Arc<dyn Tally>>,
}

impl fmt::Debug for Allocated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Allocated").field("relayed", &self.relayed).finish_non_exhaustive()
    }
}

/// Why the driver could not obtain a relay socket.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AllocateError {
    /// No port, no such reservation, no descriptor, or the server holds as many allocations as it may.
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
        let peers = self.requested_transport(request)?;
        // (4): not understood, it has been answered with 420 already
        request.message.read::<DontFragment>()?;
        let message = &request.message;
        let (family, port) = match reservation(message)? {
            Some(token) => (AddressFamily::Ipv4, PortWish::Reserved(token)),
            None => (self.requested_family(message)?, port_wish(message)?),
        };
        let dual = wants_both_families(message)?;
        let is_mobile = self.wants_mobility(message)?;
        let relays_ipv6 = self.policy.relays(AddressFamily::Ipv6);
        // Neither two relayed addresses nor connections move.
        if is_mobile && (dual && relays_ipv6 || peers == PeerTransport::Tcp) {
            return Err(Reject::Code(Code::MobilityForbidden));
        }
        let lifetime = self.config.limits.lifetime(request.message.read::<Lifetime>()?);
        // (11), but what is reserved here is nowhere else
        if !matches!(port, PortWish::Reserved(_)) {
            self.admit_newcomer(request)?;
        }
        Ok(Outcome::Pending(PendingAllocation {
            from: request.from,
            user: request.user.clone(),
            transaction_id: id,
            has_fingerprint: request.message.has_fingerprint(),
            peers,
            family,
            dual,
            relays_ipv6,
            port,
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

    /// Step (3), and all that is different where it is TCP (RFC 6062 §5.1).
    fn requested_transport(&self, request: &Request<'_>) -> Result<PeerTransport, Reject> {
        let message = &request.message;
        match message.read::<RequestedTransport>()?.ok_or(Code::BadRequest)? {
            RequestedTransport::UDP => return Ok(PeerTransport::Udp),
            RequestedTransport::TCP if self.config.tcp_relay => {}
            _ => return Err(Reject::Code(Code::UnsupportedTransport)),
        }
        let only_udp = [
            AttributeType::DONT_FRAGMENT,
            AttributeType::EVEN_PORT,
            AttributeType::RESERVATION_TOKEN,
        ];
        let is_stream = request.from.transport.is_stream();
        if !is_stream || only_udp.into_iter().any(|kind| message.has(kind)) {
            return Err(Reject::Code(Code::BadRequest));
        }
        Ok(PeerTransport::Tcp)
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

    /// Ends the waiting of a [`PendingAllocation`], with the socket bound or with the reason why not,
    /// and writes the response. Returns the new allocation; where there is none, the driver gives the
    /// socket back.
    pub fn allocated(
        &mut self,
        pending: &PendingAllocation,
        result: Result<Allocated, AllocateError>,
        now: Now,
        reply: &mut Vec<u8>,
    ) -> Option<AllocationId> {
        let PendingAllocation { from, user, transaction_id, has_fingerprint, lifetime, .. } =
            pending;
        let (from, transaction_id) = (*from, *transaction_id);
        let answer = Answer {
            method: crate::stun::Method::Allocate,
            transaction_id,
            has_fingerprint: *has_fingerprint,
            from,
            signer: Some(user.signer),
            now,
        };
        self.end_expired_of(&from, now);
        // While the driver was binding, the client may have repeated itself, or asked anew, and
        // have its allocation by now. A second one would leave the first without its client.
        match self.existing_allocation(&from, transaction_id, user) {
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
        let allocated = match result {
            Ok(allocated) => allocated,
            Err(error) => {
                self.refuse(&answer, &Reject::Code(error.code()), reply);
                return None;
            }
        };
        let half = |relayed| {
            let name = user.name.clone();
            let mut half =
                Allocation::new(from, relayed, name, transaction_id, now.instant, *lifetime);
            half.meter = allocated.meter.clone();
            half
        };
        let mut first = half(allocated.relayed);
        first.reservation = allocated.reservation;
        first.missing = pending.missing(&allocated);
        if pending.peers == PeerTransport::Tcp {
            first.connections = Some(Box::new(PeerConnections::new(allocated.tally)));
        }
        if pending.is_mobile {
            let serial = u32::from_be_bytes(self.random());
            first.mobility = Some(Box::new(Mobility::new(serial)));
        }
        let id = self.allocations.insert(first);
        if let Some(also) = allocated.also {
            self.allocations.insert_sibling(id, half(also));
        }
        self.tell_opened(id);
        self.confirm_allocation(&answer, id, reply);
        Some(id)
    }

    fn tell_opened(&mut self, id: AllocationId) {
        for id in self.allocations.halves(id) {
            let Some(half) = self.allocations.get(id) else { continue };
            let (client, relayed) = (half.client, half.relayed);
            let username = half.username.clone();
            self.stats.allocation_opened(client.transport);
            self.events.push_back(Event::Opened { id, client, relayed, username });
        }
    }

    fn relayed_of_sibling(&self, id: AllocationId) -> Option<RelayedAddress> {
        Some(self.allocations.get(self.allocations.sibling(id)?)?.relayed)
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
        let mut relayed = [Some(allocation.relayed), self.relayed_of_sibling(id)];
        // IPv4 first, None last.
        relayed
            .sort_by_key(|relayed| relayed.map_or(2, |RelayedAddress(it)| u8::from(it.is_ipv6())));
        let relayed =
            relayed.map(|relayed| relayed.map(|RelayedAddress(it)| XorRelayedAddress(it)));
        let missing = allocation.missing;
        let left = allocation.time_to_expiry(answer.now.instant);
        let lifetime = Lifetime(left.as_millis().div_ceil(1000) as u32);
        let reservation = allocation.reservation;
        let client: SocketAddr = answer.from.client;
        let ticket = self.ticket(id);
        let ticket = ticket.as_ref().map(|ticket| MobilityTicket(ticket.as_bytes()));
        self.succeed(answer, reply, |builder| {
            builder
                .put_some(relayed[0].as_ref())
                .put_some(relayed[1].as_ref())
                .put_some(missing.as_ref())
                .put(&lifetime)
                .put_some(reservation.as_ref())
                .put(&XorMappedAddress(client))
                .put_some(ticket.as_ref())
        });
    }
}

impl PendingAllocation {
    /// Step (9): what a dual allocation lacks, and why.
    fn missing(&self, allocated: &Allocated) -> Option<AddressErrorCode> {
        if !self.dual || allocated.also.is_some() {
            return None;
        }
        let family = match AddressFamily::of(allocated.relayed.0.ip()) {
            AddressFamily::Ipv4 => AddressFamily::Ipv6,
            AddressFamily::Ipv6 => AddressFamily::Ipv4,
        };
        let code = match self.relays_ipv6 {
            true => Code::InsufficientCapacity,
            false => Code::AddressFamilyNotSupported,
        };
        Some(AddressErrorCode { family, number: code.number() })
    }
}

/// Step (5). Whether the token is good for anything, the driver knows.
fn reservation(message: &Message<'_>) -> Result<Option<ReservationToken>, Reject> {
    let Some(token) = message.read::<ReservationToken>()? else { return Ok(None) };
    let clash = [
        AttributeType::EVEN_PORT,
        AttributeType::REQUESTED_ADDRESS_FAMILY,
        AttributeType::ADDITIONAL_ADDRESS_FAMILY,
    ];
    if clash.into_iter().any(|kind| message.has(kind)) {
        return Err(Reject::Code(Code::BadRequest));
    }
    Ok(Some(token))
}

/// Step (8).
fn port_wish(message: &Message<'_>) -> Result<PortWish, Reject> {
    match message.read()? {
        None => Ok(PortWish::Any),
        Some(EvenPort { reserve: false }) => Ok(PortWish::Even),
        Some(EvenPort { reserve: true }) => {
            let dual = message.has(AttributeType::ADDITIONAL_ADDRESS_FAMILY);
            if dual { Err(Reject::Code(Code::BadRequest)) } else { Ok(PortWish::Pair) }
        }
    }
}

/// Step (9). IPv4 need not be asked for: it is the one that IPv6 is added to.
fn wants_both_families(message: &Message<'_>) -> Result<bool, Reject> {
    match message.read()? {
        None => Ok(false),
        Some(AdditionalAddressFamily(AddressFamily::Ipv4)) => Err(Reject::Code(Code::BadRequest)),
        Some(AdditionalAddressFamily(AddressFamily::Ipv6)) => Ok(true),
    }
}
