//! ConnectionAttempt: tells the client that a peer has connected (RFC 6062 §5.3).

use std::net::SocketAddr;

use crate::stun::attribute::{ConnectionId, XorPeerAddress};
use crate::stun::{Builder, Class, Method, TransactionId};
use crate::turn::Now;
use crate::turn::allocation::AllocationId;
use crate::turn::event::Event;
use crate::turn::limits::PEER_CONNECTIONS_MAX;
use crate::turn::policy::Port;
use crate::turn::server::Server;
use crate::turn::stats::DropReason;

impl Server {
    /// A peer has connected to the relayed address of `on`. Where it may, this writes the
    /// indication for the client, and the connection waits under the name `id`; where it may not,
    /// the driver closes it at once (RFC 6062 §5.3).
    pub fn handle_connection(
        &mut self,
        on: AllocationId,
        from: SocketAddr,
        id: ConnectionId,
        now: Now,
        indication: &mut Vec<u8>,
    ) -> Result<(), DropReason> {
        let admitted = self.admit_connection(on, from, now);
        admitted.inspect_err(|&reason| self.stats.drop(reason))?;
        self.events.push_back(Event::Connected { id: on, peer: from });
        let transaction = TransactionId(self.random());
        Builder::new(indication, Method::ConnectionAttempt, Class::Indication, transaction)
            .put(&XorPeerAddress(from))
            .put(&id)
            .finish();
        Ok(())
    }

    fn admit_connection(
        &mut self,
        on: AllocationId,
        from: SocketAddr,
        now: Now,
    ) -> Result<(), DropReason> {
        self.end_expired(on, now);
        let allocation = self.allocations.get_mut(on).ok_or(DropReason::NoAllocation)?;
        if !allocation.permits(from.ip(), now.instant) {
            return Err(DropReason::NoPermission);
        }
        self.policy.admit(from, Port::Exact).map_err(|_| DropReason::PeerForbidden)?;
        let connections = allocation.connections.as_mut().ok_or(DropReason::NoAllocation)?;
        if connections.has(from) {
            return Err(DropReason::ConnectionLimit);
        }
        let room = connections.add(from, PEER_CONNECTIONS_MAX);
        room.map_err(|_| DropReason::ConnectionLimit)?;
        self.stats.peer_connections += 1;
        Ok(())
    }
}
