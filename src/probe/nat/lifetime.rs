//! How long a NAT remembers a port nobody uses: RFC 5780 §4.6.
//!
//! Many ports are left alone at once, each for another time, so that the search takes as long as
//! the longest time and not the sum of a binary search's. A later search on the same NAT may find
//! something else: RFC 5780 §4.6 explains why.

use std::net::SocketAddr;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::transaction::{SocketIndex, Transaction, Transmit};
use crate::probe::message::{Answer, Id, Request};

/// The times that are tried, as parts of the longest one: each a third longer than the one before.
const STEPS: usize = 12;
const STEP: f64 = 0.75;
/// The socket that asks for answers to other sockets.
const ASKER: SocketIndex = 0;
/// The socket that shows whether the server can send them.
const SAMPLE: SocketIndex = 1;

/// How it was found out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Method {
    /// The server sent to a port that had been silent: RESPONSE-PORT.
    ResponsePort,
    /// The silent port asked again and was told another mapped address. Only for NATs that do not
    /// give the same port out again.
    Remapped,
}

/// How long a binding lives.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Lifetime {
    /// Measured: still there after one time, gone after the other (none: still there at the end).
    Between(Duration, Option<Duration>, Method),
    /// The server has no RESPONSE-PORT, and the NAT keeps port numbers.
    NotMeasurable,
    /// The server stopped answering.
    NoAnswer,
}

/// A port that is left alone.
#[derive(Debug)]
struct Sleeper {
    after: Duration,
    mapped: Option<SocketAddr>,
    /// How long it has really been silent when it was asked about.
    silent: Duration,
    alive: Option<bool>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    /// Every socket learns its mapped address.
    Open,
    /// Does the server know RESPONSE-PORT?
    Sample {
        since: Duration,
    },
    /// Waiting, and asking for each in its time.
    Wait {
        method: Method,
        since: Duration,
    },
    Done(Lifetime),
}

/// The search, as a machine of datagrams and time. Time is counted from whenever the driver likes.
#[derive(Debug)]
pub struct LifetimeSearch {
    server: SocketAddr,
    locals: Vec<SocketAddr>,
    timeout: Duration,
    random: StdRng,
    phase: Phase,
    mapped: Vec<Option<SocketAddr>>,
    sleepers: Vec<Sleeper>,
    /// With the socket whose binding it is about.
    transactions: Vec<(SocketIndex, Transaction)>,
}

impl LifetimeSearch {
    /// The sockets it needs.
    pub const SOCKETS: usize = STEPS + 2;

    /// Begins a search up to `longest` with sockets of these local addresses, which must not have
    /// been used before.
    #[must_use]
    pub fn new(
        server: SocketAddr,
        locals: [SocketAddr; Self::SOCKETS],
        longest: Duration,
        timeout: Duration,
        now: Duration,
        seed: u64,
    ) -> Self {
        let sleeper = |step: i32| Sleeper {
            after: longest.mul_f64(STEP.powi(STEPS as i32 - 1 - step)),
            mapped: None,
            silent: Duration::ZERO,
            alive: None,
        };
        let mut search = Self {
            server,
            locals: locals.to_vec(),
            timeout,
            random: StdRng::seed_from_u64(seed),
            phase: Phase::Open,
            mapped: vec![None; Self::SOCKETS],
            sleepers: (0..STEPS as i32).map(sleeper).collect(),
            transactions: Vec::new(),
        };
        for socket in 0..Self::SOCKETS {
            search.ask(socket, socket, now, Request::binding);
        }
        search
    }

    /// The result; none while it goes on.
    #[must_use]
    pub fn result(&self) -> Option<Lifetime> {
        match self.phase {
            Phase::Done(lifetime) => Some(lifetime),
            Phase::Open | Phase::Sample { .. } | Phase::Wait { .. } => None,
        }
    }

    /// The next datagram to be sent now.
    pub fn poll_transmit(&mut self, now: Duration) -> Option<Transmit> {
        self.wake(now);
        self.transactions.iter_mut().find_map(|(_, transaction)| transaction.transmit(now))
    }

    /// When to call [`Self::handle_timeout`] at the latest; none when the result is there.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        if self.result().is_some() {
            return None;
        }
        let transactions = self.transactions.iter().map(|(_, it)| it.wakes());
        transactions.chain(self.next_wake()).min()
    }

    /// Ends what has taken too long.
    pub fn handle_timeout(&mut self, now: Duration) {
        let (over, open) =
            self.transactions.drain(..).partition(|(_, transaction)| transaction.is_over(now));
        self.transactions = open;
        let over: Vec<(SocketIndex, Transaction)> = over;
        for (about, _) in over {
            self.conclude(about, None, now);
        }
        self.wake(now);
    }

    /// Takes a datagram that arrived at a socket.
    pub fn handle_datagram(&mut self, at: SocketIndex, bytes: &[u8], now: Duration) {
        let Some(answer) = Answer::parse(bytes).filter(Answer::is_response) else { return };
        let found = self.transactions.iter().position(|(_, it)| it.id == answer.id());
        let Some(index) = found else { return };
        let (about, _) = self.transactions.swap_remove(index);
        // An answer at the asker's own port came back to the one that asked.
        let mapped = answer.mapped().filter(|_| answer.is_success() && at == about);
        self.conclude(about, mapped, now);
    }

    fn ask(
        &mut self,
        from: SocketIndex,
        about: SocketIndex,
        now: Duration,
        make: impl FnOnce(Id) -> Request,
    ) {
        let id = self.random.random();
        let bytes = make(id).bare_bytes();
        let datagram = Transmit { socket: from, to: self.server, bytes };
        self.transactions.push((about, Transaction::new(id, datagram, now, self.timeout)));
    }

    /// Takes in how a transaction ended.
    fn conclude(&mut self, about: SocketIndex, mapped: Option<SocketAddr>, now: Duration) {
        match self.phase {
            Phase::Open => self.opened(about, mapped, now),
            Phase::Sample { since } => {
                self.phase = match self.method(mapped.is_some()) {
                    Some(method) => Phase::Wait { method, since },
                    None => Phase::Done(Lifetime::NotMeasurable),
                };
            }
            Phase::Wait { method, .. } => {
                let sleeper = &mut self.sleepers[about - SAMPLE - 1];
                sleeper.alive = Some(match method {
                    Method::ResponsePort => mapped.is_some(),
                    Method::Remapped => mapped.is_some() && mapped == sleeper.mapped,
                });
                if self.sleepers.iter().all(|sleeper| sleeper.alive.is_some()) {
                    self.phase = Phase::Done(self.conclusion(method));
                }
            }
            Phase::Done(_) => {}
        }
    }

    fn opened(&mut self, socket: SocketIndex, mapped: Option<SocketAddr>, now: Duration) {
        let Some(mapped) = mapped else {
            self.transactions.clear();
            self.phase = Phase::Done(Lifetime::NoAnswer);
            return;
        };
        self.mapped[socket] = Some(mapped);
        if !self.transactions.is_empty() {
            return;
        }
        for (sleeper, mapped) in self.sleepers.iter_mut().zip(&self.mapped[SAMPLE + 1..]) {
            sleeper.mapped = *mapped;
        }
        self.phase = Phase::Sample { since: now };
        if let Some(sample) = self.mapped[SAMPLE] {
            self.ask(ASKER, SAMPLE, now, |id| Request::binding(id).response_port(sample.port()));
        }
    }

    fn method(&self, answered: bool) -> Option<Method> {
        let kept = |(mapped, local): (&Option<SocketAddr>, &SocketAddr)| {
            mapped.is_some_and(|mapped| mapped.port() == local.port())
        };
        if answered {
            return Some(Method::ResponsePort);
        }
        // A port that is kept would be the same one after a new binding, too.
        let none_kept = !self.mapped.iter().zip(&self.locals).any(kept);
        none_kept.then_some(Method::Remapped)
    }

    fn next_wake(&self) -> Option<Duration> {
        let Phase::Wait { since, .. } = self.phase else { return None };
        self.sleeping().map(|(_, sleeper)| since + sleeper.after).min()
    }

    /// Those that nobody has asked about yet.
    fn sleeping(&self) -> impl Iterator<Item = (SocketIndex, &Sleeper)> {
        let asked = |socket| self.transactions.iter().any(|(about, _)| *about == socket);
        (SAMPLE + 1..)
            .zip(&self.sleepers)
            .filter(move |(socket, sleeper)| sleeper.alive.is_none() && !asked(*socket))
    }

    /// Asks about those whose time has come.
    fn wake(&mut self, now: Duration) {
        let Phase::Wait { method, since } = self.phase else { return };
        let due: Vec<_> = self
            .sleeping()
            .filter(|(_, sleeper)| now >= since + sleeper.after)
            .filter_map(|(socket, sleeper)| Some((socket, sleeper.mapped?.port())))
            .collect();
        for (socket, port) in due {
            self.sleepers[socket - SAMPLE - 1].silent = now.saturating_sub(since);
            match method {
                Method::ResponsePort => {
                    self.ask(ASKER, socket, now, |id| Request::binding(id).response_port(port));
                }
                Method::Remapped => self.ask(socket, socket, now, Request::binding),
            }
        }
    }

    fn conclusion(&self, method: Method) -> Lifetime {
        let gone = self.sleepers.iter().find(|sleeper| sleeper.alive != Some(true));
        let below = gone.map(|sleeper| sleeper.silent);
        let alive = self.sleepers.iter().take_while(|sleeper| sleeper.alive == Some(true));
        let at_least = alive.last().map_or(Duration::ZERO, |sleeper| sleeper.silent);
        Lifetime::Between(at_least, below, method)
    }
}
