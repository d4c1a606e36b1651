//! ChannelBind: a short name for one peer, and a permission for it (RFC 8656 §12.2).

use super::{Reject, Request};
use crate::stun::attribute::{ChannelNumberAttribute, XorPeerAddress};
use crate::stun::{AddressFamily, Code};
use crate::turn::allocation::PeerTransport;
use crate::turn::event::Event;
use crate::turn::policy::Port;
use crate::turn::server::Server;

impl Server {
    /// RFC 8656 §12.2. Binding the same pair again renews channel and permission.
    pub(in crate::turn) fn channel_bind(&mut self, request: &Request<'_>) -> Result<(), Reject> {
        let id = self.allocation_over(PeerTransport::Udp, request)?;
        let number = request.message.read()?;
        let ChannelNumberAttribute(number) = number.ok_or(Code::BadRequest)?;
        let number = self.config.channels.number(number.number())?;
        let XorPeerAddress(peer) = request.message.read()?.ok_or(Code::BadRequest)?;
        let now = request.now.instant;
        // The numbers are the client's, and so those of both halves of a dual allocation.
        for half in self.allocations.halves(id).filter_map(|half| self.allocations.get(half)) {
            half.check_channel(number, peer, now).map_err(|_| Code::BadRequest)?;
        }
        let id = self
            .allocations
            .of_family(id, AddressFamily::of(peer.ip()))
            .ok_or(Code::PeerAddressFamilyMismatch)?;
        let allocation = self.allocations.get_mut(id).ok_or(Code::AllocationMismatch)?;
        let peer = self.policy.admit(peer, Port::Exact)?;
        let limits = &self.config.limits;
        // Room for both before either is there: a request that is refused changes nothing.
        allocation
            .check_room(number, now, limits.channels_per_allocation)
            .map_err(|_| Code::InsufficientCapacity)?;
        allocation
            .permit(
                &[peer.address().ip()],
                now,
                limits.permission_lifetime,
                limits.permissions_per_allocation,
            )
            .map_err(|_| Code::InsufficientCapacity)?;
        let expires = allocation.bind_channel(number, peer, now, limits.channel_lifetime);
        self.events.push_back(Event::ChannelBound { id, number, peer, expires });
        Ok(())
    }
}
