//! Control messages: the source and destination addresses, DSCP and ECN, GRO's and GSO's sizes,
//! ICMP errors.

use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use libc::{
    c_int, c_uint, cmsghdr, in_pktinfo, in6_pktinfo, msghdr, sock_extended_err, sockaddr_in6,
};

use crate::net::sys::Route;

/// Either the size of a train's datagrams, its traffic class and the address it was sent to, or an
/// error and who sent it: each of the larger of two families.
const BYTES: usize = larger(
    2 * space::<c_int>() + space::<in6_pktinfo>(),
    space::<c_int>() + space::<(sock_extended_err, sockaddr_in6)>(),
);

/// Room for the control messages of one message, aligned as the kernel wants it.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub(super) struct Control {
    bytes: [u8; BYTES],
}

const _: () = assert!(mem::align_of::<Control>() >= mem::align_of::<cmsghdr>());

impl Control {
    /// No control messages; room for them.
    pub(super) const EMPTY: Self = Self { bytes: [0; BYTES] };
    /// The size of that room.
    pub(super) const CAPACITY: usize = BYTES;

    /// What a message on this way and with these segments carries, and its length.
    pub(super) fn of<K>(route: &Route<K>, segment: Option<u16>) -> (Self, usize) {
        let mut control = Self::EMPTY;
        let mut len = 0;
        if route.traffic_class != 0 {
            let (level, kind) = match route.to {
                SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_TOS),
                SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_TCLASS),
            };
            control.push(&mut len, level, kind, c_int::from(route.traffic_class));
        }
        if let Some(segment) = segment {
            control.push(&mut len, libc::SOL_UDP, libc::UDP_SEGMENT, segment);
        }
        match route.from {
            Some(IpAddr::V4(from)) => {
                let from = libc::in_addr { s_addr: u32::from_ne_bytes(from.octets()) };
                let none = libc::in_addr { s_addr: 0 };
                let info = in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: from, ipi_addr: none };
                control.push(&mut len, libc::IPPROTO_IP, libc::IP_PKTINFO, info);
            }
            Some(IpAddr::V6(from)) => {
                let from = libc::in6_addr { s6_addr: from.octets() };
                let info = in6_pktinfo { ipi6_addr: from, ipi6_ifindex: 0 };
                control.push(&mut len, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info);
            }
            None => {}
        }
        (control, len)
    }

    fn push<T: Copy>(&mut self, len: &mut usize, level: c_int, kind: c_int, value: T) {
        assert!(*len + space::<T>() <= BYTES, "CAPACITY fits every kind once");
        // SAFETY: all fields are plain numbers, for which zeros are valid.
        let mut header: cmsghdr = unsafe { mem::zeroed() };
        header.cmsg_level = level;
        header.cmsg_type = kind;
        // SAFETY: computes a number.
        header.cmsg_len = unsafe { libc::CMSG_LEN(mem::size_of::<T>() as c_uint) } as _;
        // SAFETY: header and value lie inside `bytes`, as asserted. `len` is a sum of CMSG_SPACEs
        // and `bytes` aligned, so the header is aligned; the value need not be.
        unsafe {
            let at = self.bytes.as_mut_ptr().add(*len).cast::<cmsghdr>();
            at.write(header);
            libc::CMSG_DATA(at).cast::<T>().write_unaligned(value);
        }
        *len += space::<T>();
    }
}

/// What the kernel says about a received message.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Received {
    /// The address it was sent to. Of a broadcast it is the broadcast address, which the kernel
    /// refuses as a source: nobody is ever answered in its name.
    pub(super) to: Option<IpAddr>,
    /// The size of its datagrams, if GRO joined several.
    pub(super) stride: Option<usize>,
    /// DSCP and ECN; 0 if not asked for.
    pub(super) traffic_class: u8,
    /// What the error queue tells about one of our datagrams.
    pub(super) error: Option<sock_extended_err>,
}

impl Received {
    /// Reads the control messages of `message`.
    ///
    /// # Safety
    /// `msg_control` must point to `msg_controllen` initialized bytes, as `recvmsg` left them.
    pub(super) unsafe fn read(message: &msghdr) -> Self {
        let mut received = Self::default();
        // SAFETY: promised by the caller.
        let mut next = unsafe { libc::CMSG_FIRSTHDR(message) };
        // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR give a header that lies whole inside the control
        // bytes, or null; the kernel wrote a value of the type that goes with level and type.
        while let Some(header) = unsafe { next.as_ref() } {
            match (header.cmsg_level, header.cmsg_type) {
                (libc::SOL_UDP, libc::UDP_GRO) => {
                    // SAFETY: as above.
                    let stride = unsafe { value::<c_int>(header) };
                    received.stride = usize::try_from(stride).ok().filter(|&stride| stride > 0);
                }
                (libc::IPPROTO_IP, libc::IP_TOS) => {
                    // SAFETY: as above; of IPv4 the kernel tells a byte, and of IPv6 a number.
                    received.traffic_class = unsafe { value::<u8>(header) };
                }
                (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                    // SAFETY: as above.
                    received.traffic_class = unsafe { value::<c_int>(header) } as u8;
                }
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    // SAFETY: as above.
                    let info = unsafe { value::<in_pktinfo>(header) };
                    let to = Ipv4Addr::from(info.ipi_addr.s_addr.to_ne_bytes());
                    received.to = Some(to.into());
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    // SAFETY: as above.
                    let info = unsafe { value::<in6_pktinfo>(header) };
                    received.to = Some(Ipv6Addr::from(info.ipi6_addr.s6_addr).into());
                }
                (libc::IPPROTO_IP, libc::IP_RECVERR) | (libc::IPPROTO_IPV6, libc::IPV6_RECVERR) => {
                    // SAFETY: as above.
                    received.error = Some(unsafe { value::<sock_extended_err>(header) });
                }
                _ => {}
            }
            // SAFETY: `header` is one of `message`.
            next = unsafe { libc::CMSG_NXTHDR(message, header) };
        }
        received
    }
}

/// The value behind a header.
///
/// # Safety
/// A `T` must have been written there.
unsafe fn value<T: Copy>(header: *const cmsghdr) -> T {
    // SAFETY: promised by the caller; the value need not be aligned.
    unsafe { libc::CMSG_DATA(header).cast::<T>().read_unaligned() }
}

const fn larger(one: usize, other: usize) -> usize {
    if one > other { one } else { other }
}

/// What a control message with a `T` takes.
const fn space<T>() -> usize {
    // SAFETY: computes a number.
    unsafe { libc::CMSG_SPACE(mem::size_of::<T>() as c_uint) as usize }
}
