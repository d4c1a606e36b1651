//! What the server counts: plain numbers, written by one shard, read as a copy.

use std::time::Duration;

use super::allocation::Transport;
use crate::stun::{Code, Method};

/// Declares an enum together with its list and its metric labels.
macro_rules! labelled {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $label:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
        pub enum $name { $($(#[$variant_doc])* $variant,)+ }

        impl $name {
            /// Every value, in the order of the counters.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The label in metrics and logs.
            #[must_use]
            pub fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)+ }
            }
        }
    };
}
pub(crate) use labelled;

labelled! {
    /// Why a packet went nowhere.
    DropReason {
        /// The user's bandwidth is used up.
        Bandwidth = "bandwidth",
        /// The channel is not bound, or no longer.
        ChannelUnbound = "channel_unbound",
        /// The connection of a mobile client has ended, and no other one has come.
        ClientAway = "client_away",
        /// A response, a client-side indication, or a class the method does not have.
        ClassNotAllowed = "class_not_allowed",
        /// A peer's connection beyond what an allocation or the server may hold.
        ConnectionLimit = "connection_limit",
        /// The first byte is of no protocol served here.
        Demux = "demux",
        /// There are too many DTLS sessions, or handshakes, in all or from this source.
        DtlsFull = "dtls_full",
        /// A DTLS record that belongs to no session, or that its session has no use for.
        DtlsStray = "dtls_stray",
        /// An ICMP error of a type that clients are not told of.
        IcmpUnknown = "icmp_unknown",
        /// An indication with missing, malformed or unknown attributes.
        IndicationMalformed = "indication_malformed",
        /// A Binding indication: a sign of life that asks for nothing.
        Keepalive = "keepalive",
        /// Not a STUN message, though the first byte says so, or ChannelData cut short.
        Malformed = "malformed",
        /// A Send indication or ChannelData from a client without an allocation for UDP.
        NoAllocation = "no_allocation",
        /// No permission for the peer, in either direction.
        NoPermission = "no_permission",
        /// Handling the packet failed inside the server: a bug.
        Panic = "panic",
        /// The peer policy forbids the peer.
        PeerForbidden = "peer_forbidden",
        /// The source has had its share of unauthenticated replies.
        RateLimited = "rate_limited",
        /// The kernel's send buffer is full.
        SendBufferFull = "send_buffer_full",
        /// The kernel refused to send: no route, too large, forbidden.
        SendFailed = "send_failed",
        /// A source that must not be answered: port 0, a broadcast, one of our own addresses.
        SourceForbidden = "source_forbidden",
        /// The client does not read what is sent to it over its stream.
        StreamFull = "stream_full",
        /// Larger than a UDP datagram or the framing around it can carry.
        TooLarge = "too_large",
        /// A method this server does not speak.
        UnknownMethod = "unknown_method",
    }
}

labelled! {
    /// Which way relayed data goes.
    Direction {
        /// From the TURN client to its peer.
        ToPeer = "to_peer",
        /// From the peer to the TURN client.
        ToClient = "to_client",
    }
}

labelled! {
    /// The methods requests are counted under.
    RequestMethod {
        /// Binding.
        Binding = "binding",
        /// Allocate.
        Allocate = "allocate",
        /// Refresh.
        Refresh = "refresh",
        /// CreatePermission.
        CreatePermission = "create_permission",
        /// ChannelBind.
        ChannelBind = "channel_bind",
        /// Connect.
        Connect = "connect",
        /// ConnectionBind.
        ConnectionBind = "connection_bind",
    }
}

impl RequestMethod {
    /// The request methods among all.
    #[must_use]
    pub fn of(method: Method) -> Option<Self> {
        match method {
            Method::Binding => Some(Self::Binding),
            Method::Allocate => Some(Self::Allocate),
            Method::Refresh => Some(Self::Refresh),
            Method::CreatePermission => Some(Self::CreatePermission),
            Method::ChannelBind => Some(Self::ChannelBind),
            Method::Connect => Some(Self::Connect),
            Method::ConnectionBind => Some(Self::ConnectionBind),
            Method::Send | Method::Data | Method::ConnectionAttempt | Method::Unknown(_) => None,
        }
    }
}

const TRANSPORTS: usize = Transport::ALL.len();
const METHODS: usize = RequestMethod::ALL.len();
/// One column for success, one for each error code.
const OUTCOMES: usize = Code::ALL.len() + 1;

/// Relayed application data: no TURN, UDP or IP headers.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Traffic {
    /// Bytes of payload.
    pub bytes: u64,
    /// Datagrams; of a connection, the portions it was read in.
    pub packets: u64,
}

impl Traffic {
    /// Counts one datagram.
    pub fn add(&mut self, bytes: usize) {
        self.bytes = self.bytes.wrapping_add(bytes as u64);
        self.packets = self.packets.wrapping_add(1);
    }
}

/// A histogram with fixed upper bounds, cumulative only when shown.
#[derive(Clone, Debug)]
pub struct Histogram<const N: usize> {
    /// Upper bounds, ascending; what is above the last counts in `count` alone.
    pub bounds: &'static [f64; N],
    /// Observations at or below the bound and above the one before.
    pub buckets: [u64; N],
    /// All observations.
    pub count: u64,
    /// Their sum.
    pub sum: f64,
}

impl<const N: usize> Histogram<N> {
    const fn new(bounds: &'static [f64; N]) -> Self {
        Self { bounds, buckets: [0; N], count: 0, sum: 0.0 }
    }

    fn observe(&mut self, value: f64) {
        if let Some(at) = self.bounds.iter().position(|&bound| value <= bound) {
            self.buckets[at] += 1;
        }
        self.count += 1;
        self.sum += value;
    }
}

/// Seconds: a failed call, a call, a long call, the lifetime limit and beyond.
const DURATION_BOUNDS: [f64; 9] =
    [1.0, 10.0, 60.0, 300.0, 600.0, 1_800.0, 3_600.0, 14_400.0, 86_400.0];
/// Bytes: from a handful of pings to hours of video.
const BYTES_BOUNDS: [f64; 9] = [0.0, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10];

/// All counters of one shard. Every field counts from start and never goes down, save the gauges
/// [`Stats::allocations`] and [`Stats::peer_connections`].
#[derive(Clone, Debug)]
pub struct Stats {
    /// Live allocations by client transport (a gauge).
    pub allocations: [u64; TRANSPORTS],
    /// Connections to peers: being opened, waiting for the client, or open (a gauge).
    pub peer_connections: u64,
    /// Allocations ever opened.
    pub allocations_opened: u64,
    /// How long closed allocations had lived, in seconds.
    pub allocation_duration: Histogram<9>,
    /// What closed allocations had relayed, both directions together, in bytes.
    pub allocation_relayed: Histogram<9>,
    requests: [[[u64; OUTCOMES]; TRANSPORTS]; METHODS],
    relayed: [[Traffic; TRANSPORTS]; 2],
    dropped: [u64; DropReason::ALL.len()],
}

impl Default for Stats {
    fn default() -> Self {
        Self {
            allocations: [0; TRANSPORTS],
            peer_connections: 0,
            allocations_opened: 0,
            allocation_duration: Histogram::new(&DURATION_BOUNDS),
            allocation_relayed: Histogram::new(&BYTES_BOUNDS),
            requests: [[[0; OUTCOMES]; TRANSPORTS]; METHODS],
            relayed: [[Traffic::default(); TRANSPORTS]; 2],
            dropped: [0; DropReason::ALL.len()],
        }
    }
}

impl Stats {
    /// Counts a packet that goes nowhere.
    pub fn drop(&mut self, reason: DropReason) {
        self.dropped[reason as usize] += 1;
    }

    /// Packets dropped for this reason.
    #[must_use]
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.dropped[reason as usize]
    }

    /// Counts an answered request; `None` is success.
    pub fn answer(&mut self, method: RequestMethod, transport: Transport, code: Option<Code>) {
        self.requests[method as usize][transport as usize][outcome(code)] += 1;
    }

    /// Requests answered this way.
    #[must_use]
    pub fn answered(&self, method: RequestMethod, transport: Transport, code: Option<Code>) -> u64 {
        self.requests[method as usize][transport as usize][outcome(code)]
    }

    /// Counts one relayed datagram.
    pub fn relay(&mut self, direction: Direction, transport: Transport, bytes: usize) {
        self.relayed[direction as usize][transport as usize].add(bytes);
    }

    /// What was relayed, while sessions run and after.
    #[must_use]
    pub fn relayed(&self, direction: Direction, transport: Transport) -> Traffic {
        self.relayed[direction as usize][transport as usize]
    }

    /// Counts an allocation that opened.
    pub fn allocation_opened(&mut self, transport: Transport) {
        self.allocations[transport as usize] += 1;
        self.allocations_opened += 1;
    }

    /// Counts an allocation that another shard, or another transport, has now.
    pub fn allocation_left(&mut self, transport: Transport) {
        self.allocations[transport as usize] -= 1;
    }

    /// Counts an allocation that comes from another shard, or another transport.
    pub fn allocation_arrived(&mut self, transport: Transport) {
        self.allocations[transport as usize] += 1;
    }

    /// Counts an allocation that closed.
    pub fn allocation_closed(&mut self, transport: Transport, lived: Duration, relayed: u64) {
        self.allocations[transport as usize] -= 1;
        self.allocation_duration.observe(lived.as_secs_f64());
        self.allocation_relayed.observe(relayed as f64);
    }
}

fn outcome(code: Option<Code>) -> usize {
    code.map_or(0, |code| code as usize + 1)
}
