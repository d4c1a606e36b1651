//! Other servers: where new allocations are to be made instead of here (RFC 8489 §10).

use std::net::SocketAddr;

use super::request::{Reject, Request};
use super::server::Server;
use crate::stun::Code;

impl Server {
    /// From now on new allocations are made elsewhere, or nowhere: the server is about to stop.
    /// Those that exist live on.
    pub fn drain(&mut self) {
        self.is_draining = true;
    }

    /// Refuses a new allocation that is not to be made here.
    pub(super) fn admit_newcomer(&self, request: &Request<'_>) -> Result<(), Reject> {
        let drain_to = if self.is_draining { &self.config.drain_to[..] } else { &[] };
        let alternate = [drain_to, &self.config.alternates];
        match alternate.into_iter().find_map(|servers| choose(servers, request)) {
            Some(server) => Err(Reject::Elsewhere(server)),
            None if self.is_draining => Err(Reject::Code(Code::InsufficientCapacity)),
            None => Ok(()),
        }
    }
}

/// One of the family that the client has come by (RFC 8489 §14.15), the same for each
/// retransmission.
fn choose(servers: &[SocketAddr], request: &Request<'_>) -> Option<SocketAddr> {
    let is_ipv4 = request.from.client.is_ipv4();
    let suited = || servers.iter().filter(|server| server.is_ipv4() == is_ipv4);
    let [.., last] = request.message.transaction_id().0;
    suited().nth(usize::from(last).checked_rem(suited().count())?).copied()
}
