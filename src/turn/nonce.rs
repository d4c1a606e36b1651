//! The nonce: proof, without any memory, that a client can receive where it sends from.
//!
//! On the wire: the nonce cookie of RFC 8489 §9.2 (nine fixed characters and four for the
//! security features), then base64 of four bytes of time and ten of HMAC-SHA256 over time,
//! transport and the client's address. Thirty-two characters, so that a challenge stays small;
//! forging one is worth nothing without a password, so eighty bits are plenty.
//!
//! Over a stream the port is left out: who has opened a connection can receive where it sends from,
//! and the data connections of a client use the nonce of its control connection (RFC 6062 §4.3).

use std::net::IpAddr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use super::allocation::FiveTuple;

/// What each nonce of an RFC 8489 server starts with.
const COOKIE: &str = "obMatJos2";
/// Bytes of time, big-endian seconds since 1970 modulo 2^32.
const TIME_LEN: usize = 4;
/// Bytes of truncated HMAC.
const MAC_LEN: usize = 10;
/// How far ahead the clock of another instance of the fleet may be, in seconds.
const CLOCK_SKEW_SECS: u32 = 60;

/// The security features of RFC 8489 §18.1; bit 0 is the most significant of 24.
#[derive(Clone, Copy, Debug)]
pub(super) struct Features {
    /// Bit 0: PASSWORD-ALGORITHMS comes with each challenge.
    pub(super) password_algorithms: bool,
    /// Bit 1: USERHASH is understood.
    pub(super) username_anonymity: bool,
}

/// Mints and verifies nonces.
pub(super) struct Nonces {
    mac: Hmac<Sha256>,
    lifetime_secs: u32,
    prefix: String,
}

impl Nonces {
    pub(super) fn new(key: &[u8; 32], lifetime: Duration, features: Features) -> Self {
        let bits = u8::from(features.password_algorithms) << 7
            | u8::from(features.username_anonymity) << 6;
        let features = STANDARD_NO_PAD.encode([bits, 0, 0]);
        Self {
            mac: Hmac::new_from_slice(key).expect("HMAC takes keys of any length"),
            lifetime_secs: u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX),
            prefix: format!("{COOKIE}{features}"),
        }
    }

    /// The nonce for this client at this second.
    pub(super) fn mint(&self, client: &FiveTuple, unix_secs: u64) -> String {
        let time = (unix_secs as u32).to_be_bytes();
        let mut stamp = [0; TIME_LEN + MAC_LEN];
        stamp[..TIME_LEN].copy_from_slice(&time);
        stamp[TIME_LEN..].copy_from_slice(&self.authenticator(client, time));
        let mut nonce = self.prefix.clone();
        STANDARD_NO_PAD.encode_string(stamp, &mut nonce);
        nonce
    }

    /// Whether this server, or one that shares its key, gave this very client this nonce, and not
    /// too long ago.
    pub(super) fn verify(&self, nonce: &str, client: &FiveTuple, unix_secs: u64) -> bool {
        let mut stamp = [0; TIME_LEN + MAC_LEN];
        let decoded = nonce
            .strip_prefix(self.prefix.as_str())
            .and_then(|text| STANDARD_NO_PAD.decode_slice(text, &mut stamp).ok());
        if decoded != Some(stamp.len()) {
            return false;
        }
        let [t0, t1, t2, t3, mac @ ..] = stamp;
        let time = [t0, t1, t2, t3];
        let authentic = self.authenticator(client, time).ct_eq(&mac);
        bool::from(authentic) && self.is_fresh(u32::from_be_bytes(time), unix_secs as u32)
    }

    /// Modulo 2^32, so that the year 2106 passes without notice.
    fn is_fresh(&self, minted: u32, now: u32) -> bool {
        now.wrapping_sub(minted) < self.lifetime_secs || minted.wrapping_sub(now) <= CLOCK_SKEW_SECS
    }

    fn authenticator(&self, client: &FiveTuple, time: [u8; TIME_LEN]) -> [u8; MAC_LEN] {
        let mut mac = self.mac.clone();
        mac.update(&time);
        mac.update(&[client.transport as u8]);
        let port = if client.transport.is_stream() { 0 } else { client.client.port() };
        mac.update(&port.to_be_bytes());
        match client.client.ip() {
            IpAddr::V4(ip) => mac.update(&ip.octets()),
            IpAddr::V6(ip) => mac.update(&ip.octets()),
        }
        let full: [u8; 32] = mac.finalize().into_bytes().into();
        let mut truncated = [0; MAC_LEN];
        truncated.copy_from_slice(&full[..MAC_LEN]);
        truncated
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::turn::Transport;

    const NONE: Features = Features { password_algorithms: false, username_anonymity: false };
    const HOUR: Duration = Duration::from_secs(3600);
    const NOW: u64 = 1_800_000_000;

    fn client(text: &str) -> FiveTuple {
        FiveTuple {
            transport: Transport::Udp,
            client: text.parse().unwrap(),
            server: "192.0.2.1:3478".parse().unwrap(),
        }
    }

    #[test]
    fn cookie_states_the_security_features_from_the_most_significant_bit() {
        let mut seen = Vec::new();
        for (password_algorithms, username_anonymity) in
            [(false, false), (true, false), (false, true), (true, true)]
        {
            let features = Features { password_algorithms, username_anonymity };
            let nonce = Nonces::new(&[7; 32], HOUR, features).mint(&client("198.51.100.1:1"), NOW);
            assert_eq!(nonce.len(), 32);
            seen.push(nonce[..13].to_owned());
        }
        assert_eq!(seen, ["obMatJos2AAAA", "obMatJos2gAAA", "obMatJos2QAAA", "obMatJos2wAAA"]);
    }

    #[test]
    fn nonce_is_good_for_its_lifetime_and_no_longer() {
        let nonces = Nonces::new(&[7; 32], HOUR, NONE);
        let who = client("198.51.100.1:4000");
        let nonce = nonces.mint(&who, NOW);
        assert!(nonces.verify(&nonce, &who, NOW));
        assert!(nonces.verify(&nonce, &who, NOW + 3599));
        assert!(!nonces.verify(&nonce, &who, NOW + 3600));
        assert!(nonces.verify(&nonce, &who, NOW - 60), "an instance whose clock is behind");
        assert!(!nonces.verify(&nonce, &who, NOW - 61));
    }

    #[test]
    fn nonce_of_another_client_or_key_is_refused() {
        let nonces = Nonces::new(&[7; 32], HOUR, NONE);
        let nonce = nonces.mint(&client("198.51.100.1:4000"), NOW);
        for other in ["198.51.100.1:4001", "198.51.100.2:4000", "[2001:db8::1]:4000"] {
            assert!(!nonces.verify(&nonce, &client(other), NOW), "{other}");
        }
        let others = Nonces::new(&[8; 32], HOUR, NONE);
        assert!(!others.verify(&nonce, &client("198.51.100.1:4000"), NOW));
    }

    #[test]
    fn every_changed_character_is_refused() {
        let nonces = Nonces::new(&[7; 32], HOUR, NONE);
        let who = client("198.51.100.1:4000");
        let nonce = nonces.mint(&who, NOW);
        for at in 0..nonce.len() {
            let mut changed = nonce.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            assert!(!nonces.verify(&changed, &who, NOW), "character {at}");
        }
        for broken in
            ["", "obMatJos2AAAA", &nonce[..31], &format!("{nonce}A"), "obMatJos2AAAA\u{e9}"]
        {
            assert!(!nonces.verify(broken, &who, NOW), "{broken}");
        }
    }

    #[test]
    fn the_clock_may_wrap_in_2106() {
        let nonces = Nonces::new(&[7; 32], HOUR, NONE);
        let who = client("198.51.100.1:4000");
        let before = u64::from(u32::MAX) - 10;
        let nonce = nonces.mint(&who, before);
        assert!(nonces.verify(&nonce, &who, before + 100));
        assert!(!nonces.verify(&nonce, &who, before + 4000));
    }
}
