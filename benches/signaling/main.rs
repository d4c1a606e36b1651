//! Signaling: messages per second, and memory per idle connection: `cargo bench --bench signaling`.
//!
//! The hub alone first, which is a function; then the server, over loopback, with clients in this
//! process that share its cores: a lower bound. Clients stay below the rate that closes them, so
//! there are many. `-- --quick` is a smoke test of seconds.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used)]

mod server;

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use hairpin::net::clock;
use hairpin::signal::{
    Account, Action, Authority, Config, ConnectionId, Grant, Hub, IceServers, MESSAGE_BURST,
    PEERS_PER_ROOM,
};
use server::Server;

const HUB_PEERS: usize = 4096;
/// Where the ids of the broadcast begin: those before it are lost by then, and not yet free.
const NEXT: usize = 1024 * PEERS_PER_ROOM;

#[derive(Debug, Parser)]
struct Options {
    /// Run everything briefly: a smoke test, whose figures mean nothing.
    #[arg(long)]
    quick: bool,
    /// What cargo adds.
    #[arg(long, hide = true)]
    bench: bool,
}

/// How much of each there is.
struct Scale {
    hub_rounds: usize,
    /// Connections that say nothing.
    idle: usize,
    /// Connections that do; full rooms of them.
    clients: usize,
    /// What each of them says to its neighbour.
    messages: usize,
}

const FULL: Scale =
    Scale { hub_rounds: 100, idle: 5000, clients: 512, messages: MESSAGE_BURST as usize / 2 };
const QUICK: Scale = Scale { hub_rounds: 1, idle: 200, clients: 2 * PEERS_PER_ROOM, messages: 4 };

struct Nobody;

impl Authority for Nobody {
    fn grant(&self, _: &str) -> Option<Grant> {
        None
    }

    fn ice_servers(&self, _: Account<'_>, _: Duration) -> Option<IceServers> {
        let json = serde_json::value::to_raw_value(&[0; 0]).unwrap();
        Some(IceServers { json, ttl: Duration::from_secs(3600) })
    }
}

fn main() {
    let options = Options::parse();
    if options.quick {
        println!("quick: the figures mean nothing");
    }
    let scale = if options.quick { QUICK } else { FULL };
    hub(scale.hub_rounds);
    let server = Server::start(24_782, 24_783);
    let http = SocketAddr::from(([127, 0, 0, 1], 24_783));
    idle(&server, http, scale.idle);
    unicast(http, scale.clients, scale.messages);
    broadcast(http, scale.clients);
}

/// The price of a message without sockets.
fn hub(rounds: usize) {
    let config = Config { open: true, ..Config::default() };
    let mut hub = Hub::new(config, Arc::new(Nobody), [1; 32]);
    let mut now = clock::now().instant;
    let peers: Vec<_> = (0..HUB_PEERS)
        .map(|peer| {
            let own = hub.connected(IpAddr::V4(Ipv4Addr::LOCALHOST), None, now).unwrap();
            let room = peer / PEERS_PER_ROOM;
            hub.handle_text(own, &join(peer, room), now);
            own
        })
        .collect();
    drain(&mut hub);
    for (kind, to, each) in [("unicast", true, 1), ("broadcast", false, PEERS_PER_ROOM - 1)] {
        let texts: Vec<_> = (0..HUB_PEERS).map(|peer| message(peer, to)).collect();
        let (mut copies, began) = (0, clock::now().instant);
        for _ in 0..rounds {
            now += Duration::from_secs(1);
            for (peer, text) in peers.iter().zip(&texts) {
                hub.handle_text(*peer, text, now);
                copies += drain(&mut hub);
            }
        }
        let messages = HUB_PEERS * rounds;
        print_rate(&format!("hub alone, {kind}"), messages, copies, began);
        assert_eq!(copies, messages * each, "each reaches whom it is for");
    }
}

fn drain(hub: &mut Hub) -> usize {
    let mut copies = 0;
    while let Some(action) = hub.poll_action() {
        let to: Option<ConnectionId> = match action {
            Action::Send { to, .. } => Some(to),
            Action::Ping { .. } | Action::Close { .. } => None,
        };
        copies += usize::from(to.is_some());
    }
    copies
}

/// Resident memory of connections that have joined and say nothing.
fn idle(server: &Server, http: SocketAddr, count: usize) {
    let warm: Vec<_> =
        (0..100).map(|peer| Client::join(http, 100_000 + peer, 2000 + peer / 2)).collect();
    let before = server.resident();
    let clients: Vec<_> =
        (0..count).map(|peer| Client::join(http, 200_000 + peer, 3000 + peer / 2)).collect();
    let each = server.resident().saturating_sub(before) / count as u64;
    let all = warm.len() + clients.len();
    println!("{all} idle connections, joined, two to a room: {each} bytes of memory for each");
}

/// Pairs of clients, each sending to the other one in turn.
fn unicast(http: SocketAddr, count: usize, each: usize) {
    let mut clients: Vec<_> =
        (0..count).map(|peer| Client::join(http, peer, peer / PEERS_PER_ROOM)).collect();
    hear_who_joined(&mut clients);
    let began = clock::now().instant;
    for _ in 0..each {
        for (peer, client) in clients.iter_mut().enumerate() {
            client.send(&message(peer, true));
        }
        clients.iter_mut().for_each(|client| client.receive(1));
    }
    let sent = count * each;
    print_rate("server, unicast", sent, sent, began);
}

/// Full rooms, in which one after the other speaks to all.
fn broadcast(http: SocketAddr, count: usize) {
    let mut clients: Vec<_> =
        (NEXT..NEXT + count).map(|peer| Client::join(http, peer, peer / PEERS_PER_ROOM)).collect();
    hear_who_joined(&mut clients);
    let began = clock::now().instant;
    for turn in 0..PEERS_PER_ROOM {
        for (peer, client) in clients.iter_mut().enumerate() {
            if peer % PEERS_PER_ROOM == turn {
                client.send(&message(NEXT + peer, false));
            }
        }
        for (peer, client) in clients.iter_mut().enumerate() {
            client.receive(usize::from(peer % PEERS_PER_ROOM != turn));
        }
    }
    print_rate("server, broadcast", count, count * (PEERS_PER_ROOM - 1), began);
}

/// Each one is told of those that joined its room after it.
fn hear_who_joined(clients: &mut [Client]) {
    for (peer, client) in clients.iter_mut().enumerate() {
        client.receive(PEERS_PER_ROOM - 1 - peer % PEERS_PER_ROOM);
    }
}

fn print_rate(what: &str, messages: usize, copies: usize, began: Instant) {
    let seconds = clock::now().instant.duration_since(began).as_secs_f64();
    println!(
        "{what}: {:.0} messages per second, {:.0} delivered per second",
        messages as f64 / seconds,
        copies as f64 / seconds,
    );
}

fn join(peer: usize, room: usize) -> String {
    format!(r#"{{"type":"join","from":"p{peer}","room":"r{room}"}}"#)
}

/// As large as a candidate; to the neighbour, or to the room.
fn message(peer: usize, to_one: bool) -> String {
    let target = match to_one {
        true => format!(r#""to":"p{}""#, peer ^ 1),
        false => format!(r#""room":"r{}""#, peer / PEERS_PER_ROOM),
    };
    let candidate = "candidate:1 1 udp 2122260223 192.0.2.1 54321 typ host generation 0";
    format!(r#"{{"type":"candidate",{target},"payload":{{"candidate":"{candidate}"}}}}"#)
}

/// A client that blocks.
struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    fn join(http: SocketAddr, peer: usize, room: usize) -> Self {
        let mut stream = TcpStream::connect(http).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let request = format!(
            "GET /ws HTTP/1.1\r\nHost: {http}\r\nOrigin: http://{http}\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut client = Self { stream, buffer: Vec::new() };
        while !client.buffer.ends_with(b"\r\n\r\n") {
            client.read();
        }
        assert!(client.buffer.starts_with(b"HTTP/1.1 101 "));
        client.buffer.clear();
        client.send(&join(peer, room));
        // The welcome, and who is there.
        client.receive(2);
        client
    }

    fn send(&mut self, text: &str) {
        let mut frame = vec![0x81];
        match text.len() {
            length @ 0..126 => frame.push(0x80 | length as u8),
            length => {
                frame.push(0x80 | 126);
                frame.extend((length as u16).to_be_bytes());
            }
        }
        // A mask of zeros is one too.
        frame.extend([0; 4]);
        frame.extend(text.as_bytes());
        self.stream.write_all(&frame).unwrap();
    }

    fn receive(&mut self, frames: usize) {
        for _ in 0..frames {
            while self.frame_length().is_none_or(|length| self.buffer.len() < length) {
                self.read();
            }
            let length = self.frame_length().unwrap();
            let text = &self.buffer[if length < 128 { 2 } else { 4 }..length];
            assert!(!text.starts_with(b"{\"type\":\"error\""), "{}", text.escape_ascii());
            self.buffer.drain(..length);
        }
    }

    fn frame_length(&self) -> Option<usize> {
        match *self.buffer.get(1)? {
            126 => {
                let length = u16::from_be_bytes(self.buffer.get(2..4)?.try_into().unwrap());
                Some(4 + usize::from(length))
            }
            length => Some(2 + usize::from(length)),
        }
    }

    fn read(&mut self) {
        let mut scratch = [0; 16_384];
        let read = self.stream.read(&mut scratch).unwrap();
        assert!(read > 0, "closed");
        self.buffer.extend(&scratch[..read]);
    }
}
