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
        let allocation = self.allocations.get_mut(id).ok_or(Code::AllocationMismatch)?;
        allocation.check_channel(number, peer, now).map_err(|_| Code::BadRequest)?;
        if AddressFamily::of(peer.ip()) != allocation.family() {
            return Err(Reject::Code(Code::PeerAddressFamilyMismatch));
        }
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
