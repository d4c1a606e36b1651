//! How many connections there are, in all and from each source, and how many were refused:
//! process-wide, so that it does not matter on which shard one lands.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ahash::RandomState;

use crate::turn::shares::{Bounds, Full, Shares};
use crate::turn::stats::labelled;

/// Connections in all, and of one IPv4 address or one /64 of IPv6: a large office behind one NAT.
/// A /48 of IPv6 may be the site of several.
const CONNECTIONS: Bounds = Bounds { all: 65_536, per_source: 1024, per_site: 4096 };
/// Descriptors for each connection: its own, and one for what its client relays from.
const DESCRIPTORS_PER_CONNECTION: usize = 2;

labelled! {
    /// Why a connection was closed before it came to anything.
    Refusal {
        /// No whole message in time.
        Deadline = "deadline",
        /// More speak HTTP than can be served.
        HandoverFull = "handover_full",
        /// Its source has begun as many TLS handshakes of late as one may.
        HandshakeRate = "handshake_rate",
        /// The TLS handshake failed, or was given up by the client.
        HandshakeFailed = "handshake_failed",
        /// Its source has as many that speak HTTP as one may have.
        LimitHttpSource = "limit_http_source",
        /// Its source has as many as one may have.
        LimitSource = "limit_source",
        /// There are as many as there may be.
        LimitTotal = "limit_total",
        /// It begins like nothing that is served on its port.
        NotAProtocol = "not_a_protocol",
        /// A load balancer's header is missing or malformed.
        ProxyHeader = "proxy_header",
    }
}

labelled! {
    /// What a connection is.
    Kind {
        /// TURN over TCP, or not known yet.
        Tcp = "tcp",
        /// TLS, and within it TURN or not known yet.
        Tls = "tls",
        /// HTTP, with TLS or without.
        Http = "http",
        /// A session over UDP.
        Dtls = "dtls",
    }
}

/// The counts. Only opening and closing a connection take the lock.
#[derive(Debug)]
pub(in crate::net) struct ConnectionCount {
    shares: Mutex<Shares>,
    live: [AtomicU64; Kind::ALL.len()],
    refused: [AtomicU64; Refusal::ALL.len()],
}

impl ConnectionCount {
    /// Nothing yet, and no more than so many.
    pub(in crate::net) fn new(bounds: Bounds) -> Self {
        let [a, b, c, d] = rand::random();
        let shares = Shares::new(bounds, RandomState::with_seeds(a, b, c, d));
        let (live, refused) = Default::default();
        Self { shares: Mutex::new(shares), live, refused }
    }

    /// Nothing yet, and no more connections than a process with so many descriptors can serve.
    pub(in crate::net) fn within(descriptors: usize) -> Self {
        let all = CONNECTIONS.all.min(descriptors / DESCRIPTORS_PER_CONNECTION);
        Self::new(Bounds { all, ..CONNECTIONS })
    }

    /// Counts a connection, as long as the result lives, unless there are too many.
    pub(in crate::net) fn take(self: &Arc<Self>, source: IpAddr) -> Result<Counted, Refusal> {
        self.lock().take(source).map_err(|full| match full {
            Full::All => Refusal::LimitTotal,
            Full::Source => Refusal::LimitSource,
        })?;
        self.live[Kind::Tcp as usize].fetch_add(1, Ordering::Relaxed);
        Ok(Counted { count: Arc::clone(self), source, kind: Kind::Tcp })
    }

    /// Counts a connection that is closed for this reason.
    pub(super) fn refuse(&self, refusal: Refusal) {
        self.refused[refusal as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Open connections of this kind.
    pub(in crate::net) fn live(&self, kind: Kind) -> u64 {
        self.live[kind as usize].load(Ordering::Relaxed)
    }

    /// Connections refused for this reason since start.
    pub(in crate::net) fn refused(&self, refusal: Refusal) -> u64 {
        self.refused[refusal as usize].load(Ordering::Relaxed)
    }

    /// No code that holds the lock can leave the state half changed, so a poisoned one is fine.
    fn lock(&self) -> MutexGuard<'_, Shares> {
        self.shares.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection's place in the counts, given back when dropped.
#[derive(Debug)]
pub(in crate::net) struct Counted {
    count: Arc<ConnectionCount>,
    source: IpAddr,
    kind: Kind,
}

impl Counted {
    /// Counts it as another kind from now on.
    pub(in crate::net) fn becomes(&mut self, kind: Kind) {
        self.count.live[self.kind as usize].fetch_sub(1, Ordering::Relaxed);
        self.count.live[kind as usize].fetch_add(1, Ordering::Relaxed);
        self.kind = kind;
    }

    /// Gives the place back, and counts the connection as one that is closed for this reason.
    pub(super) fn refuse(self, refusal: Refusal) {
        self.count.refuse(refusal);
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.count.live[self.kind as usize].fetch_sub(1, Ordering::Relaxed);
        self.count.lock().give_back(self.source);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_over_its_limit_is_refused_and_others_are_not() {
        let count = Arc::new(ConnectionCount::within(usize::MAX));
        let source = IpAddr::from([198, 51, 100, 1]);
        let mut held: Vec<_> =
            (0..CONNECTIONS.per_source).map(|_| count.take(source).unwrap()).collect();
        assert_eq!(count.take(source).unwrap_err(), Refusal::LimitSource);
        assert!(count.take(IpAddr::from([198, 51, 100, 2])).is_ok());
        held[0].becomes(Kind::Http);
        assert_eq!(
            Kind::ALL.iter().map(|&kind| count.live(kind)).collect::<Vec<_>>(),
            [1023, 0, 1, 0]
        );
        drop(held);
        assert!(count.take(source).is_ok());
        assert!(count.lock().is_empty());
        assert!(Kind::ALL.iter().all(|&kind| count.live(kind) == 0));
    }

    #[test]
    fn one_more_than_there_are_descriptors_for_is_refused() {
        let count = Arc::new(ConnectionCount::within(128));
        let source = |at: u32| IpAddr::from((0x0A00_0000 + at).to_be_bytes());
        let held: Vec<_> = (0..64).map(|at| count.take(source(at)).unwrap()).collect();
        assert_eq!(count.take(source(64)).unwrap_err(), Refusal::LimitTotal);
        drop(held);
        assert!(count.take(source(64)).is_ok());
    }
}
