//! One client's connection: bytes in, frames out of them; frames in, bytes out of them.
//!
//! Knows nothing of TURN but where its messages end. What cannot be written at once waits in a
//! buffer of bounded size: relayed data beyond the bound is dropped, a client that does not even
//! read responses is cut off.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::ops::{ControlFlow, Range};

use rustls::ServerConnection;
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::opening::Opening;
use super::proxy::Ends;
use super::spare;
use super::tls::{Agreed, READ_LEN, Session};
use crate::stun::{ChannelRange, framing};
use crate::turn::{FiveTuple, Transport};

/// Bytes of relayed data that may wait for a client that reads slowly.
const DATA_WAITING_MAX: usize = 256 * 1024;
/// Bytes of all that may wait; the difference is room for responses.
const WAITING_MAX: usize = DATA_WAITING_MAX + 64 * 1024;
/// Bytes that may wait for a client without an allocation: it can have asked for some answers at
/// once, and has nothing else to wait for.
const STRANGER_WAITING_MAX: usize = 16 * 1024;
/// The beginning of a message that is kept for one without an allocation. A request with all that
/// authenticates it and the longest user name is half as long.
const STRANGER_INCOMPLETE_MAX: usize = 4 * 1024;
/// What the buffer for beginnings of messages keeps of its memory.
const SPARE_MAX: usize = 4 * 1024;
/// The largest frame: ChannelData or STUN with a full length field.
pub(in crate::net) const FRAME_LEN_MAX: usize = 65_556;

/// What kind of bytes a frame holds, which decides what becomes of it when there is no room.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::net) enum Importance {
    /// A response: the client waits for it.
    Control,
    /// Relayed: the client can do without.
    Data,
}

/// A frame was not taken in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::net) enum Refused {
    /// Relayed data, dropped.
    Dropped,
    /// The connection is beyond help and must be closed.
    Overrun,
}

/// A connection taken apart.
pub(super) struct Parts {
    pub(super) tcp: TcpStream,
    pub(super) client: SocketAddr,
    /// After its handshake.
    pub(super) tls: Option<Box<ServerConnection>>,
    /// What has been read and not used, without TLS.
    pub(super) read: Vec<u8>,
}

/// See the module.
#[derive(Debug)]
pub(in crate::net) struct Connection {
    tcp: TcpStream,
    client: SocketAddr,
    server: SocketAddr,
    session: RefCell<Option<Session>>,
    /// The beginning of a message whose end has not arrived.
    incomplete: RefCell<Vec<u8>>,
    waiting: RefCell<Vec<u8>>,
    /// Whether a flush is due at the end of the turn.
    due: Cell<bool>,
    /// Whether no whole message has come yet.
    new: Cell<bool>,
    /// Whether the kernel would not take more.
    blocked: Cell<bool>,
    /// Whether the client has had its chances.
    given_up: Cell<bool>,
    /// Tells the connection's task that `blocked` has become true.
    wake: Notify,
}

impl Connection {
    /// Takes over an accepted connection between these two ends.
    pub(super) fn new(tcp: TcpStream, ends: Ends, session: Option<Session>) -> Self {
        Self {
            tcp,
            client: ends.client,
            server: ends.server,
            session: RefCell::new(session),
            incomplete: RefCell::default(),
            waiting: RefCell::default(),
            due: Cell::new(false),
            new: Cell::new(true),
            blocked: Cell::new(false),
            given_up: Cell::new(false),
            wake: Notify::new(),
        }
    }

    /// What another server needs to go on with it. Nothing has been said to the client yet.
    pub(super) fn into_parts(self) -> Parts {
        let tls = self.session.into_inner().map(Session::into_inner);
        Parts { tcp: self.tcp, client: self.client, tls, read: self.incomplete.into_inner() }
    }

    /// Whether no whole message has come yet.
    pub(in crate::net) fn is_new(&self) -> bool {
        self.new.get()
    }

    /// A whole message has come.
    pub(in crate::net) fn has_spoken(&self) {
        self.new.set(false);
    }

    /// Whether the TLS handshake is not over, or has failed.
    pub(super) fn is_handshaking(&self) -> bool {
        self.session.borrow().as_ref().is_some_and(Session::is_handshaking)
    }

    /// What the client speaks, of which these are the first bytes.
    pub(in crate::net) fn opening(&self, bytes: &[u8]) -> Opening {
        match self.session.borrow().as_ref().map(Session::agreed) {
            Some(Agreed::Http) => Opening::Http,
            None | Some(Agreed::Turn | Agreed::Nothing) => Opening::of(bytes),
        }
    }

    /// Whether the client asked for TURN in its handshake. It gets nothing else then: somebody may
    /// have led it here who knows that it speaks HTTP.
    pub(super) fn asked_for_turn(&self) -> bool {
        self.session.borrow().as_ref().is_some_and(|own| own.agreed() == Agreed::Turn)
    }

    /// What identifies the client.
    pub(in crate::net) fn five_tuple(&self) -> FiveTuple {
        let transport =
            if self.session.borrow().is_some() { Transport::Tls } else { Transport::Tcp };
        FiveTuple { transport, client: self.client, server: self.server }
    }

    /// Ends the connection at its next turn, which it makes come soon.
    pub(in crate::net) fn give_up(&self) {
        self.given_up.set(true);
        self.wake.notify_one();
    }

    /// Waits until there is something to read, or room to write where that was lacking.
    pub(super) async fn ready(&self) -> io::Result<()> {
        loop {
            tokio::select! {
                readable = self.tcp.readable() => return readable,
                writable = self.tcp.writable(), if self.blocked.get() => return writable,
                () = self.wake.notified() => if self.given_up.get() {
                    return Err(io::ErrorKind::TimedOut.into());
                },
            }
        }
    }

    /// Reads what has arrived into `buffer`, of which it returns the used part; in front of it is
    /// what was left over. Nothing there is `None`, the end of the stream an empty range. The last
    /// [`READ_LEN`] bytes of the buffer are for what TLS decrypts.
    pub(in crate::net) fn read(&self, buffer: &mut [u8]) -> io::Result<Option<Range<usize>>> {
        let mut incomplete = self.incomplete.borrow_mut();
        let left_over = incomplete.len();
        buffer[..left_over].copy_from_slice(&incomplete);
        let read = match &mut *self.session.borrow_mut() {
            None => {
                let end = buffer.len().saturating_sub(READ_LEN);
                self.tcp.try_read(&mut buffer[left_over..end])
            }
            Some(session) => session.read(&self.tcp, &mut buffer[left_over..]),
        };
        // The session answers by itself; what the kernel did not take must go out later.
        let unsent = self.session.borrow().as_ref().is_some_and(Session::is_blocked);
        if unsent && !self.blocked.replace(true) {
            self.wake.notify_one();
        }
        match read {
            Ok(0) => Ok(Some(0..0)),
            Ok(read) => {
                incomplete.clear();
                Ok(Some(0..left_over + read))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Keeps the beginning of a message until the rest arrives.
    pub(in crate::net) fn keep(&self, beginning: &[u8]) {
        let mut incomplete = self.incomplete.borrow_mut();
        if beginning.is_empty() && incomplete.capacity() > SPARE_MAX {
            *incomplete = Vec::new();
        }
        incomplete.extend_from_slice(beginning);
    }

    /// Queues a frame: `header`, `data` and `padding` zeros. [`Connection::flush`] sends it.
    pub(in crate::net) fn push(
        &self,
        header: &[u8],
        data: &[u8],
        padding: usize,
        importance: Importance,
    ) -> Result<(), Refused> {
        let mut waiting = self.waiting.borrow_mut();
        let length = waiting.len() + header.len() + data.len() + padding;
        match importance {
            Importance::Data if length > DATA_WAITING_MAX => return Err(Refused::Dropped),
            Importance::Control if length > WAITING_MAX => return Err(Refused::Overrun),
            Importance::Data | Importance::Control => {}
        }
        spare::extend(&mut waiting, header);
        spare::extend(&mut waiting, data);
        waiting.extend_from_slice(&[0; 3][..padding]);
        Ok(())
    }

    /// Whether it holds more than it may for a client without an allocation.
    pub(in crate::net) fn is_greedy(&self) -> bool {
        self.waiting.borrow().len() > STRANGER_WAITING_MAX
            || self.incomplete.borrow().len() > STRANGER_INCOMPLETE_MAX
    }

    /// Makes a flush due, and tells whether none was.
    pub(in crate::net) fn becomes_due(&self) -> bool {
        !self.due.replace(true)
    }

    /// Tells a TLS client that nothing follows, unless it never came to a session. Nobody waits
    /// for it to hear that.
    pub(super) fn close(&self) {
        if self.is_handshaking() {
            return;
        }
        if let Some(session) = &mut *self.session.borrow_mut() {
            // An error means that the client has gone first.
            let _ = session.close(&self.tcp);
        }
    }

    /// Writes as much of what waits as the kernel takes.
    pub(in crate::net) fn flush(&self) -> io::Result<()> {
        self.due.set(false);
        let mut waiting = self.waiting.borrow_mut();
        let (written, blocked) = self.write(&waiting)?;
        waiting.drain(..written);
        spare::take_back(&mut waiting);
        if blocked {
            // Many may wait for long, so none holds more than it needs.
            waiting.shrink_to_fit();
        }
        if blocked && !self.blocked.replace(blocked) {
            self.wake.notify_one();
        }
        self.blocked.set(blocked);
        Ok(())
    }

    fn write(&self, bytes: &[u8]) -> io::Result<(usize, bool)> {
        match &mut *self.session.borrow_mut() {
            None => write_all(&self.tcp, bytes),
            Some(session) => session.write(&self.tcp, bytes),
        }
    }
}

/// The other life of a connection, after a ConnectionBind: bytes that are no messages
/// (RFC 6062 §5.4). Nothing is dropped; who passes data on must wait until none waits.
impl Connection {
    /// Begins it; returns what has arrived behind the ConnectionBind.
    pub(in crate::net) fn begin_data(&self) -> Vec<u8> {
        if let Some(session) = &mut *self.session.borrow_mut() {
            session.begin_data();
        }
        // A client that does not read for a while is alive nevertheless. An error means that the
        // socket is lost, which shows soon.
        #[cfg(target_os = "linux")]
        let _ = SockRef::from(&self.tcp).set_tcp_user_timeout(None);
        self.incomplete.take()
    }

    /// For waiting, and for options; not for data.
    pub(in crate::net) fn socket(&self) -> &TcpStream {
        &self.tcp
    }

    /// Whether some of what was passed on has not left.
    pub(in crate::net) fn has_waiting(&self) -> bool {
        self.blocked.get() || !self.waiting.borrow().is_empty()
    }

    /// Passes on data when none waits. What the kernel does not take waits.
    pub(in crate::net) fn pass(&self, data: &[u8]) -> io::Result<()> {
        let (written, blocked) = self.write(data)?;
        spare::extend(&mut self.waiting.borrow_mut(), &data[written..]);
        self.blocked.set(blocked);
        Ok(())
    }

    /// Says that nothing follows; false where that has to wait for room.
    pub(in crate::net) fn finish(&self) -> io::Result<bool> {
        if let Some(session) = &mut *self.session.borrow_mut() {
            session.say_end();
        }
        self.flush()?;
        if self.has_waiting() {
            return Ok(false);
        }
        SockRef::from(&self.tcp).shutdown(Shutdown::Write)?;
        Ok(true)
    }
}

/// Writes until all is written or the kernel takes no more; returns how much, and whether it is
/// the latter.
pub(in crate::net) fn write_all(tcp: &TcpStream, bytes: &[u8]) -> io::Result<(usize, bool)> {
    let mut written = 0;
    while written < bytes.len() {
        match tcp.try_write(&bytes[written..]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(more) => written += more,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok((written, true)),
            Err(error) => return Err(error),
        }
    }
    Ok((written, false))
}

/// Splits what was read into whole frames, until `each` has seen enough; returns where the rest
/// begins. An error means that the
/// stream cannot be read any further.
pub(in crate::net) fn split_frames(
    bytes: &[u8],
    channels: ChannelRange,
    mut each: impl FnMut(Range<usize>) -> ControlFlow<()>,
) -> Result<usize, crate::stun::ParseError> {
    let mut at = 0;
    while let Some(length) = framing::frame_len(&bytes[at..], channels)? {
        if at + length > bytes.len() {
            break;
        }
        let frame = at..at + length;
        at = frame.end;
        if each(frame).is_break() {
            break;
        }
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_flush_is_due_once_however_much_is_pushed() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let server = listener.local_addr().unwrap();
        let client = TcpStream::connect(server).await.unwrap();
        let (accepted, from) = listener.accept().await.unwrap();
        let connection = Connection::new(accepted, Ends { client: from, server }, None);
        for turn in 0..3_u8 {
            let due = (0..100).filter(|_| {
                connection.push(&[turn], &[turn], 2, Importance::Data).unwrap();
                connection.becomes_due()
            });
            assert_eq!(due.count(), 1, "turn {turn}");
            connection.flush().unwrap();
            let mut received = Vec::new();
            while received.len() < 400 {
                client.readable().await.unwrap();
                let mut bytes = [0; 400];
                let read = client.try_read(&mut bytes).unwrap_or(0);
                received.extend_from_slice(&bytes[..read]);
            }
            assert_eq!(received, [turn, turn, 0, 0].repeat(100));
        }
    }
}
