//! Received datagrams: one flat buffer, and where in it each of them lies.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use super::platform::ReceiveHeaders;

/// Buffers of one batch, each taking a datagram or a train of them that GRO joined.
pub(super) const SLOTS: usize = 32;
/// Holds the largest UDP payload and the largest train, so that nothing is ever cut.
pub(super) const SLOT_BYTES: usize = 64 * 1024;
/// From slot to slot: not a power of two, or the first bytes of all slots would compete for the same
/// few lines of the caches.
pub(super) const SLOT_STRIDE: usize = SLOT_BYTES + 17 * 64;
/// Datagrams the kernel joins into one train: 64 on receipt, 128 from a local GSO sender.
const TRAIN: usize = 128;

/// One datagram: who sent it, and its range in [`RecvBatch::bytes`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Datagram {
    /// The sender.
    pub from: SocketAddr,
    /// The local address it was sent to, where the socket was bound with
    /// [`packet_info`](super::Options::packet_info). Absent on the portable path.
    pub to: Option<IpAddr>,
    /// DSCP and ECN: the Traffic Class of IPv6, which IPv4 once called TOS. 0, best effort and
    /// Not-ECT, where the socket was not bound with [`traffic_class`](super::Options::traffic_class).
    pub traffic_class: u8,
    /// Its first byte.
    pub start: u32,
    /// Its length; empty datagrams are legal.
    pub len: u32,
}

impl Datagram {
    /// Where it lies in [`RecvBatch::bytes`].
    #[must_use]
    pub fn range(&self) -> Range<usize> {
        let start = self.start as usize;
        start..start + self.len as usize
    }
}

/// Datagrams received in one turn, from whichever sockets. One per shard.
pub struct RecvBatch {
    pub(super) buffer: Vec<u8>,
    datagrams: Vec<Datagram>,
    /// Slots that hold something, the first ones.
    used: usize,
    #[cfg_attr(
        any(not(target_os = "linux"), feature = "portable"),
        expect(dead_code, reason = "the portable path keeps none")
    )]
    pub(super) headers: ReceiveHeaders,
}

impl RecvBatch {
    /// Reserves 2 MiB of address space; a page of it becomes memory when first used.
    #[must_use]
    pub fn new() -> Self {
        let mut buffer = vec![0; SLOTS * SLOT_STRIDE];
        let headers = ReceiveHeaders::new(&mut buffer);
        Self { buffer, datagrams: Vec::with_capacity(SLOTS * TRAIN), used: 0, headers }
    }

    /// The whole buffer, which the datagrams are ranges of.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.buffer
    }

    /// The same, for what is decrypted in place.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.buffer
    }

    /// The datagrams of each [`Socket::recv`](super::Socket::recv) since it was cleared, in the
    /// order of arrival.
    #[must_use]
    pub fn datagrams(&self) -> &[Datagram] {
        &self.datagrams
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.datagrams.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.datagrams.is_empty()
    }

    /// Forgets the datagrams, to make room for others.
    pub fn clear(&mut self) {
        self.datagrams.clear();
        self.used = 0;
    }

    /// Slots that are free: at least so many datagrams can be received.
    #[must_use]
    pub fn room(&self) -> usize {
        SLOTS - self.used
    }

    /// The first slot that is free, where there is one.
    pub(super) fn next_slot(&self) -> usize {
        self.used
    }

    /// Adds what the next slot holds, if it is of use: `total` bytes, a new datagram each `stride`
    /// bytes.
    pub(super) fn accept(&mut self, train: Option<Train>) {
        let slot = self.used;
        self.used += 1;
        let Some(train) = train else { return };
        let Train { from, to, traffic_class, total, stride } = train;
        let mut at = 0;
        loop {
            let len = stride.min(total - at);
            let start = (slot * SLOT_STRIDE + at) as u32;
            self.datagrams.push(Datagram { from, to, traffic_class, start, len: len as u32 });
            at += len;
            if at >= total {
                return;
            }
        }
    }
}

impl Default for RecvBatch {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for RecvBatch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("RecvBatch").field("datagrams", &self.datagrams).finish()
    }
}

/// One filled slot: datagrams of one sender, all `stride` long but the last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Train {
    pub(super) from: SocketAddr,
    pub(super) to: Option<IpAddr>,
    pub(super) traffic_class: u8,
    pub(super) total: usize,
    /// Never 0 unless `total` is.
    pub(super) stride: usize,
}
