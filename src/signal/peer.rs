//! One peer: an id, and who holds it. A peer outlives its connection by the resume window.

use std::collections::VecDeque;
use std::time::Instant;

use slotmap::new_key_type;
use subtle::ConstantTimeEq;

use super::connection::ConnectionId;
use super::{KEEP, KEPT_BYTES, KEPT_MESSAGES, RESUME_WINDOW, Text};

new_key_type! {
    pub(super) struct PeerKey;
}

#[derive(Debug)]
pub(super) struct Peer {
    pub(super) id: Text,
    /// Proves that a new connection is the same client.
    pub(super) secret: String,
    pub(super) rooms: Vec<Text>,
    /// Whether it has joined without a room, and so can be reached by all who did.
    pub(super) in_the_open: bool,
    pub(super) presence: Presence,
}

#[derive(Debug)]
pub(super) enum Presence {
    Here(ConnectionId),
    Lost(Lost),
}

/// A peer without a connection, and what waits for it.
#[derive(Debug)]
pub(super) struct Lost {
    pub(super) until: Instant,
    pub(super) kept: VecDeque<Kept>,
    pub(super) bytes: usize,
}

/// A message for a lost peer.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) text: Text,
    pub(super) until: Instant,
    /// Who is told when nobody comes for it; of a broadcast, nobody.
    pub(super) sender: Option<PeerKey>,
}

impl Peer {
    pub(super) fn connection(&self) -> Option<ConnectionId> {
        match self.presence {
            Presence::Here(connection) => Some(connection),
            Presence::Lost(_) => None,
        }
    }

    pub(super) fn is_secret(&self, secret: &str) -> bool {
        self.secret.as_bytes().ct_eq(secret.as_bytes()).into()
    }

    /// Whether the two have a place in common: a room, or the open.
    pub(super) fn meets(&self, other: &Self) -> bool {
        (self.in_the_open && other.in_the_open)
            || self.rooms.iter().any(|room| other.rooms.contains(room))
    }

    pub(super) fn is_in(&self, room: &str) -> bool {
        self.rooms.iter().any(|own| **own == *room)
    }

    /// Of two peers, exactly one is polite towards the other.
    pub(super) fn is_polite_to(&self, other: &Self) -> bool {
        self.id > other.id
    }
}

impl Lost {
    pub(super) fn new(now: Instant) -> Self {
        Self { until: now + RESUME_WINDOW, kept: VecDeque::new(), bytes: 0 }
    }

    /// Keeps a message, or says that there is no room for it.
    pub(super) fn keep(&mut self, text: Text, sender: Option<PeerKey>, now: Instant) -> bool {
        if self.kept.len() >= KEPT_MESSAGES || self.bytes + text.len() > KEPT_BYTES {
            return false;
        }
        self.bytes += text.len();
        self.kept.push_back(Kept { text, until: now + KEEP, sender });
        true
    }

    /// Takes out a message nobody came for.
    pub(super) fn pop_expired(&mut self, now: Instant) -> Option<Kept> {
        self.kept.front().filter(|kept| kept.until <= now)?;
        let kept = self.kept.pop_front()?;
        self.bytes -= kept.text.len();
        Some(kept)
    }

    pub(super) fn deadline(&self) -> Instant {
        self.kept.front().map_or(self.until, |kept| kept.until.min(self.until))
    }
}
