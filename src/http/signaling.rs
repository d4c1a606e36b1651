//! The hub's driver: one hub for all WebSocket connections, and what waits for each of them.
//!
//! The hub is behind a lock that is held for one message at a time, and never while anything is
//! awaited. It lives on the threads of HTTP, away from the packets.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use ahash::RandomState;
use axum::Router;
use axum::routing::get;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use slotmap::SecondaryMap;
use tokio::sync::Notify;
use tokio::time::{sleep_until, timeout};

use super::CLOSE_TIMEOUT;
use super::credentials::{self, ApiToken, Issuer, Source};
use super::origin::Origins;
use super::token::Keys;
use super::ws;
use crate::signal::{
    self, Action, CloseReason, ConnectionId, Grant, Hub, OUTBOUND_BYTES, OUTBOUND_BYTES_IN_ALL,
    OUTBOUND_MESSAGES, Refused, Stats, UNREAD,
};
use crate::turn::Now;

/// Who may signal, and what they get.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// The hub's own.
    pub hub: signal::Config,
    /// The pages that are let in.
    pub origins: Origins,
    /// What verifies tokens.
    pub keys: Keys,
    /// What credentials are made of.
    pub source: Source,
    /// Lets a web service ask for any user's credentials; `None`: none does.
    pub api_token: Option<ApiToken>,
}

/// The signaling of a server that runs.
#[derive(Debug)]
pub struct Signaling {
    pub(super) origins: Origins,
    pub(super) open: bool,
    pub(super) api_token: Option<ApiToken>,
    pub(super) issuer: Arc<Issuer>,
    pub(super) refused: Refusals,
    state: Mutex<State>,
    /// The hub's next timeout is sooner than it was.
    sooner: Notify,
    /// The last connection has ended.
    empty: Notify,
}

/// What the handlers see.
pub(super) type Shared = Arc<Signaling>;

#[derive(Debug)]
struct State {
    hub: Hub,
    outboxes: SecondaryMap<ConnectionId, Outbox>,
    queued_bytes: usize,
    /// As many may be queued.
    queued_bytes_max: usize,
}

/// What waits for one connection.
#[derive(Debug)]
struct Outbox {
    queue: VecDeque<Outbound>,
    bytes: usize,
    /// When the first in the queue came to be it.
    first_since: Instant,
    /// Nothing more is to wait: the hub has been told to close it.
    is_given_up: bool,
    end: Option<End>,
    bell: Arc<Bell>,
}

/// Something to send.
#[derive(Debug)]
pub(super) enum Outbound {
    Text(Arc<str>),
    Ping,
}

/// How the hub ends a connection.
#[derive(Debug)]
pub(super) struct End {
    pub(super) reason: CloseReason,
    pub(super) bye: Arc<str>,
}

/// Wakes a connection's task.
#[derive(Debug, Default)]
pub(super) struct Bell {
    /// There is something to send.
    pub(super) send: Notify,
    /// There is an [`End`].
    pub(super) end: Notify,
}

/// Attempts to connect that never reached the hub.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    pub(super) origin: AtomicU64,
    pub(super) handshake: AtomicU64,
    pub(super) token: AtomicU64,
    pub(super) full: AtomicU64,
    pub(super) source_full: AtomicU64,
}

/// What metrics show.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    pub(super) hub: Stats,
    /// Attempts to connect that were refused, by reason.
    pub(super) refused: [(&'static str, u64); 5],
}

impl Signaling {
    /// An empty one. `urls` are what clients reach the server by; `seed` keys
    /// tables, and makes ids and secrets.
    #[must_use]
    pub fn new(config: Config, urls: Vec<String>, clock: fn() -> Now, seed: [u8; 32]) -> Self {
        let Config { hub, origins, keys, source, api_token } = config;
        let mut rng = StdRng::from_seed(seed);
        let hasher =
            RandomState::with_seeds(rng.random(), rng.random(), rng.random(), rng.random());
        let issuer = Arc::new(Issuer::new(keys, source, urls, clock, hasher));
        let authority = Arc::clone(&issuer) as Arc<dyn signal::Authority>;
        let state = State {
            hub: Hub::new(hub, authority, rng.random()),
            outboxes: SecondaryMap::new(),
            queued_bytes: 0,
            queued_bytes_max: match hub.outbound_bytes_in_all {
                0 => OUTBOUND_BYTES_IN_ALL,
                max => max,
            },
        };
        Self {
            origins,
            open: hub.open,
            api_token,
            issuer,
            refused: Refusals::default(),
            state: Mutex::new(state),
            sooner: Notify::new(),
            empty: Notify::new(),
        }
    }

    /// Does what is due, for as long as it is polled.
    pub(super) async fn keep_time(&self) {
        loop {
            let next = self.lock().hub.poll_timeout();
            let sooner = self.sooner.notified();
            match next {
                None => sooner.await,
                Some(at) => {
                    let due = sleep_until(at.into());
                    tokio::select! {
                        () = due => self.act(Hub::handle_timeout),
                        () = sooner => {}
                    }
                }
            }
        }
    }

    /// Says goodbye to everybody, and waits until they are gone, but not for long.
    pub(super) async fn stop(&self) {
        self.act(Hub::shut_down);
        let emptied = async {
            loop {
                let empty = self.empty.notified();
                if self.lock().outboxes.is_empty() {
                    return;
                }
                empty.await;
            }
        };
        // Who does not answer is cut off with the runtime.
        let _ = timeout(CLOSE_TIMEOUT, emptied).await;
    }

    /// Admits a connection.
    pub(super) fn connect(
        self: &Arc<Self>,
        source: IpAddr,
        grant: Option<Grant>,
    ) -> Result<Attachment, Refused> {
        let bell = Arc::new(Bell::default());
        let mut id = Err(Refused::Full);
        self.act(|hub, now| id = hub.connected(source, grant, now));
        let id = id?;
        let outbox = Outbox {
            queue: VecDeque::new(),
            bytes: 0,
            first_since: (self.issuer.clock)().instant,
            is_given_up: false,
            end: None,
            bell: Arc::clone(&bell),
        };
        self.lock().outboxes.insert(id, outbox);
        Ok(Attachment { signaling: Arc::clone(self), id, bell, reason: CloseReason::Gone })
    }

    pub(super) fn counts(&self) -> Counts {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let Refusals { origin, handshake, token, full, source_full } = &self.refused;
        Counts {
            hub: self.lock().hub.stats(),
            refused: [
                ("origin", of(origin)),
                ("handshake", of(handshake)),
                ("token", of(token)),
                ("full", of(full)),
                ("source_full", of(source_full)),
            ],
        }
    }

    /// Lets the hub do something, and does what it wants in return.
    fn act(&self, what: impl FnOnce(&mut Hub, Instant)) {
        let mut state = self.lock();
        let before = state.hub.poll_timeout();
        let now = (self.issuer.clock)().instant;
        what(&mut state.hub, now);
        while let Some(action) = state.hub.poll_action() {
            state.carry_out(action, now);
        }
        let after = state.hub.poll_timeout();
        if after.is_some_and(|after| before.is_none_or(|before| after < before)) {
            self.sooner.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn carry_out(&mut self, action: Action, now: Instant) {
        match action {
            Action::Send { to, text } => self.push(to, Outbound::Text(text), now),
            Action::Ping { to } => self.push(to, Outbound::Ping, now),
            Action::Close { connection, reason, bye } => {
                let Some(outbox) = self.outboxes.get_mut(connection) else { return };
                if reason == CloseReason::Slow {
                    self.queued_bytes -= outbox.clear();
                }
                outbox.end = Some(End { reason, bye });
                outbox.bell.end.notify_one();
            }
        }
    }

    fn push(&mut self, to: ConnectionId, item: Outbound, now: Instant) {
        let bytes = item.bytes();
        let Some(outbox) = self.outboxes.get(to) else { return };
        if !outbox.takes(bytes, now) {
            return self.hub.overflowed(to, now);
        }
        self.make_room(bytes, now);
        // It may have had to go itself.
        let Some(outbox) = self.outboxes.get_mut(to).filter(|own| !own.is_given_up) else { return };
        if outbox.queue.is_empty() {
            outbox.first_since = now;
        }
        outbox.queue.push_back(item);
        outbox.bytes += bytes;
        self.queued_bytes += bytes;
        outbox.bell.send.notify_one();
    }

    /// Closes those that most waits for until this many bytes fit in: who lets the most messages wait
    /// must not cost others theirs.
    fn make_room(&mut self, bytes: usize, now: Instant) {
        while self.queued_bytes > 0 && self.queued_bytes + bytes > self.queued_bytes_max {
            let Some((id, largest)) = self.outboxes.iter_mut().max_by_key(|(_, own)| own.bytes)
            else {
                return;
            };
            self.queued_bytes -= largest.clear();
            largest.is_given_up = true;
            self.hub.overflowed(id, now);
        }
    }
}

impl Outbox {
    /// Whether a message of this many bytes may wait in it.
    fn takes(&self, bytes: usize, now: Instant) -> bool {
        let is_read = self.queue.is_empty() || now.duration_since(self.first_since) < UNREAD;
        let fits = self.queue.len() < OUTBOUND_MESSAGES && self.bytes + bytes <= OUTBOUND_BYTES;
        is_read && fits && !self.is_given_up
    }

    /// Forgets what waits, and returns how many bytes that were.
    fn clear(&mut self) -> usize {
        self.queue.clear();
        std::mem::take(&mut self.bytes)
    }
}

impl Outbound {
    fn bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Ping => 0,
        }
    }
}

/// A connection's place in the hub. Dropping it gives it up.
#[derive(Debug)]
pub(super) struct Attachment {
    signaling: Shared,
    id: ConnectionId,
    pub(super) bell: Arc<Bell>,
    /// Why it ends, should it end now.
    pub(super) reason: CloseReason,
}

impl Attachment {
    pub(super) fn handle_text(&self, text: &str) {
        self.signaling.act(|hub, now| hub.handle_text(self.id, text, now));
    }

    pub(super) fn handle_control(&self) {
        self.signaling.act(|hub, now| hub.handle_control(self.id, now));
    }

    /// What to send next.
    pub(super) fn pop(&self) -> Option<Outbound> {
        let now = (self.signaling.issuer.clock)().instant;
        let mut state = self.signaling.lock();
        let outbox = state.outboxes.get_mut(self.id)?;
        let item = outbox.queue.pop_front()?;
        outbox.first_since = now;
        outbox.bytes -= item.bytes();
        state.queued_bytes -= item.bytes();
        Some(item)
    }

    /// The hub's last word.
    pub(super) fn end(&self) -> Option<End> {
        self.signaling.lock().outboxes.get_mut(self.id)?.end.take()
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        self.signaling.act(|hub, now| hub.disconnected(self.id, self.reason, now));
        let mut state = self.signaling.lock();
        if let Some(outbox) = state.outboxes.remove(self.id) {
            state.queued_bytes -= outbox.bytes;
        }
        if state.outboxes.is_empty() {
            self.signaling.empty.notify_one();
        }
    }
}

/// `/ws` and `/ice-servers`.
pub(super) fn routes<S: Clone + Send + Sync + 'static>(signaling: Shared) -> Router<S> {
    let ice_servers = get(credentials::ice_servers)
        .post(credentials::ice_servers)
        .options(credentials::preflight);
    Router::new()
        .route("/ws", get(ws::upgrade))
        .route("/ice-servers", ice_servers)
        .with_state(signaling)
}

#[cfg(test)]
mod tests;
