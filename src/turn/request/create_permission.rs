//! CreatePermission: lets peers in, by IP address (RFC 8656 §10.2).

use std::net::IpAddr;

use super::{Reject, Request};
use crate::stun::attribute::XorPeerAddress;
use crate::stun::{AddressFamily, Code, Malformed};
use crate::turn::allocation::AllocationId;
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
        let mut by_half: Vec<(AllocationId, Vec<IpAddr>)> = Vec::new();
        for peer in &peers {
            let half = self.allocations.of_family(id, AddressFamily::of(peer.ip()));
            let half = half.ok_or(Code::PeerAddressFamilyMismatch)?;
            match by_half.iter_mut().find(|(other, _)| *other == half) {
                Some((_, ips)) => ips.push(peer.ip()),
                None => by_half.push((half, vec![peer.ip()])),
            }
        }
        for &peer in &peers {
            self.policy.admit(peer, Port::Any)?;
        }
        let (now, limits) = (request.now.instant, &self.config.limits);
        let most = limits.permissions_per_allocation;
        for (half, ips) in &mut by_half {
            ips.sort_unstable();
            ips.dedup();
            let own = self.allocations.get_mut(*half).ok_or(Code::AllocationMismatch)?;
            own.make_room(ips, now, most).map_err(|_| Code::InsufficientCapacity)?;
        }
        for (half, ips) in by_half {
            let own = self.allocations.get_mut(half).ok_or(Code::AllocationMismatch)?;
            let expires = own
                .permit(&ips, now, limits.permission_lifetime, most)
                .map_err(|_| Code::InsufficientCapacity)?;
            let told = |peer| Event::Permitted { id: half, peer, expires };
            self.events.extend(ips.into_iter().map(told));
        }
        Ok(())
    }
}
