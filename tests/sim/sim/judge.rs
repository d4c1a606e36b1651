//! What must hold of each verdict and after each step: the invariants that `main` lists.

use std::net::SocketAddr;

use hairpin::turn::{AllocationId, Transport};

use super::{Cargo, Sim};
use crate::client::{Intent, USERS, is_signed};
use crate::model::{self, CHANNELS, Operation, PERMISSIONS, Request, Ticket};
use crate::wire::{self, Parsed, attr};

impl Sim {
    pub(super) fn expect_dropped(&mut self, client: usize, intent: Option<&Intent>) {
        let from = self.clients[client].address;
        match intent {
            None | Some(Intent::Junk) => {}
            Some(Intent::Send { peer, .. }) => {
                assert!(!self.model.send(from, *peer, self.clock.ms), "a Send to {peer} is lost");
            }
            Some(Intent::ChannelData { number, .. }) => {
                let to = self.model.channel_data(from, *number, self.clock.ms);
                assert_eq!(to, None, "ChannelData is lost");
            }
            Some(intent) => panic!("no answer to {intent:?}"),
        }
    }

    /// To peers.
    pub(super) fn judge_to_peer(
        &mut self,
        client: usize,
        intent: Option<&Intent>,
        id: AllocationId,
        peer: SocketAddr,
        data: &[u8],
    ) {
        let (from, ms) = (self.clients[client].address, self.clock.ms);
        self.model.expire(ms);
        let relay = self.driver.port_of(id);
        let own = self.model.of_family(from, peer.is_ipv6());
        let own = own.expect("to peers: a live allocation of the peer's family");
        assert_eq!(own.relay, relay, "to peers: from the sender's own relayed address");
        assert!(own.permits(peer.ip(), ms), "to peers: a permission for {peer}");
        assert!(model::may_reach(peer), "to peers: the policy on {peer}");
        match intent {
            None => {}
            Some(Intent::Send { peer: to, data: sent }) => {
                assert_eq!((peer, data), (*to, &sent[..]));
            }
            Some(Intent::ChannelData { number, data: sent }) => {
                let to = self.model.channel_data(from, *number, ms);
                assert_eq!((Some(peer), data), (to, &sent[..]));
            }
            Some(intent) => panic!("{intent:?} went to a peer"),
        }
        self.note(data);
        if self.driver.used.contains_key(&peer) {
            self.transmit(data.to_vec(), Cargo::FromPeer { relay: peer, from: relay });
        }
    }

    pub(super) fn judge_reply(
        &mut self,
        client: usize,
        length: usize,
        intent: Option<&Intent>,
        reply: &[u8],
    ) {
        match intent {
            Some(Intent::Request(request)) => {
                let expected = self.model.request(request, self.clock);
                let expected = expected.expect("an Allocate is answered when a port is bound");
                return self.judge_answer(client, length, request, expected, reply);
            }
            Some(Intent::Send { .. } | Intent::ChannelData { .. }) => panic!("data is answered"),
            None | Some(Intent::Binding | Intent::Bare | Intent::Junk) => {}
        }
        let parsed = Parsed::strict(reply);
        self.judge_unauthenticated(length, &parsed);
        let binding = parsed.kind & !0x0110 == wire::BINDING;
        match intent {
            Some(Intent::Binding) => {
                assert_eq!(parsed.address(attr::XMA), self.clients[client].address);
            }
            Some(Intent::Bare) => assert_eq!(parsed.code(), 401),
            _ => assert!(binding || matches!(parsed.code(), 400 | 401 | 438), "{parsed:?}"),
        }
        self.hear(client, &parsed);
    }

    pub(super) fn judge_answer(
        &mut self,
        client: usize,
        length: usize,
        request: &Request,
        expected: u16,
        reply: &[u8],
    ) {
        let parsed = Parsed::strict(reply);
        assert_eq!(parsed.code(), expected, "{request:?}");
        assert_eq!(parsed.id, request.id);
        let count = self.answers.entry((client, request.id)).or_default();
        count.1 += 1;
        assert!(count.1 <= count.0, "answers: more answers than requests");
        if matches!(expected, 401 | 438) {
            self.judge_unauthenticated(length, &parsed);
        } else {
            let sha256 = self.clients[client].sha256;
            assert!(is_signed(&parsed, request, sha256), "{parsed:?}");
        }
        self.judge_success(request, &parsed);
        self.hear(client, &parsed);
    }

    /// Retransmissions and lifetimes.
    pub(super) fn judge_success(&mut self, request: &Request, parsed: &Parsed) {
        if !parsed.is_success() {
            return;
        }
        let ms = self.clock.ms;
        match request.operation {
            Operation::Allocate { .. } => {
                let relays = self.model.relays_of(request.from);
                assert_eq!(parsed.addresses(attr::XRA), relays, "retransmissions");
                let own = self.model.of_client(request.from).unwrap();
                let token = own.token.as_ref().map(|token| &token[..]);
                assert_eq!(parsed.get(attr::TOKEN), token, "retransmissions: the token");
                assert_eq!(parsed.address(attr::XMA), request.from);
                // Of either half, where only one was refreshed.
                let mut all = self.model.allocations.iter();
                let lifetime = u64::from(parsed.lifetime());
                let is_true = all.any(|own| {
                    own.is_at(request.from) && (own.expires - ms).div_ceil(1000) == lifetime
                });
                assert!(is_true, "lifetimes");
            }
            Operation::Resume { ref ticket, .. } => {
                let own = self.model.allocations.iter().find(|own| own.serial == ticket.serial);
                let left = own.map_or(0, |own| (own.expires - ms).div_ceil(1000));
                assert_eq!(u64::from(parsed.lifetime()), left, "lifetimes");
                assert_eq!(parsed.has(attr::TICKET), own.is_some(), "moves: the next ticket");
            }
            Operation::Refresh { lifetime: Some(0), .. } => assert_eq!(parsed.lifetime(), 0),
            Operation::Refresh { lifetime, .. } => {
                assert_eq!(u64::from(parsed.lifetime()), model::granted(lifetime), "lifetimes");
            }
            Operation::Permit { .. } | Operation::Bind { .. } => {}
        }
        if let Some(bytes) = parsed.get(attr::TICKET) {
            let own = self.model.of_client(request.from).expect("a live allocation");
            let (serial, generation) = (own.serial, own.generation);
            let user = *USERS.iter().find(|(name, _)| *name == request.user).unwrap();
            let ticket = Ticket { bytes: bytes.to_vec(), serial, generation };
            self.tickets.push((ticket, user));
        }
    }

    /// Amplification.
    pub(super) fn judge_unauthenticated(&mut self, length: usize, reply: &Parsed) {
        let ratio = (reply.bytes.len() + 42) as f64 / (length + 42) as f64;
        assert!(ratio <= 2.3, "amplification: {ratio}");
        assert!(!reply.has(attr::MI) && !reply.has(attr::MI2));
    }

    /// What must hold between any two steps.
    pub(super) fn check(&mut self) {
        let before = self.server.allocations();
        self.model.expire(self.clock.ms);
        assert!(before >= self.model.allocations.len(), "liveness: nothing dies early");
        self.server.handle_timeout(self.now());
        self.drain_events();
        let ms = self.clock.ms;
        let live = &self.model.allocations;
        assert_eq!(self.server.allocations(), live.len(), "liveness: the same allocations");
        assert_eq!(self.driver.used.len(), live.len());
        self.driver.check(self.clock.ms, |user| self.model.held_by(user));
        let due = self.server.poll_timeout().map(|due| (due - self.start).as_millis() as u64);
        assert_eq!(due, live.iter().map(|own| own.expires).min(), "lifetimes: the next timeout");
        for own in live {
            assert_eq!(self.server.relayed_at(own.relay), Some(self.driver.used[&own.relay].0));
            let permissions = own.permissions.iter().filter(|&&(_, expires)| expires > ms).count();
            let channels = own.live_channels(ms);
            assert!(permissions <= PERMISSIONS && channels.len() <= CHANNELS, "caps");
            self.check_mirror(own, &channels);
        }
        for &port in self.driver.free() {
            assert_eq!(self.server.relayed_at(port), None, "a free port is nobody's");
        }
        let udp = self.server.stats().allocations[Transport::Udp as usize];
        assert_eq!(udp as usize, self.model.allocations.len(), "the gauge");
    }

    /// Bindings.
    pub(super) fn check_mirror(&self, own: &model::Allocation, channels: &[(u16, SocketAddr)]) {
        let (id, _) = &self.driver.used[&own.relay];
        let now = self.now().instant;
        let mut told: Vec<(u16, SocketAddr)> = self.mirror[id]
            .iter()
            .filter(|&&(.., expires)| expires > now)
            .map(|&(number, peer, _)| (number, peer))
            .collect();
        let mut known = channels.to_vec();
        told.sort();
        known.sort();
        assert_eq!(told, known, "bindings: the events tell every binding");
        let mut peers: Vec<SocketAddr> = known.iter().map(|&(_, peer)| peer).collect();
        peers.sort();
        peers.dedup();
        known.dedup_by_key(|(number, _)| *number);
        assert!(peers.len() == told.len() && known.len() == told.len(), "bindings: one to one");
    }

    /// Ending: everybody vanishes.
    pub(super) fn leave(&mut self) {
        while let Some(slow) = self.slow.pop() {
            self.finish_bind(slow);
        }
        self.clock.ms += (model::MAX_LIFETIME + 1) * 1000;
        self.check();
        assert_eq!((self.server.allocations(), self.server.poll_timeout()), (0, None), "ending");
        assert!(self.driver.used.is_empty() && self.mirror.is_empty(), "ending");
        assert_eq!(self.driver.reserved(), 0, "ending");
        let stats = self.server.stats();
        assert_eq!(stats.allocations_opened, stats.allocation_duration.count, "ending");
        assert!(stats.allocations_opened > 0, "something happened");
        assert!(self.switches > 0, "somebody moved");
    }
}
