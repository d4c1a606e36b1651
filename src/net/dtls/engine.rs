//! OpenSSL, as it is set up for every session, and what stands between it and the sockets.
//!
//! OpenSSL is in charge of the handshake after the cookie and of the records after the handshake.
//! It reads one record at a time from a buffer, and writes datagrams into another.

use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::rc::Rc;

use openssl::error::ErrorStack;
use openssl::pkey::PKey;
use openssl::ssl::{
    AlpnError, Ssl, SslContext, SslMethod, SslOptions, SslSessionCacheMode, SslStream, SslVersion,
    select_next_proto,
};
use openssl::x509::X509;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Forward secrecy and authenticated encryption, for either kind of certificate.
const SUITES: &str = "ECDHE+AESGCM:ECDHE+CHACHA20";
/// What a client that offers protocols must offer one of (RFC 7443), best first, each behind its
/// length. One that offers none is served as well.
const ALPN: &[u8] = b"\x09stun.turn\x12stun.nat-discovery";
/// Datagrams of a handshake pass every path that carries IPv6 with room for a tunnel or two.
const HANDSHAKE_DATAGRAM_LEN: u32 = 1200;

/// What all sessions with one certificate have in common.
///
/// There is no resumption: what a session leaves behind would be state of a stranger. OpenSSL is
/// told to ask for a cookie, because only then it expects the ClientHello it is given to be a
/// second one; see [`open`].
pub(in crate::net) fn context(
    chain: &[CertificateDer<'_>],
    key: &PrivateKeyDer<'_>,
) -> Result<SslContext, ErrorStack> {
    let mut context = SslContext::builder(SslMethod::dtls_server())?;
    context.set_min_proto_version(Some(SslVersion::DTLS1_2))?;
    context.set_cipher_list(SUITES)?;
    context.set_options(
        SslOptions::COOKIE_EXCHANGE
            | SslOptions::NO_QUERY_MTU
            | SslOptions::NO_RENEGOTIATION
            | SslOptions::NO_TICKET
            | SslOptions::CIPHER_SERVER_PREFERENCE,
    );
    context.set_alpn_select_callback(|_, offered| {
        select_next_proto(ALPN, offered).ok_or(AlpnError::ALERT_FATAL)
    });
    context.set_session_cache_mode(SslSessionCacheMode::OFF);
    // Ours has been verified before OpenSSL hears of it.
    context.set_cookie_generate_cb(|_, cookie| {
        if let Some(first) = cookie.first_mut() {
            *first = 0;
        }
        Ok(1)
    });
    context.set_cookie_verify_cb(|_, _| true);
    for (at, certificate) in chain.iter().enumerate() {
        let certificate = X509::from_der(certificate)?;
        match at {
            0 => context.set_certificate(&certificate)?,
            _ => context.add_extra_chain_cert(certificate)?,
        }
    }
    let key = PKey::private_key_from_der(key.secret_der())?;
    context.set_private_key(&key)?;
    context.check_private_key()?;
    Ok(context.build())
}

/// A first ClientHello without a cookie: what OpenSSL must have seen to take the client's second
/// one for what it is. It reads no further than to where the cookie is missing, and what it
/// answers is discarded. Neither is part of what client and server sign at the end
/// (RFC 6347 §4.2.1), so that nobody notices.
const PRIMER: [u8; 67] = primer();

const fn primer() -> [u8; 67] {
    let mut hello = [0; 67];
    #[rustfmt::skip]
    let head = [
        22, 0xFE, 0xFD, 0, 0, 0, 0, 0, 0, 0, 0, 0, 54,
        1, 0, 0, 42, 0, 0, 0, 0, 0, 0, 0, 42,
        0xFE, 0xFD,
    ];
    // No session, no cookie, one suite, no compression.
    let tail = [0, 0, 0, 2, 0xC0, 0x2B, 1, 0];
    let mut at = 0;
    while at < head.len() {
        hello[at] = head[at];
        at += 1;
    }
    at = 0;
    while at < tail.len() {
        hello[hello.len() - tail.len() + at] = tail[at];
        at += 1;
    }
    hello
}

/// OpenSSL's end of a session that has had a verified ClientHello to come, and nothing else.
pub(super) fn open(context: &SslContext, wire: &Wire) -> Result<SslStream<Wire>, ErrorStack> {
    let mut ssl = Ssl::new(context)?;
    ssl.set_mtu(HANDSHAKE_DATAGRAM_LEN)?;
    let mut stream = SslStream::new(ssl, wire.clone())?;
    wire.feed(&PRIMER);
    // It wants to read on, which it says by an error.
    let _ = stream.accept();
    wire.clear();
    Ok(stream)
}

/// The buffers between OpenSSL and the sockets. All sessions of a shard share them, as only one
/// takes its turn at a time: no session keeps any of its own.
#[derive(Clone, Debug, Default)]
pub(super) struct Wire(Rc<RefCell<Buffers>>);

#[derive(Debug, Default)]
struct Buffers {
    /// The record to be read, if it has not been.
    record: Vec<u8>,
    /// Datagrams to be sent, one behind the other, and where each of them ends.
    output: Vec<u8>,
    ends: Vec<usize>,
}

impl Wire {
    /// Has OpenSSL read this record next.
    pub(super) fn feed(&self, record: &[u8]) {
        let mut buffers = self.0.borrow_mut();
        buffers.record.clear();
        buffers.record.extend_from_slice(record);
    }

    /// Gives each datagram that OpenSSL has written to `send`, in order.
    pub(super) fn drain(&self, mut send: impl FnMut(&mut [u8])) {
        let mut buffers = self.0.borrow_mut();
        let Buffers { output, ends, .. } = &mut *buffers;
        let mut start = 0;
        for end in ends.drain(..) {
            send(&mut output[start..end]);
            start = end;
        }
        output.clear();
    }

    /// All that is to be sent, as one piece.
    pub(super) fn output(&self) -> Vec<u8> {
        self.0.borrow().output.clone()
    }

    /// Has a datagram sent that OpenSSL has written before.
    pub(super) fn push(&self, datagram: &[u8]) {
        let mut buffers = self.0.borrow_mut();
        buffers.output.extend_from_slice(datagram);
        let end = buffers.output.len();
        buffers.ends.push(end);
    }

    /// Forgets what has not been read or sent.
    pub(super) fn clear(&self) {
        let mut buffers = self.0.borrow_mut();
        buffers.record.clear();
        buffers.output.clear();
        buffers.ends.clear();
    }
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut buffers = self.0.borrow_mut();
        if buffers.record.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        // Its buffer holds the largest record there can be; what is longer is no record.
        let length = buffers.record.len().min(buffer.len());
        buffer[..length].copy_from_slice(&buffers.record[..length]);
        buffers.record.clear();
        Ok(length)
    }
}

impl Write for Wire {
    fn write(&mut self, datagram: &[u8]) -> io::Result<usize> {
        self.push(datagram);
        Ok(datagram.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
