//! One run: what happens, and what must hold after each step.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hairpin::turn::{
    Allocated, AllocationId, DropReason, Event, FiveTuple, Now, PendingAllocation, RelayedAddress,
    Server, Transport, Verdict, auth, limits, policy, server,
};
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

use crate::client::{Client, Intent, REALM, USERS, is_signed, txid};
use crate::driver::Driver;
use crate::model::{
    self, CHANNELS, Clock, LISTENER, Model, Operation, PERMISSIONS, PORTS, RELAY_V4, RELAY_V6,
    Request,
};
use crate::wire::{self, Attr, Msg, Parsed, Txid, attr};

const EPOCH_SECS: i64 = 1_800_000_000;
const CLIENTS: [&str; 8] = [
    "198.51.100.1:4000",
    "198.51.100.1:4001",
    "198.51.100.1:4002",
    "198.51.100.2:4000",
    "198.51.100.3:4000",
    "[2a00:99::1]:4000",
    "[2a00:99::1]:4001",
    "[2a00:99::2]:4000",
];
/// Peers, good and bad, and some of our own addresses among them.
const PEERS: [&str; 20] = [
    "8.8.8.8:9000",
    "8.8.8.8:9001",
    "9.9.9.9:9000",
    "9.9.9.9:9001",
    "8.8.8.8:0",
    "10.0.0.1:80",
    "127.0.0.1:53",
    "203.0.113.5:3478",
    "203.0.113.5:50000",
    "203.0.113.5:50005",
    "203.0.113.5:22",
    "169.254.169.254:80",
    "[2a00::1]:9000",
    "[2a00::1]:9001",
    "[::1]:80",
    "[::ffff:8.8.8.8]:9000",
    "[2002:808:808::1]:9000",
    "[64:ff9b::7f00:1]:80",
    "[2606:4700::5]:50003",
    "[fe80::1]:9000",
];

#[derive(Clone, Debug)]
enum Cargo {
    FromClient { client: usize, intent: Option<Intent> },
    FromPeer { relay: SocketAddr, from: SocketAddr },
}

#[derive(Clone, Debug)]
struct Packet {
    due: u64,
    bytes: Vec<u8>,
    cargo: Cargo,
}

/// An Allocate whose port the driver is slow to bind.
#[derive(Debug)]
struct Slow {
    pending: PendingAllocation,
    client: usize,
    request: Request,
    length: usize,
}

pub(crate) struct Sim {
    seed: u64,
    step: u64,
    rng: StdRng,
    server: Server,
    model: Model,
    driver: Driver,
    clients: Vec<Client>,
    network: Vec<Packet>,
    slow: Vec<Slow>,
    dead: Vec<AllocationId>,
    /// The bindings as the events tell them: number, peer, expiry for each allocation.
    mirror: BTreeMap<AllocationId, Vec<(u16, SocketAddr, Instant)>>,
    answers: BTreeMap<(usize, Txid), (u32, u32)>,
    start: Instant,
    clock: Clock,
    /// Of everything that was sent, to compare runs.
    pub(crate) digest: u64,
}

impl Drop for Sim {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "repeat with HAIRPIN_SIM_SEED={}; it failed at step {}",
                self.seed, self.step
            );
        }
    }
}

impl Sim {
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut hash_seed = [0; 32];
        rng.fill_bytes(&mut hash_seed);
        #[expect(clippy::disallowed_methods, reason = "an Instant can be had in no other way")]
        let start = Instant::now();
        let channel_ms = if seed.is_multiple_of(2) { 600_000 } else { 200_000 };
        let clients =
            CLIENTS.iter().map(|address| Client::new(address.parse().unwrap(), &mut rng)).collect();
        Self {
            seed,
            step: 0,
            server: Server::new(config(channel_ms), host(), hash_seed),
            model: Model { allocations: Vec::new(), channel_ms },
            driver: Driver::new(),
            clients,
            network: Vec::new(),
            slow: Vec::new(),
            dead: Vec::new(),
            mirror: BTreeMap::new(),
            answers: BTreeMap::new(),
            start,
            clock: Clock { ms: 0, unix: EPOCH_SECS },
            digest: 0,
            rng,
        }
    }

    pub(crate) fn run(&mut self, steps: u64) {
        for step in 0..steps {
            self.step = step;
            self.act();
            self.pass_time();
            self.deliver_due();
            if !self.slow.is_empty() && self.rng.random_bool(0.3) {
                let at = self.rng.random_range(0..self.slow.len());
                let slow = self.slow.swap_remove(at);
                self.finish_bind(slow);
            }
            self.check();
        }
        self.leave();
    }

    /// Somebody does something.
    fn act(&mut self) {
        let client = self.rng.random_range(0..self.clients.len());
        let (bytes, intent) = match self.rng.random_range(0..100) {
            0..12 => self.request(client, |rng| Operation::Allocate {
                lifetime: lifetime(rng),
                v6: rng.random_bool(0.3),
            }),
            12..17 => self.request(client, |rng| Operation::Refresh { lifetime: lifetime(rng) }),
            17..21 => self.request(client, |_| Operation::Refresh { lifetime: Some(0) }),
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
            94..97 => return self.late_peer_data(),
            _ => {
                let mut junk = vec![0; self.rng.random_range(0..80)];
                self.rng.fill_bytes(&mut junk);
                (junk, Intent::Junk)
            }
        };
        let cargo = Cargo::FromClient { client, intent: Some(intent) };
        self.transmit(bytes, cargo);
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

    /// Puts a packet on the network: it may be lost, damaged, doubled and late.
    fn transmit(&mut self, mut bytes: Vec<u8>, mut cargo: Cargo) {
        if self.rng.random_bool(0.05) {
            return;
        }
        if self.rng.random_bool(0.05) && !bytes.is_empty() {
            if let Cargo::FromClient { intent, .. } = &mut cargo {
                *intent = None;
            }
            if self.rng.random_bool(0.3) {
                bytes.truncate(self.rng.random_range(0..bytes.len()));
            } else {
                // One bit, so that it cannot be flipped back.
                let at = self.rng.random_range(0..bytes.len());
                bytes[at] ^= 1 << self.rng.random_range(0..8);
            }
        }
        let copies = if self.rng.random_bool(0.1) { self.rng.random_range(2..4) } else { 1 };
        for _ in 0..copies {
            let delay = match self.rng.random_range(0..10) {
                0..7 => 0,
                7..9 => self.rng.random_range(0..200),
                _ => self.rng.random_range(0..20_000),
            };
            let due = self.clock.ms + delay;
            self.network.push(Packet { due, bytes: bytes.clone(), cargo: cargo.clone() });
        }
    }

    /// Time passes: mostly little, sometimes hours, and often just to where something expires.
    fn pass_time(&mut self) {
        let target = match self.rng.random_range(0..100) {
            0..60 => self.clock.ms,
            60..90 => self.clock.ms + self.rng.random_range(0..2_000),
            90..96 => self.some_expiry(),
            96..99 => self.clock.ms + self.rng.random_range(0..200_000),
            _ => self.clock.ms + self.rng.random_range(0..5_000_000),
        };
        let step = match self.rng.random_range(0..1000) {
            0..3 => self.rng.random_range(-7200..7200),
            _ => 0,
        };
        let passed = target / 1000 - self.clock.ms / 1000;
        self.clock.unix += passed.cast_signed() + step;
        // A driver that is late must make no difference to anybody but itself.
        let punctual = self.rng.random_bool(0.8);
        while let Some(due) = self.server.poll_timeout().filter(|_| punctual) {
            let due = (due - self.start).as_millis() as u64;
            if due > target {
                break;
            }
            self.clock.ms = self.clock.ms.max(due);
            self.server.handle_timeout(self.now());
            self.drain_events();
        }
        self.clock.ms = target;
    }

    /// A moment something expires at, or the last one before.
    fn some_expiry(&mut self) -> u64 {
        let now = self.clock.ms;
        let mut moments: Vec<u64> = Vec::new();
        for allocation in &self.model.allocations {
            moments.push(allocation.expires);
            moments.extend(allocation.permissions.iter().map(|&(_, expires)| expires));
            moments.extend(allocation.channels.iter().map(|&(.., expires)| expires));
        }
        moments.retain(|&moment| moment > now);
        if moments.is_empty() {
            return now;
        }
        let moment = moments[self.rng.random_range(0..moments.len())];
        moment - u64::from(self.rng.random_bool(0.5))
    }

    fn deliver_due(&mut self) {
        while let Some(at) = self.network.iter().position(|packet| packet.due <= self.clock.ms) {
            let Packet { bytes, cargo, .. } = self.network.swap_remove(at);
            match cargo {
                Cargo::FromClient { client, intent } => {
                    self.from_client(client, &bytes, intent.as_ref());
                }
                Cargo::FromPeer { relay, from } => self.from_peer(relay, from, &bytes),
            }
            self.drain_events();
        }
    }

    fn from_client(&mut self, client: usize, bytes: &[u8], intent: Option<&Intent>) {
        let from = five_tuple(self.clients[client].address);
        let mut reply = Vec::new();
        let verdict = self.server.handle_client(from, bytes, self.now(), &mut reply);
        self.drain_events();
        if let Some(Intent::Request(request)) = intent {
            self.answers.entry((client, request.id)).or_default().0 += 1;
        }
        match verdict {
            Verdict::Drop(_) => {
                assert!(reply.is_empty());
                self.expect_dropped(client, intent);
            }
            Verdict::Reply => self.judge_reply(client, bytes.len(), intent, &reply),
            Verdict::ToPeer { from: id, peer, payload } => {
                let (peer, data) = (peer.address(), bytes[payload].to_vec());
                self.judge_to_peer(client, intent, id, peer, &data);
            }
            Verdict::ToClient { .. } => panic!("a client's packet went to a client"),
            Verdict::Bind(pending) => {
                let Some(Intent::Request(request)) = intent else {
                    panic!("bind for what was no Allocate: {intent:?}")
                };
                assert_eq!(self.model.request(request, self.clock), None, "{request:?}");
                let (request, length) = (request.clone(), bytes.len());
                let slow = Slow { pending, client, request, length };
                if self.rng.random_bool(0.2) {
                    self.slow.push(slow)
                } else {
                    self.finish_bind(slow)
                }
            }
        }
    }

    fn finish_bind(&mut self, slow: Slow) {
        let Slow { pending, client, request, length } = slow;
        let Operation::Allocate { v6, .. } = request.operation else { unreachable!() };
        assert_eq!(pending.account(), request.user);
        self.server.handle_timeout(self.now());
        self.drain_events();
        let port = self.driver.take(request.user, v6, &mut self.rng);
        let expected = self.model.bound(&request, self.clock, port.map_err(|(_, code)| code));
        let result = match port {
            Ok(port) => Ok(Allocated { relayed: RelayedAddress(port), meter: None }),
            Err((error, _)) => Err(error),
        };
        let mut reply = Vec::new();
        let id = self.server.allocated(pending, result, self.now(), &mut reply);
        if let Ok(port) = port {
            self.driver.settle(port, id, request.user);
        }
        self.drain_events();
        self.judge_answer(client, length, &request, expected, &reply);
    }

    fn expect_dropped(&mut self, client: usize, intent: Option<&Intent>) {
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

    /// I3
    fn judge_to_peer(
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
        let own = self.model.of_client(from).expect("I3: a live allocation");
        assert_eq!(own.relay, relay, "I3: from the sender's own relayed address");
        assert!(own.permits(peer.ip(), ms), "I3: a permission for {peer}");
        assert!(model::may_reach(peer), "I3: the policy on {peer}");
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

    /// I4
    fn from_peer(&mut self, relay: SocketAddr, from: SocketAddr, bytes: &[u8]) {
        let Some((id, _)) = self.driver.used.get(&relay) else { return };
        let id = *id;
        let expected = self.model.from_peer(relay, from, self.clock.ms);
        match self.server.handle_peer(id, from, bytes, self.now()) {
            Verdict::Drop(_) => assert_eq!(expected, None, "data from {from} is lost"),
            Verdict::ToClient { to, header, padding } => {
                assert_eq!(to, id);
                let mut packet = header.as_bytes().to_vec();
                packet.extend(bytes);
                packet.extend(vec![0; padding]);
                let number = expected.expect("I4: an unpermitted peer reached a client");
                self.note(&packet);
                if number != 0 {
                    assert_eq!(packet, wire::channel_data(number, bytes));
                    return;
                }
                let data = Parsed::strict(&packet);
                assert_eq!(data.kind, wire::DATA_INDICATION);
                assert_eq!((data.address(attr::XPA), data.get(attr::DATA)), (from, Some(bytes)));
            }
            verdict => panic!("a peer's packet became {verdict:?}"),
        }
    }

    fn judge_reply(&mut self, client: usize, length: usize, intent: Option<&Intent>, reply: &[u8]) {
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

    fn judge_answer(
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
        assert!(count.1 <= count.0, "I10: more answers than requests");
        if matches!(expected, 401 | 438) {
            self.judge_unauthenticated(length, &parsed);
        } else {
            let sha256 = self.clients[client].sha256;
            assert!(is_signed(&parsed, request, sha256), "{parsed:?}");
        }
        self.judge_success(request, &parsed);
        self.hear(client, &parsed);
    }

    /// I7 and I8: an Allocate, however often it is sent, names the one relayed address, and the
    /// lifetime is what is left.
    fn judge_success(&mut self, request: &Request, parsed: &Parsed) {
        if !parsed.is_success() {
            return;
        }
        let ms = self.clock.ms;
        match request.operation {
            Operation::Allocate { .. } => {
                let own = self.model.of_client(request.from).unwrap();
                assert_eq!(parsed.address(attr::XRA), own.relay, "I8");
                assert_eq!(parsed.address(attr::XMA), request.from);
                assert_eq!(u64::from(parsed.lifetime()), (own.expires - ms).div_ceil(1000), "I7");
            }
            Operation::Refresh { lifetime: Some(0) } => assert_eq!(parsed.lifetime(), 0),
            Operation::Refresh { lifetime } => {
                assert_eq!(u64::from(parsed.lifetime()), model::granted(lifetime), "I7");
            }
            Operation::Permit { .. } | Operation::Bind { .. } => {}
        }
    }

    /// I5
    fn judge_unauthenticated(&mut self, length: usize, reply: &Parsed) {
        let ratio = (reply.bytes.len() + 42) as f64 / (length + 42) as f64;
        assert!(ratio <= 2.3, "I5: {ratio}");
        assert!(!reply.has(attr::MI) && !reply.has(attr::MI2));
    }

    /// The answer goes back over the network too, and may be lost.
    fn hear(&mut self, client: usize, reply: &Parsed) {
        self.note(&reply.bytes);
        if !self.rng.random_bool(0.05) {
            self.clients[client].hear(reply, self.clock.unix);
        }
    }

    fn drain_events(&mut self) {
        while let Some(event) = self.server.poll_event() {
            match event {
                Event::Opened { id, .. } => {
                    assert!(self.mirror.insert(id, Vec::new()).is_none());
                }
                Event::ChannelBound { id, number, peer, expires } => {
                    let channels = self.mirror.get_mut(&id).expect("of a live allocation");
                    channels.retain(|&(other, ..)| other != number.number());
                    channels.push((number.number(), peer.address(), expires));
                }
                Event::Closed { id, relayed, .. } => {
                    assert_eq!(self.driver.release(relayed.0), id);
                    self.mirror.remove(&id);
                    self.dead.push(id);
                }
            }
        }
    }

    /// What must hold between any two steps.
    fn check(&mut self) {
        let before = self.server.allocations();
        self.model.expire(self.clock.ms);
        assert!(before >= self.model.allocations.len(), "nothing dies early");
        self.server.handle_timeout(self.now());
        self.drain_events();
        let ms = self.clock.ms;
        let live = &self.model.allocations;
        assert_eq!(self.server.allocations(), live.len(), "I6, I7: the same allocations live");
        assert_eq!(self.driver.used.len(), live.len());
        self.driver.check(|user| self.model.held_by(user));
        let due = self.server.poll_timeout().map(|due| (due - self.start).as_millis() as u64);
        assert_eq!(due, live.iter().map(|own| own.expires).min(), "I7: the next timeout");
        for own in live {
            assert_eq!(self.server.relayed_at(own.relay), Some(self.driver.used[&own.relay].0));
            let permissions = own.permissions.iter().filter(|&&(_, expires)| expires > ms).count();
            let channels = own.live_channels(ms);
            assert!(permissions <= PERMISSIONS && channels.len() <= CHANNELS, "I11");
            self.check_mirror(own, &channels);
        }
        for &port in self.driver.free() {
            assert_eq!(self.server.relayed_at(port), None, "a free port is nobody's");
        }
        let udp = self.server.stats().allocations[Transport::Udp as usize];
        assert_eq!(udp as usize, self.model.allocations.len(), "the gauge");
    }

    /// I9
    fn check_mirror(&self, own: &model::Allocation, channels: &[(u16, SocketAddr)]) {
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
        assert_eq!(told, known, "the events tell every binding");
        let mut peers: Vec<SocketAddr> = known.iter().map(|&(_, peer)| peer).collect();
        peers.sort();
        peers.dedup();
        known.dedup_by_key(|(number, _)| *number);
        assert!(peers.len() == told.len() && known.len() == told.len(), "I9: one to one");
    }

    /// I12: everybody vanishes.
    fn leave(&mut self) {
        while let Some(slow) = self.slow.pop() {
            self.finish_bind(slow);
        }
        self.clock.ms += (model::MAX_LIFETIME + 1) * 1000;
        self.check();
        assert_eq!((self.server.allocations(), self.server.poll_timeout()), (0, None), "I12");
        assert!(self.driver.used.is_empty() && self.mirror.is_empty(), "I12");
        let stats = self.server.stats();
        assert_eq!(stats.allocations_opened, stats.allocation_duration.count, "I12");
        assert!(stats.allocations_opened > 0, "something happened");
    }

    fn note(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.digest = (self.digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3);
        }
    }

    fn now(&self) -> Now {
        Now {
            instant: self.start + Duration::from_millis(self.clock.ms),
            unix_secs: self.clock.unix.cast_unsigned(),
        }
    }
}

fn config(channel_ms: u64) -> server::Config {
    server::Config {
        auth: auth::Config {
            realm: REALM.into(),
            users: USERS.map(|(user, password)| (user.into(), password.into())).into(),
            secrets: Vec::new(),
            nonce_key: [7; 32],
            nonce_lifetime: Duration::from_secs(model::NONCE_SECS.cast_unsigned()),
            sha256: true,
        },
        policy: policy::Config::default(),
        limits: limits::Config {
            permissions_per_allocation: PERMISSIONS,
            channels_per_allocation: CHANNELS,
            unauthenticated_per_source: 0,
            channel_lifetime: Duration::from_millis(channel_ms),
            ..limits::Config::default()
        },
        software: None,
    }
}

fn host() -> policy::Host {
    let addresses = || [RELAY_V4, RELAY_V6].map(|ip| ip.parse().unwrap()).to_vec();
    policy::Host {
        endpoints: vec![LISTENER.parse().unwrap()],
        addresses: addresses(),
        relay_addresses: addresses(),
        relay_ports: PORTS,
    }
}

fn five_tuple(client: SocketAddr) -> FiveTuple {
    FiveTuple { transport: Transport::Udp, client, server: LISTENER.parse().unwrap() }
}

fn peer(rng: &mut StdRng) -> SocketAddr {
    // The good ones come first and more often.
    let at = if rng.random_bool(0.5) {
        rng.random_range(0..4)
    } else {
        rng.random_range(0..PEERS.len())
    };
    PEERS[at].parse().unwrap()
}

fn peers(rng: &mut StdRng) -> Vec<SocketAddr> {
    let count = [0, 1, 1, 1, 1, 2, 2, 3, 6][rng.random_range(0..9)];
    (0..count).map(|_| peer(rng)).collect()
}

fn number(rng: &mut StdRng) -> u16 {
    [0x4000, 0x4001, 0x4002, 0x4003, 0x4FFF, 0x4000, 0x4001, 0x3FFF, 0x5000][rng.random_range(0..9)]
}

fn lifetime(rng: &mut StdRng) -> Option<u32> {
    [None, Some(1), Some(700), Some(3600), Some(u32::MAX)][rng.random_range(0..5)]
}

fn data(rng: &mut StdRng) -> Vec<u8> {
    let mut data = vec![0; rng.random_range(0..40)];
    rng.fill_bytes(&mut data);
    data
}
