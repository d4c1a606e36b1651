//! From a host and a port to addresses.

use std::fmt::{self, Display};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::time::timeout;

/// Addresses of one name that are looked at.
pub const ADDRESSES_MAX: usize = 4;

/// A host, and a port where one was given.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Host {
    /// A name, or an IP address without brackets.
    pub name: String,
    /// The port.
    pub port: Option<u16>,
}

/// The local address that any socket to `server` can have.
pub(crate) fn wildcard(server: SocketAddr) -> SocketAddr {
    match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}

impl Host {
    /// The addresses, each once, those of IPv4 first; at most [`ADDRESSES_MAX`].
    ///
    /// # Errors
    /// One line that says why there are none.
    pub async fn resolve(&self, port: u16, limit: Duration) -> Result<Vec<SocketAddr>, String> {
        let port = self.port.unwrap_or(port);
        if let Ok(ip) = self.name.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(ip, port)]);
        }
        let found = timeout(limit, lookup_host((self.name.as_str(), port))).await;
        let found = found.map_err(|_| format!("{self}: no answer from DNS within {limit:?}"))?;
        let found = found.map_err(|error| format!("{self}: cannot find this host: {error}"))?;
        let mut addresses: Vec<_> = found.collect();
        addresses.sort_by_key(|address| address.is_ipv6());
        addresses.dedup();
        addresses.truncate(ADDRESSES_MAX);
        if addresses.is_empty() {
            return Err(format!("{self}: this host has no addresses"));
        }
        Ok(addresses)
    }
}

impl FromStr for Host {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no HOST[:PORT]; IPv6 addresses need brackets");
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Ok(Self { name: ip.to_string(), port: None });
        }
        let (name, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (name, rest) = rest.split_once(']').ok_or_else(wrong)?;
                name.parse::<Ipv6Addr>().map_err(|_| wrong())?;
                (name, if rest.is_empty() { None } else { rest.strip_prefix(':').or(Some("")) })
            }
            None => text.split_once(':').map_or((text, None), |(name, port)| (name, Some(port))),
        };
        let plain = |char: char| char.is_alphanumeric() || matches!(char, '-' | '_' | '.' | ':');
        if name.is_empty() || !name.chars().all(plain) {
            return Err(wrong());
        }
        let number = |port: &str| port.parse().ok().filter(|port| *port != 0).ok_or_else(wrong);
        let port = port.map(number).transpose()?;
        Ok(Self { name: name.to_owned(), port })
    }
}

impl Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name.contains(':') {
            true => write!(f, "[{}]", self.name)?,
            false => f.write_str(&self.name)?,
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_read_with_and_without_ports() {
        for (text, name, port) in [
            ("turn.test", "turn.test", None),
            ("turn.test:3479", "turn.test", Some(3479)),
            ("192.0.2.1:1", "192.0.2.1", Some(1)),
            ("2001:db8::1", "2001:db8::1", None),
            ("[2001:db8::1]", "2001:db8::1", None),
            ("[2001:db8::1]:65535", "2001:db8::1", Some(65535)),
        ] {
            let host = Host { name: name.to_owned(), port };
            assert_eq!(text.parse::<Host>(), Ok(host), "{text}");
        }
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for text in [
            "",
            ":",
            ":3478",
            "a:",
            "a:0",
            "a:65536",
            "a:b",
            "a:1:2",
            "[::1",
            "[::1]x",
            "[::1]:",
            "[a]",
            "a b",
            "a/b",
            "http://a",
            "a?b",
            "a@b",
            "\u{1b}[2J",
        ] {
            assert!(text.parse::<Host>().is_err(), "{text:?}");
        }
    }

    #[tokio::test]
    async fn addresses_need_no_names() {
        let host: Host = "[::1]".parse().unwrap();
        let found = host.resolve(3478, Duration::from_secs(5)).await;
        assert_eq!(found, Ok(vec!["[::1]:3478".parse().unwrap()]));
    }
}
