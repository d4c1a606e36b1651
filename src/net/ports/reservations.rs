//! Ports that wait for who knows their token (RFC 8656 §7.2). As many as there are ports, at most.

use std::collections::{BTreeSet, HashMap};
use std::time::Instant;

use crate::net::quota::QuotaLease;
use crate::stun::attribute::ReservationToken;

type Token = [u8; 8];

/// Found by token, and in the order they end.
#[derive(Debug, Default)]
pub(super) struct Reservations {
    by_token: HashMap<Token, Reserved>,
    deadlines: BTreeSet<(Instant, Token)>,
}

/// One of them.
#[derive(Debug)]
pub(super) struct Reserved {
    pub(super) port: u16,
    /// Of whoever reserved it.
    pub(super) quota: QuotaLease,
    pub(super) until: Instant,
}

impl Reservations {
    /// Takes one in, under a token that is not in use.
    pub(super) fn insert(&mut self, token: ReservationToken, reserved: Reserved) {
        self.deadlines.insert((reserved.until, token.0));
        self.by_token.insert(token.0, reserved);
    }

    pub(super) fn contains(&self, token: ReservationToken) -> bool {
        self.by_token.contains_key(&token.0)
    }

    pub(super) fn remove(&mut self, token: ReservationToken) -> Option<Reserved> {
        let reserved = self.by_token.remove(&token.0)?;
        self.deadlines.remove(&(reserved.until, token.0));
        Some(reserved)
    }

    /// The same, if it is of this account.
    pub(super) fn claim(&mut self, token: ReservationToken, account: &str) -> Option<Reserved> {
        let reserved = self.by_token.get(&token.0)?;
        if reserved.quota.account() != account {
            return None;
        }
        self.remove(token)
    }

    /// One whose time is over.
    pub(super) fn pop_expired(&mut self, now: Instant) -> Option<Reserved> {
        let &(until, token) = self.deadlines.first()?;
        if until > now {
            return None;
        }
        self.remove(ReservationToken(token))
    }

    pub(super) fn len(&self) -> usize {
        self.by_token.len()
    }
}
