//! A connection that turned out to speak HTTP, on its way to whoever serves that.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustls::ServerConnection;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::connection::Parts;
use super::count::{Counted, Refusal};
use super::tls::Kernel;

/// Connections that may wait to be taken; more are closed.
pub const HANDOVERS_MAX: usize = 64;

/// The connection with all that is known of it, tied to no runtime.
pub struct Handover {
    client: SocketAddr,
    tcp: std::net::TcpStream,
    tls: Option<Box<ServerConnection>>,
    read: Vec<u8>,
    counted: Counted,
}

impl Handover {
    pub(super) fn new(parts: Parts, counted: Counted) -> io::Result<Self> {
        let Parts { tcp, client, tls, read } = parts;
        Ok(Self { client, tcp: tcp.into_std()?, tls, read, counted })
    }

    /// Whose it is.
    #[must_use]
    pub fn client(&self) -> SocketAddr {
        self.client
    }

    /// Closes the connection: its source has as many that speak HTTP as one may have.
    pub fn refuse(self) {
        self.counted.refuse(Refusal::LimitHttpSource);
    }

    /// Takes the connection into the runtime that this is called in. Returns the client's address,
    /// and what it sends, from its first byte on and without TLS.
    ///
    /// # Errors
    /// When the runtime does not take it.
    pub fn open(self) -> io::Result<(SocketAddr, HttpStream)> {
        let Self { client, tcp, tls, read, counted } = self;
        let tcp = TcpStream::from_std(tcp)?;
        Ok((client, HttpStream { tcp, tls, read, _counted: counted }))
    }
}

impl fmt::Debug for Handover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handover").field("client", &self.client).finish_non_exhaustive()
    }
}

/// A stream of HTTP. As long as it lives, its client has one connection less to open.
pub struct HttpStream {
    tcp: TcpStream,
    /// After its handshake.
    tls: Option<Box<ServerConnection>>,
    /// What was read already, to tell what the connection speaks.
    read: Vec<u8>,
    _counted: Counted,
}

impl fmt::Debug for HttpStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpStream").field("tcp", &self.tcp).finish_non_exhaustive()
    }
}

impl HttpStream {
    /// Whether it comes through TLS.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        self.tls.is_some()
    }

    /// Sends the ciphertext there is.
    fn poll_drain(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { tcp, tls: Some(tls), .. } = self else { return Poll::Ready(Ok(())) };
        while tls.wants_write() {
            match tls.write_tls(&mut Kernel(tcp)) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(tcp.poll_write_ready(context))?;
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for HttpStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // What the session has to say by itself must not wait for the next response.
        let _ = self.poll_drain(context)?;
        let Self { tcp, tls, read, .. } = &mut *self;
        if !read.is_empty() {
            let length = read.len().min(buffer.remaining());
            buffer.put_slice(&read[..length]);
            read.drain(..length);
            return Poll::Ready(Ok(()));
        }
        let Some(tls) = tls else { return Pin::new(tcp).poll_read(context, buffer) };
        loop {
            match tls.reader().read(buffer.initialize_unfilled()) {
                Ok(length) => {
                    buffer.advance(length);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
            ready!(tcp.poll_read_ready(context))?;
            match tls.read_tls(&mut Kernel(tcp)) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Poll::Ready(Err(error)),
            }
            if let Err(error) = tls.process_new_packets() {
                // The alert that says what was wrong, if there is room for it.
                let _ = tls.write_tls(&mut Kernel(tcp));
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error)));
            }
        }
    }
}

impl AsyncWrite for HttpStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.tls.is_none() {
            return Pin::new(&mut self.tcp).poll_write(context, bytes);
        }
        loop {
            let Some(tls) = &mut self.tls else { return Poll::Ready(Ok(0)) };
            let taken = tls.writer().write(bytes)?;
            let drained = self.poll_drain(context)?;
            if taken > 0 || bytes.is_empty() {
                return Poll::Ready(Ok(taken));
            }
            // The session is full, and takes more once some of it has left.
            ready!(drained);
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_drain(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(tls) = &mut self.tls {
            // The session sends it once, however often it is asked to.
            tls.send_close_notify();
        }
        ready!(self.poll_drain(context))?;
        Pin::new(&mut self.tcp).poll_shutdown(context)
    }
}
