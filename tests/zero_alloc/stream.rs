//! A client over TCP, as little as it takes to relay through it.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of it")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use hairpin::stun::attribute::{ChannelNumberAttribute, RequestedTransport, XorPeerAddress};
use hairpin::stun::{ChannelNumber, Method};

use crate::client::{Login, bare_allocate, relayed};

/// More than a busy machine needs for anything.
const DEADLINE: Duration = Duration::from_secs(30);

/// One connection, and the allocation made over it.
#[derive(Debug)]
pub struct StreamClient {
    pub tcp: TcpStream,
    pub relayed: SocketAddr,
}

impl StreamClient {
    /// Makes an allocation, and binds a channel to a peer.
    pub fn with_channel(
        server: SocketAddr,
        password: &str,
        number: ChannelNumber,
        peer: SocketAddr,
    ) -> Self {
        let mut tcp = TcpStream::connect(server).unwrap();
        tcp.set_nodelay(true).unwrap();
        tcp.set_read_timeout(Some(DEADLINE)).unwrap();
        let challenge = exchange(&mut tcp, &bare_allocate());
        let login = Login::new(&challenge, "alice", password);
        let allocate =
            login.request(Method::Allocate, |builder| builder.put(&RequestedTransport::UDP));
        let relayed = relayed(&exchange(&mut tcp, &allocate));
        let bind = login.request(Method::ChannelBind, |builder| {
            builder.put(&ChannelNumberAttribute(number)).put(&XorPeerAddress(peer))
        });
        assert_eq!(exchange(&mut tcp, &bind)[0], 0x01, "a success response");
        Self { tcp, relayed }
    }
}

/// Sends a request, and reads its response: a header of 20 bytes, then as many as it says.
fn exchange(tcp: &mut TcpStream, request: &[u8]) -> Vec<u8> {
    tcp.write_all(request).unwrap();
    let mut response = vec![0; 20];
    tcp.read_exact(&mut response).unwrap();
    let length = usize::from(u16::from_be_bytes([response[2], response[3]]));
    response.resize(20 + length, 0);
    tcp.read_exact(&mut response[20..]).unwrap();
    response
}
