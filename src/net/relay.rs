//! Relay sockets: one for each allocation, on a port of the pool.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Instant;

use super::ports::{Parity, PortLease, PortPool};
use super::sys::{Options, Socket};
use crate::stun::AddressFamily;

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

/// Binds a socket of `shard` to a random port, of this parity, of the pool for this family.
pub(super) fn bind(
    pools: &[Arc<PortPool>],
    family: AddressFamily,
    parity: Parity,
    shard: usize,
    now: Instant,
) -> io::Result<RelaySocket> {
    let pool = pools
        .iter()
        .find(|pool| AddressFamily::of(pool.address()) == family)
        .ok_or(io::ErrorKind::AddrNotAvailable)?;
    // Failed ports stay taken until a good one is found, so that none is tried twice.
    let mut occupied = Vec::new();
    for _ in 0..BIND_ATTEMPTS {
        let port = pool.take(parity, now).ok_or(io::ErrorKind::AddrNotAvailable)?;
        match Socket::bind(port.address(), Options::default()) {
            Ok(socket) => {
                port.hold(shard);
                let address = port.advertised();
                return Ok(RelaySocket { socket, address, _port: port });
            }
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => occupied.push(port),
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::AddrInUse.into())
}
