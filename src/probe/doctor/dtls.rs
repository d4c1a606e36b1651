//! A session over DTLS (RFC 7350). OpenSSL makes it; whoever judges certificates over TLS judges its
//! certificate too.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use openssl::error::ErrorStack;
use openssl::ssl::{
    ErrorCode, Ssl, SslContext, SslMethod, SslOptions, SslStream, SslVerifyMode, SslVersion,
};
use rustls::pki_types::CertificateDer;
use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::report::Fault;
use super::tls::{self, Secured, Trust};
use crate::probe::resolve::wildcard;

/// Datagrams of the handshake are no longer, so that they pass every path.
const HANDSHAKE_DATAGRAM_LEN: u32 = 1200;
/// How often OpenSSL may look whether to send again.
const RETRANSMISSION_LOOK: Duration = Duration::from_millis(250);
/// The longest record, and its header (RFC 6347 §4.1).
const DATAGRAM_BYTES: usize = 1 << 16;

/// A session with a server, closed when dropped.
#[derive(Debug)]
pub(super) struct Dtls {
    socket: UdpSocket,
    stream: SslStream<Pipe>,
}

/// What stands between OpenSSL and the socket.
#[derive(Debug, Default)]
struct Pipe {
    received: Option<Vec<u8>>,
    written: VecDeque<Vec<u8>>,
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let datagram = self.received.take().ok_or(io::ErrorKind::WouldBlock)?;
        let length = datagram.len().min(buffer.len());
        buffer[..length].copy_from_slice(&datagram[..length]);
        Ok(length)
    }
}

impl Write for Pipe {
    fn write(&mut self, datagram: &[u8]) -> io::Result<usize> {
        self.written.push_back(datagram.to_vec());
        Ok(datagram.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Why there is no session.
pub(super) enum Failure {
    /// The socket.
    Io(io::Error),
    /// Something else.
    Fault(Fault),
}

/// Makes the handshake with the server of this name. Waits for as long as nobody answers.
pub(super) async fn secure(
    server: SocketAddr,
    host: &str,
    trust: &Trust,
    unix_secs: u64,
) -> Result<Secured<Dtls>, Failure> {
    let socket = UdpSocket::bind(wildcard(server)).await.map_err(Failure::Io)?;
    socket.connect(server).await.map_err(Failure::Io)?;
    let stream = client(host).map_err(|error| {
        Failure::Fault(Fault::new(
            error.to_string(),
            "DTLS cannot be used for this host",
            "give the server's name",
        ))
    })?;
    let mut dtls = Dtls { socket, stream };
    dtls.shake_hands().await?;
    let chain = dtls.shown();
    let (detail, warning) =
        tls::judged("DTLS 1.2", &chain, host, trust, unix_secs).map_err(Failure::Fault)?;
    Ok(Secured { stream: dtls, detail, warning })
}

fn client(host: &str) -> Result<SslStream<Pipe>, ErrorStack> {
    let mut context = SslContext::builder(SslMethod::dtls_client())?;
    context.set_min_proto_version(Some(SslVersion::DTLS1_2))?;
    context.set_options(SslOptions::NO_QUERY_MTU);
    // Not here: see the module. That the server has the key, OpenSSL sees to in any case.
    context.set_verify(SslVerifyMode::NONE);
    let mut ssl = Ssl::new(&context.build())?;
    ssl.set_mtu(HANDSHAKE_DATAGRAM_LEN)?;
    if host.parse::<IpAddr>().is_err() {
        ssl.set_hostname(host)?;
    }
    ssl.set_connect_state();
    SslStream::new(ssl, Pipe::default())
}

impl Dtls {
    async fn shake_hands(&mut self) -> Result<(), Failure> {
        loop {
            let outcome = self.stream.do_handshake();
            self.flush().await.map_err(Failure::Io)?;
            match outcome {
                Ok(()) => return Ok(()),
                Err(error) if error.code() == ErrorCode::WANT_READ => {}
                Err(error) => return Err(Failure::Fault(refused(&error))),
            }
            match timeout(RETRANSMISSION_LOOK, self.hear()).await {
                Ok(heard) => heard.map_err(Failure::Io)?,
                // OpenSSL knows when it is time to send again.
                Err(_) => continue,
            }
        }
    }

    /// The server's certificate, and those behind it.
    fn shown(&self) -> Vec<CertificateDer<'static>> {
        let chain = self.stream.ssl().peer_cert_chain();
        let chain = chain.into_iter().flatten().filter_map(|own| own.to_der().ok());
        chain.map(CertificateDer::from).collect()
    }

    /// Waits for a datagram.
    async fn hear(&mut self) -> io::Result<()> {
        let mut buffer = vec![0; DATAGRAM_BYTES];
        let length = self.socket.recv(&mut buffer).await?;
        buffer.truncate(length);
        self.stream.get_mut().received = Some(buffer);
        Ok(())
    }

    /// Sends what OpenSSL has written. Given up and called again, it may send something twice.
    async fn flush(&mut self) -> io::Result<()> {
        while let Some(datagram) = self.stream.get_ref().written.front() {
            self.socket.send(datagram).await?;
            self.stream.get_mut().written.pop_front();
        }
        Ok(())
    }

    pub(super) async fn send(&mut self, message: &[u8]) -> io::Result<()> {
        self.stream.ssl_write(message).map_err(ended)?;
        self.flush().await
    }

    /// The next message. May be given up at any time.
    pub(super) async fn recv(&mut self) -> io::Result<Vec<u8>> {
        let mut message = vec![0; DATAGRAM_BYTES];
        loop {
            let outcome = self.stream.ssl_read(&mut message);
            self.flush().await?;
            match outcome {
                Ok(length) => {
                    message.truncate(length);
                    return Ok(message);
                }
                Err(error) if error.code() == ErrorCode::WANT_READ => self.hear().await?,
                Err(error) => return Err(ended(error)),
            }
        }
    }
}

impl Drop for Dtls {
    fn drop(&mut self) {
        // Without a goodbye the server would keep the session for a while.
        let _ = self.stream.shutdown();
        for datagram in &self.stream.get_ref().written {
            let _ = self.socket.try_send(datagram);
        }
    }
}

fn ended(error: openssl::ssl::Error) -> io::Error {
    match error.code() {
        ErrorCode::ZERO_RETURN => io::ErrorKind::UnexpectedEof.into(),
        _ => error.into_io_error().unwrap_or_else(io::Error::other),
    }
}

fn refused(error: &openssl::ssl::Error) -> Fault {
    Fault::new(
        error.to_string(),
        "the server refuses the handshake: it may have no certificate for this name, or speak only \
         versions of DTLS that are no longer used",
        "look into the server's log; let it speak DTLS 1.2",
    )
}

/// Nobody answered. `speaks_stun` where the same port answers STUN over UDP.
pub(super) fn silence(server: SocketAddr, limit: Duration, speaks_stun: bool) -> Fault {
    let port = server.port();
    let detail = format!("no answer within {limit:?}");
    match speaks_stun {
        true => Fault::new(
            detail,
            format!(
                "the server answers STUN over UDP on port {port}, and does not speak DTLS there"
            ),
            "turn DTLS on (in hairpin, [tls] dtls = true), or use the port that it is on",
        ),
        false => Fault::new(
            detail,
            format!(
                "DTLS is not enabled on UDP port {port}, or the port is filtered by a firewall, or \
                 the host {} is down",
                server.ip()
            ),
            format!(
                "turn DTLS on (in hairpin, [tls] dtls = true); open UDP port {port} in the server's \
                 firewall and in its provider's security group; see that this network lets UDP out"
            ),
        ),
    }
}
