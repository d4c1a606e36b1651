//! A socket that a task of its own waits for.

use std::io;
use std::ops::Deref;
use std::os::fd::{AsRawFd, RawFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::Socket;
use crate::net::sys::RecvBatch;

/// For programs with few sockets: those of a shard have a [`Watcher`](super::Watcher).
#[derive(Debug)]
pub struct AwaitedSocket(AsyncFd<Socket>);

impl AwaitedSocket {
    /// Must be called inside a tokio runtime.
    pub fn new(socket: Socket) -> io::Result<Self> {
        // SAFETY: a std socket owns its descriptor, which stays the same and open until it drops.
        let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?;
        Ok(Self(socket))
    }

    /// Waits until [`AwaitedSocket::recv`] may find something.
    pub async fn readable(&self) -> io::Result<()> {
        self.0.readable().await.map(|mut guard| guard.retain_ready())
    }

    /// Fills `batch` with what has arrived, which may be nothing.
    ///
    /// An error means that the socket is lost; errors that pass never come out of here.
    pub fn recv(&self, batch: &mut RecvBatch) -> io::Result<()> {
        batch.clear();
        let mut outcome = Ok(());
        // WouldBlock makes tokio forget that the socket is readable.
        let _ = self.0.try_io(Interest::READABLE, |socket| match socket.recv(batch) {
            Ok(true) => Ok(()),
            Ok(false) => Err(io::ErrorKind::WouldBlock.into()),
            Err(error) => {
                outcome = Err(error);
                Ok(())
            }
        });
        outcome
    }
}

impl Deref for AwaitedSocket {
    type Target = Socket;

    fn deref(&self) -> &Socket {
        self.0.get_ref()
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}
