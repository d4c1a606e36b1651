//! The hub against a model: 10,000 connections and 1,000 rooms, coming, going, being lost and
//! coming back. A message reaches exactly who it should, and in the end nothing is left.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hairpin::signal::{
    Account, Action, Authority, CloseReason, Config, ConnectionId, Grant, Hub, IceServers, KEEP,
    PEERS_PER_ROOM, RESUME_WINDOW, ROOMS_PER_CONNECTION,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

const CONNECTIONS: usize = 10_000;
const ROOMS: usize = 1000;
const STEPS: usize = 60_000;

/// Everything the model knows of one peer.
#[derive(Debug, Default)]
struct Peer {
    secret: String,
    connection: Option<ConnectionId>,
    lost_at: Option<Instant>,
    rooms: BTreeSet<usize>,
    /// Messages it is to get when it comes back in time.
    kept: Vec<Kept>,
}

/// A message for a lost peer.
#[derive(Debug)]
struct Kept {
    until: Instant,
    number: u64,
    /// Who is told when nobody comes for it, and its secret: somebody else may have its name by then.
    sender: Option<(usize, String)>,
}

struct Open;

impl Authority for Open {
    fn grant(&self, _: &str) -> Option<Grant> {
        None
    }

    fn ice_servers(&self, _: Account<'_>, _: Duration) -> Option<IceServers> {
        let json = serde_json::value::to_raw_value(&json!([])).unwrap();
        Some(IceServers { json, ttl: Duration::from_secs(3600) })
    }
}

struct Model {
    hub: Hub,
    now: Instant,
    rng: StdRng,
    peers: BTreeMap<usize, Peer>,
    rooms: Vec<BTreeSet<usize>>,
    next_message: u64,
    delivered: u64,
    /// Whoever was told that somebody has left, or is offline, because time had passed.
    told_late: BTreeMap<&'static str, usize>,
}

#[test]
fn under_churn_a_message_reaches_exactly_who_it_should_and_nothing_leaks() {
    for seed in [1, 2] {
        let mut model = Model::new(seed);
        model.fill();
        for _ in 0..STEPS {
            model.step();
        }
        assert!(model.delivered > STEPS as u64 / 4, "{}", model.delivered);
        let often = |kind| model.told_late.get(kind).is_some_and(|count| *count > 100);
        assert!(often("peer-left") && often("peer-offline"), "{:?}", model.told_late);
        model.empty();
    }
}

impl Model {
    #[expect(clippy::disallowed_methods, reason = "an Instant can be had in no other way")]
    fn new(seed: u8) -> Self {
        let config = Config { open: true, ..Config::default() };
        Self {
            hub: Hub::new(config, Arc::new(Open), [seed; 32]),
            now: Instant::now(),
            rng: StdRng::from_seed([seed; 32]),
            peers: BTreeMap::new(),
            rooms: vec![BTreeSet::new(); ROOMS],
            next_message: 0,
            delivered: 0,
            told_late: BTreeMap::new(),
        }
    }

    fn fill(&mut self) {
        for peer in 0..CONNECTIONS {
            self.come(peer);
        }
        let stats = self.hub.stats();
        assert_eq!((stats.connections, stats.peers), (CONNECTIONS, CONNECTIONS));
    }

    fn step(&mut self) {
        let peer = self.rng.random_range(0..CONNECTIONS);
        let known = self.peers.get(&peer).map(|own| own.connection.is_some());
        match (known, self.rng.random_range(0..100u32)) {
            (None, _) => self.come(peer),
            (Some(false), 0..60) => self.come_back(peer),
            (Some(true), 0..4) => self.lose(peer),
            (Some(true), 4..8) => self.leave(peer),
            (Some(true), 8..10) => self.take_over(peer),
            (Some(true), 10..25) => self.enter(peer),
            (Some(true), 25..35) => self.exit(peer),
            (Some(true), 35..75) => self.unicast(peer),
            (Some(true), 75..) => self.broadcast(peer),
            (Some(false), _) => {}
        }
        if self.rng.random_range(0..20) == 0 {
            let millis = self.rng.random_range(1..200);
            self.pass(Duration::from_millis(millis));
        }
    }

    fn come(&mut self, peer: usize) {
        let connection = self.connect();
        let room = self.rng.random_range(0..ROOMS);
        let fits = self.rooms[room].len() < PEERS_PER_ROOM;
        self.say(connection, &join(peer, room, None));
        let said = self.listen();
        if !fits {
            assert_eq!(said.len(), 1);
            assert_eq!(said[0].1["payload"]["code"], "room-unavailable");
            self.hub.disconnected(connection, CloseReason::Left, self.now);
            return;
        }
        let welcome = said.iter().find(|(to, _)| *to == connection).unwrap();
        let secret = welcome.1["payload"]["secret"].as_str().unwrap().to_owned();
        let own = Peer { secret, connection: Some(connection), ..Peer::default() };
        self.peers.insert(peer, own);
        self.entered(peer, room, &said);
    }

    fn come_back(&mut self, peer: usize) {
        let connection = self.connect();
        let own = &self.peers[&peer];
        let room = *own.rooms.first().unwrap();
        self.say(connection, &join(peer, room, Some(&own.secret.clone())));
        let said = self.listen();
        let own = self.peers.get_mut(&peer).unwrap();
        own.connection = Some(connection);
        own.lost_at = None;
        let kept = std::mem::take(&mut own.kept);
        assert!(said.iter().all(|(to, _)| *to == connection), "nobody else notices: {said:?}");
        assert_eq!(said[0].1["payload"]["resumed"], true);
        let numbers: Vec<_> =
            said.iter().filter(|(_, text)| text["type"] == "x").map(|it| number(&it.1)).collect();
        let expected: Vec<_> = kept.iter().map(|kept| kept.number).collect();
        assert_eq!(numbers, expected);
        let told: BTreeSet<_> = said.iter().filter_map(|(_, it)| it["room"].as_str()).collect();
        let names: Vec<_> = own.rooms.iter().map(|room| room_name(*room)).collect();
        assert!(names.iter().all(|name| told.contains(name.as_str())));
    }

    fn take_over(&mut self, peer: usize) {
        let before = self.peers[&peer].connection.unwrap();
        let Some(&room) = self.peers[&peer].rooms.first() else { return };
        let connection = self.connect();
        let secret = self.peers[&peer].secret.clone();
        self.say(connection, &join(peer, room, Some(&secret)));
        let mut closed = None;
        while let Some(action) = self.hub.poll_action() {
            match action {
                Action::Close { connection, reason, .. } => closed = Some((connection, reason)),
                Action::Send { to, .. } => assert_eq!(to, connection),
                Action::Ping { .. } => {}
            }
        }
        assert_eq!(closed, Some((before, CloseReason::Replaced)));
        self.peers.get_mut(&peer).unwrap().connection = Some(connection);
    }

    fn lose(&mut self, peer: usize) {
        let own = self.peers.get_mut(&peer).unwrap();
        // A peer without rooms could not be found again by this model.
        if own.rooms.is_empty() {
            return self.leave(peer);
        }
        let connection = own.connection.take().unwrap();
        own.lost_at = Some(self.now);
        self.hub.disconnected(connection, CloseReason::Gone, self.now);
        assert!(self.listen().is_empty());
    }

    fn leave(&mut self, peer: usize) {
        let own = self.peers.remove(&peer).unwrap();
        self.hub.disconnected(own.connection.unwrap(), CloseReason::Left, self.now);
        self.left(peer, &own.rooms);
    }

    fn enter(&mut self, peer: usize) {
        let room = self.rng.random_range(0..ROOMS);
        let own = &self.peers[&peer];
        let connection = own.connection.unwrap();
        let member = own.rooms.contains(&room);
        let too_many = own.rooms.len() >= ROOMS_PER_CONNECTION;
        let full = self.rooms[room].len() >= PEERS_PER_ROOM;
        self.say(connection, &json!({ "type": "join", "room": room_name(room) }));
        let said = self.listen();
        match (member, too_many || full) {
            (true, _) => assert_eq!(said.len(), 1),
            (false, true) => assert_eq!(said[0].1["type"], "error"),
            (false, false) => self.entered(peer, room, &said),
        }
    }

    fn exit(&mut self, peer: usize) {
        let own = self.peers.get_mut(&peer).unwrap();
        let Some(room) = own.rooms.pop_first() else { return };
        let connection = own.connection.unwrap();
        self.say(connection, &json!({ "type": "leave", "room": room_name(room) }));
        self.left(peer, &[room].into());
    }

    fn unicast(&mut self, peer: usize) {
        // Half of them to somebody it can meet, where there is one.
        let rooms: Vec<_> = self.peers[&peer].rooms.iter().copied().collect();
        let near = rooms.first().and_then(|room| {
            let others: Vec<_> = self.rooms[*room].iter().filter(|other| **other != peer).collect();
            (!others.is_empty()).then(|| *others[self.rng.random_range(0..others.len())])
        });
        let other = match near {
            Some(near) if self.rng.random_range(0..2) == 0 => near,
            _ => self.rng.random_range(0..CONNECTIONS),
        };
        let number = self.number();
        let connection = self.peers[&peer].connection.unwrap();
        let message = json!({ "type": "x", "to": name(other), "payload": number });
        self.say(connection, &message);
        let said = self.listen();
        let meets = self.peers.get(&other).is_some_and(|target| {
            target.rooms.iter().any(|room| self.peers[&peer].rooms.contains(room))
        });
        if !meets {
            assert_eq!(said.len(), 1);
            assert_eq!((said[0].0, &said[0].1["type"]), (connection, &json!("error")));
            return;
        }
        self.expect(&said, &[other].into(), peer, number, true);
    }

    fn broadcast(&mut self, peer: usize) {
        let Some(&room) = self.peers[&peer].rooms.last() else { return };
        let number = self.number();
        let connection = self.peers[&peer].connection.unwrap();
        let message = json!({ "type": "x", "room": room_name(room), "payload": number });
        self.say(connection, &message);
        let said = self.listen();
        let others = self.rooms[room].iter().copied().filter(|other| *other != peer).collect();
        self.expect(&said, &others, peer, number, false);
    }

    /// Exactly these peers get the message: at once, or when they are back.
    fn expect(
        &mut self,
        said: &[(ConnectionId, Value)],
        to: &BTreeSet<usize>,
        from: usize,
        number: u64,
        is_answered_for: bool,
    ) {
        let mut expected = BTreeSet::new();
        let sender = is_answered_for.then(|| (from, self.peers[&from].secret.clone()));
        let until = self.now + KEEP;
        for peer in to {
            let own = self.peers.get_mut(peer).unwrap();
            match own.connection {
                Some(connection) => assert!(expected.insert(connection)),
                None => own.kept.push(Kept { until, number, sender: sender.clone() }),
            }
        }
        let reached: BTreeSet<_> = said.iter().map(|(to, _)| *to).collect();
        assert_eq!((reached.len(), &reached), (said.len(), &expected));
        for (_, message) in said {
            assert_eq!(message["from"], name(from).as_str());
            assert_eq!(self::number(message), number);
        }
        self.delivered += said.len() as u64;
    }

    fn entered(&mut self, peer: usize, room: usize, said: &[(ConnectionId, Value)]) {
        let others = self.rooms[room].iter().filter_map(|other| self.peers[other].connection);
        let expected: BTreeSet<_> = others.collect();
        let joined = said.iter().filter(|(_, message)| message["type"] == "peer-joined");
        assert_eq!(joined.map(|(to, _)| *to).collect::<BTreeSet<_>>(), expected);
        let peers = said.iter().find(|(_, message)| message["type"] == "peers").unwrap();
        let listed = peers.1["payload"]["peers"].as_array().unwrap();
        let listed: BTreeSet<_> =
            listed.iter().map(|entry| entry["id"].as_str().unwrap().to_owned()).collect();
        assert_eq!(listed, self.rooms[room].iter().map(|other| name(*other)).collect());
        self.rooms[room].insert(peer);
        self.peers.get_mut(&peer).unwrap().rooms.insert(room);
    }

    fn left(&mut self, peer: usize, rooms: &BTreeSet<usize>) {
        let mut expected = Vec::new();
        for room in rooms {
            self.rooms[*room].remove(&peer);
            let others = self.rooms[*room].iter().filter_map(|other| self.peers[other].connection);
            expected.extend(others.map(|connection| (connection, room_name(*room))));
        }
        let mut told: Vec<_> = self
            .listen()
            .into_iter()
            .map(|(to, message)| {
                assert_eq!(message["type"], "peer-left");
                assert_eq!(message["payload"]["id"], name(peer).as_str());
                (to, message["room"].as_str().unwrap().to_owned())
            })
            .collect();
        told.sort();
        expected.sort();
        assert_eq!(told, expected);
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        let connections: Vec<_> = self.peers.values().filter_map(|peer| peer.connection).collect();
        // Who is silent for long is lost, and this model does not follow that.
        if self.rng.random_range(0..20) == 0 {
            connections.iter().for_each(|own| self.hub.handle_control(*own, self.now));
        }
        self.hub.handle_timeout(self.now);
        let mut expected = self.expire();
        let mut told: Vec<_> = self
            .listen()
            .into_iter()
            .map(|(to, message)| {
                let (payload, text) =
                    (&message["payload"], |value: &Value| value.as_str().map(str::to_owned));
                match message["type"].as_str().unwrap() {
                    "peer-left" => ("peer-left", to, text(&payload["id"]), text(&message["room"])),
                    "error" if payload["code"] == "peer-offline" => {
                        ("peer-offline", to, text(&payload["target"]), None)
                    }
                    _ => panic!("{message}"),
                }
            })
            .collect();
        told.sort();
        expected.sort();
        assert_eq!(told, expected);
        for (kind, ..) in told {
            *self.told_late.entry(kind).or_default() += 1;
        }
    }

    /// Forgets what is over by now. Returns who is to be told of it: of what, of whom, and in which
    /// room.
    fn expire(&mut self) -> Vec<(&'static str, ConnectionId, Option<String>, Option<String>)> {
        let now = self.now;
        let mut given_up = Vec::new();
        let mut over = Vec::new();
        for (peer, own) in &mut self.peers {
            let is_over = own.lost_at.is_some_and(|at| at + RESUME_WINDOW <= now);
            let expired = own.kept.extract_if(.., |kept| is_over || kept.until <= now);
            given_up.extend(expired.filter_map(|kept| Some((*peer, kept.sender?))));
            over.extend(is_over.then_some(*peer));
        }
        let mut told = Vec::new();
        for (peer, (sender, secret)) in given_up {
            let sender = self.peers.get(&sender).filter(|own| own.secret == secret);
            let here = sender.and_then(|own| own.connection);
            told.extend(here.map(|to| ("peer-offline", to, Some(name(peer)), None)));
        }
        for peer in over {
            for room in self.peers.remove(&peer).unwrap().rooms {
                assert!(self.rooms[room].remove(&peer));
                // Who is over at the same time is lost as well.
                let others = self.rooms[room].iter().filter_map(|other| self.peers.get(other));
                let here = others.filter_map(|other| other.connection);
                told.extend(
                    here.map(|to| ("peer-left", to, Some(name(peer)), Some(room_name(room)))),
                );
            }
        }
        told
    }

    fn empty(&mut self) {
        let rooms = self.rooms.iter().filter(|room| !room.is_empty()).count();
        let stats = self.hub.stats();
        assert_eq!((stats.peers, stats.rooms), (self.peers.len(), rooms));
        let lost = self.peers.values().filter(|peer| peer.connection.is_none());
        assert_eq!(stats.lost_peers, lost.count());
        for peer in self.peers.values() {
            if let Some(connection) = peer.connection {
                self.hub.disconnected(connection, CloseReason::Left, self.now);
            }
        }
        self.now += RESUME_WINDOW;
        self.hub.handle_timeout(self.now);
        self.listen();
        assert!(self.hub.is_empty(), "{:?}", self.hub);
    }

    fn connect(&mut self) -> ConnectionId {
        let source = IpAddr::V4(Ipv4Addr::LOCALHOST);
        self.hub.connected(source, None, self.now).unwrap()
    }

    fn say(&mut self, connection: ConnectionId, message: &Value) {
        self.hub.handle_text(connection, &message.to_string(), self.now);
    }

    fn number(&mut self) -> u64 {
        self.next_message += 1;
        self.next_message
    }

    fn listen(&mut self) -> Vec<(ConnectionId, Value)> {
        let mut said = Vec::new();
        while let Some(action) = self.hub.poll_action() {
            match action {
                Action::Send { to, text } => said.push((to, serde_json::from_str(&text).unwrap())),
                Action::Ping { .. } => {}
                Action::Close { reason, .. } => panic!("closed: {reason:?}"),
            }
        }
        said
    }
}

fn join(peer: usize, room: usize, secret: Option<&str>) -> Value {
    json!({
        "type": "join",
        "from": name(peer),
        "room": room_name(room),
        "payload": { "secret": secret },
    })
}

fn name(peer: usize) -> String {
    format!("peer-{peer}")
}

fn room_name(room: usize) -> String {
    format!("room-{room}")
}

fn number(message: &Value) -> u64 {
    message["payload"].as_u64().unwrap()
}
