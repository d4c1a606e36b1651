//! The lines of the log about allocations: who was connected with whom, for how long, and how much
//! went through (RFC 8656 §21.3.2). The relayed address tells which lines belong together.

use std::net::SocketAddr;

use tracing::{debug, info};

use crate::logging::escaped;
use crate::turn::{AllocationId, Event};

/// One line at INFO when an allocation opens and one when it closes; at DEBUG one for each
/// permission, channel and connection. `relayed` finds the relayed address of an allocation.
pub(super) fn record(event: &Event, relayed: impl Fn(AllocationId) -> Option<SocketAddr>) {
    match event {
        Event::Opened { client, relayed, username, .. } => {
            info!(user = %escaped(username), client = %client.client, server = %client.server,
                transport = client.transport.label(), relayed = %relayed.0, "allocation opened");
        }
        Event::Permitted { id, peer, .. } => {
            debug!(relayed = relayed(*id).map(tracing::field::display), %peer, "peer permitted");
        }
        Event::ChannelBound { id, number, peer, .. } => {
            debug!(relayed = relayed(*id).map(tracing::field::display),
                peer = %peer.address(), channel = number.number(), "channel bound");
        }
        Event::Connected { id, peer } => {
            debug!(relayed = relayed(*id).map(tracing::field::display), %peer, "peer connected");
        }
        Event::Unpermitted { id, peer } => {
            debug!(relayed = relayed(*id).map(tracing::field::display), %peer,
                "permission ended: the peer is forbidden now");
        }
        Event::Parted { id, peer } => {
            debug!(relayed = relayed(*id).map(tracing::field::display), %peer,
                "channel or connection ended: the peer is forbidden now");
        }
        Event::Resumed { client, relayed, .. } => {
            info!(client = %client.client, transport = client.transport.label(),
                relayed = %relayed.0, "allocation resumed");
        }
        Event::Switched { id, client } => {
            debug!(relayed = relayed(*id).map(tracing::field::display),
                client = %client.client, "client moved");
        }
        Event::Left { relayed, .. } => debug!(relayed = %relayed.0, "allocation left the shard"),
        Event::Arrived { client, relayed, .. } => {
            debug!(relayed = %relayed.0, client = %client.client, "allocation came to the shard");
        }
        Event::Closed { client, relayed, username, reason, lived, to_peer, to_client, .. } => {
            info!(user = %escaped(username), client = %client.client,
                transport = client.transport.label(), relayed = %relayed.0,
                reason = reason.label(), seconds = lived.as_secs(),
                to_peer_bytes = to_peer.bytes, to_peer_packets = to_peer.packets,
                to_client_bytes = to_client.bytes, to_client_packets = to_client.packets,
                "allocation closed");
        }
    }
}
