//! What the signaling hub does.

use prometheus::proto::{Metric, MetricFamily};

use super::{counter, counters, gauge, gauges};
use crate::http::signaling::Counts;
use crate::signal::{CloseReason, Problem};

/// The families of a server with signaling. No label comes from a client.
pub(super) fn families(counts: &Counts) -> Vec<MetricFamily> {
    let mut families = present(counts);
    families.extend(messages(counts));
    families.extend(connections(counts));
    families
}

fn present(counts: &Counts) -> Vec<MetricFamily> {
    let hub = &counts.hub;
    let connected = hub.peers.saturating_sub(hub.lost_peers);
    let peers = [("connected", connected), ("lost", hub.lost_peers)];
    vec![
        gauges(
            "hairpin_signaling_connections",
            "Open WebSocket connections, joined or not.",
            vec![gauge(&[], hub.connections as u64)],
        ),
        gauges(
            "hairpin_signaling_peers",
            "Ids in use: by a connection, or lost and waiting for their client to come back.",
            peers.map(|(state, count)| gauge(&[("state", state)], count as u64)).into(),
        ),
        gauges(
            "hairpin_signaling_rooms",
            "Rooms with a peer in them.",
            vec![gauge(&[], hub.rooms as u64)],
        ),
        gauges(
            "hairpin_signaling_kept_messages",
            "Messages that wait for lost peers.",
            vec![gauge(&[], hub.kept_messages as u64)],
        ),
    ]
}

fn messages(counts: &Counts) -> Vec<MetricFamily> {
    let hub = &counts.hub;
    let kinds = [("unicast", hub.unicast), ("broadcast", hub.broadcast)];
    let problems = Problem::ALL.map(|of| counter(&[("code", of.code())], hub.problems(of)));
    vec![
        counters(
            "hairpin_signaling_messages_total",
            "Messages from a peer that were handed on or kept: to one peer, or to a room.",
            kinds.map(|(kind, count)| counter(&[("kind", kind)], count)).into(),
        ),
        one(
            "hairpin_signaling_deliveries_total",
            "Copies of messages handed to connections.",
            hub.delivered,
        ),
        one(
            "hairpin_signaling_kept_expired_total",
            "Messages for lost peers that did not come back in time.",
            hub.kept_expired,
        ),
        counters(
            "hairpin_signaling_errors_total",
            "Errors that clients were told, by code.",
            problems.into(),
        ),
        one(
            "hairpin_signaling_ice_servers_total",
            "ICE servers handed out over WebSocket, in welcomes, on request and as renewals.",
            hub.ice_servers,
        ),
    ]
}

fn connections(counts: &Counts) -> Vec<MetricFamily> {
    let hub = &counts.hub;
    let closed = CloseReason::ALL.map(|of| counter(&[("reason", of.code())], hub.closed(of)));
    let refused = counts.refused.map(|(reason, count)| counter(&[("reason", reason)], count));
    vec![
        one(
            "hairpin_signaling_connections_total",
            "WebSocket connections admitted since start.",
            hub.connections_total,
        ),
        counters(
            "hairpin_signaling_refused_total",
            "Attempts to connect that were refused, by reason.",
            refused.into(),
        ),
        counters(
            "hairpin_signaling_closed_total",
            "WebSocket connections that ended, by reason.",
            closed.into(),
        ),
        one(
            "hairpin_signaling_resumed_total",
            "Peers that took over from an older connection of theirs, lost or half open.",
            hub.resumed,
        ),
    ]
}

fn one(name: &str, help: &str, count: u64) -> MetricFamily {
    let rows: Vec<Metric> = vec![counter(&[], count)];
    counters(name, help, rows)
}
