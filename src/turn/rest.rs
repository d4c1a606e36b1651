//! Time-limited credentials that a web service mints and the server verifies without asking it:
//! the TURN REST API (draft-uberti-behave-turn-rest-00).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha1::Sha1;

/// The user name of `user` until `expires_unix_secs`.
#[must_use]
pub fn username(expires_unix_secs: u64, user: &str) -> String {
    format!("{expires_unix_secs}:{user}")
}

/// The password that belongs to a time-limited user name.
#[must_use]
pub fn password(secret: &str, username: &str) -> String {
    let mut mac = <Hmac<Sha1> as KeyInit>::new_from_slice(secret.as_bytes())
        .expect("HMAC takes keys of any length");
    mac.update(username.as_bytes());
    STANDARD.encode(mac.finalize().into_bytes())
}

/// What a client authenticates with, until its time has passed.
#[derive(Clone)]
pub struct Credentials {
    /// The user name, which says until when.
    pub username: String,
    /// The password that belongs to it.
    pub password: String,
}

impl Credentials {
    /// Makes credentials for `user` that are good until `expires_unix_secs`.
    #[must_use]
    pub fn mint(secret: &str, user: &str, expires_unix_secs: u64) -> Self {
        let username = username(expires_unix_secs, user);
        Self { password: password(secret, &username), username }
    }

    /// An entry of `iceServers`, as `RTCPeerConnection` takes it.
    #[must_use]
    pub fn ice_server(&self, urls: &[String]) -> Value {
        json!({ "urls": urls, "username": self.username, "credential": self.password })
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}

/// Whether a user name is a time-limited one whose time has not passed.
///
/// The time is compared and never calculated with, for whoever sent it has proven nothing yet.
/// What follows the first colon is the service's own; without a colon the name is all time. One
/// time has one spelling: with zeros in front it would be another user's name.
#[must_use]
pub fn is_valid_at(username: &str, unix_secs: u64) -> bool {
    let expires = username.split_once(':').map_or(username, |(expires, _)| expires);
    // `parse` would take a sign too, and nobody mints one.
    let digits_only = expires.bytes().all(|byte| byte.is_ascii_digit());
    digits_only
        && !expires.starts_with('0')
        && expires.parse::<u64>().is_ok_and(|expires| expires >= unix_secs)
}

/// Where the account's name begins: behind the first colon, or, where there is none, at the start.
pub(super) fn account_at(username: &str) -> usize {
    username.find(':').map_or(0, |colon| colon + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `printf 1433065916:alice | openssl dgst -sha1 -hmac north-of-everything -binary | base64`
    #[test]
    fn password_is_the_hmac_of_the_name_in_base64() {
        let name = username(1_433_065_916, "alice");
        assert_eq!(password("north-of-everything", &name), "EFdEU6pBw2jxgawhGBGz4VQQWeU=");
    }

    #[test]
    fn a_name_is_valid_until_its_second_has_passed() {
        assert!(is_valid_at("100:alice", 99));
        assert!(is_valid_at("100:alice", 100));
        assert!(!is_valid_at("100:alice", 101));
        assert!(is_valid_at("18446744073709551615:x", 100));
    }

    #[test]
    fn only_the_first_colon_splits() {
        assert!(is_valid_at("100:alice:200", 99));
        assert!(!is_valid_at("100:alice:200", 150));
    }

    #[test]
    fn a_name_that_is_no_time_is_never_valid() {
        for name in [
            "",
            ":",
            ":alice",
            "alice",
            "alice:100",
            "+100:alice",
            "-1:x",
            " 100:x",
            "0x64:x",
            "1e9:x",
            "18446744073709551616:x",
            "0:x",
            "0100:x",
            "00018446744073709551615:x",
        ] {
            assert!(!is_valid_at(name, 0), "{name:?}");
        }
    }

    #[test]
    fn a_time_beyond_all_bounds_neither_overflows_nor_counts() {
        assert!(is_valid_at("18446744073709551615:x", u64::MAX - 1));
        assert!(!is_valid_at("18446744073709551616:x", 0));
    }
}
