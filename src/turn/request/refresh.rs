//! Refresh: a longer life for an allocation, or its end (RFC 8656 §8.2).

use super::{Reject, Request};
use crate::stun::Code;
use crate::stun::attribute::{Lifetime, RequestedAddressFamily};
use crate::turn::event::CloseReason;
use crate::turn::server::Server;

impl Server {
    /// RFC 8656 §8.2. Returns the LIFETIME granted; 0 means that the allocation is gone.
    pub(in crate::turn) fn refresh(&mut self, request: &Request<'_>) -> Result<Lifetime, Reject> {
        let id = self.allocation_of(request)?;
        let family = request.message.read::<RequestedAddressFamily>()?;
        let allocation = self.allocations.get(id).ok_or(Code::AllocationMismatch)?;
        if family.is_some_and(|RequestedAddressFamily(family)| family != allocation.family()) {
            return Err(Reject::Code(Code::PeerAddressFamilyMismatch));
        }
        let requested = request.message.read::<Lifetime>()?;
        if requested == Some(Lifetime(0)) {
            self.close(id, CloseReason::Deleted, request.now);
            return Ok(Lifetime(0));
        }
        let granted = self.config.limits.lifetime(requested);
        self.allocations.refresh(id, request.now.instant + granted);
        Ok(Lifetime(granted.as_secs() as u32))
    }
}
