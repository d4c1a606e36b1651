//! The path of relayed data: ChannelData in, and peers' datagrams back (RFC 8656 §11.3, §12.6,
//! §12.7). No heap allocation, no copy, one table look-up for each packet.

use std::net::{IpAddr, SocketAddr};

use super::Now;
use super::allocation::{AllocationId, FiveTuple};
use super::policy::PeerAddress;
use super::server::Server;
use super::stats::{Direction, DropReason};
use super::verdict::{Header, Verdict};
use crate::stun::attribute::AttributeType;
use crate::stun::message::{ATTRIBUTE_HEADER_LEN, HEADER_LEN, MAGIC_COOKIE, message_type};
use crate::stun::{AddressFamily, ChannelData, Class, Method, TransactionId, address, channel};

impl Server {
    /// ChannelData from a client (RFC 8656 §12.6). Refreshes nothing.
    pub(super) fn handle_channel_data(
        &mut self,
        from: &FiveTuple,
        packet: &[u8],
        now: Now,
    ) -> Result<Verdict, DropReason> {
        let ChannelData { number, data } =
            ChannelData::parse(packet).map_err(|_| DropReason::Malformed)?;
        let first = self.allocations.id_of_client(from).ok_or(DropReason::NoAllocation)?;
        let (id, peer) = self.channel_end(first, number, now)?;
        let mut allocation =
            self.allocations.live_mut(id, now.instant).ok_or(DropReason::NoAllocation)?;
        if allocation.is_expected_at(from) {
            self.switch(id);
            allocation =
                self.allocations.live_mut(id, now.instant).ok_or(DropReason::NoAllocation)?;
        }
        allocation.admit(Direction::ToPeer, peer.address().ip(), data.len(), now.instant)?;
        self.stats.relay(Direction::ToPeer, from.transport, data.len());
        let payload = channel::HEADER_LEN..channel::HEADER_LEN + data.len();
        Ok(Verdict::ToPeer { from: id, peer, payload, dont_fragment: false })
    }

    /// Where a channel leads, and from which half of a dual allocation.
    fn channel_end(
        &self,
        first: AllocationId,
        number: u16,
        now: Now,
    ) -> Result<(AllocationId, PeerAddress), DropReason> {
        let mut reason = DropReason::NoAllocation;
        for id in self.allocations.halves(first) {
            let Some(allocation) = self.allocations.live(id, now.instant) else { continue };
            if let Some(peer) = allocation.peer_of(number, now.instant) {
                return Ok((id, peer));
            }
            reason = DropReason::ChannelUnbound;
        }
        Err(reason)
    }

    /// A datagram of `length` bytes that a peer sent to a relayed address (RFC 8656 §11.3).
    pub(super) fn handle_peer_data(
        &mut self,
        on: AllocationId,
        from: SocketAddr,
        length: usize,
        now: Now,
    ) -> Result<Verdict, DropReason> {
        let allocation =
            self.allocations.live_mut(on, now.instant).ok_or(DropReason::NoAllocation)?;
        if allocation.is_away() {
            return Err(DropReason::ClientAway);
        }
        let transport = allocation.client.transport;
        let channel = allocation.channel_of(from, now.instant);
        let overhead = match channel {
            Some(_) => channel::HEADER_LEN,
            None => HEADER_LEN + data_indication_body_len(from, length),
        };
        if length + overhead > transport.message_len_max() {
            return Err(DropReason::TooLarge);
        }
        let field = u16::try_from(length).map_err(|_| DropReason::TooLarge)?;
        allocation.admit(Direction::ToClient, from.ip(), length, now.instant)?;
        self.stats.relay(Direction::ToClient, transport, length);
        let (header, padding) = match channel {
            Some(number) => {
                let padding = if transport.is_stream() { padding_of(length) } else { 0 };
                (channel_data_header(&channel::header(number, field)), padding)
            }
            None => (self.data_indication_header(from, field), padding_of(length)),
        };
        Ok(Verdict::ToClient { to: on, header, padding })
    }

    /// All of a Data indication up to the data (RFC 8656 §11.3).
    fn data_indication_header(&mut self, from: SocketAddr, length: u16) -> Header {
        let data = usize::from(length);
        // Fits: it has been looked at whether the message does.
        let body = (data_indication_body_len(from, data) + data) as u16;
        let mut header = self.data_indication_start(from, body);
        header.push(&AttributeType::DATA.0.to_be_bytes());
        header.push(&length.to_be_bytes());
        header
    }

    /// A Data indication's header and its XOR-PEER-ADDRESS.
    pub(super) fn data_indication_start(&mut self, from: SocketAddr, body: u16) -> Header {
        let id = TransactionId(self.random());
        let peer = address::mask(from, id);
        let mut header = Header::new();
        header.push(&message_type(Method::Data, Class::Indication).to_be_bytes());
        header.push(&body.to_be_bytes());
        header.push(&MAGIC_COOKIE.to_be_bytes());
        header.push(&id.0);
        header.push(&AttributeType::XOR_PEER_ADDRESS.0.to_be_bytes());
        header.push(&(address_len(from) as u16).to_be_bytes());
        header.push(&[0, AddressFamily::of(peer.ip()).byte()]);
        header.push(&peer.port().to_be_bytes());
        match peer.ip() {
            IpAddr::V4(ip) => header.push(&ip.octets()),
            IpAddr::V6(ip) => header.push(&ip.octets()),
        }
        header
    }
}

fn channel_data_header(bytes: &[u8; channel::HEADER_LEN]) -> Header {
    let mut header = Header::new();
    header.push(bytes);
    header
}

/// XOR-PEER-ADDRESS, the header of DATA, and DATA's padding, but not the data.
fn data_indication_body_len(from: SocketAddr, length: usize) -> usize {
    ATTRIBUTE_HEADER_LEN + address_len(from) + ATTRIBUTE_HEADER_LEN + padding_of(length)
}

fn padding_of(length: usize) -> usize {
    length.next_multiple_of(4) - length
}

/// Bytes of an address attribute's value.
pub(super) fn address_len(address: SocketAddr) -> usize {
    match address {
        SocketAddr::V4(_) => 8,
        SocketAddr::V6(_) => 20,
    }
}
