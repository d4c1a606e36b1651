//! What a shard does about each verdict: binds, relays, replies, and sends what has come together.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::rc::{Rc, Weak};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use slotmap::{SecondaryMap, SlotMap};
use tokio::task::AbortHandle;
use tracing::warn;

use super::egress::{Egress, Route};
use super::external::Externals;
use super::journal;
use super::moves::{Errands, Moving};
use super::ports::{Parity, PortPool};
use super::post::Post;
use super::quota::{QuotaLease, Quotas};
use super::relay::{self, RelaySocket};
use super::shard::Shard;
use super::stream::{Connection, ConnectionId, Importance};
use super::sys::{Datagram, Socket};
use super::udp::{self, Listener};
use crate::turn::{
    AllocateError, Allocated, AllocationId, DropReason, Event, FiveTuple, Header, Now, PeerAddress,
    PendingAllocation, RelayedAddress, Server, Transport, Verdict,
};

/// What all shards of the process share: control plane only.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    pub(super) pools: Arc<[Arc<PortPool>]>,
    pub(super) quotas: Arc<Quotas>,
    pub(super) externals: Arc<Externals>,
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

/// How to reach a client.
#[derive(Clone, Copy, Debug)]
pub(super) enum ClientPath {
    /// From the very address it sent to.
    Datagram(Route<SocketKey>),
    /// Over its connection.
    Stream(ConnectionId),
    /// Over its connection, which this other shard has.
    Elsewhere(usize, ConnectionId),
}

/// What an allocation holds outside of the core. Dropping it closes the socket and gives back
/// port and quota.
pub(super) struct Leg {
    pub(super) relay: RelaySocket,
    pub(super) client: ClientPath,
    pub(super) pump: Pump,
    pub(super) quota: QuotaLease,
    /// There while the client moves.
    pub(super) moving: Option<Box<Moving>>,
}

/// The task that reads a relay socket; ends when dropped.
pub(super) struct Pump(pub(super) AbortHandle);

impl Drop for Pump {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// All of a shard but its receive buffers.
pub(super) struct Work {
    pub(super) server: Server,
    listeners: Vec<Listener>,
    pub(super) legs: SecondaryMap<AllocationId, Leg>,
    pub(super) connections: SlotMap<ConnectionId, Rc<Connection>>,
    /// Connections with something to write in this turn.
    pushed: Vec<ConnectionId>,
    egress: Egress<SocketKey>,
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
        listeners: Vec<Listener>,
        shared: Shared,
        post: Post,
        errands: Errands,
        me: Weak<RefCell<Shard>>,
    ) -> Self {
        Self {
            server,
            listeners,
            legs: SecondaryMap::new(),
            connections: SlotMap::with_key(),
            pushed: Vec::new(),
            egress: Egress::new(),
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
        for id in self.pushed.drain(..) {
            // What it is owed goes out now, or at its own next turn.
            let _ = self.connections.get(id).map(|connection| connection.flush());
        }
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
        let Some(local) = self.listeners.get(listener).map(|own| own.address) else { return };
        let back =
            Route { socket: SocketKey::Listener(listener), to: datagram.from, from: datagram.to };
        let from = FiveTuple {
            transport: Transport::Udp,
            client: datagram.from,
            server: SocketAddr::new(datagram.to.unwrap_or(local.ip()), local.port()),
        };
        self.handle_client(ClientPath::Datagram(back), from, datagram.range(), bytes, now);
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
            Verdict::ToPeer { from: id, peer, payload } => {
                // A client that has moved may be reached where this comes from from now on.
                self.handle_events(bytes);
                let payload = place.start + payload.start..place.start + payload.end;
                self.relay_to_peer(id, peer, payload, bytes, now);
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
        }
    }

    pub(super) fn reply_to(&mut self, path: ClientPath) {
        match path {
            ClientPath::Datagram(route) => self.egress.push_owned(route, &self.reply),
            ClientPath::Stream(id) => {
                let reply = std::mem::take(&mut self.reply);
                self.write(id, &[], &reply, 0, Importance::Control);
                self.reply = reply;
            }
            ClientPath::Elsewhere(shard, id) => {
                self.write_elsewhere(shard, id, self.reply.clone(), Importance::Control);
            }
        }
    }

    /// To a connection.
    pub(super) fn write(
        &mut self,
        id: ConnectionId,
        header: &[u8],
        data: &[u8],
        padding: usize,
        importance: Importance,
    ) {
        let Some(connection) = self.connections.get(id) else {
            if importance == Importance::Data {
                drop(self.server.drop(DropReason::NoAllocation));
            }
            return;
        };
        match (connection.push(header, data, padding, importance), importance) {
            (Ok(()), _) => {}
            (Err(_), Importance::Data) => return drop(self.server.drop(DropReason::StreamFull)),
            // It does not even read responses; its next turn finds it closed.
            (Err(_), Importance::Control) => connection.give_up(),
        }
        if connection.becomes_due() {
            self.pushed.push(id);
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

    /// Towards a peer. One that is itself a relayed address of this process is reached without a
    /// socket, and so whether or not its port can be reached from outside.
    fn relay_to_peer(
        &mut self,
        from: AllocationId,
        peer: PeerAddress,
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
            return self.post.add(shard, peer, relayed, &bytes[payload], dropped);
        }
        if must_be_relayed {
            return drop(self.server.drop(DropReason::NoAllocation));
        }
        let out = Route { socket: SocketKey::Relay(from), to: peer, from: None };
        self.egress.push(out, &[], payload, 0);
    }

    fn relay_to_client(
        &mut self,
        to: AllocationId,
        header: &Header,
        data: Range<usize>,
        padding: usize,
        bytes: &[u8],
    ) {
        let Some(leg) = self.legs.get(to) else {
            return drop(self.server.drop(DropReason::NoAllocation));
        };
        match leg.client {
            ClientPath::Datagram(route) => {
                self.egress.push(route, header.as_bytes(), data, padding);
            }
            ClientPath::Stream(id) => {
                self.write(id, header.as_bytes(), &bytes[data], padding, Importance::Data);
            }
            ClientPath::Elsewhere(shard, id) => {
                let frame = Self::frame(header, &bytes[data], padding);
                self.write_elsewhere(shard, id, frame, Importance::Data);
            }
        }
    }

    /// Obtains what a new allocation needs; the server writes the response either way.
    fn bind(&mut self, pending: PendingAllocation, client: ClientPath, now: Now) {
        let obtained = self.obtain(&pending, now);
        let (relay, quota) = match obtained {
            Ok(obtained) => obtained,
            Err(error) => {
                self.server.allocated(pending, Err(error), now, &mut self.reply);
                return;
            }
        };
        let allocated = Allocated { relayed: RelayedAddress(relay.address), meter: quota.meter() };
        let id = self.server.allocated(pending, Ok(allocated), now, &mut self.reply);
        let (Some(id), Some(me)) = (id, self.me.upgrade()) else { return };
        let pump = tokio::task::spawn_local(udp::pump(me, SocketKey::Relay(id)));
        let leg = Leg { relay, client, pump: Pump(pump.abort_handle()), quota, moving: None };
        self.legs.insert(id, leg);
    }

    fn obtain(
        &mut self,
        pending: &PendingAllocation,
        now: Now,
    ) -> Result<(RelaySocket, QuotaLease), AllocateError> {
        let quota = self.shared.quotas.take(pending.account())?;
        let pools = &self.shared.pools;
        let parity = if pending.wants_even_port() { Parity::Even } else { Parity::Any };
        match relay::bind(pools, pending.family(), parity, self.post.own(), now.instant) {
            Ok(relay) => Ok((relay, quota)),
            Err(error) => {
                self.warn_of_bind(&error, now.instant);
                Err(AllocateError::NoCapacity)
            }
        }
    }

    /// An operator must look, but one line for each refused client, or even for each shard, would
    /// drown the log.
    fn warn_of_bind(&self, error: &io::Error, now: Instant) {
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
            let relayed = |id| self.legs.get(id).map(|leg| leg.relay.address);
            journal::record(&event, relayed);
            match event {
                Event::Closed { id, .. } => {
                    self.flush(bytes);
                    self.end_stub(id);
                    self.legs.remove(id);
                }
                Event::Switched { id, .. } => self.switch(id),
                _ => {}
            }
        }
    }
}
