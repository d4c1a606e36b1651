//! The sockets of an allocation for TCP: one that listens on the relayed address, and one from the
//! same address for each connection to a peer (RFC 6062 §5.2).

use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::net::stream::KEEPALIVE;
use crate::turn::ConnectError;

/// Connections of peers that the kernel completes ahead of us.
const BACKLOG: i32 = 64;

/// Listens on a relayed address.
pub(super) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = open(address)?;
    socket.bind(&address.into())?;
    // Only now: while binding, a port that somebody else listens on must count as taken. From now
    // on our own sockets may join.
    #[cfg(unix)]
    socket.set_reuse_port(true)?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// A socket that connects from a relayed address that we listen on.
pub(super) fn outgoing(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = open(address)?;
    #[cfg(unix)]
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    Ok(TcpSocket::from_std_stream(socket.into()))
}

/// What every connection with a peer needs.
pub(super) fn prepare(peer: &TcpStream) -> io::Result<()> {
    peer.set_nodelay(true)?;
    SockRef::from(peer).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))
}

/// What a client learns of a socket that could not be had.
pub(super) fn connect_error(error: &io::Error) -> ConnectError {
    const OUT_OF_SOMETHING: [i32; 4] = [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::ENOBUFS];
    match error.raw_os_error() {
        Some(code) if OUT_OF_SOMETHING.contains(&code) => ConnectError::NoCapacity,
        _ => ConnectError::Failed,
    }
}

fn open(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    // The connections of the port's last owner may not be quite over.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}
