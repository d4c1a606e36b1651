//! What applies to TCP: whether one local port is one and the same to every server, RFC 5382 §4.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::discovery::{Facts, can_be_other};
use super::verdict::{Mapping, Unknown};
use crate::probe::message::{Answer, Request};
use crate::probe::stream::Framed;

/// What TCP showed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Tcp {
    /// The local address.
    pub local: SocketAddr,
    /// What it is to the server.
    pub mapped: SocketAddr,
    /// The mapping.
    pub mapping: Result<Mapping, Unknown>,
}

/// Asks the server, and its other address where it has one, from one local port.
///
/// # Errors
/// One line that says why the server cannot be asked over TCP.
pub(super) async fn examine(facts: &Facts, limit: Duration) -> Result<Tcp, String> {
    let server = facts.server;
    let start = SocketAddr::new(facts.locals[0].ip(), 0);
    // Held open: a NAT forgets the mapping of a connection that has ended.
    let first = ask(start, server, limit).await?;
    let (local, mapped) = (first.local, first.mapped);
    let is_other = |other: &SocketAddr| can_be_other(*other, server);
    let mapping = match facts.other().or_else(|| first.other.filter(is_other)) {
        _ if mapped == local => Ok(Mapping::EndpointIndependent),
        None => Err(Unknown::NoSecondAddress),
        Some(other) => {
            let other_address = SocketAddr::new(other.ip(), server.port());
            match ask(local, other_address, limit).await {
                Err(_) => Err(Unknown::SilentSecondAddress(other)),
                Ok(second) => {
                    let third = ask(local, other, limit).await.ok().map(|third| third.mapped);
                    Ok(Mapping::of(mapped, second.mapped, third))
                }
            }
        }
    };
    Ok(Tcp { local, mapped, mapping })
}

/// An answer, and the connection it came by.
struct Asked {
    _open: Framed<TcpStream>,
    local: SocketAddr,
    mapped: SocketAddr,
    other: Option<SocketAddr>,
}

async fn ask(local: SocketAddr, server: SocketAddr, limit: Duration) -> Result<Asked, String> {
    let asked = timeout(limit, exchange(local, server)).await;
    let asked = asked.map_err(|_| format!("no answer from {server} within {limit:?}"))?;
    asked.map_err(|error| format!("{server}: {error}"))
}

async fn exchange(local: SocketAddr, server: SocketAddr) -> io::Result<Asked> {
    let socket = if local.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    #[cfg(unix)]
    socket.set_reuseport(true)?;
    socket.bind(local)?;
    let stream = socket.connect(server).await?;
    let local = stream.local_addr()?;
    let mut framed = Framed::new(stream);
    let id = rand::random();
    framed.send(&Request::binding(id).bytes()).await?;
    loop {
        let bytes = framed.recv().await?;
        let Some(answer) = Answer::parse(&bytes).filter(|answer| answer.id() == id) else {
            continue;
        };
        let Some(mapped) = answer.mapped() else {
            return Err(io::Error::other("an answer without a mapped address"));
        };
        return Ok(Asked { _open: framed, local, mapped, other: answer.other() });
    }
}
