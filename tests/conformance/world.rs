//! A server in virtual time, with a stand-in for the driver and clients that speak through
//! [`wire`](crate::wire). Every reply is judged on its way.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hairpin::stun::AddressFamily;
use hairpin::stun::attribute::{ConnectionId, ReservationToken};
use hairpin::turn::connections::Tally;
use hairpin::turn::stats::{Direction, Traffic};
use hairpin::turn::{
    AllocateError, Allocated, AllocationId, Alternate, ChannelRange, ConnectError,
    ConnectionBindError, DropReason, Event, FiveTuple, Now, PendingAllocation, PendingConnect,
    PendingConnectionBind, PortWish, Refused, RelayedAddress, Server, Transport, Verdict, auth,
    limits, policy, server,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::wire::{self, Attr, Msg, Parsed, Txid, attr};

pub(crate) const REALM: &str = "example.org";
pub(crate) const LISTENER: &str = "203.0.113.5:3478";
pub(crate) const RELAY_V4: &str = "203.0.113.5";
pub(crate) const RELAY_V6: &str = "2606:4700::5";
pub(crate) const HTTP: &str = "203.0.113.5:8080";
/// A peer nothing is wrong with.
pub(crate) const PEER: &str = "8.8.8.8:9000";
pub(crate) const PEER_V6: &str = "[2a00:1450::8]:9000";
/// Seconds since 1970 when a world begins.
pub(crate) const EPOCH_SECS: u64 = 1_800_000_000;

/// What a world is made of; change it in [`World::with`].
#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) config: server::Config,
    pub(crate) host: policy::Host,
    /// Allocations a user may hold; 0 is no limit.
    pub(crate) quota: usize,
}

impl Default for Setup {
    fn default() -> Self {
        let users = [("alice", "secret1"), ("bob", "secret2")];
        Self {
            config: server::Config {
                auth: auth::Config {
                    realm: REALM.into(),
                    users: users.map(|(user, pass)| (user.into(), pass.into())).into(),
                    secrets: Vec::new(),
                    nonce_key: [7; 32],
                    nonce_lifetime: Duration::from_secs(3600),
                    sha256: true,
                },
                policy: policy::Config::default(),
                limits: limits::Config {
                    unauthenticated_per_source: 0,
                    ..limits::Config::default()
                },
                discovery: None,
                channels: ChannelRange::default(),
                alternates: Vec::new(),
                drain_to: Vec::new(),
                dont_fragment: false,
                mobility: None,
                software: None,
                tcp_relay: false,
            },
            host: policy::Host {
                endpoints: vec![LISTENER.parse().unwrap(), HTTP.parse().unwrap()],
                addresses: [RELAY_V4, RELAY_V6, "127.0.0.1", "::1"]
                    .map(|ip| ip.parse().unwrap())
                    .into(),
                aliases: Vec::new(),
                broadcasts: Vec::new(),
                relay_addresses: [RELAY_V4, RELAY_V6].map(|ip| ip.parse().unwrap()).into(),
                relay_ports: 49152..=65535,
            },
            quota: 0,
        }
    }
}

/// What came of one packet from a client.
#[derive(Debug)]
pub(crate) enum Outcome {
    Dropped(DropReason),
    Reply(Parsed),
    /// From another of the server's addresses.
    ReplyFrom(SocketAddr, Parsed),
    ToPeer {
        relay: SocketAddr,
        peer: SocketAddr,
        data: Vec<u8>,
    },
    /// [`World::connected`] goes on with it.
    Connecting(PendingConnect),
}

impl Outcome {
    pub(crate) fn reply(self) -> Parsed {
        match self {
            Self::Reply(reply) => reply,
            other => panic!("no reply, but {other:?}"),
        }
    }

    pub(crate) fn dropped(self) -> DropReason {
        match self {
            Self::Dropped(reason) => reason,
            other => panic!("not dropped, but {other:?}"),
        }
    }

    /// Receiver and data of what went to a peer.
    pub(crate) fn relayed(self) -> (SocketAddr, Vec<u8>) {
        match self {
            Self::ToPeer { peer, data, .. } => (peer, data),
            other => panic!("not relayed, but {other:?}"),
        }
    }
}

/// What a client receives of a peer's datagram.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Delivery {
    Dropped(DropReason),
    Channel { client: SocketAddr, number: u16, data: Vec<u8> },
    Data { client: SocketAddr, peer: SocketAddr, data: Vec<u8> },
}

/// What the connections of each allocation relay in these worlds.
struct Relayed;

impl Tally for Relayed {
    fn relayed(&self, direction: Direction) -> Traffic {
        match direction {
            Direction::ToPeer => Traffic { bytes: 1_000, packets: 3 },
            Direction::ToClient => Traffic { bytes: 70, packets: 2 },
        }
    }
}

#[derive(Debug)]
struct Relay {
    id: AllocationId,
    user: String,
    client: FiveTuple,
}

pub(crate) struct World {
    pub(crate) server: Server,
    pub(crate) now: Now,
    pub(crate) events: Vec<Event>,
    /// Whether what last went to a peer has the DF bit set.
    pub(crate) dont_fragment: bool,
    /// What the next binds fail with.
    pub(crate) failures: VecDeque<AllocateError>,
    /// What the next allocations have for a bandwidth.
    pub(crate) meter: Option<Arc<dyn limits::Meter>>,
    /// Whether SOFTWARE is to be seen.
    software: bool,
    sha256: bool,
    quota: usize,
    host: policy::Host,
    /// By token: the port, whose it is, and until when.
    reserved: BTreeMap<[u8; 8], (SocketAddr, String, Instant)>,
    relays: BTreeMap<SocketAddr, Relay>,
    /// Connections that no client has bound yet.
    waiting: BTreeMap<u32, (String, AllocationId, SocketAddr)>,
    /// The keys a reply may be signed with.
    keys: Vec<Vec<u8>>,
    rng: StdRng,
    pub(crate) start: Instant,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut Setup)) -> Self {
        let mut setup = Setup::default();
        change(&mut setup);
        #[expect(clippy::disallowed_methods, reason = "an Instant can be had in no other way")]
        let start = Instant::now();
        Self {
            software: setup.config.software.is_some(),
            sha256: setup.config.auth.sha256,
            quota: setup.quota,
            host: setup.host.clone(),
            server: Server::new(setup.config, setup.host, [3; 32]),
            now: Now { instant: start, unix_secs: EPOCH_SECS },
            events: Vec::new(),
            dont_fragment: false,
            failures: VecDeque::new(),
            meter: None,
            reserved: BTreeMap::new(),
            relays: BTreeMap::new(),
            waiting: BTreeMap::new(),
            keys: Vec::new(),
            rng: StdRng::seed_from_u64(1),
            start,
        }
    }

    /// Lets time pass, with all timers that are due on the way.
    pub(crate) fn pass(&mut self, duration: Duration) {
        let end = self.now.instant + duration;
        while let Some(due) = self.server.poll_timeout().filter(|&due| due <= end) {
            self.now.instant = due.max(self.now.instant);
            self.server.handle_timeout(self.now);
        }
        self.now.instant = end;
        let since = (end - self.start).as_secs();
        self.now.unix_secs = EPOCH_SECS + since;
        self.drain_events();
    }

    pub(crate) fn pass_secs(&mut self, seconds: u64) {
        self.pass(Duration::from_secs(seconds));
    }

    /// Hands a client's packet to the server and acts on the verdict as a driver would.
    pub(crate) fn deliver(&mut self, from: FiveTuple, packet: &[u8]) -> Outcome {
        let mut reply = Vec::new();
        let verdict = self.server.handle_client(from, packet, self.now, &mut reply);
        let outcome = match verdict {
            Verdict::Drop(reason) => Outcome::Dropped(reason),
            Verdict::Reply => Outcome::Reply(Parsed::strict(&reply)),
            Verdict::ReplyFrom(origin) => Outcome::ReplyFrom(origin, Parsed::strict(&reply)),
            Verdict::ToPeer { from: id, peer, payload, dont_fragment } => {
                self.dont_fragment = dont_fragment;
                let (relay, _) = self.relay_of(id);
                Outcome::ToPeer { relay, peer: peer.address(), data: packet[payload].to_vec() }
            }
            Verdict::ToClient { .. } => panic!("a client's packet goes to no client"),
            Verdict::Connect(pending) => Outcome::Connecting(pending),
            Verdict::BindConnection(pending) => {
                let result = self.take_waiting(&pending);
                self.server.connection_bound(pending, result, self.now, &mut reply);
                Outcome::Reply(Parsed::strict(&reply))
            }
            Verdict::Resumed(_) => Outcome::Reply(Parsed::strict(&reply)),
            // There is no other shard that could have it.
            Verdict::Resume(pending) => {
                assert!(
                    self.server
                        .resumed(pending, Err(Refused::Gone), self.now, &mut reply)
                        .is_none()
                );
                Outcome::Reply(Parsed::strict(&reply))
            }
            Verdict::Elsewhere(relayed) => panic!("for {relayed:?} on another shard"),
            Verdict::Bind(pending) => {
                let user = pending.account().to_owned();
                assert_eq!(pending.client(), from);
                let result = self.bind(&pending);
                let bound = result.as_ref().map(|own| (own.relayed.0, own.also)).ok();
                let id = self.server.allocated(&pending, result, self.now, &mut reply);
                assert_eq!(id.is_some(), bound.is_some());
                if let (Some(id), Some((relayed, also))) = (id, bound) {
                    self.relays.insert(relayed, Relay { id, user: user.clone(), client: from });
                    let other = self.server.other_family(id);
                    assert_eq!(other.is_some(), also.is_some());
                    if let (Some(id), Some(RelayedAddress(also))) = (other, also) {
                        self.relays.insert(also, Relay { id, user, client: from });
                    }
                }
                Outcome::Reply(Parsed::strict(&reply))
            }
        };
        if let Outcome::Reply(reply) | Outcome::ReplyFrom(_, reply) = &outcome {
            self.judge(packet, reply);
        } else {
            assert!(reply.is_empty(), "no reply, no bytes");
        }
        self.drain_events();
        outcome
    }

    /// Hands in all packets, and only then binds for each of them, in their order. Returns the
    /// error codes, 0 for success.
    pub(crate) fn deliver_slowly(&mut self, from: FiveTuple, packets: &[&[u8]]) -> Vec<u16> {
        let mut pending = Vec::new();
        for packet in packets {
            match self.server.handle_client(from, packet, self.now, &mut Vec::new()) {
                Verdict::Bind(allocation) => pending.push(allocation),
                other => panic!("nothing to bind, but {other:?}"),
            }
        }
        let mut codes = Vec::new();
        for (allocation, packet) in pending.into_iter().zip(packets) {
            let user = allocation.account().to_owned();
            let bound = self.bind(&allocation);
            let relayed = bound.as_ref().map(|allocated| allocated.relayed.0).unwrap();
            let mut reply = Vec::new();
            let id = self.server.allocated(&allocation, bound, self.now, &mut reply);
            if let Some(id) = id {
                self.relays.insert(relayed, Relay { id, user, client: from });
            }
            let reply = Parsed::strict(&reply);
            self.judge(packet, &reply);
            codes.push(reply.code());
        }
        self.drain_events();
        codes
    }

    /// A datagram arrives at a relayed address.
    pub(crate) fn peer_sends(&mut self, relay: SocketAddr, from: &str, data: &[u8]) -> Delivery {
        let Some(Relay { id, client, .. }) = self.relays.get(&relay) else {
            panic!("{relay} is no relayed address");
        };
        let (id, client) = (*id, *client);
        let from = from.parse().unwrap();
        match self.server.handle_peer(id, from, data, self.now) {
            Verdict::Drop(reason) => Delivery::Dropped(reason),
            Verdict::ToClient { to, header, padding } => {
                assert_eq!(to, id, "delivered to its own client");
                let mut packet = header.as_bytes().to_vec();
                packet.extend(data);
                packet.extend(vec![0; padding]);
                read_delivery(client, &packet)
            }
            other => panic!("a peer's packet becomes {other:?}"),
        }
    }

    /// The allocation behind a relayed address, for what the driver knows it by.
    pub(crate) fn allocation_at(&self, relay: SocketAddr) -> AllocationId {
        self.relays[&relay].id
    }

    /// A connection to a peer has come about, or not.
    pub(crate) fn connected(
        &mut self,
        pending: PendingConnect,
        result: Result<u32, ConnectError>,
    ) -> Parsed {
        let (id, peer) = (pending.allocation(), pending.peer().address());
        let mut reply = Vec::new();
        let name = result.map(ConnectionId);
        let is_wanted = self.server.connected(pending, name, self.now, &mut reply);
        if let (true, Ok(name)) = (is_wanted, result) {
            let user = self.relay_of(id).1.user.clone();
            self.waiting.insert(name, (user, id, peer));
        }
        self.drain_events();
        Parsed::strict(&reply)
    }

    /// A peer connects to a relayed address. What the client gets, or why the peer is turned away.
    pub(crate) fn peer_connects(
        &mut self,
        relay: SocketAddr,
        from: &str,
        name: u32,
    ) -> Result<Parsed, DropReason> {
        let Relay { id, user, .. } = &self.relays[&relay];
        let (id, user, peer) = (*id, user.clone(), from.parse().unwrap());
        let mut indication = Vec::new();
        let admitted =
            self.server.handle_connection(id, peer, ConnectionId(name), self.now, &mut indication);
        self.drain_events();
        assert_eq!(admitted.is_ok(), !indication.is_empty());
        admitted.map(|()| {
            self.waiting.insert(name, (user, id, peer));
            Parsed::strict(&indication)
        })
    }

    /// The connection with a peer has ended.
    pub(crate) fn disconnected(&mut self, relay: SocketAddr, peer: &str) {
        let id = self.relays[&relay].id;
        self.server.disconnected(id, peer.parse().unwrap());
    }

    fn take_waiting(&mut self, pending: &PendingConnectionBind) -> Result<(), ConnectionBindError> {
        let ConnectionId(name) = pending.id();
        let (user, ..) = self.waiting.get(&name).ok_or(ConnectionBindError::Unknown)?;
        if user != pending.username() {
            return Err(ConnectionBindError::OtherUser);
        }
        self.waiting.remove(&name);
        Ok(())
    }

    /// Live relayed addresses.
    pub(crate) fn relay_count(&self) -> usize {
        self.relays.len()
    }

    fn relay_of(&self, wanted: AllocationId) -> (SocketAddr, &Relay) {
        let (&address, relay) =
            self.relays.iter().find(|(_, relay)| relay.id == wanted).expect("a live relay");
        (address, relay)
    }

    fn bind(&mut self, pending: &PendingAllocation) -> Result<Allocated, AllocateError> {
        let (account, now) = (pending.account(), self.now.instant);
        self.reserved.retain(|_, (.., until)| *until > now);
        if let PortWish::Reserved(token) = pending.port() {
            let found = self.reserved.get(&token.0).filter(|(_, user, _)| user == account);
            let relayed = RelayedAddress(found.ok_or(AllocateError::NoCapacity)?.0);
            self.reserved.remove(&token.0);
            return Ok(Allocated {
                relayed,
                also: None,
                meter: None,
                reservation: None,
                tally: None,
            });
        }
        let pair = pending.port() == PortWish::Pair;
        let first = self.bind_one(pending, pending.family(), usize::from(pair));
        let taken = usize::from(first.is_ok());
        let second = pending.additional_family();
        let second = second.map(|family| self.bind_one(pending, family, taken));
        let (relayed, also) = match (first, second) {
            (Ok(first), second) => (first, second.and_then(Result::ok)),
            (Err(_), Some(Ok(second))) => (second, None),
            (Err(error), _) => return Err(error),
        };
        let reservation = pair.then(|| {
            let token = self.rng.random();
            let next = SocketAddr::new(relayed.0.ip(), relayed.0.port() + 1);
            let until = now + Duration::from_secs(30);
            self.reserved.insert(token, (next, account.to_owned(), until));
            ReservationToken(token)
        });
        let tally: Option<Arc<dyn Tally>> = Some(Arc::new(Relayed));
        let meter = self.meter.clone();
        Ok(Allocated { relayed, also, meter, reservation, tally })
    }

    /// One relayed address, where the quota has room for `more` besides it.
    fn bind_one(
        &mut self,
        pending: &PendingAllocation,
        family: AddressFamily,
        more: usize,
    ) -> Result<RelayedAddress, AllocateError> {
        if let Some(failure) = self.failures.pop_front() {
            return Err(failure);
        }
        let account = pending.account();
        let held = self.relays.values().filter(|relay| relay.user == account).count()
            + self.reserved.values().filter(|(_, user, _)| user == account).count();
        if self.quota != 0 && held + more >= self.quota {
            return Err(AllocateError::QuotaReached);
        }
        let is_wanted = |ip: &&IpAddr| AddressFamily::of(**ip) == family;
        let ports = || self.host.relay_ports.clone();
        let free: Vec<SocketAddr> = (self.host.relay_addresses.iter().filter(is_wanted))
            .flat_map(|&ip| ports().map(move |port| SocketAddr::new(ip, port)))
            .filter(|&address| self.suits(pending.port(), address))
            .collect();
        if free.is_empty() {
            return Err(AllocateError::NoCapacity);
        }
        Ok(RelayedAddress(free[self.rng.random_range(0..free.len())]))
    }

    /// Whether the address is to be had, and with it the next one where a pair is wanted.
    fn suits(&self, wish: PortWish, address: SocketAddr) -> bool {
        let free = |address: SocketAddr| {
            !self.relays.contains_key(&address)
                && !self.reserved.values().any(|(other, ..)| *other == address)
        };
        let even = address.port().is_multiple_of(2);
        match wish {
            PortWish::Any | PortWish::Reserved(_) => free(address),
            PortWish::Even => even && free(address),
            PortWish::Pair => {
                let next = SocketAddr::new(address.ip(), address.port().saturating_add(1));
                even && free(address) && self.host.relay_ports.contains(&next.port()) && free(next)
            }
        }
    }

    fn drain_events(&mut self) {
        while let Some(event) = self.server.poll_event() {
            if let Event::Switched { id, client } = &event {
                let relay = self.relays.values_mut().find(|relay| relay.id == *id);
                relay.expect("a live relay").client = *client;
            }
            if let Event::Closed { relayed, .. } = &event {
                let closed = self.relays.remove(&relayed.0).expect("what closes was open");
                self.waiting.retain(|_, (_, id, _)| *id != closed.id);
            }
            self.events.push(event);
        }
        assert_eq!(self.server.allocations(), self.relays.len(), "allocations and relay sockets");
    }

    /// What holds of every reply, whatever it answers.
    fn judge(&self, request: &[u8], reply: &Parsed) {
        let asked = u16::from_be_bytes([request[0], request[1]]);
        stun_types::message::Message::from_bytes(&reply.bytes).expect("stun-types reads it");
        let padding = reply.get(attr::PADDING).map_or(0, <[u8]>::len);
        assert!(reply.bytes.len() - padding < 548, "{} bytes", reply.bytes.len());
        assert_eq!(reply.id, request[8..20], "RFC 8489 §5: the transaction id is echoed");
        assert_eq!(reply.kind & !0x0110, asked, "the method is echoed");
        assert!(reply.kind & 0x0100 != 0, "a response");
        assert_eq!(reply.count(attr::ERROR_CODE), usize::from(!reply.is_success()));
        assert_ne!(reply.code(), 487, "487 belongs to ICE");
        assert!(self.software && reply.is_success() || !reply.has(attr::SOFTWARE));
        assert_eq!(reply.has(attr::FINGERPRINT), has_fingerprint(request));
        if reply.has(attr::FINGERPRINT) {
            assert!(reply.fingerprint_is_right());
        }
        self.judge_authenticity(asked, reply);
        let challenge = matches!(reply.code(), 401 | 438);
        assert_eq!(reply.count(attr::REALM), usize::from(challenge));
        assert_eq!(reply.count(attr::NONCE), usize::from(challenge));
        assert_eq!(reply.count(attr::PAS), usize::from(challenge && self.sha256));
        if challenge {
            assert!(reply.text(attr::NONCE).starts_with("obMatJos2"));
            assert!(reply.text(attr::NONCE).len() < 128);
        }
    }

    fn judge_authenticity(&self, asked: u16, reply: &Parsed) {
        let signatures = reply.count(attr::MI) + reply.count(attr::MI2);
        let plain = asked == wire::BINDING || matches!(reply.code(), 400 | 401 | 438);
        assert!(signatures == 1 || plain && signatures == 0, "{signatures} signatures: {reply:?}");
        assert!(!reply.has(attr::USERNAME) && !reply.has(attr::USERHASH));
        if signatures == 1 {
            let kind = if reply.has(attr::MI) { attr::MI } else { attr::MI2 };
            assert!(self.keys.iter().any(|key| reply.verifies(kind, key)), "the integrity");
            assert!(!matches!(reply.code(), 401 | 438), "a challenge is not signed");
        }
    }
}

/// Reads what a client gets, and checks the form of it.
fn read_delivery(to: FiveTuple, packet: &[u8]) -> Delivery {
    let client = to.client;
    if packet[0] >> 6 == 1 {
        let number = u16::from_be_bytes([packet[0], packet[1]]);
        let length = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
        let is_stream = matches!(to.transport, Transport::Tcp | Transport::Tls);
        let padded = if is_stream { length.next_multiple_of(4) } else { length };
        assert_eq!(padded, packet.len() - 4, "ChannelData is padded over streams, and only there");
        return Delivery::Channel { client, number, data: packet[4..4 + length].to_vec() };
    }
    let data = Parsed::strict(packet);
    assert_eq!(data.kind, wire::DATA_INDICATION);
    assert_eq!(data.attributes.len(), 2, "XOR-PEER-ADDRESS and DATA, no integrity");
    Delivery::Data {
        client,
        peer: data.address(attr::XPA),
        data: data.get(attr::DATA).unwrap().to_vec(),
    }
}

/// Whether the last attribute is FINGERPRINT.
fn has_fingerprint(request: &[u8]) -> bool {
    request.len() >= 28 && request[request.len() - 8..][..4] == [0x80, 0x28, 0, 4]
}

/// How a client proves who it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Mode {
    /// As before RFC 8489: MD5 key, MESSAGE-INTEGRITY.
    Legacy,
    /// PASSWORD-ALGORITHM 1, MESSAGE-INTEGRITY-SHA256.
    Md5,
    /// PASSWORD-ALGORITHM 2, MESSAGE-INTEGRITY-SHA256.
    Sha256,
}

#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) five: FiveTuple,
    pub(crate) user: String,
    pub(crate) password: String,
    pub(crate) mode: Mode,
    pub(crate) hashed: bool,
    pub(crate) fingerprint: bool,
    pub(crate) nonce: String,
    pub(crate) realm: String,
    pub(crate) algorithms: Vec<u8>,
    next: u32,
}

impl Client {
    /// alice, at this address.
    pub(crate) fn at(address: &str) -> Self {
        Self::named(address, "alice", "secret1")
    }

    pub(crate) fn bob(address: &str) -> Self {
        Self::named(address, "bob", "secret2")
    }

    pub(crate) fn named(address: &str, user: &str, password: &str) -> Self {
        Self {
            five: five_tuple(address),
            user: user.into(),
            password: password.into(),
            mode: Mode::Legacy,
            hashed: false,
            fingerprint: false,
            nonce: String::new(),
            realm: REALM.into(),
            algorithms: Vec::new(),
            next: 0,
        }
    }

    pub(crate) fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    pub(crate) fn id(&mut self) -> Txid {
        self.next += 1;
        let mut id = [0xA5; 12];
        id[..4].copy_from_slice(&self.next.to_be_bytes());
        id[4..6].copy_from_slice(&self.five.client.port().to_be_bytes());
        id
    }

    pub(crate) fn key(&self) -> Vec<u8> {
        match self.mode {
            Mode::Legacy | Mode::Md5 => wire::md5_key(&self.user, &self.realm, &self.password),
            Mode::Sha256 => wire::sha256_key(&self.user, &self.realm, &self.password),
        }
    }

    /// Credentials without the integrity.
    pub(crate) fn credentials(&self) -> Vec<Attr> {
        let name = if self.hashed {
            wire::raw(attr::USERHASH, &wire::user_hash(&self.user, &self.realm))
        } else {
            wire::raw(attr::USERNAME, self.user.as_bytes())
        };
        let mut attributes = vec![
            name,
            wire::raw(attr::REALM, self.realm.as_bytes()),
            wire::raw(attr::NONCE, self.nonce.as_bytes()),
        ];
        if self.mode != Mode::Legacy {
            let number = if self.mode == Mode::Md5 { 1 } else { 2 };
            attributes.push(wire::raw(attr::PA, &[0, number, 0, 0]));
            attributes.push(wire::raw(attr::PAS, &self.algorithms));
        }
        attributes
    }

    pub(crate) fn sign(&self, message: Msg) -> Vec<u8> {
        let key = self.key();
        let signed = if self.mode == Mode::Legacy { message.mi(&key) } else { message.mi2(&key) };
        if self.fingerprint { signed.fingerprint().finish() } else { signed.finish() }
    }

    /// A signed request.
    pub(crate) fn request(&mut self, kind: u16, attributes: &[Attr]) -> Vec<u8> {
        let message = Msg::new(kind, self.id()).add(attributes).add(&self.credentials());
        self.sign(message)
    }

    /// Learns realm, nonce and algorithms from a 401 or 438.
    pub(crate) fn learn(&mut self, challenge: &Parsed) {
        self.realm = challenge.text(attr::REALM);
        self.nonce = challenge.text(attr::NONCE);
        self.algorithms = challenge.get(attr::PAS).unwrap_or_default().to_vec();
    }

    /// Gets a nonce with a bare Allocate.
    pub(crate) fn greet(&mut self, world: &mut World) {
        let bare = Msg::new(wire::ALLOCATE, self.id()).finish();
        let challenge = world.deliver(self.five, &bare).reply();
        assert_eq!(challenge.code(), 401);
        self.learn(&challenge);
        world.keys.push(self.key());
    }

    /// Asks and gets the answer, after the 401 that comes first and any 438.
    pub(crate) fn ask(&mut self, world: &mut World, kind: u16, attributes: &[Attr]) -> Parsed {
        if self.nonce.is_empty() {
            self.greet(world);
        }
        let request = self.request(kind, attributes);
        let mut reply = world.deliver(self.five, &request).reply();
        if reply.code() == 438 {
            self.learn(&reply);
            let request = self.request(kind, attributes);
            reply = world.deliver(self.five, &request).reply();
        }
        if reply.has(attr::MI) || reply.has(attr::MI2) {
            let wanted = if self.mode == Mode::Legacy { attr::MI } else { attr::MI2 };
            assert!(reply.verifies(wanted, &self.key()), "signed with the asker's own key");
        }
        reply
    }

    pub(crate) fn code(&mut self, world: &mut World, kind: u16, attributes: &[Attr]) -> u16 {
        self.ask(world, kind, attributes).code()
    }

    /// The same client over TCP.
    pub(crate) fn over_tcp(mut self) -> Self {
        self.five.transport = Transport::Tcp;
        self
    }

    /// Asks where the answer has to wait, after the 401 that comes first.
    pub(crate) fn begin(&mut self, world: &mut World, kind: u16, attributes: &[Attr]) -> Outcome {
        if self.nonce.is_empty() {
            self.greet(world);
        }
        let request = self.request(kind, attributes);
        world.deliver(self.five, &request)
    }

    /// An IPv4 allocation.
    pub(crate) fn allocate(&mut self, world: &mut World) -> SocketAddr {
        self.allocate_with(world, &[])
    }

    pub(crate) fn allocate_with(&mut self, world: &mut World, more: &[Attr]) -> SocketAddr {
        let attributes = [&[wire::transport(17)], more].concat();
        let reply = self.ask(world, wire::ALLOCATE, &attributes);
        assert_eq!(reply.code(), 0, "the allocation");
        assert_eq!(reply.address(attr::XMA), self.five.client);
        reply.address(attr::XRA)
    }

    pub(crate) fn permit(&mut self, world: &mut World, peers: &[&str]) -> u16 {
        let peers: Vec<Attr> = peers.iter().map(|address| wire::peer(address)).collect();
        self.code(world, wire::CREATE_PERMISSION, &peers)
    }

    pub(crate) fn bind(&mut self, world: &mut World, number: u16, peer: &str) -> u16 {
        self.code(world, wire::CHANNEL_BIND, &[wire::channel(number), wire::peer(peer)])
    }

    pub(crate) fn refresh(&mut self, world: &mut World, seconds: u32) -> Parsed {
        self.ask(world, wire::REFRESH, &[wire::lifetime(seconds)])
    }

    pub(crate) fn send(&mut self, world: &mut World, peer: &str, data: &[u8]) -> Outcome {
        self.indicate(world, &[wire::peer(peer), wire::raw(attr::DATA, data)])
    }

    pub(crate) fn indicate(&mut self, world: &mut World, attributes: &[Attr]) -> Outcome {
        let message = Msg::new(wire::SEND_INDICATION, self.id()).add(attributes).finish();
        world.deliver(self.five, &message)
    }

    pub(crate) fn channel_data(&self, world: &mut World, number: u16, data: &[u8]) -> Outcome {
        world.deliver(self.five, &wire::channel_data(number, data))
    }

    /// An unauthenticated Binding gets its answer: the server is alive.
    pub(crate) fn is_served(&mut self, world: &mut World) {
        let request = Msg::new(wire::BINDING, self.id()).finish();
        let reply = world.deliver(self.five, &request).reply();
        assert_eq!(reply.address(attr::XMA), self.five.client);
    }
}

/// Another server, written as in the configuration: an address, or an address and a name.
pub(crate) fn other(text: &str) -> Alternate {
    let (address, name) = text.split_once('/').map_or((text, None), |(at, name)| (at, Some(name)));
    Alternate { address: address.parse().unwrap(), name: name.map(str::to_owned) }
}

pub(crate) fn five_tuple(client: &str) -> FiveTuple {
    let client: SocketAddr = client.parse().unwrap();
    let server = if client.is_ipv4() { LISTENER } else { "[2606:4700::5]:3478" };
    FiveTuple { transport: Transport::Udp, client, server: server.parse().unwrap() }
}

/// A world with a client that has an allocation, and its relayed address.
pub(crate) fn allocated() -> (World, Client, SocketAddr) {
    let mut world = World::new();
    let mut client = Client::at("198.51.100.1:4000");
    let relay = client.allocate(&mut world);
    (world, client, relay)
}

/// The same with an IPv6 relayed address.
pub(crate) fn allocated_v6() -> (World, Client, SocketAddr) {
    let mut world = World::new();
    let mut client = Client::at("198.51.100.1:4000");
    let relay = client.allocate_with(&mut world, &[wire::family(2)]);
    (world, client, relay)
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}
