//! DTLS clients, on the ports of UDP clients (RFC 7350, RFC 7983): the sessions of one shard.
//!
//! Nothing is remembered of a client before it has sent back a cookie (`cookie`), which this
//! module asks for by itself. Only then OpenSSL gets to see it (`engine`), and of what it sends
//! only what an honest client would (`session`).

mod cookie;
mod engine;
mod hello;
mod record;
mod session;

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ahash::RandomState;
use slotmap::SlotMap;
use tracing::debug;

use cookie::Cookies;
use engine::Wire;
pub(in crate::net) use engine::context;
use hello::ClientHello;
use record::Record;
use session::{Beginning, Heard, Session};

use super::egress::{Egress, Route};
use super::stream::certificates::Certificates;
use super::stream::{ConnectionCount, Kind};
use super::sys;
use super::work::SocketKey;
use crate::turn::shares::Bounds;
use crate::turn::{DropReason, FiveTuple, Now, Server};

/// Handshakes that have not come to an end. Each holds some 50 KB.
const HANDSHAKES: Bounds = Bounds { all: 1024, per_source: 64, per_site: 256 };
/// Sessions that must have ended before it is worth a look for memory to give back, and how long
/// to wait between two looks.
const TRIM_SESSIONS: usize = 32;
const TRIM_INTERVAL: Duration = Duration::from_secs(5);
/// What a ClientHello with a cookie is of all messages of its client (RFC 6347 §4.2.2).
const SECOND_MESSAGE: u16 = 1;

slotmap::new_key_type! {
    /// Names a session; never reused for another one.
    pub(super) struct SessionId;
}

/// What the DTLS sessions of all shards have in common.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    certificates: Arc<Certificates>,
    cookies: Cookies,
    /// How long a session without an allocation may be silent.
    idle: Duration,
    sessions: Arc<ConnectionCount>,
    handshakes: Arc<ConnectionCount>,
}

impl Settings {
    /// `sessions` counts them together with the connections of TCP clients, which cost as much.
    pub(super) fn new(
        certificates: Arc<Certificates>,
        idle: Duration,
        sessions: Arc<ConnectionCount>,
        secret: &[u8; 32],
    ) -> Self {
        let handshakes = Arc::new(ConnectionCount::new(HANDSHAKES));
        let cookies = Cookies::new(secret);
        Self { certificates, cookies, idle, sessions, handshakes }
    }
}

/// A datagram, and where it comes from.
#[derive(Debug)]
pub(super) struct Arrival<'d> {
    pub(super) from: FiveTuple,
    pub(super) back: Route<SocketKey>,
    /// Messages are decrypted in place.
    pub(super) datagram: &'d mut [u8],
    pub(super) now: Now,
}

/// What the datagram of a session brought.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) session: SessionId,
    /// Whether the session has come to its end, behind the messages.
    pub(super) is_last: bool,
}

/// The sessions of one shard.
#[derive(Debug)]
pub(super) struct Sessions {
    settings: Settings,
    wire: Wire,
    slots: SlotMap<SessionId, Session>,
    /// Clients choose the keys, hence a keyed hash.
    by_client: HashMap<FiveTuple, SessionId, RandomState>,
    /// When to look at which session.
    due: BTreeSet<(Instant, SessionId)>,
    /// Where a message to a client is put together.
    message: Vec<u8>,
    /// Clients whose sessions have ended in this turn.
    gone: Vec<FiveTuple>,
    /// Sessions that have ended since memory was last given back, and when it may be next.
    ended: usize,
    next_trim: Option<Instant>,
}

impl Sessions {
    pub(super) fn new(settings: Settings) -> Self {
        let [a, b, c, d] = rand::random();
        let hasher = RandomState::with_seeds(a, b, c, d);
        Self {
            settings,
            wire: Wire::default(),
            slots: SlotMap::with_key(),
            by_client: HashMap::with_hasher(hasher),
            due: BTreeSet::new(),
            message: Vec::new(),
            gone: Vec::new(),
            ended: 0,
            next_trim: None,
        }
    }

    /// Takes in a datagram. Adds to `messages` where in it the messages to TURN are now.
    pub(super) fn hear(
        &mut self,
        arrival: Arrival<'_>,
        messages: &mut Vec<Range<usize>>,
        server: &mut Server,
        egress: &mut Egress<SocketKey>,
    ) -> Option<Opened> {
        // What a panic may have left there.
        self.wire.clear();
        let mut stray = || drop(server.drop(DropReason::DtlsStray));
        let Some(first) = record::read(arrival.datagram, 0) else {
            stray();
            return None;
        };
        if hello::begins(&first, arrival.datagram) {
            if let Err(reason) = self.greet(&arrival, &first, server, egress) {
                drop(server.drop(reason));
            }
            return None;
        }
        let Some(&id) = self.by_client.get(&arrival.from) else {
            stray();
            return None;
        };
        let session = self.slots.get_mut(id)?;
        let (mut at, mut filled, mut is_last) = (0, 0, false);
        while let Some(record) = record::read(arrival.datagram, at).filter(|_| !is_last) {
            at = record.range.end;
            match session.hear(&record, arrival.datagram, filled, arrival.now.instant) {
                Ok(Heard::Message(length)) => {
                    messages.push(filled..filled + length);
                    filled += length;
                }
                Ok(Heard::Nothing) => {}
                Ok(Heard::End) => is_last = true,
                Err(reason) => drop(server.drop(reason)),
            }
            session.drain(|datagram| egress.push_owned(session.back, datagram));
        }
        Some(Opened { session: id, is_last })
    }

    /// Answers a ClientHello: asks for a cookie, or begins a session.
    fn greet(
        &mut self,
        arrival: &Arrival<'_>,
        record: &Record,
        server: &mut Server,
        egress: &mut Egress<SocketKey>,
    ) -> Result<(), DropReason> {
        let Arrival { from, back, ref datagram, now } = *arrival;
        let hello = ClientHello::read(record, datagram).ok_or(DropReason::DtlsStray)?;
        let known = self.by_client.get(&from).copied();
        let is_repeated = |id| self.slots.get(id).is_some_and(|own| own.random == *hello.random);
        if !hello.cookie.is_empty() && known.is_some_and(is_repeated) {
            // The answer is on its way, and will be sent again in time.
            return Err(DropReason::DtlsStray);
        }
        server.admit_stranger(&from, now)?;
        let cookies = &self.settings.cookies;
        if !cookies.verify(&hello, from.client, now.unix_secs) {
            egress.push_owned(back, &cookies.ask(&hello, from.client, now.unix_secs));
            return Ok(());
        }
        if hello.message_seq != SECOND_MESSAGE {
            return Err(DropReason::DtlsStray);
        }
        self.begin(arrival, &hello, &datagram[record.range.clone()], egress)?;
        if let Some(id) = known {
            // A client that has forgotten its session gets another one, now that it is known to
            // be where the first one was (RFC 6347 §4.2.8).
            debug!(client = %from.client, "dtls session replaced");
            self.remove(id);
            self.gone.push(from);
        }
        Ok(())
    }

    fn begin(
        &mut self,
        arrival: &Arrival<'_>,
        hello: &ClientHello<'_>,
        record: &[u8],
        egress: &mut Egress<SocketKey>,
    ) -> Result<(), DropReason> {
        let Arrival { from, back, now, .. } = *arrival;
        let Settings { certificates, sessions, handshakes, .. } = &self.settings;
        let source = from.client.ip();
        let full = |_| DropReason::DtlsFull;
        let handshake = handshakes.take(source).map_err(full)?;
        let mut session = sessions.take(source).map_err(full)?;
        session.becomes(Kind::Dtls);
        let counted = (session, handshake);
        let certificate = certificates
            .choose(hello.host(), &hello.signature_schemes())
            .ok_or(DropReason::DtlsStray)?;
        let beginning = Beginning { client: from, back, hello, counted };
        let opened = Session::new(certificate.dtls(), &self.wire, beginning, now.instant);
        let mut session = opened.map_err(|error| {
            debug!(%error, "no dtls session");
            DropReason::DtlsFull
        })?;
        let heard = session.greet(record);
        session.drain(|datagram| egress.push_owned(back, datagram));
        if heard == Heard::End {
            debug!(client = %from.client, "dtls handshake failed");
            return Ok(());
        }
        let due = session.due;
        let id = self.slots.insert(session);
        self.by_client.insert(from, id);
        self.due.insert((due, id));
        Ok(())
    }

    /// Sends a message to a client.
    pub(super) fn say(
        &mut self,
        to: SessionId,
        parts: [&[u8]; 3],
        egress: &mut Egress<SocketKey>,
    ) -> Result<(), DropReason> {
        let session = self.slots.get_mut(to).ok_or(DropReason::NoAllocation)?;
        self.message.clear();
        parts.iter().for_each(|part| self.message.extend_from_slice(part));
        session.say(&self.message)?;
        session.drain(|datagram| egress.push_owned(session.back, datagram));
        Ok(())
    }

    /// Ends a session; its client is gone.
    pub(super) fn end(&mut self, id: SessionId, egress: &mut Egress<SocketKey>) {
        let Some(mut session) = self.remove(id) else { return };
        session.close();
        session.drain(|datagram| egress.push_owned(session.back, datagram));
        self.gone.push(session.client);
    }

    /// The next client whose session has ended, and whose allocation is to end with it.
    pub(super) fn pop_gone(&mut self) -> Option<FiveTuple> {
        self.gone.pop()
    }

    /// Whether there is such a session.
    pub(super) fn has(&self, id: SessionId) -> bool {
        self.slots.contains_key(id)
    }

    /// Ends what has been silent for too long, and sends again what handshakes wait for.
    pub(super) fn handle_timeout(
        &mut self,
        now: Now,
        server: &Server,
        egress: &mut Egress<SocketKey>,
    ) {
        while let Some((due, id)) = self.due.first().copied().filter(|(due, _)| *due <= now.instant)
        {
            self.due.remove(&(due, id));
            let Some(session) = self.slots.get_mut(id) else { continue };
            let is_allocated = server.has_allocation(&session.client);
            let goes_on = session.look(is_allocated, self.settings.idle, now.instant);
            session.drain(|datagram| egress.push_owned(session.back, datagram));
            self.due.insert((session.due, id));
            if !goes_on {
                debug!(client = %session.client.client, "dtls session ended: silent, or failed");
                self.end(id, egress);
            }
        }
        self.trim(now.instant);
    }

    /// Gives back the memory of sessions that have ended, where they were many, and no fewer than
    /// are left: so what it costs, they have cost before.
    fn trim(&mut self, now: Instant) {
        let is_due = self.next_trim.is_none_or(|next| next <= now);
        if is_due && self.ended >= TRIM_SESSIONS.max(self.slots.len()) {
            sys::trim();
            self.ended = 0;
            self.next_trim = Some(now + TRIM_INTERVAL);
        }
    }

    /// Tells all clients that nothing follows.
    pub(super) fn shutdown(&mut self, egress: &mut Egress<SocketKey>) {
        for (_, mut session) in self.slots.drain() {
            session.close();
            session.drain(|datagram| egress.push_owned(session.back, datagram));
        }
        self.by_client.clear();
        self.due.clear();
    }

    fn remove(&mut self, id: SessionId) -> Option<Session> {
        let session = self.slots.remove(id)?;
        // Another one may have taken its place.
        if self.by_client.get(&session.client) == Some(&id) {
            self.by_client.remove(&session.client);
        }
        self.due.remove(&(session.due, id));
        self.ended += 1;
        Some(session)
    }
}
