//! The server: its doors, and the dispatch behind them.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use ahash::RandomState;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::Now;
use super::allocation::{AllocationId, Allocations, FiveTuple, RelayedAddress, Transport};
use super::alternate::Alternate;
use super::answer::Answer;
use super::auth::{self, Authenticator};
use super::discovery::Discovery;
use super::event::{CloseReason, Event};
use super::limits::{self, SourceBuckets};
use super::mobility::{self, Sealer};
use super::policy::{self, Policy};
use super::request::allocate::Outcome;
use super::request::{Reject, Request};
use super::stats::{Direction, DropReason, RequestMethod, Stats};
use super::verdict::Verdict;
use crate::stun::attribute::AttributeType;
use crate::stun::{ChannelRange, Class, Message, Method, ParseError};

/// Allocations that expire in one turn. Each costs a socket that must be closed, and those whose
/// packets wait meanwhile should not notice.
const EXPIRIES_MAX: usize = 64;

/// Client ports that are services which answer by themselves (echo, chargen, DNS), and 0: an
/// answer there could start a loop, or hit somebody whose address was forged.
const UNANSWERED_PORTS: [u16; 4] = [0, 7, 19, 53];

/// What the operator decides about the protocol core.
#[derive(Clone, Debug)]
pub struct Config {
    /// Credentials and challenges.
    pub auth: auth::Config,
    /// Which peers may be reached.
    pub policy: policy::Config,
    /// Caps and lifetimes.
    pub limits: limits::Config,
    /// NAT behaviour discovery, where it is on.
    pub discovery: Option<Discovery>,
    /// Which numbers channels may have.
    pub channels: ChannelRange,
    /// Where new allocations are to be made instead; empty: here.
    pub alternates: Vec<Alternate>,
    /// The same for a server that drains, which prefers these and serves no new client itself.
    pub drain_to: Vec<Alternate>,
    /// Whether the driver can set the DF bit, as DONT-FRAGMENT asks.
    pub dont_fragment: bool,
    /// What mobile clients' tickets are sealed with; `None` where there are none (RFC 8016).
    pub mobility: Option<mobility::Key>,
    /// Sent as SOFTWARE in authenticated and Binding responses where set.
    pub software: Option<String>,
    /// Whether there are relayed addresses that speak TCP with peers (RFC 6062).
    pub tcp_relay: bool,
}

/// One shard's server. See the module's documentation for what it never touches.
pub struct Server {
    pub(super) config: Settings,
    pub(super) policy: Policy,
    pub(super) allocations: Allocations,
    pub(super) stats: Stats,
    pub(super) events: VecDeque<Event>,
    pub(super) sealer: Option<Sealer>,
    pub(super) is_draining: bool,
    /// Where clients were whose allocations other shards have now, as long as they are reached there.
    /// Clients choose the keys, hence a keyed hash. One for each allocation at most.
    pub(super) stubs: HashMap<FiveTuple, RelayedAddress, RandomState>,
    pub(super) authenticator: Authenticator,
    unauthenticated: SourceBuckets,
    rng: StdRng,
}

/// The part of the configuration that is looked up while running.
pub(super) struct Settings {
    pub(super) limits: limits::Config,
    pub(super) discovery: Option<Discovery>,
    pub(super) channels: ChannelRange,
    pub(super) alternates: Vec<Alternate>,
    pub(super) drain_to: Vec<Alternate>,
    pub(super) dont_fragment: bool,
    pub(super) software: Option<String>,
    pub(super) tcp_relay: bool,
}

impl Server {
    /// A server without allocations. `seed` keys the hash tables and makes transaction ids; take
    /// it from the operating system, or fix it to repeat a run.
    #[must_use]
    pub fn new(config: Config, host: policy::Host, seed: [u8; 32]) -> Self {
        let mut rng = StdRng::from_seed(seed);
        let mut word = || rng.next_u64();
        let hasher = RandomState::with_seeds(word(), word(), word(), word());
        let per_source = config.limits.unauthenticated_per_source;
        Self {
            policy: Policy::new(config.policy, host),
            allocations: Allocations::new(hasher.clone()),
            stats: Stats::default(),
            events: VecDeque::new(),
            sealer: config.mobility.as_ref().map(Sealer::new),
            is_draining: false,
            stubs: HashMap::with_hasher(hasher.clone()),
            authenticator: Authenticator::new(config.auth, hasher.clone()),
            unauthenticated: SourceBuckets::new(per_source, 1, hasher),
            config: Settings {
                limits: config.limits,
                discovery: config.discovery,
                channels: config.channels,
                alternates: config.alternates,
                drain_to: config.drain_to,
                dont_fragment: config.dont_fragment,
                software: config.software,
                tcp_relay: config.tcp_relay,
            },
            rng,
        }
    }

    /// Handles one packet from a client: the door for STUN and ChannelData. A reply is appended to
    /// `reply`.
    pub fn handle_client(
        &mut self,
        from: FiveTuple,
        packet: &[u8],
        now: Now,
        reply: &mut Vec<u8>,
    ) -> Verdict {
        if let Some(relayed) = self.stub(&from) {
            return Verdict::Elsewhere(relayed);
        }
        let verdict = match packet.first() {
            Some(&first) if self.config.channels.begins_with(first) => {
                self.handle_channel_data(&from, packet, now)
            }
            Some(0x00..=0x03) => self.handle_stun(from, packet, now, reply),
            _ => Err(DropReason::Demux),
        };
        verdict.unwrap_or_else(|reason| self.drop(reason))
    }

    /// Handles one datagram that arrived at the relayed address of `on`.
    pub fn handle_peer(
        &mut self,
        on: AllocationId,
        from: std::net::SocketAddr,
        packet: &[u8],
        now: Now,
    ) -> Verdict {
        self.handle_peer_data(on, from, packet.len(), now)
            .unwrap_or_else(|reason| self.drop(reason))
    }

    /// Ends what has expired, but no more than a turn may take: where more is left,
    /// [`Server::poll_timeout`] is still due. What has expired does nothing any more, ended or not.
    pub fn handle_timeout(&mut self, now: Now) {
        for _ in 0..EXPIRIES_MAX {
            match self.allocations.next_deadline() {
                Some((deadline, id)) if deadline <= now.instant => {
                    self.close(id, CloseReason::Expired, now);
                }
                _ => return,
            }
        }
    }

    /// Ends an allocation that has expired, however many are to be ended before it.
    pub(in crate::turn) fn end_expired(&mut self, id: AllocationId, now: Now) {
        if self.allocations.has_expired(id, now.instant) {
            self.close(id, CloseReason::Expired, now);
        }
    }

    /// The same for what a client has.
    pub(in crate::turn) fn end_expired_of(&mut self, client: &FiveTuple, now: Now) {
        let Some(id) = self.allocations.id_of_client(client) else { return };
        self.allocations.halves(id).for_each(|half| self.end_expired(half, now));
    }

    /// When [`Server::handle_timeout`] wants to be called next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.allocations.next_deadline().map(|(deadline, _)| deadline)
    }

    /// The next event, oldest first.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Whether the driver may send a reply of its own, such as one of a handshake, to a client that
    /// may have forged its source. It counts among the replies to requests.
    pub fn admit_stranger(&mut self, from: &FiveTuple, now: Now) -> Result<(), DropReason> {
        if !self.may_be_answered(from) {
            return Err(DropReason::SourceForbidden);
        }
        if !self.unauthenticated.admit(from.client.ip(), now.instant) {
            return Err(DropReason::RateLimited);
        }
        Ok(())
    }

    /// Whether this client has an allocation, here or on another shard.
    #[must_use]
    pub fn has_allocation(&self, client: &FiveTuple) -> bool {
        self.allocations.id_of_client(client).is_some() || self.stub(client).is_some()
    }

    /// How long a peer's connection may wait for its ConnectionBind (RFC 6062 §5.2).
    #[must_use]
    pub fn unbound_lifetime(&self) -> Duration {
        self.config.limits.unbound_lifetime
    }

    /// Ends an allocation whose socket the driver has lost: its client learns of it with its next
    /// request, and can ask for another.
    pub fn socket_lost(&mut self, id: AllocationId, now: Now) {
        self.allocations.halves(id).for_each(|half| self.close(half, CloseReason::SocketLost, now));
    }

    /// Ends all allocations, for a server that stops.
    pub fn shutdown(&mut self, now: Now) {
        while let Some((_, id)) = self.allocations.next_deadline() {
            self.close(id, CloseReason::Shutdown, now);
        }
    }

    /// The counters.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Live allocations; a dual one counts as two.
    #[must_use]
    pub fn allocations(&self) -> usize {
        self.allocations.len()
    }

    /// The other half of a dual allocation, where the client has both families.
    #[must_use]
    pub fn other_family(&self, id: AllocationId) -> Option<AllocationId> {
        self.allocations.sibling(id)
    }

    /// The allocation with this relayed address, for data that need not leave the process.
    #[must_use]
    pub fn relayed_at(&self, address: std::net::SocketAddr) -> Option<AllocationId> {
        // Most peers are elsewhere, and a look at the address is cheaper than one into the table.
        if !self.policy.is_relayed(address) {
            return None;
        }
        self.allocations.id_of_relayed(RelayedAddress(address))
    }

    /// Counts what a connection of a peer has relayed, of which the core sees nothing. `client` is
    /// the transport of the client's end.
    pub fn relayed(&mut self, direction: Direction, client: Transport, bytes: usize) {
        self.stats.relay(direction, client, bytes);
    }

    /// Which channel numbers clients may use, and so where a stream's messages may begin.
    #[must_use]
    pub fn channels(&self) -> ChannelRange {
        self.config.channels
    }

    /// Counts a packet that the driver had to drop.
    pub fn drop(&mut self, reason: DropReason) -> Verdict {
        self.stats.drop(reason);
        Verdict::Drop(reason)
    }

    fn handle_stun(
        &mut self,
        from: FiveTuple,
        packet: &[u8],
        now: Now,
        reply: &mut Vec<u8>,
    ) -> Result<Verdict, DropReason> {
        let message = match Message::parse(packet) {
            Ok(message) => message,
            Err(ParseError::MagicCookie) => return self.refuse_classic(&from, packet, reply),
            Err(_) => return Err(DropReason::Malformed),
        };
        match (message.class(), message.method()) {
            (Class::Indication, Method::Send) => self.send_indication(&message, &from, now),
            (Class::Indication, Method::Binding) => Err(DropReason::Keepalive),
            (Class::Request, method) => {
                let counted = RequestMethod::of(method).ok_or(match method {
                    Method::Send | Method::Data | Method::ConnectionAttempt => {
                        DropReason::ClassNotAllowed
                    }
                    _ => DropReason::UnknownMethod,
                })?;
                self.handle_request(counted, &message, from, now, reply)
            }
            (Class::Indication | Class::Success | Class::Error, _) => {
                Err(DropReason::ClassNotAllowed)
            }
        }
    }

    fn handle_request(
        &mut self,
        method: RequestMethod,
        message: &Message<'_>,
        from: FiveTuple,
        now: Now,
        reply: &mut Vec<u8>,
    ) -> Result<Verdict, DropReason> {
        if !self.may_be_answered(&from) {
            return Err(DropReason::SourceForbidden);
        }
        let mut answer = Answer::new(message, from, now);
        if method == RequestMethod::Binding {
            self.admit_unauthenticated(&from, now)?;
            let bound = match self.binding(message, &from) {
                Ok(bound) => bound,
                Err(reject) => {
                    self.refuse(&answer, &reject, reply);
                    return Ok(Verdict::Reply);
                }
            };
            self.succeed(&answer, reply, |builder| bound.write(builder));
            return Ok(bound.changed_origin().map_or(Verdict::Reply, Verdict::ReplyFrom));
        }
        let user = match self.authenticator.authenticate(message, &from, now) {
            Ok(user) => user,
            Err(denial) => {
                self.admit_unauthenticated(&from, now)?;
                self.refuse(&answer, &Reject::Denied(denial), reply);
                return Ok(Verdict::Reply);
            }
        };
        answer.signer = Some(user.signer);
        let request = Request { message: *message, from, user, now };
        match self.carry_out(method, &request, &answer, reply) {
            Ok(verdict) => Ok(verdict),
            Err(reject) => {
                self.refuse(&answer, &reject, reply);
                Ok(Verdict::Reply)
            }
        }
    }

    fn carry_out(
        &mut self,
        method: RequestMethod,
        request: &Request<'_>,
        answer: &Answer,
        reply: &mut Vec<u8>,
    ) -> Result<Verdict, Reject> {
        // The timer may be late, and what has expired must not be refreshed, nor be in the way.
        self.handle_timeout(request.now);
        self.end_expired_of(&request.from, request.now);
        self.check_attributes(&request.message)?;
        match method {
            RequestMethod::Allocate => match self.allocate(request)? {
                Outcome::Pending(pending) => return Ok(Verdict::Bind(pending)),
                Outcome::Repeated(id) => self.confirm_allocation(answer, id, reply),
            },
            RequestMethod::Refresh if request.message.has(AttributeType::MOBILITY_TICKET) => {
                return self.resume(request, answer, reply);
            }
            RequestMethod::Refresh => {
                let lifetime = self.refresh(request)?;
                self.succeed(answer, reply, |builder| builder.put(&lifetime));
            }
            RequestMethod::CreatePermission => {
                self.create_permission(request)?;
                self.succeed(answer, reply, |builder| builder);
            }
            RequestMethod::ChannelBind => {
                self.channel_bind(request)?;
                self.succeed(answer, reply, |builder| builder);
            }
            RequestMethod::Connect => {
                return Ok(Verdict::Connect(self.connect(request, answer.clone())?));
            }
            RequestMethod::ConnectionBind => {
                let pending = self.connection_bind(request, answer.clone())?;
                return Ok(Verdict::BindConnection(pending));
            }
            RequestMethod::Binding => unreachable!("Binding needs no user and is answered before"),
        }
        Ok(Verdict::Reply)
    }

    /// Whether a request from there may be answered at all.
    pub(super) fn may_be_answered(&self, from: &FiveTuple) -> bool {
        let ip = from.client.ip();
        let unicast = !ip.is_multicast() && !ip.is_unspecified() && !self.policy.is_broadcast(ip);
        unicast
            && !UNANSWERED_PORTS.contains(&from.client.port())
            && !self.policy.is_endpoint(from.client)
            && self.relayed_at(from.client).is_none()
    }

    /// Only where the source may be forged does a reply need a limit: a stream has been opened by
    /// whoever reads from it, and a DTLS session by whoever read the cookie.
    fn admit_unauthenticated(&mut self, from: &FiveTuple, now: Now) -> Result<(), DropReason> {
        if from.transport.proves_address()
            || self.unauthenticated.admit(from.client.ip(), now.instant)
        {
            Ok(())
        } else {
            Err(DropReason::RateLimited)
        }
    }

    /// Ends an allocation.
    pub(super) fn close(&mut self, id: AllocationId, reason: CloseReason, now: Now) {
        let Some(allocation) = self.allocations.remove(id) else { return };
        let connections = allocation.connections.as_ref().map_or(0, |own| own.len());
        self.stats.peer_connections -= connections as u64;
        let lived = now.instant.saturating_duration_since(allocation.opened);
        let to_peer = allocation.relayed(Direction::ToPeer);
        let to_client = allocation.relayed(Direction::ToClient);
        self.stats.allocation_closed(
            allocation.client.transport,
            lived,
            to_peer.bytes.wrapping_add(to_client.bytes),
        );
        self.events.push_back(Event::Closed {
            id,
            client: allocation.client,
            relayed: allocation.relayed,
            username: allocation.username,
            reason,
            lived,
            to_peer,
            to_client,
        });
    }

    /// Random bytes. Of a generator that cannot be run backwards: it has keyed the hash tables too.
    pub(super) fn random<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.rng.fill_bytes(&mut bytes);
        bytes
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("allocations", &self.allocations.len())
            .finish_non_exhaustive()
    }
}
