//! Coming, going, being lost and coming back.

use std::time::Instant;

use serde_json::value::RawValue;

use super::connection::{CloseReason, ConnectionId, may_be};
use super::hub::{Due, Hub, is_counted, source_prefix};
use super::message::{Incoming, JoinPayload, Left, Outgoing, PeerEntry, Peers, Problem, Welcome};
use super::peer::{Kept, Lost, Peer, PeerKey, Presence};
use super::room::Member;
use super::{HEARTBEAT, ROOMS_PER_CONNECTION, Replace, SEPARATOR, Text};

/// What a join comes to, before anything is changed.
enum Claim {
    /// The connection speaks for this peer already.
    Own(PeerKey),
    /// The peer proved to be the same client.
    Resumed(PeerKey),
    /// A new peer, in the place of another one where there is one.
    New { id: String, instead_of: Option<PeerKey> },
}

impl Hub {
    /// Gives a connection an id, and its peer a room.
    pub(super) fn join(
        &mut self,
        connection: ConnectionId,
        incoming: &Incoming<'_>,
        now: Instant,
    ) -> Result<(), Problem> {
        let payload = incoming.join_payload()?;
        let Some(own) = self.connections.get(connection) else { return Ok(()) };
        let source = own.source;
        if is_counted(source) && !self.joins.admit(source_prefix(source), now) {
            return Err(Problem::RateLimited);
        }
        self.authorize(connection, payload.token.as_deref(), now)?;
        let claim = self.claim(connection, incoming, &payload)?;
        let room = incoming.room.as_deref();
        self.check_room(connection, &claim, room)?;
        if let Claim::Own(peer) | Claim::Resumed(peer) = claim {
            self.confine(connection, peer);
        }
        let is_told = matches!(claim, Claim::Resumed(_));
        let peer = self.take_place(connection, claim, now)?;
        match room {
            Some(room) if self.peers[peer].is_in(room) => {
                if let Some(meta) = payload.meta {
                    self.rooms.describe(room, peer, meta);
                }
                if !is_told {
                    self.send_peers(peer, room);
                }
            }
            Some(room) => self.enter(peer, room, payload.meta),
            None => self.peers[peer].in_the_open = true,
        }
        Ok(())
    }

    /// Checks the token, where one is needed. A guest's is not looked at: in development it may
    /// be anything.
    fn authorize(
        &mut self,
        connection: ConnectionId,
        token: Option<&str>,
        now: Instant,
    ) -> Result<(), Problem> {
        let grant = token.and_then(|token| self.authority.grant(token));
        let Some(own) = self.connections.get_mut(connection) else { return Ok(()) };
        match (grant, token) {
            (Some(grant), _) => {
                // Another user's token does not make this peer another user's.
                let id = own.peer.map(|peer| &self.peers[peer].id);
                if id.is_some_and(|id| !may_be(Some(&grant), id)) {
                    return Err(Problem::IdForbidden);
                }
                own.admit(grant, now);
                self.rearm(connection);
                Ok(())
            }
            (None, Some(_)) if !self.config.open => Err(Problem::Unauthorized),
            (None, _) if own.grant.is_some() || self.config.open => Ok(()),
            (None, _) => Err(Problem::Unauthorized),
        }
    }

    /// Takes a peer out of where the token it is here by now does not let it be.
    fn confine(&mut self, connection: ConnectionId, peer: PeerKey) {
        let own = &self.connections[connection];
        let may = |room: Option<&str>| own.may_join(room, &self.config);
        let forbidden: Vec<_> =
            self.peers[peer].rooms.iter().filter(|room| !may(Some(room))).cloned().collect();
        self.peers[peer].in_the_open &= may(None);
        forbidden.iter().for_each(|room| self.exit(peer, room));
    }

    fn claim(
        &mut self,
        connection: ConnectionId,
        incoming: &Incoming<'_>,
        payload: &JoinPayload<'_>,
    ) -> Result<Claim, Problem> {
        let own = &self.connections[connection];
        if let Some(peer) = own.peer {
            let same = incoming.from.as_deref().is_none_or(|id| *id == *self.peers[peer].id);
            return if same { Ok(Claim::Own(peer)) } else { Err(Problem::IdForbidden) };
        }
        let Some(id) = &incoming.from else {
            let user = own.grant.as_ref().map(|grant| grant.user.clone());
            let random = self.random_name();
            let id =
                user.map_or_else(|| random.clone(), |user| format!("{user}{SEPARATOR}{random}"));
            return Ok(Claim::New { id, instead_of: None });
        };
        if !may_be(own.grant.as_ref(), id) {
            return Err(Problem::IdForbidden);
        }
        let Some(&peer) = self.ids.get(id.as_str()) else {
            return Ok(Claim::New { id: id.clone(), instead_of: None });
        };
        let secret = payload.secret.as_deref();
        if secret.is_some_and(|secret| self.peers[peer].is_secret(secret)) {
            return Ok(Claim::Resumed(peer));
        }
        match self.config.replace {
            Replace::Always => Ok(Claim::New { id: id.clone(), instead_of: Some(peer) }),
            Replace::Secret => Err(Problem::IdTaken),
        }
    }

    /// Unknown, full and forbidden rooms are told apart by nobody who is not in them.
    fn check_room(
        &self,
        connection: ConnectionId,
        claim: &Claim,
        room: Option<&str>,
    ) -> Result<(), Problem> {
        if !self.connections[connection].may_join(room, &self.config) {
            return Err(Problem::RoomUnavailable);
        }
        let Some(room) = room else { return Ok(()) };
        let rooms = match claim {
            Claim::Own(peer) | Claim::Resumed(peer) => &self.peers[*peer].rooms[..],
            Claim::New { .. } => &[],
        };
        if rooms.iter().any(|own| **own == *room) {
            return Ok(());
        }
        if rooms.len() >= ROOMS_PER_CONNECTION {
            return Err(Problem::TooManyRooms);
        }
        let leaves = match claim {
            Claim::New { instead_of: Some(peer), .. } => self.peers[*peer].is_in(room),
            Claim::New { instead_of: None, .. } | Claim::Own(_) | Claim::Resumed(_) => false,
        };
        if self.rooms.is_full(room) && !leaves {
            return Err(Problem::RoomUnavailable);
        }
        Ok(())
    }

    /// Makes the connection the peer's, and welcomes it.
    fn take_place(
        &mut self,
        connection: ConnectionId,
        claim: Claim,
        now: Instant,
    ) -> Result<PeerKey, Problem> {
        let (id, resumes) = match &claim {
            Claim::Own(peer) => return Ok(*peer),
            Claim::Resumed(peer) => (Text::clone(&self.peers[*peer].id), Some(*peer)),
            Claim::New { id, .. } => (Text::from(id.as_str()), None),
        };
        let ice = self.ice_servers(connection, now).ok_or(Problem::RateLimited)?;
        if let Claim::New { instead_of: Some(other), .. } = claim {
            match self.peers[other].connection() {
                Some(old) => self.close(old, CloseReason::Replaced, now),
                None => self.remove_peer(other),
            }
        }
        let peer = match resumes {
            Some(peer) => peer,
            None => {
                let secret = self.random_name();
                let peer = self.peers.insert(Peer {
                    id: Text::clone(&id),
                    secret,
                    rooms: Vec::new(),
                    in_the_open: false,
                    presence: Presence::Here(connection),
                });
                self.ids.insert(Text::clone(&id), peer);
                peer
            }
        };
        let kept = self.attach(peer, connection, now);
        let welcome = Welcome {
            id: &id,
            secret: &self.peers[peer].secret,
            ice_servers: &ice.json,
            ttl: ice.ttl.as_secs(),
            heartbeat: HEARTBEAT.as_secs(),
            resumed: resumes.is_some(),
        };
        let text = Outgoing::server("welcome", welcome).to(Some(&*id)).text();
        self.send(connection, text);
        if resumes.is_some() {
            self.stats.resumed += 1;
            for room in self.peers[peer].rooms.clone() {
                self.send_peers(peer, &room);
            }
        }
        for message in kept {
            self.stats.delivered += 1;
            self.send(connection, message.text);
        }
        Ok(peer)
    }

    /// Hands a peer to a connection, and takes it from the one before. Returns what was kept.
    fn attach(&mut self, peer: PeerKey, connection: ConnectionId, now: Instant) -> Vec<Kept> {
        let own = &mut self.peers[peer];
        let before = std::mem::replace(&mut own.presence, Presence::Here(connection));
        if let Some(own) = self.connections.get_mut(connection) {
            own.peer = Some(peer);
        }
        self.rearm(connection);
        match before {
            Presence::Here(same) if same == connection => Vec::new(),
            Presence::Here(old) => {
                // It must not take the peer with it.
                if let Some(old) = self.connections.get_mut(old) {
                    old.peer = None;
                }
                self.close(old, CloseReason::Replaced, now);
                Vec::new()
            }
            Presence::Lost(lost) => {
                self.timers.clear(Due::Peer(peer));
                self.kept_bytes -= lost.bytes;
                lost.kept.into()
            }
        }
    }

    /// Puts a peer into a room it may be in, and tells everyone there.
    fn enter(&mut self, peer: PeerKey, room: &str, meta: Option<&RawValue>) {
        let meta = meta.map(RawValue::to_owned);
        let name = self.rooms.enter(room, Member { peer, meta: meta.clone() });
        self.peers[peer].rooms.push(name);
        self.send_peers(peer, room);
        let newcomer = &self.peers[peer];
        let others = self.rooms.members(room).iter().filter(|member| member.peer != peer);
        let texts: Vec<_> = others
            .filter_map(|member| {
                let other = &self.peers[member.peer];
                let polite = other.is_polite_to(newcomer);
                let entry = PeerEntry { id: &newcomer.id, meta: meta.as_deref(), polite };
                Some((
                    other.connection()?,
                    Outgoing::server("peer-joined", entry).room(room).text(),
                ))
            })
            .collect();
        texts.into_iter().for_each(|(to, text)| self.send(to, text));
    }

    /// Tells a peer who is in a room.
    fn send_peers(&mut self, to: PeerKey, room: &str) {
        let reader = &self.peers[to];
        let Some(connection) = reader.connection() else { return };
        let others = self.rooms.members(room).iter().filter(|member| member.peer != to);
        let peers = others
            .map(|member| {
                let other = &self.peers[member.peer];
                let polite = reader.is_polite_to(other);
                PeerEntry { id: &other.id, meta: member.meta.as_deref(), polite }
            })
            .collect();
        let text = Outgoing::server("peers", Peers { peers }).room(room).text();
        self.send(connection, text);
    }

    /// Takes a peer out of a room, or away. With a `to` it is a goodbye to one peer, which gets it
    /// first: of clients that know of no rooms, no other word says so.
    pub(super) fn leave(
        &mut self,
        connection: ConnectionId,
        incoming: &Incoming<'_>,
        now: Instant,
    ) -> Result<(), Problem> {
        if incoming.to.is_some() {
            self.relay(connection, incoming, now)?;
        }
        let room = incoming.room.as_deref();
        let Some(own) = self.connections.get_mut(connection) else { return Ok(()) };
        let peer = own.peer.ok_or(Problem::NotJoined)?;
        match room {
            Some(room) if self.peers[peer].is_in(room) => self.exit(peer, room),
            Some(_) => return Err(Problem::RoomUnavailable),
            None => {
                own.peer = None;
                own.unjoined = now;
                own.renew_at = None;
                self.remove_peer(peer);
                self.rearm(connection);
            }
        }
        Ok(())
    }

    fn exit(&mut self, peer: PeerKey, room: &str) {
        self.rooms.exit(room, peer);
        let own = &mut self.peers[peer];
        own.rooms.retain(|own| **own != *room);
        let left = Left { id: &own.id };
        let text = Outgoing::server("peer-left", left).room(room).text();
        self.send_to_room(room, &text);
    }

    /// Starts the resume window.
    pub(super) fn lose(&mut self, peer: PeerKey, now: Instant) {
        let lost = Lost::new(now);
        self.timers.set(Due::Peer(peer), lost.deadline());
        self.peers[peer].presence = Presence::Lost(lost);
    }

    /// Ends a peer: out of its rooms, its id free.
    pub(super) fn remove_peer(&mut self, peer: PeerKey) {
        for room in self.peers[peer].rooms.clone() {
            self.exit(peer, &room);
        }
        let Some(own) = self.peers.remove(peer) else { return };
        self.ids.remove(&own.id);
        self.timers.clear(Due::Peer(peer));
        let Presence::Lost(lost) = own.presence else { return };
        self.kept_bytes -= lost.bytes;
        lost.kept.into_iter().for_each(|kept| self.give_up(&kept, &own.id));
    }

    pub(super) fn peer_due(&mut self, peer: PeerKey, now: Instant) {
        let Some(own) = self.peers.get_mut(peer) else { return };
        let Presence::Lost(lost) = &mut own.presence else { return };
        if lost.until <= now {
            return self.remove_peer(peer);
        }
        let before = lost.bytes;
        let expired: Vec<_> = std::iter::from_fn(|| lost.pop_expired(now)).collect();
        self.kept_bytes -= before - lost.bytes;
        self.timers.set(Due::Peer(peer), lost.deadline());
        let id = Text::clone(&own.id);
        expired.into_iter().for_each(|kept| self.give_up(&kept, &id));
    }

    /// Tells the sender of a kept message that nobody came for it.
    fn give_up(&mut self, kept: &Kept, id: &str) {
        self.stats.kept_expired += 1;
        let sender = kept.sender.and_then(|sender| self.peers.get(sender)?.connection());
        if let Some(connection) = sender {
            self.refuse_for(connection, Problem::PeerOffline, Some(id));
        }
    }
}
