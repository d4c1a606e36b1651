//! The Send indication: data for a peer without a channel (RFC 8656 §11.2).

use std::ops::Range;

use crate::stun::attribute::{Data, DontFragment, XorPeerAddress};
use crate::stun::{AddressFamily, Message};
use crate::turn::Now;
use crate::turn::allocation::FiveTuple;
use crate::turn::policy::Port;
use crate::turn::server::Server;
use crate::turn::stats::{Direction, DropReason};
use crate::turn::verdict::Verdict;

impl Server {
    /// RFC 8656 §11.2. Nothing is ever answered, and no permission refreshed.
    pub(in crate::turn) fn send_indication(
        &mut self,
        message: &Message<'_>,
        from: &FiveTuple,
        now: Now,
    ) -> Result<Verdict, DropReason> {
        let id = self.allocations.id_of_client(from).ok_or(DropReason::NoAllocation)?;
        let malformed = DropReason::IndicationMalformed;
        if !message.attributes().all(|(kind, _)| self.understands(kind)) {
            return Err(malformed);
        }
        let XorPeerAddress(peer) = message.read().ok().flatten().ok_or(malformed)?;
        let Data(data) = message.read().ok().flatten().ok_or(malformed)?;
        // From datagrams between families, and within IPv6, it has no meaning; a stream has no
        // packets to go by instead (RFC 8656 §13, §15).
        let whole = message.read::<DontFragment>().map_err(|_| malformed)?.is_some();
        let within_ipv4 = peer.is_ipv4() && from.client.is_ipv4();
        let dont_fragment = whole && (within_ipv4 || from.transport.is_stream());
        // Where there is none of the peer's family, there is no permission for the peer either.
        let family = AddressFamily::of(peer.ip());
        let id = self.allocations.of_family(id, family).unwrap_or(id);
        let mut allocation =
            self.allocations.live_mut(id, now.instant).ok_or(DropReason::NoAllocation)?;
        if allocation.is_expected_at(from) {
            self.switch(id);
            allocation =
                self.allocations.live_mut(id, now.instant).ok_or(DropReason::NoAllocation)?;
        }
        let peer = self.policy.admit(peer, Port::Exact).map_err(|_| DropReason::PeerForbidden)?;
        allocation.admit(Direction::ToPeer, peer.address().ip(), data.len(), now.instant)?;
        self.stats.relay(Direction::ToPeer, from.transport, data.len());
        let payload = place_of(data, message.bytes());
        Ok(Verdict::ToPeer { from: id, peer, payload, dont_fragment })
    }
}

/// Where `part`, a slice of `whole`, lies in it.
fn place_of(part: &[u8], whole: &[u8]) -> Range<usize> {
    let start = part.as_ptr().addr() - whole.as_ptr().addr();
    start..start + part.len()
}
