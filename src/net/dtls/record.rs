//! DTLS records and the handshake messages in them, as far as they can be read without keys
//! (RFC 6347 §4.1, §4.2.2).

use std::ops::Range;

/// Content type, version, epoch, sequence number, length.
pub(super) const HEADER_LEN: usize = 13;
/// Type, length, message sequence number, fragment offset and length.
pub(super) const HANDSHAKE_HEADER_LEN: usize = 12;
/// Of the version: the ones' complement of 1, whatever the minor version.
pub(super) const MAJOR_VERSION: u8 = 0xFE;

/// The content types of DTLS 1.2 (RFC 5246 §6.2.1).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum ContentType {
    ChangeCipherSpec,
    Alert,
    Handshake,
    ApplicationData,
}

/// A record's header, and where the record lies in its datagram.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Record {
    pub(super) content: ContentType,
    pub(super) epoch: u16,
    /// 48 bits.
    pub(super) sequence: u64,
    /// With its header.
    pub(super) range: Range<usize>,
}

impl Record {
    /// What follows the header, in the same datagram.
    pub(super) fn payload<'d>(&self, datagram: &'d [u8]) -> &'d [u8] {
        datagram.get(self.range.start + HEADER_LEN..self.range.end).unwrap_or_default()
    }
}

/// The record that begins at `start`, if a whole one does.
pub(super) fn read(datagram: &[u8], start: usize) -> Option<Record> {
    let [content, MAJOR_VERSION, _, e0, e1, s0, s1, s2, s3, s4, s5, l0, l1, payload @ ..] =
        datagram.get(start..)?
    else {
        return None;
    };
    let content = match content {
        20 => ContentType::ChangeCipherSpec,
        21 => ContentType::Alert,
        22 => ContentType::Handshake,
        23 => ContentType::ApplicationData,
        _ => return None,
    };
    let length = usize::from(u16::from_be_bytes([*l0, *l1]));
    payload.get(..length)?;
    Some(Record {
        content,
        epoch: u16::from_be_bytes([*e0, *e1]),
        sequence: u64::from_be_bytes([0, 0, *s0, *s1, *s2, *s3, *s4, *s5]),
        range: start..start + HEADER_LEN + length,
    })
}

/// A fragment of a handshake message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Fragment<'d> {
    pub(super) kind: u8,
    /// Of the whole message, without its header.
    pub(super) message_len: usize,
    pub(super) message_seq: u16,
    pub(super) offset: usize,
    pub(super) bytes: &'d [u8],
}

/// Takes the first fragment off the payload of a handshake record.
pub(super) fn take_fragment<'d>(payload: &mut &'d [u8]) -> Option<Fragment<'d>> {
    let [kind, l0, l1, l2, m0, m1, o0, o1, o2, f0, f1, f2, rest @ ..] = *payload else {
        return None;
    };
    let three = |bytes: [&u8; 3]| u32::from_be_bytes([0, *bytes[0], *bytes[1], *bytes[2]]) as usize;
    let (bytes, rest) = rest.split_at_checked(three([f0, f1, f2]))?;
    *payload = rest;
    Some(Fragment {
        kind: *kind,
        message_len: three([l0, l1, l2]),
        message_seq: u16::from_be_bytes([*m0, *m1]),
        offset: three([o0, o1, o2]),
        bytes,
    })
}

/// Adds to the sequence numbers of the unencrypted records in a datagram of our own. Those of
/// encrypted ones are signed, and count from 0 by themselves.
pub(super) fn shift_sequence(datagram: &mut [u8], by: u64) {
    const MASK: u64 = (1 << 48) - 1;
    let mut at = 0;
    while let Some(record) = read(datagram, at) {
        if record.epoch == 0 {
            let shifted = (record.sequence.wrapping_add(by) & MASK).to_be_bytes();
            datagram[at + 5..at + 11].copy_from_slice(&shifted[2..]);
        }
        at = record.range.end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALERT: [u8; 15] = [21, 0xFE, 0xFD, 0, 0, 0, 0, 0, 0, 0, 7, 0, 2, 1, 0];

    #[test]
    fn records_follow_each_other_and_the_last_must_be_whole() {
        let mut datagram = [ALERT, ALERT].concat();
        datagram[15] = 23;
        datagram[19] = 1;
        let first = read(&datagram, 0).unwrap();
        assert_eq!((first.content, first.epoch, first.sequence), (ContentType::Alert, 0, 7));
        assert_eq!((first.range.clone(), first.payload(&datagram)), (0..15, &[1, 0][..]));
        let second = read(&datagram, 15).unwrap();
        assert_eq!((second.content, second.epoch), (ContentType::ApplicationData, 1));
        assert_eq!(read(&datagram, 30), None);
        for length in 0..15 {
            assert_eq!(read(&datagram[..length], 0), None, "{length}");
        }
    }

    #[test]
    fn other_protocols_are_no_records() {
        for content in (0..=19).chain(24..=255) {
            let mut datagram = ALERT;
            datagram[0] = content;
            assert_eq!(read(&datagram, 0), None, "{content}");
        }
        let mut datagram = ALERT;
        datagram[1] = 3;
        assert_eq!(read(&datagram, 0), None, "TLS");
    }

    #[test]
    fn fragments_that_are_cut_are_none() {
        let bytes = [1, 0, 1, 2, 0, 3, 0, 0, 5, 0, 0, 2, 0xAA, 0xBB, 0xCC];
        let mut payload = &bytes[..];
        let fragment = take_fragment(&mut payload).unwrap();
        let expected =
            Fragment { kind: 1, message_len: 258, message_seq: 3, offset: 5, bytes: &[0xAA, 0xBB] };
        assert_eq!(fragment, expected);
        assert_eq!(payload, [0xCC]);
        for length in 0..14 {
            assert_eq!(take_fragment(&mut &bytes[..length]), None, "{length}");
        }
    }

    #[test]
    fn only_unencrypted_records_are_renumbered() {
        let mut datagram = [ALERT, ALERT].concat();
        datagram[15 + 4] = 1;
        shift_sequence(&mut datagram, u64::from(u32::MAX));
        assert_eq!(read(&datagram, 0).unwrap().sequence, 7 + u64::from(u32::MAX));
        assert_eq!(read(&datagram, 15).unwrap().sequence, 7);
        shift_sequence(&mut datagram, u64::MAX);
        assert_eq!(read(&datagram, 0).unwrap().sequence, 6 + u64::from(u32::MAX));
    }
}
