//! The rooms, and who is in them. A room exists while somebody is in it.

use std::collections::HashMap;

use ahash::RandomState;
use serde_json::value::RawValue;

use super::peer::PeerKey;
use super::{PEERS_PER_ROOM, Text};

/// All rooms by name.
#[derive(Debug)]
pub(super) struct Rooms {
    rooms: HashMap<Text, Vec<Member>, RandomState>,
}

/// A peer in a room, and what it tells about itself there.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) peer: PeerKey,
    pub(super) meta: Option<Box<RawValue>>,
}

impl Rooms {
    pub(super) fn new(hasher: RandomState) -> Self {
        Self { rooms: HashMap::with_hasher(hasher) }
    }

    pub(super) fn len(&self) -> usize {
        self.rooms.len()
    }

    pub(super) fn members(&self, room: &str) -> &[Member] {
        self.rooms.get(room).map_or(&[], Vec::as_slice)
    }

    pub(super) fn is_full(&self, room: &str) -> bool {
        self.members(room).len() >= PEERS_PER_ROOM
    }

    /// Puts a peer that is not in it into the room, and returns the room's name.
    pub(super) fn enter(&mut self, room: &str, member: Member) -> Text {
        if let Some((name, _)) = self.rooms.get_key_value(room) {
            let name = Text::clone(name);
            self.rooms.entry(Text::clone(&name)).or_default().push(member);
            return name;
        }
        let name = Text::from(room);
        self.rooms.insert(Text::clone(&name), vec![member]);
        name
    }

    /// Changes what a peer tells about itself.
    pub(super) fn describe(&mut self, room: &str, peer: PeerKey, meta: &RawValue) {
        let members = self.rooms.get_mut(room).into_iter().flatten();
        for member in members.filter(|member| member.peer == peer) {
            member.meta = Some(meta.to_owned());
        }
    }

    /// Takes a peer out, and with the last one the room.
    pub(super) fn exit(&mut self, room: &str, peer: PeerKey) {
        let Some(members) = self.rooms.get_mut(room) else { return };
        members.retain(|member| member.peer != peer);
        if members.is_empty() {
            self.rooms.remove(room);
        }
    }
}
