//! A request that is sent a few times until it is answered or its deadline has passed.

use std::net::SocketAddr;
use std::time::Duration;

use crate::probe::message::Id;

/// Which of the driver's sockets.
pub type SocketIndex = usize;

/// When a request is sent, counted from its start: RFC 8489 §6.2.1 with fewer repetitions, for
/// here silence is an answer, and waiting for it takes most of the time.
pub const TRANSMISSIONS: [Duration; 3] =
    [Duration::ZERO, Duration::from_millis(500), Duration::from_millis(1500)];

/// A datagram to be sent.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Transmit {
    /// From this socket.
    pub socket: SocketIndex,
    /// To this address.
    pub to: SocketAddr,
    /// With this payload.
    pub bytes: Vec<u8>,
}

/// One request under way.
#[derive(Debug)]
pub(super) struct Transaction {
    pub(super) id: Id,
    datagram: Transmit,
    started: Duration,
    deadline: Duration,
    sent: usize,
}

impl Transaction {
    pub(super) fn new(id: Id, datagram: Transmit, now: Duration, timeout: Duration) -> Self {
        Self { id, datagram, started: now, deadline: now + timeout, sent: 0 }
    }

    /// The datagram, where it is time to send it (again).
    pub(super) fn transmit(&mut self, now: Duration) -> Option<Transmit> {
        let due = self.started + *TRANSMISSIONS.get(self.sent)?;
        if now < due || now >= self.deadline {
            return None;
        }
        self.sent += 1;
        Some(self.datagram.clone())
    }

    /// When something is to be done next.
    pub(super) fn wakes(&self) -> Duration {
        let again = TRANSMISSIONS.get(self.sent).map(|after| self.started + *after);
        again.map_or(self.deadline, |again| again.min(self.deadline))
    }

    pub(super) fn is_over(&self, now: Duration) -> bool {
        now >= self.deadline
    }
}
