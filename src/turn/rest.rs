//! Time-limited credentials from a shared secret, as in draft-uberti-behave-turn-rest-00.
//!
//! The username is `expiry` or `expiry:name`, the expiry in seconds since 1970; the password is
//! base64 of HMAC-SHA1 over the username, keyed with the secret.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;

/// The password that goes with a username under this secret.
#[must_use]
pub fn password(secret: &str, username: &str) -> String {
    let mut mac =
        Hmac::<Sha1>::new_from_slice(secret.as_bytes()).expect("HMAC takes keys of any length");
    mac.update(username.as_bytes());
    STANDARD.encode(mac.finalize().into_bytes())
}

/// Whether the username has the form of a time-limited one, and its time has not passed.
pub(super) fn is_valid_at(username: &str, unix_secs: u64) -> bool {
    let expiry = username.split_once(':').map_or(username, |(expiry, _)| expiry);
    // Digits only: `parse` would take a plus sign as well.
    let digits = !expiry.is_empty() && expiry.bytes().all(|byte| byte.is_ascii_digit());
    digits && expiry.parse::<u64>().is_ok_and(|expiry| expiry >= unix_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    #[test]
    fn password_is_base64_of_hmac_sha1_over_the_username() {
        // Made with: printf 1433895918:alice | openssl dgst -sha1 -hmac sesame -binary | base64
        assert_eq!(password("sesame", "1433895918:alice"), "gVSZbYZEdEkTzvqqESm6Bsy8JXc=");
    }

    #[test]
    fn expiry_is_compared_with_the_wall_clock() {
        assert!(is_valid_at("1800000000:alice", NOW));
        assert!(is_valid_at("1800000000", NOW));
        assert!(is_valid_at("18446744073709551615:x", NOW));
        assert!(!is_valid_at("1799999999:alice", NOW));
    }

    #[test]
    fn usernames_of_another_form_have_no_expiry() {
        for name in [
            "",
            ":",
            "alice",
            "alice:1800000001",
            "-1:x",
            "+1800000001:x",
            " 1800000001:x",
            "0x6b49d201:x",
            "18446744073709551616:x",
            "1e10:x",
            "1800000001.5",
            "١٨٠٠٠٠٠٠٠١:x",
        ] {
            assert!(!is_valid_at(name, NOW), "{name:?}");
        }
    }
}
