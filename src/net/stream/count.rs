//! How many connections there are, in all and from each source, and how many were refused:
//! process-wide, so that it does not matter on which shard one lands.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::turn::limits::source_prefix;
use crate::turn::stats::labelled;

/// Connections in all.
const CONNECTIONS_MAX: usize = 65_536;
/// Connections from one IPv4 address, or one /64 of IPv6: a large office behind one NAT.
const CONNECTIONS_PER_SOURCE_MAX: usize = 1024;

labelled! {
    /// Why a connection was closed before it came to anything.
    Refusal {
        /// No whole message in time.
        Deadline = "deadline",
        /// More speak HTTP than can be served.
        HandoverFull = "handover_full",
        /// The TLS handshake failed, or was given up by the client.
        HandshakeFailed = "handshake_failed",
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
    }
}

/// The counts. Only opening and closing a connection take the lock.
#[derive(Debug, Default)]
pub(in crate::net) struct ConnectionCount {
    state: Mutex<State>,
    live: [AtomicU64; Kind::ALL.len()],
    refused: [AtomicU64; Refusal::ALL.len()],
}

#[derive(Debug, Default)]
struct State {
    all: usize,
    by_source: HashMap<u64, usize>,
}

impl ConnectionCount {
    /// Counts a connection, as long as the result lives, unless there are too many.
    pub(super) fn take(self: &Arc<Self>, source: IpAddr) -> Result<Counted, Refusal> {
        let source = source_prefix(source);
        let mut state = self.lock();
        let held = state.by_source.get(&source).copied().unwrap_or(0);
        if state.all >= CONNECTIONS_MAX {
            return Err(Refusal::LimitTotal);
        }
        if held >= CONNECTIONS_PER_SOURCE_MAX {
            return Err(Refusal::LimitSource);
        }
        state.all += 1;
        state.by_source.insert(source, held + 1);
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

    fn release(&self, source: u64) {
        let mut state = self.lock();
        state.all -= 1;
        let Some(held) = state.by_source.get_mut(&source) else { return };
        *held -= 1;
        if *held == 0 {
            state.by_source.remove(&source);
        }
    }

    /// No code that holds the lock can leave the state half changed, so a poisoned one is fine.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection's place in the counts, given back when dropped.
#[derive(Debug)]
pub(super) struct Counted {
    count: Arc<ConnectionCount>,
    source: u64,
    kind: Kind,
}

impl Counted {
    /// Counts it as another kind from now on.
    pub(super) fn becomes(&mut self, kind: Kind) {
        self.count.live[self.kind as usize].fetch_sub(1, Ordering::Relaxed);
        self.count.live[kind as usize].fetch_add(1, Ordering::Relaxed);
        self.kind = kind;
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.count.live[self.kind as usize].fetch_sub(1, Ordering::Relaxed);
        self.count.release(self.source);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_over_its_limit_is_refused_and_others_are_not() {
        let count = Arc::<ConnectionCount>::default();
        let source = IpAddr::from([198, 51, 100, 1]);
        let mut held: Vec<_> =
            (0..CONNECTIONS_PER_SOURCE_MAX).map(|_| count.take(source).unwrap()).collect();
        assert_eq!(count.take(source).unwrap_err(), Refusal::LimitSource);
        assert!(count.take(IpAddr::from([198, 51, 100, 2])).is_ok());
        held[0].becomes(Kind::Http);
        assert_eq!(
            Kind::ALL.iter().map(|&kind| count.live(kind)).collect::<Vec<_>>(),
            [1023, 0, 1]
        );
        drop(held);
        assert!(count.take(source).is_ok());
        let state = count.lock();
        assert_eq!((state.all, state.by_source.len()), (0, 0));
        assert!(Kind::ALL.iter().all(|&kind| count.live(kind) == 0));
    }

    #[test]
    fn one_more_than_there_may_be_in_all_is_refused() {
        let count = Arc::<ConnectionCount>::default();
        let source = |at: usize| IpAddr::from(((at / 1000) as u32 + 0x0A00_0000).to_be_bytes());
        let held: Vec<_> = (0..CONNECTIONS_MAX).map(|at| count.take(source(at)).unwrap()).collect();
        let stranger = IpAddr::from([198, 51, 100, 1]);
        assert_eq!(count.take(stranger).unwrap_err(), Refusal::LimitTotal);
        drop(held);
        assert!(count.take(stranger).is_ok());
    }
}
