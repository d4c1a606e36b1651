//! The addresses of this host.

use std::io;
use std::net::IpAddr;
use std::ptr;

use libc::{ifaddrs, sockaddr, sockaddr_in, sockaddr_in6};

use crate::net::sys::InterfaceAddress;

/// The addresses of all interfaces, up or down: a peer must not reach a service of this host that
/// listens on an address that is about to come up.
pub fn interface_addresses() -> io::Result<Vec<InterfaceAddress>> {
    let list = List::new()?;
    let mut addresses = Vec::new();
    let mut next = list.0;
    // SAFETY: `next` is null or an entry of the list, which lives until the end of the function.
    while let Some(entry) = unsafe { next.as_ref() } {
        next = entry.ifa_next;
        // SAFETY: the addresses of an entry are null or whole.
        let Some(ip) = (unsafe { address(entry.ifa_addr) }) else { continue };
        // Without the flag it is the far end of a point-to-point link.
        let broadcasts = entry.ifa_flags & libc::IFF_BROADCAST as u32 != 0;
        // SAFETY: as above.
        let broadcast = match unsafe { address(entry.ifa_ifu) } {
            // Where none was set, glibc gives the interface's own address in its place.
            Some(IpAddr::V4(broadcast)) if broadcasts && broadcast != ip => Some(broadcast),
            _ => None,
        };
        addresses.push(InterfaceAddress { ip, broadcast });
    }
    Ok(addresses)
}

/// What `getifaddrs` gives, to be freed.
struct List(*mut ifaddrs);

impl List {
    fn new() -> io::Result<Self> {
        let mut list = ptr::null_mut();
        // SAFETY: writes a pointer to `list`.
        match unsafe { libc::getifaddrs(&raw mut list) } {
            0 => Ok(Self(list)),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Drop for List {
    fn drop(&mut self) {
        // SAFETY: the list came from getifaddrs, and nothing refers to it any more.
        unsafe { libc::freeifaddrs(self.0) }
    }
}

/// The IP address in `raw`; none if it is null or of another family.
///
/// # Safety
/// `raw` must be null or point to a whole address of its family.
unsafe fn address(raw: *const sockaddr) -> Option<IpAddr> {
    // SAFETY: promised by the caller.
    unsafe {
        match i32::from(raw.as_ref()?.sa_family) {
            libc::AF_INET => {
                let address = raw.cast::<sockaddr_in>().read_unaligned();
                Some(IpAddr::from(address.sin_addr.s_addr.to_ne_bytes()))
            }
            libc::AF_INET6 => {
                let address = raw.cast::<sockaddr_in6>().read_unaligned();
                Some(IpAddr::from(address.sin6_addr.s6_addr))
            }
            _ => None,
        }
    }
}
