//! How many connections there are, or sessions, in all and from each source: process-wide, so that it does not
//! matter on which shard one lands.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::turn::limits::source_prefix;

/// Connections in all.
const CONNECTIONS_MAX: usize = 65_536;
/// Connections from one IPv4 address, or one /64 of IPv6: a large office behind one NAT.
const CONNECTIONS_PER_SOURCE_MAX: usize = 1024;

/// The counts, behind a lock that only opening and closing a connection take.
#[derive(Debug)]
pub(in crate::net) struct ConnectionCount {
    all_max: usize,
    per_source_max: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    all: usize,
    by_source: HashMap<u64, usize>,
}

impl ConnectionCount {
    /// Nothing yet, and no more than so many.
    pub(in crate::net) fn new(all_max: usize, per_source_max: usize) -> Self {
        Self { all_max, per_source_max, state: Mutex::default() }
    }

    /// With the limits of connections.
    pub(in crate::net) fn of_connections() -> Self {
        Self::new(CONNECTIONS_MAX, CONNECTIONS_PER_SOURCE_MAX)
    }

    /// Counts a connection, as long as the result lives; `None` where there are too many.
    pub(in crate::net) fn take(self: &Arc<Self>, source: IpAddr) -> Option<Counted> {
        let source = source_prefix(source);
        let mut state = self.lock();
        let held = state.by_source.get(&source).copied().unwrap_or(0);
        if state.all >= self.all_max || held >= self.per_source_max {
            return None;
        }
        state.all += 1;
        state.by_source.insert(source, held + 1);
        Some(Counted { count: Arc::clone(self), source })
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
pub(in crate::net) struct Counted {
    count: Arc<ConnectionCount>,
    source: u64,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.count.release(self.source);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_over_its_limit_is_refused_and_others_are_not() {
        let count = Arc::new(ConnectionCount::of_connections());
        let source = IpAddr::from([198, 51, 100, 1]);
        let held: Vec<_> =
            (0..CONNECTIONS_PER_SOURCE_MAX).map(|_| count.take(source).unwrap()).collect();
        assert!(count.take(source).is_none());
        assert!(count.take(IpAddr::from([198, 51, 100, 2])).is_some());
        drop(held);
        assert!(count.take(source).is_some());
        let state = count.lock();
        assert_eq!((state.all, state.by_source.len()), (0, 0));
    }

    #[test]
    fn all_sources_together_have_a_limit() {
        let count = Arc::new(ConnectionCount::new(3, 2));
        let source = |last| IpAddr::from([198, 51, 100, last]);
        let held = [1, 1, 2].map(|last| count.take(source(last)).unwrap());
        assert!(count.take(source(3)).is_none());
        drop(held);
        assert!(count.take(source(3)).is_some());
    }
}
