//! What clients and peers do, at random.

use std::net::SocketAddr;

use hairpin::turn::{DropReason, Verdict};
use rand::rngs::StdRng;
use rand::{Rng, RngExt};

use super::scenario::{data, family, lifetime, number, peer, peers};
use super::{Cargo, Sim};
use crate::client::{Intent, txid};
use crate::model::{Operation, Port};
use crate::wire::{self, Attr, Msg, attr};

impl Sim {
    /// Somebody does something.
    pub(super) fn act(&mut self) {
        let client = self.rng.random_range(0..self.clients.len());
        let wish = self.wish();
        let (bytes, intent) = match self.rng.random_range(0..100) {
            0..12 => self.request(client, |rng| Operation::Allocate {
                lifetime: lifetime(rng),
                port: wish,
                mobile: rng.random_bool(0.7),
            }),
            12..17 => self.request(client, |rng| Operation::Refresh {
                lifetime: lifetime(rng),
                v6: family(rng),
            }),
            17..21 => self
                .request(client, |rng| Operation::Refresh { lifetime: Some(0), v6: family(rng) }),
            94..97 if !self.tickets.is_empty() => self.resume(client),
            21..36 => self.request(client, |rng| Operation::Permit { peers: peers(rng) }),
            36..50 => {
                self.request(client, |rng| Operation::Bind { number: number(rng), peer: peer(rng) })
            }
            50..62 => self.send(),
            62..74 => self.channel_data(),
            74..90 => return self.peer_sends(),
            90..94 => {
                let id = txid(&mut self.rng);
                (Msg::new(wire::BINDING, id).finish(), Intent::Binding)
            }
            94..98 => return self.late_peer_data(),
            _ => {
                let mut junk = vec![0; self.rng.random_range(0..80)];
                self.rng.fill_bytes(&mut junk);
                (junk, Intent::Junk)
            }
        };
        let cargo = Cargo::FromClient { client, intent: Some(intent) };
        self.transmit(bytes, cargo);
    }

    /// What an Allocate asks for; tokens are those that somebody was told, or made up.
    fn wish(&mut self) -> Port {
        let v6 = self.rng.random_bool(0.3);
        match self.rng.random_range(0..10) {
            0..4 => Port::Any { v6 },
            4 => Port::Even { v6 },
            5 => Port::Both,
            6..8 => Port::Pair { v6 },
            _ => {
                // Mostly a late one: the older ones are over.
                let late = self.tokens.iter().rev().take(3).copied();
                let tokens: Vec<_> = late.chain([self.rng.random()]).collect();
                Port::Reserved(tokens[self.rng.random_range(0..tokens.len())])
            }
        }
    }

    /// With a ticket that somebody got: mostly one that is good, and one's own.
    fn resume(&mut self, client: usize) -> (Vec<u8>, Intent) {
        let latest = self.tickets.len().saturating_sub(4);
        let from = if self.rng.random_bool(0.8) { latest } else { 0 };
        let at = self.rng.random_range(from..self.tickets.len());
        let (ticket, owner) = self.tickets[at].clone();
        if self.rng.random_bool(0.9) {
            self.clients[client].user = owner;
        }
        self.request(client, |rng| {
            let lifetime = if rng.random_bool(0.05) { Some(0) } else { lifetime(rng) };
            Operation::Resume { lifetime, ticket }
        })
    }

    fn request(
        &mut self,
        client: usize,
        operation: impl FnOnce(&mut StdRng) -> Operation,
    ) -> (Vec<u8>, Intent) {
        let operation = operation(&mut self.rng);
        let victim = self.rng.random_range(0..self.clients.len());
        let steals = victim != client && self.rng.random_bool(0.02);
        let loot = self.clients[victim].nonce.clone().filter(|_| steals);
        self.clients[client].request(operation, loot.as_ref(), &mut self.rng)
    }

    fn send(&mut self) -> (Vec<u8>, Intent) {
        let (peer, data, id) = (peer(&mut self.rng), data(&mut self.rng), txid(&mut self.rng));
        let attributes = [Attr::Xor(attr::XPA, peer), wire::raw(attr::DATA, &data)];
        let bytes = Msg::new(wire::SEND_INDICATION, id).add(&attributes).finish();
        (bytes, Intent::Send { peer, data })
    }

    fn channel_data(&mut self) -> (Vec<u8>, Intent) {
        let (number, data) = (number(&mut self.rng), data(&mut self.rng));
        (wire::channel_data(number, &data), Intent::ChannelData { number, data })
    }

    fn peer_sends(&mut self) {
        let ports: Vec<SocketAddr> = self.driver.used.keys().copied().collect();
        if ports.is_empty() {
            return;
        }
        let relay = ports[self.rng.random_range(0..ports.len())];
        let (from, bytes) = (peer(&mut self.rng), data(&mut self.rng));
        self.transmit(bytes, Cargo::FromPeer { relay, from });
    }

    /// A datagram for an allocation that is gone: to nobody, whoever has the port now.
    fn late_peer_data(&mut self) {
        if self.dead.is_empty() {
            return;
        }
        let id = self.dead[self.rng.random_range(0..self.dead.len())];
        let from = peer(&mut self.rng);
        let verdict = self.server.handle_peer(id, from, b"late", self.now());
        assert!(matches!(verdict, Verdict::Drop(DropReason::NoAllocation)), "{verdict:?}");
    }
}
