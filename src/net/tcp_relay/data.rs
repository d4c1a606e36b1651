//! Data connections (RFC 6062 §5.4, §5.5): what a client's connection and a peer's send is passed
//! on as it is, both ways, until both have ended.
//!
//! Each way goes on by itself. What one end sends is read only when all that came before has been
//! handed to the kernel for the other end, so a slow reader stops the writer, and no more than one
//! portion of each way is ever held here. The end of one way is passed on behind its last byte; an
//! error is a reset for both ends.

use std::cell::RefCell;
use std::io;
use std::net::Shutdown;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::sleep_until;
use tracing::debug;

use super::{DataTally, Waiting};
use crate::net::clock;
use crate::net::quota::Bandwidth;
use crate::net::shard::Shard;
use crate::net::stream::tls::READ_LEN;
use crate::net::stream::{Connection, write_all};
use crate::net::udp::guard;
use crate::turn::Transport;
use crate::turn::stats::Direction;

/// The most that is read at once. TLS needs as much for what it may hold back, and room for the
/// ciphertext besides.
const PORTION_MAX: usize = 64 * 1024;

/// A client's connection and a peer's that have become one.
pub(in crate::net) struct DataConnection {
    client: Rc<Connection>,
    transport: Transport,
    peer: TcpStream,
    /// What the kernel would not take for the peer yet. For the client, the connection keeps it.
    waiting: Vec<u8>,
    to_peer: Way,
    to_client: Way,
    tally: Arc<DataTally>,
    bandwidth: Option<Arc<Bandwidth>>,
    /// Until when nothing is read, because the user's bandwidth is used up.
    paused: Option<Instant>,
}

/// How far one way has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Way {
    Open,
    /// The sender has ended; the receiver does not know yet.
    Ending,
    Ended,
}

impl DataConnection {
    fn new(
        client: Rc<Connection>,
        peer: TcpStream,
        tally: Arc<DataTally>,
        bandwidth: Option<Arc<Bandwidth>>,
    ) -> Self {
        Self {
            transport: client.five_tuple().transport,
            client,
            peer,
            waiting: Vec::new(),
            to_peer: Way::Open,
            to_client: Way::Open,
            tally,
            bandwidth,
            paused: None,
        }
    }

    /// Reads what the user may relay now, once for each way. Tells `relayed` what was read. True
    /// once both ways have ended.
    pub(in crate::net) fn turn(
        &mut self,
        buffer: &mut [u8],
        now: Instant,
        mut relayed: impl FnMut(Direction, Transport, usize),
    ) -> io::Result<bool> {
        self.flush()?;
        self.paused = self.bandwidth.as_ref().and_then(|user| user.resumes(now));
        if self.reads_client() {
            match self.client.read(&mut buffer[..PORTION_MAX + READ_LEN])? {
                Some(read) if read.is_empty() => self.to_peer = Way::Ending,
                Some(read) => {
                    relayed(Direction::ToPeer, self.transport, read.len());
                    self.account(Direction::ToPeer, read.len(), now);
                    self.pass_to_peer(&buffer[read])?;
                }
                None => {}
            }
        }
        if self.reads_peer() {
            match self.peer.try_read(&mut buffer[..PORTION_MAX]) {
                Ok(0) => self.to_client = Way::Ending,
                Ok(read) => {
                    relayed(Direction::ToClient, self.transport, read);
                    self.account(Direction::ToClient, read, now);
                    self.client.pass(&buffer[..read])?;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        self.end_ways()?;
        Ok(self.to_peer == Way::Ended && self.to_client == Way::Ended)
    }

    /// Passes on what the client sent right behind its ConnectionBind.
    pub(in crate::net) fn begin(
        &mut self,
        now: Instant,
        mut relayed: impl FnMut(Direction, Transport, usize),
    ) -> io::Result<()> {
        let early = self.client.begin_data();
        if early.is_empty() {
            return Ok(());
        }
        relayed(Direction::ToPeer, self.transport, early.len());
        self.account(Direction::ToPeer, early.len(), now);
        self.pass_to_peer(&early)
    }

    fn account(&self, direction: Direction, bytes: usize, now: Instant) {
        self.tally.add(direction, bytes);
        if let Some(user) = &self.bandwidth {
            user.spend(bytes, now);
        }
    }

    fn pass_to_peer(&mut self, bytes: &[u8]) -> io::Result<()> {
        let (written, _) = write_all(&self.peer, bytes)?;
        self.waiting.extend_from_slice(&bytes[written..]);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        let (written, _) = write_all(&self.peer, &self.waiting)?;
        self.waiting.drain(..written);
        if self.waiting.is_empty() {
            self.waiting = Vec::new();
        }
        self.client.flush()
    }

    /// Passes on the end of a way once all before it has left.
    fn end_ways(&mut self) -> io::Result<()> {
        if self.to_peer == Way::Ending && self.waiting.is_empty() {
            SockRef::from(&self.peer).shutdown(Shutdown::Write)?;
            self.to_peer = Way::Ended;
        }
        if self.to_client == Way::Ending && !self.client.has_waiting() && self.client.finish()? {
            self.to_client = Way::Ended;
        }
        Ok(())
    }

    fn reads_client(&self) -> bool {
        self.to_peer == Way::Open && self.waiting.is_empty() && self.paused.is_none()
    }

    fn reads_peer(&self) -> bool {
        self.to_client == Way::Open && !self.client.has_waiting() && self.paused.is_none()
    }

    /// Waits until a turn would find something to do. An error of a socket shows even while nothing
    /// is read from it.
    async fn ready(&self) -> io::Result<()> {
        let client = self.client.socket();
        let resumes = self.paused.unwrap_or_else(|| clock::now().instant);
        tokio::select! {
            ready = client.readable(), if self.reads_client() => ready,
            ready = self.peer.readable(), if self.reads_peer() => ready,
            ready = self.peer.writable(), if !self.waiting.is_empty() => ready,
            ready = client.writable(), if self.client.has_waiting() => ready,
            error = error_of(client) => Err(error),
            error = error_of(&self.peer) => Err(error),
            () = sleep_until(resumes.into()), if self.paused.is_some() => Ok(()),
        }
    }

    /// Lets both ends see that this was no ordinary end.
    fn reset(&self) {
        for socket in [self.client.socket(), &self.peer] {
            // An error means that the socket is lost already.
            let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
        }
    }
}

/// Waits for an error, for ever if there is none.
async fn error_of(socket: &TcpStream) -> io::Error {
    match socket.ready(Interest::ERROR).await {
        Ok(_) => {
            let error = socket.take_error().ok().flatten();
            error.unwrap_or_else(|| io::ErrorKind::ConnectionReset.into())
        }
        Err(error) => error,
    }
}

/// Carries the data of a client and of the peer it has been bound to until both ends have closed,
/// one fails, or the allocation ends; says which.
pub(in crate::net) async fn carry(
    shard: &RefCell<Shard>,
    client: Rc<Connection>,
    bound: Waiting,
) -> &'static str {
    let Waiting { peer, tally, bandwidth, mut life } = bound;
    let Ok(peer) = TcpStream::from_std(peer) else { return "out of resources" };
    let mut data = DataConnection::new(client, peer, tally, bandwidth);
    let mut outcome = guard(shard, "a data connection", |shard| shard.begin_data(&mut data));
    loop {
        match outcome {
            Some(Ok(true)) => return "both ends have closed",
            Some(Ok(false)) => {}
            Some(Err(error)) => {
                debug!(%error, "a data connection is reset");
                data.reset();
                return "reset";
            }
            None => {
                data.reset();
                return "a bug";
            }
        }
        let ready = tokio::select! {
            () = life.closed() => return "its allocation has ended",
            ready = data.ready() => ready,
        };
        outcome = match ready {
            Ok(()) => guard(shard, "a data connection", |shard| shard.data_turn(&mut data)),
            Err(error) => Some(Err(error)),
        };
        // One portion each, in turn: a flood on one connection must not starve the others.
        tokio::task::yield_now().await;
    }
}
