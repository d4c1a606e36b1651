//! What a shard does about each verdict: binds, relays, replies, and sends what has come together.

mod clients;
mod dtls;

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::rc::{Rc, Weak};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use slotmap::{Key, KeyData, SecondaryMap, SlotMap};
use tracing::warn;

use super::dtls::{SessionId, Sessions, Settings};
use super::egress::{Egress, Route};
use super::external::Externals;
use super::journal;
use super::moves::{Errands, Moving};
use super::ports::{PortPool, Reservation};
use super::post::{Envelope, Post};
use super::quota::{QuotaLease, Quotas};
use super::relay::{self, Failure, Obtained, RelaySocket};
use super::shard::Shard;
use super::stream::{Connection, ConnectionId};
use super::sys::{Datagram, IcmpError, Socket, Watcher};
use super::tcp_relay::{Rendezvous, TcpLegs, Waiting};
use super::udp::{Listener, Listeners};
use crate::stun::attribute::Icmp;
use crate::turn::{
    AllocateError, Allocated, AllocationId, DropReason, Event, FiveTuple, Now, PeerAddress,
    PeerTransport, PendingAllocation, RelayedAddress, Server, Transport, Verdict,
};

/// What all shards of the process share: control plane only.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    pub(super) pools: Arc<[Arc<PortPool>]>,
    pub(super) quotas: Arc<Quotas>,
    pub(super) externals: Arc<Externals>,
    pub(super) rendezvous: Arc<Rendezvous>,
    /// When the operator was last told that no relay socket could be had.
    pub(super) bind_warned: Arc<Mutex<Option<Instant>>>,
}

/// Names a socket of the shard while packets wait in the egress.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum SocketKey {
    /// By its index.
    Listener(usize),
    /// The relay socket of an allocation.
    Relay(AllocationId),
}

impl SocketKey {
    /// Names it for the watcher. Keys of allocations never have the upper half empty: their first
    /// version is 1.
    pub(super) fn token(self) -> u64 {
        match self {
            Self::Listener(index) => index as u64,
            Self::Relay(id) => id.data().as_ffi(),
        }
    }

    /// What such a name stands for.
    pub(super) fn of_token(token: u64) -> Self {
        match u32::try_from(token) {
            Ok(index) => Self::Listener(index as usize),
            Err(_) => Self::Relay(KeyData::from_ffi(token).into()),
        }
    }
}

/// How to reach a client.
#[derive(Clone, Copy, Debug)]
pub(super) enum ClientPath {
    /// From the very address it sent to.
    Datagram(Route<SocketKey>),
    /// Over its connection.
    Stream(ConnectionId),
    /// In its DTLS session.
    Dtls(SessionId),
    /// Over its connection, or in its session, which this other shard has.
    Elsewhere(usize, Link),
}

/// What belongs to one shard, and leads to a client.
#[derive(Clone, Copy, Debug)]
pub(super) enum Link {
    /// A connection.
    Stream(ConnectionId),
    /// A DTLS session.
    Dtls(SessionId),
}

impl From<Link> for ClientPath {
    fn from(link: Link) -> Self {
        match link {
            Link::Stream(id) => Self::Stream(id),
            Link::Dtls(id) => Self::Dtls(id),
        }
    }
}

/// The way of a datagram to a peer.
struct Leaving {
    from: AllocationId,
    peer: PeerAddress,
    dont_fragment: bool,
}

/// What an allocation holds outside of the core. Dropping it closes the socket and gives back
/// port and quota.
pub(super) struct Leg {
    pub(super) relay: RelaySocket,
    pub(super) client: ClientPath,
    pub(super) quota: QuotaLease,
    /// There while the client moves.
    pub(super) moving: Option<Box<Moving>>,
}

/// What a turn sends as datagrams.
type Outbox = Egress<SocketKey>;

/// All of a shard but its receive buffers.
pub(super) struct Work {
    pub(super) server: Server,
    /// Knows of listeners and of relay sockets.
    pub(super) watcher: Watcher,
    listeners: Vec<Listener>,
    pub(super) legs: SecondaryMap<AllocationId, Leg>,
    pub(super) tcp_legs: TcpLegs,
    pub(super) connections: SlotMap<ConnectionId, Rc<Connection>>,
    /// Connections with something to write in this turn.
    pushed: Vec<ConnectionId>,
    /// Where DTLS is spoken.
    dtls: Option<Sessions>,
    /// Where in a datagram of DTLS the messages are; empty between datagrams.
    messages: Vec<Range<usize>>,
    /// What the client of this turn is to be the other end of from now on.
    pub(super) bound: Option<(ConnectionId, Waiting)>,
    egress: Outbox,
    /// DSCP and ECN of the datagram in hand, with which it is relayed (RFC 8656 §14). A datagram to
    /// or from a stream has none.
    pub(super) traffic_class: u8,
    pub(super) reply: Vec<u8>,
    pub(super) shared: Shared,
    pub(super) post: Post,
    pub(super) errands: Errands,
    /// Allocations that another shard has been asked for.
    pub(super) arriving: Vec<RelayedAddress>,
    pub(super) me: Weak<RefCell<Shard>>,
}

impl Work {
    /// `me` is the shard that this belongs to.
    pub(super) fn new(
        server: Server,
        listeners: Listeners,
        dtls: Option<Settings>,
        shared: Shared,
        post: Post,
        errands: Errands,
        me: Weak<RefCell<Shard>>,
    ) -> Self {
        Self {
            server,
            watcher: listeners.watcher,
            listeners: listeners.all,
            legs: SecondaryMap::new(),
            tcp_legs: SecondaryMap::new(),
            connections: SlotMap::with_key(),
            pushed: Vec::new(),
            dtls: dtls.map(Sessions::new),
            messages: Vec::new(),
            bound: None,
            egress: Egress::new(),
            traffic_class: 0,
            reply: Vec::new(),
            shared,
            post,
            errands,
            arriving: Vec::new(),
            me,
        }
    }

    /// Forgets what was to be sent.
    pub(super) fn abandon(&mut self) {
        self.egress = Egress::new();
        self.traffic_class = 0;
        self.messages.clear();
        for id in self.pushed.drain(..) {
            // What it is owed goes out now, or at its own next turn.
            let _ = self.connections.get(id).map(|connection| connection.flush());
        }
        self.bound = None;
    }

    pub(super) fn socket(&self, key: SocketKey) -> Option<&Socket> {
        match key {
            SocketKey::Listener(index) => self.listeners.get(index).map(|own| &own.socket),
            SocketKey::Relay(id) => self.legs.get(id).map(|leg| &leg.relay.socket),
        }
    }

    /// A datagram from a client, or from somebody who would like to be one.
    pub(super) fn handle_datagram(
        &mut self,
        listener: usize,
        datagram: Datagram,
        bytes: &[u8],
        now: Now,
    ) {
        let Some((back, client, server)) = self.ends(listener, datagram) else { return };
        let from = FiveTuple { transport: Transport::Udp, client, server };
        self.handle_client(ClientPath::Datagram(back), from, datagram.range(), bytes, now);
    }

    /// The way back to who sent a datagram, its address, and ours.
    fn ends(
        &self,
        listener: usize,
        datagram: Datagram,
    ) -> Option<(Route<SocketKey>, SocketAddr, SocketAddr)> {
        let local = self.listeners.get(listener)?.address;
        let back = Route {
            socket: SocketKey::Listener(listener),
            to: datagram.from,
            from: datagram.to,
            dont_fragment: false,
            traffic_class: 0,
        };
        let server = SocketAddr::new(datagram.to.unwrap_or(local.ip()), local.port());
        Some((back, datagram.from, server))
    }

    /// One message from a client, whichever way it came.
    pub(super) fn handle_client(
        &mut self,
        path: ClientPath,
        from: FiveTuple,
        place: Range<usize>,
        bytes: &[u8],
        now: Now,
    ) {
        self.reply.clear();
        match self.server.handle_client(from, &bytes[place.clone()], now, &mut self.reply) {
            Verdict::Drop(_) => self.handle_events(bytes),
            Verdict::Reply => {
                // What a response says is over must be over when it arrives.
                self.handle_events(bytes);
                self.reply_to(path);
            }
            Verdict::ReplyFrom(origin) => self.reply_from(origin, path),
            Verdict::ToPeer { from, peer, payload, dont_fragment } => {
                // A client that has moved may be reached where this comes from from now on.
                self.handle_events(bytes);
                let payload = place.start + payload.start..place.start + payload.end;
                self.relay_to_peer(Leaving { from, peer, dont_fragment }, payload, bytes, now);
            }
            Verdict::ToClient { to, header, padding } => {
                self.relay_to_client(to, &header, place, padding, bytes);
            }
            Verdict::Resumed(id) => {
                self.expect_at(id, path);
                self.handle_events(bytes);
                self.reply_to(path);
            }
            Verdict::Resume(pending) => self.resume(pending, path, now),
            Verdict::Elsewhere(relayed) => self.pass_on(relayed, path, from, &bytes[place]),
            Verdict::Bind(pending) => {
                // What has expired gives back its port and its place in the quota first.
                self.handle_events(bytes);
                self.bind(pending, path, now);
                self.reply_to(path);
            }
            Verdict::Connect(pending) => {
                self.handle_events(bytes);
                self.connect(pending, path, now);
            }
            Verdict::BindConnection(pending) => match path {
                ClientPath::Stream(id) => self.bind_connection(pending, id, now),
                // Nobody asks for it over datagrams, and a connection of another shard cannot be
                // had here.
                _ => drop(self.server.drop(DropReason::SendFailed)),
            },
        }
    }

    /// Out of the socket of this shard that listens there: a discovering client asks for it.
    fn reply_from(&mut self, origin: SocketAddr, path: ClientPath) {
        let index = self.listeners.iter().position(|own| own.address == origin);
        let (Some(index), ClientPath::Datagram(route)) = (index, path) else {
            return drop(self.server.drop(DropReason::SendFailed));
        };
        let route = Route { socket: SocketKey::Listener(index), from: None, ..route };
        self.egress.push_owned(route, &self.reply);
    }

    /// A datagram at a relayed address.
    pub(super) fn handle_peer(
        &mut self,
        id: AllocationId,
        from: SocketAddr,
        place: Range<usize>,
        bytes: &[u8],
        now: Now,
    ) {
        let verdict = self.server.handle_peer(id, from, &bytes[place.clone()], now);
        if let Verdict::ToClient { to, header, padding } = verdict {
            self.relay_to_client(to, &header, place, padding, bytes);
        }
    }

    /// An ICMP error about what left a relayed address.
    pub(super) fn handle_icmp(&mut self, id: AllocationId, error: IcmpError, now: Now) {
        let IcmpError { peer, kind, code, info } = error;
        let icmp = Icmp { kind, code: code.into(), data: info };
        if let Verdict::ToClient { to, header, padding } =
            self.server.handle_icmp(id, peer, icmp, now)
        {
            self.relay_to_client(to, &header, 0..0, padding, &[]);
        }
    }

    /// Towards a peer. One that is itself a relayed address of this process is reached without a
    /// socket, and so whether or not its port can be reached from outside.
    fn relay_to_peer(
        &mut self,
        Leaving { from, peer, dont_fragment }: Leaving,
        payload: Range<usize>,
        bytes: &[u8],
        now: Now,
    ) {
        let must_be_relayed = peer.must_be_relayed();
        let peer = peer.address();
        let Some(leg) = self.legs.get(from) else {
            return drop(self.server.drop(DropReason::NoAllocation));
        };
        let relayed = leg.relay.address;
        if let Some(neighbour) = self.server.relayed_at(peer) {
            return self.handle_peer(neighbour, relayed, payload, bytes, now);
        }
        let elsewhere = self.server.may_relay_at(peer);
        if let Some(shard) = elsewhere.then(|| relay::shard_of(&self.shared.pools, peer)).flatten()
        {
            let server = &mut self.server;
            let dropped = |reason| drop(server.drop(reason));
            let envelope = Envelope { to: peer, from: relayed, traffic_class: self.traffic_class };
            return self.post.add(shard, envelope, &bytes[payload], dropped);
        }
        if must_be_relayed {
            return drop(self.server.drop(DropReason::NoAllocation));
        }
        let socket = SocketKey::Relay(from);
        let traffic_class = self.traffic_class;
        let out = Route { socket, to: peer, from: None, dont_fragment, traffic_class };
        self.egress.push(out, &[], payload, 0);
    }

    /// Obtains what a new allocation needs; the server writes the response either way.
    fn bind(&mut self, pending: PendingAllocation, client: ClientPath, now: Now) {
        if let (PeerTransport::Tcp, ClientPath::Stream(control)) = (pending.peers(), client) {
            return self.bind_tcp(pending, control, now);
        }
        let Shared { pools, quotas, .. } = &self.shared;
        let obtained = relay::obtain(pools, quotas, &pending, self.post.own(), now.instant);
        let Obtained { relay, quota, also, reservation } = match obtained {
            Ok(obtained) => obtained,
            Err(failure) => {
                if let Failure::Socket(error) = &failure {
                    self.warn_of_bind(error, now.instant);
                }
                self.server.allocated(&pending, Err(failure.into()), now, &mut self.reply);
                return;
            }
        };
        let allocated = Allocated {
            relayed: RelayedAddress(relay.address),
            also: also.as_ref().map(|(relay, _)| RelayedAddress(relay.address)),
            meter: quota.meter(),
            reservation: reservation.as_ref().map(Reservation::token),
            tally: None,
        };
        let id = self.server.allocated(&pending, Ok(allocated), now, &mut self.reply);
        let Some(id) = id else { return };
        let other = self.server.other_family(id).zip(also);
        let also = other.map(|(id, (relay, quota))| (id, relay, quota));
        for (id, relay, quota) in [Some((id, relay, quota)), also].into_iter().flatten() {
            if let Err(error) = self.add_leg(id, Leg { relay, client, quota, moving: None }) {
                self.warn_of_bind(&error, now.instant);
                self.server.socket_lost(id, now);
                self.reply.clear();
                let refused = Err(AllocateError::NoCapacity);
                self.server.allocated(&pending, refused, now, &mut self.reply);
                return;
            }
        }
        if let Some(reservation) = reservation {
            reservation.keep();
        }
    }

    /// From now on the allocation is heard. Where the kernel watches no more sockets it is not: then
    /// it is to be ended.
    pub(super) fn add_leg(&mut self, id: AllocationId, leg: Leg) -> io::Result<()> {
        let watched = self.watcher.add(&leg.relay.socket, SocketKey::Relay(id).token());
        self.legs.insert(id, leg);
        watched
    }

    /// An operator must look, but one line for each refused client, or even for each shard, would
    /// drown the log.
    pub(super) fn warn_of_bind(&self, error: &io::Error, now: Instant) {
        const QUIET: Duration = Duration::from_secs(60);
        let warned = self.shared.bind_warned.lock();
        let mut warned = warned.unwrap_or_else(PoisonError::into_inner);
        // Another shard may have read its clock a little later.
        if warned.is_some_and(|warned| now.saturating_duration_since(warned) < QUIET) {
            return;
        }
        *warned = Some(now);
        warn!(%error, "no relay socket; clients are refused with 508");
    }

    /// Looks anew at what the NAT in front does.
    pub(super) fn look_outside(&mut self) {
        let advertised = self.shared.pools.iter().map(|pool| pool.advertised()).collect();
        self.server.set_aliases(self.shared.externals.aliases(), advertised);
    }

    pub(super) fn flush(&mut self, bytes: &[u8]) {
        let Self { server, listeners, legs, egress, post, connections, pushed, .. } = self;
        for id in pushed.drain(..) {
            // A connection that cannot be written to ends at its own next turn.
            if let Some(Err(_)) = connections.get(id).map(|connection| connection.flush()) {
                connections[id].give_up();
            }
        }
        egress.flush(
            bytes,
            |key| match key {
                SocketKey::Listener(index) => listeners.get(index).map(|own| &own.socket),
                SocketKey::Relay(id) => legs.get(id).map(|leg| &leg.relay.socket),
            },
            |reason| drop(server.drop(reason)),
        );
        post.send(|reason| drop(server.drop(reason)));
    }

    /// Logs what happened; drops what a closed allocation held, once what it relayed has left.
    pub(super) fn handle_events(&mut self, bytes: &[u8]) {
        while let Some(event) = self.server.poll_event() {
            let relayed = |id| {
                let tcp = || self.tcp_legs.get(id).map(|leg| leg.address);
                self.legs.get(id).map(|leg| leg.relay.address).or_else(tcp)
            };
            journal::record(&event, relayed);
            match event {
                Event::Closed { id, .. } => {
                    if self.egress.leaves_from(SocketKey::Relay(id)) {
                        self.flush(bytes);
                    }
                    self.end_stub(id);
                    self.legs.remove(id);
                    self.tcp_legs.remove(id);
                }
                Event::Parted { id, peer } => self.part(id, peer),
                Event::Switched { id, .. } => self.switch(id),
                _ => {}
            }
        }
    }
}
