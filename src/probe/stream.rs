//! Messages in the bytes of a connection: RFC 8489 §6.2.2, RFC 8656 §12.5.

use std::io::{self, ErrorKind};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

const STUN_HEADER_BYTES: usize = 20;
const CHANNEL_HEADER_BYTES: usize = 4;

/// A connection that carries STUN messages and ChannelData.
#[derive(Debug)]
pub struct Framed<S> {
    stream: S,
    received: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Framed<S> {
    /// Nothing has been read from the stream yet.
    pub fn new(stream: S) -> Self {
        Self { stream, received: Vec::new() }
    }

    /// Writes a message, and fills ChannelData up to a multiple of four bytes.
    ///
    /// # Errors
    /// Those of the connection.
    pub async fn send(&mut self, message: &[u8]) -> io::Result<()> {
        let mut bytes = message.to_vec();
        bytes.resize(message.len().next_multiple_of(4), 0);
        self.stream.write_all(&bytes).await?;
        self.stream.flush().await
    }

    /// The next message. May be given up at any time, without losing a byte.
    ///
    /// # Errors
    /// Those of the connection; its end; and what cannot be the beginning of a message.
    pub async fn recv(&mut self) -> io::Result<Vec<u8>> {
        loop {
            if let Some((message, padded)) = frame(&self.received)? {
                let found = self.received[..message].to_vec();
                self.received.drain(..padded);
                return Ok(found);
            }
            if self.stream.read_buf(&mut self.received).await? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

/// The lengths of the first message without and with what fills it up, where it is whole.
fn frame(bytes: &[u8]) -> io::Result<Option<(usize, usize)>> {
    let &[first, _, high, low, ..] = bytes else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes([high, low]));
    let (message, padded) = match first >> 6 {
        0 => (STUN_HEADER_BYTES + length, STUN_HEADER_BYTES + length),
        1 => {
            let message = CHANNEL_HEADER_BYTES + length;
            (message, message.next_multiple_of(4))
        }
        _ => return Err(io::Error::new(ErrorKind::InvalidData, "these bytes are no STUN")),
    };
    Ok((bytes.len() >= padded).then_some((message, padded)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_found_when_they_are_whole() {
        let stun = [&[0, 1, 0, 4][..], &[0; 20]].concat();
        let channel = [0x40, 0, 0, 1, 7, 0, 0, 0];
        for cut in 0..stun.len() {
            assert_eq!(frame(&stun[..cut]).unwrap(), None);
        }
        assert_eq!(frame(&[&stun[..], &channel].concat()).unwrap(), Some((24, 24)));
        assert_eq!(frame(&channel).unwrap(), Some((5, 8)));
        assert_eq!(frame(&channel[..7]).unwrap(), None);
        assert!(frame(b"HTTP/1.1 400 Bad Request").is_ok());
        assert!(frame(&[0x80; 4]).is_err());
    }

    #[tokio::test]
    async fn messages_come_one_by_one_and_are_filled_up() {
        let (near, mut far) = tokio::io::duplex(64);
        let mut framed = Framed::new(near);
        framed.send(&[0x40, 0, 0, 1, 7]).await.unwrap();
        let mut sent = [1; 8];
        far.read_exact(&mut sent).await.unwrap();
        assert_eq!(sent, [0x40, 0, 0, 1, 7, 0, 0, 0]);
        far.write_all(&[0x40, 0, 0, 1, 7, 0, 0, 0, 0x41, 0, 0, 0]).await.unwrap();
        assert_eq!(framed.recv().await.unwrap(), [0x40, 0, 0, 1, 7]);
        assert_eq!(framed.recv().await.unwrap(), [0x41, 0, 0, 0]);
        drop(far);
        assert_eq!(framed.recv().await.unwrap_err().kind(), ErrorKind::UnexpectedEof);
    }
}
