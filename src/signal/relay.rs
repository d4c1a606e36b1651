//! From one peer to another, or to all others in a room.

use std::time::Instant;

use super::connection::ConnectionId;
use super::hub::{Due, Hub};
use super::message::{Incoming, Outgoing, Problem};
use super::peer::{PeerKey, Presence};
use super::{KEPT_BYTES_IN_ALL, Text};

impl Hub {
    /// Hands a message on, with the sender's own id as `from` whatever it said.
    pub(super) fn relay(
        &mut self,
        connection: ConnectionId,
        incoming: &Incoming<'_>,
        now: Instant,
    ) -> Result<(), Problem> {
        let Some(own) = self.connections.get(connection) else { return Ok(()) };
        let sender = own.peer.ok_or(Problem::NotJoined)?;
        let (to, room) = (incoming.to.as_deref(), incoming.room.as_deref());
        if room.is_some_and(|room| !self.peers[sender].is_in(room)) {
            return Err(Problem::RoomUnavailable);
        }
        let text = Outgoing {
            kind: &incoming.kind,
            from: &self.peers[sender].id,
            to,
            room,
            payload: incoming.payload,
        }
        .text();
        match (to, room) {
            (Some(to), room) => {
                let target = self.reachable(sender, to, room);
                if !target.is_some_and(|target| self.deliver(target, &text, Some(sender), now)) {
                    self.refuse_for(connection, Problem::PeerOffline, Some(to));
                    return Ok(());
                }
                self.stats.unicast += 1;
            }
            (None, Some(room)) => {
                self.stats.broadcast += 1;
                let members = self.rooms.members(room).iter().map(|member| member.peer);
                let others: Vec<_> = members.filter(|&peer| peer != sender).collect();
                for peer in others {
                    self.deliver(peer, &text, None, now);
                }
            }
            (None, None) => return Err(Problem::MissingTarget),
        }
        Ok(())
    }

    /// The peer called `to`, if the sender meets it: in `room`, where one is named, else anywhere.
    fn reachable(&self, sender: PeerKey, to: &str, room: Option<&str>) -> Option<PeerKey> {
        let &target = self.ids.get(to)?;
        let other = &self.peers[target];
        let meets = match room {
            Some(room) => other.is_in(room),
            None => other.meets(&self.peers[sender]),
        };
        meets.then_some(target)
    }

    /// Sends to a peer or, while it is lost, keeps for it; false where there is no room for more.
    fn deliver(&mut self, to: PeerKey, text: &Text, sender: Option<PeerKey>, now: Instant) -> bool {
        match &mut self.peers[to].presence {
            Presence::Here(connection) => {
                let connection = *connection;
                self.stats.delivered += 1;
                self.send(connection, Text::clone(text));
                true
            }
            Presence::Lost(lost) => {
                let fits = self.kept_bytes + text.len() <= KEPT_BYTES_IN_ALL;
                if !fits || !lost.keep(Text::clone(text), sender, now) {
                    return false;
                }
                self.kept_bytes += text.len();
                self.timers.set(Due::Peer(to), lost.deadline());
                true
            }
        }
    }

    /// Tells everyone in a room. Who is lost learns of it from `peers` when it is back.
    pub(super) fn send_to_room(&mut self, room: &str, text: &Text) {
        let members = self.rooms.members(room).iter();
        let here: Vec<_> =
            members.filter_map(|member| self.peers[member.peer].connection()).collect();
        here.into_iter().for_each(|to| self.send(to, Text::clone(text)));
    }
}
