//! A TURN client: an allocation, and a channel or permission for one peer.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;

use crate::net::sys::RecvBatch;
use crate::stun::attribute::{
    ChannelNumberAttribute, ErrorCode, Lifetime, Nonce, Realm, RequestedAddressFamily,
    RequestedTransport, Username, XorPeerAddress, XorRelayedAddress,
};
use crate::stun::integrity::IntegrityKind;
use crate::stun::{
    AddressFamily, Builder, ChannelNumber, Class, Key, Message, Method, TransactionId,
};

use super::port::Port;
use super::target::allow;
use super::{Error, Login, Mode, Target, Trust};

/// Attempts at one request: one more for each new nonce it is told.
const ATTEMPTS: usize = 3;
const UNAUTHENTICATED: u16 = 401;
const STALE_NONCE: u16 = 438;
/// The server still holds an allocation of an earlier client of this port.
const ALLOCATION_MISMATCH: u16 = 437;
/// Ports that are tried in such a case (RFC 8656 §7.4). coturn 4.17 holds five-tuples for a while
/// after their allocations have been deleted: where a thousand clients are opened ten times over, it
/// holds ten thousand of the 28,000 ports that the system hands out, and one client in twenty meets
/// three of those in a row.
const PORTS: usize = 16;

/// What all clients of a thread have in common.
pub(super) struct Common {
    pub(super) target: Target,
    pub(super) login: Login,
    pub(super) trust: Option<Trust>,
    pub(super) public: bool,
    /// One for the whole thread, which reads one socket at a time.
    pub(super) batch: RefCell<RecvBatch>,
}

/// A client.
pub(super) struct Client {
    pub(super) port: Port,
    common: Rc<Common>,
    session: RefCell<Session>,
}

/// What a server told this client.
struct Session {
    transactions: u64,
    realm: String,
    nonce: String,
    key: Option<Key>,
    relayed: Option<SocketAddr>,
}

impl Client {
    /// One that has asked for nothing yet.
    pub(super) async fn open(common: Rc<Common>, local: Option<SocketAddr>) -> Result<Self, Error> {
        let port = Port::open(&common.target, local, common.trust.as_ref()).await?;
        let session = Session {
            transactions: 0,
            realm: String::new(),
            nonce: String::new(),
            key: None,
            relayed: None,
        };
        Ok(Self { port, common, session: RefCell::new(session) })
    }

    /// One with an allocation.
    pub(super) async fn allocated(
        common: &Rc<Common>,
        local: Option<SocketAddr>,
    ) -> Result<Self, Error> {
        let mut ports = 1;
        loop {
            let client = Self::open(Rc::clone(common), local).await?;
            match client.allocate().await {
                Ok(()) => return Ok(client),
                Err(Error::Refused { code: ALLOCATION_MISMATCH, .. }) if ports < PORTS => {
                    ports += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Asks for its address, to see whether anybody answers.
    pub(super) async fn binding(&self) -> Result<(), Error> {
        let response = self.exchange(Ask::Binding).await?;
        refusal(&response, Method::Binding).map_or(Ok(()), Err)
    }

    /// Makes an allocation, of the family of the server's own address.
    async fn allocate(&self) -> Result<(), Error> {
        let family = match self.common.target.address {
            SocketAddr::V4(_) => None,
            SocketAddr::V6(_) => Some(RequestedAddressFamily(AddressFamily::Ipv6)),
        };
        let response = self.request(Ask::Allocate(family)).await?;
        let relayed = Message::parse(&response)
            .ok()
            .and_then(|message| message.read::<XorRelayedAddress>().ok()?)
            .ok_or(Error::Malformed { method: Method::Allocate })?;
        allow("the relayed address", relayed.0, self.common.public)?;
        self.session.borrow_mut().relayed = Some(relayed.0);
        Ok(())
    }

    /// Its relayed address, once it has one.
    pub(super) fn relayed(&self) -> Option<SocketAddr> {
        self.session.borrow().relayed
    }

    /// Binds a channel to a peer, or gives it a permission; doing it again renews it.
    pub(super) async fn admit(&self, mode: Mode, peer: SocketAddr) -> Result<(), Error> {
        let ask = match mode {
            Mode::Channel => Ask::ChannelBind(peer),
            Mode::Send => Ask::CreatePermission(peer),
        };
        self.request(ask).await.map(drop)
    }

    /// Renews the allocation, or with 0 deletes it.
    pub(super) async fn refresh(&self, lifetime_secs: u32) -> Result<(), Error> {
        self.request(Ask::Refresh(lifetime_secs)).await.map(drop)
    }

    /// An authenticated request, begun anew where the server tells another nonce.
    async fn request(&self, ask: Ask) -> Result<Vec<u8>, Error> {
        let method = ask.method();
        let mut refused = Error::NoAnswer { address: self.common.target.address, method };
        for _ in 0..ATTEMPTS {
            let was_authenticated = self.session.borrow().key.is_some();
            let response = self.exchange(ask).await?;
            let Some(error) = refusal(&response, method) else {
                self.verify(&response, method)?;
                return Ok(response);
            };
            let Error::Refused { code, .. } = error else { return Err(error) };
            let challenged = code == STALE_NONCE || (code == UNAUTHENTICATED && !was_authenticated);
            refused = error;
            if !challenged || self.learn(&response).is_none() {
                break;
            }
        }
        Err(refused)
    }

    async fn exchange(&self, ask: Ask) -> Result<Vec<u8>, Error> {
        let request = self.session.borrow_mut().write(ask, &self.common.login);
        let server = self.common.target.address;
        self.port.exchange(server, ask.method(), &request, &self.common.batch).await
    }

    /// Takes realm and nonce from a challenge.
    fn learn(&self, response: &[u8]) -> Option<()> {
        let message = Message::parse(response).ok()?;
        let Realm(realm) = message.read().ok()??;
        let Nonce(nonce) = message.read().ok()??;
        let Login { user, password } = &self.common.login;
        let mut session = self.session.borrow_mut();
        session.key = Some(Key::md5(user, realm, password));
        realm.clone_into(&mut session.realm);
        nonce.clone_into(&mut session.nonce);
        Some(())
    }

    fn verify(&self, response: &[u8], method: Method) -> Result<(), Error> {
        let session = self.session.borrow();
        // A server without authentication signs nothing.
        let Some(key) = &session.key else { return Ok(()) };
        let integrity = Message::parse(response).ok().and_then(|message| message.integrity());
        match integrity {
            Some(integrity) if integrity.verify(key) => Ok(()),
            _ => Err(Error::Malformed { method }),
        }
    }
}

/// What a client asks for.
#[derive(Clone, Copy, Debug)]
enum Ask {
    Binding,
    Allocate(Option<RequestedAddressFamily>),
    ChannelBind(SocketAddr),
    CreatePermission(SocketAddr),
    Refresh(u32),
}

impl Ask {
    fn method(self) -> Method {
        match self {
            Self::Binding => Method::Binding,
            Self::Allocate(_) => Method::Allocate,
            Self::ChannelBind(_) => Method::ChannelBind,
            Self::CreatePermission(_) => Method::CreatePermission,
            Self::Refresh(_) => Method::Refresh,
        }
    }

    fn put(self, builder: Builder<'_>) -> Builder<'_> {
        match self {
            Self::Binding => builder,
            Self::Allocate(family) => {
                builder.put(&RequestedTransport::UDP).put_some(family.as_ref())
            }
            Self::ChannelBind(peer) => {
                builder.put(&ChannelNumberAttribute(ChannelNumber::MIN)).put(&XorPeerAddress(peer))
            }
            Self::CreatePermission(peer) => builder.put(&XorPeerAddress(peer)),
            Self::Refresh(lifetime_secs) => builder.put(&Lifetime(lifetime_secs)),
        }
    }
}

impl Session {
    fn write(&mut self, ask: Ask, login: &Login) -> Vec<u8> {
        self.transactions += 1;
        let mut id = rand::random::<[u8; 12]>();
        id[..4].copy_from_slice(&(self.transactions as u32).to_be_bytes());
        let mut request = Vec::with_capacity(256);
        let builder = Builder::new(&mut request, ask.method(), Class::Request, TransactionId(id));
        let builder = ask.put(builder);
        match &self.key {
            Some(key) => builder
                .put(&Username(&login.user))
                .put(&Realm(&self.realm))
                .put(&Nonce(&self.nonce))
                .integrity(key, IntegrityKind::Sha1)
                .finish(),
            None => builder.finish(),
        }
        request
    }
}

/// The error in a response, if it is one.
fn refusal(response: &[u8], method: Method) -> Option<Error> {
    let Ok(message) = Message::parse(response) else { return Some(Error::Malformed { method }) };
    if message.class() == Class::Success && message.method() == method {
        return None;
    }
    let error = message.read::<ErrorCode<'_>>().ok().flatten();
    Some(error.map_or(Error::Malformed { method }, |error| {
        let reason = error.reason.chars().filter(|char| !char.is_control()).take(80).collect();
        Error::Refused { method, code: error.number, reason }
    }))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::UdpSocket;
    use std::thread;

    use tokio::runtime;

    use super::super::Transport;
    use super::*;

    /// Answers Allocate requests: to clients of the first `held` ports that their five-tuple is in use,
    /// to the next one with a relayed address.
    fn server(held: usize) -> (SocketAddr, thread::JoinHandle<()>) {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let answer = move || {
            let mut seen = BTreeSet::new();
            while seen.len() <= held {
                let mut bytes = [0; 1500];
                let (length, from) = socket.recv_from(&mut bytes).unwrap();
                seen.insert(from);
                let id = Message::parse(&bytes[..length]).unwrap().transaction_id();
                let mut response = Vec::new();
                let is_held = seen.len() <= held;
                let class = if is_held { Class::Error } else { Class::Success };
                let builder = Builder::new(&mut response, Method::Allocate, class, id);
                match is_held {
                    true => builder
                        .put(&ErrorCode { number: ALLOCATION_MISMATCH, reason: "in use" })
                        .finish(),
                    false => {
                        builder.put(&XorRelayedAddress(([127, 0, 0, 1], 50_000).into())).finish()
                    }
                }
                socket.send_to(&response, from).unwrap();
            }
        };
        (address, thread::spawn(answer))
    }

    #[test]
    fn ports_that_the_server_still_holds_are_passed_over() {
        let (address, answering) = server(PORTS - 1);
        let common = Common {
            target: Target::at(address, Transport::Udp),
            login: Login { user: "alice".to_owned(), password: "secret".to_owned() },
            trust: None,
            public: false,
            batch: RecvBatch::new().into(),
        };
        let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let client = runtime.block_on(Client::allocated(&Rc::new(common), None)).unwrap();
        assert_eq!(client.relayed(), Some(([127, 0, 0, 1], 50_000).into()));
        const { assert!(PORTS >= 16, "as many as it takes with coturn") };
        answering.join().unwrap();
    }
}
