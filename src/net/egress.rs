//! Collects what one wake-up sends, so that it leaves in as few trips through the kernel as
//! possible. Never reorders what goes from one socket to one destination.

use std::fmt;
use std::ops::Range;

pub use super::sys::Route;
use super::sys::{Outgoing, Run, Segment, SendScratch, Socket};
use crate::turn::stats::DropReason;

/// Runs looked at for one that a datagram can join: what a burst of that many interleaved flows
/// needs, and a bound on the search.
const LOOK_BACK: usize = 16;
/// Datagrams the kernel segments one send into (`UDP_MAX_SEGMENTS`; newer ones take 128).
const RUN_DATAGRAMS: usize = 64;
/// The payload of the largest UDP datagram over IPv4, which a run counts as before it is cut.
const RUN_BYTES: usize = 65_507;

/// Datagrams on their way out. `K` names a socket until [`Egress::flush`] asks for it.
///
/// Payloads are not copied: they are ranges of the batch that is being received. So flush before it
/// is cleared for the next, which also bounds what waits here. Its memory is kept from flush to flush.
pub struct Egress<K> {
    runs: Vec<Run<K>>,
    segments: Vec<Segment>,
    arena: Vec<u8>,
    scratch: SendScratch,
}

impl<K: Copy + Eq> Egress<K> {
    /// Nothing to send yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            runs: Vec::new(),
            segments: Vec::new(),
            arena: Vec::new(),
            scratch: SendScratch::default(),
        }
    }

    /// Whether there is nothing to flush.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Whether something is to leave from `socket`.
    #[must_use]
    pub fn leaves_from(&self, socket: K) -> bool {
        self.runs.iter().any(|run| run.route.socket == socket)
    }

    /// Adds a datagram: `header`, which is copied, `payload`, a range of what [`Egress::flush`]
    /// is given, and `padding` zeros, at most 3.
    pub fn push(&mut self, route: Route<K>, header: &[u8], payload: Range<usize>, padding: usize) {
        let start = self.arena.len();
        self.arena.extend_from_slice(header);
        let header = start..self.arena.len();
        self.add(route, Segment { header, payload, padding, next: None });
    }

    /// Adds a datagram that lies elsewhere than in the batch, such as a reply; copies it.
    pub fn push_owned(&mut self, route: Route<K>, message: &[u8]) {
        self.push(route, message, 0..0, 0);
    }

    fn add(&mut self, route: Route<K>, segment: Segment) {
        let size = segment.len();
        let index = self.segments.len();
        self.segments.push(segment);
        // The newest run of the destination or none: joining an older one would overtake it.
        let newest = self
            .runs
            .iter_mut()
            .rev()
            .take(LOOK_BACK)
            .find(|run| run.route.socket == route.socket && run.route.to == route.to);
        match newest {
            Some(run) if takes(run, &route, size) => {
                self.segments[run.last].next = Some(index);
                run.last = index;
                run.datagrams += 1;
                run.total += size;
            }
            _ => self.runs.push(Run {
                route,
                size,
                total: size,
                datagrams: 1,
                first: index,
                last: index,
            }),
        }
    }

    /// Sends everything. `received` is what payloads are ranges of; `resolve` gives the socket of
    /// a key, or none if it is gone; `dropped` hears of each datagram that did not leave.
    pub fn flush<'s>(
        &mut self,
        received: &[u8],
        resolve: impl Fn(K) -> Option<&'s Socket>,
        mut dropped: impl FnMut(DropReason),
    ) {
        let (segments, arena) = (&self.segments, &self.arena);
        let alike = |one: &Run<K>, next: &Run<K>| {
            let (one, next) = (&one.route, &next.route);
            one.socket == next.socket && one.dont_fragment == next.dont_fragment
        };
        for runs in self.runs.chunk_by(alike) {
            let Some(socket) = resolve(runs[0].route.socket) else {
                let datagrams = runs.iter().map(|run| run.datagrams).sum();
                (0..datagrams).for_each(|_| dropped(DropReason::SendFailed));
                continue;
            };
            let outgoing = Outgoing { runs, segments, arena, received };
            socket.send(&outgoing, &mut self.scratch, &mut dropped);
        }
        self.runs.clear();
        self.segments.clear();
        self.arena.clear();
    }
}

/// Whether a datagram of `size` bytes can be the next of `run`. Empty ones stay alone, because the
/// kernel makes no segment of nothing.
fn takes<K>(run: &Run<K>, route: &Route<K>, size: usize) -> bool {
    let no_short_one_yet = run.total == run.size * run.datagrams;
    run.route.from == route.from
        && run.route.dont_fragment == route.dont_fragment
        && run.route.traffic_class == route.traffic_class
        && no_short_one_yet
        && (1..=run.size).contains(&size)
        && run.datagrams < RUN_DATAGRAMS
        && run.total + size <= RUN_BYTES
}

impl<K: Copy + Eq> Default for Egress<K> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: fmt::Debug> fmt::Debug for Egress<K> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Egress").field("runs", &self.runs).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "egress/tests.rs"]
mod tests;
