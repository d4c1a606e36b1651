//! TLS on a connection: the sans-IO session of rustls, driven by the connection's reads and
//! writes. Certificates are chosen anew for each handshake, so that they can be replaced.

use std::fmt;
use std::io::{self, IoSlice, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::version::{TLS12, TLS13};
use rustls::{ServerConfig, ServerConnection};
use tokio::net::TcpStream;

use super::certificates::{Certificates, Pair};
use super::connection::write_all;
use crate::stun::{ChannelRange, framing};

/// What a client that offers protocols must offer one of (RFC 7443), best first. One that offers
/// none is served as well: browsers do not.
const ALPN: [&[u8]; 2] = [b"stun.turn", b"stun.nat-discovery"];
/// The same for HTTP, where that is served behind TLS too.
const ALPN_HTTP: &[u8] = b"http/1.1";
/// Ciphertext that may wait in the session; plaintext beyond waits in the connection.
const CIPHERTEXT_MAX: usize = 64 * 1024;
/// How much is read from the kernel at once.
pub(in crate::net) const READ_LEN: usize = 32 * 1024;

/// TLS as it is configured.
#[derive(Clone, Debug)]
pub struct Config {
    /// At least one; the first is the default.
    pub pairs: Vec<Pair>,
    /// Ports that speak TLS only, besides those that speak TURN over TCP too.
    pub listen: Vec<SocketAddr>,
    /// Whether DTLS is spoken on all these ports too, over UDP.
    pub dtls: bool,
}

/// How every handshake goes. There is no early data: it could be replayed.
///
/// No protocol is offered that is not served: HTTP is only where `shares_http`.
pub(in crate::net) fn server_config(
    certificates: Arc<Certificates>,
    shares_http: bool,
) -> ServerConfig {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13, &TLS12])
        .expect("the provider has cipher suites for both")
        .with_no_client_auth()
        .with_cert_resolver(certificates);
    let http = shares_http.then_some(ALPN_HTTP);
    config.alpn_protocols = ALPN.into_iter().chain(http).map(<[u8]>::to_vec).collect();
    // Tickets, unlike remembered sessions, are good on every shard. Without randomness there are
    // none, and every handshake is a whole one.
    if let Ok(ticketer) = aws_lc_rs::Ticketer::new() {
        config.ticketer = ticketer;
    }
    config
}

/// What a handshake has settled.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Agreed {
    /// Nothing: the first bytes tell.
    Nothing,
    /// TURN, or what belongs to it.
    Turn,
    /// HTTP, and the handshake is over.
    Http,
}

/// One TLS session.
pub(in crate::net) struct Session {
    tls: Box<ServerConnection>,
    /// The client has said that it sends no more.
    closed: bool,
    /// What has not been encrypted of a frame whose beginning has.
    rest_of_frame: usize,
    /// Whether there are no more frames, but data.
    is_data: bool,
    /// We have said that we send no more.
    has_said_end: bool,
}

impl Session {
    /// A session before its handshake.
    pub(in crate::net) fn new(mut tls: ServerConnection) -> Self {
        tls.set_buffer_limit(Some(CIPHERTEXT_MAX));
        Self {
            tls: Box::new(tls),
            closed: false,
            rest_of_frame: 0,
            is_data: false,
            has_said_end: false,
        }
    }

    /// Whether the handshake is under way, or has failed.
    pub(super) fn is_handshaking(&self) -> bool {
        self.tls.is_handshaking()
    }

    /// What the client and we have agreed to speak, if it cared.
    pub(super) fn agreed(&self) -> Agreed {
        match self.tls.alpn_protocol() {
            None => Agreed::Nothing,
            Some(ALPN_HTTP) if self.tls.is_handshaking() => Agreed::Nothing,
            Some(ALPN_HTTP) => Agreed::Http,
            Some(_) => Agreed::Turn,
        }
    }

    /// The session alone, for another driver.
    pub(super) fn into_inner(self) -> Box<ServerConnection> {
        self.tls
    }

    /// Reads from the kernel once and decrypts. `WouldBlock` also where that brought nothing for
    /// the application, which the handshake does not, and empty records never do; 0 is the end.
    ///
    /// The plaintext comes to the beginning of `buffer`; the ciphertext is put at its end before.
    /// There must be room for [`READ_LEN`] bytes of it, and for all that may be in there and in
    /// the beginning of a record that was read earlier.
    pub(super) fn read(&mut self, tcp: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
        if self.closed {
            return Ok(0);
        }
        let room = buffer.len().saturating_sub(READ_LEN);
        let (plaintext, ciphertext) = buffer.split_at_mut(room);
        let length = tcp.try_read(ciphertext)?;
        if length == 0 {
            return Ok(0);
        }
        match self.decrypt(tcp, &ciphertext[..length], plaintext)? {
            0 if !self.closed => Err(io::ErrorKind::WouldBlock.into()),
            read => Ok(read),
        }
    }

    /// Takes the plaintext out after each step: rustls refuses more input while it holds much.
    fn decrypt(
        &mut self,
        tcp: &TcpStream,
        mut ciphertext: &[u8],
        plaintext: &mut [u8],
    ) -> io::Result<usize> {
        let mut filled = 0;
        while !ciphertext.is_empty() && !self.closed {
            self.tls.read_tls(&mut ciphertext)?;
            let processed = self.tls.process_new_packets();
            // Handshake messages, and the alert that says what was wrong.
            self.write_ciphertext(tcp)?;
            let state =
                processed.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            let readable = state.plaintext_bytes_to_read();
            if readable > 0 {
                let room = plaintext.get_mut(filled..).unwrap_or_default();
                if room.len() < readable {
                    return Err(io::Error::other("more plaintext than ciphertext"));
                }
                filled += self.tls.reader().read(room)?;
            }
            self.closed = state.peer_has_closed();
        }
        Ok(filled)
    }

    /// Encrypts and writes; returns how much of `plaintext` was taken over, and whether the
    /// kernel takes no more. `plaintext` is whole frames, but for the beginning of the first that
    /// was taken over before.
    ///
    /// Each frame begins a record: coturn's client takes a record for a message.
    pub(super) fn write(&mut self, tcp: &TcpStream, plaintext: &[u8]) -> io::Result<(usize, bool)> {
        let mut taken = 0;
        loop {
            taken += self.encrypt(&plaintext[taken..])?;
            let blocked = self.write_ciphertext(tcp)?;
            if blocked || taken == plaintext.len() || self.tls.is_handshaking() {
                return Ok((taken, blocked));
            }
        }
    }

    /// Encrypts as much as there is room for.
    fn encrypt(&mut self, plaintext: &[u8]) -> io::Result<usize> {
        let mut taken = 0;
        while taken < plaintext.len() && !self.tls.is_handshaking() {
            let rest = &plaintext[taken..];
            if self.rest_of_frame == 0 {
                let length = match self.is_data {
                    true => None,
                    false => framing::frame_len(rest, ChannelRange::Rfc5766).ok().flatten(),
                };
                self.rest_of_frame = length.unwrap_or(rest.len());
            }
            let written = self.tls.writer().write(&rest[..rest.len().min(self.rest_of_frame)])?;
            if written == 0 {
                break;
            }
            self.rest_of_frame -= written;
            taken += written;
        }
        Ok(taken)
    }

    /// From now on there are no frames.
    pub(super) fn begin_data(&mut self) {
        self.is_data = true;
    }

    /// Tells the client that nothing follows, with the next write.
    pub(super) fn say_end(&mut self) {
        if !std::mem::replace(&mut self.has_said_end, true) {
            self.tls.send_close_notify();
        }
    }

    /// Whether the kernel has not taken all there is to send.
    pub(super) fn is_blocked(&self) -> bool {
        self.tls.wants_write()
    }

    /// Tells the client that nothing follows, if there is room for it.
    pub(super) fn close(&mut self, tcp: &TcpStream) -> io::Result<()> {
        self.say_end();
        self.write_ciphertext(tcp).map(drop)
    }

    fn write_ciphertext(&mut self, tcp: &TcpStream) -> io::Result<bool> {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut Kernel(tcp)) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

/// The socket as rustls wants to see it.
pub(super) struct Kernel<'a>(pub(super) &'a TcpStream);

impl Read for Kernel<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buffer)
    }
}

impl Write for Kernel<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match write_all(self.0, bytes)? {
            (0, true) => Err(io::ErrorKind::WouldBlock.into()),
            (written, _) => Ok(written),
        }
    }

    fn write_vectored(&mut self, records: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(records)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
