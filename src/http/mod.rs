//! The admin plane: metrics, health and signaling, on its own thread, never on the data path.
//!
//! It owns its listeners and connections, and sees the rest of the server only through
//! [`Inspect`]. A client of it, however slow, large or numerous, must never cost a relayed packet:
//! header bytes, waiting, and connections all have a bound.

pub mod credentials;
mod health;
mod metrics;
pub mod origin;
mod pages;
pub mod signaling;
mod slots;
#[cfg(test)]
mod tests;
pub mod token;
mod visitor;
mod ws;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CONNECTION, CONTENT_TYPE, TRANSFER_ENCODING};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tower::ServiceExt;
use tracing::{debug, error, warn};

use crate::turn::stats::Stats;
use health::Health;
use signaling::Signaling;
use slots::{Slot, Slots};

pub use visitor::{Client, Visitor};

/// Open connections over all listeners; one more is closed at once, and so is one more of a source
/// that has its part. As many visitors have places of their own, so that they cannot keep the
/// operator out.
const MAX_CONNECTIONS: usize = 256;
/// A request's head may take this much, and an idle connection may stay open this long.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// Room for a request's head. A browser sends the cookies of every other program on `localhost`.
const MAX_HEADER_BYTES: usize = 16 * 1024;
/// After this a connection closes with its next response: who sends requests but never reads
/// would otherwise keep it for ever.
const CONNECTION_LIFETIME: Duration = Duration::from_secs(60);
/// How long a response may still take once its connection is to close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// What follows a failed accept. Out of file descriptors, trying again at once would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Between two warnings that accepting fails: where descriptors are scarce it fails and works in
/// turn, and the log may be on the same full system.
const ACCEPT_QUIET: Duration = Duration::from_secs(60);
/// Connections the kernel completes ahead of us.
const BACKLOG: i32 = 128;

const NO_ANSWER: &str = "a shard does not answer\n";

/// Where the admin plane listens, and what it offers besides metrics and health.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Addresses of the HTTP listener.
    pub listen: Vec<SocketAddr>,
    /// Whether visitors are welcome: clients that come by the ports of TURN.
    pub shared: bool,
    /// Whether visitors may see what the server tells its operator.
    pub shared_admin: bool,
    /// Whether there are pages to look at.
    pub pages: bool,
    /// Signaling; `None`: there is none.
    pub signaling: Option<signaling::Config>,
}

/// What the running server shows of itself.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The counters of each shard.
    pub shards: Vec<Stats>,
    /// The process-wide pool of relay ports.
    pub relay_ports: PortCounts,
    /// The certificates; `None` where there is no TLS.
    pub tls: Option<Tls>,
    /// The connections of clients, with HTTP on the ports of TURN, and without the admin plane's
    /// own.
    pub connections: Connections,
    /// Whether it makes no new allocations because it is about to stop.
    pub draining: bool,
}

/// Connections over TCP, each with the label it is counted under.
#[derive(Clone, Debug, Default)]
pub struct Connections {
    /// Open ones, by what they speak.
    pub live: Vec<(&'static str, u64)>,
    /// Refused ones, by the reason.
    pub refused: Vec<(&'static str, u64)>,
}

/// The certificates, and what has become of replacing them.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// When each one expires, in seconds since 1970, in the order of the configuration.
    pub not_after: Vec<u64>,
    /// Certificates replaced.
    pub reloads: u64,
    /// New files that could not serve.
    pub failed_reloads: u64,
}

/// Relay ports by what they are doing; together they are the configured range.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct PortCounts {
    /// Ready to be taken.
    pub free: usize,
    /// Held by an allocation.
    pub used: usize,
    /// The upper one of a pair, until it is claimed or its time is over.
    pub reserved: usize,
    /// Given back, and kept from the next owner while late packets may still arrive.
    pub cooling: usize,
}

/// A snapshot under way.
pub type Inspection<'a> = Pin<Box<dyn Future<Output = Option<Snapshot>> + Send + 'a>>;

/// The admin plane's view of the running server.
pub trait Inspect: Send + Sync + 'static {
    /// Asks every shard: at each scrape, and for health once a second at most. `None` when one does not answer within
    /// the implementor's deadline.
    fn snapshot(&self) -> Inspection<'_>;

    /// Whether new clients are welcome: all listeners are bound, and the server is not draining.
    fn is_ready(&self) -> bool;
}

/// The bound addresses of the admin plane. Nothing is accepted before [`Listeners::serve`].
#[derive(Debug)]
pub struct Listeners {
    sockets: Vec<(SocketAddr, TcpListener)>,
    shared_admin: bool,
    pages: bool,
}

impl Listeners {
    /// Binds every address of the configuration.
    ///
    /// # Errors
    /// When one cannot be bound; the error names it.
    pub fn bind(config: &Config) -> io::Result<Self> {
        let bind = |&address: &SocketAddr| {
            listen(address).map_err(|error| {
                io::Error::new(error.kind(), format!("cannot listen on {address} (http): {error}"))
            })
        };
        let sockets = config.listen.iter().map(bind).collect::<io::Result<_>>()?;
        Ok(Self { sockets, shared_admin: config.shared_admin, pages: config.pages })
    }

    /// The addresses in the order of the configuration, with the ports the system chose.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.sockets.iter().map(|&(address, _)| address).collect()
    }

    /// Answers until `shutdown` completes, then finishes what is being answered. `visitors` are
    /// answered too, as long as some may come.
    ///
    /// # Errors
    /// When the runtime does not take a listener. No client can cause it.
    pub async fn serve<V: Visitor>(
        self,
        inspect: Arc<dyn Inspect>,
        signaling: Option<Arc<Signaling>>,
        visitors: mpsc::Receiver<V>,
        shutdown: impl Future<Output = ()>,
    ) -> io::Result<()> {
        let pages = if self.pages { pages::routes() } else { Router::new() };
        let health = Health::new(Arc::clone(&inspect));
        let public = public_routes(signaling.clone(), health).merge(pages);
        let public = public.with_state(Arc::clone(&inspect));
        let admin = admin_routes(signaling.clone()).with_state(inspect);
        let router = admin.merge(public.clone());
        let slots = Slots::of_listeners();
        let (stop, stopping) = watch::channel(());
        let mut acceptors = JoinSet::new();
        for (_, socket) in self.sockets {
            let listener = tokio::net::TcpListener::from_std(socket)?;
            acceptors.spawn(accept(listener, router.clone(), Arc::clone(&slots), stopping.clone()));
        }
        let shown = if self.shared_admin { router } else { public };
        acceptors.spawn(visitor::receive(visitors, shown, stopping));
        match &signaling {
            None => shutdown.await,
            Some(signaling) => {
                tokio::select! {
                    () = shutdown => {}
                    () = signaling.keep_time() => {}
                }
                signaling.stop().await;
            }
        }
        drop(stop);
        while acceptors.join_next().await.is_some() {}
        Ok(())
    }
}

fn listen(address: SocketAddr) -> io::Result<(SocketAddr, TcpListener)> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // `[::]` must leave `0.0.0.0` to its own listener.
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // A restart must not wait for the old connections. Windows means something else by it.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    let listener = TcpListener::from(socket);
    Ok((listener.local_addr()?, listener))
}

async fn accept(
    listener: tokio::net::TcpListener,
    router: Router,
    slots: Arc<Slots>,
    mut stopping: watch::Receiver<()>,
) {
    let mut connections = JoinSet::new();
    let mut warned = false;
    let mut quiet = pin!(sleep(ACCEPT_QUIET));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = quiet.as_mut(), if warned => {
                warned = false;
                continue;
            }
            Some(_) = connections.join_next() => continue,
            _ = stopping.changed() => break,
        };
        match accepted {
            Ok((stream, client)) => match slots.take(client.ip()) {
                Some(slot) => {
                    let router = router.clone();
                    let client = Client { address: client, encrypted: false };
                    // Messages are small, and the next one must not wait for an acknowledgement.
                    let _ = stream.set_nodelay(true);
                    let connection = serve(stream, client, router, slot, stopping.clone());
                    connections.spawn(connection);
                }
                None => debug!(%client, "connection over the limit"),
            },
            Err(error) => {
                if !warned {
                    warn!(%error, "cannot accept connections");
                    warned = true;
                    quiet.set(sleep(ACCEPT_QUIET));
                }
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// Serves one connection, which takes up `_slot` until it closes or speaks another protocol.
async fn serve(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    client: Client,
    router: Router,
    _slot: Slot,
    mut stopping: watch::Receiver<()>,
) {
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(client);
        // Of a body that has two lengths, one is gone by now: nothing behind it counts.
        let is_last = request.headers().contains_key(TRANSFER_ENCODING);
        let answer = router.clone().oneshot(request.map(Body::new));
        async move {
            let mut answer = answer.await;
            if let Ok(response) = &mut answer
                && is_last
            {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            answer
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEADER_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    tokio::select! {
        result = connection.as_mut() => {
            if let Err(error) = result {
                debug!(%error, "connection closed");
            }
            return;
        }
        _ = stopping.changed() => {}
        () = sleep(CONNECTION_LIFETIME) => {}
    }
    connection.as_mut().graceful_shutdown();
    if timeout(CLOSE_TIMEOUT, connection).await.is_err() {
        debug!("connection cut off");
    }
}

/// What the server tells its operator.
fn admin_routes(signaling: Option<Arc<Signaling>>) -> Router<Arc<dyn Inspect>> {
    let metrics = async move |State(inspect): State<Arc<dyn Inspect>>| {
        metrics(&*inspect, signaling.as_deref()).await
    };
    Router::new().route("/metrics", get(metrics))
}

/// What anybody may ask.
fn public_routes(
    signaling: Option<Arc<Signaling>>,
    health: Arc<Health>,
) -> Router<Arc<dyn Inspect>> {
    signaling
        .map_or_else(Router::new, signaling::routes)
        .route("/healthz", get(async move || health.answer().await))
        .route("/readyz", get(readyz))
        .fallback(async || (StatusCode::NOT_FOUND, "not found\n"))
}

async fn metrics(inspect: &dyn Inspect, signaling: Option<&Signaling>) -> Response {
    let Some(snapshot) = inspect.snapshot().await else {
        return (StatusCode::SERVICE_UNAVAILABLE, NO_ANSWER).into_response();
    };
    match metrics::render(&snapshot, signaling.map(Signaling::counts).as_ref()) {
        Ok(text) => ([(CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => {
            error!(%error, "cannot write metrics");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

async fn readyz(State(inspect): State<Arc<dyn Inspect>>) -> (StatusCode, &'static str) {
    if inspect.is_ready() {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
    }
}
