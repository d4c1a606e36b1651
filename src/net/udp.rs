//! The loops of a shard: wait until there is something to read, then give the shard a turn.

use std::cell::RefCell;
use std::fmt::Debug;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use tracing::error;

use super::post::Inbox;
use super::shard::Shard;
use super::stream::Speaks;
use super::sys::{Options, Socket, Watcher};
use super::work::SocketKey;

/// A socket that clients send to.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) socket: Socket,
    pub(super) address: SocketAddr,
    /// [`Speaks::Tls`] is DTLS here.
    pub(super) speaks: Speaks,
}

impl Listener {
    /// Binds `address`, together with the other shards.
    pub(super) fn bind(address: SocketAddr, speaks: Speaks) -> io::Result<Self> {
        let packet_info = address.ip().is_unspecified();
        let options = Options { reuse_port: true, packet_info, icmp: false, traffic_class: true };
        let socket = Socket::bind(address, options)?;
        let address = socket.local_addr()?;
        Ok(Self { socket, address, speaks })
    }
}

/// What a shard listens with.
#[derive(Debug)]
pub(super) struct Listeners {
    /// Knows of them.
    pub(super) watcher: Watcher,
    pub(super) all: Vec<Listener>,
}

impl Listeners {
    /// Has them watched. What arrives waits in them.
    pub(super) fn new(all: Vec<Listener>) -> io::Result<Self> {
        let watcher = Watcher::new()?;
        for (index, own) in all.iter().enumerate() {
            watcher.add(&own.socket, SocketKey::Listener(index).token())?;
        }
        Ok(Self { watcher, all })
    }
}

/// Gives the sockets of datagrams their turns until the shard ends.
pub(super) async fn pump(shard: Rc<RefCell<Shard>>) {
    loop {
        if let Err(error) = poll_fn(|context| shard.borrow_mut().poll_round(context)).await {
            error!(%error, "a shard cannot wait for its sockets, and reads none any more");
            return;
        }
        // A flood must not starve connections and timers.
        if guard(&shard, "datagrams", Shard::turn).unwrap_or(true) {
            tokio::task::yield_now().await;
        }
    }
}

/// Delivers what other shards send until the shard ends.
pub(super) async fn pump_post(shard: Rc<RefCell<Shard>>, mut inbox: Inbox) {
    while let Some(parcel) = inbox.recv().await {
        guard(&shard, "post", |shard| shard.deliver(parcel));
    }
}

/// A panic while handling one packet is a bug, but it must not end other people's calls.
pub(super) fn guard<T>(
    shard: &RefCell<Shard>,
    source: impl Debug,
    turn: impl FnOnce(&mut Shard) -> T,
) -> Option<T> {
    let outcome = catch_unwind(AssertUnwindSafe(|| turn(&mut shard.borrow_mut())));
    if outcome.is_err() {
        error!(?source, "a bug: handling a packet panicked");
        shard.borrow_mut().abandon_turn();
    }
    outcome.ok()
}
