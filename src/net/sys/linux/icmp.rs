//! ICMP errors: the kernel's error queue of a socket.

use std::io;
use std::mem;
use std::os::fd::RawFd;

use libc::{c_int, msghdr, socklen_t};

use super::cmsg::{Control, Received};
use super::name::Name;
use super::set;
use crate::net::sys::IcmpError;

/// Has the kernel keep the errors of a socket.
pub(super) fn keep_errors(fd: RawFd, is_ipv4: bool) -> io::Result<()> {
    match is_ipv4 {
        true => set(fd, libc::IPPROTO_IP, libc::IP_RECVERR, 1),
        false => set(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVERR, 1),
    }
}

/// Takes the next error; `None` for one of the kernel's own, such as about a datagram that was too
/// large to leave, which sending has told already. Fails when there are no more.
pub(super) fn next_error(fd: RawFd) -> io::Result<Option<IcmpError>> {
    let (mut name, mut control) = (Name::EMPTY, Control::EMPTY);
    // SAFETY: numbers and pointers, for which zeros are valid. No room for the datagram itself.
    let mut message: msghdr = unsafe { mem::zeroed() };
    message.msg_name = (&raw mut name).cast();
    message.msg_namelen = mem::size_of::<Name>() as socklen_t;
    message.msg_control = (&raw mut control).cast();
    message.msg_controllen = Control::CAPACITY as _;
    // SAFETY: the header points to a name and a control buffer of the lengths it gives, which live
    // until the call returns.
    let received = unsafe { libc::recvmsg(fd, &raw mut message, libc::MSG_ERRQUEUE) };
    if received < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: recvmsg filled this header, whose control buffer is still there.
    let Received { error, .. } = unsafe { Received::read(&message) };
    let of_icmp = error.filter(|error| {
        matches!(error.ee_origin, libc::SO_EE_ORIGIN_ICMP | libc::SO_EE_ORIGIN_ICMP6)
    });
    Ok(of_icmp.zip(name.address()).map(|(error, peer)| IcmpError {
        peer,
        kind: error.ee_type,
        code: error.ee_code,
        info: error.ee_info,
    }))
}

/// Whether this could be what an ICMP error has left for the next call, whatever its datagram:
/// there it says the same as what is wrong with the datagram itself.
pub(super) fn may_have_left(error: &io::Error) -> bool {
    const LEFT: [c_int; 9] = [
        libc::EACCES,
        libc::EHOSTDOWN,
        libc::EHOSTUNREACH,
        libc::EMSGSIZE,
        libc::ENETUNREACH,
        libc::ENONET,
        libc::ENOPROTOOPT,
        libc::EOPNOTSUPP,
        libc::EPROTO,
    ];
    error.raw_os_error().is_some_and(|errno| LEFT.contains(&errno))
}
