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
use super::sys::{Options, Socket};
use super::work::SocketKey;

/// Datagrams in one turn after which there are likely more to come.
const FULL_TURN: usize = 32;

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

/// Reads a socket until it is gone: a listener until the shard ends, a relay socket until its
/// allocation does. Holds no socket, so that one is closed when the shard drops it.
pub(super) async fn pump(shard: Rc<RefCell<Shard>>, key: SocketKey) {
    while poll_fn(|context| shard.borrow().poll_readable(key, context)).await.is_ok() {
        match turn(&shard, key) {
            // A flood on one socket must not starve the others.
            Ok(received) if received >= FULL_TURN => tokio::task::yield_now().await,
            Ok(_) => {}
            Err(error) => {
                error!(%error, socket = ?key, "a socket failed and is read no more");
                return;
            }
        }
    }
}

/// Delivers what other shards send until the shard ends.
pub(super) async fn pump_post(shard: Rc<RefCell<Shard>>, mut inbox: Inbox) {
    while let Some(parcel) = inbox.recv().await {
        guard(&shard, "post", |shard| shard.deliver(parcel));
    }
}

fn turn(shard: &RefCell<Shard>, key: SocketKey) -> io::Result<usize> {
    guard(shard, key, |shard| shard.turn(key)).unwrap_or(Ok(0))
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
