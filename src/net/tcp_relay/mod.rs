//! Relaying over TCP (RFC 6062): relayed addresses that peers connect to, connections to peers,
//! and their wait for the client's data connection.
//!
//! All of this is the work of the shard that has the allocation. The client's data connection may
//! land on another shard, which finds the peer's connection in the process-wide [`Rendezvous`] and
//! carries the data from then on; see [`data`]. All that is left between the two is a channel that
//! never carries anything: each learns from its closing that the other's side has ended.

pub(super) mod data;
mod rendezvous;
mod socket;

use std::cell::RefCell;
use std::collections::HashMap;
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use slotmap::SecondaryMap;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tracing::debug;

use super::clock;
use super::ports::{Parity, PortLease};
use super::quota::QuotaLease;
use super::relay;
use super::shard::Shard;
use super::stream::ConnectionId;
use super::udp::guard;
use super::work::{ClientPath, Work};
use crate::turn::connections::Tally;
use crate::turn::stats::{Direction, Traffic};
use crate::turn::{
    AllocateError, Allocated, AllocationId, ConnectError, DropReason, Now, PendingAllocation,
    PendingConnect, PendingConnectionBind, RelayedAddress,
};

pub(super) use rendezvous::{Rendezvous, Ticket, Waiting};

/// What follows a failed accept. Out of file descriptors, trying again at once would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the connections of an allocation have relayed, on whichever shards. Nothing else depends
/// on the numbers, so relaxed order is enough.
#[derive(Debug, Default)]
pub(super) struct DataTally {
    bytes: [AtomicU64; 2],
    reads: [AtomicU64; 2],
}

impl DataTally {
    fn add(&self, direction: Direction, bytes: usize) {
        self.bytes[direction as usize].fetch_add(bytes as u64, Ordering::Relaxed);
        self.reads[direction as usize].fetch_add(1, Ordering::Relaxed);
    }
}

impl Tally for DataTally {
    fn relayed(&self, direction: Direction) -> Traffic {
        let [bytes, packets] = [&self.bytes, &self.reads]
            .map(|counts| counts[direction as usize].load(Ordering::Relaxed));
        Traffic { bytes, packets }
    }
}

/// A task that ends with its owner.
#[derive(Debug)]
struct Task(AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What an allocation for TCP holds outside of the core. Dropping it ends all its connections, on
/// whichever shards, and gives back port and quota. The fields drop in this order: the port must
/// be free again before the pool hands it out.
#[derive(Debug)]
pub(super) struct TcpLeg {
    listener: TcpListener,
    accepting: Option<Task>,
    /// One for each connection, from its beginning to its end.
    connections: HashMap<SocketAddr, Task>,
    /// What peers see; behind 1:1 NAT not what the sockets are bound to.
    pub(super) address: SocketAddr,
    control: ConnectionId,
    username: Box<str>,
    tally: Arc<DataTally>,
    quota: QuotaLease,
    port: PortLease,
}

/// A connection to a peer that is about to be made.
struct Attempt {
    socket: TcpSocket,
    to: SocketAddr,
    ticket: Ticket,
}

/// The allocations for TCP of a shard.
pub(super) type TcpLegs = SecondaryMap<AllocationId, TcpLeg>;

impl Work {
    /// Obtains what a new allocation for TCP needs; the server writes the response either way.
    pub(super) fn bind_tcp(&mut self, pending: PendingAllocation, control: ConnectionId, now: Now) {
        let mut leg = match self.listen(&pending, control, now) {
            Ok(leg) => leg,
            Err(error) => {
                self.server.allocated(&pending, Err(error), now, &mut self.reply);
                return;
            }
        };
        let allocated = Allocated {
            relayed: RelayedAddress(leg.address),
            also: None,
            reservation: None,
            meter: leg.quota.meter(),
            tally: Some(Arc::clone(&leg.tally) as Arc<dyn Tally>),
        };
        let id = self.server.allocated(&pending, Ok(allocated), now, &mut self.reply);
        let (Some(id), Some(me)) = (id, self.me.upgrade()) else { return };
        leg.accepting = Some(spawn(accept(me, id)));
        self.tcp_legs.insert(id, leg);
    }

    /// Listens on a relayed address for the client of `control`.
    fn listen(
        &self,
        pending: &PendingAllocation,
        control: ConnectionId,
        now: Now,
    ) -> Result<TcpLeg, AllocateError> {
        let quota = self.shared.quotas.take(pending.account())?;
        let pools = &self.shared.pools;
        let taken =
            relay::take_port(pools, pending.family(), Parity::Any, now.instant, socket::listen);
        let (listener, port) = taken.map_err(|error| {
            self.warn_of_bind(&error, now.instant);
            AllocateError::NoCapacity
        })?;
        port.hold_for_tcp();
        Ok(TcpLeg {
            listener,
            accepting: None,
            connections: HashMap::new(),
            address: port.advertised(),
            control,
            username: pending.username().into(),
            tally: Arc::default(),
            quota,
            port,
        })
    }

    /// Begins to connect to a peer. Where it fails at once, so does the request.
    pub(super) fn connect(&mut self, pending: PendingConnect, path: ClientPath, now: Now) {
        let (id, peer) = (pending.allocation(), pending.peer().address());
        match (self.open_connection(&pending), self.me.upgrade(), self.tcp_legs.get_mut(id)) {
            (Ok(attempt), Some(me), Some(leg)) => {
                leg.connections.insert(peer, spawn(connect(me, pending, attempt)));
            }
            (outcome, ..) => {
                let error = outcome.err().unwrap_or(ConnectError::Failed);
                self.server.connected(pending, Err(error), now, &mut self.reply);
                self.reply_to(path);
            }
        }
    }

    fn open_connection(&self, pending: &PendingConnect) -> Result<Attempt, ConnectError> {
        let leg = self.tcp_legs.get(pending.allocation()).ok_or(ConnectError::Failed)?;
        let peer = pending.peer();
        let inside = relay::tcp_inside(&self.shared.pools, peer.address());
        if peer.must_be_relayed() && inside.is_none() {
            return Err(ConnectError::Failed);
        }
        let ticket = self.shared.rendezvous.reserve().ok_or(ConnectError::NoCapacity)?;
        let socket =
            socket::outgoing(leg.port.address()).map_err(|error| socket::connect_error(&error))?;
        Ok(Attempt { socket, to: inside.unwrap_or(peer.address()), ticket })
    }

    /// A connection to a peer has come about, or not. Returns what tells that it has ended.
    fn finish_connect(
        &mut self,
        pending: PendingConnect,
        outcome: io::Result<TcpStream>,
        ticket: &Ticket,
        now: Now,
    ) -> Option<oneshot::Receiver<Infallible>> {
        let (id, peer) = (pending.allocation(), pending.peer().address());
        let control = self.tcp_legs.get(id)?.control;
        let stream = outcome.and_then(into_std).map_err(|error| {
            debug!(%error, "a peer cannot be connected to");
            socket::connect_error(&error)
        });
        self.reply.clear();
        let result = stream.as_ref().map(|_| ticket.id()).map_err(|&error| error);
        let is_wanted = self.server.connected(pending, result, now, &mut self.reply);
        // Before the client hears of it: it may bind at once.
        let offered = stream.ok().filter(|_| is_wanted).and_then(|stream| {
            debug!(%peer, "connected to a peer");
            self.offer(id, stream, ticket)
        });
        self.reply_to(ClientPath::Stream(control));
        self.flush(&[]);
        self.handle_events(&[]);
        offered
    }

    /// A peer has connected to the relayed address.
    fn peer_connected(&mut self, id: AllocationId, peer: SocketAddr, stream: TcpStream, now: Now) {
        let peer = relay::tcp_outside(&self.shared.pools, peer);
        let Some(ticket) = self.shared.rendezvous.reserve() else {
            return drop(self.server.drop(DropReason::ConnectionLimit));
        };
        self.reply.clear();
        let admitted = self.server.handle_connection(id, peer, ticket.id(), now, &mut self.reply);
        if admitted.is_ok() {
            self.announce(id, peer, stream, ticket);
        }
        self.flush(&[]);
        self.handle_events(&[]);
    }

    /// Lets a peer's connection wait, and tells the client.
    fn announce(&mut self, id: AllocationId, peer: SocketAddr, stream: TcpStream, ticket: Ticket) {
        let offered = into_std(stream).ok().and_then(|stream| self.offer(id, stream, &ticket));
        let (Some(end), Some(me), Some(leg)) =
            (offered, self.me.upgrade(), self.tcp_legs.get_mut(id))
        else {
            return self.server.disconnected(id, peer);
        };
        leg.connections.insert(peer, spawn(watch(me, id, peer, ticket, end)));
        let control = leg.control;
        self.reply_to(ClientPath::Stream(control));
    }

    fn offer(
        &self,
        id: AllocationId,
        peer: std::net::TcpStream,
        ticket: &Ticket,
    ) -> Option<oneshot::Receiver<Infallible>> {
        let leg = self.tcp_legs.get(id)?;
        let (life, end) = oneshot::channel();
        let (tally, bandwidth) = (Arc::clone(&leg.tally), leg.quota.bandwidth());
        ticket.offer(leg.username.clone(), Waiting { peer, tally, bandwidth, life });
        Some(end)
    }

    /// Ends a connection to a peer, wherever it is carried. One that is still being made has no
    /// answer coming.
    pub(super) fn part(&mut self, id: AllocationId, peer: SocketAddr) {
        if let Some(leg) = self.tcp_legs.get_mut(id) {
            leg.connections.remove(&peer);
        }
    }

    /// Finds the connection that a client wants to be the other end of; this one's turn ends with
    /// it.
    pub(super) fn bind_connection(
        &mut self,
        pending: PendingConnectionBind,
        client: ConnectionId,
        now: Now,
    ) {
        let found = self.shared.rendezvous.take(pending.id(), pending.username());
        let result = found.as_ref().map(drop).map_err(|&error| error);
        self.server.connection_bound(pending, result, now, &mut self.reply);
        self.reply_to(ClientPath::Stream(client));
        self.bound = found.ok().map(|waiting| (client, waiting));
    }

    /// Whether this client has become the other end of a peer's connection in this turn.
    pub(super) fn is_bound(&self, client: ConnectionId) -> bool {
        self.bound.as_ref().is_some_and(|&(bound, _)| bound == client)
    }

    /// The peer's connection that it has become the other end of.
    pub(super) fn take_bound(&mut self, client: ConnectionId) -> Option<Waiting> {
        self.bound.take_if(|(bound, _)| *bound == client).map(|(_, waiting)| waiting)
    }
}

impl Shard {
    /// The next connection of a peer; `None` once there is no such allocation.
    fn poll_accept(
        &self,
        id: AllocationId,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<(TcpStream, SocketAddr)>>> {
        match self.work.tcp_legs.get(id) {
            Some(leg) => leg.listener.poll_accept(context).map(Some),
            None => Poll::Ready(None),
        }
    }

    /// Forgets a connection that has ended, and with it the task that watches it: the caller.
    fn forget_connection(&mut self, id: AllocationId, peer: SocketAddr) {
        self.work.server.disconnected(id, peer);
        if let Some(leg) = self.work.tcp_legs.get_mut(id) {
            leg.connections.remove(&peer);
        }
    }
}

fn spawn(task: impl Future<Output = ()> + 'static) -> Task {
    Task(tokio::task::spawn_local(task).abort_handle())
}

/// Out of this shard's hands, for another one's.
fn into_std(peer: TcpStream) -> io::Result<std::net::TcpStream> {
    socket::prepare(&peer)?;
    peer.into_std()
}

/// Accepts peers' connections until the allocation ends. Holds no socket, so that one is closed
/// when the shard drops it.
async fn accept(shard: Rc<RefCell<Shard>>, id: AllocationId) {
    while let Some(accepted) = poll_fn(|context| shard.borrow().poll_accept(id, context)).await {
        match accepted {
            Ok((stream, peer)) => {
                guard(&shard, "a peer's connection", |shard| {
                    shard.work.peer_connected(id, peer, stream, clock::now());
                });
                // A flood on one address must not starve the others.
                tokio::task::yield_now().await;
            }
            Err(error) => {
                debug!(%error, "cannot accept a peer's connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// One connection to a peer, from the request to its end.
async fn connect(
    shard: Rc<RefCell<Shard>>,
    pending: PendingConnect,
    Attempt { socket, to, ticket }: Attempt,
) {
    let (id, peer) = (pending.allocation(), pending.peer().address());
    let outcome = timeout(pending.deadline(), socket.connect(to)).await;
    let outcome = outcome.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    let end = guard(&shard, "a connection to a peer", |shard| {
        shard.work.finish_connect(pending, outcome, &ticket, clock::now())
    });
    match end.flatten() {
        Some(end) => watch(shard, id, peer, ticket, end).await,
        None => shard.borrow_mut().forget_connection(id, peer),
    }
}

/// Closes a connection that no client binds in time, and waits for the end of one that is bound.
async fn watch(
    shard: Rc<RefCell<Shard>>,
    id: AllocationId,
    peer: SocketAddr,
    ticket: Ticket,
    mut end: oneshot::Receiver<Infallible>,
) {
    let unbound = shard.borrow().work.server.unbound_lifetime();
    if timeout(unbound, &mut end).await.is_err() {
        match ticket.withdraw() {
            Some(waiting) => {
                debug!(%peer, "nobody binds the connection of a peer");
                drop(waiting);
            }
            // It has been bound meanwhile. Nothing ever comes but the end.
            None => drop(end.await),
        }
    }
    shard.borrow_mut().forget_connection(id, peer);
}
