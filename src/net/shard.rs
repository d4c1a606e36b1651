//! A shard: one thread's server and sockets, and the turns they take.
//!
//! One wake-up finds a round of sockets that have something to read. One turn takes as many of them
//! as a batch has room for: receive, ask the server about each packet, collect what is to be sent,
//! whichever socket it came from; then send it all, and see to the events. Nothing is kept for later
//! but the sockets that had more: they come again in the next round.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll};
use std::time::Instant;

use tracing::error;

use super::post::{Envelope, Parcel};
use super::stream::tls::READ_LEN;
use super::stream::{Connection, ConnectionId, FRAME_LEN_MAX, Heard, Opening, split_frames};
use super::sys::{ICMP_ERRORS_MAX, IcmpError, Ready, RecvBatch};
use super::tcp_relay::data::DataConnection;
use super::work::{ClientPath, SocketKey, Work};
use super::{clock, pace};
use crate::turn::limits::SourceBuckets;
use crate::turn::{DropReason, Now, Stats};

/// What a connection is read into: the rest of a frame, a good deal more, and what TLS decrypts
/// that from.
const STREAM_BUFFER: usize = FRAME_LEN_MAX + 64 * 1024 + READ_LEN;

/// Slots that a socket is offered at least: a burst to one of them should not need two turns.
const ROOM: usize = 8;

/// See the module. The buffers are borrowed while the rest works on what is in them.
pub(super) struct Shard {
    /// Sockets of datagrams that have not had their turn yet.
    round: VecDeque<Ready>,
    /// Those that have, and had more. At most one for each turn of the round.
    unfinished: Vec<Ready>,
    batch: RecvBatch,
    icmp: Vec<IcmpError>,
    stream_buffer: Box<[u8]>,
    /// What sources have left of TLS handshakes.
    handshakes: SourceBuckets,
    pub(super) work: Work,
}

impl Shard {
    pub(super) fn new(
        handshakes: SourceBuckets,
        work: impl FnOnce(Weak<RefCell<Self>>) -> Work,
    ) -> Rc<RefCell<Self>> {
        Rc::new_cyclic(|me| {
            RefCell::new(Self {
                round: VecDeque::new(),
                unfinished: Vec::new(),
                batch: RecvBatch::new(),
                icmp: Vec::with_capacity(ICMP_ERRORS_MAX),
                stream_buffer: vec![0; STREAM_BUFFER].into(),
                handshakes,
                work: work(me.clone()),
            })
        })
    }

    /// Waits until a turn would find something.
    pub(super) fn poll_round(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { round, unfinished, work, .. } = self;
        if !round.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let polled = work.watcher.poll(context, round);
        for socket in unfinished.drain(..) {
            // What has something new is named already.
            if round.iter().all(|other| other.token != socket.token) {
                round.push_back(socket);
            }
        }
        if round.is_empty() { polled } else { Poll::Ready(Ok(())) }
    }

    /// One turn: as many sockets of the round as there is room for what they have received. Tells
    /// whether there is more to do.
    pub(super) fn turn(&mut self) -> bool {
        let now = clock::now();
        self.batch.clear();
        let mut errors = 0;
        while self.batch.room() >= ROOM && errors < ICMP_ERRORS_MAX {
            let Some(socket) = self.round.pop_front() else { break };
            errors += self.hear(socket, now);
        }
        let Self { batch, work, .. } = self;
        work.traffic_class = 0;
        work.flush(batch.bytes());
        work.handle_events(batch.bytes());
        pace::received(batch.len());
        !self.round.is_empty() || !self.unfinished.is_empty()
    }

    /// What has arrived at one socket. Tells how many ICMP errors there were.
    fn hear(&mut self, socket: Ready, now: Now) -> usize {
        let Self { unfinished, batch, icmp, work, .. } = self;
        let key = SocketKey::of_token(socket.token);
        // It may have been closed in the same round.
        let Some(open) = work.socket(key) else { return 0 };
        icmp.clear();
        let errors = socket.errors && open.recv_icmp(icmp);
        let first = batch.len();
        match open.recv(batch) {
            Ok(more) if more || errors => unfinished.push(Ready { errors, ..socket }),
            Ok(_) => {}
            Err(error) => {
                work.watcher.remove(open);
                error!(%error, socket = ?key, "a socket failed and is read no more");
                if let SocketKey::Relay(id) = key {
                    work.server.socket_lost(id, now);
                }
            }
        }
        if let SocketKey::Relay(id) = key {
            icmp.iter().for_each(|error| work.handle_icmp(id, *error, now));
        }
        for at in first..batch.len() {
            let datagram = batch.datagrams()[at];
            work.traffic_class = datagram.traffic_class;
            match key {
                SocketKey::Listener(listener)
                    if work.is_dtls(listener, &batch.bytes()[datagram.range()]) =>
                {
                    work.handle_dtls(listener, datagram, batch.bytes_mut(), now);
                }
                SocketKey::Listener(listener) => {
                    work.handle_datagram(listener, datagram, batch.bytes(), now);
                }
                SocketKey::Relay(id) => {
                    work.handle_peer(id, datagram.from, datagram.range(), batch.bytes(), now);
                }
            }
        }
        icmp.len()
    }

    /// Whether a source may begin a TLS handshake.
    pub(super) fn admits_handshake(&mut self, source: IpAddr) -> bool {
        self.handshakes.admit(source, clock::now().instant)
    }

    /// Takes in a connection.
    pub(super) fn connected(&mut self, connection: Rc<Connection>) -> ConnectionId {
        self.work.connections.insert(connection)
    }

    /// Forgets a connection, and ends its allocation unless that is mobile.
    pub(super) fn disconnected(&mut self, id: ConnectionId) {
        let Some(connection) = self.work.connections.remove(id) else { return };
        self.work.client_gone(connection.five_tuple(), clock::now());
        self.work.handle_events(&[]);
    }

    /// Whether the client of a connection has an allocation.
    pub(super) fn is_allocated(&self, id: ConnectionId) -> bool {
        let connection = self.work.connections.get(id);
        connection.is_some_and(|client| self.work.server.has_allocation(&client.five_tuple()))
    }

    /// One turn of a connection that can be read, or written again.
    pub(super) fn stream_turn(&mut self, id: ConnectionId) -> io::Result<Heard> {
        let Self { stream_buffer, work, .. } = self;
        let Some(connection) = work.connections.get(id).cloned() else { return Ok(Heard::End) };
        connection.flush()?;
        let Some(read) = connection.read(stream_buffer)? else {
            // A handshake may have settled it.
            let http = connection.is_new() && connection.opening(&[]) == Opening::Http;
            return Ok(if http { Heard::Http } else { Heard::Nothing });
        };
        if read.is_empty() {
            return Ok(Heard::End);
        }
        let bytes = &stream_buffer[read];
        if connection.is_new() {
            let opening = connection.opening(bytes);
            if opening != Opening::Other {
                connection.keep(bytes);
                return Ok(if opening == Opening::Http { Heard::Http } else { Heard::Nothing });
            }
        }
        let (now, from) = (clock::now(), connection.five_tuple());
        let mut heard = Heard::Nothing;
        let rest = split_frames(bytes, work.server.channels(), |frame| {
            heard = Heard::Messages;
            pace::received(1);
            connection.has_spoken();
            work.handle_client(ClientPath::Stream(id), from, frame, bytes, now);
            // What follows a ConnectionBind is no message.
            match work.is_bound(id) {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        });
        work.flush(bytes);
        work.handle_events(bytes);
        let rest = rest.map_err(|error| {
            // Junk from the beginning is counted as a connection refused.
            if !connection.is_new() {
                drop(work.server.drop(DropReason::Malformed));
            }
            io::Error::new(io::ErrorKind::InvalidData, error)
        })?;
        connection.keep(&bytes[rest..]);
        if let Some(peer) = work.take_bound(id) {
            return Ok(Heard::Bound(Box::new(peer)));
        }
        if connection.is_greedy() && !work.server.has_allocation(&from) {
            drop(work.server.drop(DropReason::StreamFull));
            return Err(io::Error::other("it has no allocation, and holds too much"));
        }
        Ok(heard)
    }

    /// The first turn of a data connection; it never ends with it.
    pub(super) fn begin_data(&mut self, data: &mut DataConnection) -> io::Result<bool> {
        let server = &mut self.work.server;
        data.begin(clock::now().instant, |direction, transport, bytes| {
            server.relayed(direction, transport, bytes);
        })?;
        Ok(false)
    }

    /// One turn of a data connection. True once it has ended.
    pub(super) fn data_turn(&mut self, data: &mut DataConnection) -> io::Result<bool> {
        let Self { stream_buffer, work, .. } = self;
        data.turn(stream_buffer, clock::now().instant, |direction, transport, bytes| {
            work.server.relayed(direction, transport, bytes);
        })
    }

    /// One turn for what another shard's clients sent to clients of this one.
    pub(super) fn deliver(&mut self, parcel: Parcel) {
        let work = &mut self.work;
        let now = clock::now();
        for letter in &parcel.letters {
            let Envelope { to, from, traffic_class } = letter.envelope;
            work.traffic_class = traffic_class;
            match work.server.relayed_at(to) {
                Some(id) => {
                    work.handle_peer(id, from, letter.payload.clone(), &parcel.bytes, now);
                }
                None => drop(work.server.drop(DropReason::NoAllocation)),
            }
        }
        work.traffic_class = 0;
        work.flush(&parcel.bytes);
        work.post.give_back(parcel);
    }

    /// Ends what has expired; returns when to come back.
    pub(super) fn handle_timeout(&mut self, now: Now) -> Option<Instant> {
        self.work.server.handle_timeout(now);
        self.work.handle_dtls_timeout(now);
        self.work.handle_events(&[]);
        self.work.server.poll_timeout()
    }

    /// Looks anew at the machine's addresses, inside and outside: a new one must not be a way to
    /// reach it.
    pub(super) fn look_around(&mut self) {
        let (addresses, broadcasts) = super::own_addresses();
        self.work.server.set_own_addresses(addresses, broadcasts);
        self.work.look_outside();
        self.work.handle_events(&[]);
    }

    /// Makes no new allocations from now on.
    pub(super) fn drain(&mut self) {
        self.work.server.drain();
    }

    /// Ends everything, with a line in the log for each allocation.
    pub(super) fn shutdown(&mut self) {
        self.work.server.shutdown(clock::now());
        self.work.handle_events(&[]);
        self.work.shutdown_dtls();
    }

    /// A copy of the counters.
    pub(super) fn stats(&self) -> Stats {
        self.work.server.stats().clone()
    }

    /// Forgets the packets of a turn that panicked, and counts them as one.
    pub(super) fn abandon_turn(&mut self) {
        self.work.abandon();
        drop(self.work.server.drop(DropReason::Panic));
        self.work.handle_events(&[]);
    }
}
