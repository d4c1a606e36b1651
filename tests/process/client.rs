//! A TURN client that waits for each answer: as little as it takes to see what a server does.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of it")]

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hairpin::stun::attribute::{
    ChannelNumberAttribute, Data, ErrorCode, Lifetime, Nonce, Realm, RequestedTransport, Username,
    XorMappedAddress, XorPeerAddress, XorRelayedAddress,
};
use hairpin::stun::integrity::IntegrityKind;
use hairpin::stun::{Builder, ChannelNumber, Class, Key, Message, Method, TransactionId, channel};

/// Between two transmissions of a request.
const RETRANSMIT: Duration = Duration::from_millis(250);
/// Transmissions before a server counts as dead: 30 s, much more than a busy machine needs.
const TRANSMISSIONS: usize = 120;

/// One socket, and the allocation made from it.
#[derive(Debug)]
pub struct Client {
    pub socket: UdpSocket,
    pub relayed: SocketAddr,
    login: Login,
}

/// What signs requests.
#[derive(Debug)]
pub struct Login {
    user: String,
    realm: String,
    nonce: String,
    key: Key,
}

impl Client {
    /// Makes an allocation, or returns the code of the refusal.
    pub fn allocate(server: SocketAddr, user: &str, password: &str) -> Result<Self, u16> {
        Self::allocate_on(socket(server), user, password)
    }

    /// The same from a socket that is connected to the server.
    pub fn allocate_on(socket: UdpSocket, user: &str, password: &str) -> Result<Self, u16> {
        let challenge = exchange(&socket, &bare_allocate());
        let login = Login::new(&challenge, user, password);
        let mut client = Self { socket, relayed: (Ipv4Addr::UNSPECIFIED, 0).into(), login };
        let granted =
            client.request(Method::Allocate, |builder| builder.put(&RequestedTransport::UDP))?;
        client.relayed = relayed(&granted);
        Ok(client)
    }

    /// Lets datagrams from and to a peer through.
    pub fn permit(&self, peer: SocketAddr) -> Result<(), u16> {
        self.request(Method::CreatePermission, |builder| builder.put(&XorPeerAddress(peer)))?;
        Ok(())
    }

    /// Binds a channel.
    pub fn bind(&self, number: ChannelNumber, peer: SocketAddr) -> Result<(), u16> {
        self.request(Method::ChannelBind, |builder| {
            builder.put(&ChannelNumberAttribute(number)).put(&XorPeerAddress(peer))
        })?;
        Ok(())
    }

    /// Asks for a lifetime; 0 deletes the allocation.
    pub fn refresh(&self, seconds: u32) -> Result<(), u16> {
        self.request(Method::Refresh, |builder| builder.put(&Lifetime(seconds)))?;
        Ok(())
    }

    /// Sends an authenticated request; returns the success response or the code of the error.
    pub fn request(
        &self,
        method: Method,
        attributes: impl FnOnce(Builder<'_>) -> Builder<'_>,
    ) -> Result<Vec<u8>, u16> {
        let response = exchange(&self.socket, &self.login.request(method, attributes));
        let message = Message::parse(&response).unwrap();
        if message.class() == Class::Error {
            return Err(error_code(&message));
        }
        assert!(message.integrity().unwrap().verify(&self.login.key), "responses are authentic");
        Ok(response)
    }

    /// The bytes of an authenticated request.
    pub fn bytes_of(
        &self,
        method: Method,
        attributes: impl FnOnce(Builder<'_>) -> Builder<'_>,
    ) -> Vec<u8> {
        self.login.request(method, attributes)
    }

    /// The next datagram that arrives.
    pub fn receive(&self) -> Vec<u8> {
        receive(&self.socket).0
    }
}

impl Login {
    /// Takes realm and nonce from a 401.
    pub fn new(challenge: &[u8], user: &str, password: &str) -> Self {
        let message = Message::parse(challenge).unwrap();
        assert_eq!(error_code(&message), 401, "the first Allocate is challenged");
        let Realm(realm) = message.read().unwrap().unwrap();
        let Nonce(nonce) = message.read().unwrap().unwrap();
        Self {
            user: user.to_owned(),
            realm: realm.to_owned(),
            nonce: nonce.to_owned(),
            key: Key::md5(user, realm, password),
        }
    }

    /// The bytes of an authenticated request.
    pub fn request(
        &self,
        method: Method,
        attributes: impl FnOnce(Builder<'_>) -> Builder<'_>,
    ) -> Vec<u8> {
        let mut bytes = Vec::new();
        attributes(Builder::new(&mut bytes, method, Class::Request, transaction_id()))
            .put(&Username(&self.user))
            .put(&Realm(&self.realm))
            .put(&Nonce(&self.nonce))
            .integrity(&self.key, IntegrityKind::Sha1)
            .finish();
        bytes
    }
}

/// The relayed address in a success response.
pub fn relayed(response: &[u8]) -> SocketAddr {
    let XorRelayedAddress(relayed) = Message::parse(response).unwrap().read().unwrap().unwrap();
    relayed
}

/// A Send indication.
pub fn send_indication(peer: SocketAddr, data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    Builder::new(&mut bytes, Method::Send, Class::Indication, transaction_id())
        .put(&XorPeerAddress(peer))
        .put(&Data(data))
        .finish();
    bytes
}

/// A ChannelData message.
pub fn channel_data(number: ChannelNumber, data: &[u8]) -> Vec<u8> {
    let header = channel::header(number, u16::try_from(data.len()).unwrap());
    [header.as_slice(), data].concat()
}

/// A Binding request.
pub fn binding() -> Vec<u8> {
    let mut bytes = Vec::new();
    Builder::new(&mut bytes, Method::Binding, Class::Request, transaction_id()).finish();
    bytes
}

/// An Allocate request without credentials.
pub fn bare_allocate() -> Vec<u8> {
    let mut bytes = Vec::new();
    Builder::new(&mut bytes, Method::Allocate, Class::Request, transaction_id())
        .put(&RequestedTransport::UDP)
        .finish();
    bytes
}

/// An Allocate request of somebody who knows neither a nonce nor a password.
pub fn forged_allocate() -> Vec<u8> {
    let mut bytes = Vec::new();
    Builder::new(&mut bytes, Method::Allocate, Class::Request, transaction_id())
        .put(&RequestedTransport::UDP)
        .put(&Username("alice"))
        .put(&Realm("test"))
        .put(&Nonce("obMatJos2AAAAforged"))
        .integrity(&Key::md5("alice", "test", "guessed"), IntegrityKind::Sha1)
        .finish();
    bytes
}

/// Whether the server tells a newcomer its address: the sign of life every test can ask for.
pub fn is_served(server: SocketAddr) -> bool {
    let socket = socket(server);
    let response = exchange(&socket, &binding());
    let mapped = Message::parse(&response).unwrap().read::<XorMappedAddress>();
    mapped.unwrap().unwrap().0 == socket.local_addr().unwrap()
}

/// A socket of its own for a server on loopback.
pub fn socket(server: SocketAddr) -> UdpSocket {
    let local: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::LOCALHOST, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::LOCALHOST, 0).into(),
    };
    let socket = UdpSocket::bind(local).unwrap();
    socket.connect(server).unwrap();
    socket
}

/// Sends a request until its response arrives; other datagrams are passed over.
pub fn exchange(socket: &UdpSocket, request: &[u8]) -> Vec<u8> {
    let mut buffer = vec![0; 65_536];
    socket.set_read_timeout(Some(RETRANSMIT)).unwrap();
    for _ in 0..TRANSMISSIONS {
        // A refused datagram is reported by the next call, and comes again.
        let _ = socket.send(request);
        while let Ok(length) = socket.recv(&mut buffer) {
            if buffer[..length].get(4..20) == request.get(4..20) {
                return buffer[..length].to_vec();
            }
        }
    }
    panic!("no response");
}

/// The next datagram, and where it is from.
pub fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = vec![0; 65_536];
    socket.set_read_timeout(Some(RETRANSMIT * TRANSMISSIONS as u32)).unwrap();
    let (length, from) = socket.recv_from(&mut buffer).expect("a datagram arrives");
    buffer.truncate(length);
    (buffer, from)
}

/// The code of an error response.
pub fn error_code(message: &Message<'_>) -> u16 {
    message.read::<ErrorCode<'_>>().unwrap().expect("an error response").number
}

/// Another one each time.
pub fn transaction_id() -> TransactionId {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let mut id = [0x5a; 12];
    id[4..].copy_from_slice(&NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    TransactionId(id)
}
