//! Clients that came by another door: on the ports of TURN, where they turned out to speak HTTP.

use std::io;
use std::net::{IpAddr, SocketAddr};

use axum::Router;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::debug;

use super::serve;
use super::slots::Slots;

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    /// Where it is.
    pub address: SocketAddr,
    /// Whether it speaks through TLS that ends here.
    pub encrypted: bool,
}

/// A connection that is tied to no runtime yet.
pub trait Visitor: Send + 'static {
    /// What is served, without TLS.
    type Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static;

    /// Where it comes from.
    fn source(&self) -> IpAddr;

    /// Closes the connection, because its source has as many as one may have.
    fn refuse(self);

    /// Takes the connection into the runtime that this is called in; returns the client too.
    ///
    /// # Errors
    /// When the runtime does not take it.
    fn enter(self) -> io::Result<(Client, Self::Stream)>;
}

/// Serves visitors until the server stops. While there are too many, more wait in the channel,
/// whose bound is its owner's; those of a source that has its part do not.
pub(super) async fn receive<V: Visitor>(
    mut visitors: mpsc::Receiver<V>,
    router: Router,
    mut stopping: watch::Receiver<()>,
) {
    let slots = Slots::of_visitors();
    let mut connections = JoinSet::new();
    loop {
        let next = async {
            let place = slots.next().await?;
            Some((visitors.recv().await?, place))
        };
        let (visitor, place) = tokio::select! {
            next = next => match next {
                Some(next) => next,
                None => break,
            },
            Some(_) = connections.join_next() => continue,
            _ = stopping.changed() => break,
        };
        let Some(slot) = slots.give(place, visitor.source()) else {
            visitor.refuse();
            continue;
        };
        match visitor.enter() {
            Ok((client, stream)) => {
                debug!(client = %client.address, "serving HTTP on a port of TURN");
                let connection = serve(stream, client, router.clone(), slot, stopping.clone());
                connections.spawn(connection);
            }
            Err(error) => debug!(%error, "connection not taken over"),
        }
    }
    while connections.join_next().await.is_some() {}
}
