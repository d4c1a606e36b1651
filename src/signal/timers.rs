//! When something is due: one time for each of many keys.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::time::Instant;

use ahash::RandomState;

/// Keys in the order of their times.
#[derive(Debug)]
pub(super) struct Timers<K> {
    due: BTreeSet<(Instant, K)>,
    at: HashMap<K, Instant, RandomState>,
}

impl<K: Copy + Hash + Ord> Timers<K> {
    pub(super) fn new(hasher: RandomState) -> Self {
        Self { due: BTreeSet::new(), at: HashMap::with_hasher(hasher) }
    }

    /// Sets the one time of `key`.
    pub(super) fn set(&mut self, key: K, at: Instant) {
        self.clear(key);
        self.at.insert(key, at);
        self.due.insert((at, key));
    }

    pub(super) fn clear(&mut self, key: K) {
        if let Some(at) = self.at.remove(&key) {
            self.due.remove(&(at, key));
        }
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.due.first().map(|&(at, _)| at)
    }

    /// Takes out one whose time has come.
    pub(super) fn pop(&mut self, now: Instant) -> Option<K> {
        let &(_, key) = self.due.first().filter(|&&(at, _)| at <= now)?;
        self.clear(key);
        Some(key)
    }

    pub(super) fn len(&self) -> usize {
        self.due.len()
    }
}
