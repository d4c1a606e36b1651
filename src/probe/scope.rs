//! How far an address reaches.

use std::net::{IpAddr, Ipv6Addr};

/// Who can reach an address, from nobody to everybody.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Scope {
    /// No address to send to: a wildcard.
    Nobody,
    /// This machine.
    Machine,
    /// This link.
    Link,
    /// A private network, or the one behind a provider's NAT: RFC 1918, RFC 4193, RFC 6598.
    Private,
    /// Everybody.
    Public,
}

impl Scope {
    /// The scope of an address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            ip if ip.is_unspecified() => Self::Nobody,
            ip if ip.is_loopback() => Self::Machine,
            IpAddr::V4(ip) if ip.is_link_local() => Self::Link,
            IpAddr::V4(ip) if ip.is_private() || is_shared(ip.octets()) => Self::Private,
            IpAddr::V6(ip) if has_prefix(ip, 0xfe80, 10) => Self::Link,
            IpAddr::V6(ip) if has_prefix(ip, 0xfc00, 7) => Self::Private,
            _ => Self::Public,
        }
    }

    /// The adjective for a sentence.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Nobody => "a wildcard",
            Self::Machine => "a loopback address",
            Self::Link => "link-local",
            Self::Private => "private",
            Self::Public => "public",
        }
    }
}

/// 100.64.0.0/10.
fn is_shared(octets: [u8; 4]) -> bool {
    octets[0] == 100 && octets[1] & 0xc0 == 64
}

fn has_prefix(ip: Ipv6Addr, prefix: u16, bits: u32) -> bool {
    (ip.segments()[0] ^ prefix) >> (16 - bits) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_reach_as_far_as_their_registry_says() {
        for (address, scope) in [
            ("0.0.0.0", Scope::Nobody),
            ("::", Scope::Nobody),
            ("127.0.0.2", Scope::Machine),
            ("::1", Scope::Machine),
            ("::ffff:127.0.0.1", Scope::Machine),
            ("169.254.1.1", Scope::Link),
            ("fe80::1", Scope::Link),
            ("febf::1", Scope::Link),
            ("10.0.0.4", Scope::Private),
            ("172.31.0.1", Scope::Private),
            ("172.32.0.1", Scope::Public),
            ("192.168.1.1", Scope::Private),
            ("100.64.0.1", Scope::Private),
            ("100.128.0.1", Scope::Public),
            ("fd00::1", Scope::Private),
            ("fe00::1", Scope::Public),
            ("2001:db8::1", Scope::Public),
            ("203.0.113.4", Scope::Public),
        ] {
            assert_eq!(Scope::of(address.parse().unwrap()), scope, "{address}");
        }
        assert!(Scope::Private < Scope::Public);
    }
}
