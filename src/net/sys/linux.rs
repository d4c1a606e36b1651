//! Linux: batches through `recvmmsg` and `sendmmsg`, trains of datagrams through GRO and GSO.

use std::cell::Cell;
use std::io;
use std::mem;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, RawFd};
use std::ptr;

use libc::c_int;
use socket2::SockAddr;

use super::batch::RecvBatch;
use super::outgoing::Outgoing;
use super::{ICMP_ERRORS_MAX, IcmpError, Options, error};
use crate::turn::stats::DropReason;

mod affinity;
mod awaited;
mod cmsg;
mod descriptors;
mod icmp;
mod interfaces;
mod name;
mod receive;
mod send;
mod watcher;

pub use affinity::{pin, sleep_precisely};
pub use awaited::AwaitedSocket;
pub use descriptors::{descriptor_limit, raise_descriptor_limit};
pub use interfaces::interface_addresses;
pub(in crate::net::sys) use receive::ReceiveHeaders;
pub(in crate::net) use send::SendScratch;
use send::{Form, Messages};
pub use watcher::Watcher;

/// Runs handed to one `sendmmsg`: enough to make the call cheap, and few to load again when one
/// of them must be split.
const SEND_RUNS: usize = 64;

/// Each socket has a mode for it.
pub const SETS_DONT_FRAGMENT: bool = true;

/// A bound UDP socket.
#[derive(Debug)]
pub struct Socket {
    socket: UdpSocket,
    is_ipv4: bool,
    /// Whether it is to keep ICMP errors, which only what it has sent can cause.
    icmp: bool,
    /// Whether what it sends has the DF bit set; settled with the first datagram, as many a relay
    /// socket never sends any.
    dont_fragment: Cell<Option<bool>>,
    /// Whether runs leave in one piece; off for good once kernel or device have refused.
    segmentation: Cell<bool>,
}

impl Socket {
    /// Binds `address`.
    pub fn bind(address: SocketAddr, options: Options) -> io::Result<Self> {
        let socket = super::open(address)?;
        if options.reuse_port {
            super::prepare_listener(&socket)?;
        }
        let fd = socket.as_raw_fd();
        if options.packet_info && address.is_ipv4() {
            set(fd, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)?;
        }
        if options.packet_info && address.is_ipv6() {
            set(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)?;
        }
        if options.traffic_class && address.is_ipv4() {
            set(fd, libc::IPPROTO_IP, libc::IP_RECVTOS, 1)?;
        }
        if options.traffic_class && address.is_ipv6() {
            set(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS, 1)?;
        }
        // GSO came to Linux before GRO did: a kernel that refuses GRO is taken to have neither,
        // as one without GSO would send a whole run as a single datagram.
        let segmentation = set(fd, libc::SOL_UDP, libc::UDP_GRO, 1).is_ok();
        socket.bind(&SockAddr::from(address))?;
        Ok(Self {
            socket: socket.into(),
            is_ipv4: address.is_ipv4(),
            icmp: options.icmp,
            dont_fragment: Cell::new(None),
            segmentation: Cell::new(segmentation),
        })
    }

    /// Makes it one that another thread may have, once no [`Watcher`] watches it.
    pub fn detach(self) -> io::Result<UdpSocket> {
        // Whoever attaches it takes that for granted.
        self.set_dont_fragment(false)?;
        Ok(self.socket)
    }

    /// The socket that was detached.
    pub fn attach(socket: UdpSocket) -> io::Result<Self> {
        // What was found out about GRO and GSO is found out again.
        let segmentation = set(socket.as_raw_fd(), libc::SOL_UDP, libc::UDP_GRO, 1).is_ok();
        Ok(Self {
            is_ipv4: socket.local_addr()?.is_ipv4(),
            socket,
            // Whether or not, the kernel has been told.
            icmp: false,
            dont_fragment: Cell::new(Some(false)),
            segmentation: Cell::new(segmentation),
        })
    }

    /// The address it is bound to.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Puts ICMP errors that have arrived into `errors`, and clears it before. To be called before
    /// [`Socket::recv`], which they might keep from receiving. Tells whether there may be more.
    pub(in crate::net) fn recv_icmp(&self, errors: &mut Vec<IcmpError>) -> bool {
        errors.clear();
        for _ in 0..ICMP_ERRORS_MAX {
            let Ok(next) = icmp::next_error(self.socket.as_raw_fd()) else { return false };
            errors.extend(next);
        }
        true
    }

    /// Adds to `batch` what has arrived, as far as there is room, and tells whether there may be
    /// more.
    ///
    /// An error means that the socket is lost; errors that pass never come out of here.
    pub fn recv(&self, batch: &mut RecvBatch) -> io::Result<bool> {
        let room = batch.room();
        // A short count means that recvmmsg met an empty queue, or an error that came during the
        // call. That error, and whatever arrives after, is told by the watcher.
        match receive::receive(self.socket.as_raw_fd(), batch) {
            Ok(messages) => Ok(messages == room),
            Err(error) if error::ends_receiving(&error) => Err(error),
            Err(_) => Ok(true),
        }
    }

    /// Sends `outgoing`, all of it with the DF bit or without, and tells the reason for each datagram that could not leave.
    pub(in crate::net) fn send<K>(
        &self,
        outgoing: &Outgoing<'_, K>,
        scratch: &mut SendScratch,
        dropped: &mut impl FnMut(DropReason),
    ) {
        let whole = outgoing.runs.first().is_some_and(|run| run.route.dont_fragment);
        if self.set_dont_fragment(whole).is_err() {
            let all = outgoing.runs.iter().map(|run| run.datagrams).sum();
            return (0..all).for_each(|_| dropped(DropReason::SendFailed));
        }
        for mut runs in outgoing.runs.chunks(SEND_RUNS) {
            while !runs.is_empty() {
                let form = if self.segmentation.get() { Form::Runs } else { Form::Datagrams };
                let messages = scratch.load(outgoing, runs, form);
                let Some(refused) = self.transmit(messages, dropped) else { break };
                // Only a run of several is refused, so each message was a run.
                let messages = scratch.load(outgoing, &runs[refused..=refused], Form::Datagrams);
                self.transmit(messages, dropped);
                runs = &runs[refused + 1..];
            }
        }
    }

    /// Sets the DF bit on what follows, or not: a relay does not know its clients' paths, and lets
    /// what it passes on be fragmented. With the bit, it does not look at what the kernel believes of
    /// the path: whoever asks for it wants to find out.
    fn set_dont_fragment(&self, whole: bool) -> io::Result<()> {
        let before = self.dont_fragment.get();
        if before == Some(whole) {
            return Ok(());
        }
        let fd = self.socket.as_raw_fd();
        if before.is_none() && self.icmp {
            icmp::keep_errors(fd, self.is_ipv4)?;
        }
        if self.is_ipv4 {
            let mode = if whole { libc::IP_PMTUDISC_PROBE } else { libc::IP_PMTUDISC_DONT };
            set(fd, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, mode)?;
        } else {
            let mode = if whole { libc::IPV6_PMTUDISC_PROBE } else { libc::IPV6_PMTUDISC_DONT };
            set(fd, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, mode)?;
        }
        self.dont_fragment.set(Some(whole));
        Ok(())
    }

    /// Sends in order. Stops at a run that must be split, and tells which one it is.
    fn transmit(
        &self,
        mut messages: Messages<'_>,
        dropped: &mut impl FnMut(DropReason),
    ) -> Option<usize> {
        let fd = self.socket.as_raw_fd();
        let mut at = 0;
        let mut attempts = error::ATTEMPTS;
        while at < messages.len() {
            let error = match messages.send(fd, at) {
                Ok(sent) => {
                    at += sent;
                    attempts = error::ATTEMPTS;
                    continue;
                }
                Err(error) => error,
            };
            attempts -= 1;
            if attempts > 0 && error::is_about_another(&error) {
                continue;
            }
            // One more attempt tells whether it is about this datagram.
            if attempts == error::ATTEMPTS - 1 && icmp::may_have_left(&error) {
                continue;
            }
            if error.kind() == io::ErrorKind::WouldBlock {
                let rest = (at..messages.len()).map(|at| messages.datagrams(at)).sum();
                (0..rest).for_each(|_| dropped(DropReason::SendBufferFull));
                return None;
            }
            if messages.datagrams(at) > 1 && self.refuses_segmentation(&error) {
                return Some(at);
            }
            (0..messages.datagrams(at)).for_each(|_| dropped(error::drop_reason(&error)));
            at += 1;
            attempts = error::ATTEMPTS;
        }
        None
    }

    /// Whether a run failed because it is one: its total or its segments are too large for this
    /// way (once), or the device cannot compute checksums (for good).
    fn refuses_segmentation(&self, error: &io::Error) -> bool {
        if error.raw_os_error() == Some(libc::EIO) {
            self.segmentation.set(false);
        }
        matches!(error.raw_os_error(), Some(libc::EIO | libc::EINVAL | libc::EMSGSIZE))
    }
}

#[cfg(test)]
impl Socket {
    /// What the kernel says that it does.
    pub(in crate::net) fn sets_dont_fragment(&self) -> bool {
        let (mut value, mut size) = (0 as c_int, mem::size_of::<c_int>() as libc::socklen_t);
        let (level, option) = (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER);
        let (fd, at) = (self.socket.as_raw_fd(), (&raw mut value).cast());
        // SAFETY: the kernel writes `size` bytes at most to `value`, and their number to `size`.
        let failed = unsafe { libc::getsockopt(fd, level, option, at, &raw mut size) };
        assert_eq!(failed, 0);
        value == libc::IP_PMTUDISC_PROBE
    }
}

/// Sets a socket option that is a number.
fn set(fd: RawFd, level: c_int, option: c_int, value: c_int) -> io::Result<()> {
    let size = mem::size_of_val(&value) as libc::socklen_t;
    // SAFETY: the kernel reads `size` bytes of `value`, which lives until the call returns.
    match unsafe { libc::setsockopt(fd, level, option, ptr::from_ref(&value).cast(), size) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
