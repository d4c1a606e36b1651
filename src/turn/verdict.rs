//! What becomes of one packet: the value every door of the server returns.

use std::fmt;
use std::net::SocketAddr;
use std::ops::Range;

use super::allocation::{AllocationId, RelayedAddress};
use super::mobility::PendingResume;
use super::policy::PeerAddress;
use super::request::allocate::PendingAllocation;
use super::request::connect::PendingConnect;
use super::request::connection_bind::PendingConnectionBind;
use super::stats::DropReason;

/// The longest header: a Data indication about an IPv6 peer, with ICMP. In front of data it is 48
/// bytes at most.
pub const HEADER_LEN_MAX: usize = 56;

/// What the driver has to do with one packet. Relayed data is named by its place in the packet,
/// never copied.
#[derive(Debug)]
#[must_use]
pub enum Verdict {
    /// Nothing; it is counted already.
    Drop(DropReason),
    /// Send the reply back on the five-tuple the packet came from.
    Reply,
    /// Send the reply to the client, but from this one of our addresses (RFC 5780 §6.1). Only ever
    /// over UDP.
    ReplyFrom(SocketAddr),
    /// Send `payload` of the packet from the allocation's relay socket.
    ToPeer {
        /// Whose relay socket.
        from: AllocationId,
        /// The receiver.
        peer: PeerAddress,
        /// Bytes of the packet; may be empty, and still is a datagram.
        payload: Range<usize>,
        /// With the DF bit set, or, of IPv6, in no fragments.
        dont_fragment: bool,
    },
    /// Send `header`, the whole packet, and `padding` zero bytes to the allocation's client.
    ToClient {
        /// Whose client.
        to: AllocationId,
        /// ChannelData's, or all of a Data indication up to the data; with ICMP, all of it.
        header: Header,
        /// Zero bytes behind the data, 0 to 3.
        padding: usize,
    },
    /// Send the reply. The client of this allocation is to be reached the way that the packet has
    /// come as soon as there is an [`Event::Switched`](super::Event::Switched) of it.
    Resumed(AllocationId),
    /// Ask the shard that has the allocation for it, then tell
    /// [`Server::resumed`](super::Server::resumed).
    Resume(PendingResume),
    /// Pass the packet on to the shard that has this relayed address; it is for that one's
    /// allocation.
    Elsewhere(RelayedAddress),
    /// Bind a relay socket, then tell [`Server::allocated`](super::Server::allocated).
    Bind(PendingAllocation),
    /// Connect to a peer, then tell [`Server::connected`](super::Server::connected).
    Connect(PendingConnect),
    /// Find the connection, then tell
    /// [`Server::connection_bound`](super::Server::connection_bound).
    BindConnection(PendingConnectionBind),
}

/// A few bytes in front of relayed data, held inline.
#[derive(Clone, Copy)]
pub struct Header {
    bytes: [u8; HEADER_LEN_MAX],
    len: u8,
}

impl Header {
    pub(super) fn new() -> Self {
        Self { bytes: [0; HEADER_LEN_MAX], len: 0 }
    }

    /// Appends a field. The formats written here fit; what does not is a bug, not input.
    pub(super) fn push(&mut self, field: &[u8]) {
        let start = usize::from(self.len);
        let end = start + field.len();
        self.bytes[start..end].copy_from_slice(field);
        self.len = end as u8;
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl fmt::Debug for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Header({:02x?})", self.as_bytes())
    }
}
