//! Relayed data between shards: a client's peer is a relayed address of this very server, but of
//! another shard. Carried in parcels, one for each turn and receiver, so that both sides wake
//! once for a burst; copied once, since the receive buffer it came in is about to be used again.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;

use tokio::sync::mpsc;

use crate::turn::DropReason;

/// Parcels that may wait for a shard; more are dropped, as a full socket buffer would. Many, since
/// a parcel may hold no more than one datagram, and the receiver may be off its core for a while.
const MAILBOX_PARCELS: usize = 256;
/// A parcel is sent off early when it has grown to this.
const PARCEL_BYTES: usize = 64 * 1024;
/// Emptied parcels that wait to be filled again; more go back to the allocator.
const EMPTIES: usize = 16;

/// What is known of a datagram besides its payload.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Envelope {
    /// The relayed address it is for.
    pub(super) to: SocketAddr,
    /// The relayed address it comes from.
    pub(super) from: SocketAddr,
    /// DSCP and ECN.
    pub(super) traffic_class: u8,
}

/// One datagram in a parcel.
#[derive(Clone, Debug)]
pub(super) struct Letter {
    pub(super) envelope: Envelope,
    /// Where in the parcel's bytes it lies.
    pub(super) payload: Range<usize>,
}

/// Datagrams from one shard for another.
#[derive(Debug, Default)]
pub(super) struct Parcel {
    pub(super) bytes: Vec<u8>,
    pub(super) letters: Vec<Letter>,
    sender: usize,
}

/// The mailboxes of all shards, and the way emptied parcels go back to be filled again.
#[derive(Clone, Debug)]
pub(super) struct Mailboxes {
    inboxes: Arc<[mpsc::Sender<Parcel>]>,
    returns: Arc<[mpsc::Sender<Parcel>]>,
}

/// One shard's end of the post.
#[derive(Debug)]
pub(super) struct Post {
    own: usize,
    mailboxes: Mailboxes,
    empties: mpsc::Receiver<Parcel>,
    /// The parcel being filled for each shard.
    filling: Vec<Parcel>,
}

/// What arrives for a shard.
pub(super) type Inbox = mpsc::Receiver<Parcel>;

/// The post of `shards` shards, in their order.
pub(super) fn open(shards: usize) -> Vec<(Post, Inbox)> {
    let (inboxes, inbox_ends): (Vec<_>, Vec<_>) =
        (0..shards).map(|_| mpsc::channel(MAILBOX_PARCELS)).unzip();
    let (returns, return_ends): (Vec<_>, Vec<_>) =
        (0..shards).map(|_| mpsc::channel(EMPTIES)).unzip();
    let mailboxes = Mailboxes { inboxes: inboxes.into(), returns: returns.into() };
    return_ends
        .into_iter()
        .zip(inbox_ends)
        .enumerate()
        .map(|(own, (empties, inbox))| {
            let filling =
                (0..shards).map(|_| Parcel { sender: own, ..Parcel::default() }).collect();
            (Post { own, mailboxes: mailboxes.clone(), empties, filling }, inbox)
        })
        .collect()
}

impl Post {
    /// Which shard this is.
    pub(super) fn own(&self) -> usize {
        self.own
    }

    /// Adds a datagram to the parcel for `shard`.
    pub(super) fn add(
        &mut self,
        shard: usize,
        envelope: Envelope,
        payload: &[u8],
        dropped: impl FnMut(DropReason),
    ) {
        let Some(parcel) = self.filling.get_mut(shard) else { return };
        let start = parcel.bytes.len();
        parcel.bytes.extend_from_slice(payload);
        parcel.letters.push(Letter { envelope, payload: start..parcel.bytes.len() });
        if parcel.bytes.len() >= PARCEL_BYTES {
            self.send_to(shard, dropped);
        }
    }

    /// Sends off all parcels that hold something.
    pub(super) fn send(&mut self, mut dropped: impl FnMut(DropReason)) {
        for shard in 0..self.filling.len() {
            if !self.filling[shard].letters.is_empty() {
                self.send_to(shard, &mut dropped);
            }
        }
    }

    fn send_to(&mut self, shard: usize, mut dropped: impl FnMut(DropReason)) {
        let empty = self.empties.try_recv().unwrap_or_default();
        let parcel =
            std::mem::replace(&mut self.filling[shard], Parcel { sender: self.own, ..empty });
        if let Err(refused) = self.mailboxes.inboxes[shard].try_send(parcel) {
            let mut parcel = refused.into_inner();
            parcel.letters.iter().for_each(|_| dropped(DropReason::SendBufferFull));
            parcel.clear();
            self.filling[shard] = parcel;
        }
    }

    /// Sends an emptied parcel home.
    pub(super) fn give_back(&self, mut parcel: Parcel) {
        parcel.clear();
        // A home that is full, or gone, has no use for it.
        let _ = self.mailboxes.returns[parcel.sender].try_send(parcel);
    }
}

impl Parcel {
    fn clear(&mut self) {
        self.bytes.clear();
        self.letters.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope() -> Envelope {
        let [to, from] = [50_000, 50_001].map(|port| ([127, 0, 0, 1], port).into());
        Envelope { to, from, traffic_class: 0 }
    }

    fn never(reason: DropReason) {
        panic!("dropped: {reason:?}");
    }

    #[test]
    fn a_turn_is_one_parcel_in_order() {
        let mut post = open(2);
        let (_, mut inbox) = post.pop().unwrap();
        let (mut sender, _own) = post.pop().unwrap();
        for text in ["one", "", "three"] {
            sender.add(1, envelope(), text.as_bytes(), never);
        }
        sender.send(never);
        let parcel = inbox.try_recv().unwrap();
        let texts: Vec<_> =
            parcel.letters.iter().map(|letter| &parcel.bytes[letter.payload.clone()]).collect();
        assert_eq!(texts, [&b"one"[..], b"", b"three"]);
        assert!(inbox.try_recv().is_err());
    }

    #[test]
    fn a_full_mailbox_drops_and_counts() {
        let mut post = open(2);
        let (mut sender, _own) = post.remove(0);
        let mut dropped = 0;
        for _ in 0..MAILBOX_PARCELS + 3 {
            sender.add(1, envelope(), b"x", never);
            sender.add(1, envelope(), b"y", never);
            sender.send(|reason| {
                assert_eq!(reason, DropReason::SendBufferFull);
                dropped += 1;
            });
        }
        assert_eq!(dropped, 6);
    }

    #[test]
    fn emptied_parcels_are_filled_again() {
        let mut post = open(2);
        let (receiver, mut inbox) = post.pop().unwrap();
        let (mut sender, _own) = post.pop().unwrap();
        sender.add(1, envelope(), &[7; 1000], never);
        sender.send(never);
        let parcel = inbox.try_recv().unwrap();
        let memory = parcel.bytes.as_ptr();
        receiver.give_back(parcel);
        for _ in 0..2 {
            sender.add(1, envelope(), &[7; 1000], never);
            sender.send(never);
        }
        let reused = [inbox.try_recv().unwrap(), inbox.try_recv().unwrap()];
        assert!(reused.iter().any(|parcel| parcel.bytes.as_ptr() == memory));
    }

    #[test]
    fn a_parcel_that_has_grown_leaves_early() {
        let mut post = open(2);
        let (_, mut inbox) = post.pop().unwrap();
        let (mut sender, _own) = post.pop().unwrap();
        for _ in 0..2 {
            sender.add(1, envelope(), &[7; 65_000], never);
        }
        assert_eq!(inbox.try_recv().unwrap().letters.len(), 2);
    }
}
