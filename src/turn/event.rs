//! The rare things a driver wants to know: for its logs, and for a second data path.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::allocation::{AllocationId, FiveTuple, RelayedAddress};
use super::policy::PeerAddress;
use super::stats::{Traffic, labelled};
use crate::stun::ChannelNumber;

labelled! {
    /// Why an allocation ended.
    CloseReason {
        /// Its client's connection ended.
        Disconnected = "disconnected",
        /// Its client deleted it: a Refresh with a lifetime of zero.
        Deleted = "deleted",
        /// No Refresh came in time.
        Expired = "expired",
        /// The system has taken its socket.
        SocketLost = "socket_lost",
        /// The server is stopping.
        Shutdown = "shutdown",
    }
}

/// Something that happens a few times in the life of an allocation.
///
/// Complete enough to mirror the bindings elsewhere: a channel or permission that is not renewed by
/// `expires` is gone, and everything of an allocation goes with it.
#[derive(Clone, Debug)]
pub enum Event {
    /// An allocation opened.
    Opened {
        /// Its handle.
        id: AllocationId,
        /// The client's side.
        client: FiveTuple,
        /// The peers' side.
        relayed: RelayedAddress,
        /// Whose it is; untrusted text.
        username: Box<str>,
    },
    /// A permission was installed, or refreshed.
    Permitted {
        /// The allocation it belongs to.
        id: AllocationId,
        /// Whom it lets through, whatever the port.
        peer: IpAddr,
        /// When the permission ends unless renewed.
        expires: Instant,
    },
    /// A channel was bound, or bound again, and its peer permitted.
    ChannelBound {
        /// The allocation it belongs to.
        id: AllocationId,
        /// The channel.
        number: ChannelNumber,
        /// Whom it leads to.
        peer: PeerAddress,
        /// When the binding ends unless renewed.
        expires: Instant,
    },
    /// A peer was connected to, or has connected (RFC 6062).
    Connected {
        /// The allocation it belongs to.
        id: AllocationId,
        /// The peer.
        peer: SocketAddr,
    },
    /// The peer policy has come to forbid a peer: its permission is gone.
    Unpermitted {
        /// The allocation it belonged to.
        id: AllocationId,
        /// Who was let through.
        peer: IpAddr,
    },
    /// The peer policy has come to forbid a peer: the channel that led to it is gone, or the
    /// connection, which the driver has to end.
    Parted {
        /// The allocation it belonged to.
        id: AllocationId,
        /// The peer.
        peer: SocketAddr,
    },
    /// The client has come to another five-tuple, and is reached there as soon as it sends data
    /// (RFC 8016 §3.2.2).
    Resumed {
        /// The allocation it belongs to.
        id: AllocationId,
        /// Where the client is.
        client: FiveTuple,
        /// The peers' side, which stays.
        relayed: RelayedAddress,
    },
    /// The client is reached at another five-tuple, and where it was no more.
    Switched {
        /// The allocation it belongs to.
        id: AllocationId,
        /// Where the client is reached.
        client: FiveTuple,
    },
    /// Another shard has the allocation now, with its channels and permissions.
    Left {
        /// Its handle, valid no more.
        id: AllocationId,
        /// The peers' side.
        relayed: RelayedAddress,
    },
    /// An allocation has come from another shard; what it brought is told by the events that
    /// follow.
    Arrived {
        /// Its handle here.
        id: AllocationId,
        /// Where the client is reached.
        client: FiveTuple,
        /// The peers' side.
        relayed: RelayedAddress,
        /// Whose it is; untrusted text.
        username: Box<str>,
    },
    /// An allocation ended, and its channels and permissions with it.
    Closed {
        /// Its handle, valid no more.
        id: AllocationId,
        /// The client's side.
        client: FiveTuple,
        /// The peers' side.
        relayed: RelayedAddress,
        /// Whose it was; untrusted text.
        username: Box<str>,
        /// Why it ended.
        reason: CloseReason,
        /// From opening to closing.
        lived: Duration,
        /// Relayed to peers.
        to_peer: Traffic,
        /// Relayed to the client.
        to_client: Traffic,
    },
}
