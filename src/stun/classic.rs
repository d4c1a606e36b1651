//! Classic STUN (RFC 3489), as far as it must be told apart: its messages have 128 random bits where
//! later ones have the magic cookie and 96.

use super::attribute::ErrorCode;
use super::builder::Builder;
use super::error::Code;
use super::message::{self, Class, HEADER_LEN, MAGIC_COOKIE, Method, TransactionId};

/// The header of a request without the magic cookie.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ClassicRequest {
    /// What it asks for.
    pub method: Method,
    /// Where the magic cookie should be.
    first: [u8; 4],
    rest: TransactionId,
}

impl ClassicRequest {
    /// `None` for indications and responses, for what has the cookie, and for what is not as long as
    /// its header says. Attributes are not looked at.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (&[t0, t1, l0, l1, c0, c1, c2, c3, ref rest @ ..], body) =
            bytes.split_first_chunk::<HEADER_LEN>()?;
        let (kind, first) = (u16::from_be_bytes([t0, t1]), [c0, c1, c2, c3]);
        let length = usize::from(u16::from_be_bytes([l0, l1]));
        let is_request = t0 & 0b1100_0000 == 0 && message::class_of(kind) == Class::Request;
        if !is_request || length != body.len() || first == MAGIC_COOKIE.to_be_bytes() {
            return None;
        }
        Some(Self { method: message::method_of(kind), first, rest: TransactionId(*rest) })
    }

    /// Appends the 500 that RFC 8489 §11 wants where DTLS is spoken, with all 128 bits of the
    /// transaction id.
    pub fn refuse(&self, out: &mut Vec<u8>) {
        let start = out.len();
        let error = ErrorCode { number: Code::ServerError.number(), reason: "" };
        Builder::new(out, self.method, Class::Error, self.rest).put(&error).finish();
        let cookie = out.get_mut(start.saturating_add(4)..start.saturating_add(8));
        if let Some(cookie) = cookie {
            cookie.copy_from_slice(&self.first);
        }
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing)]
mod tests {
    use super::*;

    const BINDING: [u8; 20] = *b"\x00\x01\x00\x000123456789abcdef";

    #[test]
    fn the_answer_has_the_whole_transaction_id() {
        let mut out = b"before".to_vec();
        ClassicRequest::parse(&BINDING).unwrap().refuse(&mut out);
        assert_eq!(out, b"before\x01\x11\x00\x080123456789abcdef\x00\x09\x00\x04\x00\x00\x05\x00");
    }

    #[test]
    fn only_a_whole_request_without_the_cookie_is_one() {
        let with = |at: usize, byte: u8| {
            let mut bytes = BINDING;
            bytes[at] = byte;
            ClassicRequest::parse(&bytes)
        };
        assert!(with(1, 3).is_some_and(|request| request.method == Method::Allocate));
        for (at, byte) in [(0, 0x01), (1, 0x11), (0, 0x41), (0, 0x80), (3, 4), (2, 1)] {
            assert_eq!(with(at, byte), None, "byte {at} {byte:#04x}");
        }
        let mut modern = BINDING;
        modern[4..8].copy_from_slice(&MAGIC_COOKIE.to_be_bytes());
        assert_eq!(ClassicRequest::parse(&modern), None);
        for length in 0..BINDING.len() {
            assert_eq!(ClassicRequest::parse(&BINDING[..length]), None, "{length} bytes");
        }
    }
}
