//! What the hub has done, in plain counters.

use super::connection::CloseReason;
use super::message::Problem;

/// Counters since the start, and what there is now.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// Open connections, joined or not.
    pub connections: usize,
    /// Ids that are taken, those of lost peers among them.
    pub peers: usize,
    /// Of those, the ones in their resume window.
    pub lost_peers: usize,
    /// Rooms with a peer in them.
    pub rooms: usize,
    /// Messages that wait for lost peers.
    pub kept_messages: usize,
    /// Connections ever admitted.
    pub connections_total: u64,
    /// Peers that came back within their resume window, or took over from an older connection.
    pub resumed: u64,
    /// Messages from one peer to another that were handed on or kept.
    pub unicast: u64,
    /// Messages from one peer to a room.
    pub broadcast: u64,
    /// Copies of messages handed to connections, kept ones when they are.
    pub delivered: u64,
    /// Kept messages whose peer did not come back in time.
    pub kept_expired: u64,
    /// ICE servers handed out.
    pub ice_servers: u64,
    pub(super) problems: [u64; Problem::ALL.len()],
    pub(super) closed: [u64; CloseReason::ALL.len()],
}

impl Stats {
    /// Errors of this kind that clients were told.
    #[must_use]
    pub fn problems(&self, problem: Problem) -> u64 {
        self.problems[problem as usize]
    }

    /// Connections that ended for this reason.
    #[must_use]
    pub fn closed(&self, reason: CloseReason) -> u64 {
        self.closed[reason as usize]
    }

    pub(super) fn count_problem(&mut self, problem: Problem) {
        self.problems[problem as usize] += 1;
    }

    pub(super) fn count_closed(&mut self, reason: CloseReason) {
        self.closed[reason as usize] += 1;
    }
}
