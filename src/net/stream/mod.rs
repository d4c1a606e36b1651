//! Clients over TCP and TLS: accepting them, telling what they speak by their first bytes, and
//! giving the shard a turn for each batch of what they send.
//!
//! A connection belongs to the shard that accepted it. It must deliver its first message soon,
//! and while it has no allocation each next one not much later; only then it may stay. One that
//! speaks HTTP is handed over to whoever serves that.

pub mod certificates;
mod connection;
pub mod count;
pub mod handover;
mod opening;
mod proxy;
mod spare;
pub mod tls;

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ahash::RandomState;
use ipnet::IpNet;
use rustls::{ServerConfig, ServerConnection};
use socket2::{Domain, Protocol, SockRef, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::{debug, warn};

pub(super) use connection::{Connection, FRAME_LEN_MAX, Importance, split_frames, write_all};
use count::Refusal;
pub(super) use count::{ConnectionCount, Counted, Kind};
use handover::Handover;
pub(super) use opening::Opening;
use proxy::Ends;
use tls::Session;

use super::clock;
use super::shard::Shard;
use super::tcp_relay::{Waiting, data};
use crate::turn::limits::SourceBuckets;

/// From the connection's beginning to its first whole message, TLS handshake included.
const FIRST_MESSAGE_DEADLINE: Duration = Duration::from_secs(10);
/// After this long without an answer to what we sent, the kernel gives the client up.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(30);
/// A silent client is probed after this long, so that a vanished one frees its allocation.
pub(super) const KEEPALIVE: Duration = Duration::from_secs(60);
/// Connections the kernel completes ahead of us.
const BACKLOG: i32 = 1024;
/// What follows a failed accept. Out of file descriptors, trying again at once would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// TLS handshakes that a source may begin at once, in seconds of its rate. The rate is that of the
/// replies to strangers: each handshake is a signature, up to a millisecond with an RSA key, on the
/// thread that relays. With the default of 20 a source gets 2% of a thread. The burst is for a NAT
/// with many users behind it, who are all back at once when a server or a network was down.
const HANDSHAKE_BURST_SECS: u32 = 5;
/// First byte of a TLS handshake record.
const TLS_HANDSHAKE: u8 = 22;

slotmap::new_key_type! {
    /// Names a connection; never reused for another one.
    pub(super) struct ConnectionId;
}

/// What all stream listeners of a shard know.
#[derive(Clone)]
pub(super) struct Settings {
    /// How long a connection without an allocation may be silent.
    pub(super) unauthenticated_idle: Duration,
    /// Certificates, where there are any.
    pub(super) tls: Option<Arc<ServerConfig>>,
    /// Load balancers, which say in front of each connection whose it is.
    pub(super) proxies: Arc<[IpNet]>,
    /// Where connections that speak HTTP go; `None` where they are not served.
    pub(super) http: Option<mpsc::Sender<Handover>>,
    pub(super) count: Arc<ConnectionCount>,
}

/// What a listening port speaks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Speaks {
    /// TURN, and where there are certificates TLS: the first byte tells.
    Both,
    /// TLS only.
    Tls,
}

/// Binds a listener, together with the other shards.
pub(super) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = open(address)?;
    #[cfg(unix)]
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Tells whether `address` is free: `SO_REUSEPORT` would share it with another process.
pub(super) fn probe(address: SocketAddr) -> io::Result<()> {
    open(address)?.bind(&address.into())
}

fn open(address: SocketAddr) -> io::Result<socket2::Socket> {
    let socket =
        socket2::Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    // A restart must not wait for the old connections.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

/// What sources may have of TLS handshakes on one shard; 0 per second is no limit.
pub(super) fn handshake_buckets(per_second: u32) -> SourceBuckets {
    let [a, b, c, d] = rand::random();
    SourceBuckets::new(per_second, HANDSHAKE_BURST_SECS, RandomState::with_seeds(a, b, c, d))
}

/// Accepts connections until the shard ends.
pub(super) async fn accept(
    shard: Rc<RefCell<Shard>>,
    listener: TcpListener,
    speaks: Speaks,
    settings: Settings,
) {
    let mut failing = false;
    loop {
        match listener.accept().await {
            Ok((tcp, client)) => {
                failing = false;
                let serving = serve(Rc::clone(&shard), tcp, client, speaks, settings.clone());
                tokio::task::spawn_local(serving);
            }
            Err(error) => {
                // Once for a streak: it may last, and the log may be on the same full system.
                if !failing {
                    warn!(%error, "cannot accept connections");
                }
                failing = true;
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// How a connection ends, as far as the shard is concerned.
#[derive(Debug)]
enum End {
    /// For no reason that an operator must know.
    Closed(&'static str),
    /// It came to nothing.
    Refused(Refusal),
    /// It goes on elsewhere.
    Http,
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> Self {
        Self::Closed("failed")
    }
}

/// One connection, from beginning to end.
async fn serve(
    shard: Rc<RefCell<Shard>>,
    tcp: TcpStream,
    client: SocketAddr,
    speaks: Speaks,
    settings: Settings,
) {
    let deadline = now() + FIRST_MESSAGE_DEADLINE;
    let began = timeout_at(deadline, begin(&shard, tcp, client, speaks, &settings)).await;
    let (client, end) = match began.unwrap_or(Err(End::Refused(Refusal::Deadline))) {
        Ok((connection, counted)) => {
            let connection = Rc::new(connection);
            let client = connection.five_tuple().client;
            let id = shard.borrow_mut().connected(Rc::clone(&connection));
            let idle = settings.unauthenticated_idle;
            let end = match converse(&shard, id, &connection, deadline, idle).await {
                Conversation::Bound(peer) => {
                    End::Closed(data::carry(&shard, Rc::clone(&connection), *peer).await)
                }
                Conversation::Ended(End::Http) => End::Http,
                Conversation::Ended(end) => {
                    connection.close();
                    end
                }
            };
            shard.borrow_mut().disconnected(id);
            match end {
                End::Http => (client, hand_over(connection, counted, &settings)),
                end => (client, end),
            }
        }
        Err(end) => (client, end),
    };
    match end {
        End::Closed(reason) => debug!(%client, reason, "connection closed"),
        End::Refused(refusal) => {
            settings.count.refuse(refusal);
            debug!(%client, reason = refusal.label(), "connection refused");
        }
        End::Http => debug!(%client, "connection handed over"),
    }
}

/// Finds out whose connection it is, and by its first byte whether it is TLS.
async fn begin(
    shard: &RefCell<Shard>,
    tcp: TcpStream,
    client: SocketAddr,
    speaks: Speaks,
    settings: &Settings,
) -> Result<(Connection, Counted), End> {
    let mut counted = settings.count.take(client.ip()).map_err(End::Refused)?;
    tcp.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE);
    SockRef::from(&tcp).set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    SockRef::from(&tcp).set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX))?;
    let mut ends = Ends { client, server: tcp.local_addr()? };
    if settings.proxies.iter().any(|proxy| proxy.contains(&client.ip())) {
        let header = proxy::read(&tcp).await?;
        if let Some(named) = header.map_err(|_| End::Refused(Refusal::ProxyHeader))? {
            ends = named;
            counted = settings.count.take(named.client.ip()).map_err(End::Refused)?;
        }
    }
    let mut first = [0];
    if tcp.peek(&mut first).await? == 0 {
        return Err(End::Closed("ended before it began"));
    }
    let session = match (first[0], speaks, &settings.tls) {
        (TLS_HANDSHAKE, _, Some(config)) => {
            if !shard.borrow_mut().admits_handshake(ends.client.ip()) {
                return Err(End::Refused(Refusal::HandshakeRate));
            }
            counted.becomes(Kind::Tls);
            let tls = ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
            Some(Session::new(tls))
        }
        (_, Speaks::Both, _) => None,
        (_, Speaks::Tls, _) => return Err(End::Refused(Refusal::NotAProtocol)),
    };
    Ok((Connection::new(tcp, ends, session), counted))
}

/// How a connection stops to be one of messages.
enum Conversation {
    /// It has ended, or goes on elsewhere.
    Ended(End),
    /// It carries data from now on.
    Bound(Box<Waiting>),
}

/// Gives the shard its turns until the connection ends, or carries data.
async fn converse(
    shard: &RefCell<Shard>,
    id: ConnectionId,
    connection: &Connection,
    first_deadline: Instant,
    idle: Duration,
) -> Conversation {
    let mut deadline = first_deadline;
    loop {
        tokio::select! {
            ready = connection.ready() => if ready.is_err() {
                return Conversation::Ended(End::Closed("failed"));
            },
            () = sleep_until(deadline) => {
                if connection.is_new() {
                    return Conversation::Ended(End::Refused(Refusal::Deadline));
                }
                if !shard.borrow().is_allocated(id) {
                    return Conversation::Ended(End::Closed("idle without an allocation"));
                }
                deadline = now() + idle;
                continue;
            }
        }
        match super::udp::guard(shard, "a connection", |shard| shard.stream_turn(id)) {
            Some(Ok(Heard::Messages)) => deadline = now() + idle,
            Some(Ok(Heard::Nothing)) => {}
            Some(Ok(Heard::Bound(peer))) => return Conversation::Bound(peer),
            heard => return Conversation::Ended(end_of(connection, heard)),
        }
        // One batch each, in turn: a flood on one connection must not starve the others.
        tokio::task::yield_now().await;
    }
}

/// Why a connection is read no more.
fn end_of(connection: &Connection, heard: Option<io::Result<Heard>>) -> End {
    match heard {
        Some(Ok(Heard::Http)) => End::Http,
        Some(Ok(_) | Err(_)) if connection.is_handshaking() => {
            End::Refused(Refusal::HandshakeFailed)
        }
        Some(Ok(_)) => End::Closed("ended by the client"),
        Some(Err(error)) => {
            debug!(%error, "connection cannot be read any further");
            let is_junk = error.kind() == io::ErrorKind::InvalidData && connection.is_new();
            if is_junk { End::Refused(Refusal::NotAProtocol) } else { End::Closed("broken") }
        }
        None => End::Closed("a bug"),
    }
}

/// Gives a connection away together with its place in the counts.
fn hand_over(connection: Rc<Connection>, mut counted: Counted, settings: &Settings) -> End {
    let Some(http) = settings.http.as_ref().filter(|_| !connection.asked_for_turn()) else {
        return End::Refused(Refusal::NotAProtocol);
    };
    // Nobody else holds it: the shard has let go.
    let Some(connection) = Rc::into_inner(connection) else { return End::Closed("a bug") };
    counted.becomes(Kind::Http);
    match Handover::new(connection.into_parts(), counted).map(|handover| http.try_send(handover)) {
        Ok(Ok(())) => End::Http,
        Ok(Err(_)) => End::Refused(Refusal::HandoverFull),
        Err(error) => error.into(),
    }
}

/// What a turn of a connection brought.
#[derive(Debug)]
pub(super) enum Heard {
    /// At least one whole message.
    Messages,
    /// No whole message yet.
    Nothing,
    /// The beginning of HTTP, which is kept.
    Http,
    /// A ConnectionBind: what follows is for this peer.
    Bound(Box<Waiting>),
    /// The client has closed.
    End,
}

fn now() -> Instant {
    Instant::from_std(clock::now().instant)
}
