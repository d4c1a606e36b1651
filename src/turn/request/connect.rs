//! Connect: a connection from a relayed address to a peer (RFC 6062 §5.2).
//!
//! The server cannot connect sockets, and connecting takes time, so a request that passes all
//! checks becomes a [`PendingConnect`]: a value the driver holds meanwhile, and hands back.

use std::net::SocketAddr;
use std::time::Duration;

use super::{Reject, Request};
use crate::stun::attribute::{ConnectionId, XorPeerAddress};
use crate::stun::{AddressFamily, Code};
use crate::turn::Now;
use crate::turn::allocation::{AllocationId, PeerTransport};
use crate::turn::answer::Answer;
use crate::turn::event::Event;
use crate::turn::limits::PEER_CONNECTIONS_MAX;
use crate::turn::policy::{PeerAddress, Port};
use crate::turn::server::Server;

/// A Connect request that only lacks its connection.
///
/// Whoever drops it leaves the client without an answer, and the peer out of reach until the
/// allocation ends.
#[derive(Debug)]
#[must_use = "the client waits for Server::connected"]
pub struct PendingConnect {
    answer: Answer,
    allocation: AllocationId,
    peer: PeerAddress,
    deadline: Duration,
}

impl PendingConnect {
    /// From whose relayed address to connect.
    #[must_use]
    pub fn allocation(&self) -> AllocationId {
        self.allocation
    }

    /// Whom to connect to.
    #[must_use]
    pub fn peer(&self) -> PeerAddress {
        self.peer
    }

    /// After how long to give up.
    #[must_use]
    pub fn deadline(&self) -> Duration {
        self.deadline
    }
}

/// Why the driver could not connect.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ConnectError {
    /// The peer refused, did not answer in time, or is a relayed address that nobody holds.
    Failed,
    /// No descriptor, or as many connections as there may be.
    NoCapacity,
}

impl ConnectError {
    fn code(self) -> Code {
        match self {
            Self::Failed => Code::ConnectionFailed,
            Self::NoCapacity => Code::InsufficientCapacity,
        }
    }
}

impl Server {
    /// RFC 6062 §5.2. Whom a client may connect to is the policy's business alone: a permission
    /// is not asked for, and none is made.
    pub(in crate::turn) fn connect(
        &mut self,
        request: &Request<'_>,
        answer: Answer,
    ) -> Result<PendingConnect, Reject> {
        let id = self.allocation_over(PeerTransport::Tcp, request)?;
        let XorPeerAddress(peer) = request.message.read()?.ok_or(Code::BadRequest)?;
        let allocation = self.allocations.get_mut(id).ok_or(Code::AllocationMismatch)?;
        let (family, relayed) = (allocation.family(), allocation.relayed.0);
        let connections = allocation.connections.as_mut().ok_or(Code::AllocationMismatch)?;
        if connections.has(peer) {
            return Err(Reject::Code(Code::ConnectionAlreadyExists));
        }
        if AddressFamily::of(peer.ip()) != family {
            return Err(Reject::Code(Code::PeerAddressFamilyMismatch));
        }
        // A relayed address that connects to itself would be its own peer.
        if peer == relayed {
            return Err(Reject::Code(Code::Forbidden));
        }
        let admitted = self.policy.admit(peer, Port::Exact)?;
        connections.add(peer, PEER_CONNECTIONS_MAX).map_err(|_| Code::InsufficientCapacity)?;
        self.stats.peer_connections += 1;
        let deadline = self.config.limits.connect_deadline;
        Ok(PendingConnect { answer, allocation: id, peer: admitted, deadline })
    }

    /// Takes back a [`PendingConnect`] with the name of the connection that waits for the client
    /// now, or with the reason why there is none, and writes the response. Returns whether the
    /// connection is wanted: the allocation may have ended meanwhile.
    pub fn connected(
        &mut self,
        pending: PendingConnect,
        result: Result<ConnectionId, ConnectError>,
        now: Now,
        reply: &mut Vec<u8>,
    ) -> bool {
        let PendingConnect { answer, allocation, peer, .. } = pending;
        let answer = Answer { now, ..answer };
        self.end_expired(allocation, now);
        if self.allocations.get(allocation).is_none() {
            self.refuse(&answer, &Reject::Code(Code::AllocationMismatch), reply);
            return false;
        }
        match result {
            Ok(id) => {
                let peer = peer.address();
                self.events.push_back(Event::Connected { id: allocation, peer });
                self.succeed(&answer, reply, |builder| builder.put(&id));
                true
            }
            Err(error) => {
                self.disconnected(allocation, peer.address());
                self.refuse(&answer, &Reject::Code(error.code()), reply);
                false
            }
        }
    }

    /// Forgets a connection that has ended, whether or not a client had bound it: there may be
    /// another one to the same peer now.
    pub fn disconnected(&mut self, allocation: AllocationId, peer: SocketAddr) {
        let Some(allocation) = self.allocations.get_mut(allocation) else { return };
        if allocation.connections.as_mut().is_some_and(|own| own.remove(peer)) {
            self.stats.peer_connections -= 1;
        }
    }
}
