//! Clients that came by another door: on the ports of TURN, where they turned out to speak HTTP.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tracing::debug;

use super::{MAX_CONNECTIONS, serve};

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

    /// Takes the connection into the runtime that this is called in; returns the client too.
    ///
    /// # Errors
    /// When the runtime does not take it.
    fn enter(self) -> io::Result<(Client, Self::Stream)>;
}

/// Serves visitors until the server stops. While there are too many, more wait in the channel,
/// whose bound is its owner's.
pub(super) async fn receive<V: Visitor>(
    mut visitors: mpsc::Receiver<V>,
    router: Router,
    mut stopping: watch::Receiver<()>,
) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let next = async {
            let slot = Arc::clone(&slots).acquire_owned().await.ok()?;
            Some((visitors.recv().await?, slot))
        };
        let (visitor, slot) = tokio::select! {
            next = next => match next {
                Some(next) => next,
                None => break,
            },
            Some(_) = connections.join_next() => continue,
            _ = stopping.changed() => break,
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
