//! Which peers may be reached: one function, on canonical addresses, deny by default.
//!
//! A [`PeerAddress`] can only be had from [`Policy::admit`], and only a `PeerAddress` can be bound
//! to a channel or sent to, so no path can forget to ask.

use std::mem::replace;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::stun::AddressFamily;

/// How many addresses one server may relay from, of both families together: the tickets of mobile
/// allocations have four bits to name one.
pub const RELAY_ADDRESSES_MAX: usize = 16;

/// The operator's exceptions.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Exceptions to the built-in deny list.
    pub allow: Vec<IpNet>,
    /// More to deny; wins over `allow`.
    pub deny: Vec<IpNet>,
    /// Nothing but `allow`.
    pub only_allowed: bool,
}

/// What the machine itself listens on and relays from: known once the sockets are bound.
#[derive(Clone, Debug)]
pub struct Host {
    /// Our own listeners, TURN and HTTP. A wildcard address stands for each of `addresses`.
    pub endpoints: Vec<SocketAddr>,
    /// The machine's own addresses.
    pub addresses: Vec<IpAddr>,
    /// Addresses that lead here though no interface has them.
    pub aliases: Vec<Alias>,
    /// The broadcast addresses of its networks: never peers, whatever is allowed.
    pub broadcasts: Vec<Ipv4Addr>,
    /// What relayed addresses show, each another one, [`RELAY_ADDRESSES_MAX`] at most: where they are
    /// allocated, or, behind 1:1 NAT, the external address. Their order is the same as long as the
    /// process lives.
    pub relay_addresses: Vec<IpAddr>,
    /// The ports relayed addresses are allocated from.
    pub relay_ports: RangeInclusive<u16>,
}

/// 1:1 NAT: what arrives at one address comes to the other, ports unchanged.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Alias {
    /// As others see it.
    pub external: IpAddr,
    /// Of one of our interfaces.
    pub local: IpAddr,
}

/// A transport address that the policy lets through.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PeerAddress {
    address: SocketAddr,
    only_relayed: bool,
}

impl PeerAddress {
    /// The address to send to.
    #[must_use]
    pub fn address(self) -> SocketAddr {
        self.address
    }

    /// Whether it may be reached only as a relayed address of this server: something else that
    /// happens to listen on that port of the machine is none of the client's business.
    #[must_use]
    pub fn must_be_relayed(self) -> bool {
        self.only_relayed
    }
}

/// The policy forbids the peer: 403 to a request, silence to an indication.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Forbidden;

/// Whether the port matters to the caller.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Port {
    /// Packets will go to this very port.
    Exact,
    /// The port is arbitrary, as in CreatePermission (RFC 8656 §10.2).
    Any,
}

/// Special-purpose IPv4 networks (IANA registry), and 168.63.129.16, the metadata service that one
/// cloud runs on a public address.
const DENIED_IPV4: [Ipv4Net; 19] = [
    v4([0, 0, 0, 0], 8),
    v4([10, 0, 0, 0], 8),
    v4([100, 64, 0, 0], 10),
    v4([127, 0, 0, 0], 8),
    v4([168, 63, 129, 16], 32),
    v4([169, 254, 0, 0], 16),
    v4([172, 16, 0, 0], 12),
    v4([192, 0, 0, 0], 24),
    v4([192, 0, 2, 0], 24),
    v4([192, 31, 196, 0], 24),
    v4([192, 52, 193, 0], 24),
    v4([192, 88, 99, 0], 24),
    v4([192, 168, 0, 0], 16),
    v4([192, 175, 48, 0], 24),
    v4([198, 18, 0, 0], 15),
    v4([198, 51, 100, 0], 24),
    v4([203, 0, 113, 0], 24),
    v4([224, 0, 0, 0], 4),
    v4([240, 0, 0, 0], 4),
];

/// Special-purpose IPv6 networks, with the deprecated site-local range. The first holds `::1`.
const DENIED_IPV6: [Ipv6Net; 14] = [
    v6([0, 0, 0, 0, 0, 0, 0, 0], 96),
    v6([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 96),
    v6([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48),
    v6([0x100, 0, 0, 0, 0, 0, 0, 0], 64),
    v6([0x100, 0, 0, 1, 0, 0, 0, 0], 64),
    v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23),
    v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32),
    v6([0x2620, 0x4f, 0x8000, 0, 0, 0, 0, 0], 48),
    v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20),
    v6([0x5f00, 0, 0, 0, 0, 0, 0, 0], 16),
    v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7),
    v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10),
    v6([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10),
    v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8),
];

/// IPv6 addresses that are IPv4 in disguise, mapped or translated, and have no business on the
/// wire. No `allow` opens them, nor the tunnels.
const NEVER_IPV6: [Ipv6Net; 2] =
    [v6([0, 0, 0, 0, 0, 0xffff, 0, 0], 96), v6([0, 0, 0, 0, 0xffff, 0, 0, 0], 96)];

/// Teredo and 6to4.
const TUNNELS_IPV6: [Ipv6Net; 2] =
    [v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 32), v6([0x2002, 0, 0, 0, 0, 0, 0, 0], 16)];

const fn v4(octets: [u8; 4], length: u8) -> Ipv4Net {
    let [a, b, c, d] = octets;
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), length)
}

const fn v6(segments: [u16; 8], length: u8) -> Ipv6Net {
    let [a, b, c, d, e, f, g, h] = segments;
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, e, f, g, h), length)
}

/// The operator's configuration joined with what the machine is.
#[derive(Clone, Debug)]
pub struct Policy {
    config: Config,
    host: Host,
}

impl Policy {
    /// Joins configuration and machine.
    #[must_use]
    pub fn new(config: Config, host: Host) -> Self {
        Self { config, host }
    }

    /// Whether packets may go to `peer`.
    ///
    /// In this order: what can be no peer at all; `deny`; our own listeners; our own relayed
    /// addresses, which two clients of this server need to reach each other; `allow`; and then
    /// only what is public unicast and not this machine.
    pub fn admit(&self, peer: SocketAddr, port: Port) -> Result<PeerAddress, Forbidden> {
        let ip = peer.ip();
        if port == Port::Exact && peer.port() == 0 {
            return Err(Forbidden);
        }
        if self.is_barred(ip) || self.is_endpoint(peer) {
            return Err(Forbidden);
        }
        if self.is_excepted(ip) {
            return Ok(PeerAddress { address: peer, only_relayed: false });
        }
        if self.config.only_allowed || !self.admits_address(peer, port) {
            return Err(Forbidden);
        }
        Ok(PeerAddress { address: peer, only_relayed: self.host.relay_addresses.contains(&ip) })
    }

    fn admits_address(&self, peer: SocketAddr, port: Port) -> bool {
        let ip = peer.ip();
        if self.host.relay_addresses.contains(&ip) {
            return port == Port::Any || self.host.relay_ports.contains(&peer.port());
        }
        !self.leads_here(ip) && !is_denied(ip) && self.admits_embedded(ip)
    }

    /// Whether the operator makes an exception for `ip`. A wide network in `allow` does not open
    /// the machine itself: its own addresses want an entry of their own, and loopback one that is
    /// loopback and nothing else.
    fn is_excepted(&self, ip: IpAddr) -> bool {
        let is_own = self.leads_here(ip);
        let opens = |net: &&IpNet| {
            net.contains(&ip)
                && (!ip.is_loopback() || net.network().is_loopback() && net.prefix_len() >= 8)
                && (!is_own || ip.is_loopback() || net.prefix_len() == net.max_prefix_len())
        };
        self.config.allow.iter().any(|net| opens(&net)) && self.admits_embedded(ip)
    }

    /// What no exception opens: addresses nobody has, those of everybody, and `deny`.
    fn is_barred(&self, ip: IpAddr) -> bool {
        is_never_a_peer(ip) || self.is_broadcast(ip) || contains(&self.config.deny, ip)
    }

    /// Whether `ip` is everybody's on a network: on any, or on one that this host is in.
    #[must_use]
    pub fn is_broadcast(&self, ip: IpAddr) -> bool {
        matches!(ip, IpAddr::V4(ip) if ip.is_broadcast() || self.host.broadcasts.contains(&ip))
    }

    /// An address that carries an IPv4 address is reached through a translator, so the embedded
    /// address must be one that would be let through on its own.
    fn admits_embedded(&self, ip: IpAddr) -> bool {
        let IpAddr::V6(ip) = ip else { return true };
        embedded_ipv4(ip).all(|ip| {
            let ip = IpAddr::V4(ip);
            !self.is_barred(ip)
                && (contains(&self.config.allow, ip) || !is_denied(ip))
                && !self.leads_here(ip)
        })
    }

    /// The machine's addresses may have changed. Returns whether they have.
    pub(super) fn set_own_addresses(
        &mut self,
        addresses: Vec<IpAddr>,
        broadcasts: Vec<Ipv4Addr>,
    ) -> bool {
        let before = replace(&mut self.host.addresses, addresses);
        let broadcasts_before = replace(&mut self.host.broadcasts, broadcasts);
        (&before, &broadcasts_before) != (&self.host.addresses, &self.host.broadcasts)
    }

    /// What the NAT in front does may have changed. Returns whether it has.
    pub(super) fn set_aliases(
        &mut self,
        aliases: Vec<Alias>,
        relay_addresses: Vec<IpAddr>,
    ) -> bool {
        let before = replace(&mut self.host.aliases, aliases);
        let relays_before = replace(&mut self.host.relay_addresses, relay_addresses);
        (&before, &relays_before) != (&self.host.aliases, &self.host.relay_addresses)
    }

    /// Whether packets to `ip` arrive at this machine, directly or through the NAT in front of it.
    fn leads_here(&self, ip: IpAddr) -> bool {
        let is_alias = |alias: &Alias| alias.external == ip || alias.local == ip;
        self.host.addresses.contains(&ip) || self.host.aliases.iter().any(is_alias)
    }

    /// Whether `address` is one of our own listeners.
    #[must_use]
    pub fn is_endpoint(&self, address: SocketAddr) -> bool {
        self.host.endpoints.iter().any(|endpoint| {
            endpoint.port() == address.port()
                && (endpoint.ip() == address.ip()
                    || endpoint.ip().is_unspecified() && self.is_own(address.ip())
                    || self
                        .host
                        .aliases
                        .contains(&Alias { external: address.ip(), local: endpoint.ip() }))
        })
    }

    /// All of 127.0.0.0/8 is this machine, though only one address of it is configured.
    fn is_own(&self, ip: IpAddr) -> bool {
        ip.is_loopback() || self.leads_here(ip)
    }

    /// What others reach one of our own addresses by: itself, or what the NAT in front shows for it.
    pub(super) fn external(&self, own: SocketAddr) -> SocketAddr {
        let alias = self.host.aliases.iter().find(|alias| alias.local == own.ip());
        alias.map_or(own, |alias| SocketAddr::new(alias.external, own.port()))
    }

    /// Whether `address` could be one of our own relayed addresses.
    #[must_use]
    pub fn is_relayed(&self, address: SocketAddr) -> bool {
        self.host.relay_addresses.contains(&address.ip())
            && self.host.relay_ports.contains(&address.port())
    }

    /// Which of the relay addresses shows this one. Of an external address that has changed, the
    /// first of its family, which is the right one where there is but one.
    pub(super) fn relay_index(&self, shown: IpAddr) -> Option<usize> {
        let mut addresses = self.host.relay_addresses.iter().take(RELAY_ADDRESSES_MAX);
        let exact = addresses.clone().position(|address| *address == shown);
        exact.or_else(|| addresses.position(|address| address.is_ipv4() == shown.is_ipv4()))
    }

    /// What the relay address of this number shows now.
    pub(super) fn relay_address(&self, index: usize) -> Option<IpAddr> {
        self.host.relay_addresses.get(index).copied()
    }

    /// Whether relayed addresses of this family can be had.
    #[must_use]
    pub fn relays(&self, family: AddressFamily) -> bool {
        self.host.relay_addresses.iter().any(|&address| AddressFamily::of(address) == family)
    }
}

/// Whether `ip` lies in one of the special-purpose networks that are no peers by default, and that
/// peers elsewhere cannot reach either.
#[must_use]
pub fn is_special_purpose(ip: IpAddr) -> bool {
    is_never_a_peer(ip) || is_denied(ip)
}

fn contains(nets: &[IpNet], ip: IpAddr) -> bool {
    nets.iter().any(|net| net.contains(&ip))
}

fn is_denied(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => DENIED_IPV4.iter().any(|net| net.contains(&ip)),
        IpAddr::V6(ip) => DENIED_IPV6.iter().any(|net| net.contains(&ip)),
    }
}

/// Addresses no datagram can sensibly go to, whatever the operator allows.
fn is_never_a_peer(ip: IpAddr) -> bool {
    if ip.is_unspecified() || ip.is_multicast() || is_tunnelled(ip) {
        return true;
    }
    match ip {
        IpAddr::V4(ip) => ip.is_broadcast(),
        IpAddr::V6(ip) => NEVER_IPV6.iter().any(|net| net.contains(&ip)) || is_ipv4_compatible(ip),
    }
}

/// Teredo and 6to4: tunnels that a TURN server must not be one end of (RFC 8656 §21.4).
pub(super) fn is_tunnelled(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if TUNNELS_IPV6.iter().any(|net| net.contains(&ip)))
}

/// `::a.b.c.d`, deprecated by RFC 4291 §2.5.5.1; `::1` is loopback and not one of them.
fn is_ipv4_compatible(ip: Ipv6Addr) -> bool {
    ip.to_bits() >> 32 == 0 && !ip.is_loopback()
}

/// Every IPv4 address that translators could read out of `ip`: NAT64 in each of the prefix
/// lengths of RFC 6052 §2.2, and ISATAP (RFC 5214 §6.1).
fn embedded_ipv4(ip: Ipv6Addr) -> impl Iterator<Item = Ipv4Addr> {
    let o = ip.octets();
    let segments = ip.segments();
    let well_known = segments[..6] == [0x64, 0xff9b, 0, 0, 0, 0];
    let local_use = segments[..3] == [0x64, 0xff9b, 1];
    let isatap = matches!(segments[4..6], [0x0000 | 0x0200, 0x5efe]);
    [
        (well_known || local_use || isatap, [o[12], o[13], o[14], o[15]]),
        (local_use, [o[6], o[7], o[9], o[10]]),
        (local_use, [o[7], o[9], o[10], o[11]]),
        (local_use, [o[9], o[10], o[11], o[12]]),
    ]
    .into_iter()
    .filter(|&(applies, _)| applies)
    .map(|(_, octets)| Ipv4Addr::from(octets))
}

#[cfg(test)]
mod tests;
