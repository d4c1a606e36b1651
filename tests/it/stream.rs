//! TURN messages on a stream of bytes (RFC 8656 §12.5), and streams as bad as networks make them.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, timeout_at};

pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for T {}

/// A stream as messages.
pub(crate) struct Framed {
    stream: Box<dyn Stream>,
    read: Vec<u8>,
}

impl Framed {
    pub(crate) fn new(stream: impl Stream) -> Self {
        Self { stream: Box::new(stream), read: Vec::new() }
    }

    /// The stream, and what has been read from it.
    pub(crate) fn into_parts(self) -> (Box<dyn Stream>, Vec<u8>) {
        (self.stream, self.read)
    }

    /// Sends one message; ChannelData is padded, with other bytes than zeros.
    pub(crate) async fn send(&mut self, message: &[u8]) -> io::Result<()> {
        self.stream.write_all(&padded(message)).await?;
        self.stream.flush().await
    }

    /// Sends bytes as they are.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// Whether the server closes the connection, whatever it says before.
    pub(crate) async fn is_closed(&mut self, until: Instant) -> bool {
        loop {
            match timeout_at(until, self.stream.read(&mut [0; 64])).await {
                Ok(Ok(0) | Err(_)) => return true,
                Ok(Ok(_)) => {}
                Err(_) => return false,
            }
        }
    }

    /// The next message without padding, if it is there before `until`. Panics where the stream
    /// ends.
    pub(crate) async fn recv(&mut self, until: Instant) -> Option<Vec<u8>> {
        loop {
            if let Some(message) = self.take() {
                return Some(message);
            }
            let read = timeout_at(until, self.stream.read_buf(&mut self.read)).await.ok()?;
            assert_ne!(read.unwrap(), 0, "the server closed the connection");
        }
    }

    /// Says that nothing follows.
    pub(crate) async fn shutdown(&mut self) -> io::Result<()> {
        self.stream.shutdown().await
    }

    fn take(&mut self) -> Option<Vec<u8>> {
        let length = usize::from(u16::from_be_bytes([*self.read.get(2)?, *self.read.get(3)?]));
        let (length, padded) = match self.read[0] {
            0x40..=0x7F => (4 + length, (4 + length).next_multiple_of(4)),
            _ => (20 + length, 20 + length),
        };
        if self.read.len() < padded {
            return None;
        }
        let mut message: Vec<_> = self.read.drain(..padded).collect();
        assert!(message[length..].iter().all(|&byte| byte == 0), "padding is zeros");
        message.truncate(length);
        Some(message)
    }
}

/// A message as it is on a stream.
pub(crate) fn padded(message: &[u8]) -> Vec<u8> {
    let mut message = message.to_vec();
    message.resize(message.len().next_multiple_of(4), 0xA5);
    message
}

/// Writes byte for byte, each in a segment of its own.
pub(crate) struct Dribble<S>(pub(crate) S);

impl<S: AsyncRead + Unpin> AsyncRead for Dribble<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Dribble<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, &bytes[..bytes.len().min(1)])
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
