//! Relay sockets: one for each allocation, on a port of the pool.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Instant;

use super::ports::{Parity, PortLease, PortPool, Reservation};
use super::quota::{QuotaLease, Quotas};
use super::sys::{self, Options, Socket};
use crate::stun::AddressFamily;
use crate::turn::{AllocateError, PendingAllocation, PortWish};

/// What relay sockets are.
const OPTIONS: Options = Options { reuse_port: false, packet_info: false, icmp: true };

/// Ports to try when other programs hold some of the range.
const BIND_ATTEMPTS: usize = 16;

/// A bound relay socket. The fields drop in this order: the port must be free again before the
/// pool hands it out.
#[derive(Debug)]
pub(super) struct RelaySocket {
    pub(super) socket: Socket,
    /// What peers see; behind 1:1 NAT not what the socket is bound to.
    pub(super) address: SocketAddr,
    _port: PortLease,
}

/// A relay socket between two shards.
#[derive(Debug)]
pub(super) struct Detached {
    socket: UdpSocket,
    address: SocketAddr,
    port: PortLease,
}

impl RelaySocket {
    /// Takes it out of this shard's runtime, for another one's; what arrives meanwhile waits in it.
    pub(super) fn detach(self, to: usize) -> io::Result<Detached> {
        let Self { socket, address, _port: port } = self;
        let socket = socket.detach()?;
        port.hold(to);
        Ok(Detached { socket, address, port })
    }
}

impl Detached {
    /// Into this shard's runtime.
    pub(super) fn attach(self) -> io::Result<RelaySocket> {
        let Self { socket, address, port } = self;
        Ok(RelaySocket { socket: Socket::attach(socket)?, address, _port: port })
    }
}

/// The shard that relays from `address`, if it is one of our relayed addresses.
pub(super) fn shard_of(pools: &[Arc<PortPool>], address: SocketAddr) -> Option<usize> {
    pools.iter().find(|pool| pool.advertised() == address.ip())?.holder(address.port())
}

/// Where we listen for the connections of peers to `address`, if it is one of our relayed addresses
/// that they may connect to. Few NATs lead back what leaves for their own external address.
pub(super) fn tcp_inside(pools: &[Arc<PortPool>], address: SocketAddr) -> Option<SocketAddr> {
    let port = address.port();
    let pool = pools.iter().find(|pool| pool.advertised() == address.ip())?;
    pool.speaks_tcp(port).then(|| SocketAddr::new(pool.address(), port))
}

/// What the client is told of a peer that connects from `address`: that it is one of our relayed
/// addresses, where it is.
pub(super) fn tcp_outside(pools: &[Arc<PortPool>], address: SocketAddr) -> SocketAddr {
    let port = address.port();
    let pool = pools.iter().find(|pool| pool.address() == address.ip());
    let pool = pool.filter(|pool| pool.speaks_tcp(port));
    pool.map_or(address, |pool| SocketAddr::new(pool.advertised(), port))
}

/// What a new allocation holds outside of the core.
pub(super) struct Obtained {
    pub(super) relay: RelaySocket,
    pub(super) quota: QuotaLease,
    /// Of the other family, for a dual allocation.
    pub(super) also: Option<(RelaySocket, QuotaLease)>,
    /// Of the next port, where it was asked for.
    pub(super) reservation: Option<Reservation>,
}

/// Why it could not be had.
#[derive(Debug)]
pub(super) enum Failure {
    /// The client asks for more than there is for it.
    Refused(AllocateError),
    /// There is no socket for anybody.
    Socket(io::Error),
}

impl From<AllocateError> for Failure {
    fn from(error: AllocateError) -> Self {
        Self::Refused(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Socket(error)
    }
}

impl From<Failure> for AllocateError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused(error) => error,
            Failure::Socket(_) => Self::NoCapacity,
        }
    }
}

/// Obtains what `pending` asks for, for `shard`.
pub(super) fn obtain(
    pools: &[Arc<PortPool>],
    quotas: &Arc<Quotas>,
    pending: &PendingAllocation,
    shard: usize,
    now: Instant,
) -> Result<Obtained, Failure> {
    let account = pending.account();
    // What nobody has claimed must not count against anybody.
    pools.iter().for_each(|pool| pool.expire(now));
    if let PortWish::Reserved(token) = pending.port() {
        let claimed = pools.iter().find_map(|pool| pool.claim(token, account, now));
        let (port, quota) = claimed.ok_or(AllocateError::NoCapacity)?;
        let relay = RelaySocket::bind(port, shard).map_err(|(error, _)| error)?;
        return Ok(Obtained { relay, quota, also: None, reservation: None });
    }
    if pending.port() == PortWish::Pair {
        let (quota, next_quota) = (quotas.take(account)?, quotas.take(account)?);
        let pool = pool_of(pools, pending.family())?;
        let (relay, next) = bind_pair(pool, shard, now)?;
        let reservation = Some(pool.reserve(next, next_quota, now));
        return Ok(Obtained { relay, quota, also: None, reservation });
    }
    let parity = if pending.port() == PortWish::Even { Parity::Even } else { Parity::Any };
    let one = |family| -> Result<(RelaySocket, QuotaLease), Failure> {
        let quota = quotas.take(account)?;
        Ok((bind(pools, family, parity, shard, now)?, quota))
    };
    let first = one(pending.family());
    let second = pending.additional_family().and_then(|family| one(family).ok());
    let ((relay, quota), also) = match (first, second) {
        (Ok(first), second) => (first, second),
        (Err(_), Some(second)) => (second, None),
        (Err(failure), None) => return Err(failure),
    };
    Ok(Obtained { relay, quota, also, reservation: None })
}

fn pool_of(pools: &[Arc<PortPool>], family: AddressFamily) -> io::Result<&Arc<PortPool>> {
    let found = pools.iter().find(|pool| AddressFamily::of(pool.address()) == family);
    found.ok_or(io::ErrorKind::AddrNotAvailable.into())
}

/// Binds a socket to a random port, of this parity, of the pool for this family.
fn bind(
    pools: &[Arc<PortPool>],
    family: AddressFamily,
    parity: Parity,
    shard: usize,
    now: Instant,
) -> io::Result<RelaySocket> {
    let open = |address| Socket::bind(address, OPTIONS);
    let (socket, port) = take_port(pools, family, parity, now, open)?;
    port.hold(shard);
    Ok(RelaySocket { socket, address: port.advertised(), _port: port })
}

/// A random port, of this parity, of the pool for this family, and what `open` makes of it.
pub(super) fn take_port<S>(
    pools: &[Arc<PortPool>],
    family: AddressFamily,
    parity: Parity,
    now: Instant,
    open: impl Fn(SocketAddr) -> io::Result<S>,
) -> io::Result<(S, PortLease)> {
    let pool = pool_of(pools, family)?;
    // Failed ports stay taken until a good one is found, so that none is tried twice.
    let mut occupied = Vec::new();
    for _ in 0..BIND_ATTEMPTS {
        let port = pool.take(parity, now).ok_or(io::ErrorKind::AddrNotAvailable)?;
        match open(port.address()) {
            Ok(socket) => return Ok((socket, port)),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => occupied.push(port),
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::AddrInUse.into())
}

/// Binds a socket to an even port, and finds the next one free as well.
fn bind_pair(
    pool: &Arc<PortPool>,
    shard: usize,
    now: Instant,
) -> io::Result<(RelaySocket, PortLease)> {
    let mut occupied = Vec::new();
    for _ in 0..BIND_ATTEMPTS {
        let [even, odd] = pool.take_pair(now).ok_or(io::ErrorKind::AddrNotAvailable)?;
        let bound = match sys::probe(odd.address()) {
            Ok(()) => RelaySocket::bind(even, shard),
            Err(error) => Err((error, even)),
        };
        match bound {
            Ok(relay) => return Ok((relay, odd)),
            Err((error, even)) if error.kind() == io::ErrorKind::AddrInUse => {
                occupied.push([even, odd]);
            }
            Err((error, _)) => return Err(error),
        }
    }
    Err(io::ErrorKind::AddrInUse.into())
}

impl RelaySocket {
    /// Binds the socket of `shard` to `port`, or gives it back.
    fn bind(port: PortLease, shard: usize) -> Result<Self, (io::Error, PortLease)> {
        match Socket::bind(port.address(), OPTIONS) {
            Ok(socket) => {
                port.hold(shard);
                let address = port.advertised();
                Ok(Self { socket, address, _port: port })
            }
            Err(error) => Err((error, port)),
        }
    }
}
