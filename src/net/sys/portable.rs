//! Everywhere but Linux, and with the feature `portable`: one call for each datagram.
//!
//! Gives up what std cannot do: the address a datagram was sent to, the source address of a
//! reply, the DF bit (the system's default stays), ICMP errors, and the list of this host's
//! addresses.

use std::cell::RefCell;
use std::io;
use std::net::{self, SocketAddr};
use std::task::{Context, Poll, Waker};

use socket2::{SockAddr, SockRef};
use tokio::net::UdpSocket;

use super::batch::{RecvBatch, SLOT_BYTES, SLOT_STRIDE, Train};
use super::outgoing::{Outgoing, Segment};
use super::{IcmpError, InterfaceAddress, Options, error};
use crate::turn::stats::DropReason;

mod awaited;
mod watcher;

pub use awaited::AwaitedSocket;
pub use watcher::Watcher;

/// std has no way to set the DF bit.
pub const SETS_DONT_FRAGMENT: bool = false;

/// Nothing to keep for receiving.
#[derive(Debug)]
pub(super) struct ReceiveHeaders;

impl ReceiveHeaders {
    pub(super) fn new(_: &mut Vec<u8>) -> Self {
        Self
    }
}

/// Where a datagram is put together.
#[derive(Debug, Default)]
pub(in crate::net) struct SendScratch {
    datagram: Vec<u8>,
}

/// A bound UDP socket.
#[derive(Debug)]
pub struct Socket {
    socket: UdpSocket,
    /// What rings when there is something to read, where a [`Watcher`] watches.
    bell: RefCell<Option<Waker>>,
}

impl Socket {
    /// Binds `address`. Must be called inside a tokio runtime.
    pub fn bind(address: SocketAddr, options: Options) -> io::Result<Self> {
        let socket = super::open(address)?;
        if options.reuse_port {
            super::prepare_listener(&socket)?;
        }
        socket.bind(&SockAddr::from(address))?;
        Self::attach(socket.into())
    }

    /// Takes it out of this runtime, once no [`Watcher`] watches it.
    pub fn detach(self) -> io::Result<net::UdpSocket> {
        self.socket.into_std()
    }

    /// Takes a detached one into this runtime.
    pub fn attach(socket: net::UdpSocket) -> io::Result<Self> {
        Ok(Self { socket: UdpSocket::from_std(socket)?, bell: RefCell::new(None) })
    }

    /// The address it is bound to.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Lets the bell ring as soon as there is something to read.
    fn listen(&self) {
        let bell = self.bell.borrow();
        let Some(bell) = &*bell else { return };
        if let Poll::Ready(Ok(())) = self.socket.poll_recv_ready(&mut Context::from_waker(bell)) {
            bell.wake_by_ref();
        }
    }

    /// ICMP errors cannot be had: at most some later call fails without saying for which datagram.
    pub(in crate::net) fn recv_icmp(&self, errors: &mut Vec<IcmpError>) -> bool {
        errors.clear();
        false
    }

    /// Adds to `batch` what has arrived, as far as there is room, and tells whether there may be
    /// more.
    ///
    /// An error means that the socket is lost; errors that pass never come out of here.
    pub fn recv(&self, batch: &mut RecvBatch) -> io::Result<bool> {
        let mut attempts = error::ATTEMPTS;
        while batch.room() > 0 {
            let start = batch.next_slot() * SLOT_STRIDE;
            match self.socket.try_recv_from(&mut batch.buffer[start..start + SLOT_BYTES]) {
                Ok((total, from)) => {
                    let train = Train { from, to: None, traffic_class: 0, total, stride: total };
                    batch.accept(Some(train));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.listen();
                    return Ok(false);
                }
                Err(error) if error::ends_receiving(&error) => return Err(error),
                Err(_) if attempts > 1 => attempts -= 1,
                Err(_) => break,
            }
        }
        Ok(true)
    }

    /// Sends `outgoing`, and tells the reason for each datagram that could not leave.
    pub(in crate::net) fn send<K>(
        &self,
        outgoing: &Outgoing<'_, K>,
        scratch: &mut SendScratch,
        dropped: &mut impl FnMut(DropReason),
    ) {
        for run in outgoing.runs {
            let to = SockAddr::from(run.route.to);
            for segment in outgoing.segments(run) {
                scratch.gather(outgoing, segment);
                if let Err(error) = self.transmit(&scratch.datagram, &to) {
                    dropped(error::drop_reason(&error));
                }
            }
        }
    }

    /// Asks the system and not tokio, which takes a socket for unwritable until it has polled it
    /// once, and so would drop the first datagrams of every new one.
    fn transmit(&self, datagram: &[u8], to: &SockAddr) -> io::Result<()> {
        let socket = SockRef::from(&self.socket);
        let mut attempts = error::ATTEMPTS;
        loop {
            match socket.send_to(datagram, to) {
                Ok(_) => return Ok(()),
                Err(error) if attempts > 1 && error::is_about_another(&error) => attempts -= 1,
                Err(error) => return Err(error),
            }
        }
    }
}

impl SendScratch {
    fn gather<K>(&mut self, outgoing: &Outgoing<'_, K>, segment: &Segment) {
        self.datagram.clear();
        for piece in outgoing.pieces(segment) {
            self.datagram.extend_from_slice(piece);
        }
    }
}

/// The addresses of this host: none, as std cannot list them. The peer policy then knows only
/// those it is told.
pub fn interface_addresses() -> io::Result<Vec<InterfaceAddress>> {
    Ok(Vec::new())
}

/// Keeping a thread on one core is not portable.
pub fn pin(_: usize) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Linux alone makes sleeps longer in order to gather wake-ups.
pub fn sleep_precisely() {}

/// Not known.
pub fn descriptor_limit() -> Option<u64> {
    None
}

/// Limits are left as they are.
pub fn raise_descriptor_limit() -> io::Result<()> {
    Ok(())
}
