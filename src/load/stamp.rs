//! What tells the packets of a load apart: as many bytes as a transaction id, at the start of the
//! data of each packet, or in the place of that id in a Binding request.

use std::net::SocketAddr;

use crate::stun::attribute::{Data, XorPeerAddress};
use crate::stun::message::{ATTRIBUTE_HEADER_LEN, HEADER_LEN, MAGIC_COOKIE};
use crate::stun::{
    Builder, ChannelData, ChannelNumber, Class, Message, Method, TransactionId, channel,
};

use super::Mode;

/// The bytes of a stamp, and so of the smallest packet.
pub(super) const STAMP_LEN: usize = 12;
/// Where a STUN message has its transaction id.
const TRANSACTION_ID_AT: usize = HEADER_LEN - STAMP_LEN;

/// Which packet it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Stamp {
    /// Another one for each drive, so that stragglers of the last one do not count.
    pub(super) tag: u32,
    /// Its flow, among those of one thread.
    pub(super) flow: u32,
    /// Its number in its flow.
    pub(super) sequence: u32,
}

impl Stamp {
    fn bytes(self) -> [u8; STAMP_LEN] {
        let mut bytes = [0; STAMP_LEN];
        bytes[..4].copy_from_slice(&self.tag.to_be_bytes());
        bytes[4..8].copy_from_slice(&self.flow.to_be_bytes());
        bytes[8..].copy_from_slice(&self.sequence.to_be_bytes());
        bytes
    }

    /// The stamp at the start of data.
    pub(super) fn read(data: &[u8]) -> Option<Self> {
        let (&stamp, _) = data.split_first_chunk::<STAMP_LEN>()?;
        let [t0, t1, t2, t3, f0, f1, f2, f3, s0, s1, s2, s3] = stamp;
        Some(Self {
            tag: u32::from_be_bytes([t0, t1, t2, t3]),
            flow: u32::from_be_bytes([f0, f1, f2, f3]),
            sequence: u32::from_be_bytes([s0, s1, s2, s3]),
        })
    }

    /// The stamp in what a server sent to a client: ChannelData, a Data indication, or a success
    /// response to a Binding request.
    pub(super) fn read_from_server(packet: &[u8]) -> Option<Self> {
        if packet.first().is_some_and(|first| first >> 6 == 1) {
            return Self::read(ChannelData::parse(packet).ok()?.data);
        }
        let message = Message::parse(packet).ok()?;
        match (message.method(), message.class()) {
            (Method::Data, Class::Indication) => Self::read(message.read::<Data<'_>>().ok()??.0),
            (Method::Binding, Class::Success) => Self::read(&message.transaction_id().0),
            _ => None,
        }
    }
}

/// All packets of a flow but their stamp and the filler behind it.
#[derive(Clone, Debug)]
pub(super) struct Template {
    /// What stands in front of the filler.
    head: Vec<u8>,
    stamp_at: usize,
    /// Bytes of filler.
    pub(super) filler: usize,
    /// Zeros behind it.
    pub(super) padding: usize,
}

impl Template {
    /// Data as peers send it: `size` bytes, at least those of a stamp.
    pub(super) fn plain(size: usize) -> Self {
        let filler = size.saturating_sub(STAMP_LEN);
        Self { head: vec![0; STAMP_LEN], stamp_at: 0, filler, padding: 0 }
    }

    /// Data as clients send it to a peer. Over a stream ChannelData is padded (RFC 8656 §12.5).
    pub(super) fn to_peer(mode: Mode, peer: SocketAddr, size: usize, in_stream: bool) -> Self {
        let plain = Self::plain(size);
        let to_four = size.next_multiple_of(4) - size;
        let (front, padding) = match mode {
            Mode::Channel => {
                let header = channel::header(ChannelNumber::MIN, size as u16);
                (header.to_vec(), if in_stream { to_four } else { 0 })
            }
            Mode::Send => (send_header(peer, size), to_four),
        };
        Self { stamp_at: front.len(), head: [front, plain.head].concat(), padding, ..plain }
    }

    /// A Binding request: its transaction id is the stamp.
    pub(super) fn binding() -> Self {
        let mut head = Vec::with_capacity(HEADER_LEN);
        Builder::new(&mut head, Method::Binding, Class::Request, TransactionId([0; STAMP_LEN]))
            .finish();
        Self { head, stamp_at: TRANSACTION_ID_AT, filler: 0, padding: 0 }
    }

    /// The front of one packet.
    pub(super) fn stamped(&mut self, stamp: Stamp) -> &[u8] {
        self.head[self.stamp_at..self.stamp_at + STAMP_LEN].copy_from_slice(&stamp.bytes());
        &self.head
    }
}

/// A Send indication up to the first byte of its data.
fn send_header(peer: SocketAddr, size: usize) -> Vec<u8> {
    let mut message = Vec::new();
    Builder::new(&mut message, Method::Send, Class::Indication, TransactionId([0x5a; STAMP_LEN]))
        .put(&XorPeerAddress(peer))
        .put(&Data(&vec![0; size]))
        .finish();
    message.truncate(message.len() - size.next_multiple_of(4));
    message
}

/// Bytes that a packet of `size` has in front of its data where that is most: a Send indication
/// with an IPv6 address.
pub(super) const OVERHEAD_MAX: usize =
    HEADER_LEN + ATTRIBUTE_HEADER_LEN + 20 + ATTRIBUTE_HEADER_LEN;

/// Whether bytes look like STUN, to tell a server that refuses from something else that answers.
pub(super) fn is_stun(packet: &[u8]) -> bool {
    packet.get(4..8) == Some(&MAGIC_COOKIE.to_be_bytes()) && Message::parse(packet).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp { tag: 0xA1B2_C3D4, flow: 7, sequence: 0xFFFF_FFFE };

    fn packet(mut template: Template) -> Vec<u8> {
        let (filler, padding) = (template.filler, template.padding);
        [template.stamped(STAMP), &vec![0xEE; filler], &vec![0; padding]].concat()
    }

    #[test]
    fn peers_data_is_the_stamp_and_filler() {
        for size in [12, 13, 1000] {
            let packet = packet(Template::plain(size));
            assert_eq!(packet.len(), size);
            assert_eq!(Stamp::read(&packet), Some(STAMP));
        }
        assert_eq!(Stamp::read(&[0; 11]), None);
    }

    #[test]
    fn clients_data_is_whole_in_either_mode() {
        for peer in ["192.0.2.1:9", "[2001:db8::1]:9"].map(|peer| peer.parse().unwrap()) {
            for size in [12, 13, 14, 15, 1000] {
                let datagram = packet(Template::to_peer(Mode::Channel, peer, size, false));
                let data = ChannelData::parse(&datagram).unwrap().data;
                assert_eq!((data.len(), datagram.len()), (size, size + 4));
                assert_eq!(Stamp::read(data), Some(STAMP));

                let frame = packet(Template::to_peer(Mode::Channel, peer, size, true));
                assert_eq!(frame.len(), size.next_multiple_of(4) + 4);

                let indication = packet(Template::to_peer(Mode::Send, peer, size, false));
                let message = Message::parse(&indication).unwrap();
                assert_eq!(message.method(), Method::Send);
                assert_eq!(message.read::<XorPeerAddress>().unwrap().unwrap().0, peer);
                let Data(data) = message.read().unwrap().unwrap();
                assert_eq!((data.len(), Stamp::read(data)), (size, Some(STAMP)));
                assert!(indication.len() <= OVERHEAD_MAX + size.next_multiple_of(4));
            }
        }
    }

    #[test]
    fn the_stamp_comes_back_in_what_servers_send() {
        let channel =
            packet(Template::to_peer(Mode::Channel, "192.0.2.1:9".parse().unwrap(), 20, false));
        assert_eq!(Stamp::read_from_server(&channel), Some(STAMP));
        let mut data = Vec::new();
        Builder::new(&mut data, Method::Data, Class::Indication, TransactionId([1; 12]))
            .put(&Data(&packet(Template::plain(50))))
            .finish();
        assert_eq!(Stamp::read_from_server(&data), Some(STAMP));
        let request = packet(Template::binding());
        let id = Message::parse(&request).unwrap().transaction_id();
        let mut response = Vec::new();
        Builder::new(&mut response, Method::Binding, Class::Success, id).finish();
        assert_eq!(Stamp::read_from_server(&response), Some(STAMP));
        assert_eq!(Stamp::read_from_server(&request), None, "a request is no answer");
        assert_eq!(Stamp::read_from_server(b"HTTP/1.1 400 Bad Request\r\n"), None);
    }
}
