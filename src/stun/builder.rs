//! Writes a message into the caller's buffer.

use super::attribute::{Attribute, AttributeType, UnknownAttributes};
use super::integrity::{self, IntegrityKind, Key};
use super::message::{self, Class, MAGIC_COOKIE, Method, TransactionId};

/// Appends one STUN message to a buffer; padding is always zero (RFC 8489 §14).
///
/// The order of calls is the order on the wire: attributes, integrity, fingerprint, and
/// [`Builder::finish`] last. A message that outgrows the 16-bit length field is the caller's bug;
/// no reply of a server comes near.
#[derive(Debug)]
pub struct Builder<'b> {
    out: &'b mut Vec<u8>,
    start: usize,
    id: TransactionId,
}

impl<'b> Builder<'b> {
    /// Starts a message behind what `out` already holds.
    pub fn new(out: &'b mut Vec<u8>, method: Method, class: Class, id: TransactionId) -> Self {
        let start = out.len();
        out.extend(message::message_type(method, class).to_be_bytes());
        out.extend([0, 0]);
        out.extend(MAGIC_COOKIE.to_be_bytes());
        out.extend(id.0);
        Self { out, start, id }
    }

    /// Adds an attribute.
    #[must_use]
    pub fn put<'a, A: Attribute<'a>>(mut self, attribute: &A) -> Self {
        let id = self.id;
        self.value(A::TYPE, |out| attribute.encode(id, out));
        self
    }

    /// Adds an attribute where there is one.
    #[must_use]
    pub fn put_some<'a, A: Attribute<'a>>(self, attribute: Option<&A>) -> Self {
        match attribute {
            Some(attribute) => self.put(attribute),
            None => self,
        }
    }

    /// Adds UNKNOWN-ATTRIBUTES.
    #[must_use]
    pub fn unknown_attributes(mut self, types: &[AttributeType]) -> Self {
        self.value(AttributeType::UNKNOWN_ATTRIBUTES, |out| UnknownAttributes(types).encode(out));
        self
    }

    /// Adds MESSAGE-INTEGRITY or MESSAGE-INTEGRITY-SHA256 over all that is there.
    #[must_use]
    pub fn integrity(mut self, key: &Key, kind: IntegrityKind) -> Self {
        let mut value = Vec::with_capacity(integrity::SHA256_LEN);
        integrity::sign(key, kind, self.message(), &mut value);
        self.value(kind.attribute_type(), |out| out.extend(&value));
        self
    }

    /// Adds FINGERPRINT over all that is there.
    #[must_use]
    pub fn fingerprint(mut self) -> Self {
        let value = integrity::fingerprint(self.message());
        self.value(AttributeType::FINGERPRINT, |out| out.extend(value));
        self
    }

    /// Ends the message: writes the header's length.
    pub fn finish(self) {
        let body = self.message().len().saturating_sub(message::HEADER_LEN);
        let length = u16::try_from(body).unwrap_or(u16::MAX);
        put_u16(self.out, self.start.saturating_add(2), length);
    }

    fn message(&self) -> &[u8] {
        self.out.get(self.start..).unwrap_or_default()
    }

    fn value(&mut self, kind: AttributeType, encode: impl FnOnce(&mut Vec<u8>)) {
        self.out.extend(kind.0.to_be_bytes());
        let length_at = self.out.len();
        self.out.extend([0, 0]);
        let value_at = self.out.len();
        encode(self.out);
        let length = self.out.len().saturating_sub(value_at);
        put_u16(self.out, length_at, u16::try_from(length).unwrap_or(u16::MAX));
        let padding = length.next_multiple_of(4).saturating_sub(length);
        self.out.extend([0; 3].iter().take(padding));
    }
}

fn put_u16(out: &mut [u8], at: usize, value: u16) {
    if let Some(place) = out.get_mut(at..at.saturating_add(2)) {
        place.copy_from_slice(&value.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stun::attribute::{Data, Lifetime, Software};
    use crate::stun::wire::{ID, Wire};

    const KEY: [u8; 16] = *b"sixteen byte key";
    const KEY_SHA256: [u8; 32] = *b"a key of SHA-256 has 32 bytes ..";

    fn built(build: impl FnOnce(Builder<'_>) -> Builder<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        build(Builder::new(&mut out, Method::Binding, Class::Request, ID)).finish();
        out
    }

    #[test]
    fn empty_message_is_a_header() {
        assert_eq!(built(|builder| builder), Wire::binding().0);
    }

    #[test]
    fn sent_padding_is_zero_for_every_length() {
        for length in 0..=9 {
            let value = vec![0xFF; length];
            let mut out = vec![0xEE; 7];
            Builder::new(&mut out, Method::Binding, Class::Request, ID).put(&Data(&value)).finish();
            let expected = Wire::binding().with(0x0013, &value).0;
            assert_eq!(out.split_off(7), expected, "{length} bytes");
            assert_eq!(out, [0xEE; 7], "what was there stays");
        }
    }

    #[test]
    fn padding_is_zero_in_a_buffer_that_held_other_bytes() {
        let mut out = vec![0xFF; 200];
        out.clear();
        Builder::new(&mut out, Method::Binding, Class::Request, ID).put(&Data(b"x")).finish();
        assert_eq!(out, Wire::binding().with(0x0013, b"x").0);
    }

    #[test]
    fn put_some_writes_what_is_there_only() {
        let bytes =
            built(|builder| builder.put_some(Some(&Lifetime(600))).put_some(None::<&Software<'_>>));
        assert_eq!(bytes, Wire::binding().with(0x000D, &[0, 0, 2, 0x58]).0);
    }

    #[test]
    fn unknown_attributes_of_odd_count_are_padded_with_zeros() {
        let types = [AttributeType(0x7F00), AttributeType(0x7F02), AttributeType(0x7F04)];
        let bytes = built(|builder| builder.unknown_attributes(&types));
        assert_eq!(bytes, Wire::binding().with(0x000A, b"\x7f\x00\x7f\x02\x7f\x04").0);
    }

    #[test]
    fn integrity_and_fingerprint_cover_what_stands_before() {
        let software = Software("odd");
        let start = Wire::binding().with(0x8022, b"odd");

        let bytes = built(|builder| {
            builder.put(&software).integrity(&Key::Md5(KEY), IntegrityKind::Sha1).fingerprint()
        });
        assert_eq!(bytes, start.clone().integrity(&KEY).fingerprint().0);

        let bytes = built(|builder| {
            let key = Key::Sha256(KEY_SHA256);
            builder.put(&software).integrity(&key, IntegrityKind::Sha256).fingerprint()
        });
        assert_eq!(bytes, start.clone().integrity_sha256(&KEY_SHA256).fingerprint().0);

        let bytes = built(|builder| builder.put(&software).fingerprint());
        assert_eq!(bytes, start.fingerprint().0);
    }

    #[test]
    fn bytes_in_front_of_the_message_are_not_covered() {
        let mut out = b"another message".to_vec();
        let front = out.len();
        Builder::new(&mut out, Method::Binding, Class::Request, ID)
            .integrity(&Key::Md5(KEY), IntegrityKind::Sha1)
            .fingerprint()
            .finish();
        assert_eq!(out.split_off(front), Wire::binding().integrity(&KEY).fingerprint().0);
        assert_eq!(out, b"another message");
    }

    #[test]
    fn each_class_and_method_reaches_the_wire() {
        let mut out = Vec::new();
        Builder::new(&mut out, Method::CreatePermission, Class::Error, ID).finish();
        assert_eq!(out, Wire::new(0x0118).0);
    }
}
