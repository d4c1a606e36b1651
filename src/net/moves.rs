//! Allocations that follow their clients from shard to shard (RFC 8016): what shards ask of each
//! other for it, and what they do about it.
//!
//! The shard that a client has come to asks the one that has the allocation, which hands it over as
//! it is: the core's value, the relay socket, the port, the quota. Until the client sends data from
//! where it is now, it is still reached where it was: datagrams go there from the socket of any
//! shard, what is for a connection or a DTLS session through the shard that has it. What comes from
//! there is passed on.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tracing::warn;

use super::clock;
use super::quota::QuotaLease;
use super::relay::{self, Detached};
use super::shard::Shard;
use super::stream::Importance;
use super::udp;
use super::work::{ClientPath, Leg, Link, Work};
use crate::turn::{
    AllocationId, Claim, DropReason, FiveTuple, Header, Moved, Now, PendingResume, Refused,
    RelayedAddress,
};

/// Errands that may wait for a shard. What is relayed is dropped beyond; what must not be lost waits
/// with whoever sends it.
const ERRANDS_MAX: usize = 256;
/// How many of these places relayed data leaves free: one client's flood must not hold up the moves
/// of others.
const ERRANDS_RESERVED: usize = 64;

/// What one shard wants of another.
#[derive(Debug)]
pub(super) enum Errand {
    /// Hand over the allocation, if the claim on it is good. `None` where it is on its way already.
    HandOver { claim: Claim, to: usize, answer: oneshot::Sender<Option<Result<Luggage, Refused>>> },
    /// Handle this packet: its client's allocation has moved there.
    Handle { from: FiveTuple, path: ClientPath, packet: Vec<u8> },
    /// Write this to a connection, or say it in a session.
    Write { to: Link, frame: Vec<u8>, importance: Importance },
    /// Pass on no more of what comes from there.
    Forget(FiveTuple),
    /// The connection of a client has ended, whose allocation has moved there.
    Gone(FiveTuple),
}

/// An allocation, and all that it holds outside of the core.
#[derive(Debug)]
pub(super) struct Luggage {
    moved: Moved,
    relay: Detached,
    quota: QuotaLease,
    client: ClientPath,
    /// The shard that passes on what comes from where the client is reached, and where that is.
    stub: (usize, FiveTuple),
}

/// The way from a shard to all others.
#[derive(Clone, Debug)]
pub(super) struct Errands(Arc<[mpsc::Sender<Errand>]>);

/// What arrives at a shard.
pub(super) type ErrandInbox = mpsc::Receiver<Errand>;

/// For `shards` shards, in their order.
pub(super) fn open(shards: usize) -> (Errands, Vec<ErrandInbox>) {
    let (senders, inboxes): (Vec<_>, Vec<_>) =
        (0..shards).map(|_| mpsc::channel(ERRANDS_MAX)).unzip();
    (Errands(senders.into()), inboxes)
}

impl Errands {
    /// Of no use if it comes late: lost where there is no room.
    fn try_send(&self, to: usize, errand: Errand) -> Result<(), DropReason> {
        let sender = self.0.get(to).ok_or(DropReason::SendFailed)?;
        if sender.capacity() <= ERRANDS_RESERVED {
            return Err(DropReason::SendBufferFull);
        }
        sender.try_send(errand).map_err(|_| DropReason::SendBufferFull)
    }

    /// Waits for room. A shard that has ended needs nothing any more.
    fn send(&self, to: usize, errand: Errand) {
        let Some(sender) = self.0.get(to).cloned() else { return };
        tokio::task::spawn_local(async move {
            let _ = sender.send(errand).await;
        });
    }
}

/// What a leg knows besides while its client moves.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Moving {
    /// The way to where the client is, once it sends data.
    next: Option<ClientPath>,
    /// The shard that passes on what comes from where the client was, and where that is.
    stub: Option<(usize, FiveTuple)>,
}

/// Runs other shards' errands until the shard ends.
pub(super) async fn pump_errands(shard: Rc<RefCell<Shard>>, mut inbox: ErrandInbox) {
    while let Some(errand) = inbox.recv().await {
        udp::guard(&shard, "an errand", |shard| shard.work.run_errand(errand));
    }
}

impl Work {
    fn run_errand(&mut self, errand: Errand) {
        let now = clock::now();
        match errand {
            Errand::HandOver { claim, to, answer } => {
                let luggage = self.hand_over(&claim, to, now);
                // The asker is gone only where everything ends.
                let _ = answer.send(luggage);
            }
            Errand::Handle { from, path, packet } => {
                // Where the allocation has moved on, or closed, nobody must hear that from here, nor
                // may the request open something for a client that is not here.
                match self.server.is_home_of(&from, now) {
                    true => self.handle_client(path, from, 0..packet.len(), &packet, now),
                    false => drop(self.server.drop(DropReason::NoAllocation)),
                }
                self.flush(&packet);
            }
            Errand::Write { to, frame, importance } => {
                match to {
                    Link::Stream(id) => self.write(id, &[], &frame, 0, importance),
                    Link::Dtls(id) => self.say(id, [&frame, &[], &[]]),
                }
                self.flush(&[]);
            }
            Errand::Forget(client) => self.server.forget(&client),
            Errand::Gone(client) => self.client_gone(client, now),
        }
        self.handle_events(&[]);
    }

    /// A connection, or a session, has ended.
    pub(super) fn client_gone(&mut self, client: FiveTuple, now: Now) {
        let Some(RelayedAddress(relayed)) = self.server.client_gone(client, now) else { return };
        if let Some(shard) = relay::shard_of(&self.shared.pools, relayed) {
            self.errands.send(shard, Errand::Gone(client));
        }
    }

    /// A packet for an allocation that has moved to another shard.
    pub(super) fn pass_on(
        &mut self,
        RelayedAddress(relayed): RelayedAddress,
        path: ClientPath,
        from: FiveTuple,
        packet: &[u8],
    ) {
        let Some(shard) = relay::shard_of(&self.shared.pools, relayed) else {
            self.server.forget(&from);
            return drop(self.server.drop(DropReason::NoAllocation));
        };
        let path = self.seen_from_elsewhere(path);
        let errand = Errand::Handle { from, path, packet: packet.to_vec() };
        if let Err(reason) = self.errands.try_send(shard, errand) {
            drop(self.server.drop(reason));
        }
    }

    /// Connections and sessions are known on their own shard only.
    fn seen_from_elsewhere(&self, path: ClientPath) -> ClientPath {
        match path {
            ClientPath::Stream(id) => ClientPath::Elsewhere(self.post.own(), Link::Stream(id)),
            ClientPath::Dtls(id) => ClientPath::Elsewhere(self.post.own(), Link::Dtls(id)),
            path => path,
        }
    }

    /// To a client over what another shard has.
    pub(super) fn write_elsewhere(
        &mut self,
        shard: usize,
        to: Link,
        frame: Vec<u8>,
        importance: Importance,
    ) {
        let errand = Errand::Write { to, frame, importance };
        if let Err(reason) = self.errands.try_send(shard, errand) {
            drop(self.server.drop(reason));
        }
    }

    /// A client has come to where the allocation is, or has just arrived.
    pub(super) fn expect_at(&mut self, id: AllocationId, path: ClientPath) {
        let Some(leg) = self.legs.get_mut(id) else { return };
        leg.moving.get_or_insert_default().next = Some(path);
    }

    /// The client is reached where it was expected.
    pub(super) fn switch(&mut self, id: AllocationId) {
        let Some(leg) = self.legs.get_mut(id) else { return };
        let Some(Moving { next: Some(next), .. }) = leg.moving.as_deref().copied() else { return };
        leg.client = next;
        self.end_stub(id);
    }

    /// Whatever comes from where the client was is none of this allocation's business any more.
    pub(super) fn end_stub(&mut self, id: AllocationId) {
        let Some(leg) = self.legs.get_mut(id) else { return };
        let Some(moving) = leg.moving.take() else { return };
        if let Some((shard, client)) = moving.stub {
            self.errands.send(shard, Errand::Forget(client));
        }
    }

    /// Asks the shard that has the allocation for it.
    pub(super) fn resume(&mut self, pending: PendingResume, path: ClientPath, now: Now) {
        let RelayedAddress(relayed) = pending.relayed();
        let own = self.post.own();
        if self.arriving.contains(&pending.relayed()) {
            // One at a time: this is a retransmission, or the next move, which comes too early.
            return;
        }
        let shard = match relay::shard_of(&self.shared.pools, relayed) {
            Some(shard) if shard != own => shard,
            _ => return self.resumed(pending, path, Err(Refused::Gone), now),
        };
        let (answer, answered) = oneshot::channel();
        let errand = Errand::HandOver { claim: pending.claim(), to: own, answer };
        let Some(me) = self.me.upgrade() else { return };
        if self.arriving.len() >= ERRANDS_MAX {
            return drop(self.server.drop(DropReason::SendBufferFull));
        }
        if let Err(reason) = self.errands.try_send(shard, errand) {
            return drop(self.server.drop(reason));
        }
        self.arriving.push(pending.relayed());
        tokio::task::spawn_local(async move {
            let answer = answered.await;
            udp::guard(&me, "an arrival", |shard| {
                let work = &mut shard.work;
                let relayed = pending.relayed();
                work.arriving.retain(|&arriving| arriving != relayed);
                let Ok(Some(luggage)) = answer else { return };
                work.resumed(pending, path, luggage, clock::now());
                work.flush(&[]);
                work.handle_events(&[]);
            });
        });
    }

    fn hand_over(
        &mut self,
        claim: &Claim,
        to: usize,
        now: Now,
    ) -> Option<Result<Luggage, Refused>> {
        let own = self.post.own();
        let released = self.server.release(claim, now);
        // What has expired is gone.
        self.handle_events(&[]);
        let (id, moved) = match released {
            Ok(released) => released,
            Err(Refused::Gone) => {
                let RelayedAddress(relayed) = claim.relayed();
                let holder = relay::shard_of(&self.shared.pools, relayed);
                let moves = holder.is_some_and(|shard| shard != own)
                    || self.arriving.contains(&claim.relayed());
                return (!moves).then_some(Err(Refused::Gone));
            }
            Err(refused) => return Some(Err(refused)),
        };
        let Leg { relay, client, quota, moving } = self.legs.remove(id)?;
        self.watcher.remove(&relay.socket);
        let relay = match relay.detach(to) {
            Ok(relay) => relay,
            Err(error) => {
                warn!(%error, "a relay socket was lost on its way to another shard");
                return Some(Err(Refused::Gone));
            }
        };
        let client = self.seen_from_elsewhere(client);
        let stub = match moving.and_then(|moving| moving.stub) {
            // Nothing comes to this shard from there.
            Some(stub) => {
                self.server.forget(&moved.client());
                stub
            }
            None => (own, moved.client()),
        };
        Some(Ok(Luggage { moved, relay, quota, client, stub }))
    }

    /// Ends a resumption; the server writes the response either way.
    fn resumed(
        &mut self,
        pending: PendingResume,
        path: ClientPath,
        luggage: Result<Luggage, Refused>,
        now: Now,
    ) {
        self.reply.clear();
        let unpacked = luggage.and_then(|Luggage { moved, relay, quota, client, stub }| {
            let relay = relay.attach().map_err(|error| {
                warn!(%error, "a relay socket was lost on its way from another shard");
                Refused::Gone
            })?;
            Ok((moved, (relay, quota, client, stub)))
        });
        let (moved, rest) = match unpacked {
            Ok((moved, rest)) => (Ok(moved), Some(rest)),
            Err(refused) => (Err(refused), None),
        };
        let from = pending.claim().from();
        let id = self.server.resumed(pending, moved, now, &mut self.reply);
        if let (Some(id), Some((relay, quota, client, stub))) = (id, rest) {
            let own = self.post.own();
            let client = match client {
                ClientPath::Elsewhere(shard, link) if shard == own => link.into(),
                client => client,
            };
            let stub = Some(stub).filter(|&(shard, _)| shard != own);
            let moving = Some(Box::new(Moving { next: Some(path), stub }));
            if let Err(error) = self.add_leg(id, Leg { relay, client, quota, moving }) {
                warn!(%error, "a relay socket was lost on its way from another shard");
                self.server.socket_lost(id, now);
                // Without an answer: the client asks again, and hears that there is none any more.
                return self.handle_events(&[]);
            }
        }
        self.handle_events(&[]);
        self.reply_to(path);
        // It may have ended while the shards were talking; another session of the same client may
        // have an allocation of its own by now.
        let is_there = match path {
            ClientPath::Stream(id) => self.connections.contains_key(id),
            ClientPath::Dtls(id) => self.has_session(id),
            ClientPath::Datagram(_) | ClientPath::Elsewhere(..) => true,
        };
        if !is_there && id.is_some_and(|id| self.server.leads_to(&from, id)) {
            self.client_gone(from, now);
        }
    }

    /// Puts a frame together for a client over what another shard has.
    pub(super) fn frame(header: &Header, data: &[u8], padding: usize) -> Vec<u8> {
        [header.as_bytes(), data, &[0; 3][..padding]].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relayed_data_leaves_room_for_moves() {
        let (errands, mut inboxes) = open(1);
        let from = FiveTuple {
            transport: crate::turn::Transport::Udp,
            client: ([192, 0, 2, 1], 1).into(),
            server: ([192, 0, 2, 2], 2).into(),
        };
        let gone = || Errand::Gone(from);
        for _ in 0..ERRANDS_MAX - ERRANDS_RESERVED {
            assert_eq!(errands.try_send(0, gone()), Ok(()));
        }
        assert_eq!(errands.try_send(0, gone()), Err(DropReason::SendBufferFull));
        assert!(errands.0[0].try_send(gone()).is_ok(), "there is room, for those who may wait");
        while inboxes[0].try_recv().is_ok() {}
        assert_eq!(errands.try_send(0, gone()), Ok(()));
    }
}
