//! Clients over TCP and TLS: accepting them, telling what they speak by their first byte, and
//! giving the shard a turn for each batch of what they send.
//!
//! A connection belongs to the shard that accepted it. It must deliver its first message soon,
//! and while it has no allocation each next one not much later; only then it may stay.

pub mod certificates;
mod connection;
mod count;
pub mod tls;

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustls::{ServerConfig, ServerConnection};
use socket2::{Domain, Protocol, SockRef, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, warn};

pub(super) use connection::{Connection, FRAME_LEN_MAX, Importance, split_frames};
pub(super) use count::ConnectionCount;
use tls::Session;

use super::clock;
use super::shard::Shard;
use crate::stun::ChannelRange;

/// From the connection's beginning to its first whole message, TLS handshake included.
const FIRST_MESSAGE_DEADLINE: Duration = Duration::from_secs(10);
/// After this long without an answer to what we sent, the kernel gives the client up.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(30);
/// A silent client is probed after this long, so that a vanished one frees its allocation.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// Connections the kernel completes ahead of us.
const BACKLOG: i32 = 1024;
/// What follows a failed accept. Out of file descriptors, trying again at once would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
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
    /// Which first bytes are ChannelData's.
    pub(super) channels: ChannelRange,
    /// Certificates, where there are any.
    pub(super) tls: Option<Arc<ServerConfig>>,
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

/// One connection, from beginning to end.
async fn serve(
    shard: Rc<RefCell<Shard>>,
    tcp: TcpStream,
    client: SocketAddr,
    speaks: Speaks,
    settings: Settings,
) {
    let Some(_counted) = settings.count.take(client.ip()) else {
        debug!(%client, "connection over the limit");
        return;
    };
    let deadline = now() + FIRST_MESSAGE_DEADLINE;
    let connection =
        match timeout(FIRST_MESSAGE_DEADLINE, begin(tcp, client, speaks, &settings)).await {
            Ok(Ok(connection)) => Rc::new(connection),
            Ok(Err(error)) => {
                debug!(%client, %error, "connection not served");
                return;
            }
            Err(_) => {
                debug!(%client, "connection silent from the beginning");
                return;
            }
        };
    let id = shard.borrow_mut().connected(Rc::clone(&connection));
    let reason = converse(&shard, id, &connection, deadline, settings.unauthenticated_idle).await;
    debug!(%client, reason, "connection closed");
    connection.close();
    shard.borrow_mut().disconnected(id);
}

/// Waits for the first byte, which tells the protocol.
async fn begin(
    tcp: TcpStream,
    client: SocketAddr,
    speaks: Speaks,
    settings: &Settings,
) -> io::Result<Connection> {
    tcp.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE);
    SockRef::from(&tcp).set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    SockRef::from(&tcp).set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX))?;
    let mut first = [0];
    if tcp.peek(&mut first).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let session = match (first[0], speaks, &settings.tls) {
        (TLS_HANDSHAKE, _, Some(config)) => {
            let tls = ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
            Some(Session::new(tls))
        }
        (0x00..=0x03, Speaks::Both, _) => None,
        (first, Speaks::Both, _) if settings.channels.begins_with(first) => None,
        _ => return Err(io::ErrorKind::InvalidData.into()),
    };
    Connection::new(tcp, client, session)
}

/// Gives the shard its turns until the connection ends, and says why it did.
async fn converse(
    shard: &RefCell<Shard>,
    id: ConnectionId,
    connection: &Connection,
    first_deadline: Instant,
    idle: Duration,
) -> &'static str {
    let mut deadline = first_deadline;
    loop {
        tokio::select! {
            ready = connection.ready() => if ready.is_err() {
                return "failed";
            },
            () = sleep_until(deadline) => {
                if !shard.borrow().is_allocated(id) {
                    return "idle without an allocation";
                }
                deadline = now() + idle;
                continue;
            }
        }
        match super::udp::guard(shard, "a connection", |shard| shard.stream_turn(id)) {
            Some(Ok(Heard::Messages)) => deadline = now() + idle,
            Some(Ok(Heard::Nothing)) => {}
            Some(Ok(Heard::End)) => return "ended by the client",
            Some(Err(error)) => {
                debug!(%error, "connection cannot be read any further");
                return "broken";
            }
            None => return "a bug",
        }
        // One batch each, in turn: a flood on one connection must not starve the others.
        tokio::task::yield_now().await;
    }
}

/// What a turn of a connection brought.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Heard {
    /// At least one whole message.
    Messages,
    /// No whole message yet.
    Nothing,
    /// The client has closed.
    End,
}

fn now() -> Instant {
    Instant::from_std(clock::now().instant)
}
