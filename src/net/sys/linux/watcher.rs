//! Waiting for many sockets at once: an epoll of our own within tokio's.
//!
//! A task of tokio's for each socket would cost memory for each, time for each packet, and the
//! chance to send together what several sockets have received.

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::task::{Context, Poll, ready};

use libc::{c_int, epoll_event};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::Socket;
use crate::net::sys::Ready;

/// Sockets that one call of the kernel may name; more wait for the next.
const EVENTS_MAX: usize = 64;

/// Tells which sockets have something to read. One for each shard.
pub struct Watcher {
    epoll: AsyncFd<OwnedFd>,
    events: [epoll_event; EVENTS_MAX],
}

impl Watcher {
    /// Watches nothing yet. Must be called inside a tokio runtime.
    pub fn new() -> io::Result<Self> {
        // SAFETY: a number; nothing is read or written.
        let fd = match unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) } {
            -1 => return Err(io::Error::last_os_error()),
            fd => fd,
        };
        // SAFETY: the kernel has just made it, and nobody else knows it.
        let epoll = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: it owns its descriptor, which stays the same and open until it drops.
        let epoll = unsafe { AsyncFd::register_with_interest(epoll, Interest::READABLE) }?;
        Ok(Self { epoll, events: [epoll_event { events: 0, u64: 0 }; EVENTS_MAX] })
    }

    /// Watches `socket` until it is closed, and calls it `token`.
    pub fn add(&self, socket: &Socket, token: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, socket, token)
    }

    /// Watches `socket` no longer.
    pub fn remove(&self, socket: &Socket) {
        // It fails only where the socket is not watched.
        let _ = self.control(libc::EPOLL_CTL_DEL, socket, 0);
    }

    /// Waits until there is something to read, and adds where to `ready`. A socket is named when
    /// something arrives: what is left in it then is told again only with what arrives later.
    pub fn poll(
        &mut self,
        context: &mut Context<'_>,
        ready: &mut impl Extend<Ready>,
    ) -> Poll<io::Result<()>> {
        let Self { epoll, events } = self;
        loop {
            let mut guard = ready!(epoll.poll_read_ready(context))?;
            let count = wait(guard.get_inner().as_raw_fd(), events)?;
            if count < EVENTS_MAX {
                // What happens after the call is an edge that tokio looks at after this.
                guard.clear_ready();
            }
            if count == 0 {
                continue;
            }
            ready.extend(events[..count].iter().map(|event| Ready {
                token: event.u64,
                errors: event.events & libc::EPOLLERR as u32 != 0,
            }));
            return Poll::Ready(Ok(()));
        }
    }

    fn control(&self, operation: c_int, socket: &Socket, token: u64) -> io::Result<()> {
        let mut event = epoll_event { events: (libc::EPOLLIN | libc::EPOLLET) as u32, u64: token };
        let (epoll, fd) = (self.epoll.as_raw_fd(), socket.socket.as_raw_fd());
        // SAFETY: both descriptors are open, and the kernel reads the event during the call.
        match unsafe { libc::epoll_ctl(epoll, operation, fd, &raw mut event) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// What has happened, without waiting for more.
fn wait(epoll: RawFd, events: &mut [epoll_event; EVENTS_MAX]) -> io::Result<usize> {
    // SAFETY: the kernel writes at most EVENTS_MAX events, which is their number.
    match unsafe { libc::epoll_wait(epoll, events.as_mut_ptr(), EVENTS_MAX as c_int, 0) } {
        -1 => Err(io::Error::last_os_error()),
        count => Ok(count as usize),
    }
}

impl fmt::Debug for Watcher {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Watcher").field("epoll", &self.epoll).finish_non_exhaustive()
    }
}
