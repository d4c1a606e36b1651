//! The hub: connections, timeouts, and the way out.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ahash::RandomState;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::Serialize;
use slotmap::SlotMap;

use super::connection::{CloseReason, Connection, ConnectionId};
use super::message::{Ice, Incoming, Outgoing, Problem, Said};
use super::peer::{Peer, PeerKey, Presence};
use super::rates::Rates;
use super::room::Rooms;
use super::stats::Stats;
use super::timers::Timers;
use super::{
    Account, Authority, CONNECTIONS, CONNECTIONS_PER_SOURCE, Config, Grant, HEARTBEAT, IceServers,
    JOIN_COST, JOINS_PER_SECOND, Text,
};

/// What the driver is to do.
#[derive(Clone, Debug)]
pub enum Action {
    /// Send a text message.
    Send {
        /// To this connection.
        to: ConnectionId,
        /// What to send.
        text: Arc<str>,
    },
    /// Send a ping.
    Ping {
        /// To this connection.
        to: ConnectionId,
    },
    /// Say goodbye and close. The hub has forgotten the connection already.
    Close {
        /// Which one.
        connection: ConnectionId,
        /// Why.
        reason: CloseReason,
        /// The last message.
        bye: Arc<str>,
    },
}

/// Why a connection is not admitted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Refused {
    /// There are as many as there may be.
    Full,
    /// There are as many from this source as there may be.
    SourceFull,
}

/// Whose time has come.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(super) enum Due {
    Connection(ConnectionId),
    Peer(PeerKey),
}

/// Peers, rooms, and the connections they are reached by.
pub struct Hub {
    pub(super) config: Config,
    pub(super) authority: Arc<dyn Authority>,
    pub(super) connections: SlotMap<ConnectionId, Connection>,
    sources: HashMap<u64, usize, RandomState>,
    pub(super) peers: SlotMap<PeerKey, Peer>,
    pub(super) ids: HashMap<Text, PeerKey, RandomState>,
    pub(super) rooms: Rooms,
    pub(super) joins: Rates,
    pub(super) timers: Timers<Due>,
    actions: VecDeque<Action>,
    pub(super) kept_bytes: usize,
    pub(super) stats: Stats,
    rng: StdRng,
}

impl Hub {
    /// An empty hub. `seed` keys the hash tables and makes ids and secrets; take it from the
    /// system's randomness.
    #[must_use]
    pub fn new(config: Config, authority: Arc<dyn Authority>, seed: [u8; 32]) -> Self {
        let mut rng = StdRng::from_seed(seed);
        let mut hasher = || {
            RandomState::with_seeds(rng.next_u64(), rng.next_u64(), rng.next_u64(), rng.next_u64())
        };
        Self {
            config,
            authority,
            connections: SlotMap::with_key(),
            sources: HashMap::with_hasher(hasher()),
            peers: SlotMap::with_key(),
            ids: HashMap::with_hasher(hasher()),
            rooms: Rooms::new(hasher()),
            joins: Rates::new(
                Duration::from_secs(1) / JOINS_PER_SECOND,
                JOINS_PER_SECOND * 5,
                hasher(),
            ),
            timers: Timers::new(hasher()),
            actions: VecDeque::new(),
            kept_bytes: 0,
            stats: Stats::default(),
            rng,
        }
    }

    /// Admits a connection; `grant` is what the token says that it came with.
    ///
    /// # Errors
    /// When there are too many, in all or from this source.
    pub fn connected(
        &mut self,
        source: IpAddr,
        grant: Option<Grant>,
        now: Instant,
    ) -> Result<ConnectionId, Refused> {
        if self.connections.len() >= CONNECTIONS {
            return Err(Refused::Full);
        }
        let limit = match self.config.connections_per_source {
            0 => CONNECTIONS_PER_SOURCE,
            limit => limit,
        };
        if is_counted(source) {
            let open = self.sources.entry(source_prefix(source)).or_default();
            if *open >= limit {
                return Err(Refused::SourceFull);
            }
            *open += 1;
        }
        let connection = self.connections.insert(Connection::new(source, grant, now));
        self.stats.connections_total += 1;
        self.rearm(connection);
        Ok(connection)
    }

    /// Handles one text message.
    pub fn handle_text(&mut self, connection: ConnectionId, text: &str, now: Instant) {
        if !self.take(connection, 1, now) {
            return;
        }
        if let Err(problem) = self.handle(connection, text, now) {
            self.refuse(connection, problem);
        }
    }

    /// Handles a ping or pong of the WebSocket protocol: a sign of life, at the price of a message.
    pub fn handle_control(&mut self, connection: ConnectionId, now: Instant) {
        self.take(connection, 1, now);
    }

    /// Forgets a connection that ended. The peer of one that was lost may resume.
    pub fn disconnected(&mut self, connection: ConnectionId, reason: CloseReason, now: Instant) {
        if self.forget(connection, reason.is_loss(), now) {
            self.stats.count_closed(reason);
        }
    }

    /// Closes a connection whose messages pile up at the driver.
    pub fn overflowed(&mut self, connection: ConnectionId, now: Instant) {
        self.close(connection, CloseReason::Slow, now);
    }

    /// Closes every connection. Nobody is said to have left: calls go on without a server, and who
    /// is in them will be back with the next one.
    pub fn shut_down(&mut self, now: Instant) {
        let all: Vec<_> = self.connections.keys().collect();
        all.into_iter().for_each(|connection| self.close(connection, CloseReason::Shutdown, now));
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(due) = self.timers.pop(now) {
            match due {
                Due::Connection(connection) => self.connection_due(connection, now),
                Due::Peer(peer) => self.peer_due(peer, now),
            }
        }
    }

    /// When to call [`Hub::handle_timeout`].
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// What to do next. To be asked after each call until there is nothing.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// What it has done, and what it holds now.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let lost = self.peers.values().filter_map(|peer| match &peer.presence {
            Presence::Here(_) => None,
            Presence::Lost(lost) => Some(lost.kept.len()),
        });
        Stats {
            connections: self.connections.len(),
            peers: self.peers.len(),
            lost_peers: lost.clone().count(),
            kept_messages: lost.sum(),
            rooms: self.rooms.len(),
            ..self.stats.clone()
        }
    }

    /// Whether it holds nothing at all, not even in its indexes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.connections.is_empty()
            && self.sources.is_empty()
            && self.peers.is_empty()
            && self.ids.is_empty()
            && self.rooms.len() == 0
            && self.timers.len() == 0
            && self.actions.is_empty()
            && self.kept_bytes == 0
    }

    fn handle(&mut self, from: ConnectionId, text: &str, now: Instant) -> Result<(), Problem> {
        let incoming = Incoming::parse(text)?;
        match &*incoming.kind {
            "join" if self.take(from, JOIN_COST, now) => self.join(from, &incoming, now),
            // It was too much, and the connection is closed.
            "join" => Ok(()),
            "leave" => self.leave(from, &incoming, now),
            "ping" => {
                self.send(from, Outgoing::server("pong", incoming.payload).text());
                Ok(())
            }
            "ice-servers" => self.hand_out_ice_servers(from, now),
            _ if incoming.is_reserved() => Err(Problem::ReservedType),
            _ => self.relay(from, &incoming, now),
        }
    }

    /// Takes the price of a message; a connection that cannot pay is closed.
    fn take(&mut self, connection: ConnectionId, cost: u32, now: Instant) -> bool {
        let Some(own) = self.connections.get_mut(connection) else { return false };
        let paid = own.take(cost, now);
        if !paid {
            self.close(connection, CloseReason::RateLimited, now);
        }
        paid
    }

    fn hand_out_ice_servers(&mut self, to: ConnectionId, now: Instant) -> Result<(), Problem> {
        self.connections.get(to).and_then(|own| own.peer).ok_or(Problem::NotJoined)?;
        let ice = self.ice_servers(to, now).ok_or(Problem::RateLimited)?;
        let payload = Ice { ice_servers: &ice.json, ttl: ice.ttl.as_secs() };
        self.send(to, Outgoing::server("ice-servers", payload).text());
        Ok(())
    }

    /// ICE servers for a connection, and the time to renew them.
    pub(super) fn ice_servers(
        &mut self,
        connection: ConnectionId,
        now: Instant,
    ) -> Option<IceServers> {
        let own = self.connections.get_mut(connection)?;
        let user = own.grant.as_ref().map(|grant| Account::User(&grant.user));
        let account = user.unwrap_or(Account::Guest(own.source));
        let ice = self.authority.ice_servers(account, own.valid_for(now))?;
        // Early enough that calls in progress never see them expire.
        own.renew_at = now.checked_add(ice.ttl * 3 / 4);
        self.stats.ice_servers += 1;
        self.rearm(connection);
        Some(ice)
    }

    fn connection_due(&mut self, connection: ConnectionId, now: Instant) {
        let Some(own) = self.connections.get_mut(connection) else { return };
        if let Some(reason) = own.overdue(now) {
            return self.close(connection, reason, now);
        }
        if own.ping_at <= now {
            own.ping_at = now + HEARTBEAT;
            self.actions.push_back(Action::Ping { to: connection });
        }
        if own.renew_at.is_some_and(|at| at <= now) {
            // Asked too often of late: a little later then.
            own.renew_at = Some(now + HEARTBEAT);
            if let Err(problem) = self.hand_out_ice_servers(connection, now) {
                self.stats.count_problem(problem);
            }
        }
        self.rearm(connection);
    }

    /// Says goodbye, and forgets.
    pub(super) fn close(&mut self, connection: ConnectionId, reason: CloseReason, now: Instant) {
        if !self.forget(connection, reason.is_loss(), now) {
            return;
        }
        self.stats.count_closed(reason);
        let said = Said { code: reason.code(), message: reason.message(), target: None };
        let bye = Outgoing::server("bye", said).text();
        self.actions.push_back(Action::Close { connection, reason, bye });
    }

    /// Drops a connection and what hangs on it; false where there is none.
    fn forget(&mut self, connection: ConnectionId, keep_peer: bool, now: Instant) -> bool {
        let Some(own) = self.connections.remove(connection) else { return false };
        self.timers.clear(Due::Connection(connection));
        if is_counted(own.source) {
            let prefix = source_prefix(own.source);
            if let Some(open) = self.sources.get_mut(&prefix) {
                *open -= 1;
                if *open == 0 {
                    self.sources.remove(&prefix);
                }
            }
        }
        match own.peer {
            Some(peer) if keep_peer => self.lose(peer, now),
            Some(peer) => self.remove_peer(peer),
            None => {}
        }
        true
    }

    pub(super) fn rearm(&mut self, connection: ConnectionId) {
        if let Some(own) = self.connections.get(connection) {
            self.timers.set(Due::Connection(connection), own.deadline());
        }
    }

    pub(super) fn send(&mut self, to: ConnectionId, text: Text) {
        self.actions.push_back(Action::Send { to, text });
    }

    /// Tells a client what it did wrong.
    pub(super) fn refuse(&mut self, connection: ConnectionId, problem: Problem) {
        self.refuse_for(connection, problem, None);
    }

    /// The same with the id that its message was for.
    pub(super) fn refuse_for(&mut self, to: ConnectionId, problem: Problem, target: Option<&str>) {
        let Some(own) = self.connections.get(to) else { return };
        self.stats.count_problem(problem);
        let id = own.peer.and_then(|peer| self.peers.get(peer)).map(|peer| Text::clone(&peer.id));
        let said = Said { code: problem.code(), message: problem.message(), target };
        self.send_server(to, "error", said, id.as_deref());
    }

    fn send_server(
        &mut self,
        to: ConnectionId,
        kind: &str,
        payload: impl Serialize,
        id: Option<&str>,
    ) {
        self.send(to, Outgoing::server(kind, payload).to(id).text());
    }

    /// 128 bits that nobody can guess.
    pub(super) fn random_name(&mut self) -> String {
        let mut bytes = [0; 16];
        self.rng.fill_bytes(&mut bytes);
        URL_SAFE_NO_PAD.encode(bytes)
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

/// See [`CONNECTIONS_PER_SOURCE`].
pub(super) fn is_counted(source: IpAddr) -> bool {
    !source.to_canonical().is_loopback()
}

/// One subscriber: an IPv4 address, or the /64 an IPv6 host picks its addresses from.
pub(super) fn source_prefix(source: IpAddr) -> u64 {
    match source.to_canonical() {
        IpAddr::V4(ip) => u64::from(ip.to_bits()),
        IpAddr::V6(ip) => (ip.to_bits() >> 64) as u64,
    }
}
