//! What a shard says to clients, whichever way they are reached.

use std::ops::Range;

use super::{ClientPath, Route, Work};
use crate::net::dtls::SessionId;
use crate::net::stream::{ConnectionId, Importance};
use crate::turn::{AllocationId, DropReason, Header};

impl Work {
    pub(in crate::net) fn reply_to(&mut self, path: ClientPath) {
        match path {
            ClientPath::Datagram(route) => self.egress.push_owned(route, &self.reply),
            ClientPath::Stream(id) => {
                let reply = std::mem::take(&mut self.reply);
                self.write(id, &[], &reply, 0, Importance::Control);
                self.reply = reply;
            }
            ClientPath::Dtls(id) => {
                let reply = std::mem::take(&mut self.reply);
                self.say(id, [&reply, &[], &[]]);
                self.reply = reply;
            }
            ClientPath::Elsewhere(shard, link) => {
                self.write_elsewhere(shard, link, self.reply.clone(), Importance::Control);
            }
        }
    }

    /// To a connection.
    pub(in crate::net) fn write(
        &mut self,
        id: ConnectionId,
        header: &[u8],
        data: &[u8],
        padding: usize,
        importance: Importance,
    ) {
        let Some(connection) = self.connections.get(id) else {
            if importance == Importance::Data {
                drop(self.server.drop(DropReason::NoAllocation));
            }
            return;
        };
        match (connection.push(header, data, padding, importance), importance) {
            (Ok(()), _) => {}
            (Err(_), Importance::Data) => return drop(self.server.drop(DropReason::StreamFull)),
            // It does not even read responses; its next turn finds it closed.
            (Err(_), Importance::Control) => connection.give_up(),
        }
        if connection.becomes_due() {
            self.pushed.push(id);
        }
    }

    /// In a session.
    pub(in crate::net) fn say(&mut self, id: SessionId, parts: [&[u8]; 3]) {
        let Some(sessions) = &mut self.dtls else { return };
        let said = sessions.say(id, parts, &mut self.egress);
        said.unwrap_or_else(|reason| drop(self.server.drop(reason)));
    }

    pub(super) fn relay_to_client(
        &mut self,
        to: AllocationId,
        header: &Header,
        data: Range<usize>,
        padding: usize,
        bytes: &[u8],
    ) {
        let Some(leg) = self.legs.get(to) else {
            return drop(self.server.drop(DropReason::NoAllocation));
        };
        match leg.client {
            ClientPath::Datagram(route) => {
                let route = Route { traffic_class: self.traffic_class, ..route };
                self.egress.push(route, header.as_bytes(), data, padding);
            }
            ClientPath::Stream(id) => {
                self.write(id, header.as_bytes(), &bytes[data], padding, Importance::Data);
            }
            ClientPath::Elsewhere(shard, link) => {
                let frame = Self::frame(header, &bytes[data], padding);
                self.write_elsewhere(shard, link, frame, Importance::Data);
            }
            ClientPath::Dtls(id) => {
                self.say(id, [header.as_bytes(), &bytes[data], &[0; 3][..padding]]);
            }
        }
    }
}
