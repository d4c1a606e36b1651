//! NAT behaviour discovery: the second address, and the listeners that it takes.

use std::net::SocketAddr;

use super::error::{Fault, Key};
use super::file::Stun;
use super::value::Listen;
use crate::turn::Discovery;

/// What the core is to know of it; `None` where it is off.
pub(super) fn config(stun: &Stun, listen: &[Listen]) -> Result<Option<Discovery>, Fault> {
    let key = || Key::new("stun.alternate");
    let refuse =
        |message: String| Err(Fault::new([key(), Key::new("stun.nat_discovery")], message));
    if stun.alternate.is_empty() {
        return match stun.nat_discovery {
            true => refuse("needs `alternate`, a second address and port".to_owned()),
            false => Ok(None),
        };
    }
    let Listen(alternate) =
        stun.alternate.parse().map_err(|problem: String| Fault::new([key()], problem))?;
    if alternate.ip().is_unspecified() || alternate.port() == 0 {
        return refuse(format!("\"{alternate}\" is not one address with one port"));
    }
    if !stun.nat_discovery {
        return Ok(None);
    }
    // The first address of this family is the one that clients know.
    let Some(primary) = listen.iter().map(|listen| listen.0).find(|listen| {
        listen.is_ipv4() == alternate.is_ipv4()
            && !listen.ip().is_unspecified()
            && listen.ip() != alternate.ip()
            && listen.port() != 0
    }) else {
        return refuse(format!(
            "\"{alternate}\" needs another address of its family in `listen` that is no wildcard"
        ));
    };
    match Discovery::new(primary, alternate) {
        Some(discovery) => Ok(Some(discovery)),
        None => refuse(format!("\"{alternate}\" must differ from \"{primary}\" in its port too")),
    }
}

/// All addresses to listen on.
pub(super) fn listeners(
    mut listen: Vec<SocketAddr>,
    discovery: Option<&Discovery>,
) -> Vec<SocketAddr> {
    for address in discovery.into_iter().flat_map(Discovery::addresses) {
        if !listen.contains(&address) {
            listen.push(address);
        }
    }
    listen
}
