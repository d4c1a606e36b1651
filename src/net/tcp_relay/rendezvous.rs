//! Where a client's data connection meets its peer's (RFC 6062): process-wide, so that it does not
//! matter on which shard it lands.
//!
//! A [`Ticket`] is a name that nobody else has, CONNECTION-ID on the wire. The shard of the
//! allocation holds it for as long as the peer's connection lasts; under it the connection waits,
//! and the shard that gets the ConnectionBind takes it. Data never comes by here.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::convert::Infallible;
use std::fmt;
use std::net::TcpStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rand::Rng;
use tokio::sync::oneshot;

use super::DataTally;
use crate::net::quota::Bandwidth;
use crate::stun::attribute::ConnectionId;
use crate::turn::ConnectionBindError;

/// Connections to peers in all: as many as there may be of clients.
const PEER_CONNECTIONS_MAX: usize = 65_536;

/// A peer's connection on its way to the client's. What the peer has sent meanwhile is in the
/// kernel, whose receive window bounds it.
#[derive(Debug)]
pub(in crate::net) struct Waiting {
    pub(in crate::net) peer: TcpStream,
    pub(super) tally: Arc<DataTally>,
    pub(super) bandwidth: Option<Arc<Bandwidth>>,
    /// Closed once the allocation has ended; dropping it tells the allocation that the connection
    /// has.
    pub(super) life: oneshot::Sender<Infallible>,
}

/// The names in use, behind a lock that only opening, binding and closing a connection take.
#[derive(Default)]
pub(in crate::net) struct Rendezvous {
    names: Mutex<HashMap<u32, Option<Offer>>>,
}

/// What waits under a name, and for whom.
struct Offer {
    username: Box<str>,
    waiting: Waiting,
}

impl Rendezvous {
    /// A name that cannot be guessed and that nobody else has; `None` where there are too many.
    pub(in crate::net) fn reserve(self: &Arc<Self>) -> Option<Ticket> {
        let mut names = self.lock();
        if names.len() >= PEER_CONNECTIONS_MAX {
            return None;
        }
        let mut random = rand::rng();
        loop {
            let id = random.next_u32();
            if let Entry::Vacant(name) = names.entry(id) {
                name.insert(None);
                return Some(Ticket { rendezvous: Arc::clone(self), id });
            }
        }
    }

    /// What waits under the name, if it waits for this user.
    pub(in crate::net) fn take(
        &self,
        ConnectionId(id): ConnectionId,
        username: &str,
    ) -> Result<Waiting, ConnectionBindError> {
        let mut names = self.lock();
        let offer = names.get_mut(&id).ok_or(ConnectionBindError::Unknown)?;
        let taken = offer.take_if(|offer| &*offer.username == username);
        match (taken, &offer) {
            (Some(taken), _) => Ok(taken.waiting),
            (None, Some(_)) => Err(ConnectionBindError::OtherUser),
            (None, None) => Err(ConnectionBindError::Unknown),
        }
    }

    /// No code that holds the lock can leave the names half changed, so a poisoned one is fine.
    fn lock(&self) -> MutexGuard<'_, HashMap<u32, Option<Offer>>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Rendezvous {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rendezvous").finish_non_exhaustive()
    }
}

/// The right to a name. Dropping it closes what still waits under it.
#[derive(Debug)]
pub(in crate::net) struct Ticket {
    rendezvous: Arc<Rendezvous>,
    id: u32,
}

impl Ticket {
    /// The name.
    pub(in crate::net) fn id(&self) -> ConnectionId {
        ConnectionId(self.id)
    }

    /// Lets a connection wait for this user.
    pub(super) fn offer(&self, username: Box<str>, waiting: Waiting) {
        let offer = Some(Offer { username, waiting });
        self.rendezvous.lock().insert(self.id, offer);
    }

    /// Takes the connection back; `None` where it does not wait any more.
    pub(super) fn withdraw(&self) -> Option<Waiting> {
        let offer = self.rendezvous.lock().get_mut(&self.id)?.take();
        offer.map(|offer| offer.waiting)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        // Closed without the lock.
        let offer = self.rendezvous.lock().remove(&self.id);
        drop(offer);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::TcpListener;

    use super::*;

    fn waiting() -> (Waiting, oneshot::Receiver<Infallible>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (life, end) = oneshot::channel();
        (Waiting { peer, tally: Arc::default(), bandwidth: None, life }, end)
    }

    #[test]
    fn a_connection_is_taken_once_and_by_its_user() {
        let rendezvous = Arc::<Rendezvous>::default();
        let ticket = rendezvous.reserve().unwrap();
        let take = |user| rendezvous.take(ticket.id(), user).map(drop);
        assert_eq!(take("alice"), Err(ConnectionBindError::Unknown), "it does not wait yet");
        ticket.offer("alice".into(), waiting().0);
        assert_eq!(take("bob"), Err(ConnectionBindError::OtherUser));
        assert_eq!(take("alice"), Ok(()), "it still waited");
        assert_eq!(take("alice"), Err(ConnectionBindError::Unknown));
        assert!(ticket.withdraw().is_none());
    }

    #[test]
    fn what_waits_goes_with_its_ticket() {
        let rendezvous = Arc::<Rendezvous>::default();
        let ticket = rendezvous.reserve().unwrap();
        let (waiting, mut end) = waiting();
        let id = ticket.id();
        ticket.offer("alice".into(), waiting);
        drop(ticket);
        let closed = end.try_recv().unwrap_err();
        assert_eq!(closed, oneshot::error::TryRecvError::Closed);
        let gone = rendezvous.take(id, "alice").map(drop);
        assert_eq!(gone, Err(ConnectionBindError::Unknown));
        assert!(rendezvous.lock().is_empty());
    }

    #[test]
    fn names_are_bounded_in_number_and_come_back() {
        let rendezvous = Arc::<Rendezvous>::default();
        let tickets: Vec<_> =
            (0..PEER_CONNECTIONS_MAX).map(|_| rendezvous.reserve().unwrap()).collect();
        assert!(rendezvous.reserve().is_none());
        let names: BTreeSet<_> = tickets.iter().map(|ticket| ticket.id).collect();
        assert_eq!(names.len(), PEER_CONNECTIONS_MAX, "no name twice");
        drop(tickets);
        assert!(rendezvous.reserve().is_some());
    }

    /// Each bit of a name is set in about half of them, and names in a row differ in about half of
    /// their bits: nothing is counted up.
    #[test]
    fn names_look_random() {
        let rendezvous = Arc::<Rendezvous>::default();
        let tickets: Vec<_> = (0..4096).map(|_| rendezvous.reserve().unwrap()).collect();
        for bit in 0..32 {
            let set = tickets.iter().filter(|ticket| ticket.id >> bit & 1 == 1).count();
            assert!((1850..2250).contains(&set), "bit {bit} in {set} of 4096");
        }
        let differing: u32 =
            tickets.windows(2).map(|pair| (pair[0].id ^ pair[1].id).count_ones()).sum();
        assert!((64_000..67_000).contains(&differing), "{differing} of 131,040");
    }
}
