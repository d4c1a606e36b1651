//! DTLS in a shard's turn: from datagrams to messages, and what sessions must do by themselves.

use std::mem;

use super::{ClientPath, Work};
use crate::net::dtls::{Arrival, Opened, SessionId, Sessions};
use crate::net::stream::Speaks;
use crate::net::sys::Datagram;
use crate::turn::{DropReason, FiveTuple, Now, Transport};

impl Work {
    /// Whether a datagram at a listener is to be read as DTLS (RFC 7983 §7).
    pub(in crate::net) fn is_dtls(&self, listener: usize, datagram: &[u8]) -> bool {
        let only = self.listeners.get(listener).is_some_and(|own| own.speaks == Speaks::Tls);
        self.dtls.is_some() && (only || matches!(datagram.first(), Some(20..=63)))
    }

    /// A datagram of DTLS. What is in it for TURN is decrypted in place, so that it is relayed
    /// from where it lies like that of any other datagram.
    pub(in crate::net) fn handle_dtls(
        &mut self,
        listener: usize,
        datagram: Datagram,
        bytes: &mut [u8],
        now: Now,
    ) {
        let Some((back, client, server)) = self.ends(listener, datagram) else { return };
        let from = FiveTuple { transport: Transport::Dtls, client, server };
        let place = datagram.range();
        if !matches!(bytes[place.clone()].first(), Some(20..=63)) {
            return drop(self.server.drop(DropReason::Demux));
        }
        let Some(sessions) = &mut self.dtls else { return };
        let mut messages = mem::take(&mut self.messages);
        let arrival = Arrival { from, back, datagram: &mut bytes[place.clone()], now };
        let opened = sessions.hear(arrival, &mut messages, &mut self.server, &mut self.egress);
        self.see_off(now);
        if let Some(Opened { session, is_last }) = opened {
            for message in messages.drain(..) {
                let message = place.start + message.start..place.start + message.end;
                self.handle_client(ClientPath::Dtls(session), from, message, bytes, now);
            }
            if is_last {
                self.with_sessions(|sessions, _, egress| sessions.end(session, egress));
                self.see_off(now);
                self.handle_events(bytes);
            }
        }
        self.messages = messages;
    }

    /// Sees to sessions that are due.
    pub(in crate::net) fn handle_dtls_timeout(&mut self, now: Now) {
        self.with_sessions(|sessions, server, egress| sessions.handle_timeout(now, server, egress));
        self.see_off(now);
        self.flush(&[]);
    }

    /// Closes all sessions.
    pub(in crate::net) fn shutdown_dtls(&mut self) {
        self.with_sessions(|sessions, _, egress| sessions.shutdown(egress));
        self.flush(&[]);
    }

    /// Whether there still is such a session.
    pub(in crate::net) fn has_session(&self, id: SessionId) -> bool {
        self.dtls.as_ref().is_some_and(|sessions| sessions.has(id))
    }

    /// Ends the allocations of clients whose sessions have ended, unless they are mobile.
    fn see_off(&mut self, now: Now) {
        while let Some(client) = self.dtls.as_mut().and_then(Sessions::pop_gone) {
            self.client_gone(client, now);
        }
    }

    fn with_sessions(
        &mut self,
        act: impl FnOnce(&mut Sessions, &mut crate::turn::Server, &mut super::Outbox),
    ) {
        if let Some(sessions) = &mut self.dtls {
            act(sessions, &mut self.server, &mut self.egress);
        }
    }
}
