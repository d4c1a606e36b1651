//! NAT behaviour discovery (RFC 5780 §6): the four addresses a server answers from, so that a
//! client can find out what its NAT lets in.

use std::net::SocketAddr;

use crate::stun::AddressFamily;
use crate::stun::attribute::ChangeRequest;

/// Two IP addresses of one family with the same two ports on each.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Discovery {
    primary: SocketAddr,
    alternate: SocketAddr,
}

impl Discovery {
    /// None unless the two differ in IP address and in port, and are of one family. All four
    /// addresses must be listened on, or what the responses promise is not true.
    #[must_use]
    pub fn new(primary: SocketAddr, alternate: SocketAddr) -> Option<Self> {
        let same_family = AddressFamily::of(primary.ip()) == AddressFamily::of(alternate.ip());
        let differ = primary.ip() != alternate.ip() && primary.port() != alternate.port();
        (same_family && differ).then_some(Self { primary, alternate })
    }

    /// The four addresses, the primary one first.
    #[must_use]
    pub fn addresses(&self) -> [SocketAddr; 4] {
        let Self { primary, alternate } = *self;
        [
            primary,
            SocketAddr::new(primary.ip(), alternate.port()),
            SocketAddr::new(alternate.ip(), primary.port()),
            alternate,
        ]
    }

    /// Where the response to a request that arrived `at` leaves from (RFC 5780 §6.1, table 1).
    /// None if that is none of the four addresses.
    pub(super) fn origin(&self, at: SocketAddr, change: ChangeRequest) -> Option<SocketAddr> {
        if !self.addresses().contains(&at) {
            return None;
        }
        let ips = [self.primary.ip(), self.alternate.ip()];
        let ports = [self.primary.port(), self.alternate.port()];
        let ip = ips[usize::from((at.ip() == ips[1]) != change.ip)];
        let port = ports[usize::from((at.port() == ports[1]) != change.port)];
        Some(SocketAddr::new(ip, port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_that_share_anything_are_refused() {
        let new = |one, other| Discovery::new(address(one), address(other));
        assert!(new("192.0.2.1:3478", "192.0.2.1:3479").is_none());
        assert!(new("192.0.2.1:3478", "192.0.2.2:3478").is_none());
        assert!(new("192.0.2.1:3478", "[2001:db8::1]:3479").is_none());
        assert!(new("192.0.2.1:3478", "192.0.2.2:3479").is_some());
        assert!(new("[2001:db8::1]:3478", "[2001:db8::2]:3479").is_some());
    }

    #[test]
    fn elsewhere_there_is_no_origin() {
        let four = Discovery::new(address("192.0.2.1:3478"), address("192.0.2.2:3479")).unwrap();
        for other in ["192.0.2.3:3478", "192.0.2.1:3480", "[2001:db8::1]:3478"] {
            assert_eq!(four.origin(address(other), ChangeRequest::default()), None, "{other}");
        }
    }
}
