//! Keys, MESSAGE-INTEGRITY, MESSAGE-INTEGRITY-SHA256 and FINGERPRINT (RFC 8489 §9.2.2, §14.5–§14.7).
//!
//! All checks run over the received bytes: RFC 5769 pads with spaces, so padding counts as sent.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use md5::{Digest, Md5};
use sha1::Sha1;
use sha2::Sha256;

use super::attribute::AttributeType;
use super::message::ATTRIBUTE_HEADER_LEN;

/// Value bytes of MESSAGE-INTEGRITY.
pub const SHA1_LEN: usize = 20;
/// Value bytes of MESSAGE-INTEGRITY-SHA256; TURN allows no truncation (RFC 8489 §14.6).
pub const SHA256_LEN: usize = 32;
/// Bytes of the whole FINGERPRINT attribute.
pub const FINGERPRINT_ATTRIBUTE_LEN: usize = 8;
/// What the CRC is masked with (RFC 8489 §14.7).
const FINGERPRINT_MASK: u32 = 0x5354_554E;

/// The key of the long-term mechanism. Never the password, and never shown.
#[derive(Clone, Copy, Eq, PartialEq)]
pub enum Key {
    /// MD5 of "username:realm:password" (RFC 8489 §18.5.1.1).
    Md5([u8; 16]),
    /// SHA-256 of the same (RFC 8489 §18.5.1.2).
    Sha256([u8; 32]),
}

impl Key {
    /// Derives the key of password algorithm 1.
    #[must_use]
    pub fn md5(username: &str, realm: &str, password: &str) -> Self {
        Self::Md5(joined::<Md5>(&[username, realm, password]).into())
    }

    /// Derives the key of password algorithm 2.
    #[must_use]
    pub fn sha256(username: &str, realm: &str, password: &str) -> Self {
        Self::Sha256(joined::<Sha256>(&[username, realm, password]).into())
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Md5(key) => key,
            Self::Sha256(key) => key,
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

/// The USERHASH of a name (RFC 8489 §14.4).
#[must_use]
pub fn user_hash(username: &str, realm: &str) -> [u8; 32] {
    joined::<Sha256>(&[username, realm]).into()
}

fn joined<D: Digest>(parts: &[&str]) -> md5::digest::Output<D> {
    let mut digest = D::new();
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            digest.update(b":");
        }
        digest.update(part.as_bytes());
    }
    digest.finalize()
}

/// Which of the two integrity attributes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum IntegrityKind {
    /// MESSAGE-INTEGRITY, HMAC-SHA1.
    Sha1,
    /// MESSAGE-INTEGRITY-SHA256.
    Sha256,
}

impl IntegrityKind {
    fn value_len(self) -> usize {
        match self {
            Self::Sha1 => SHA1_LEN,
            Self::Sha256 => SHA256_LEN,
        }
    }

    /// The attribute's type.
    #[must_use]
    pub fn attribute_type(self) -> AttributeType {
        match self {
            Self::Sha1 => AttributeType::MESSAGE_INTEGRITY,
            Self::Sha256 => AttributeType::MESSAGE_INTEGRITY_SHA256,
        }
    }
}

/// An integrity attribute as received, with the bytes it covers.
#[derive(Clone, Copy, Debug)]
pub struct Integrity<'a> {
    kind: IntegrityKind,
    covered: &'a [u8],
    value: &'a [u8],
}

impl<'a> Integrity<'a> {
    /// Of two attributes, the one that decides: the first of each kind, and SHA-256 over SHA-1
    /// (RFC 8489 §9.2.4). What follows MESSAGE-INTEGRITY-SHA256 is ignored (§14.6).
    pub(super) fn prefer(
        earlier: Option<Self>,
        kind: AttributeType,
        covered: &'a [u8],
        value: &'a [u8],
    ) -> Option<Self> {
        let kind = if kind == AttributeType::MESSAGE_INTEGRITY {
            IntegrityKind::Sha1
        } else {
            IntegrityKind::Sha256
        };
        match earlier {
            Some(Self { kind: IntegrityKind::Sha1, .. }) if kind == IntegrityKind::Sha256 => {}
            Some(_) => return earlier,
            None => {}
        }
        Some(Self { kind, covered, value })
    }

    /// Which attribute it is.
    #[must_use]
    pub fn kind(&self) -> IntegrityKind {
        self.kind
    }

    /// Whether the sender knew `key`. Takes the same time for each wrong value; a value of
    /// another length than the full one never verifies.
    #[must_use]
    pub fn verify(&self, key: &Key) -> bool {
        match self.kind {
            IntegrityKind::Sha1 => hmac::<Hmac<Sha1>>(key.bytes(), self.covered, SHA1_LEN)
                .verify_slice(self.value)
                .is_ok(),
            IntegrityKind::Sha256 => hmac::<Hmac<Sha256>>(key.bytes(), self.covered, SHA256_LEN)
                .verify_slice(self.value)
                .is_ok(),
        }
    }
}

/// Appends the value of an integrity attribute over `message`, the bytes in front of it.
pub(super) fn sign(key: &Key, kind: IntegrityKind, message: &[u8], out: &mut Vec<u8>) {
    let length = kind.value_len();
    match kind {
        IntegrityKind::Sha1 => {
            out.extend(hmac::<Hmac<Sha1>>(key.bytes(), message, length).finalize().into_bytes());
        }
        IntegrityKind::Sha256 => {
            out.extend(hmac::<Hmac<Sha256>>(key.bytes(), message, length).finalize().into_bytes());
        }
    }
}

/// HMAC over the bytes before the attribute, with a header length that ends behind it
/// (RFC 8489 §14.5).
fn hmac<M: Mac + KeyInit>(key: &[u8], covered: &[u8], value_len: usize) -> M {
    let mut mac = <M as KeyInit>::new_from_slice(key).expect("HMAC takes keys of any length");
    feed(covered, value_len, |bytes| mac.update(bytes));
    mac
}

/// Whether `value` is the fingerprint of the bytes before its attribute.
pub(super) fn fingerprint_matches(covered: &[u8], value: &[u8]) -> bool {
    value == fingerprint(covered)
}

/// The FINGERPRINT value over the bytes before its attribute (RFC 8489 §14.7).
pub(super) fn fingerprint(covered: &[u8]) -> [u8; 4] {
    let mut crc = crc32fast::Hasher::new();
    feed(covered, FINGERPRINT_ATTRIBUTE_LEN.saturating_sub(ATTRIBUTE_HEADER_LEN), |bytes| {
        crc.update(bytes);
    });
    (crc.finalize() ^ FINGERPRINT_MASK).to_be_bytes()
}

/// Hands out `covered` with the header length that a message would have which ends right behind
/// an attribute with a value of `value_len` bytes.
fn feed(covered: &[u8], value_len: usize, mut update: impl FnMut(&[u8])) {
    let body = covered.len().saturating_sub(super::message::HEADER_LEN);
    let length = body.saturating_add(ATTRIBUTE_HEADER_LEN).saturating_add(value_len);
    let length = u16::try_from(length).unwrap_or(u16::MAX);
    update(covered.get(..2).unwrap_or_default());
    update(&length.to_be_bytes());
    update(covered.get(4..).unwrap_or_default());
}

#[cfg(test)]
mod tests;
