//! The first message of a client, taken apart just far enough to answer it without remembering it,
//! and to know what it asks for (RFC 6347 §4.2.1, RFC 5246 §7.4.1.2).

use rustls::SignatureScheme;

use super::record::{self, ContentType, Record};

const CLIENT_HELLO: u8 = 1;
const RANDOM_LEN: usize = 32;
const SERVER_NAME: u16 = 0;
const SIGNATURE_ALGORITHMS: u16 = 13;
const HOST_NAME: u8 = 0;

/// A ClientHello in one piece.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct ClientHello<'d> {
    pub(super) record_sequence: u64,
    pub(super) message_seq: u16,
    pub(super) random: &'d [u8; RANDOM_LEN],
    /// Empty in the first of a handshake.
    pub(super) cookie: &'d [u8],
    extensions: &'d [u8],
}

/// Whether a record is meant to begin a session: one that has none must hold a ClientHello, and
/// in one that is there nobody else may be talking.
pub(super) fn begins(record: &Record, datagram: &[u8]) -> bool {
    record.content == ContentType::Handshake
        && record.epoch == 0
        && record.payload(datagram).first() == Some(&CLIENT_HELLO)
}

impl<'d> ClientHello<'d> {
    /// Reads the ClientHello that fills a record. One in fragments is none: to put them together
    /// would take memory for somebody who has proven nothing (RFC 6347 §4.2.1 lets a client put
    /// what matters into one datagram).
    pub(super) fn read(record: &Record, datagram: &'d [u8]) -> Option<Self> {
        if !begins(record, datagram) {
            return None;
        }
        let mut payload = record.payload(datagram);
        let message = record::take_fragment(&mut payload)?;
        let is_whole = message.offset == 0 && message.bytes.len() == message.message_len;
        if !is_whole || !payload.is_empty() {
            return None;
        }
        let mut body = message.bytes;
        let [record::MAJOR_VERSION, _] = take(&mut body, 2)? else { return None };
        let random = take(&mut body, RANDOM_LEN)?.first_chunk()?;
        let _session_id = take_vector(&mut body, 1)?;
        let cookie = take_vector(&mut body, 1)?;
        let _cipher_suites = take_vector(&mut body, 2)?;
        let _compression = take_vector(&mut body, 1)?;
        let extensions = if body.is_empty() { body } else { take_vector(&mut body, 2)? };
        Some(Self {
            record_sequence: record.sequence,
            message_seq: message.message_seq,
            random,
            cookie,
            extensions,
        })
    }

    /// The host the client believes to talk to (RFC 6066 §3).
    pub(super) fn host(&self) -> Option<&'d str> {
        let mut names = self.extension(SERVER_NAME)?;
        let mut names = take_vector(&mut names, 2)?;
        while let [kind] = *take(&mut names, 1)? {
            let name = take_vector(&mut names, 2)?;
            if kind == HOST_NAME {
                return std::str::from_utf8(name).ok();
            }
        }
        None
    }

    /// The signatures that the client can verify, best first (RFC 5246 §7.4.1.4.1).
    pub(super) fn signature_schemes(&self) -> Vec<SignatureScheme> {
        let mut schemes = self.extension(SIGNATURE_ALGORITHMS).unwrap_or_default();
        let schemes = take_vector(&mut schemes, 2).unwrap_or_default();
        let scheme = |pair: &[u8]| Some(u16::from_be_bytes(*pair.first_chunk()?).into());
        schemes.chunks_exact(2).filter_map(scheme).collect()
    }

    fn extension(&self, wanted: u16) -> Option<&'d [u8]> {
        let mut extensions = self.extensions;
        while let [high, low] = *take(&mut extensions, 2)? {
            let extension = take_vector(&mut extensions, 2)?;
            if u16::from_be_bytes([high, low]) == wanted {
                return Some(extension);
            }
        }
        None
    }
}

/// Takes `length` bytes off the front.
fn take<'d>(bytes: &mut &'d [u8], length: usize) -> Option<&'d [u8]> {
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

/// Takes off the front what is preceded by its length in so many bytes.
fn take_vector<'d>(bytes: &mut &'d [u8], length_bytes: usize) -> Option<&'d [u8]> {
    let length = take(bytes, length_bytes)?;
    let length = length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
    take(bytes, length)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A record with a ClientHello of DTLS 1.2.
    pub(in crate::net::dtls) fn client_hello(cookie: &[u8], extensions: &[u8]) -> Vec<u8> {
        let mut body = vec![0xFE, 0xFD];
        body.extend([0x5A; RANDOM_LEN]);
        body.push(0);
        body.push(cookie.len() as u8);
        body.extend(cookie);
        body.extend([0, 2, 0xC0, 0x2B, 1, 0]);
        if !extensions.is_empty() {
            body.extend((extensions.len() as u16).to_be_bytes());
            body.extend(extensions);
        }
        let length = body.len() as u16;
        let [high, low] = length.to_be_bytes();
        let mut record = vec![22, 0xFE, 0xFF, 0, 0, 0, 0, 0, 0, 0, 9];
        record.extend((length + 12).to_be_bytes());
        record.extend([1, 0, high, low, 0, 1, 0, 0, 0, 0, high, low]);
        record.extend(body);
        record
    }

    fn read(datagram: &[u8]) -> Option<ClientHello<'_>> {
        ClientHello::read(&record::read(datagram, 0)?, datagram)
    }

    /// The names `mail` of an unknown kind and `turn.test`, and two schemes.
    const EXTENSIONS: [u8; 39] = *b"\x00\x17\x00\x00\x00\x00\x00\x15\x00\x13\x01\x00\x04mail\
        \x00\x00\x09turn.test\x00\x0D\x00\x06\x00\x04\x04\x03\x08\x04";

    #[test]
    fn cookie_host_and_schemes_are_found() {
        let datagram = client_hello(b"cookie", &EXTENSIONS);
        let hello = read(&datagram).unwrap();
        assert_eq!((hello.record_sequence, hello.message_seq), (9, 1));
        assert_eq!((hello.random, hello.cookie), (&[0x5A; 32], &b"cookie"[..]));
        assert_eq!(hello.host(), Some("turn.test"));
        let expected =
            [SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::RSA_PSS_SHA256].to_vec();
        assert_eq!(hello.signature_schemes(), expected);
    }

    #[test]
    fn extensions_are_optional() {
        let datagram = client_hello(b"", b"");
        let hello = read(&datagram).unwrap();
        assert_eq!((hello.cookie, hello.host()), (&b""[..], None));
        assert_eq!(hello.signature_schemes(), []);
    }

    #[test]
    fn what_is_cut_or_damaged_anywhere_neither_panics_nor_counts_as_whole() {
        let whole = client_hello(&[7; 16], &EXTENSIONS);
        for length in 0..whole.len() {
            assert_eq!(read(&whole[..length]), None, "{length}");
            // The same with lengths that tell the truth.
            let mut cut = whole[..length].to_vec();
            if length >= 25 {
                let body = (length - 25) as u8;
                (cut[12], cut[16], cut[24]) = (body + 12, body, body);
                // Extensions may end before they begin, and nowhere else.
                let is_whole = read(&cut).is_some();
                assert_eq!(is_whole, body as usize == 2 + 32 + 1 + 17 + 4 + 2, "{length}");
            }
        }
        for at in 0..whole.len() {
            for value in 0..=255 {
                let mut damaged = whole.clone();
                damaged[at] = value;
                if let Some(hello) = read(&damaged) {
                    let _ = (hello.host(), hello.signature_schemes());
                }
            }
        }
    }

    #[test]
    fn fragments_and_other_messages_are_none() {
        let whole = client_hello(b"", b"");
        for (at, value) in [(0, 23), (4, 1), (13, 2), (16, whole[16] + 1), (21, 1), (25, 3)] {
            let mut other = whole.clone();
            other[at] = value;
            assert_eq!(read(&other), None, "{at}");
        }
        // Thirty-five bytes that announce 650,000.
        let fragment =
            b"\x16\xFE\xFD\0\0\0\0\0\0\0\0\0\x16\x01\x09\xEB\x10\0\0\0\0\0\0\0\x0A0123456789";
        assert_eq!(fragment.len(), 35);
        assert_eq!(read(fragment), None);
    }
}
