//! One connection: what it may still say, and until when.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use slotmap::new_key_type;

use super::peer::PeerKey;
use super::rates::Budget;
use super::{
    Config, Grant, HEARTBEAT, JOIN_DEADLINE, MESSAGE_BURST, MESSAGES_PER_SECOND, Rooms, SEPARATOR,
    SERVER, SILENCE,
};

new_key_type! {
    /// One connection, never another one's again.
    pub struct ConnectionId;
}

/// Why a connection ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CloseReason {
    /// It did not join in time.
    NotJoined,
    /// The socket ended without a goodbye.
    Gone,
    /// The client said goodbye.
    Left,
    /// It broke the WebSocket protocol or its limits.
    ProtocolError,
    /// It said more than it may.
    RateLimited,
    /// Another connection took over the id.
    Replaced,
    /// The server stops.
    Shutdown,
    /// Nothing was heard from it.
    Silent,
    /// It reads slower than it is spoken to.
    Slow,
    /// The token it was admitted by is no longer good.
    TokenExpired,
}

impl CloseReason {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 10] = [
        Self::NotJoined,
        Self::Gone,
        Self::Left,
        Self::ProtocolError,
        Self::RateLimited,
        Self::Replaced,
        Self::Shutdown,
        Self::Silent,
        Self::Slow,
        Self::TokenExpired,
    ];

    /// For programs, and the label of the metric.
    #[must_use]
    pub fn code(self) -> &'static str {
        self.words().0
    }

    pub(super) fn message(self) -> &'static str {
        self.words().1
    }

    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::NotJoined => ("not-joined", "No join in time"),
            Self::Gone => ("gone", "The connection ended"),
            Self::Left => ("left", "Goodbye"),
            Self::ProtocolError => ("protocol-error", "Not WebSocket, or too large"),
            Self::RateLimited => ("rate-limited", "Too many messages"),
            Self::Replaced => ("replaced", "Another connection took over this id"),
            Self::Shutdown => ("shutdown", "The server stops"),
            Self::Silent => ("silent", "Nothing heard for too long"),
            Self::Slow => ("slow", "Messages are not read fast enough"),
            Self::TokenExpired => ("token-expired", "The token is no longer good"),
        }
    }

    /// Whether the peer's place is kept for a while: what it could not help, and may come back
    /// from.
    pub(super) fn is_loss(self) -> bool {
        matches!(self, Self::Gone | Self::Shutdown | Self::Silent | Self::Slow | Self::TokenExpired)
    }
}

/// Whether the holder of this grant, or a guest, may be called `id`.
pub(super) fn may_be(grant: Option<&Grant>, id: &str) -> bool {
    let Some(grant) = grant else { return id != SERVER };
    let rest = id.strip_prefix(grant.user.as_str());
    id != SERVER && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(SEPARATOR))
}

/// What the hub knows of a connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) source: IpAddr,
    pub(super) peer: Option<PeerKey>,
    /// What its token says; `None` for a guest.
    pub(super) grant: Option<Grant>,
    pub(super) budget: Budget,
    pub(super) heard: Instant,
    /// Since when it is without a peer.
    pub(super) unjoined: Instant,
    pub(super) ping_at: Instant,
    /// When the token stops being good.
    pub(super) expires: Option<Instant>,
    /// When the ICE servers are to be renewed.
    pub(super) renew_at: Option<Instant>,
}

impl Connection {
    pub(super) fn new(source: IpAddr, grant: Option<Grant>, now: Instant) -> Self {
        let mut connection = Self {
            source,
            peer: None,
            grant: None,
            budget: Budget::new(MESSAGE_BURST, now),
            heard: now,
            unjoined: now,
            ping_at: now + HEARTBEAT,
            expires: None,
            renew_at: None,
        };
        if let Some(grant) = grant {
            connection.admit(grant, now);
        }
        connection
    }

    /// Takes a token's word.
    pub(super) fn admit(&mut self, grant: Grant, now: Instant) {
        // A time beyond what the clock can express never comes.
        self.expires = now.checked_add(grant.valid_for);
        self.grant = Some(grant);
    }

    pub(super) fn take(&mut self, cost: u32, now: Instant) -> bool {
        self.heard = now;
        self.budget.take(cost, MESSAGES_PER_SECOND, MESSAGE_BURST, now)
    }

    /// When the next thing is due.
    pub(super) fn deadline(&self) -> Instant {
        let unjoined = self.peer.is_none().then(|| self.unjoined + JOIN_DEADLINE);
        let due = [unjoined, self.expires, self.renew_at, Some(self.heard + SILENCE)];
        due.into_iter().flatten().fold(self.ping_at, Instant::min)
    }

    /// Why it should end by now.
    pub(super) fn overdue(&self, now: Instant) -> Option<CloseReason> {
        if self.expires.is_some_and(|at| at <= now) {
            return Some(CloseReason::TokenExpired);
        }
        if self.peer.is_none() && self.unjoined + JOIN_DEADLINE <= now {
            return Some(CloseReason::NotJoined);
        }
        (self.heard + SILENCE <= now).then_some(CloseReason::Silent)
    }

    /// How long credentials for it may be good.
    pub(super) fn valid_for(&self, now: Instant) -> Duration {
        self.expires.map_or(Duration::MAX, |at| at.saturating_duration_since(now))
    }

    /// Whether it may join this room, or join without one.
    pub(super) fn may_join(&self, room: Option<&str>, config: &Config) -> bool {
        let Some(grant) = &self.grant else { return config.open };
        match (&grant.rooms, room) {
            (Rooms::All, _) | (Rooms::None, None) => true,
            (Rooms::None, Some(_)) | (Rooms::Only(_), None) => false,
            (Rooms::Only(rooms), Some(room)) => rooms.iter().any(|known| known == room),
        }
    }
}
