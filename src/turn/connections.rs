//! The connections between one relayed address and its peers (RFC 6062).
//!
//! Here it is only known that they exist: between one relayed address and one peer there is at
//! most one, so the peer's address names it. Its bytes never pass through the core.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use super::allocation::Full;
use super::stats::{Direction, Traffic};

/// What the connections of an allocation have relayed so far: they may be anywhere in the process,
/// so the driver counts, and the core asks when the allocation ends.
pub trait Tally: Send + Sync {
    /// Bytes that went this way. The packets are the portions they were read in.
    fn relayed(&self, direction: Direction) -> Traffic;
}

/// See the module. An allocation has this if and only if it relays over TCP.
pub(super) struct PeerConnections {
    /// Being opened, waiting for the client, or open. Few, so they are searched.
    peers: Vec<SocketAddr>,
    tally: Option<Arc<dyn Tally>>,
}

impl PeerConnections {
    pub(super) fn new(tally: Option<Arc<dyn Tally>>) -> Self {
        Self { peers: Vec::new(), tally }
    }

    pub(super) fn has(&self, peer: SocketAddr) -> bool {
        self.peers.contains(&peer)
    }

    /// Takes in a connection to a peer that has none.
    pub(super) fn add(&mut self, peer: SocketAddr, most: usize) -> Result<(), Full> {
        if self.peers.len() >= most {
            return Err(Full);
        }
        self.peers.push(peer);
        Ok(())
    }

    /// Whether there was one.
    pub(super) fn remove(&mut self, peer: SocketAddr) -> bool {
        let found = self.peers.iter().position(|&own| own == peer);
        found.map(|at| self.peers.swap_remove(at)).is_some()
    }

    /// Forgets those to peers that are not `wanted`, and returns them.
    pub(super) fn retain(&mut self, wanted: impl Fn(SocketAddr) -> bool) -> Vec<SocketAddr> {
        self.peers.extract_if(.., |&mut peer| !wanted(peer)).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.peers.len()
    }

    pub(super) fn relayed(&self, direction: Direction) -> Traffic {
        self.tally.as_ref().map_or_else(Traffic::default, |tally| tally.relayed(direction))
    }
}

impl fmt::Debug for PeerConnections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerConnections").field("peers", &self.peers).finish_non_exhaustive()
    }
}
