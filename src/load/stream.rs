//! A client's connection over TCP or TLS: messages in, messages out, both buffered and bounded.

use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::net::SocketAddr;

use rustls::ClientConnection;
use rustls::pki_types::ServerName;
use socket2::{Domain, Protocol, SockAddr, Type};
use tokio::net::{TcpSocket, TcpStream};

use crate::stun::channel::ChannelRange;
use crate::stun::framing;

use super::{Error, Target, Transport, Trust};

/// Bytes that wait for the kernel; a packet that finds as many counts as not sent.
const OUTGOING_MAX: usize = 1 << 20;
/// How much is read at once: more than the largest message.
const READ_LEN: usize = 128 * 1024;

/// A connection.
pub(super) struct Stream {
    tcp: TcpStream,
    state: RefCell<State>,
}

struct State {
    tls: Option<Box<ClientConnection>>,
    /// Plaintext that is not yet encrypted.
    plaintext: Vec<u8>,
    /// What the kernel has not taken yet.
    outgoing: Vec<u8>,
    /// What has been read; messages begin at `read`.
    incoming: Vec<u8>,
    read: usize,
}

impl Stream {
    /// Connects, and shakes hands where it is TLS.
    pub(super) async fn connect(
        target: &Target,
        local: Option<SocketAddr>,
        trust: Option<&Trust>,
    ) -> Result<Self, Error> {
        let address = target.address;
        let unreachable = |error| Error::Unreachable { address, over: "TCP", error };
        let socket =
            socket(address, local).map_err(|error| Error::Local { what: "TCP socket", error })?;
        let tcp = socket.connect(address).await.map_err(unreachable)?;
        tcp.set_nodelay(true).map_err(unreachable)?;
        let tls = match target.transport {
            Transport::Tls => Some(session(target, trust.ok_or(Error::NoRoots)?)?),
            Transport::Tcp | Transport::Udp => None,
        };
        let state = State {
            tls,
            plaintext: Vec::new(),
            outgoing: Vec::new(),
            incoming: Vec::new(),
            read: 0,
        };
        let stream = Self { tcp, state: RefCell::new(state) };
        stream.shake_hands().await.map_err(|error| Error::Tls { address, error })?;
        Ok(stream)
    }

    async fn shake_hands(&self) -> io::Result<()> {
        loop {
            self.flush()?;
            if !self.is_shaking_hands() {
                return Ok(());
            }
            self.readable().await?;
            self.read()?;
        }
    }

    fn is_shaking_hands(&self) -> bool {
        self.state.borrow().tls.as_ref().is_some_and(|tls| tls.is_handshaking())
    }

    /// Waits until [`Stream::read`] may find something.
    pub(super) async fn readable(&self) -> io::Result<()> {
        self.tcp.readable().await
    }

    /// Adds a message of three pieces, the last one zeros; false if there is no room.
    pub(super) fn queue(&self, head: &[u8], filler: &[u8], padding: usize) -> bool {
        let state = &mut *self.state.borrow_mut();
        if state.outgoing.len() + state.plaintext.len() > OUTGOING_MAX {
            return false;
        }
        let queue = if state.tls.is_some() { &mut state.plaintext } else { &mut state.outgoing };
        queue.extend_from_slice(head);
        queue.extend_from_slice(filler);
        queue.extend(std::iter::repeat_n(0, padding));
        true
    }

    /// Hands the kernel what it takes; tells whether that is all.
    pub(super) fn flush(&self) -> io::Result<bool> {
        let state = &mut *self.state.borrow_mut();
        if let Some(tls) = &mut state.tls {
            tls.writer().write_all(&state.plaintext)?;
            state.plaintext.clear();
            while tls.wants_write() {
                tls.write_tls(&mut state.outgoing)?;
            }
        }
        while !state.outgoing.is_empty() {
            match self.tcp.try_write(&state.outgoing) {
                Ok(written) => drop(state.outgoing.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Reads what has arrived, which may be nothing; the end is an error.
    pub(super) fn read(&self) -> io::Result<()> {
        let state = &mut *self.state.borrow_mut();
        state.incoming.drain(..state.read);
        state.read = 0;
        let mut buffer = [0; READ_LEN];
        let length = match self.tcp.try_read(&mut buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        let Some(tls) = &mut state.tls else {
            state.incoming.extend_from_slice(&buffer[..length]);
            return Ok(());
        };
        let mut ciphertext = &buffer[..length];
        while !ciphertext.is_empty() {
            tls.read_tls(&mut ciphertext)?;
            let progress = tls.process_new_packets().map_err(io::Error::other)?;
            let mut plaintext = vec![0; progress.plaintext_bytes_to_read()];
            tls.reader().read_exact(&mut plaintext)?;
            state.incoming.extend_from_slice(&plaintext);
        }
        Ok(())
    }

    /// Hands the messages that are there to `take`, whole; an error where the bytes are none.
    pub(super) fn messages(&self, mut take: impl FnMut(&[u8])) -> io::Result<()> {
        let state = &mut *self.state.borrow_mut();
        loop {
            let rest = &state.incoming[state.read..];
            let length = framing::frame_len(rest, ChannelRange::Rfc8656)
                .map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
            let Some(message) = length.and_then(|length| rest.get(..length)) else {
                return Ok(());
            };
            take(message);
            state.read += message.len();
        }
    }
}

fn socket(address: SocketAddr, local: Option<SocketAddr>) -> io::Result<TcpSocket> {
    let socket =
        socket2::Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    if let Some(local) = local {
        socket.bind(&SockAddr::from(local))?;
    }
    Ok(TcpSocket::from_std_stream(socket.into()))
}

fn session(target: &Target, trust: &Trust) -> Result<Box<ClientConnection>, Error> {
    let address = target.address;
    let wrong = |error| Error::Tls { address, error };
    let name = ServerName::try_from(target.host.clone())
        .map_err(|error| wrong(io::Error::other(error)))?;
    let mut session = ClientConnection::new(trust.config.clone(), name)
        .map_err(|error| wrong(io::Error::other(error)))?;
    // `OUTGOING_MAX` is the bound.
    session.set_buffer_limit(None);
    Ok(Box::new(session))
}
