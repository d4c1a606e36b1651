//! The name the server is reached by.

use std::fmt::{self, Display};
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// A host name or an IP address, kept as it is written in a URL.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct PublicHost(String);

impl PublicHost {
    /// The first address that clients can be sent to.
    pub(super) fn listened_on(listen: &[SocketAddr]) -> Option<Self> {
        listen.iter().map(SocketAddr::ip).find(|ip| !ip.is_unspecified()).map(Self::of)
    }

    fn of(ip: IpAddr) -> Self {
        Self(match ip {
            IpAddr::V4(v4) => v4.to_string(),
            // An IPv6 address needs brackets, whoever typed it.
            IpAddr::V6(v6) => format!("[{v6}]"),
        })
    }
}

impl FromStr for PublicHost {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse::<IpAddr>() {
            Ok(ip) if ip.is_unspecified() => Err("clients cannot reach a wildcard"),
            Ok(ip) => Ok(Self::of(ip)),
            Err(_) if is_host_name(text) => Ok(Self(text.to_owned())),
            Err(_) => Err("must be a host name or an IP address, without scheme, port and path"),
        }
    }
}

impl Display for PublicHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// RFC 1123 §2.1, and the underscore that some networks use.
pub(super) fn is_host_name(text: &str) -> bool {
    let is_label = |label: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        matches!(label.len(), 1..=63)
            && label.bytes().all(plain)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    // A number at the end would make it an IPv4 address, and a wrong one.
    let numeric = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
    text.len() <= 253 && text.split('.').all(is_label) && !text.rsplit('.').take(1).all(numeric)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_that_make_no_url_are_refused() {
        let long = "x".repeat(64);
        for text in [
            "",
            " ",
            "https://x",
            "x:3478",
            "a b",
            "a/b",
            "x?y",
            "a@b",
            "[::1]",
            "::1]",
            ".",
            "a.",
            "a..b",
            "-a",
            "a-",
            "1.2.3",
            "256.1.1.1",
            "0.0.0.0",
            "::",
            "é.test",
            &long,
        ] {
            assert!(text.parse::<PublicHost>().is_err(), "{text:?}");
        }
        for text in ["x", "localhost", "turn-1.example.org", "a_b", "192.0.2.1", "3com.test"] {
            assert_eq!(text.parse::<PublicHost>().unwrap().to_string(), text);
        }
    }
}
