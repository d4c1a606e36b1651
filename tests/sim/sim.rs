//! One run: what happens, and what must hold after each step.

mod acts;
mod judge;
mod scenario;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hairpin::stun::AddressFamily;
use hairpin::stun::attribute::ReservationToken;
use hairpin::turn::{
    Allocated, AllocationId, Event, Now, PendingAllocation, PortWish, Refused, RelayedAddress,
    Server, Verdict,
};
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

use crate::client::{Client, Intent};
use crate::driver::Driver;
use crate::model::{Clock, Model, Operation, Port, Request, Ticket};
use crate::wire::{self, Parsed, Txid, attr};
use scenario::{CLIENTS, PEERS, config, five_tuple, host};

const EPOCH_SECS: i64 = 1_800_000_000;

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
    /// All that any client was told.
    tokens: Vec<[u8; 8]>,
    /// Moves that were completed.
    switches: u64,
    /// The bindings as the events tell them: number, peer, expiry for each allocation.
    mirror: BTreeMap<AllocationId, Vec<(u16, SocketAddr, Instant)>>,
    answers: BTreeMap<(usize, Txid), (u32, u32)>,
    /// Every ticket that was given, and to whom.
    tickets: Vec<(Ticket, (&'static str, &'static str))>,
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
            model: Model { allocations: Vec::new(), serials: 0, channel_ms },
            driver: Driver::new(),
            clients,
            network: Vec::new(),
            slow: Vec::new(),
            dead: Vec::new(),
            tokens: Vec::new(),
            switches: 0,
            mirror: BTreeMap::new(),
            answers: BTreeMap::new(),
            tickets: Vec::new(),
            start,
            clock: Clock { ms: 0, unix: EPOCH_SECS },
            digest: 0,
            rng,
        }
    }

    pub(crate) fn run(&mut self, steps: u64) {
        for step in 0..steps {
            self.step = step;
            for _ in 0..4 {
                self.act();
            }
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
        let at_an_expiry = self.rng.random_bool(0.02);
        let target = match self.rng.random_range(0..1000) {
            _ if at_an_expiry => self.some_expiry(),
            0..600 => self.clock.ms,
            600..985 => self.clock.ms + self.rng.random_range(0..2_000),
            985..998 => self.clock.ms + self.rng.random_range(0..100_000),
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
        if at_an_expiry {
            self.probe();
        }
    }

    /// Tries every way there is, at this very moment.
    fn probe(&mut self) {
        for client in 0..self.clients.len() {
            for number in 0x4000..0x4004 {
                let intent = Intent::ChannelData { number, data: b"probe".to_vec() };
                self.client_packet(client, &wire::channel_data(number, b"probe"), Some(&intent));
            }
        }
        let relays: Vec<SocketAddr> = self.driver.used.keys().copied().collect();
        for relay in relays {
            for peer in PEERS {
                self.peer_packet(relay, peer.parse().unwrap(), b"probe");
            }
        }
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
                    self.client_packet(client, &bytes, intent.as_ref());
                }
                Cargo::FromPeer { relay, from } => self.peer_packet(relay, from, &bytes),
            }
            self.drain_events();
        }
    }

    fn client_packet(&mut self, client: usize, bytes: &[u8], intent: Option<&Intent>) {
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
            Verdict::ToPeer { from: id, peer, payload, .. } => {
                let (peer, data) = (peer.address(), bytes[payload].to_vec());
                self.judge_to_peer(client, intent, id, peer, &data);
            }
            Verdict::ToClient { .. } => panic!("a client's packet went to a client"),
            Verdict::Connect(_) | Verdict::BindConnection(_) => panic!("nobody connects here"),
            Verdict::Resumed(_) => self.judge_reply(client, bytes.len(), intent, &reply),
            Verdict::Resume(pending) => {
                let result = Err(Refused::Gone);
                assert!(self.server.resumed(pending, result, self.now(), &mut reply).is_none());
                self.judge_reply(client, bytes.len(), intent, &reply);
            }
            Verdict::Elsewhere(_) => panic!("there is no other shard"),
            Verdict::ReplyFrom(origin) => panic!("a reply from {origin}, but discovery is off"),
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
        let Operation::Allocate { port: wish, .. } = request.operation else { unreachable!() };
        assert_eq!(pending.account(), request.user);
        self.server.handle_timeout(self.now());
        self.drain_events();
        assert_eq!(wish_of(&pending), wish);
        let taken = self.driver.take(request.user, wish, self.clock.ms, &mut self.rng);
        let told = taken.as_ref().map_err(|&(_, code)| code);
        let expected = self.model.bound(&request, self.clock, told);
        let result = match &taken {
            Ok(taken) => Ok(Allocated {
                relayed: RelayedAddress(taken.ports[0]),
                also: taken.ports.get(1).map(|&port| RelayedAddress(port)),
                meter: None,
                reservation: taken.token.map(ReservationToken),
                tally: None,
            }),
            Err((error, _)) => Err(*error),
        };
        let mut reply = Vec::new();
        let id = self.server.allocated(&pending, result, self.now(), &mut reply);
        if let Ok(taken) = taken {
            let other = id.and_then(|id| self.server.other_family(id));
            let ids: Vec<_> = id.into_iter().chain(other).collect();
            self.driver.settle(taken, &ids, request.user);
        }
        self.drain_events();
        self.judge_answer(client, length, &request, expected, &reply);
    }

    /// To clients.
    fn peer_packet(&mut self, relay: SocketAddr, from: SocketAddr, bytes: &[u8]) {
        let Some((id, _)) = self.driver.used.get(&relay) else { return };
        let id = *id;
        let expected = self.model.delivery(relay, from, self.clock.ms);
        match self.server.handle_peer(id, from, bytes, self.now()) {
            Verdict::Drop(_) => assert_eq!(expected, None, "data from {from} is lost"),
            Verdict::ToClient { to, header, padding } => {
                assert_eq!(to, id);
                let mut packet = header.as_bytes().to_vec();
                packet.extend(bytes);
                packet.extend(vec![0; padding]);
                let number = expected.expect("to clients: an unpermitted peer reached a client");
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

    /// The answer goes back over the network too, and may be lost.
    fn hear(&mut self, client: usize, reply: &Parsed) {
        self.note(&reply.bytes);
        self.tokens.extend(reply.get(attr::TOKEN).map(|token| <[u8; 8]>::try_from(token).unwrap()));
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
                Event::Permitted { id, .. } => assert!(self.mirror.contains_key(&id)),
                Event::ChannelBound { id, number, peer, expires } => {
                    let channels = self.mirror.get_mut(&id).expect("of a live allocation");
                    channels.retain(|&(other, ..)| other != number.number());
                    channels.push((number.number(), peer.address(), expires));
                }
                Event::Connected { .. } => panic!("nobody connects here"),
                Event::Unpermitted { .. } | Event::Parted { .. } => {
                    panic!("the machine keeps its addresses here")
                }
                Event::Resumed { id, .. } => assert!(self.mirror.contains_key(&id)),
                Event::Switched { id, client } => {
                    self.model.switch(self.driver.port_of(id), client.client);
                    self.switches += 1;
                }
                Event::Left { .. } | Event::Arrived { .. } => panic!("there is no other shard"),
                Event::Closed { id, relayed, .. } => {
                    assert_eq!(self.driver.release(relayed.0), id);
                    self.mirror.remove(&id);
                    self.dead.push(id);
                }
            }
        }
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

/// What the server tells the driver, in the words of the model.
fn wish_of(pending: &PendingAllocation) -> Port {
    let v6 = pending.family() == AddressFamily::Ipv6;
    match pending.port() {
        PortWish::Any if pending.additional_family().is_some() => Port::Both,
        PortWish::Any => Port::Any { v6 },
        PortWish::Even => Port::Even { v6 },
        PortWish::Pair => Port::Pair { v6 },
        PortWish::Reserved(token) => Port::Reserved(token.0),
    }
}
