//! Transactions with a server, and what it sends in between: RFC 8489 §6, §9.2; RFC 8656.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ::stun::integrity::MessageIntegrity;
use ::stun::message::{METHOD_ALLOCATE, Method};
use ::turn::auth::generate_auth_key;
use ::turn::proto::PROTO_UDP;
use ::turn::proto::chandata::ChannelData;
use ::turn::proto::channum::ChannelNumber;
use ::turn::proto::reqfamily::REQUESTED_FAMILY_IPV6;
use ::turn::proto::reqtrans::RequestedTransport;
use tokio::time::timeout;

use super::wire::Wire;
use crate::net::clock;
use crate::probe::message::{Answer, Request};

/// Before a request is sent again over UDP, the first time; then it doubles: RFC 8489 §6.2.1.
const RETRANSMIT: Duration = Duration::from_millis(500);
/// Stale nonces in a row before it is a fault of the server.
const STALE_MAX: usize = 4;
/// Messages that wait for somebody to ask for them.
const INBOX_MAX: usize = 1024;

/// What a user signs with.
#[derive(Clone, Debug)]
pub(super) struct Login {
    pub(super) user: String,
    pub(super) realm: String,
    pub(super) nonce: String,
    pub(super) key: Key,
}

/// The crate's key, without its bytes in debug output.
#[derive(Clone)]
pub(super) struct Key(pub(super) MessageIntegrity);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(key)")
    }
}

impl Login {
    /// The key is made for `hashed_for`, which is the realm unless the server stores another one.
    pub(super) fn new(
        user: &str,
        password: &str,
        realm: &str,
        nonce: &str,
        hashed_for: &str,
    ) -> Self {
        Self {
            user: user.to_owned(),
            realm: realm.to_owned(),
            nonce: nonce.to_owned(),
            key: Key(MessageIntegrity(generate_auth_key(user, hashed_for, password))),
        }
    }
}

/// Why a transaction gave nothing.
#[derive(Debug)]
pub(super) enum Failure {
    /// No answer before the deadline.
    Silence,
    /// The socket or the connection.
    Io(io::Error),
    /// An error response.
    Refused { code: u16, reason: String, alternate: Option<SocketAddr> },
    /// 438 every time.
    Stale,
    /// A success response that nobody has signed, or somebody else.
    Unsigned,
    /// A success response that lacks what it is for.
    Empty(&'static str),
}

/// What comes through a relay.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Relayed {
    Channel(Vec<u8>),
    Data(SocketAddr, Vec<u8>),
}

/// One client of the server.
#[derive(Debug)]
pub(super) struct Client {
    wire: Wire,
    limit: Duration,
    login: Option<Login>,
    inbox: VecDeque<Vec<u8>>,
}

impl Client {
    /// Each transaction may take `limit`.
    pub(super) fn new(wire: Wire, limit: Duration) -> Self {
        Self { wire, limit, login: None, inbox: VecDeque::new() }
    }

    pub(super) fn log_in(&mut self, login: Login) {
        self.login = Some(login);
    }

    /// A request without credentials, and its answer, be it good or bad.
    pub(super) async fn ask(
        &mut self,
        method: Method,
        attributes: impl Fn(Request) -> Request,
    ) -> Result<Answer, Failure> {
        let id = rand::random();
        let bytes = attributes(Request::new(method, id)).bytes();
        self.transact(id, &bytes).await
    }

    /// A request with credentials; a success response. A stale nonce is replaced.
    pub(super) async fn request(
        &mut self,
        method: Method,
        attributes: impl Fn(Request) -> Request,
    ) -> Result<Answer, Failure> {
        for _ in 0..STALE_MAX {
            let id = rand::random();
            let request = attributes(Request::new(method, id));
            let Some(login) = &self.login else {
                return success(self.transact(id, &request.bytes()).await?);
            };
            let key = login.key.clone();
            let request = request.signed(&login.user, &login.realm, &login.nonce, &key.0);
            let answer = self.transact(id, &request.bytes()).await?;
            match (answer.error(), answer.nonce(), &mut self.login) {
                (Some((438, _)), Some(nonce), Some(login)) => login.nonce = nonce,
                (Some(_), ..) => return success(answer),
                (None, ..) if !answer.is_signed_with(&key.0) => return Err(Failure::Unsigned),
                (None, ..) => return Ok(answer),
            }
        }
        Err(Failure::Stale)
    }

    /// Asks for an allocation of the family of `like`; its relayed address.
    pub(super) async fn allocate(
        &mut self,
        like: SocketAddr,
    ) -> Result<(SocketAddr, u64), Failure> {
        let answer = self.request(METHOD_ALLOCATE, |it| allocation(it, like)).await?;
        let relayed = answer.relayed().ok_or(Failure::Empty("XOR-RELAYED-ADDRESS"))?;
        Ok((relayed, answer.lifetime().unwrap_or_default()))
    }

    /// Sends without waiting for anything.
    pub(super) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.wire.send(bytes).await
    }

    /// What comes next through the relay. May be given up at any time.
    pub(super) async fn relayed(&mut self) -> io::Result<Relayed> {
        loop {
            let bytes = match self.inbox.pop_front() {
                Some(bytes) => bytes,
                None => self.wire.recv().await?,
            };
            if let Some(relayed) = relayed(&bytes) {
                return Ok(relayed);
            }
        }
    }

    async fn transact(&mut self, id: [u8; 12], bytes: &[u8]) -> Result<Answer, Failure> {
        let start = clock::now().instant;
        let mut patience = RETRANSMIT;
        loop {
            let left = self.limit.saturating_sub(elapsed(start));
            if left.is_zero() {
                return Err(Failure::Silence);
            }
            // A refused datagram is reported by the next call, which may be this one.
            self.wire.send(bytes).await.map_err(Failure::Io)?;
            let wait = if self.wire.loses() { patience.min(left) } else { left };
            patience *= 2;
            match timeout(wait, self.answer(id)).await {
                Ok(answer) => return answer.map_err(Failure::Io),
                Err(_) => continue,
            }
        }
    }

    async fn answer(&mut self, id: [u8; 12]) -> io::Result<Answer> {
        loop {
            let bytes = self.wire.recv().await?;
            match Answer::parse(&bytes) {
                Some(answer) if answer.id() == id && answer.is_response() => return Ok(answer),
                _ if self.inbox.len() < INBOX_MAX => self.inbox.push_back(bytes),
                _ => {}
            }
        }
    }
}

/// What an Allocate request asks for.
pub(super) fn allocation(request: Request, like: SocketAddr) -> Request {
    let request = request.with(&RequestedTransport { protocol: PROTO_UDP });
    // IPv4 is what a server gives unless asked, and what old servers know: RFC 8656 §7.2.
    if like.is_ipv6() { request.with(&REQUESTED_FAMILY_IPV6) } else { request }
}

fn success(answer: Answer) -> Result<Answer, Failure> {
    match answer.error() {
        None => Ok(answer),
        Some((code, reason)) => {
            Err(Failure::Refused { code, reason, alternate: answer.alternate_server() })
        }
    }
}

fn relayed(bytes: &[u8]) -> Option<Relayed> {
    if let Some(answer) = Answer::parse(bytes) {
        return answer.data().map(|(peer, data)| Relayed::Data(peer, data));
    }
    let mut channel = ChannelData { raw: bytes.to_vec(), ..ChannelData::default() };
    channel.decode().ok()?;
    Some(Relayed::Channel(channel.data))
}

/// The bytes of a ChannelData message.
pub(super) fn channel_data(number: u16, data: &[u8]) -> Vec<u8> {
    let mut channel = ChannelData {
        data: data.to_vec(),
        number: ChannelNumber(number),
        ..ChannelData::default()
    };
    channel.encode();
    channel.raw
}

pub(super) fn elapsed(since: Instant) -> Duration {
    clock::now().instant.saturating_duration_since(since)
}
