//! TLS on a connection: the sans-IO session of rustls, driven by the connection's reads and
//! writes. Certificates are chosen anew for each handshake, so that they can be replaced.

use std::fmt;
use std::io::{self, Read, Write};

use rustls::ServerConnection;
use tokio::net::TcpStream;

use super::connection::write_all;

/// Ciphertext that may wait in the session; plaintext beyond waits in the connection.
const CIPHERTEXT_MAX: usize = 64 * 1024;
/// How much is read from the kernel at once.
const READ_LEN: usize = 32 * 1024;

/// One TLS session.
pub(in crate::net) struct Session {
    tls: Box<ServerConnection>,
    /// The client has said that it sends no more.
    closed: bool,
}

impl Session {
    /// A session before its handshake.
    pub(in crate::net) fn new(mut tls: ServerConnection) -> Self {
        tls.set_buffer_limit(Some(CIPHERTEXT_MAX));
        Self { tls: Box::new(tls), closed: false }
    }

    /// Reads and decrypts. `WouldBlock` also while the handshake goes on; 0 is the end.
    ///
    /// `plaintext` has room for all that one read from the kernel can hold.
    pub(super) fn read(&mut self, tcp: &TcpStream, plaintext: &mut [u8]) -> io::Result<usize> {
        let mut ciphertext = [0; READ_LEN];
        while !self.closed {
            let length = tcp.try_read(&mut ciphertext)?;
            if length == 0 {
                return Ok(0);
            }
            let read = self.decrypt(tcp, &ciphertext[..length], plaintext)?;
            if read > 0 {
                return Ok(read);
            }
        }
        Ok(0)
    }

    /// Takes the plaintext out after each step: rustls refuses more input while it holds much.
    fn decrypt(
        &mut self,
        tcp: &TcpStream,
        mut ciphertext: &[u8],
        plaintext: &mut [u8],
    ) -> io::Result<usize> {
        let mut filled = 0;
        while !ciphertext.is_empty() {
            self.tls.read_tls(&mut ciphertext)?;
            let processed = self.tls.process_new_packets();
            // Handshake messages, and the alert that says what was wrong.
            self.write_ciphertext(tcp)?;
            processed.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            match self.tls.reader().read(&mut plaintext[filled..]) {
                Ok(0) => {
                    self.closed = true;
                    break;
                }
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    /// Encrypts and writes; returns how much of `plaintext` was taken over, and whether the
    /// kernel takes no more.
    pub(super) fn write(&mut self, tcp: &TcpStream, plaintext: &[u8]) -> io::Result<(usize, bool)> {
        let mut taken = 0;
        loop {
            let blocked = self.write_ciphertext(tcp)?;
            if blocked || taken == plaintext.len() || self.tls.is_handshaking() {
                return Ok((taken, blocked));
            }
            taken += self.tls.writer().write(&plaintext[taken..])?;
        }
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
struct Kernel<'a>(&'a TcpStream);

impl Write for Kernel<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match write_all(self.0, bytes)? {
            (0, true) => Err(io::ErrorKind::WouldBlock.into()),
            (written, _) => Ok(written),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
