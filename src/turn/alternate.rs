//! Other servers: where new allocations are to be made instead of here (RFC 8489 §10).

use std::fmt;
use std::net::SocketAddr;

use super::allocation::Transport;
use super::request::{Reject, Request};
use super::server::Server;
use crate::stun::Code;

/// Another server.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Alternate {
    /// Where it is.
    pub address: SocketAddr,
    /// A DNS name that its certificate is for; without one no client is sent there over TLS or DTLS.
    pub name: Option<String>,
}

impl fmt::Display for Alternate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{}/{name}", self.address),
            None => self.address.fmt(f),
        }
    }
}

impl Server {
    /// From now on new allocations are made elsewhere, or nowhere: the server is about to stop.
    /// Those that exist live on.
    pub fn drain(&mut self) {
        self.is_draining = true;
    }

    /// Refuses a new allocation that is not to be made here.
    pub(super) fn admit_newcomer(&self, request: &Request<'_>) -> Result<(), Reject> {
        let drain_to = if self.is_draining { &self.config.drain_to[..] } else { &[] };
        let lists = [drain_to, &self.config.alternates];
        match lists.into_iter().find_map(|servers| choose(servers, request)) {
            Some(server) => Err(Reject::Elsewhere(server)),
            None if self.is_draining => Err(Reject::Code(Code::InsufficientCapacity)),
            None => Ok(()),
        }
    }
}

/// One of the family that the client has come by (RFC 8489 §14.15), the same for each
/// retransmission. Over TLS and DTLS it comes with the name that the client must look for in the
/// certificate: that of the URL, which it would look for otherwise, is ours.
fn choose(servers: &[Alternate], request: &Request<'_>) -> Option<Alternate> {
    let from = &request.from;
    let checks_names = matches!(from.transport, Transport::Tls | Transport::Dtls);
    let suits = |server: &&Alternate| {
        server.address.is_ipv4() == from.client.is_ipv4()
            && (server.name.is_some() || !checks_names)
    };
    let suited = || servers.iter().filter(suits);
    let [.., last] = request.message.transaction_id().0;
    let server = suited().nth(usize::from(last).checked_rem(suited().count())?)?;
    let name = server.name.clone().filter(|_| checks_names);
    Some(Alternate { address: server.address, name })
}
