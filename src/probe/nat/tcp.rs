//! What applies to TCP: whether one local port is one and the same to every server, RFC 5382 §4.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout_at};

use super::discovery::{Facts, can_be_other};
use super::verdict::{Mapping, Unknown};
use crate::net::clock;
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

/// Asks the server, and its other address where it has one, from one local port, all within `limit`.
///
/// # Errors
/// One line that says why the server cannot be asked over TCP.
pub(super) async fn examine(facts: &Facts, limit: Duration) -> Result<Tcp, String> {
    let start = SocketAddr::new(facts.locals[0].ip(), 0);
    ask_all(start, facts.server, facts.other(), limit).await
}

async fn ask_all(
    start: SocketAddr,
    server: SocketAddr,
    other: Option<SocketAddr>,
    limit: Duration,
) -> Result<Tcp, String> {
    let until = Instant::from_std(clock::now().instant) + limit;
    // Held open: a NAT forgets the mapping of a connection that has ended.
    let first = ask(start, server, until).await;
    let first = first.map_err(|error| match error.kind() {
        ErrorKind::TimedOut => format!("no answer from {server} within {limit:?}"),
        _ => format!("{server}: {error}"),
    })?;
    let (local, mapped) = (first.local, first.mapped);
    let is_other = |other: &SocketAddr| can_be_other(*other, server);
    let mapping = match other.or_else(|| first.other.filter(is_other)) {
        _ if mapped == local => Ok(Mapping::EndpointIndependent),
        None => Err(Unknown::NoSecondAddress),
        Some(other) => {
            let other_address = SocketAddr::new(other.ip(), server.port());
            match ask(local, other_address, until).await {
                Err(_) => Err(Unknown::SilentSecondAddress(other)),
                Ok(second) => {
                    let third = ask(local, other, until).await.ok().map(|third| third.mapped);
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

async fn ask(local: SocketAddr, server: SocketAddr, until: Instant) -> io::Result<Asked> {
    let asked = timeout_at(until, exchange(local, server)).await;
    asked.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()))
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

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;
    use tokio::time::sleep;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    /// A Binding response that shows the client as 192.0.2.9:4660.
    fn response(request: &[u8]) -> Vec<u8> {
        let mut response = vec![1, 1, 0, 12];
        response.extend(&request[4..20]);
        response.extend([0, 0x20, 0, 8, 0, 1, 0x12 ^ 0x21, 0x34 ^ 0x12]);
        response.extend([192 ^ 0x21, 0x12, 2 ^ 0xA4, 9 ^ 0x42]);
        response
    }

    /// In virtual time: a server that is slow, and an other address of it that says nothing.
    #[tokio::test(start_paused = true)]
    async fn all_questions_together_take_no_longer_than_the_limit() {
        let slow = TcpListener::bind("127.0.77.1:0").await.unwrap();
        let server = slow.local_addr().unwrap();
        let silent = TcpListener::bind(("127.0.77.2", server.port())).await.unwrap();
        let other = SocketAddr::new(silent.local_addr().unwrap().ip(), server.port() ^ 1);
        tokio::spawn(async move {
            let (stream, _) = slow.accept().await.unwrap();
            let mut framed = Framed::new(stream);
            let request = framed.recv().await.unwrap();
            sleep(LIMIT * 6 / 10).await;
            framed.send(&response(&request)).await.unwrap();
            // Held open.
            sleep(LIMIT * 10).await;
        });
        let begun = Instant::now();
        let told = ask_all("127.0.0.1:0".parse().unwrap(), server, Some(other), LIMIT).await;
        assert_eq!(told.unwrap().mapping, Err(Unknown::SilentSecondAddress(other)));
        assert!(begun.elapsed() < LIMIT * 11 / 10, "{:?}", begun.elapsed());
    }
}
