//! The clients and peers of one thread: opened together, renewed together, deleted together.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::{JoinError, JoinSet};
use tokio::time;

use crate::net::sys::{AwaitedSocket, Options, Socket};

use super::client::{Client, Common};
use super::{Error, Pattern, Shape};

/// Clients that wait for an answer at the same time.
const AT_ONCE: usize = 64;
/// Peer sockets of a thread, each shared by several clients if need be.
const PEERS_MAX: usize = 64;
/// What allocations are renewed for.
const LIFETIME_SECS: u32 = 600;
/// How long a server may take to hear that all is over.
const CLOSE_WITHIN: Duration = Duration::from_secs(3);

/// Which flows are a thread's own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Share {
    /// The number of the first among those of all threads.
    pub(super) first: u32,
    /// How many.
    pub(super) flows: u32,
}

/// The flows of a thread.
pub(super) struct Flows {
    pub(super) shape: Shape,
    pub(super) share: Share,
    pub(super) common: Rc<Common>,
    /// With [`Pattern::RelayToRelay`] flow n is from client 2n to client 2n + 1.
    pub(super) clients: Vec<Rc<Client>>,
    pub(super) peers: Vec<(AwaitedSocket, SocketAddr)>,
}

impl Flows {
    /// Opens what the pattern needs, and counts each client that is ready.
    pub(super) async fn open(
        shape: Shape,
        share: Share,
        common: Rc<Common>,
        opened: &AtomicU64,
    ) -> Result<Self, Error> {
        let mut flows = Self { shape, share, common, clients: Vec::new(), peers: Vec::new() };
        let (clients, peers) = match flows.shape.pattern {
            Pattern::ToPeer | Pattern::ToClient | Pattern::Echo => (share.flows, share.flows),
            Pattern::RelayToRelay => (share.flows * 2, 0),
            Pattern::Binding => (share.flows, 0),
            Pattern::Allocate => (0, 1),
        };
        for _ in 0..PEERS_MAX.min(peers as usize) {
            flows.peers.push(flows.peer()?);
        }
        flows.open_clients(clients, opened).await?;
        if flows.shape.pattern != Pattern::Binding {
            flows.admit_all().await?;
        }
        Ok(flows)
    }

    /// A peer's socket, on the address from which this machine reaches the server.
    fn peer(&self) -> Result<(AwaitedSocket, SocketAddr), Error> {
        let local = |error| Error::Local { what: "UDP socket for a peer", error };
        let ip = match self.shape.local.first() {
            Some(&ip) => ip,
            None => source_towards(self.common.target.address).map_err(local)?,
        };
        let socket = Socket::bind(SocketAddr::new(ip, 0), Options::default())
            .and_then(AwaitedSocket::new)
            .map_err(local)?;
        let address = socket.local_addr().map_err(local)?;
        Ok((socket, address))
    }

    async fn open_clients(&mut self, clients: u32, opened: &AtomicU64) -> Result<(), Error> {
        let allocates = self.shape.pattern != Pattern::Binding;
        let mut slots = vec![None; clients as usize];
        let mut opening = JoinSet::new();
        for at in 0..slots.len() {
            if opening.len() >= AT_ONCE {
                settle(&mut slots, opening.join_next().await)?;
            }
            let (common, local) = (Rc::clone(&self.common), self.local(at));
            opening.spawn_local(async move {
                if allocates {
                    return Ok((at, Client::allocated(&common, local).await?));
                }
                let client = Client::open(common, local).await?;
                client.binding().await?;
                Ok((at, client))
            });
            opened.fetch_add(1, Ordering::Relaxed);
        }
        while !opening.is_empty() {
            settle(&mut slots, opening.join_next().await)?;
        }
        self.clients = slots.into_iter().flatten().collect();
        Ok(())
    }

    /// Where client number `at` is to send from.
    pub(super) fn local(&self, at: usize) -> Option<SocketAddr> {
        let local = &self.shape.local;
        let turn = at.checked_rem(local.len())?;
        Some(SocketAddr::new(local[turn], 0))
    }

    /// The peer of client number `at`.
    pub(super) fn peer_of(&self, at: usize) -> Option<SocketAddr> {
        match self.shape.pattern {
            Pattern::RelayToRelay => self.clients[at ^ 1].relayed(),
            _ => Some(self.peers[at % self.peers.len()].1),
        }
    }

    /// Admits each client's peer.
    async fn admit_all(&self) -> Result<(), Error> {
        let mode = self.shape.mode;
        self.each(|client, peer| async move { client.admit(mode, peer).await }).await
    }

    /// Keeps allocations, permissions and channels alive.
    pub(super) async fn renew(&self) -> Result<(), Error> {
        if matches!(self.shape.pattern, Pattern::Binding | Pattern::Allocate) {
            return Ok(());
        }
        let mode = self.shape.mode;
        self.each(|client, peer| async move {
            client.refresh(LIFETIME_SECS).await?;
            client.admit(mode, peer).await
        })
        .await
    }

    /// Deletes the allocations; a server that does not answer is not waited for.
    pub(super) async fn close(&self) {
        if self.shape.pattern != Pattern::Binding {
            let deleted = self.each(|client, _| async move { client.refresh(0).await });
            // What is left expires by itself.
            let _ = time::timeout(CLOSE_WITHIN, deleted).await;
        }
    }

    /// Does something with all clients, some of them at the same time.
    async fn each<F>(&self, act: impl Fn(Rc<Client>, SocketAddr) -> F) -> Result<(), Error>
    where
        F: Future<Output = Result<(), Error>> + 'static,
    {
        let mut acting = JoinSet::new();
        for (at, client) in self.clients.iter().enumerate() {
            if acting.len() >= AT_ONCE {
                joined(acting.join_next().await)?;
            }
            let Some(peer) = self.peer_of(at) else { continue };
            acting.spawn_local(act(Rc::clone(client), peer));
        }
        while !acting.is_empty() {
            joined(acting.join_next().await)?;
        }
        Ok(())
    }
}

type Opened = Option<Result<Result<(usize, Client), Error>, JoinError>>;

fn settle(slots: &mut [Option<Rc<Client>>], outcome: Opened) -> Result<(), Error> {
    let Some(Ok(outcome)) = outcome else { return Ok(()) };
    let (at, client) = outcome?;
    slots[at] = Some(Rc::new(client));
    Ok(())
}

fn joined(outcome: Option<Result<Result<(), Error>, JoinError>>) -> Result<(), Error> {
    match outcome {
        Some(Ok(outcome)) => outcome,
        // Nobody cancels, and a panic has been reported where it was.
        Some(Err(_)) | None => Ok(()),
    }
}

/// The address from which this machine reaches another one. Sends nothing.
fn source_towards(server: SocketAddr) -> io::Result<IpAddr> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(server)?;
    Ok(socket.local_addr()?.ip())
}
