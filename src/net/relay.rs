//! Relay sockets: one for each allocation, on a port of the pool.

use std::cmp::Reverse;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Instant;

use tracing::debug;

use super::ports::{Parity, PortLease, PortPool, Reservation};
use super::quota::{QuotaLease, Quotas};
use super::sys::{self, Options, Socket};
use crate::stun::AddressFamily;
use crate::turn::{AllocateError, PendingAllocation, PortWish};

/// What relay sockets are.
const OPTIONS: Options =
    Options { reuse_port: false, packet_info: false, icmp: true, traffic_class: true };

/// Ports to try when other programs hold some of the range.
const BIND_ATTEMPTS: usize = 16;

/// A bound relay socket, to be watched once its allocation has a name. The fields drop in this order:
/// the port must be free again before the pool hands it out.
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
        let socket = Socket::attach(socket)?;
        Ok(RelaySocket { socket, address, _port: port })
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
        let (relay, next) = bind_pair(pools, pending.family(), shard, now)?;
        let reservation = Some(next.pool().reserve(next, next_quota, now));
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

/// What `take` finds in the pool of this family that has the most free ports of this parity, so that
/// the addresses share the load; where it finds nothing there, in the next one. The error is that of
/// the first.
fn spread<T>(
    pools: &[Arc<PortPool>],
    family: AddressFamily,
    parity: Parity,
    now: Instant,
    mut take: impl FnMut(&Arc<PortPool>) -> io::Result<T>,
) -> io::Result<T> {
    let is_suited = |pool: &&Arc<PortPool>| AddressFamily::of(pool.address()) == family;
    let mut suited: Vec<_> = pools.iter().filter(is_suited).collect();
    suited.sort_by_cached_key(|pool| Reverse(pool.free(parity, now)));
    let mut failure = None;
    for pool in suited {
        match take(pool) {
            Ok(taken) => return Ok(taken),
            Err(error) => {
                debug!(address = %pool.address(), %error, "no relay socket at this address");
                failure.get_or_insert(error);
            }
        }
    }
    Err(failure.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into()))
}

/// Binds a socket to a random port, of this parity, of a pool for this family.
fn bind(
    pools: &[Arc<PortPool>],
    family: AddressFamily,
    parity: Parity,
    shard: usize,
    now: Instant,
) -> io::Result<RelaySocket> {
    let (socket, port) = take_port(pools, family, parity, now, open)?;
    port.hold(shard);
    Ok(RelaySocket { socket, address: port.advertised(), _port: port })
}

/// A random port, of this parity, of a pool for this family, and what `open` makes of it.
pub(super) fn take_port<S>(
    pools: &[Arc<PortPool>],
    family: AddressFamily,
    parity: Parity,
    now: Instant,
    open: impl Fn(SocketAddr) -> io::Result<S>,
) -> io::Result<(S, PortLease)> {
    spread(pools, family, parity, now, |pool| take_port_of(pool, parity, now, &open))
}

fn take_port_of<S>(
    pool: &Arc<PortPool>,
    parity: Parity,
    now: Instant,
    open: impl Fn(SocketAddr) -> io::Result<S>,
) -> io::Result<(S, PortLease)> {
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

/// Binds a socket to an even port, and finds the next one of the same address free as well.
fn bind_pair(
    pools: &[Arc<PortPool>],
    family: AddressFamily,
    shard: usize,
    now: Instant,
) -> io::Result<(RelaySocket, PortLease)> {
    spread(pools, family, Parity::Even, now, |pool| bind_pair_of(pool, shard, now))
}

fn bind_pair_of(
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

fn open(address: SocketAddr) -> io::Result<Socket> {
    Socket::bind(address, OPTIONS)
}

impl RelaySocket {
    /// Binds the socket of `shard` to `port`, or gives it back.
    fn bind(port: PortLease, shard: usize) -> Result<Self, (io::Error, PortLease)> {
        match open(port.address()) {
            Ok(socket) => {
                port.hold(shard);
                let address = port.advertised();
                Ok(Self { socket, address, _port: port })
            }
            Err(error) => Err((error, port)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::super::clock;
    use super::*;

    const FIRST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 4));
    const SECOND: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 5));
    const V6: IpAddr = IpAddr::V6(std::net::Ipv6Addr::LOCALHOST);

    fn pools(ports: u16) -> Vec<Arc<PortPool>> {
        let range = 50_000..=50_000 + ports - 1;
        [FIRST, V6, SECOND].map(|ip| PortPool::new(ip, range.clone(), [7; 32])).into()
    }

    fn take(
        pools: &[Arc<PortPool>],
        open: impl Fn(SocketAddr) -> io::Result<()>,
    ) -> io::Result<PortLease> {
        let now = clock::now().instant;
        let ((), port) = take_port(pools, AddressFamily::Ipv4, Parity::Any, now, open)?;
        Ok(port)
    }

    fn used(pools: &[Arc<PortPool>]) -> Vec<usize> {
        pools.iter().map(|pool| pool.counts().used).collect()
    }

    #[test]
    fn addresses_of_a_family_share_the_load_to_the_last_port() {
        let pools = pools(10);
        let mut taken = Vec::new();
        for count in 1..=20 {
            taken.push(take(&pools, |_| Ok(())).unwrap());
            let [first, other, second] = used(&pools)[..] else { unreachable!() };
            assert_eq!((first + second, other), (count, 0));
            assert!(first.abs_diff(second) <= 1, "{first} and {second}");
        }
        let full = take(&pools, |_| Ok(())).unwrap_err();
        assert_eq!(full.kind(), io::ErrorKind::AddrNotAvailable);
        // Whoever is rid of its load gets the next ones.
        taken.retain(|port| port.address().ip() == FIRST);
        for _ in 0..10 {
            taken.push(take(&pools, |_| Ok(())).unwrap());
        }
        assert_eq!(used(&pools), [10, 0, 10]);
    }

    #[test]
    fn even_ports_are_found_at_whichever_address_has_them() {
        let pools = pools(4);
        let now = clock::now().instant;
        let even = || take_port(&pools, AddressFamily::Ipv4, Parity::Even, now, |_| Ok(()));
        let taken: Vec<_> = (0..4).map(|_| even().unwrap().1).collect();
        assert!(taken.iter().all(|port| port.address().port() % 2 == 0));
        assert_eq!(used(&pools), [2, 0, 2]);
        assert!(even().is_err());
    }

    #[test]
    fn address_that_cannot_be_bound_leaves_its_clients_to_the_others() {
        for kind in [io::ErrorKind::AddrNotAvailable, io::ErrorKind::AddrInUse] {
            let pools = pools(32);
            let open = |lost: IpAddr| {
                move |address: SocketAddr| match address.ip() == lost {
                    true => Err(kind.into()),
                    false => Ok(()),
                }
            };
            for (lost, other) in [(FIRST, SECOND), (SECOND, FIRST)] {
                let taken: Vec<_> = (0..8).map(|_| take(&pools, open(lost)).unwrap()).collect();
                assert!(taken.iter().all(|port| port.address().ip() == other), "{kind:?}");
            }
            assert_eq!(used(&pools), [0; 3], "what could not be bound is given back");
        }
    }

    #[test]
    fn where_no_address_can_be_bound_the_first_failure_is_told() {
        let mut pools = pools(1);
        let _held = pools[2].take(Parity::Any, clock::now().instant).unwrap();
        let missing = take(&pools, |_| Err(io::Error::from_raw_os_error(libc::EMFILE)));
        assert_eq!(missing.unwrap_err().raw_os_error(), Some(libc::EMFILE), "not the full one");
        pools.truncate(0);
        assert_eq!(take(&pools, |_| Ok(())).unwrap_err().kind(), io::ErrorKind::AddrNotAvailable);
    }
}
