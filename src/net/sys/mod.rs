//! The operating system's UDP sockets, and the only `unsafe` of the project.
//!
//! On Linux whole batches cross the kernel boundary: `recvmmsg` with GRO in, `sendmmsg` with GSO
//! out. Elsewhere, and with the feature `portable`, the same face is put on plain tokio sockets.
//! Knows nothing of STUN or TURN, and waits only for a [`Socket`] to have something to read.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use socket2::{Domain, Protocol, SockAddr, Type};

mod batch;
mod error;
#[cfg_attr(
    all(target_os = "linux", target_env = "gnu"),
    expect(unsafe_code, reason = "malloc_trim has no safe wrapper in use here")
)]
mod heap;
mod outgoing;
#[cfg(test)]
mod tests;

#[cfg(all(target_os = "linux", not(feature = "portable")))]
#[expect(
    unsafe_code,
    reason = "recvmmsg, sendmmsg, epoll, error queues, getifaddrs and rlimits have no safe wrapper in use \
              here"
)]
mod linux;
#[cfg(any(not(target_os = "linux"), feature = "portable"))]
mod portable;

#[cfg(all(target_os = "linux", not(feature = "portable")))]
use linux as platform;
#[cfg(any(not(target_os = "linux"), feature = "portable"))]
use portable as platform;

pub use batch::{Datagram, RecvBatch};
pub(super) use heap::trim;
pub use outgoing::Route;
pub(super) use outgoing::{Outgoing, Run, Segment};
pub(super) use platform::SendScratch;
pub use platform::{
    AwaitedSocket, SETS_DONT_FRAGMENT, Socket, Watcher, descriptor_limit, interface_addresses, pin,
    raise_descriptor_limit, sleep_precisely,
};

/// How a socket is bound.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Options {
    /// A listener: shares its address with those of the other shards, and asks for large buffers
    /// because all clients of its shard go through it.
    pub reuse_port: bool,
    /// Tells for each datagram which local address it was sent to ([`Datagram::to`]): for
    /// wildcard addresses, whose replies must leave from the address that was asked.
    pub packet_info: bool,
    /// Keeps the ICMP errors that its datagrams cause, for `Socket::recv_icmp`; there are none before
    /// the first of them. Without effect on the portable path.
    pub icmp: bool,
    /// Tells DSCP and ECN of each datagram ([`Datagram::traffic_class`]). Without effect on the
    /// portable path.
    pub traffic_class: bool,
}

/// A socket that may have something to read, as a [`Watcher`] names it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ready {
    /// What the watcher was told to call the socket.
    pub token: u64,
    /// There are errors as well: ICMP ones, where it keeps them.
    pub errors: bool,
}

/// An ICMP error about a datagram of a socket. Anybody may have forged it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct IcmpError {
    /// Where the datagram was sent to.
    pub peer: SocketAddr,
    /// ICMP's type if the peer's address is IPv4, else ICMPv6's.
    pub kind: u8,
    /// Its meaning depends on the type.
    pub code: u8,
    /// The next hop's MTU, where the error tells it.
    pub info: u32,
}

/// ICMP errors taken in one turn; the rest stays in the kernel until the next one. As many as make
/// the turn a full one, so that a flood of them lets other sockets have theirs.
pub(super) const ICMP_ERRORS_MAX: usize = 32;

/// An address of one of this host's interfaces.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct InterfaceAddress {
    /// The address.
    pub ip: IpAddr,
    /// The broadcast address of its subnet, where it has one.
    pub broadcast: Option<Ipv4Addr>,
}

/// Tells whether `address` is free, by binding it and letting go at once.
///
/// A listener cannot tell: `SO_REUSEPORT` silently shares the address with another process of the
/// same user, and each would get a part of the clients.
pub fn probe(address: SocketAddr) -> io::Result<()> {
    open(address)?.bind(&SockAddr::from(address))
}

/// What the kernel may hold for a listener while its shard is off the core: 30 ms of 1 Gbit/s. The
/// kernel caps it at `net.core.rmem_max`.
const LISTENER_RECEIVE_BUFFER: usize = 4 << 20;
/// What a listener may hand the interface in one wake-up: 64 GSO runs of 64 KiB. The kernel caps
/// it at `net.core.wmem_max`.
const LISTENER_SEND_BUFFER: usize = 4 << 20;

/// A non-blocking UDP socket, not yet bound. IPv6 sockets leave IPv4 alone, so that `0.0.0.0` and
/// `[::]` can be bound side by side.
fn open(address: SocketAddr) -> io::Result<socket2::Socket> {
    let kind = Type::DGRAM.nonblocking();
    let socket = socket2::Socket::new(Domain::for_address(address), kind, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

/// What every listener needs before it is bound.
fn prepare_listener(socket: &socket2::Socket) -> io::Result<()> {
    // Windows has no SO_REUSEPORT: there the second shard fails to bind and says so.
    #[cfg(unix)]
    socket.set_reuse_port(true)?;
    // Some systems refuse what exceeds their cap instead of giving the cap; their default serves.
    let _ = socket.set_recv_buffer_size(LISTENER_RECEIVE_BUFFER);
    let _ = socket.set_send_buffer_size(LISTENER_SEND_BUFFER);
    Ok(())
}
