//! The clients: they know a password, a nonce once they were told one, and no manners.

use std::net::SocketAddr;

use rand::rngs::StdRng;
use rand::{Rng, RngExt};

use crate::model::{Operation, Port, Request};
use crate::wire::{self, Attr, Msg, Parsed, Txid, attr};

pub(crate) const REALM: &str = "example.org";
pub(crate) const USERS: [(&str, &str); 3] =
    [("alice", "secret1"), ("bob", "secret2"), ("carol", "secret3")];

/// What a packet meant to whoever sent it; a packet that was damaged means nothing.
#[derive(Clone, Debug)]
pub(crate) enum Intent {
    Binding,
    /// A request without credentials.
    Bare,
    Request(Request),
    Send {
        peer: SocketAddr,
        data: Vec<u8>,
    },
    ChannelData {
        number: u16,
        data: Vec<u8>,
    },
    Junk,
}

#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) address: SocketAddr,
    pub(crate) user: (&'static str, &'static str),
    pub(crate) sha256: bool,
    pub(crate) nonce: Option<(String, i64)>,
}

impl Client {
    pub(crate) fn new(address: SocketAddr, rng: &mut StdRng) -> Self {
        let user = USERS[rng.random_range(0..USERS.len())];
        Self { address, user, sha256: rng.random_bool(0.5), nonce: None }
    }

    /// Reads what the server says; `unix` is the server's time as it was said.
    pub(crate) fn hear(&mut self, reply: &Parsed, unix: i64) {
        if reply.has(attr::NONCE) {
            self.nonce = Some((reply.text(attr::NONCE), unix));
        }
    }

    /// A request, with credentials as soon as there is a nonce; `loot` is somebody else's.
    pub(crate) fn request(
        &self,
        operation: Operation,
        loot: Option<&(String, i64)>,
        rng: &mut StdRng,
    ) -> (Vec<u8>, Intent) {
        let id = txid(rng);
        let unknown = rng.random_bool(0.02);
        let mut message = Msg::new(kind(&operation), id).add(&attributes(&operation));
        if unknown {
            message = message.attr(0x7FEE, b"?");
        }
        let Some((nonce, minted)) = loot.or(self.nonce.as_ref()) else {
            return (message.finish(), Intent::Bare);
        };
        // Now and then somebody else speaks from here, or knows the wrong password.
        let user =
            if rng.random_bool(0.03) { USERS[rng.random_range(0..USERS.len())] } else { self.user };
        let password_is_right = !rng.random_bool(0.03);
        let password = if password_is_right { user.1 } else { "wrong" };
        message = message.add(&[
            wire::raw(attr::USERNAME, user.0.as_bytes()),
            wire::raw(attr::REALM, REALM.as_bytes()),
            wire::raw(attr::NONCE, nonce.as_bytes()),
        ]);
        let message = if self.sha256 {
            let message =
                message.attr(attr::PA, &[0, 2, 0, 0]).attr(attr::PAS, &[0, 2, 0, 0, 0, 1, 0, 0]);
            message.mi2(&wire::sha256_key(user.0, REALM, password))
        } else {
            message.mi(&wire::md5_key(user.0, REALM, password))
        };
        let intent = Intent::Request(Request {
            from: self.address,
            id,
            user: user.0,
            password_is_right,
            nonce_minted: *minted,
            nonce_is_stolen: loot.is_some(),
            unknown,
            operation,
        });
        (message.finish(), intent)
    }
}

/// Whether the reply is signed as `request` was, by who knows its user's password.
pub(crate) fn is_signed(reply: &Parsed, request: &Request, sha256: bool) -> bool {
    let (user, password) = *USERS.iter().find(|(name, _)| *name == request.user).unwrap();
    let (kind, key) = if sha256 {
        (attr::MI2, wire::sha256_key(user, REALM, password))
    } else {
        (attr::MI, wire::md5_key(user, REALM, password))
    };
    reply.verifies(kind, &key) && reply.count(attr::MI) + reply.count(attr::MI2) == 1
}

fn kind(operation: &Operation) -> u16 {
    match operation {
        Operation::Allocate { .. } => wire::ALLOCATE,
        Operation::Refresh { .. } | Operation::Resume { .. } => wire::REFRESH,
        Operation::Permit { .. } => wire::CREATE_PERMISSION,
        Operation::Bind { .. } => wire::CHANNEL_BIND,
    }
}

fn attributes(operation: &Operation) -> Vec<Attr> {
    let lifetime = |seconds: &Option<u32>| seconds.map(wire::lifetime);
    match operation {
        Operation::Allocate { lifetime: seconds, port, mobile } => {
            let mut attributes = vec![wire::transport(17)];
            let (v6, even) = match *port {
                Port::Any { v6 } => (v6, None),
                Port::Both => {
                    attributes.push(wire::raw(attr::AAF, &[2, 0, 0, 0]));
                    (false, None)
                }
                Port::Even { v6 } => (v6, Some(0)),
                Port::Pair { v6 } => (v6, Some(0x80)),
                Port::Reserved(token) => {
                    attributes.push(wire::raw(attr::TOKEN, &token));
                    (false, None)
                }
            };
            attributes.extend(v6.then(|| wire::family(2)));
            attributes.extend(even.map(|bits| wire::raw(attr::EVEN_PORT, &[bits])));
            attributes.extend(mobile.then(|| wire::raw(attr::TICKET, &[])));
            attributes.extend(lifetime(seconds));
            attributes
        }
        Operation::Refresh { lifetime: seconds, v6 } => {
            let family = v6.map(|v6| wire::family(if v6 { 2 } else { 1 }));
            family.into_iter().chain(lifetime(seconds)).collect()
        }
        Operation::Resume { lifetime: seconds, ticket } => {
            let mut attributes = vec![wire::raw(attr::TICKET, &ticket.bytes)];
            attributes.extend(lifetime(seconds));
            attributes
        }
        Operation::Permit { peers } => {
            peers.iter().map(|&peer| Attr::Xor(attr::XPA, peer)).collect()
        }
        Operation::Bind { number, peer } => {
            vec![wire::channel(*number), Attr::Xor(attr::XPA, *peer)]
        }
    }
}

pub(crate) fn txid(rng: &mut StdRng) -> Txid {
    let mut id = [0; 12];
    rng.fill_bytes(&mut id);
    id
}
