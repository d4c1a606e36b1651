//! Socket addresses in the kernel's form.

use std::mem;
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};

use libc::{sa_family_t, sockaddr_in, sockaddr_in6, socklen_t};

/// An IPv4 or IPv6 `sockaddr`: a fifth of the size of `sockaddr_storage`.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) union Name {
    family: sa_family_t,
    v4: sockaddr_in,
    v6: sockaddr_in6,
}

impl Name {
    /// No address; room for one.
    pub(super) const EMPTY: Self = {
        // SAFETY: all fields are plain numbers, for which zeros are valid.
        unsafe { mem::zeroed() }
    };

    /// The address, and how much of it the kernel is to read.
    pub(super) fn of(address: SocketAddr) -> (Self, socklen_t) {
        let mut name = Self::EMPTY;
        match address {
            SocketAddr::V4(address) => {
                name.v4 = sockaddr_in {
                    sin_family: libc::AF_INET as sa_family_t,
                    sin_port: address.port().to_be(),
                    sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(address.ip().octets()) },
                    sin_zero: [0; 8],
                };
                (name, mem::size_of::<sockaddr_in>() as socklen_t)
            }
            SocketAddr::V6(address) => {
                name.v6 = sockaddr_in6 {
                    sin6_family: libc::AF_INET6 as sa_family_t,
                    sin6_port: address.port().to_be(),
                    sin6_flowinfo: address.flowinfo(),
                    sin6_addr: libc::in6_addr { s6_addr: address.ip().octets() },
                    sin6_scope_id: address.scope_id(),
                };
                (name, mem::size_of::<sockaddr_in6>() as socklen_t)
            }
        }
    }

    /// The address, if it is of a family known here.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        // SAFETY: every field starts with the family, and the union was zeroed before the kernel
        // wrote to it, so all its bytes are initialized; any bits are valid in these fields.
        let (family, v4, v6) = unsafe { (self.family, self.v4, self.v6) };
        match i32::from(family) {
            libc::AF_INET => {
                let ip = v4.sin_addr.s_addr.to_ne_bytes();
                Some(SocketAddrV4::new(ip.into(), u16::from_be(v4.sin_port)).into())
            }
            libc::AF_INET6 => {
                let ip = v6.sin6_addr.s6_addr;
                let port = u16::from_be(v6.sin6_port);
                let (flow, scope) = (v6.sin6_flowinfo, v6.sin6_scope_id);
                Some(SocketAddrV6::new(ip.into(), port, flow, scope).into())
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_address_and_scope_survive() {
        for text in ["192.0.2.1:3478", "[2001:db8::1]:3478", "[fe80::1%7]:65535"] {
            let address: SocketAddr = text.parse().expect("an address");
            assert_eq!(Name::of(address).0.address(), Some(address));
        }
    }

    #[test]
    fn other_families_are_no_address() {
        assert_eq!(Name::EMPTY.address(), None);
    }
}
