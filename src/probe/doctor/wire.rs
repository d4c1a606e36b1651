//! The four ways to a server, as one.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpStream, UdpSocket};
use tokio_rustls::client::TlsStream;

use super::dtls::Dtls;
use crate::probe::resolve::wildcard;
use crate::probe::stream::Framed;

const DATAGRAM_BYTES: usize = 65_535;

/// A way to a server.
#[derive(Debug)]
pub(super) enum Wire {
    /// A connected socket: so that the host's "nobody listens here" is heard.
    Udp(UdpSocket),
    Tcp(Box<Framed<TcpStream>>),
    Tls(Box<Framed<TlsStream<TcpStream>>>),
    Dtls(Box<Dtls>),
}

impl Wire {
    /// A socket of its own.
    pub(super) async fn udp(server: SocketAddr) -> io::Result<Self> {
        let socket = UdpSocket::bind(wildcard(server)).await?;
        socket.connect(server).await?;
        Ok(Self::Udp(socket))
    }

    pub(super) fn tcp(stream: TcpStream) -> Self {
        Self::Tcp(Box::new(Framed::new(stream)))
    }

    pub(super) fn tls(stream: TlsStream<TcpStream>) -> Self {
        Self::Tls(Box::new(Framed::new(stream)))
    }

    pub(super) fn dtls(session: Dtls) -> Self {
        Self::Dtls(Box::new(session))
    }

    /// Whether messages may be lost, so that requests are sent more than once.
    pub(super) fn loses(&self) -> bool {
        matches!(self, Self::Udp(_) | Self::Dtls(_))
    }

    pub(super) async fn send(&mut self, message: &[u8]) -> io::Result<()> {
        match self {
            Self::Udp(socket) => socket.send(message).await.map(|_| ()),
            Self::Tcp(stream) => stream.send(message).await,
            Self::Tls(stream) => stream.send(message).await,
            Self::Dtls(session) => session.send(message).await,
        }
    }

    /// The next message. May be given up at any time.
    pub(super) async fn recv(&mut self) -> io::Result<Vec<u8>> {
        match self {
            Self::Udp(socket) => {
                let mut buffer = vec![0; DATAGRAM_BYTES];
                let length = socket.recv(&mut buffer).await?;
                buffer.truncate(length);
                Ok(buffer)
            }
            Self::Tcp(stream) => stream.recv().await,
            Self::Tls(stream) => stream.recv().await,
            Self::Dtls(session) => session.recv().await,
        }
    }
}
