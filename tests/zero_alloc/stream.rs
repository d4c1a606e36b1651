//! A client over a stream, as little as it takes to relay through it.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of it")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use hairpin::stun::attribute::{
    ChannelNumberAttribute, ConnectionId, RequestedTransport, XorPeerAddress,
};
use hairpin::stun::{Builder, ChannelNumber, Message, Method};

use crate::client::{Login, bare_allocate, relayed};

/// More than a busy machine needs for anything.
const DEADLINE: Duration = Duration::from_secs(30);

/// One connection, and the allocation made over it.
#[derive(Debug)]
pub struct StreamClient<S = TcpStream> {
    pub stream: S,
    pub relayed: SocketAddr,
    login: Login,
}

impl StreamClient {
    /// Makes an allocation over TCP, and binds a channel to a peer.
    pub fn with_channel(
        server: SocketAddr,
        password: &str,
        number: ChannelNumber,
        peer: SocketAddr,
    ) -> Self {
        StreamClient::allocate(connect(server), password, RequestedTransport::UDP)
            .bound(number, peer)
    }

    /// Makes an allocation that relays over TCP.
    pub fn relaying_tcp(server: SocketAddr, password: &str) -> Self {
        StreamClient::allocate(connect(server), password, RequestedTransport::TCP)
    }

    /// Has the server connect to a peer; the name of that connection.
    pub fn connect(&mut self, peer: SocketAddr) -> ConnectionId {
        let connected = self.request(Method::Connect, |builder| builder.put(&XorPeerAddress(peer)));
        Message::parse(&connected).unwrap().read().unwrap().unwrap()
    }

    /// A new connection to the server that has become the client's end of this one.
    pub fn data(&self, server: SocketAddr, id: ConnectionId) -> TcpStream {
        let mut tcp = connect(server);
        let bind = self.login.request(Method::ConnectionBind, |builder| builder.put(&id));
        assert_eq!(exchange(&mut tcp, &bind)[0], 0x01, "a success response");
        tcp
    }
}

impl<S: Read + Write> StreamClient<S> {
    /// Makes an allocation over a connection.
    pub fn allocate(mut stream: S, password: &str, transport: RequestedTransport) -> Self {
        let challenge = exchange(&mut stream, &bare_allocate());
        let login = Login::new(&challenge, "alice", password);
        let allocate = login.request(Method::Allocate, |builder| builder.put(&transport));
        let relayed = relayed(&exchange(&mut stream, &allocate));
        Self { stream, relayed, login }
    }

    /// Binds a channel to a peer.
    pub fn bound(mut self, number: ChannelNumber, peer: SocketAddr) -> Self {
        self.request(Method::ChannelBind, |builder| {
            builder.put(&ChannelNumberAttribute(number)).put(&XorPeerAddress(peer))
        });
        self
    }

    /// The success response to a request.
    fn request(
        &mut self,
        method: Method,
        attributes: impl FnOnce(Builder<'_>) -> Builder<'_>,
    ) -> Vec<u8> {
        let response = exchange(&mut self.stream, &self.login.request(method, attributes));
        assert_eq!(response[0], 0x01, "a success response");
        response
    }
}

fn connect(server: SocketAddr) -> TcpStream {
    let tcp = TcpStream::connect(server).unwrap();
    tcp.set_nodelay(true).unwrap();
    tcp.set_read_timeout(Some(DEADLINE)).unwrap();
    tcp
}

/// Sends a request, and reads its response: a header of 20 bytes, then as many as it says.
fn exchange(stream: &mut (impl Read + Write), request: &[u8]) -> Vec<u8> {
    stream.write_all(request).unwrap();
    let mut response = vec![0; 20];
    stream.read_exact(&mut response).unwrap();
    let length = usize::from(u16::from_be_bytes([response[2], response[3]]));
    response.resize(20 + length, 0);
    stream.read_exact(&mut response[20..]).unwrap();
    response
}
