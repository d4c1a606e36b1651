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
        // Without a family it is about both halves of a dual allocation (RFC 8656 §8.1).
        let halves = match request.message.read()? {
            None => [Some(id), self.allocations.sibling(id)],
            Some(RequestedAddressFamily(family)) => {
                let half = self.allocations.of_family(id, family);
                [Some(half.ok_or(Code::PeerAddressFamilyMismatch)?), None]
            }
        };
        let requested = request.message.read::<Lifetime>()?;
        let deletes = requested == Some(Lifetime(0));
        let granted = self.config.limits.lifetime(requested);
        for half in halves.into_iter().flatten() {
            match deletes {
                true => self.close(half, CloseReason::Deleted, request.now),
                false => self.allocations.refresh(half, request.now.instant + granted),
            }
        }
        Ok(Lifetime(if deletes { 0 } else { granted.as_secs() as u32 }))
    }
}
