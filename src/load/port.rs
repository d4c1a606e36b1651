//! A client's way to its server: a UDP socket or a connection.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::time;

use crate::net::egress::{Egress, Route};
use crate::net::sys::{AwaitedSocket, Options, RecvBatch, Socket};
use crate::stun::Method;

use super::stamp::is_stun;
use super::stream::Stream;
use super::{Error, Target, Transport, Trust};

/// Until a request is sent again over UDP, and after the last time given up: half a second, then
/// twice as long each time (RFC 8489 §6.2.1), but never so long that a lost one spoils a load.
const RETRANSMIT_AFTER: [Duration; 5] = [
    Duration::from_millis(500),
    Duration::from_millis(1000),
    Duration::from_millis(2000),
    Duration::from_millis(4000),
    Duration::from_millis(4000),
];
/// Until a request over a connection is given up, and the connection itself.
const ANSWER_WITHIN: Duration = Duration::from_secs(12);

/// One end of a client's five-tuple.
pub(super) enum Port {
    /// Not connected: the server's address goes with each packet.
    Udp(AwaitedSocket),
    /// TCP or TLS.
    Stream(Box<Stream>),
}

impl Port {
    /// A new one, from `local` where it says so.
    pub(super) async fn open(
        target: &Target,
        local: Option<SocketAddr>,
        trust: Option<&Trust>,
    ) -> Result<Self, Error> {
        match target.transport {
            Transport::Udp => {
                let any = SocketAddr::new(unspecified(target.address), 0);
                let socket = Socket::bind(local.unwrap_or(any), Options::default())
                    .and_then(AwaitedSocket::new)
                    .map_err(|error| Error::Local { what: "UDP socket", error })?;
                Ok(Self::Udp(socket))
            }
            Transport::Tcp | Transport::Tls => {
                let connect = time::timeout(ANSWER_WITHIN, Stream::connect(target, local, trust));
                let connected = connect.await.map_err(|_| Error::Unreachable {
                    address: target.address,
                    over: target.transport.name(),
                    error: io::ErrorKind::TimedOut.into(),
                })??;
                Ok(Self::Stream(Box::new(connected)))
            }
        }
    }

    /// Sends a request until its response arrives; other messages are passed over.
    pub(super) async fn exchange(
        &self,
        server: SocketAddr,
        method: Method,
        request: &[u8],
        batch: &RefCell<RecvBatch>,
    ) -> Result<Vec<u8>, Error> {
        let waits = match self {
            Self::Udp(_) => &RETRANSMIT_AFTER[..],
            Self::Stream(_) => &[ANSWER_WITHIN],
        };
        let stranger = Cell::new(false);
        for wait in waits {
            self.send(server, request)?;
            if let Ok(answer) = time::timeout(*wait, self.answer(request, batch, &stranger)).await {
                return answer.map_err(|error| closed(&error, server));
            }
        }
        if stranger.get() {
            return Err(Error::NotStun { address: server });
        }
        Err(Error::NoAnswer { address: server, method })
    }

    fn send(&self, server: SocketAddr, request: &[u8]) -> Result<(), Error> {
        match self {
            Self::Udp(socket) => {
                let mut egress = Egress::new();
                egress.push_owned(
                    Route {
                        socket: (),
                        to: server,
                        from: None,
                        dont_fragment: false,
                        traffic_class: 0,
                    },
                    request,
                );
                // One that does not leave is sent again.
                egress.flush(&[], |()| Some(socket), |_| ());
            }
            Self::Stream(stream) => {
                stream.queue(request, &[], 0);
                stream.flush().map_err(|error| closed(&error, server))?;
            }
        }
        Ok(())
    }

    async fn answer(
        &self,
        request: &[u8],
        batch: &RefCell<RecvBatch>,
        stranger: &Cell<bool>,
    ) -> io::Result<Vec<u8>> {
        let found = Cell::new(None);
        let look = |message: &[u8]| {
            stranger.set(stranger.get() || !is_of_a_server(message));
            if message.get(4..20) == request.get(4..20) {
                found.set(Some(message.to_vec()));
            }
        };
        loop {
            match self {
                Self::Udp(socket) => {
                    socket.readable().await?;
                    let mut batch = batch.borrow_mut();
                    socket.recv(&mut batch)?;
                    let bytes = batch.bytes();
                    batch.datagrams().iter().for_each(|datagram| look(&bytes[datagram.range()]));
                }
                Self::Stream(stream) => {
                    stream.readable().await?;
                    stream.read()?;
                    stream.messages(look)?;
                }
            }
            if let Some(found) = found.take() {
                return Ok(found);
            }
        }
    }
}

/// What the end of a connection says about the server: TCP has no other way to say that it does
/// not understand.
fn closed(error: &io::Error, address: SocketAddr) -> Error {
    match error.kind() {
        io::ErrorKind::InvalidData => Error::NotStun { address },
        _ => Error::Closed,
    }
}

fn is_of_a_server(message: &[u8]) -> bool {
    is_stun(message) || message.first().is_some_and(|first| first >> 6 == 1)
}

/// The wildcard of an address's family.
fn unspecified(address: SocketAddr) -> IpAddr {
    match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}
