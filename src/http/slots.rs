//! Places for connections: so many in all, and of those a part for each source.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use ahash::RandomState;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::MAX_CONNECTIONS;
use crate::turn::shares::{Bounds, Shares};

/// What one source may hold: the connections of two browsers that load a page, and of some more
/// behind the same NAT. A WebSocket holds none once it is open.
pub(super) const SLOTS: Bounds = Bounds { all: MAX_CONNECTIONS, per_source: 16, per_site: 64 };

/// The places of one door.
#[derive(Debug)]
pub(super) struct Slots {
    free: Arc<Semaphore>,
    shares: Mutex<Shares>,
    counts_loopback: bool,
}

impl Slots {
    /// For the admin plane's own listeners. Loopback may take every place there: it is the
    /// operator, or a proxy on this machine, which stands for everybody.
    pub(super) fn of_listeners() -> Arc<Self> {
        Self::new(false)
    }

    /// For those who come by the ports of TURN.
    pub(super) fn of_visitors() -> Arc<Self> {
        Self::new(true)
    }

    fn new(counts_loopback: bool) -> Arc<Self> {
        let [a, b, c, d] = rand::random();
        let shares = Mutex::new(Shares::new(SLOTS, RandomState::with_seeds(a, b, c, d)));
        Arc::new(Self { free: Arc::new(Semaphore::new(SLOTS.all)), shares, counts_loopback })
    }

    /// A place for whoever comes next, as soon as there is one. `None`: never.
    pub(super) async fn next(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.free).acquire_owned().await.ok()
    }

    /// A place for a source, if there is one for it now.
    pub(super) fn take(self: &Arc<Self>, source: IpAddr) -> Option<Slot> {
        self.give(Arc::clone(&self.free).try_acquire_owned().ok()?, source)
    }

    /// Gives a place to a source, unless it has its part.
    pub(super) fn give(
        self: &Arc<Self>,
        place: OwnedSemaphorePermit,
        source: IpAddr,
    ) -> Option<Slot> {
        let counted = (self.counts_loopback || !source.is_loopback()).then_some(source);
        if let Some(source) = counted {
            self.with_shares(|shares| shares.take(source)).ok()?;
        }
        Some(Slot { slots: Arc::clone(self), counted, _place: place })
    }

    fn with_shares<T>(&self, what: impl FnOnce(&mut Shares) -> T) -> T {
        what(&mut self.shares.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// One place, free again when dropped.
#[derive(Debug)]
pub(super) struct Slot {
    slots: Arc<Slots>,
    counted: Option<IpAddr>,
    _place: OwnedSemaphorePermit,
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(source) = self.counted {
            self.slots.with_shares(|shares| shares.give_back(source));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_has_its_part_and_loopback_all_of_the_listeners() {
        let stranger = IpAddr::from([198, 51, 100, 1]);
        let loopback = IpAddr::from([127, 0, 0, 1]);
        let fill = |slots: &Arc<Slots>, source| -> Vec<_> {
            std::iter::from_fn(|| slots.take(source)).collect()
        };
        for (slots, of_loopback) in
            [(Slots::of_listeners(), SLOTS.all - SLOTS.per_source), (Slots::of_visitors(), 16)]
        {
            let held = fill(&slots, stranger);
            assert_eq!(held.len(), SLOTS.per_source);
            assert_eq!(fill(&slots, loopback).len(), of_loopback);
            drop(held);
            assert_eq!(fill(&slots, stranger).len(), SLOTS.per_source, "all are given back");
        }
    }
}
