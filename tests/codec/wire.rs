//! Messages written byte by byte, so that they can be wrong.

use hmac::{Hmac, KeyInit, Mac};
use md5::{Digest, Md5};
use sha1::Sha1;
use sha2::Sha256;

use crate::view::{FINGERPRINT, MI, MI2};

const CREDENTIALS: &[u8] = b"user:realm:pass";

/// A message under construction; its header length is right after each step.
#[derive(Clone, Debug)]
pub(crate) struct Wire(pub(crate) Vec<u8>);

impl Wire {
    pub(crate) fn new(kind: u16) -> Self {
        let mut bytes = kind.to_be_bytes().to_vec();
        bytes.extend(b"\0\0\x21\x12\xa4\x42twelve bytes");
        Self(bytes)
    }

    pub(crate) fn with(mut self, kind: u16, value: &[u8]) -> Self {
        self.0.extend(kind.to_be_bytes());
        self.0.extend((value.len() as u16).to_be_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        let length = self.0.len() - 20;
        self.announce(length)
    }

    pub(crate) fn announce(mut self, length: usize) -> Self {
        self.0[2..4].copy_from_slice(&(length as u16).to_be_bytes());
        self
    }

    /// Adds MESSAGE-INTEGRITY.
    pub(crate) fn integrity(self) -> Self {
        let mac = <Hmac<Sha1> as KeyInit>::new_from_slice(&Md5::digest(CREDENTIALS)).unwrap();
        let value = mac.chain_update(self.covered(20)).finalize().into_bytes();
        self.with(MI, &value)
    }

    /// Adds MESSAGE-INTEGRITY-SHA256 cut to `length` bytes.
    pub(crate) fn integrity_sha256(self, length: usize) -> Self {
        let mac = <Hmac<Sha256> as KeyInit>::new_from_slice(&Sha256::digest(CREDENTIALS)).unwrap();
        let value = mac.chain_update(self.covered(length)).finalize().into_bytes();
        self.with(MI2, &value[..length])
    }

    pub(crate) fn fingerprint(self) -> Self {
        let value = crc32fast::hash(&self.covered(4)) ^ 0x5354_554E;
        self.with(FINGERPRINT, &value.to_be_bytes())
    }

    fn covered(&self, value_len: usize) -> Vec<u8> {
        let body = self.0.len() - 20;
        self.clone().announce(body + 4 + value_len.next_multiple_of(4)).0
    }
}

/// What the bytes hold, read without any codec: as far as the attributes are whole.
#[derive(Debug)]
pub(crate) struct Scan<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) announced: usize,
    pub(crate) attributes: Vec<(usize, u16, &'a [u8])>,
    /// The last attribute runs past the end.
    pub(crate) overrun: bool,
}

impl<'a> Scan<'a> {
    /// Nothing where there is no header with a cookie.
    pub(crate) fn of(bytes: &'a [u8]) -> Option<Self> {
        if bytes.len() < 20 || bytes[4..8] != *b"\x21\x12\xa4\x42" {
            return None;
        }
        let u16_at = |at: usize| usize::from(bytes[at]) << 8 | usize::from(bytes[at + 1]);
        let mut scan = Self { bytes, announced: u16_at(2), attributes: vec![], overrun: false };
        let mut at = 20;
        while at < bytes.len() {
            let whole = at + 4 <= bytes.len()
                && (at + 4 + u16_at(at + 2)).next_multiple_of(4) <= bytes.len();
            if !whole {
                scan.overrun = true;
                break;
            }
            let end = at + 4 + u16_at(at + 2);
            scan.attributes.push((at, u16_at(at) as u16, &bytes[at + 4..end]));
            at = end.next_multiple_of(4);
        }
        Some(scan)
    }

    pub(crate) fn position(&self, kind: u16) -> Option<usize> {
        self.attributes.iter().position(|&(_, other, _)| other == kind)
    }

    /// The types from the first integrity or fingerprint on.
    pub(crate) fn tail(&self) -> Vec<u16> {
        let kinds = self.attributes.iter().map(|&(_, kind, _)| kind);
        kinds.skip_while(|kind| ![MI, MI2, FINGERPRINT].contains(kind)).collect()
    }
}
