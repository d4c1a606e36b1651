//! The addresses that a 1:1 NAT shows: told one by one, or to be asked for.

use std::net::IpAddr;
use std::str::FromStr;

use super::error::{Fault, Key};
use super::file::Relay;
use super::value::Host;
use crate::net;
use crate::net::external::Known;

/// What stands for all addresses that nobody has told.
const AUTO: &str = "auto";
/// How a host of the STUN server may look, and its port.
const STUN_EXAMPLE: &str = "\"stun.example.org:3478\"";

/// One element of `relay.external`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum External {
    /// To be asked for.
    Auto,
    /// This one.
    Known(Known),
}

impl FromStr for External {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == AUTO {
            return Ok(Self::Auto);
        }
        let (external, local) = match text.split_once('/') {
            Some((external, local)) => (external, Some(local)),
            None => (text, None),
        };
        let host = |part: &str| {
            part.parse().map(|Host(host)| host).map_err(|problem| {
                format!(
                    "{problem}; write {text:?} like \"203.0.113.4\", \
                     \"203.0.113.4/10.0.0.4\" (external/local) or \"auto\""
                )
            })
        };
        let known = Known { external: host(external)?, local: local.map(host).transpose()? };
        if known.local.is_some_and(|local| local.is_ipv4() != known.external.is_ipv4()) {
            return Err(format!("{text:?} joins an IPv4 with an IPv6 address"));
        }
        Ok(Self::Known(known))
    }
}

/// The rules that concern several values.
pub(super) fn config(relay: &Relay, net: &net::Config) -> Result<net::external::Config, Fault> {
    let relays_from = net.relays_from();
    let mut config = net::external::Config::default();
    for (at, external) in relay.external.iter().enumerate() {
        let refuse =
            |message: String| Err(Fault::new([Key::new("relay.external").index(at)], message));
        let External::Known(known) = *external else { continue };
        let local = match local_of(known, &relays_from) {
            Ok(local) => local,
            Err(problem) => return refuse(problem),
        };
        if !is_ours(local, net, &relays_from) {
            return refuse(format!("\"{local}\" is neither a relay address nor listened on"));
        }
        if config.aliases(&relays_from).iter().any(|alias| alias.local == local) {
            return refuse(format!("\"{}\" is a second one for {local}", known.external));
        }
        if config.known.iter().any(|other| other.external == known.external) {
            return refuse(format!("\"{}\" is listed twice", known.external));
        }
        if known.external != local && relays_from.contains(&known.external) {
            return refuse(format!("\"{}\" is itself a relay address", known.external));
        }
        config.known.push(known);
    }
    config.stun = stun(relay)?;
    Ok(config)
}

/// What it stands for: said, or the one relay address of its family.
fn local_of(known: Known, relays_from: &[IpAddr]) -> Result<IpAddr, String> {
    let Known { external, local } = known;
    if let Some(local) = local {
        return Ok(local);
    }
    let same_family = |relay: &&IpAddr| relay.is_ipv4() == external.is_ipv4();
    let family = if external.is_ipv4() { "IPv4" } else { "IPv6" };
    match *relays_from.iter().filter(same_family).collect::<Vec<_>>() {
        [] => Err(format!("\"{external}\" is for no relay address of {family}")),
        [&local] => Ok(local),
        [first, ..] => Err(format!(
            "\"{external}\" may be for any of several relay addresses of {family}; write \
             \"{external}/{first}\" (external/local) if it is for {first}"
        )),
    }
}

/// Whether an external address for `local` would be of any use.
fn is_ours(local: IpAddr, net: &net::Config, relays_from: &[IpAddr]) -> bool {
    let listens = net.listen.iter().map(|listen| listen.ip()).any(|listen| {
        listen == local || listen.is_unspecified() && listen.is_ipv4() == local.is_ipv4()
    });
    listens || relays_from.contains(&local)
}

/// Whom to ask: there if and only if something is to be asked.
fn stun(relay: &Relay) -> Result<Option<String>, Fault> {
    let key = || Key::new("relay.external_stun");
    let refuse = |keys: [Key; 2], message: &str| Err(Fault::new(keys, message.to_owned()));
    let asks = relay.external.contains(&External::Auto);
    let stun = relay.external_stun.as_str();
    if stun.is_empty() && !asks {
        return Ok(None);
    }
    let keys = [key(), Key::new("relay.external")];
    if stun.is_empty() {
        let message = format!("\"auto\" needs a STUN server to ask, such as {STUN_EXAMPLE}");
        return refuse(keys, &message);
    }
    let port = stun.rsplit_once(':').filter(|(host, _)| !host.is_empty());
    let port = port.and_then(|(_, port)| port.parse::<u16>().ok());
    if port.is_none_or(|port| port == 0) {
        let message = format!("{stun:?} is not a host with a port; write it like {STUN_EXAMPLE}");
        return refuse(keys, &message);
    }
    if !asks {
        return refuse(keys, "is of no use without \"auto\" in relay.external");
    }
    Ok(Some(stun.to_owned()))
}
