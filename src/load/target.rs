//! The server under load: a URI of RFC 7064 or RFC 7065, resolved once.

use std::fmt::{self, Display};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::str::FromStr;

use super::Error;

const PORT: u16 = 3478;
const TLS_PORT: u16 = 5349;

/// What carries a client's messages.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Transport {
    /// UDP.
    Udp,
    /// TCP.
    Tcp,
    /// TLS over TCP.
    Tls,
}

impl Transport {
    /// Its name as people write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
            Self::Tls => "TLS",
        }
    }
}

/// A URI as it was typed, not yet resolved.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Uri {
    text: String,
    host: String,
    port: u16,
    transport: Transport,
    relays: bool,
}

impl Uri {
    /// Whether it names a TURN server, and not one that only answers Binding requests.
    #[must_use]
    pub fn relays(&self) -> bool {
        self.relays
    }

    /// What carries its clients' messages.
    #[must_use]
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// Looks the host up.
    ///
    /// # Errors
    /// Where it has no address, or, unless `public`, one that is neither loopback nor private.
    pub fn resolve(&self, public: bool) -> Result<Target, Error> {
        let unresolved = |error| Error::Unresolved { host: self.host.clone(), error };
        let mut addresses =
            (self.host.as_str(), self.port).to_socket_addrs().map_err(unresolved)?;
        let address = addresses
            .next()
            .ok_or_else(|| unresolved(std::io::Error::other("it has no address")))?;
        allow("the server's address", address, public)?;
        let (host, transport) = (self.host.clone(), self.transport);
        Ok(Target { uri: self.text.clone(), host, address, transport })
    }
}

impl Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Uri {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = |why: &str| Error::Uri(format!("{text}: {why}"));
        let (scheme, rest) = text
            .split_once(':')
            .ok_or_else(|| wrong("must look like turn:host:port?transport=udp"))?;
        let (relays, secure) = match scheme {
            "stun" => (false, false),
            "stuns" => (false, true),
            "turn" => (true, false),
            "turns" => (true, true),
            _ => return Err(wrong("must begin with turn:, turns:, stun: or stuns:")),
        };
        let (authority, query) = rest.split_once('?').unwrap_or((rest, ""));
        let transport = match (query, secure) {
            ("", true) | ("transport=tcp", true) => Transport::Tls,
            ("transport=tcp", false) => Transport::Tcp,
            ("" | "transport=udp", false) => Transport::Udp,
            ("transport=udp", true) => return Err(wrong("DTLS cannot be loaded")),
            _ => return Err(wrong("after ? there can only be transport=udp or transport=tcp")),
        };
        let (host, port) = host_and_port(authority).ok_or_else(|| wrong("no host or no port"))?;
        let port = port.unwrap_or(if secure { TLS_PORT } else { PORT });
        Ok(Self { text: text.to_owned(), host, port, transport, relays })
    }
}

/// `host`, `host:port`, `[v6]` or `[v6]:port`.
fn host_and_port(authority: &str) -> Option<(String, Option<u16>)> {
    let (host, port) = match authority.strip_prefix('[').map(|rest| rest.split_once(']')) {
        Some(None) => return None,
        Some(Some((host, ""))) => (host.parse::<Ipv6Addr>().ok()?.to_string(), None),
        Some(Some((host, port))) => {
            (host.parse::<Ipv6Addr>().ok()?.to_string(), Some(port.strip_prefix(':')?))
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host.to_owned(), Some(port)),
            None => (authority.to_owned(), None),
        },
    };
    let port = match port {
        Some(port) => Some(port.parse().ok().filter(|port| *port > 0)?),
        None => None,
    };
    let known = |char: char| char.is_ascii_alphanumeric() || "-._:".contains(char);
    (!host.is_empty() && host.chars().all(known)).then_some((host, port))
}

/// A server with its address.
#[derive(Clone, Debug)]
pub struct Target {
    pub(super) uri: String,
    /// For TLS.
    pub(super) host: String,
    /// Where it is.
    pub address: SocketAddr,
    /// Over what.
    pub transport: Transport,
}

impl Target {
    /// A server whose address is known.
    #[must_use]
    pub fn at(address: SocketAddr, transport: Transport) -> Self {
        let host = address.ip().to_string();
        let uri = format!("{address} over {}", transport.name());
        Self { uri, host, address, transport }
    }
}

impl Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.uri)
    }
}

/// Refuses public addresses unless they are asked for.
pub(super) fn allow(what: &'static str, address: SocketAddr, public: bool) -> Result<(), Error> {
    if public || is_near(address.ip()) { Ok(()) } else { Err(Error::Public { what, address }) }
}

/// Loopback, private, link-local and shared (RFC 6598) addresses: networks of one's own.
fn is_near(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(v4) => {
            let is_shared =
                (u32::from(v4) & 0xFFC0_0000) == u32::from(Ipv4Addr::new(100, 64, 0, 0));
            v4.is_loopback() || v4.is_private() || v4.is_link_local() || is_shared
        }
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Option<(String, u16, Transport, bool)> {
        let uri = text.parse::<Uri>().ok()?;
        Some((uri.host, uri.port, uri.transport, uri.relays))
    }

    #[test]
    fn uris_of_both_rfcs_are_read() {
        for (text, host, port, transport, relays) in [
            ("turn:example.org", "example.org", 3478, Transport::Udp, true),
            ("turn:10.0.0.1:99?transport=tcp", "10.0.0.1", 99, Transport::Tcp, true),
            ("turns:example.org", "example.org", 5349, Transport::Tls, true),
            ("turns:example.org:443?transport=tcp", "example.org", 443, Transport::Tls, true),
            ("stun:[::1]:7", "::1", 7, Transport::Udp, false),
            ("stuns:[::1]", "::1", 5349, Transport::Tls, false),
        ] {
            assert_eq!(parsed(text), Some((host.to_owned(), port, transport, relays)), "{text}");
        }
    }

    #[test]
    fn what_is_no_uri_is_refused() {
        for text in [
            "",
            "127.0.0.1",
            "127.0.0.1:3478",
            "http://127.0.0.1",
            "turn:",
            "turn::3478",
            "turn://host",
            "turn:host:",
            "turn:host:0",
            "turn:host:65536",
            "turn:host:x",
            "turn:[::1",
            "turn:[host]",
            "turn:[::1]x",
            "turn:user@host",
            "turn:host?transport=sctp",
            "turns:host?transport=udp",
        ] {
            assert!(text.parse::<Uri>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn only_networks_of_ones_own_are_near() {
        for ip in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.1.1",
            "100.64.0.1",
            "::1",
            "fd00::1",
            "fe80::1",
            "::ffff:10.0.0.1",
        ] {
            assert!(is_near(ip.parse().unwrap()), "{ip}");
        }
        for ip in [
            "8.8.8.8",
            "172.32.0.1",
            "100.128.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "192.0.2.1",
            "2001:db8::1",
            "::",
            "::ffff:8.8.8.8",
            "ff02::1",
        ] {
            assert!(!is_near(ip.parse().unwrap()), "{ip}");
        }
    }

    #[test]
    fn public_servers_are_refused_unless_asked_for() {
        let uri: Uri = "turn:192.0.2.1:3478".parse().unwrap();
        assert!(matches!(uri.resolve(false), Err(Error::Public { .. })));
        assert_eq!(uri.resolve(true).unwrap().address, "192.0.2.1:3478".parse().unwrap());
    }
}
