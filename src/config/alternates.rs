//! Other servers to send clients to: where they are, and what their certificates are for.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use super::error::{Fault, Key};
use super::file::Turn;
use super::host::is_host_name;
use super::value::Listen;
use crate::net;
use crate::turn::Alternate;

/// One element of `turn.alternate_servers` and of `turn.drain_to`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Other(Alternate);

impl FromStr for Other {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (address, name) = match text.split_once('/') {
            Some((address, name)) => (address, Some(name)),
            None => (text, None),
        };
        let Listen(address) = address.parse().map_err(|_| {
            format!(
                "{text:?} is not an address with a port; write it like \"203.0.113.7:3478\" or \
                 \"203.0.113.7:3478/turn.example.org\""
            )
        })?;
        if let Some(name) = name.filter(|name| !is_host_name(name)) {
            return Err(format!("{text:?}: {name:?} is not a host name"));
        }
        Ok(Self(Alternate { address, name: name.map(str::to_owned) }))
    }
}

impl fmt::Display for Other {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Both lists, if clients can go there and are not sent here again.
pub(super) fn config(
    turn: &Turn,
    net: &net::Config,
) -> Result<(Vec<Alternate>, Vec<Alternate>), Fault> {
    let of = |others: &[Other], key: &str| {
        let checked = |(at, Other(alternate)): (usize, &Other)| match problem(alternate, net) {
            None => Ok(alternate.clone()),
            Some(problem) => {
                let message = format!("\"{}\" {problem}", alternate.address);
                Err(Fault::new([Key::new(key).index(at)], message))
            }
        };
        others.iter().enumerate().map(checked).collect::<Result<Vec<_>, Fault>>()
    };
    Ok((
        of(&turn.alternate_servers, "turn.alternate_servers")?,
        of(&turn.drain_to, "turn.drain_to")?,
    ))
}

fn problem(alternate: &Alternate, net: &net::Config) -> Option<&'static str> {
    let address = alternate.address;
    if address.ip().is_unspecified() || address.port() == 0 {
        return Some("is not one address with one port");
    }
    is_ours(address, net).then_some("is this server")
}

/// Whether it leads to one of our listeners, directly or through the NAT in front.
fn is_ours(address: SocketAddr, net: &net::Config) -> bool {
    let aliases = net.external.aliases(&net.relays_from());
    let inside = aliases.iter().find(|alias| alias.external == address.ip());
    let own = inside.map_or(address.ip(), |alias| alias.local);
    let is_own = |ip: IpAddr| ip.is_loopback() || net::own_addresses().0.contains(&ip);
    let tls = net.tls.iter().flat_map(|tls| &tls.listen);
    net.listen.iter().chain(tls).any(|listen| {
        let by_wildcard = listen.ip().is_unspecified()
            && listen.is_ipv4() == own.is_ipv4()
            && (inside.is_some() || is_own(own));
        listen.port() == address.port() && (listen.ip() == own || by_wildcard)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn ports_for_tls_only_are_ours_too() {
        let mut net = Config::dev().net;
        net.tls.as_mut().unwrap().listen = vec!["192.0.2.1:5349".parse().unwrap()];
        assert!(is_ours("192.0.2.1:5349".parse().unwrap(), &net));
        assert!(!is_ours("192.0.2.1:3478".parse().unwrap(), &net));
    }
}
