//! `stun:` and `turn:` URIs: RFC 7064, RFC 7065.

use std::fmt::{self, Display};
use std::str::FromStr;

use crate::probe::resolve::Host;

const PORT: u16 = 3478;
const TLS_PORT: u16 = 5349;

/// How a server is reached.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Transport {
    /// UDP.
    Udp,
    /// TCP.
    Tcp,
    /// TLS over TCP.
    Tls,
    /// DTLS over UDP.
    Dtls,
}

impl Transport {
    /// What its packets are.
    pub(super) fn carrier(self) -> &'static str {
        match self {
            Self::Udp | Self::Dtls => "UDP",
            Self::Tcp | Self::Tls => "TCP",
        }
    }

    /// Whether the server shows a certificate.
    #[must_use]
    pub fn is_secure(self) -> bool {
        matches!(self, Self::Tls | Self::Dtls)
    }
}

/// What to examine.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Uri {
    text: String,
    /// The server.
    pub host: Host,
    /// How it is reached.
    pub transport: Transport,
    /// Whether it is to relay.
    pub relays: bool,
}

impl Uri {
    /// The port, given or by default.
    #[must_use]
    pub fn port(&self) -> u16 {
        let default = if self.transport.is_secure() { TLS_PORT } else { PORT };
        self.host.port.unwrap_or(default)
    }
}

impl FromStr for Uri {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| format!("{text:?}: {why}");
        let (scheme, rest) = text
            .split_once(':')
            .ok_or_else(|| wrong("not a URI; write it like turn:turn.example.org?transport=udp"))?;
        let (host, query) = rest.split_once('?').map_or((rest, None), |(a, b)| (a, Some(b)));
        let host: Host = host.parse().map_err(|error: String| wrong(&error))?;
        let asked = match query {
            None => None,
            Some("transport=udp") => Some(Transport::Udp),
            Some("transport=tcp") => Some(Transport::Tcp),
            Some(_) => {
                return Err(wrong("after the ? only transport=udp or transport=tcp may come"));
            }
        };
        let (relays, transport) = match (scheme.to_ascii_lowercase().as_str(), asked) {
            ("stun" | "stuns", Some(_)) => {
                return Err(wrong("stun URIs have no transport; turn URIs do"));
            }
            ("stun", None) => (false, Transport::Udp),
            ("stuns", None) => (false, Transport::Tls),
            ("turn", asked) => (true, asked.unwrap_or(Transport::Udp)),
            ("turns", None | Some(Transport::Tcp)) => (true, Transport::Tls),
            ("turns", Some(_)) => (true, Transport::Dtls),
            _ => return Err(wrong("the scheme must be stun, stuns, turn or turns")),
        };
        Ok(Self { text: text.to_owned(), host, transport, relays })
    }
}

impl Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
            Self::Tls => "TLS",
            Self::Dtls => "DTLS",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_of_both_rfcs_are_read() {
        for (text, host, port, transport, relays) in [
            ("stun:a.test", "a.test", 3478, Transport::Udp, false),
            ("STUN:a.test:19302", "a.test", 19302, Transport::Udp, false),
            ("stuns:a.test", "a.test", 5349, Transport::Tls, false),
            ("turn:a.test", "a.test", 3478, Transport::Udp, true),
            ("turn:[::1]:99?transport=tcp", "::1", 99, Transport::Tcp, true),
            ("turns:192.0.2.1", "192.0.2.1", 5349, Transport::Tls, true),
            ("turns:a.test:443?transport=tcp", "a.test", 443, Transport::Tls, true),
            ("turns:a.test?transport=udp", "a.test", 5349, Transport::Dtls, true),
        ] {
            let uri: Uri = text.parse().unwrap();
            assert_eq!((uri.host.name.as_str(), uri.port()), (host, port), "{text}");
            assert_eq!((uri.transport, uri.relays), (transport, relays), "{text}");
            assert_eq!(uri.to_string(), text);
        }
    }

    #[test]
    fn what_is_no_uri_is_refused() {
        for text in [
            "",
            "turn",
            "turn:",
            "turn.example.org",
            "http://a.test",
            "turn://a.test",
            "turn:a:0",
            "turn:a?transport=sctp",
            "turn:a?x",
            "stun:a?transport=udp",
            "turn:a@b",
            "turn:a/b",
        ] {
            assert!(text.parse::<Uri>().is_err(), "{text:?}");
        }
    }
}
