//! Waiting for many sockets at once: each rings a bell of its own.

use std::io;
use std::mem;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use super::Socket;
use crate::net::sys::Ready;

/// Tells which sockets have something to read. One for each shard.
#[derive(Debug, Default)]
pub struct Watcher {
    rung: Arc<Mutex<Rung>>,
}

/// Which bells have rung, and who waits for them.
#[derive(Debug, Default)]
struct Rung {
    tokens: Vec<u64>,
    waiting: Option<Waker>,
}

/// What tokio wakes when there is something to read.
struct Bell {
    token: u64,
    rung: Arc<Mutex<Rung>>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        let mut rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        rung.tokens.push(self.token);
        if let Some(waiting) = rung.waiting.take() {
            waiting.wake();
        }
    }
}

impl Watcher {
    /// Watches nothing yet.
    pub fn new() -> io::Result<Self> {
        Ok(Self::default())
    }

    /// Watches `socket` until it is closed, and calls it `token`.
    pub fn add(&self, socket: &Socket, token: u64) -> io::Result<()> {
        let bell = Arc::new(Bell { token, rung: Arc::clone(&self.rung) });
        socket.bell.replace(Some(bell.into()));
        socket.listen();
        Ok(())
    }

    /// Watches `socket` no longer.
    pub fn remove(&self, socket: &Socket) {
        socket.bell.take();
        // tokio still has the bell, until it is given another.
        let mut nobody = Context::from_waker(Waker::noop());
        let _ = socket.socket.poll_recv_ready(&mut nobody);
    }

    /// Waits until there is something to read, and adds where to `ready`. A socket is named when
    /// something arrives: what is left in it then is told again only with what arrives later.
    pub fn poll(
        &mut self,
        context: &mut Context<'_>,
        ready: &mut impl Extend<Ready>,
    ) -> Poll<io::Result<()>> {
        let mut rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        if rung.tokens.is_empty() {
            rung.waiting = Some(context.waker().clone());
            return Poll::Pending;
        }
        let tokens = mem::take(&mut rung.tokens);
        ready.extend(tokens.into_iter().map(|token| Ready { token, errors: false }));
        Poll::Ready(Ok(()))
    }
}
