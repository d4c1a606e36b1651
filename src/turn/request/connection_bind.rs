//! ConnectionBind: makes the client's connection the other end of a peer's (RFC 6062 §5.4).
//!
//! The allocation may be another shard's, so the driver alone can find the peer's connection.

use super::{Reject, Request};
use crate::stun::Code;
use crate::stun::attribute::ConnectionId;
use crate::turn::Now;
use crate::turn::answer::Answer;
use crate::turn::server::Server;

/// A ConnectionBind request that only lacks the connection it names.
#[derive(Debug)]
#[must_use = "the client waits for Server::connection_bound"]
pub struct PendingConnectionBind {
    answer: Answer,
    username: Box<str>,
    id: ConnectionId,
}

impl PendingConnectionBind {
    /// Which connection.
    #[must_use]
    pub fn id(&self) -> ConnectionId {
        self.id
    }

    /// Who asks: the connection's allocation must be of the same user. Untrusted text.
    #[must_use]
    pub fn username(&self) -> &str {
        &self.username
    }
}

/// Why the driver does not bind.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ConnectionBindError {
    /// No connection of this name waits.
    Unknown,
    /// It belongs to the allocation of somebody else, and goes on waiting.
    OtherUser,
}

impl ConnectionBindError {
    fn code(self) -> Code {
        match self {
            Self::Unknown => Code::BadRequest,
            Self::OtherUser => Code::WrongCredentials,
        }
    }
}

impl Server {
    /// RFC 6062 §5.4. A connection that controls an allocation cannot carry data as well.
    pub(in crate::turn) fn connection_bind(
        &mut self,
        request: &Request<'_>,
        answer: Answer,
    ) -> Result<PendingConnectionBind, Reject> {
        if !request.from.transport.is_stream() || self.has_allocation(&request.from) {
            return Err(Reject::Code(Code::BadRequest));
        }
        let id = request.message.read::<ConnectionId>()?.ok_or(Code::BadRequest)?;
        Ok(PendingConnectionBind { answer, username: request.user.name.clone(), id })
    }

    /// Takes back a [`PendingConnectionBind`] and writes the response. After a success, nothing
    /// from this client is a message any more.
    pub fn connection_bound(
        &mut self,
        pending: PendingConnectionBind,
        result: Result<(), ConnectionBindError>,
        now: Now,
        reply: &mut Vec<u8>,
    ) {
        let answer = Answer { now, ..pending.answer };
        match result {
            Ok(()) => self.succeed(&answer, reply, |builder| builder),
            Err(error) => self.refuse(&answer, &Reject::Code(error.code()), reply),
        }
    }
}
