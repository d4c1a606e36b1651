//! What is to be sent: runs of datagrams, in pieces that lie where they came from.

use std::iter;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

/// Padding of the longest kind: to the next multiple of four.
const ZEROS: [u8; 3] = [0; 3];

/// The way a datagram leaves. `K` is the caller's name for the sending socket.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Route<K> {
    /// The sending socket.
    pub socket: K,
    /// The destination.
    pub to: SocketAddr,
    /// The source address, for sockets bound to a wildcard. Absent: the kernel chooses. The
    /// portable path always leaves it to the kernel.
    pub from: Option<IpAddr>,
    /// With the DF bit set; only over IPv4, and not on the portable path.
    pub dont_fragment: bool,
    /// DSCP and ECN; not on the portable path.
    pub traffic_class: u8,
}

/// One datagram: `header` of the arena, `payload` of what was received, then zeros.
#[derive(Clone, Debug)]
pub(in crate::net) struct Segment {
    pub(in crate::net) header: Range<usize>,
    pub(in crate::net) payload: Range<usize>,
    /// At most 3.
    pub(in crate::net) padding: usize,
    /// The next one of the same run.
    pub(in crate::net) next: Option<usize>,
}

impl Segment {
    pub(in crate::net) fn len(&self) -> usize {
        self.header.len() + self.payload.len() + self.padding
    }
}

/// Datagrams for one destination that can leave as one GSO send: a chain through the segments.
#[derive(Clone, Debug)]
pub(in crate::net) struct Run<K> {
    pub(in crate::net) route: Route<K>,
    /// Length of each datagram; the last one may be shorter.
    pub(in crate::net) size: usize,
    /// All datagrams together.
    pub(in crate::net) total: usize,
    pub(in crate::net) datagrams: usize,
    pub(in crate::net) first: usize,
    pub(in crate::net) last: usize,
}

/// The runs of one socket, with all they refer to.
#[derive(Debug)]
pub(in crate::net) struct Outgoing<'a, K> {
    pub(in crate::net) runs: &'a [Run<K>],
    pub(in crate::net) segments: &'a [Segment],
    pub(in crate::net) arena: &'a [u8],
    pub(in crate::net) received: &'a [u8],
}

impl<'a, K> Outgoing<'a, K> {
    /// The datagrams of `run`, in order.
    pub(super) fn segments(&self, run: &Run<K>) -> impl Iterator<Item = &'a Segment> + use<'a, K> {
        let segments = self.segments;
        iter::successors(Some(&segments[run.first]), move |segment| {
            segment.next.map(|next| &segments[next])
        })
    }

    /// The bytes of one datagram, piece by piece.
    pub(super) fn pieces(&self, segment: &Segment) -> [&'a [u8]; 3] {
        [
            &self.arena[segment.header.clone()],
            &self.received[segment.payload.clone()],
            &ZEROS[..segment.padding],
        ]
    }
}
