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
