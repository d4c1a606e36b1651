//! A socket that a task of its own waits for.

use std::io;
use std::ops::Deref;

use super::Socket;
use crate::net::sys::RecvBatch;

/// For programs with few sockets: those of a shard have a [`Watcher`](super::Watcher).
#[derive(Debug)]
pub struct AwaitedSocket(Socket);

impl AwaitedSocket {
    /// Must be called inside a tokio runtime.
    pub fn new(socket: Socket) -> io::Result<Self> {
        Ok(Self(socket))
    }

    /// Waits until [`AwaitedSocket::recv`] may find something.
    pub async fn readable(&self) -> io::Result<()> {
        self.0.socket.readable().await
    }

    /// Fills `batch` with what has arrived, which may be nothing.
    ///
    /// An error means that the socket is lost; errors that pass never come out of here.
    pub fn recv(&self, batch: &mut RecvBatch) -> io::Result<()> {
        batch.clear();
        self.0.recv(batch).map(drop)
    }
}

impl Deref for AwaitedSocket {
    type Target = Socket;

    fn deref(&self) -> &Socket {
        &self.0
    }
}
