//! The trials of RFC 5780 §4, as a machine of datagrams and time without sockets or a clock.
//!
//! The driver sends what [`Discovery::poll_transmit`] gives it, hands in what arrives, and says how
//! late it is, counted from any moment of its choice. Filtering is tried before anything has been
//! sent to the server's other address: a NAT would remember, RFC 5780 §4.4.

use std::net::SocketAddr;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::transaction::{SocketIndex, Transaction, Transmit};
use super::verdict::Report;
use crate::probe::message::{Answer, Id, Request};
use crate::probe::scope::Scope;

/// The sockets it needs. The first is examined; the second is another client behind the same NAT.
pub const SOCKETS: usize = 2;
/// A payload that no Ethernet carries in one piece.
const PADDING_BYTES: usize = 1600;

/// One question to the network.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Trial {
    /// A Binding request: is there UDP at all, and are we translated? RFC 5780 §4.2.
    Connect,
    /// The same from the other socket.
    Second,
    /// Does an answer from another address and port come in? RFC 5780 §4.4, test II.
    FilterBoth,
    /// Does an answer from another port come in? RFC 5780 §4.4, test III.
    FilterPort,
    /// What are we to the other address? RFC 5780 §4.3, test II.
    MapAddress,
    /// What are we to the other address and port? RFC 5780 §4.3, test III.
    MapBoth,
    /// `FilterBoth` once more, now that every NAT with one mapping has to let it in: whether the
    /// server sends such answers at all.
    Control,
    /// Do both sockets reach each other through their mapped addresses? RFC 4787 §6.
    Hairpin,
    /// Do fragments come through? RFC 5780 §4.7.
    Fragments,
}

/// How a trial ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reply {
    /// A success response, or for [`Trial::Hairpin`] the request itself.
    Answer {
        /// Where it came from.
        from: SocketAddr,
        /// Who we are to the server.
        mapped: Option<SocketAddr>,
        /// Where else the server is.
        other: Option<SocketAddr>,
        /// Whether it was padded, too.
        padded: bool,
    },
    /// An error response with this code.
    Refused(u16),
    /// Nothing before the deadline.
    Silence,
}

/// What has been seen so far.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The server.
    pub server: SocketAddr,
    /// The local addresses of the sockets.
    pub locals: [SocketAddr; SOCKETS],
    replies: Vec<(Trial, Reply)>,
}

impl Facts {
    /// How a trial ended; none where it was not made.
    #[must_use]
    pub fn reply(&self, trial: Trial) -> Option<Reply> {
        self.replies.iter().find(|(made, _)| *made == trial).map(|(_, reply)| *reply)
    }

    /// What a socket is to the server.
    #[must_use]
    pub fn mapped(&self, trial: Trial) -> Option<SocketAddr> {
        match self.reply(trial)? {
            Reply::Answer { mapped, .. } => mapped,
            Reply::Refused(_) | Reply::Silence => None,
        }
    }

    /// What the server says its other address is.
    #[must_use]
    pub fn claimed_other(&self) -> Option<SocketAddr> {
        match self.reply(Trial::Connect)? {
            Reply::Answer { other, .. } => other,
            Reply::Refused(_) | Reply::Silence => None,
        }
    }

    /// The server's other address and port, where they can serve: servers with one address claim
    /// another one now and then, and would make every NAT look open.
    #[must_use]
    pub fn other(&self) -> Option<SocketAddr> {
        self.claimed_other().filter(|other| can_be_other(*other, self.server))
    }

    /// Whether an address of ours is another one to the server.
    #[must_use]
    pub fn is_translated(&self) -> Option<bool> {
        Some(self.mapped(Trial::Connect)? != self.locals[0])
    }

    /// The question that comes next, given the replies so far.
    fn next(&self) -> Option<Trial> {
        const ORDER: [Trial; 9] = [
            Trial::Connect,
            Trial::Second,
            Trial::FilterBoth,
            Trial::FilterPort,
            Trial::MapAddress,
            Trial::MapBoth,
            Trial::Control,
            Trial::Hairpin,
            Trial::Fragments,
        ];
        let open = |trial: &Trial| self.reply(*trial).is_none() && self.makes_sense(*trial);
        ORDER.into_iter().find(open)
    }

    fn makes_sense(&self, trial: Trial) -> bool {
        let silent = |trial| self.reply(trial) == Some(Reply::Silence);
        let answered = |trial| self.mapped(trial).is_some();
        match trial {
            Trial::Connect => true,
            Trial::Second => answered(Trial::Connect),
            Trial::FilterBoth | Trial::MapAddress => self.other().is_some(),
            Trial::FilterPort => silent(Trial::FilterBoth),
            Trial::MapBoth => answered(Trial::MapAddress),
            Trial::Control => {
                silent(Trial::FilterPort)
                    && self.mapped(Trial::MapBoth) == self.mapped(Trial::Connect)
            }
            Trial::Hairpin => self.is_translated() == Some(true) && answered(Trial::Second),
            // Loopback has no fragments.
            Trial::Fragments => {
                answered(Trial::Connect) && Scope::of(self.server.ip()) > Scope::Machine
            }
        }
    }

    /// The datagrams of a trial, one per transaction.
    fn datagrams(&self, trial: Trial, mut id: impl FnMut() -> Id) -> Vec<(Id, Transmit)> {
        let mut datagram =
            |socket: SocketIndex, to: Option<SocketAddr>, make: fn(Id) -> Request| {
                let id = id();
                Some((id, Transmit { socket, to: to?, bytes: make(id).bare_bytes() }))
            };
        let server = Some(self.server);
        let other = self.other();
        let other_address = other.map(|other| SocketAddr::new(other.ip(), self.server.port()));
        let made = match trial {
            Trial::Connect => vec![datagram(0, server, Request::binding)],
            Trial::Second => vec![datagram(1, server, Request::binding)],
            Trial::FilterBoth | Trial::Control => {
                vec![datagram(0, server, |id| Request::binding(id).change(true, true))]
            }
            Trial::FilterPort => {
                vec![datagram(0, server, |id| Request::binding(id).change(false, true))]
            }
            Trial::MapAddress => vec![datagram(0, other_address, Request::binding)],
            Trial::MapBoth => vec![datagram(0, other, Request::binding)],
            // Each way, for a NAT may have to see one before it lets the other in.
            Trial::Hairpin => vec![
                datagram(0, self.mapped(Trial::Second), Request::binding),
                datagram(1, self.mapped(Trial::Connect), Request::binding),
            ],
            Trial::Fragments => {
                vec![datagram(0, server, |id| Request::binding(id).padding(PADDING_BYTES))]
            }
        };
        made.into_iter().flatten().collect()
    }
}

/// Whether a server's OTHER-ADDRESS is another address and port that clients of it can reach.
pub(super) fn can_be_other(other: SocketAddr, server: SocketAddr) -> bool {
    other.is_ipv4() == server.is_ipv4()
        && other.ip() != server.ip()
        && other.port() != server.port()
        && Scope::of(other.ip()) >= Scope::of(server.ip())
}

/// The machine. Time is counted from whenever the driver likes.
#[derive(Debug)]
pub struct Discovery {
    facts: Facts,
    timeout: Duration,
    random: StdRng,
    trial: Option<Trial>,
    transactions: Vec<Transaction>,
}

impl Discovery {
    /// Begins to examine what lies between two sockets with these local addresses and a server;
    /// a trial counts as unanswered after `timeout`.
    #[must_use]
    pub fn new(
        server: SocketAddr,
        locals: [SocketAddr; SOCKETS],
        timeout: Duration,
        now: Duration,
        seed: u64,
    ) -> Self {
        let facts = Facts { server, locals, replies: Vec::new() };
        let random = StdRng::seed_from_u64(seed);
        let mut discovery = Self { facts, timeout, random, trial: None, transactions: Vec::new() };
        discovery.go_on(now);
        discovery
    }

    /// The next datagram to be sent now.
    pub fn poll_transmit(&mut self, now: Duration) -> Option<Transmit> {
        self.transactions.iter_mut().find_map(|transaction| transaction.transmit(now))
    }

    /// When to call [`Self::handle_timeout`] at the latest; none when all is known.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.transactions.iter().map(Transaction::wakes).min()
    }

    /// Ends a trial whose time is over.
    pub fn handle_timeout(&mut self, now: Duration) {
        if self.transactions.iter().any(|transaction| transaction.is_over(now)) {
            self.conclude(Reply::Silence, now);
        }
    }

    /// Takes a datagram that arrived.
    pub fn handle_datagram(&mut self, from: SocketAddr, bytes: &[u8], now: Duration) {
        let Some(answer) = Answer::parse(bytes) else { return };
        // Late answers to earlier trials are many, and say nothing here.
        let ours = self.transactions.iter().any(|open| open.id == answer.id());
        let is_wanted = match self.trial {
            Some(Trial::Hairpin) => answer.is_binding_request(),
            _ => answer.is_response(),
        };
        if !ours || !is_wanted {
            return;
        }
        let reply = match answer.error() {
            Some((code, _)) => Reply::Refused(code),
            None => Reply::Answer {
                from,
                mapped: answer.mapped(),
                other: answer.other(),
                padded: answer.has_padding(),
            },
        };
        self.conclude(reply, now);
    }

    /// The trial under way, and how long it may take; none when all is known.
    #[must_use]
    pub fn trial(&self) -> Option<(Trial, Duration)> {
        Some((self.trial?, self.timeout))
    }

    /// What has been seen so far.
    #[must_use]
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// What it means.
    #[must_use]
    pub fn report(&self) -> Report {
        Report::of(&self.facts)
    }

    fn conclude(&mut self, reply: Reply, now: Duration) {
        self.facts.replies.extend(self.trial.map(|trial| (trial, reply)));
        self.go_on(now);
    }

    fn go_on(&mut self, now: Duration) {
        self.trial = self.facts.next();
        let random = &mut self.random;
        let datagrams = self.trial.map(|trial| self.facts.datagrams(trial, || random.random()));
        self.transactions = datagrams
            .into_iter()
            .flatten()
            .map(|(id, datagram)| Transaction::new(id, datagram, now, self.timeout))
            .collect();
    }
}
