//! ICMP errors about what was relayed, told to the client (RFC 8656 §11.5).

use std::net::SocketAddr;

use super::Now;
use super::allocation::AllocationId;
use super::relay::address_len;
use super::server::Server;
use super::stats::DropReason;
use super::verdict::Verdict;
use crate::stun::attribute::{AttributeType, Icmp};
use crate::stun::message::{ATTRIBUTE_HEADER_LEN, HEADER_LEN};

impl Server {
    /// Handles an ICMP error about a datagram that left the relayed address of `on` for `peer`; its
    /// error data is the MTU, if it tells one. Anybody may have forged it: it is told to the client
    /// and changes nothing here. The verdict is like that on an empty packet: all there is to send
    /// is the header.
    pub fn handle_icmp(
        &mut self,
        on: AllocationId,
        peer: SocketAddr,
        icmp: Icmp,
        now: Now,
    ) -> Verdict {
        self.tell_of_icmp(on, peer, icmp, now).unwrap_or_else(|reason| self.drop(reason))
    }

    fn tell_of_icmp(
        &mut self,
        on: AllocationId,
        peer: SocketAddr,
        icmp: Icmp,
        now: Now,
    ) -> Result<Verdict, DropReason> {
        let icmp = relayed(peer, icmp).ok_or(DropReason::IcmpUnknown)?;
        let allocation = self.allocations.live(on, now.instant).ok_or(DropReason::NoAllocation)?;
        let value = icmp.to_bytes();
        let body = ATTRIBUTE_HEADER_LEN + address_len(peer) + ATTRIBUTE_HEADER_LEN + value.len();
        allocation.charge(peer.ip(), HEADER_LEN + body, now.instant)?;
        let mut header = self.data_indication_start(peer, body as u16);
        header.push(&AttributeType::ICMP.0.to_be_bytes());
        header.push(&(value.len() as u16).to_be_bytes());
        header.push(&value);
        Ok(Verdict::ToClient { to: on, header, padding: 0 })
    }
}

/// What clients are told of an error (RFC 8656 §11.5, §18.13): nothing of most types, and the error
/// data only where it is an MTU.
fn relayed(peer: SocketAddr, icmp: Icmp) -> Option<Icmp> {
    let (is_relayed, has_mtu) = match peer {
        SocketAddr::V4(_) => (matches!(icmp.kind, 3 | 11), (icmp.kind, icmp.code) == (3, 4)),
        SocketAddr::V6(_) => (matches!(icmp.kind, 1..=3), icmp.kind == 2),
    };
    is_relayed.then_some(Icmp { data: if has_mtu { icmp.data } else { 0 }, ..icmp })
}
