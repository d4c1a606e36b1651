//! A WebSocket client that can break every rule: frames are written by hand.

use std::net::SocketAddr;
use std::time::Duration;

use hairpin::config::Config;
use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::common::TestServer;

/// Generous: nothing is timed.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
pub(crate) const ORIGIN: &str = "http://localhost:5173";
pub(crate) const JWT_SECRET: &str = "a secret of thirty-two bytes, or more";
pub(crate) const TURN_SECRET: &str = "north-of-everything";

pub(crate) const CONTINUATION: u8 = 0;
pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;
/// The bit of the last fragment.
pub(crate) const FIN: u8 = 0x80;

/// A server as `--dev` starts it: open, for the pages of this machine.
pub(crate) fn open_server() -> TestServer {
    TestServer::start(|config| config.http.shared = true)
}

/// A server that wants tokens, and mints credentials.
pub(crate) fn closed_server() -> TestServer {
    TestServer::start(|config: &mut Config| {
        config.turn.auth.secrets = vec![TURN_SECRET.to_owned()];
        let signaling = config.http.signaling.as_mut().unwrap();
        signaling.hub.open = false;
        signaling.source = hairpin::http::credentials::Source::Secret(TURN_SECRET.to_owned());
        signaling.keys.add_secret(JWT_SECRET.as_bytes());
        signaling.api_token = Some(hairpin::http::credentials::ApiToken::new("an api token, long"));
    })
}

/// A token for a user and rooms, good for an hour.
pub(crate) fn token(user: &str, rooms: &[&str]) -> String {
    signed(json!({ "sub": user, "rooms": rooms }))
}

/// A token that says this, good for an hour.
pub(crate) fn signed(mut claims: Value) -> String {
    claims["exp"] = (hairpin::net::clock::now().unix_secs + 3600).into();
    encode(&Header::default(), &claims, &EncodingKey::from_secret(JWT_SECRET.as_bytes())).unwrap()
}

pub(crate) struct Socket {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// What comes from the server.
#[derive(Debug, PartialEq)]
pub(crate) enum Received {
    Message(Value),
    Close(Option<u16>),
    Ping,
    Pong(Vec<u8>),
    /// The end, without a close frame.
    End,
}

/// Sends an opening handshake, and returns the head of the answer.
pub(crate) async fn handshake(
    server: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
) -> (TcpStream, String, Vec<u8>) {
    handshake_on(TcpStream::connect(server).await.unwrap(), path, headers).await
}

async fn handshake_on(
    mut stream: TcpStream,
    path: &str,
    headers: &[(&str, &str)],
) -> (TcpStream, String, Vec<u8>) {
    let server = stream.peer_addr().unwrap();
    let mut request = format!("GET {path} HTTP/1.1\r\nHost: {server}\r\n");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        let read = timeout(DEADLINE, stream.read_buf(&mut bytes)).await.unwrap().unwrap();
        assert!(read > 0, "closed: {}", String::from_utf8_lossy(&bytes));
    };
    let rest = bytes.split_off(end);
    (stream, String::from_utf8(bytes).unwrap(), rest)
}

/// The headers of a good handshake.
pub(crate) const GOOD: [(&str, &str); 5] = [
    ("Origin", ORIGIN),
    ("Upgrade", "websocket"),
    ("Connection", "keep-alive, Upgrade"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

impl Socket {
    pub(crate) async fn connect(server: SocketAddr) -> Self {
        Self::connect_to(server, "/ws").await
    }

    /// One whose kernel, and the server's on its behalf, has little room for what is not read.
    pub(crate) async fn connect_narrow(server: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        socket2::SockRef::from(&socket).set_tcp_mss(536).unwrap();
        Self::open(handshake_on(socket.connect(server).await.unwrap(), "/ws", &GOOD).await)
    }

    pub(crate) async fn connect_to(server: SocketAddr, path: &str) -> Self {
        Self::open(handshake(server, path, &GOOD).await)
    }

    fn open((stream, head, buffer): (TcpStream, String, Vec<u8>)) -> Self {
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        // RFC 6455 §1.3 has this pair.
        assert!(head.contains("sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
        assert!(!head.to_lowercase().contains("extensions"), "{head}");
        Self { stream, buffer }
    }

    /// Joins, and returns the welcome and the peers.
    pub(crate) async fn join(&mut self, id: &str, room: &str) -> (Value, Value) {
        self.say(json!({ "type": "join", "from": id, "room": room })).await;
        let welcome = self.message().await;
        assert_eq!(welcome["type"], "welcome", "{welcome}");
        (welcome, self.message().await)
    }

    pub(crate) async fn say(&mut self, message: Value) {
        self.frame(FIN | TEXT, message.to_string().as_bytes()).await;
    }

    /// Sends a frame, masked as clients must.
    pub(crate) async fn frame(&mut self, first: u8, payload: &[u8]) {
        self.raw(&frame(first, payload)).await;
    }

    /// Sends bytes. The server may have closed by now: what it says counts.
    pub(crate) async fn raw(&mut self, bytes: &[u8]) {
        let _ = timeout(DEADLINE, self.stream.write_all(bytes)).await.unwrap();
    }

    pub(crate) async fn message(&mut self) -> Value {
        loop {
            match self.receive().await {
                Received::Message(message) => return message,
                Received::Ping => {}
                other => panic!("no message: {other:?}"),
            }
        }
    }

    /// What the connection ends with; messages before it are not looked at.
    pub(crate) async fn end(&mut self) -> Received {
        loop {
            match self.receive().await {
                Received::Message(_) | Received::Ping | Received::Pong(_) => {}
                end => return end,
            }
        }
    }

    pub(crate) async fn receive(&mut self) -> Received {
        let Some(header) = self.take(2).await else { return Received::End };
        assert_eq!(header[1] & 0x80, 0, "a server does not mask");
        let length = match header[1] {
            126 => {
                let bytes = self.take(2).await.unwrap();
                usize::from(u16::from_be_bytes(bytes.try_into().unwrap()))
            }
            127 => {
                let bytes = self.take(8).await.unwrap();
                u64::from_be_bytes(bytes.try_into().unwrap()) as usize
            }
            short => usize::from(short),
        };
        let Some(payload) = self.take(length).await else { return Received::End };
        match header[0] {
            first if first == FIN | TEXT => {
                Received::Message(serde_json::from_slice(&payload).unwrap())
            }
            first if first == FIN | CLOSE => Received::Close(
                payload.get(..2).map(|code| u16::from_be_bytes(code.try_into().unwrap())),
            ),
            first if first == FIN | PING => Received::Ping,
            first if first == FIN | PONG => Received::Pong(payload),
            first => panic!("a frame of kind {first:#x}"),
        }
    }

    async fn take(&mut self, length: usize) -> Option<Vec<u8>> {
        while self.buffer.len() < length {
            let read = timeout(DEADLINE, self.stream.read_buf(&mut self.buffer)).await;
            match read.expect("the server says something") {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
        let rest = self.buffer.split_off(length);
        Some(std::mem::replace(&mut self.buffer, rest))
    }
}

/// A masked frame; `first` is its first byte.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        length @ 0..126 => frame.push(0x80 | length as u8),
        length @ 126..65_536 => {
            frame.push(0x80 | 126);
            frame.extend((length as u16).to_be_bytes());
        }
        length => {
            frame.push(0x80 | 127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    let mask = [1, 2, 3, 4];
    frame.extend(mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}
