//! Each rule of the hub, in virtual time.

mod joining;
mod limits;
mod losing;
mod speaking;
mod time;
mod tokens;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Mutex;
use std::time::Instant;

use serde_json::{Value, json};

use super::*;

const FAR: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const TTL: Duration = Duration::from_secs(3600);

#[test]
fn close_reasons_are_numbered_as_they_are_listed() {
    for (at, reason) in CloseReason::ALL.into_iter().enumerate() {
        assert_eq!(reason as usize, at, "{reason:?}");
    }
}

/// A hub, its clock, and what it has said.
struct World {
    hub: Hub,
    authority: Arc<Paper>,
    now: Instant,
    said: Vec<(ConnectionId, Value)>,
    pings: Vec<ConnectionId>,
    closed: Vec<(ConnectionId, CloseReason)>,
    secrets: std::collections::BTreeMap<String, String>,
}

/// Tokens that say what they grant: `user`, or `user room,room`. They are good for an hour.
#[derive(Default)]
struct Paper {
    denies: Mutex<bool>,
}

impl Paper {
    fn deny(&self) {
        *self.denies.lock().unwrap() = true;
    }
}

impl Authority for Paper {
    fn grant(&self, token: &str) -> Option<Grant> {
        let (user, rooms) = match token.split_once(' ') {
            _ if token == "bad" => return None,
            None => (token, Rooms::None),
            Some((user, "*")) => (user, Rooms::All),
            Some((user, list)) => (user, Rooms::Only(list.split(',').map(str::to_owned).collect())),
        };
        Some(Grant { user: user.to_owned(), rooms, valid_for: TTL })
    }

    fn ice_servers(&self, account: Account<'_>, at_most: Duration) -> Option<IceServers> {
        if *self.denies.lock().unwrap() {
            return None;
        }
        let user = match account {
            Account::User(user) => user.to_owned(),
            Account::Guest(source) => format!("guest from {source}"),
        };
        let list = json!([{ "urls": ["stun:h"], "username": user }]);
        Some(IceServers {
            json: serde_json::value::to_raw_value(&list).unwrap(),
            ttl: TTL.min(at_most),
        })
    }
}

impl World {
    fn new(config: Config) -> Self {
        let authority = Arc::new(Paper::default());
        Self {
            hub: Hub::new(config, Arc::clone(&authority) as Arc<dyn Authority>, [7; 32]),
            authority,
            now: epoch(),
            said: Vec::new(),
            pings: Vec::new(),
            closed: Vec::new(),
            secrets: Default::default(),
        }
    }

    fn open() -> Self {
        Self::new(Config { open: true, ..Config::default() })
    }

    fn connect(&mut self) -> ConnectionId {
        self.hub.connected(FAR, None, self.now).unwrap()
    }

    /// A peer in a room, with all that was said on the way heard.
    fn joined(&mut self, id: &str, room: &str) -> ConnectionId {
        // Many of them in a row are no abuse here.
        self.now += Duration::from_secs(1) / JOINS_PER_SECOND;
        let own = self.connect();
        self.say(own, json!({ "type": "join", "from": id, "room": room }));
        let welcome = self.next(own);
        assert_eq!(welcome["type"], "welcome", "{welcome}");
        let secret = welcome["payload"]["secret"].as_str().unwrap().to_owned();
        self.secrets.insert(id.to_owned(), secret);
        assert_eq!(self.next(own)["type"], "peers");
        self.said.retain(|(_, message)| message["type"] != "peer-joined");
        own
    }

    /// A peer without a room.
    fn plain(&mut self, id: &str) -> ConnectionId {
        let own = self.connect();
        self.say(own, json!({ "type": "join", "from": id }));
        let welcome = self.next(own);
        assert_eq!(welcome["type"], "welcome", "{welcome}");
        let secret = welcome["payload"]["secret"].as_str().unwrap().to_owned();
        self.secrets.insert(id.to_owned(), secret);
        own
    }

    fn say(&mut self, connection: ConnectionId, message: Value) {
        self.hub.handle_text(connection, &message.to_string(), self.now);
        self.listen();
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.hub.handle_timeout(self.now);
        self.listen();
    }

    fn listen(&mut self) {
        while let Some(action) = self.hub.poll_action() {
            match action {
                Action::Send { to, text } => {
                    self.said.push((to, serde_json::from_str(&text).unwrap()));
                }
                Action::Ping { to } => self.pings.push(to),
                Action::Close { connection, reason, bye } => {
                    let bye: Value = serde_json::from_str(&bye).unwrap();
                    assert_eq!(bye["payload"]["code"], reason.code());
                    self.closed.push((connection, reason));
                }
            }
        }
    }

    fn maybe(&mut self, connection: ConnectionId) -> Option<Value> {
        self.listen();
        let at = self.said.iter().position(|(to, _)| *to == connection)?;
        Some(self.said.remove(at).1)
    }

    fn next(&mut self, connection: ConnectionId) -> Value {
        self.maybe(connection).expect("something was said")
    }

    fn refused(&mut self, connection: ConnectionId, problem: Problem) {
        let message = self.next(connection);
        assert_eq!(message["type"], "error", "{message}");
        assert_eq!(message["payload"]["code"], problem.code(), "{message}");
        assert!(self.is_quiet(connection));
    }

    fn is_quiet(&mut self, connection: ConnectionId) -> bool {
        self.listen();
        !self.said.iter().any(|(to, _)| *to == connection)
    }

    fn closed(&mut self, connection: ConnectionId) -> Option<CloseReason> {
        self.listen();
        self.closed.iter().find(|(own, _)| *own == connection).map(|&(_, reason)| reason)
    }

    fn pings(&self, connection: ConnectionId) -> usize {
        self.pings.iter().filter(|own| **own == connection).count()
    }

    fn clear(&mut self) {
        self.listen();
        self.said.clear();
    }
}

fn join_with(token: &str, id: Option<&str>, room: Option<&str>) -> Value {
    json!({ "type": "join", "from": id, "room": room, "payload": { "token": token } })
}

fn resume(id: &str, secret: &str) -> Value {
    json!({ "type": "join", "from": id, "room": "r", "payload": { "secret": secret } })
}

#[expect(clippy::disallowed_methods, reason = "an Instant can be had in no other way")]
fn epoch() -> Instant {
    Instant::now()
}
