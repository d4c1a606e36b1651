//! What identifies a client, and what goes between it, the server and its peers.

use std::net::SocketAddr;

use super::stats::labelled;

labelled! {
    /// How the client reaches the server.
    Transport {
        /// Datagrams.
        Udp = "udp",
        /// A stream.
        Tcp = "tcp",
        /// A stream within TLS.
        Tls = "tls",
        /// Datagrams within DTLS (RFC 7350).
        Dtls = "dtls",
    }
}

impl Transport {
    /// Whether messages follow each other without bounds: then ChannelData is padded
    /// (RFC 8656 §12.5).
    #[must_use]
    pub fn is_stream(self) -> bool {
        match self {
            Self::Udp | Self::Dtls => false,
            Self::Tcp | Self::Tls => true,
        }
    }

    /// Whether a client has shown that it receives what we send, before it can send anything.
    #[must_use]
    pub fn proves_address(self) -> bool {
        match self {
            Self::Udp => false,
            Self::Tcp | Self::Tls | Self::Dtls => true,
        }
    }

    /// The longest message that can be sent at once.
    #[must_use]
    pub fn message_len_max(self) -> usize {
        match self {
            // What a UDP datagram holds over IPv4. Over IPv6 twenty bytes more would do.
            Self::Udp => 65_507,
            // What the length fields say: of STUN, to a multiple of four, and of ChannelData less.
            Self::Tcp | Self::Tls => 20 + 65_532,
            // A message is a record (RFC 6347 §4.1.1).
            Self::Dtls => 1 << 14,
        }
    }
}

/// What goes between a relayed address and its peers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PeerTransport {
    /// Datagrams (RFC 8656).
    Udp,
    /// Connections (RFC 6062).
    Tcp,
}

/// What identifies a client to the server (RFC 8656 §2): the two ends and what is between them.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct FiveTuple {
    /// The transport between them.
    pub transport: Transport,
    /// The client's side: its reflexive address.
    pub client: SocketAddr,
    /// Our side: the address the client sends to.
    pub server: SocketAddr,
}
