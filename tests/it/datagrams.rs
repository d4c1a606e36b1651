//! A DTLS client whose datagrams can be held back, repeated, cut and swapped on their way:
//! OpenSSL between buffers, and a socket beside it.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use openssl::ssl::{
    ErrorCode, Ssl, SslContext, SslContextBuilder, SslMethod, SslOptions, SslStream, SslVerifyMode,
    SslVersion,
};
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

use super::client::DEADLINE;

/// How often a client looks whether it has waited long enough to send again.
const LOOK: Duration = Duration::from_millis(250);

/// What OpenSSL reads and writes.
#[derive(Clone, Default)]
struct Pipe(Arc<Mutex<Buffers>>);

#[derive(Default)]
struct Buffers {
    received: Option<Vec<u8>>,
    written: VecDeque<Vec<u8>>,
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(datagram) = self.0.lock().unwrap().received.take() else {
            return Err(io::ErrorKind::WouldBlock.into());
        };
        let length = datagram.len().min(buffer.len());
        buffer[..length].copy_from_slice(&datagram[..length]);
        Ok(length)
    }
}

impl Write for Pipe {
    fn write(&mut self, datagram: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().written.push_back(datagram.to_vec());
        Ok(datagram.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One client.
pub(crate) struct Dtls {
    pub(crate) socket: UdpSocket,
    server: SocketAddr,
    stream: SslStream<Pipe>,
    pipe: Pipe,
}

/// A context that trusts nobody in particular, speaks any version, and can be changed.
pub(crate) fn context(change: impl FnOnce(&mut SslContextBuilder)) -> SslContext {
    let mut context = SslContext::builder(SslMethod::dtls_client()).unwrap();
    context.set_options(SslOptions::NO_QUERY_MTU);
    context.set_verify(SslVerifyMode::NONE);
    change(&mut context);
    context.build()
}

impl Dtls {
    /// A client that has not said anything yet.
    pub(crate) async fn new(ip: IpAddr, server: SocketAddr, context: &SslContext) -> Self {
        Self::of_host(ip, server, context, None).await
    }

    /// The same, and it knows whom it wants to talk to.
    pub(crate) async fn of_host(
        ip: IpAddr,
        server: SocketAddr,
        context: &SslContext,
        host: Option<&str>,
    ) -> Self {
        let socket = UdpSocket::bind((ip, 0)).await.unwrap();
        Self::on(socket, server, context, host)
    }

    /// The same on a socket that may have been used before.
    pub(crate) fn on(
        socket: UdpSocket,
        server: SocketAddr,
        context: &SslContext,
        host: Option<&str>,
    ) -> Self {
        let mut ssl = Ssl::new(context).unwrap();
        ssl.set_mtu(1400).unwrap();
        if let Some(host) = host {
            ssl.set_hostname(host).unwrap();
        }
        ssl.set_connect_state();
        let pipe = Pipe::default();
        let stream = SslStream::new(ssl, pipe.clone()).unwrap();
        Self { socket, server, stream, pipe }
    }

    /// A client with a session.
    pub(crate) async fn connected(ip: IpAddr, server: SocketAddr) -> Self {
        let mut client = Self::new(ip, server, &context(|_| {})).await;
        client.connect().await;
        client
    }

    pub(crate) fn into_socket(self) -> UdpSocket {
        self.socket
    }

    pub(crate) fn local(&self) -> SocketAddr {
        self.socket.local_addr().unwrap()
    }

    pub(crate) fn server(&self) -> SocketAddr {
        self.server
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.stream.ssl().is_init_finished()
    }

    /// What the server has shown: its own certificate first.
    pub(crate) fn shown(&self) -> Vec<Vec<u8>> {
        let chain = self.stream.ssl().peer_cert_chain().unwrap();
        chain.iter().map(|certificate| certificate.to_der().unwrap()).collect()
    }

    /// The protocol that was agreed on (RFC 7443).
    pub(crate) fn protocol(&self) -> Option<&[u8]> {
        self.stream.ssl().selected_alpn_protocol()
    }

    /// The suite, as OpenSSL calls it.
    pub(crate) fn suite(&self) -> &str {
        self.stream.ssl().current_cipher().unwrap().name()
    }

    pub(crate) fn version(&self) -> Option<SslVersion> {
        self.stream.ssl().version2()
    }

    /// Goes on with the handshake, or sends again what has been waited for too long; returns what
    /// is to be sent.
    pub(crate) fn step(&mut self) -> Vec<Vec<u8>> {
        let _ = self.stream.do_handshake();
        self.pipe.0.lock().unwrap().written.drain(..).collect()
    }

    /// The same with a datagram of the server.
    pub(crate) fn step_with(&mut self, datagram: &[u8]) -> Vec<Vec<u8>> {
        self.pipe.0.lock().unwrap().received = Some(datagram.to_vec());
        self.step()
    }

    /// Sends datagrams as they are.
    pub(crate) async fn send_datagrams(&self, datagrams: &[Vec<u8>]) {
        for datagram in datagrams {
            self.socket.send_to(datagram, self.server).await.unwrap();
        }
    }

    /// The next datagram of the server, if one arrives before `until`.
    pub(crate) async fn datagram(&self, until: Instant) -> Option<Vec<u8>> {
        let mut bytes = vec![0; 65_536];
        let received = timeout_at(until, self.socket.recv_from(&mut bytes)).await.ok()?;
        let (length, from) = received.unwrap();
        assert_eq!(from, self.server, "everything comes from the address that was asked");
        bytes.truncate(length);
        Some(bytes)
    }

    /// The next datagram of the server.
    pub(crate) async fn answer(&self) -> Vec<u8> {
        self.datagram(Instant::now() + DEADLINE).await.expect("an answer")
    }

    /// Sends the second ClientHello, with the cookie, and returns it.
    pub(crate) async fn greet(&mut self) -> Vec<u8> {
        let hello = self.step();
        self.send_datagrams(&hello).await;
        let asked = self.answer().await;
        let [again] = &self.step_with(&asked)[..] else { panic!("one ClientHello") };
        self.send_datagrams(std::slice::from_ref(again)).await;
        again.clone()
    }

    /// Shakes hands as long as it takes.
    pub(crate) async fn connect(&mut self) {
        let guard = Instant::now() + DEADLINE;
        let mut out = self.step();
        loop {
            self.send_datagrams(&out).await;
            if self.is_connected() {
                return;
            }
            assert!(Instant::now() < guard, "a handshake ends");
            out = match self.datagram(Instant::now() + LOOK).await {
                Some(datagram) => self.step_with(&datagram),
                None => self.step(),
            };
        }
    }

    /// What a message is on the wire.
    pub(crate) fn seal(&mut self, message: &[u8]) -> Vec<u8> {
        self.stream.ssl_write(message).unwrap();
        self.pipe.0.lock().unwrap().written.pop_back().unwrap()
    }

    /// Sends a message.
    pub(crate) async fn send(&mut self, message: &[u8]) {
        let sealed = self.seal(message);
        self.socket.send_to(&sealed, self.server).await.unwrap();
    }

    /// The next message, if there is one before `until`.
    pub(crate) async fn recv(&mut self, until: Instant) -> Option<Vec<u8>> {
        let mut message = vec![0; 65_536];
        loop {
            let datagram = self.datagram(until).await?;
            self.pipe.0.lock().unwrap().received = Some(datagram);
            if let Ok(length) = self.stream.ssl_read(&mut message) {
                message.truncate(length);
                return Some(message);
            }
        }
    }

    /// What says that nothing follows.
    pub(crate) fn close_notify(&mut self) -> Vec<u8> {
        let _ = self.stream.shutdown();
        self.pipe.0.lock().unwrap().written.pop_back().unwrap()
    }

    /// Whether the server has closed the session, or does so before the deadline.
    pub(crate) async fn is_closed(&mut self) -> bool {
        let until = Instant::now() + DEADLINE;
        while let Some(datagram) = self.datagram(until).await {
            self.pipe.0.lock().unwrap().received = Some(datagram);
            let read = self.stream.ssl_read(&mut [0; 2048]);
            if read.is_err_and(|error| error.code() == ErrorCode::ZERO_RETURN) {
                return true;
            }
        }
        false
    }
}
