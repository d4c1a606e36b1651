//! A TURN client of the tests' own, written from the RFCs in raw bytes: it shares no code with
//! the server, so that both cannot agree on a mistake.
//!
//! It asserts what must hold for every message: sizes, padding of zeros, transaction id,
//! MESSAGE-INTEGRITY, and that everything comes from the address it talks to.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use md5::{Digest, Md5};
use sha1::Sha1;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout, timeout_at};

use super::datagrams::Dtls;
use super::stream::{Framed, Stream};

/// Generous: a loaded machine is slow, and nothing is measured.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);
/// After which an unanswered request is sent again.
const RETRANSMIT: Duration = Duration::from_millis(500);
const RECEIVE_BUFFER: usize = 4 << 20;

pub(crate) const BINDING: u16 = 0x001;
pub(crate) const ALLOCATE: u16 = 0x003;
pub(crate) const REFRESH: u16 = 0x004;
pub(crate) const CREATE_PERMISSION: u16 = 0x008;
pub(crate) const CHANNEL_BIND: u16 = 0x009;
pub(crate) const CONNECT: u16 = 0x00A;
pub(crate) const CONNECTION_BIND: u16 = 0x00B;
const CONNECTION_ATTEMPT: u16 = 0x01C;
const SEND_INDICATION: u16 = 0x016;
const DATA_INDICATION: u16 = 0x017;

const USERNAME: u16 = 0x006;
const MESSAGE_INTEGRITY: u16 = 0x008;
const ERROR_CODE: u16 = 0x009;
const CHANNEL_NUMBER: u16 = 0x00C;
const LIFETIME: u16 = 0x00D;
const XOR_PEER_ADDRESS: u16 = 0x012;
const DATA: u16 = 0x013;
const REALM: u16 = 0x014;
const NONCE: u16 = 0x015;
const XOR_RELAYED_ADDRESS: u16 = 0x016;
const REQUESTED_ADDRESS_FAMILY: u16 = 0x017;
const REQUESTED_TRANSPORT: u16 = 0x019;
#[cfg(all(target_os = "linux", not(feature = "portable")))]
pub(crate) const DONT_FRAGMENT: u16 = 0x01A;
const XOR_MAPPED_ADDRESS: u16 = 0x020;
const CONNECTION_ID: u16 = 0x02A;
const ICMP: u16 = 0x8004;

const COOKIE: [u8; 4] = [0x21, 0x12, 0xA4, 0x42];

/// An attribute's type and value.
pub(crate) type Attribute = (u16, Vec<u8>);

/// A STUN message taken apart.
#[derive(Debug)]
pub(crate) struct Message {
    bytes: Vec<u8>,
    kind: u16,
    id: [u8; 12],
    attributes: Vec<(u16, std::ops::Range<usize>)>,
}

impl Message {
    /// Takes a message apart, and panics where it is not as RFC 8489 §5 and §14 want it.
    fn parse(bytes: Vec<u8>) -> Self {
        let word = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        assert_eq!(bytes[4..8], COOKIE, "a magic cookie");
        assert_eq!(usize::from(word(2)) + 20, bytes.len(), "the header tells the length");
        let mut attributes = Vec::new();
        let mut at = 20;
        while at < bytes.len() {
            let (kind, length) = (word(at), usize::from(word(at + 2)));
            let value = at + 4..at + 4 + length;
            at = value.end.next_multiple_of(4);
            assert!(bytes[value.end..at].iter().all(|&byte| byte == 0), "padding is zeros");
            attributes.push((kind, value));
        }
        Self { kind: word(0), id: bytes[8..20].try_into().unwrap(), attributes, bytes }
    }

    pub(crate) fn get(&self, kind: u16) -> Option<&[u8]> {
        self.attributes.iter().find(|(own, _)| *own == kind).map(|(_, at)| &self.bytes[at.clone()])
    }

    fn address(&self, kind: u16) -> Option<SocketAddr> {
        Some(self.unmask(self.get(kind)?))
    }

    fn unmask(&self, value: &[u8]) -> SocketAddr {
        let mask = [&COOKIE[..], &self.id].concat();
        let port = u16::from_be_bytes([value[2] ^ mask[0], value[3] ^ mask[1]]);
        let ip: Vec<u8> = value[4..].iter().zip(&mask).map(|(byte, mask)| byte ^ mask).collect();
        let ip: IpAddr = match value[1] {
            1 => <[u8; 4]>::try_from(ip).unwrap().into(),
            2 => <[u8; 16]>::try_from(ip).unwrap().into(),
            family => panic!("family {family}"),
        };
        SocketAddr::new(ip, port)
    }

    /// 200 for a success, else the error code.
    pub(crate) fn code(&self) -> u16 {
        match self.kind & 0x110 {
            0x100 => 200,
            0x110 => {
                let value = self.get(ERROR_CODE).expect("an error has a code");
                u16::from(value[2]) * 100 + u16::from(value[3])
            }
            _ => panic!("no response: {:04x}", self.kind),
        }
    }

    pub(crate) fn mapped(&self) -> SocketAddr {
        self.address(XOR_MAPPED_ADDRESS).expect("XOR-MAPPED-ADDRESS")
    }

    pub(crate) fn relayed(&self) -> SocketAddr {
        self.address(XOR_RELAYED_ADDRESS).expect("XOR-RELAYED-ADDRESS")
    }

    /// Each XOR-RELAYED-ADDRESS.
    pub(crate) fn all_relayed(&self) -> Vec<SocketAddr> {
        let own = self.attributes.iter().filter(|(kind, _)| *kind == XOR_RELAYED_ADDRESS);
        own.map(|(_, at)| self.unmask(&self.bytes[at.clone()])).collect()
    }

    /// XOR-PEER-ADDRESS.
    pub(crate) fn peer(&self) -> SocketAddr {
        self.address(XOR_PEER_ADDRESS).expect("XOR-PEER-ADDRESS")
    }

    /// CONNECTION-ID.
    pub(crate) fn connection(&self) -> u32 {
        u32::from_be_bytes(self.get(CONNECTION_ID).expect("CONNECTION-ID").try_into().unwrap())
    }

    /// LIFETIME, in seconds.
    pub(crate) fn lifetime(&self) -> u32 {
        u32::from_be_bytes(self.get(LIFETIME).expect("LIFETIME").try_into().unwrap())
    }

    /// Whether the message is signed, and by whom must be.
    fn is_signed(&self, key: &[u8]) -> bool {
        let Some((_, at)) = self.attributes.iter().find(|(kind, _)| *kind == MESSAGE_INTEGRITY)
        else {
            return false;
        };
        let start = at.start - 4;
        let mut signed = self.bytes[..start].to_vec();
        signed[2..4].copy_from_slice(&((start - 20 + 24) as u16).to_be_bytes());
        assert_eq!(self.bytes[at.clone()], sign(key, &signed), "signed with our key");
        true
    }
}

fn sign(key: &[u8], bytes: &[u8]) -> [u8; 20] {
    let mut mac = Hmac::<Sha1>::new_from_slice(key).unwrap();
    mac.update(bytes);
    mac.finalize().into_bytes().into()
}

pub(crate) fn push(message: &mut Vec<u8>, kind: u16, value: &[u8]) {
    message.extend(kind.to_be_bytes());
    message.extend((value.len() as u16).to_be_bytes());
    message.extend(value);
    // Not zeros: what is in the padding must not matter.
    message.resize(message.len().next_multiple_of(4), 0xA5);
    let length = (message.len() - 20) as u16;
    message[2..4].copy_from_slice(&length.to_be_bytes());
}

fn header(kind: u16) -> Vec<u8> {
    let id: [u8; 12] = rand::random();
    [&kind.to_be_bytes()[..], &[0, 0], &COOKIE, &id].concat()
}

pub(crate) fn xor_address(message: &[u8], address: SocketAddr) -> Vec<u8> {
    let port = address.port().to_be_bytes();
    let (family, ip) = match address.ip() {
        IpAddr::V4(ip) => (1, ip.octets().to_vec()),
        IpAddr::V6(ip) => (2, ip.octets().to_vec()),
    };
    let mask = &message[4..20];
    let mut value = vec![0, family, port[0] ^ mask[0], port[1] ^ mask[1]];
    value.extend(ip.iter().zip(mask).map(|(byte, mask)| byte ^ mask));
    value
}

/// A Binding request.
pub(crate) fn binding_request() -> Vec<u8> {
    header(BINDING)
}

/// What a client hears from its peers.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Received {
    /// In a Data indication.
    Data(SocketAddr, Vec<u8>),
    /// In ChannelData.
    Channel(u16, Vec<u8>),
    /// In a Data indication instead of data: type, code and error data.
    Icmp(SocketAddr, [u8; 2], u32),
}

/// What a client talks over.
enum Wire {
    Udp(UdpSocket),
    Stream(Mutex<Framed>),
    Dtls(Mutex<Dtls>),
}

/// One client, which is one five-tuple.
pub(crate) struct Client {
    wire: Wire,
    local: SocketAddr,
    server: SocketAddr,
    user: String,
    password: String,
    realm: Vec<u8>,
    nonce: Option<Vec<u8>>,
    relayed: Option<SocketAddr>,
    waiting: VecDeque<Received>,
    attempts: VecDeque<Message>,
}

impl Client {
    /// A client `alice` at the server's own IP address.
    pub(crate) fn new(server: SocketAddr) -> Self {
        Self::at(server.ip(), server)
    }

    /// A client `alice` at another address of this machine.
    pub(crate) fn at(ip: IpAddr, server: SocketAddr) -> Self {
        let socket = socket(ip);
        let local = socket.local_addr().unwrap();
        Self::on(Wire::Udp(socket), local, server)
    }

    /// A client `alice` on a connection from `local` to the server.
    pub(crate) fn over(stream: impl Stream, local: SocketAddr, server: SocketAddr) -> Self {
        Self::on(Wire::Stream(Mutex::new(Framed::new(stream))), local, server)
    }

    /// A client `alice` in a DTLS session.
    pub(crate) fn within(dtls: Dtls) -> Self {
        let (local, server) = (dtls.local(), dtls.server());
        Self::on(Wire::Dtls(Mutex::new(dtls)), local, server)
    }

    /// The session of a client that has one, and is done with it.
    pub(crate) fn into_dtls(self) -> Dtls {
        let Wire::Dtls(dtls) = self.wire else { panic!("no DTLS") };
        dtls.into_inner()
    }

    /// The session of a client that has one.
    pub(crate) fn dtls(&mut self) -> &mut Dtls {
        let Wire::Dtls(dtls) = &mut self.wire else { panic!("no DTLS") };
        dtls.get_mut()
    }

    /// The socket of a client over UDP.
    pub(crate) fn socket(&self) -> &UdpSocket {
        let Wire::Udp(socket) = &self.wire else { panic!("no UDP") };
        socket
    }

    fn on(wire: Wire, local: SocketAddr, server: SocketAddr) -> Self {
        Self {
            wire,
            local,
            server,
            user: "alice".into(),
            password: "secret".into(),
            realm: Vec::new(),
            nonce: None,
            relayed: None,
            waiting: VecDeque::new(),
            attempts: VecDeque::new(),
        }
    }

    pub(crate) fn user(mut self, name: &str) -> Self {
        self.user = name.into();
        self
    }

    /// The same user, with what a web service that knows `shared_secret` mints.
    pub(crate) fn until(mut self, expires_unix_secs: u64, shared_secret: &str) -> Self {
        self.user = format!("{expires_unix_secs}:{}", self.user);
        self.password = STANDARD.encode(sign(shared_secret.as_bytes(), self.user.as_bytes()));
        self
    }

    pub(crate) fn local(&self) -> SocketAddr {
        self.local
    }

    /// The relayed address.
    pub(crate) fn relayed(&self) -> SocketAddr {
        self.relayed.expect("an allocation")
    }

    fn key(&self) -> [u8; 16] {
        let mut hash = Md5::new();
        for part in [self.user.as_bytes(), b":", &self.realm, b":", self.password.as_bytes()] {
            hash.update(part);
        }
        hash.finalize().into()
    }

    /// Says on a connection that nothing follows.
    pub(crate) async fn shutdown(&self) {
        match &self.wire {
            Wire::Udp(_) | Wire::Dtls(_) => panic!("nothing to close"),
            Wire::Stream(framed) => framed.lock().await.shutdown().await.unwrap(),
        }
    }

    /// A client `alice` over TCP.
    pub(crate) async fn tcp(server: SocketAddr) -> Self {
        let stream = TcpStream::connect(server).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let local = stream.local_addr().unwrap();
        Self::over(stream, local, server)
    }

    /// Sends these very bytes over a connection, whole messages or not.
    pub(crate) async fn send_bytes(&self, bytes: &[u8]) {
        let Wire::Stream(framed) = &self.wire else { panic!("datagrams are whole") };
        framed.lock().await.write(bytes).await.unwrap();
    }

    /// Whether the server has closed the connection, or does so before the deadline.
    pub(crate) async fn is_closed(&self) -> bool {
        let Wire::Stream(framed) = &self.wire else { panic!("datagrams have no end") };
        framed.lock().await.is_closed(Instant::now() + DEADLINE).await
    }

    /// Sends as it is.
    pub(crate) async fn send_raw(&self, bytes: &[u8]) {
        match &self.wire {
            Wire::Udp(socket) => drop(socket.send_to(bytes, self.server).await.unwrap()),
            Wire::Stream(framed) => framed.lock().await.send(bytes).await.unwrap(),
            Wire::Dtls(dtls) => dtls.lock().await.send(bytes).await,
        }
    }

    /// The next message, whatever it is, if there is one before `until`.
    pub(crate) async fn recv_raw(&self, until: Instant) -> Option<Vec<u8>> {
        let socket = match &self.wire {
            Wire::Udp(socket) => socket,
            Wire::Stream(framed) => return framed.lock().await.recv(until).await,
            Wire::Dtls(dtls) => return dtls.lock().await.recv(until).await,
        };
        let mut bytes = vec![0; 65_536];
        let received = timeout_at(until, socket.recv_from(&mut bytes)).await.ok()?;
        let (length, from) = received.unwrap();
        assert_eq!(from, self.server, "everything comes from the address that was asked");
        bytes.truncate(length);
        Some(bytes)
    }

    /// Sends until answered; what peers sent meanwhile waits for [`Client::recv`].
    async fn exchange(&mut self, request: &[u8]) -> Message {
        let deadline = Instant::now() + DEADLINE;
        while Instant::now() < deadline {
            self.send_raw(request).await;
            // A stream loses nothing, so nothing is sent twice.
            let wait = match self.wire {
                Wire::Udp(_) | Wire::Dtls(_) => RETRANSMIT,
                Wire::Stream(..) => DEADLINE,
            };
            let until = Instant::now() + wait;
            while let Some(bytes) = self.recv_raw(until).await {
                if bytes[0] >= 0x40 || bytes[..2] == DATA_INDICATION.to_be_bytes() {
                    self.waiting.push_back(received(bytes));
                    continue;
                }
                let message = Message::parse(bytes);
                if message.kind == CONNECTION_ATTEMPT {
                    self.attempts.push_back(message);
                    continue;
                }
                if message.id == request[8..20] {
                    let method = u16::from_be_bytes([request[0], request[1]]);
                    assert_eq!(message.kind & !0x110, method);
                    return message;
                }
            }
        }
        panic!("no answer");
    }

    /// Asks, as often as the server wants another nonce, signed as soon as there is one.
    pub(crate) async fn request(
        &mut self,
        method: u16,
        attributes: impl Fn(&[u8]) -> Vec<Attribute>,
    ) -> Message {
        for _ in 0..3 {
            let request = self.signed(method, &attributes);
            let response = self.exchange(&request).await;
            let challenged = matches!((response.code(), &self.nonce), (401, None) | (438, _));
            if !challenged {
                let signed = response.is_signed(&self.key());
                assert!(signed || method == BINDING, "{} is signed", response.code());
                return response;
            }
            self.realm = response.get(REALM).expect("REALM").to_vec();
            self.nonce = Some(response.get(NONCE).expect("NONCE").to_vec());
        }
        panic!("the server asks for one nonce after the other");
    }

    /// A request, signed where there is a nonce already.
    pub(crate) fn signed(
        &self,
        method: u16,
        attributes: impl Fn(&[u8]) -> Vec<Attribute>,
    ) -> Vec<u8> {
        let mut request = header(method);
        for (kind, value) in attributes(&request) {
            push(&mut request, kind, &value);
        }
        if let Some(nonce) = &self.nonce {
            push(&mut request, USERNAME, self.user.as_bytes());
            push(&mut request, REALM, &self.realm);
            push(&mut request, NONCE, nonce);
            let length = (request.len() - 20 + 24) as u16;
            request[2..4].copy_from_slice(&length.to_be_bytes());
            let signature = sign(&self.key(), &request);
            push(&mut request, MESSAGE_INTEGRITY, &signature);
        }
        request
    }

    /// Binding: our address as the server sees it.
    pub(crate) async fn mapped(&mut self) -> SocketAddr {
        let response = self.exchange(&binding_request()).await;
        assert_eq!(response.code(), 200);
        response.mapped()
    }

    /// Allocate, with these attributes besides REQUESTED-TRANSPORT.
    pub(crate) async fn allocate_with(&mut self, more: &[Attribute]) -> Message {
        let udp = (REQUESTED_TRANSPORT, vec![17, 0, 0, 0]);
        let response =
            self.request(ALLOCATE, |_| [std::slice::from_ref(&udp), more].concat()).await;
        if response.code() == 200 {
            self.relayed = Some(response.relayed());
            assert_eq!(response.mapped(), self.local());
        }
        response
    }

    /// Allocate, of the family that the server is reached by. 200 or an error code.
    pub(crate) async fn allocate(&mut self) -> u16 {
        let family = (REQUESTED_ADDRESS_FAMILY, vec![2, 0, 0, 0]);
        let more = if self.local.is_ipv6() { vec![family] } else { vec![] };
        self.allocate_with(&more).await.code()
    }

    /// Allocate, for TCP (RFC 6062). 200 or an error code.
    pub(crate) async fn allocate_tcp(&mut self) -> u16 {
        let tcp = (REQUESTED_TRANSPORT, vec![6, 0, 0, 0]);
        let response = self.request(ALLOCATE, |_| vec![tcp.clone()]).await;
        if response.code() == 200 {
            self.relayed = Some(response.relayed());
        }
        response.code()
    }

    /// Connect.
    pub(crate) async fn connect(&mut self, peer: SocketAddr) -> Message {
        self.request(CONNECT, |message| vec![(XOR_PEER_ADDRESS, xor_address(message, peer))]).await
    }

    /// ConnectionBind. 200 or an error code.
    pub(crate) async fn bind_connection(&mut self, connection: u32) -> u16 {
        self.request(CONNECTION_BIND, |_| vec![connection_id(connection)]).await.code()
    }

    /// The next ConnectionAttempt.
    pub(crate) async fn attempt(&mut self) -> Message {
        if let Some(attempt) = self.attempts.pop_front() {
            return attempt;
        }
        let bytes = self.recv_raw(Instant::now() + DEADLINE).await.expect("a ConnectionAttempt");
        let attempt = Message::parse(bytes);
        assert_eq!(attempt.kind, CONNECTION_ATTEMPT);
        attempt
    }

    /// What is left when messages are over: the connection, and what has been read from it.
    pub(crate) fn into_stream(self) -> (Box<dyn Stream>, Vec<u8>) {
        let Wire::Stream(framed) = self.wire else { panic!("datagrams stay messages") };
        framed.into_inner().into_parts()
    }

    /// Refresh; 0 deletes. 200 or an error code.
    pub(crate) async fn refresh(&mut self, seconds: u32) -> u16 {
        let lifetime = (LIFETIME, seconds.to_be_bytes().to_vec());
        let response = self.request(REFRESH, |_| vec![lifetime.clone()]).await;
        if response.code() == 200 && seconds == 0 {
            assert_eq!(response.lifetime(), 0);
        }
        response.code()
    }

    /// CreatePermission. 200 or an error code.
    pub(crate) async fn permit(&mut self, peer: SocketAddr) -> u16 {
        let attributes = |message: &[u8]| vec![(XOR_PEER_ADDRESS, xor_address(message, peer))];
        self.request(CREATE_PERMISSION, attributes).await.code()
    }

    /// ChannelBind. 200 or an error code.
    pub(crate) async fn bind(&mut self, number: u16, peer: SocketAddr) -> u16 {
        let [high, low] = number.to_be_bytes();
        let attributes = |message: &[u8]| {
            vec![
                (CHANNEL_NUMBER, vec![high, low, 0, 0]),
                (XOR_PEER_ADDRESS, xor_address(message, peer)),
            ]
        };
        self.request(CHANNEL_BIND, attributes).await.code()
    }

    /// A Send indication.
    pub(crate) async fn send(&self, peer: SocketAddr, data: &[u8]) {
        let mut message = header(SEND_INDICATION);
        let peer = xor_address(&message, peer);
        push(&mut message, XOR_PEER_ADDRESS, &peer);
        push(&mut message, DATA, data);
        self.send_raw(&message).await;
    }

    /// A Send indication with DONT-FRAGMENT.
    #[cfg(all(target_os = "linux", not(feature = "portable")))]
    pub(crate) async fn send_whole(&self, peer: SocketAddr, data: &[u8]) {
        let mut message = header(SEND_INDICATION);
        let peer = xor_address(&message, peer);
        push(&mut message, XOR_PEER_ADDRESS, &peer);
        push(&mut message, DONT_FRAGMENT, &[]);
        push(&mut message, DATA, data);
        self.send_raw(&message).await;
    }

    /// ChannelData, without padding, as datagrams have it; a stream adds it.
    pub(crate) async fn send_channel(&self, number: u16, data: &[u8]) {
        let length = (data.len() as u16).to_be_bytes();
        self.send_raw(&[&number.to_be_bytes()[..], &length, data].concat()).await;
    }

    /// What peers sent before the last answer arrived, and nobody has asked for.
    pub(crate) fn take_waiting(&mut self) -> Vec<Received> {
        self.waiting.drain(..).collect()
    }

    /// The next thing a peer sent.
    pub(crate) async fn recv(&mut self) -> Received {
        if let Some(received) = self.waiting.pop_front() {
            return received;
        }
        let deadline = Instant::now() + DEADLINE;
        loop {
            let bytes = self.recv_raw(deadline).await.expect("something from a peer");
            // A retransmission on a slow machine is answered twice.
            if bytes[0] != 1 {
                return received(bytes);
            }
        }
    }
}

/// The code of a response that was read raw.
pub(crate) fn code_of(response: Vec<u8>) -> u16 {
    Message::parse(response).code()
}

/// CONNECTION-ID.
pub(crate) fn connection_id(id: u32) -> Attribute {
    (CONNECTION_ID, id.to_be_bytes().to_vec())
}

/// Takes relayed data out of its frame, checking the frame.
fn received(bytes: Vec<u8>) -> Received {
    if bytes[0] >= 0x40 {
        let [number, length] = [0, 2].map(|at| u16::from_be_bytes([bytes[at], bytes[at + 1]]));
        assert_eq!(usize::from(length) + 4, bytes.len(), "no more and no less than the data");
        return Received::Channel(number, bytes[4..].to_vec());
    }
    let message = Message::parse(bytes);
    assert_eq!(message.kind, DATA_INDICATION);
    let peer = message.address(XOR_PEER_ADDRESS).expect("XOR-PEER-ADDRESS");
    let Some(value) = message.get(ICMP) else {
        return Received::Data(peer, message.get(DATA).expect("DATA").to_vec());
    };
    assert_eq!(message.attributes.len(), 2, "an error instead of data");
    let &[0, 0, kind, code, ref data @ ..] = value else { panic!("two reserved bytes") };
    assert_eq!(kind & 1, 0, "seven bits of type and nine of code, of which ICMP has eight");
    let data = u32::from_be_bytes(data.try_into().unwrap());
    Received::Icmp(peer, [kind >> 1, code], data)
}

/// A UDP socket with room for bursts.
fn socket(ip: IpAddr) -> UdpSocket {
    let address = SocketAddr::new(ip, 0);
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP));
    let socket = socket.unwrap();
    socket.set_nonblocking(true).unwrap();
    socket.set_recv_buffer_size(RECEIVE_BUFFER).unwrap();
    socket.bind(&address.into()).unwrap();
    UdpSocket::from_std(socket.into()).unwrap()
}

/// Somebody without TURN.
pub(crate) struct Peer(UdpSocket);

impl Peer {
    pub(crate) fn at(ip: IpAddr) -> Self {
        Self(socket(ip))
    }

    pub(crate) fn socket(&self) -> &UdpSocket {
        &self.0
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    pub(crate) async fn send(&self, to: SocketAddr, data: &[u8]) {
        self.0.send_to(data, to).await.unwrap();
    }

    /// The socket, which does not block, for use on another thread.
    pub(crate) fn into_std(self) -> std::net::UdpSocket {
        self.0.into_std().unwrap()
    }

    /// The next datagram and its source.
    pub(crate) async fn recv(&self) -> (SocketAddr, Vec<u8>) {
        let mut bytes = vec![0; 65_536];
        let received = timeout(DEADLINE, self.0.recv_from(&mut bytes)).await;
        let (length, from) = received.expect("something from the relay").unwrap();
        bytes.truncate(length);
        (from, bytes)
    }

    /// The next datagram, if one has arrived already.
    pub(crate) fn try_recv(&self) -> Option<(SocketAddr, Vec<u8>)> {
        let mut bytes = vec![0; 65_536];
        let (length, from) = self.0.try_recv_from(&mut bytes).ok()?;
        bytes.truncate(length);
        Some((from, bytes))
    }
}
