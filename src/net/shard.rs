//! A shard: one thread's server and sockets, and what is done about each verdict.
//!
//! One wake-up of one socket is one turn: receive a batch, ask the server about each packet,
//! collect what is to be sent, send it all, then see to the events. Nothing is kept for later.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::rc::{Rc, Weak};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use slotmap::SecondaryMap;
use tokio::task::AbortHandle;
use tracing::warn;

use super::egress::{Egress, Route};
use super::ports::{Parity, PortPool};
use super::post::{Parcel, Post};
use super::quota::{QuotaLease, Quotas};
use super::relay::{self, RelaySocket};
use super::sys::{Datagram, RecvBatch, Socket};
use super::udp::{self, Listener};
use super::{clock, journal};
use crate::turn::{
    AllocateError, Allocated, AllocationId, DropReason, Event, FiveTuple, Header, Now, PeerAddress,
    PendingAllocation, RelayedAddress, Server, Stats, Transport, Verdict,
};

/// What all shards of the process share: control plane only.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    pub(super) pools: Arc<[Arc<PortPool>]>,
    pub(super) quotas: Arc<Quotas>,
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

/// What an allocation holds outside of the core. Dropping it closes the socket and gives back
/// port and quota.
struct Leg {
    relay: RelaySocket,
    /// How to reach the client: from the very address it sent to.
    client: Route<SocketKey>,
    pump: AbortHandle,
    _quota: QuotaLease,
}

impl Drop for Leg {
    fn drop(&mut self) {
        self.pump.abort();
    }
}

/// See the module.
pub(super) struct Shard {
    batch: RecvBatch,
    work: Work,
}

/// All of a shard but the receive buffer, which is borrowed while the rest works on it.
struct Work {
    server: Server,
    listeners: Vec<Listener>,
    legs: SecondaryMap<AllocationId, Leg>,
    egress: Egress<SocketKey>,
    reply: Vec<u8>,
    shared: Shared,
    post: Post,
    me: Weak<RefCell<Shard>>,
}

impl Shard {
    pub(super) fn new(
        server: Server,
        listeners: Vec<Listener>,
        shared: Shared,
        post: Post,
    ) -> Rc<RefCell<Self>> {
        Rc::new_cyclic(|me| {
            RefCell::new(Self {
                batch: RecvBatch::new(),
                work: Work {
                    server,
                    listeners,
                    legs: SecondaryMap::new(),
                    egress: Egress::new(),
                    reply: Vec::new(),
                    shared,
                    post,
                    me: me.clone(),
                },
            })
        })
    }

    /// Waits until a turn of the socket would find something; an error if there is no such socket.
    pub(super) fn poll_readable(
        &self,
        key: SocketKey,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        match self.work.socket(key) {
            Some(socket) => socket.poll_readable(context),
            None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    /// One turn of a socket that has something to read. Returns how many datagrams there were.
    pub(super) fn turn(&mut self, key: SocketKey) -> io::Result<usize> {
        let Self { batch, work } = self;
        let Some(socket) = work.socket(key) else { return Ok(0) };
        let received = socket.recv(batch)?;
        let now = clock::now();
        for &datagram in batch.datagrams() {
            match key {
                SocketKey::Listener(listener) => {
                    work.handle_client(listener, datagram, batch.bytes(), now);
                }
                SocketKey::Relay(id) => {
                    work.handle_peer(id, datagram.from, datagram.range(), batch.bytes(), now);
                }
            }
        }
        work.flush(batch.bytes());
        work.handle_events(batch.bytes());
        Ok(received)
    }

    /// One turn for what another shard's clients sent to clients of this one.
    pub(super) fn deliver(&mut self, parcel: Parcel) {
        let work = &mut self.work;
        let now = clock::now();
        for letter in &parcel.letters {
            match work.server.relayed_at(letter.to) {
                Some(id) => {
                    work.handle_peer(id, letter.from, letter.payload.clone(), &parcel.bytes, now);
                }
                None => drop(work.server.drop(DropReason::NoAllocation)),
            }
        }
        work.flush(&parcel.bytes);
        work.post.give_back(parcel);
    }

    /// Ends what has expired; returns when to come back.
    pub(super) fn handle_timeout(&mut self, now: Now) -> Option<Instant> {
        self.work.server.handle_timeout(now);
        self.work.handle_events(&[]);
        self.work.server.poll_timeout()
    }

    /// Looks anew at the machine's addresses: a new one must not be a way to reach it.
    pub(super) fn look_around(&mut self) {
        let (addresses, broadcasts) = super::own_addresses();
        self.work.server.set_own_addresses(addresses, broadcasts);
    }

    /// Ends everything, with a line in the log for each allocation.
    pub(super) fn shutdown(&mut self) {
        self.work.server.shutdown(clock::now());
        self.work.handle_events(&[]);
    }

    /// A copy of the counters.
    pub(super) fn stats(&self) -> Stats {
        self.work.server.stats().clone()
    }

    /// Forgets the packets of a turn that panicked, and counts them as one.
    pub(super) fn abandon_turn(&mut self) {
        self.work.egress = Egress::new();
        drop(self.work.server.drop(DropReason::Panic));
        self.work.handle_events(&[]);
    }
}

impl Work {
    fn socket(&self, key: SocketKey) -> Option<&Socket> {
        match key {
            SocketKey::Listener(index) => self.listeners.get(index).map(|own| &own.socket),
            SocketKey::Relay(id) => self.legs.get(id).map(|leg| &leg.relay.socket),
        }
    }

    /// A datagram from a client, or from somebody who would like to be one.
    fn handle_client(&mut self, listener: usize, datagram: Datagram, bytes: &[u8], now: Now) {
        let Some(local) = self.listeners.get(listener).map(|own| own.address) else { return };
        let back =
            Route { socket: SocketKey::Listener(listener), to: datagram.from, from: datagram.to };
        let from = FiveTuple {
            transport: Transport::Udp,
            client: datagram.from,
            server: SocketAddr::new(datagram.to.unwrap_or(local.ip()), local.port()),
        };
        let place = datagram.range();
        self.reply.clear();
        match self.server.handle_client(from, &bytes[place.clone()], now, &mut self.reply) {
            Verdict::Drop(_) => {}
            Verdict::Reply => {
                // What a response says is over must be over when it arrives.
                self.handle_events(bytes);
                self.egress.push_owned(back, &self.reply);
            }
            Verdict::ToPeer { from, peer, payload } => {
                let payload = place.start + payload.start..place.start + payload.end;
                self.relay_to_peer(from, peer, payload, bytes, now);
            }
            Verdict::ToClient { to, header, padding } => {
                self.relay_to_client(to, &header, place, padding);
            }
            Verdict::Bind(pending) => {
                // What has expired gives back its port and its place in the quota first.
                self.handle_events(bytes);
                self.bind(pending, back, now);
                self.egress.push_owned(back, &self.reply);
            }
        }
    }

    /// A datagram at a relayed address.
    fn handle_peer(
        &mut self,
        id: AllocationId,
        from: SocketAddr,
        place: Range<usize>,
        bytes: &[u8],
        now: Now,
    ) {
        let verdict = self.server.handle_peer(id, from, &bytes[place.clone()], now);
        if let Verdict::ToClient { to, header, padding } = verdict {
            self.relay_to_client(to, &header, place, padding);
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
        if let Some(shard) = relay::shard_of(&self.shared.pools, peer) {
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
    ) {
        let Some(leg) = self.legs.get(to) else {
            return drop(self.server.drop(DropReason::NoAllocation));
        };
        self.egress.push(leg.client, header.as_bytes(), data, padding);
    }

    /// Obtains what a new allocation needs; the server writes the response either way.
    fn bind(&mut self, pending: PendingAllocation, client: Route<SocketKey>, now: Now) {
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
        let leg = Leg { relay, client, pump: pump.abort_handle(), _quota: quota };
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

    fn flush(&mut self, bytes: &[u8]) {
        let Self { server, listeners, legs, egress, post, .. } = self;
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
    fn handle_events(&mut self, bytes: &[u8]) {
        while let Some(event) = self.server.poll_event() {
            let relayed = |id| self.legs.get(id).map(|leg| leg.relay.address);
            journal::record(&event, relayed);
            if let Event::Closed { id, .. } = event {
                self.flush(bytes);
                self.legs.remove(id);
            }
        }
    }
}
