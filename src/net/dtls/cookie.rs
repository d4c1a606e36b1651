//! The cookie: proof, without any memory, that a client receives what is sent to the address it
//! claims (RFC 6347 §4.2.1). Every shard verifies what any of them minted.

use std::net::{IpAddr, SocketAddr};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use super::hello::ClientHello;
use super::record::{HANDSHAKE_HEADER_LEN, HEADER_LEN};

/// Bytes of truncated HMAC-SHA256. Forging one buys a handshake, no more.
const COOKIE_LEN: usize = 16;
/// A cookie is good in the slot it is minted in and in the next one: for 30 to 60 seconds.
const SLOT_SECS: u64 = 30;
/// The body of a HelloVerifyRequest: version, length of the cookie, cookie.
const BODY_LEN: usize = 3 + COOKIE_LEN;
/// A HelloVerifyRequest in its record: less than the smallest ClientHello, which has 67 bytes.
const REPLY_LEN: usize = HEADER_LEN + HANDSHAKE_HEADER_LEN + BODY_LEN;

/// Mints and verifies cookies.
#[derive(Clone)]
pub(super) struct Cookies {
    mac: Hmac<Sha256>,
}

impl Cookies {
    pub(super) fn new(secret: &[u8; 32]) -> Self {
        Self { mac: Hmac::new_from_slice(secret).expect("HMAC takes keys of any length") }
    }

    /// Whether this process gave this client this cookie for this handshake, not long ago.
    pub(super) fn verify(
        &self,
        hello: &ClientHello<'_>,
        client: SocketAddr,
        unix_secs: u64,
    ) -> bool {
        let slot = unix_secs / SLOT_SECS;
        [slot, slot.wrapping_sub(1)]
            .into_iter()
            .any(|slot| bool::from(self.mint(hello, client, slot)[..].ct_eq(hello.cookie)))
    }

    /// The HelloVerifyRequest that asks for the cookie. Its version is that of DTLS 1.0, and its
    /// record has the number of the client's, as RFC 6347 §4.2.1 wants both.
    pub(super) fn ask(
        &self,
        hello: &ClientHello<'_>,
        client: SocketAddr,
        unix_secs: u64,
    ) -> [u8; REPLY_LEN] {
        const RECORD_BODY_LEN: u8 = (HANDSHAKE_HEADER_LEN + BODY_LEN) as u8;
        const LEN: u8 = BODY_LEN as u8;
        let [_, _, s0, s1, s2, s3, s4, s5] = hello.record_sequence.to_be_bytes();
        let mut reply = [0; REPLY_LEN];
        let (head, cookie) = reply.split_at_mut(REPLY_LEN - COOKIE_LEN);
        #[rustfmt::skip]
        head.copy_from_slice(&[
            22, 0xFE, 0xFF, 0, 0, s0, s1, s2, s3, s4, s5, 0, RECORD_BODY_LEN,
            3, 0, 0, LEN, 0, 0, 0, 0, 0, 0, 0, LEN,
            0xFE, 0xFF, COOKIE_LEN as u8,
        ]);
        cookie.copy_from_slice(&self.mint(hello, client, unix_secs / SLOT_SECS));
        reply
    }

    fn mint(&self, hello: &ClientHello<'_>, client: SocketAddr, slot: u64) -> [u8; COOKIE_LEN] {
        let mut mac = self.mac.clone();
        mac.update(&slot.to_be_bytes());
        match client.ip() {
            IpAddr::V4(ip) => mac.update(&ip.octets()),
            IpAddr::V6(ip) => mac.update(&ip.octets()),
        }
        mac.update(&client.port().to_be_bytes());
        mac.update(hello.random);
        let mut cookie = [0; COOKIE_LEN];
        cookie.copy_from_slice(&mac.finalize().into_bytes()[..COOKIE_LEN]);
        cookie
    }
}

impl std::fmt::Debug for Cookies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cookies").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::super::hello::tests::client_hello;
    use super::super::record;
    use super::*;

    fn answered(cookies: &Cookies, request: &[u8], from: &str, at: u64) -> ([u8; 44], bool) {
        let hello = ClientHello::read(&record::read(request, 0).unwrap(), request).unwrap();
        let client = from.parse().unwrap();
        (cookies.ask(&hello, client, at), cookies.verify(&hello, client, at))
    }

    #[test]
    fn cookie_is_good_for_its_client_and_handshake_and_for_a_while() {
        let cookies = Cookies::new(&[1; 32]);
        let from = "192.0.2.1:4000";
        let (asked, verified) = answered(&cookies, &client_hello(b"", b""), from, 90);
        assert!(!verified);
        let again = client_hello(&asked[28..], b"");
        for (from, at, expected) in [
            (from, 90, true),
            (from, 149, true),
            (from, 150, false),
            (from, 59, false),
            (from, u64::MAX, false),
            ("192.0.2.1:4001", 90, false),
            ("192.0.2.2:4000", 90, false),
            ("[::ffff:192.0.2.1]:4000", 90, false),
        ] {
            assert_eq!(answered(&cookies, &again, from, at).1, expected, "{from} at {at}");
        }
        let mut other_random = again.clone();
        other_random[30] ^= 1;
        assert!(!answered(&cookies, &other_random, from, 90).1);
        assert!(!answered(&Cookies::new(&[2; 32]), &again, from, 90).1);
        for cookie in [&asked[29..], &asked[27..], &[0; 16]] {
            assert!(!answered(&cookies, &client_hello(cookie, b""), from, 90).1);
        }
    }

    #[test]
    fn reply_echoes_the_number_of_the_record_and_is_smaller_than_any_request() {
        let request = client_hello(b"", b"");
        let (asked, _) = answered(&Cookies::new(&[1; 32]), &request, "192.0.2.1:4000", 0);
        let expected = [22, 0xFE, 0xFF, 0, 0, 0, 0, 0, 0, 0, 9, 0, 31, 3, 0, 0, 19];
        assert_eq!(asked[..17], expected);
        assert_eq!(asked[17..28], [0, 0, 0, 0, 0, 0, 0, 19, 0xFE, 0xFF, 16]);
        assert!(asked.len() < request.len());
    }
}
