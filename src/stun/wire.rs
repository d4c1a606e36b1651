//! Messages for tests, written byte by byte: shares no code with the codec under test.
#![allow(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::Sha256;

use super::message::TransactionId;

pub(super) const ID: TransactionId = TransactionId(*b"twelve bytes");

/// A message under construction; its header length is right after each step.
#[derive(Clone, Debug)]
pub(super) struct Wire(pub(super) Vec<u8>);

impl Wire {
    pub(super) fn new(kind: u16) -> Self {
        let mut bytes = kind.to_be_bytes().to_vec();
        bytes.extend([0, 0, 0x21, 0x12, 0xA4, 0x42]);
        bytes.extend(ID.0);
        Self(bytes)
    }

    /// A Binding request.
    pub(super) fn binding() -> Self {
        Self::new(0x0001)
    }

    /// Adds an attribute, padded with zeros.
    pub(super) fn with(self, kind: u16, value: &[u8]) -> Self {
        self.padded(kind, value, 0)
    }

    /// Adds an attribute, padded with `filler`.
    pub(super) fn padded(mut self, kind: u16, value: &[u8], filler: u8) -> Self {
        self.0.extend(kind.to_be_bytes());
        self.0.extend((value.len() as u16).to_be_bytes());
        self.0.extend(value);
        while !self.0.len().is_multiple_of(4) {
            self.0.push(filler);
        }
        let length = self.0.len() - 20;
        self.announce(length)
    }

    /// Overwrites the header's length.
    pub(super) fn announce(mut self, length: usize) -> Self {
        self.0[2..4].copy_from_slice(&(length as u16).to_be_bytes());
        self
    }

    pub(super) fn integrity(self, key: &[u8]) -> Self {
        let value = self.hmac_sha1(key);
        self.with(0x0008, &value)
    }

    pub(super) fn integrity_sha256(self, key: &[u8]) -> Self {
        let value = self.hmac_sha256(key);
        self.with(0x001C, &value)
    }

    pub(super) fn fingerprint(self) -> Self {
        let value = self.crc() ^ 0x5354_554E;
        self.with(0x8028, &value.to_be_bytes())
    }

    /// What MESSAGE-INTEGRITY at this place must say.
    pub(super) fn hmac_sha1(&self, key: &[u8]) -> Vec<u8> {
        let covered = self.clone().announce(self.0.len() - 20 + 24).0;
        let mac = <Hmac<Sha1> as KeyInit>::new_from_slice(key).unwrap();
        mac.chain_update(covered).finalize().into_bytes().to_vec()
    }

    /// What MESSAGE-INTEGRITY-SHA256 at this place must say.
    pub(super) fn hmac_sha256(&self, key: &[u8]) -> Vec<u8> {
        let covered = self.clone().announce(self.0.len() - 20 + 36).0;
        let mac = <Hmac<Sha256> as KeyInit>::new_from_slice(key).unwrap();
        mac.chain_update(covered).finalize().into_bytes().to_vec()
    }

    /// CRC-32 of ISO 3309, bit by bit.
    fn crc(&self) -> u32 {
        let covered = self.clone().announce(self.0.len() - 20 + 8).0;
        !covered.iter().fold(u32::MAX, |crc, &byte| {
            (0..8).fold(crc ^ u32::from(byte), |crc, _| {
                if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 }
            })
        })
    }
}
