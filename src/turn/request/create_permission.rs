//! CreatePermission: lets peers in, by IP address (RFC 8656 §10.2).

use std::net::IpAddr;

use super::{Reject, Request};
use crate::stun::attribute::XorPeerAddress;
use crate::stun::{AddressFamily, Code, Malformed};
use crate::turn::event::Event;
use crate::turn::policy::Port;
use crate::turn::server::Server;

impl Server {
    /// RFC 8656 §10.2: all of the peers get a permission, or none does.
    pub(in crate::turn) fn create_permission(
        &mut self,
        request: &Request<'_>,
    ) -> Result<(), Reject> {
        let id = self.allocation_of(request)?;
        let peers = request
            .message
            .read_all::<XorPeerAddress>()
            .map(|peer| peer.map(|XorPeerAddress(address)| address))
            .collect::<Result<Vec<_>, Malformed>>()?;
        if peers.is_empty() {
            return Err(Reject::Code(Code::BadRequest));
        }
        let allocation = self.allocations.get_mut(id).ok_or(Code::AllocationMismatch)?;
        let family = allocation.family();
        if peers.iter().any(|peer| AddressFamily::of(peer.ip()) != family) {
            return Err(Reject::Code(Code::PeerAddressFamilyMismatch));
        }
        for &peer in &peers {
            self.policy.admit(peer, Port::Any)?;
        }
        let mut ips: Vec<IpAddr> = peers.iter().map(|peer| peer.ip()).collect();
        ips.sort_unstable();
        ips.dedup();
        let limits = &self.config.limits;
        let expires = allocation
            .permit(
                &ips,
                request.now.instant,
                limits.permission_lifetime,
                limits.permissions_per_allocation,
            )
            .map_err(|_| Code::InsufficientCapacity)?;
        self.events.extend(ips.into_iter().map(|peer| Event::Permitted { id, peer, expires }));
        Ok(())
    }
}
