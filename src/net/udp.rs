//! The loops of UDP sockets: wait until there is something to read, then give the shard a turn.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use tracing::error;

use super::relay::RelaySocket;
use super::shard::{Shard, SocketKey};
use super::sys::{Options, Socket};
use crate::turn::AllocationId;

/// Datagrams in one turn after which there are likely more to come.
const FULL_TURN: usize = 32;

/// A socket that clients send to.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) socket: Socket,
    pub(super) address: SocketAddr,
}

impl Listener {
    /// Binds `address`, together with the other shards.
    pub(super) fn bind(address: SocketAddr) -> io::Result<Self> {
        let packet_info = address.ip().is_unspecified();
        let socket = Socket::bind(address, Options { reuse_port: true, packet_info })?;
        let address = socket.local_addr()?;
        Ok(Self { socket, address })
    }
}

/// Reads a listener until the shard ends.
pub(super) async fn pump_listener(shard: Rc<RefCell<Shard>>, index: usize, listener: Rc<Listener>) {
    pump(shard, SocketKey::Listener(index), &listener.socket).await;
}

/// Reads a relay socket until its allocation ends, which aborts the task.
pub(super) async fn pump_relay(
    shard: Rc<RefCell<Shard>>,
    id: AllocationId,
    relay: Rc<RelaySocket>,
) {
    pump(shard, SocketKey::Relay(id), &relay.socket).await;
}

async fn pump(shard: Rc<RefCell<Shard>>, key: SocketKey, socket: &Socket) {
    while socket.readable().await.is_ok() {
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

/// A panic while handling one packet is a bug, but it must not end other people's calls.
fn turn(shard: &RefCell<Shard>, key: SocketKey) -> io::Result<usize> {
    catch_unwind(AssertUnwindSafe(|| shard.borrow_mut().turn(key))).unwrap_or_else(|_| {
        error!(socket = ?key, "a bug: handling a packet panicked");
        shard.borrow_mut().abandon_turn();
        Ok(0)
    })
}
