//! The supervisor: starts the shards and the admin plane, waits for a signal, drains and stops them.
//!
//! Threads cannot outlive [`Running::stop`]. If one part ends by itself the whole server does, so
//! that whoever supervises the process restarts it instead of keeping half of it.

mod drain;
mod signals;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use std::{fmt, io};

use tokio::sync::{mpsc, oneshot};
use tracing::{error, info, warn};

use crate::config::Config;
use crate::http::signaling::Signaling;
use crate::http::{self, Connections, Inspect, Inspection, PortCounts, Snapshot, Visitor};
use crate::logging::escaped;
use crate::net::certificates::Reload;
use crate::net::count::{Kind, Refusal};
use crate::net::handover::{HANDOVERS_MAX, Handover, HttpStream};
use crate::net::{self, BindError, Net, clock, ice_urls};
use crate::turn::policy;
use drain::Drain;
use signals::{Signal, Signals};

/// How long stopping may take.
const STOP_DEADLINE: Duration = Duration::from_secs(10);
/// How often the supervisor looks whether all threads are alive.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// How often the supervisor looks whether the files of certificates have changed.
const CERTIFICATE_INTERVAL: Duration = Duration::from_secs(5);

/// Why the server could not start, or had to stop.
#[derive(Debug)]
pub enum Error {
    /// A UDP listener or a relay socket could not be bound.
    Bind(BindError),
    /// The admin plane could not be started; the error says where.
    Http(io::Error),
    /// Signals could not be waited for.
    Signals(io::Error),
    /// Not every thread ended in time, or a second signal did not want to wait.
    StopIncomplete,
    /// A thread ended by itself: a bug, and the log says more.
    ThreadEnded,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bind(error) => error.fmt(f),
            Self::Http(error) => error.fmt(f),
            Self::Signals(error) => write!(f, "cannot wait for signals: {error}"),
            Self::StopIncomplete => f.write_str("stopped without waiting for every thread"),
            Self::ThreadEnded => f.write_str("a thread of the server ended by itself"),
        }
    }
}

impl std::error::Error for Error {}

/// What the server listens on; where the settings say port 0, the ports it got.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// STUN and TURN, over UDP and TCP, and over TLS where there are certificates.
    pub listen: Vec<SocketAddr>,
    /// TURN over TLS only.
    pub tls: Vec<SocketAddr>,
    /// TURN over DTLS, on UDP ports of the other two.
    pub dtls: Vec<SocketAddr>,
    /// The admin plane.
    pub http: Vec<SocketAddr>,
}

/// What an operator should know of a relay address that is not a public one. Loopback is chosen on
/// purpose.
#[must_use]
pub fn reach_warning(relay: IpAddr) -> Option<&'static str> {
    (policy::is_special_purpose(relay) && !relay.is_loopback()).then_some(
        "peers on the Internet cannot reach relayed addresses like this one; on a machine with \
         several addresses, set relay.addresses, and behind 1:1 NAT relay.external",
    )
}

/// What an operator should know where the process may open fewer files than there are relay ports:
/// each allocation is a socket. `limit` is how many it may open.
#[must_use]
pub fn descriptor_warning(net: &net::Config, limit: Option<u64>) -> Option<String> {
    let limit = limit?;
    let (most, room) = (net.allocations_max(), net.allocations_within(limit));
    (room < most).then(|| {
        format!(
            "open files: {limit}, the hard limit here, leave room for {room} allocations of the \
             {most} that there may be, fewer with clients over TCP; raise LimitNOFILE= (systemd) or \
             `ulimit -Hn`"
        )
    })
}

/// A started server.
#[derive(Debug)]
pub struct Running {
    addresses: Addresses,
    state: Arc<State>,
    http: JoinHandle<()>,
    stop_http: oneshot::Sender<()>,
}

/// What the admin plane looks at.
#[derive(Debug)]
struct State {
    net: Net,
    draining: AtomicBool,
}

impl Running {
    /// Binds every listener and starts every thread. On return the server serves.
    ///
    /// # Errors
    /// When an address cannot be bound, which the error names; then nothing runs.
    pub fn start(config: &Config) -> Result<Self, Error> {
        let http = http::Listeners::bind(&config.http).map_err(Error::Http)?;
        let http_addresses = http.addresses();
        let (handovers, visitors) = mpsc::channel(HANDOVERS_MAX);
        let handovers = config.http.shared.then_some(handovers);
        let net = Net::start(&config.net, &config.turn, http_addresses.clone(), handovers)
            .map_err(Error::Bind)?;
        let (listen, tls) = (net.listening().to_vec(), net.listening_tls().to_vec());
        let addresses = Addresses {
            dtls: if net.speaks_dtls() { [&listen[..], &tls].concat() } else { Vec::new() },
            listen,
            tls,
            http: http_addresses,
        };
        let tls = config.net.tls.as_ref().map(|_| &addresses.tls[..]);
        let urls = config.public_host().map(|host| ice_urls(&host, &addresses.listen, tls));
        let signaling = config.http.signaling.clone().map(|settings| {
            let urls = urls.unwrap_or_default();
            Arc::new(Signaling::new(settings, urls, clock::now, rand::random()))
        });
        let state = Arc::new(State { net, draining: AtomicBool::new(false) });
        let (stop_http, stopped) = oneshot::channel();
        let inspect = Arc::clone(&state);
        let (built, building) = std::sync::mpsc::channel();
        let http = std::thread::Builder::new()
            .name("http".into())
            .spawn(move || serve_http(http, inspect, signaling, visitors, stopped, &built))
            .map_err(Error::Http)?;
        // With all the descriptors that it needs, before anybody is told that the server serves.
        let built = building.recv().unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into()));
        built.map_err(Error::Http)?;
        Ok(Self { addresses, state, http, stop_http })
    }

    /// What it listens on.
    #[must_use]
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Whether every thread still runs.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.state.net.is_alive() && !self.http.is_finished()
    }

    /// Reads certificates again. Sessions notice nothing; only handshakes do.
    pub fn reload_certificates(&self, which: Reload) {
        if let Some(certificates) = self.state.net.certificates() {
            certificates.reload(which);
        }
    }

    /// Tells the log where the server is to be found, and by whom.
    fn announce(&self) {
        for (address, external) in self.state.net.relaying() {
            let behind_nat = (external != address).then(|| tracing::field::display(external));
            info!(%address, external = behind_nat, "relaying (udp)");
            if let Some(warning) = reach_warning(external) {
                warn!(address = %external, "{warning}");
            }
        }
        for address in &self.addresses.listen {
            info!(%address, "listening (udp)");
            info!(%address, "listening (tcp)");
        }
        for address in &self.addresses.tls {
            info!(%address, "listening (tls)");
        }
        for address in &self.addresses.dtls {
            info!(%address, "listening (dtls)");
        }
        let certificates = self.state.net.certificates().map(|certificates| certificates.served());
        for (index, certificate) in certificates.iter().flat_map(|all| all.iter()).enumerate() {
            info!(certificate = index, names = %escaped(&certificate.names().join(" ")),
                "serving TLS");
        }
        for address in &self.addresses.http {
            info!(%address, "listening (http)");
        }
    }

    /// Says it is no longer ready, and makes no new allocations; those that exist live on.
    pub async fn drain(&self) {
        self.state.draining.store(true, Ordering::Relaxed);
        self.state.net.drain().await;
    }

    /// Live allocations, and ports that are reserved for some.
    #[must_use]
    pub fn allocations(&self) -> usize {
        self.state.net.allocations()
    }

    /// Says it is no longer ready, ends all allocations, and waits for every thread.
    pub fn stop(self) {
        self.state.draining.store(true, Ordering::Relaxed);
        // An error means that the admin plane has ended already.
        let _ = self.stop_http.send(());
        let _ = self.http.join();
        self.state.net.stop();
    }
}

/// Runs the server until SIGINT, or until SIGTERM and the end of draining; calls `ready` once it
/// serves.
///
/// Takes the settings because they hold passwords, of which a server that runs keeps only keys.
///
/// # Errors
/// When the server cannot start, or a part of it ends by itself.
pub fn run(config: Config, ready: impl FnOnce(&Addresses)) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::Signals)?;
    let outcome = runtime.block_on(async {
        // Before the server starts: a signal that comes early must not kill it half way.
        let mut signals = Signals::listen().map_err(Error::Signals)?;
        let running = Running::start(&config)?;
        let drain_for = config.drain_for;
        drop(config);
        running.announce();
        ready(&running.addresses);
        let outcome = supervise(&running, &mut signals, drain_for).await;
        let stopped = stop(running, &mut signals).await;
        outcome.and(stopped)
    });
    // A thread that hangs must not keep the process.
    runtime.shutdown_background();
    outcome
}

/// Stops, but not at any price: whoever asked twice, or waits long, wants the process to end.
async fn stop(running: Running, signals: &mut Signals) -> Result<(), Error> {
    let stopping = tokio::task::spawn_blocking(move || running.stop());
    let asked_again = async { while matches!(signals.next().await, Signal::Reload) {} };
    tokio::select! {
        _ = stopping => Ok(()),
        () = asked_again => Err(Error::StopIncomplete),
        () = tokio::time::sleep(STOP_DEADLINE) => Err(Error::StopIncomplete),
    }
}

/// Returns when the server is to stop, and why where that is a fault.
async fn supervise(
    running: &Running,
    signals: &mut Signals,
    drain_for: Duration,
) -> Result<(), Error> {
    let mut drain = None;
    let mut certificates = tokio::time::interval(CERTIFICATE_INTERVAL);
    certificates.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut watching = std::pin::pin!(watch(running));
    loop {
        tokio::select! {
            signal = signals.next() => match signal {
                Signal::Drain(name) if drain.is_none() && !drain_for.is_zero() => {
                    drain = Some(Drain::begin(running, name, drain_for).await);
                }
                Signal::Drain(name) | Signal::Stop(name) => {
                    info!(signal = name, "stopping");
                    return Ok(());
                }
                Signal::Reload => {
                    info!("reading certificates again");
                    running.reload_certificates(Reload::All);
                }
            },
            () = watching.as_mut() => {
                error!("a thread ended by itself; stopping");
                return Err(Error::ThreadEnded);
            }
            _ = certificates.tick() => running.reload_certificates(Reload::Changed),
            () = drained(&mut drain, running) => return Ok(()),
        }
    }
}

/// Not before there is a drain.
async fn drained(drain: &mut Option<Drain>, running: &Running) {
    match drain {
        Some(drain) => drain.ended(running).await,
        None => std::future::pending().await,
    }
}

async fn watch(running: &Running) {
    while running.is_alive() {
        tokio::time::sleep(WATCH_INTERVAL).await;
    }
}

fn serve_http(
    listeners: http::Listeners,
    state: Arc<State>,
    signaling: Option<Arc<Signaling>>,
    visitors: mpsc::Receiver<Handover>,
    stopped: oneshot::Receiver<()>,
    built: &std::sync::mpsc::Sender<io::Result<()>>,
) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = built.send(Err(error));
            return;
        }
    };
    let _ = built.send(Ok(()));
    let served = runtime.block_on(listeners.serve(state, signaling, visitors, async {
        // The sender is dropped only together with the server.
        let _ = stopped.await;
    }));
    if let Err(error) = served {
        error!(%error, "the admin plane failed");
    }
}

impl Visitor for Handover {
    type Stream = HttpStream;

    fn source(&self) -> IpAddr {
        self.client().ip()
    }

    fn refuse(self) {
        self.refuse();
    }

    fn enter(self) -> io::Result<(http::Client, HttpStream)> {
        let (address, stream) = self.open()?;
        Ok((http::Client { address, encrypted: stream.is_encrypted() }, stream))
    }
}

impl Inspect for State {
    fn snapshot(&self) -> Inspection<'_> {
        Box::pin(async {
            let shards = self.net.stats().await?;
            let ports = self.net.ports();
            let relay_ports = PortCounts {
                free: ports.free,
                used: ports.used,
                reserved: ports.reserved,
                cooling: ports.cooling,
            };
            let tls = self.net.certificates().map(|certificates| {
                let counts = certificates.reload_counts();
                http::Tls {
                    not_after: certificates.served().iter().map(|own| own.not_after()).collect(),
                    reloads: counts.succeeded,
                    failed_reloads: counts.failed,
                }
            });
            let live = Kind::ALL.iter().map(|&kind| (kind.label(), self.net.connections(kind)));
            let refused = Refusal::ALL.iter().map(|&why| (why.label(), self.net.refused(why)));
            let connections = Connections { live: live.collect(), refused: refused.collect() };
            let draining = self.draining.load(Ordering::Relaxed);
            Some(Snapshot { shards, relay_ports, tls, connections, draining })
        })
    }

    fn is_ready(&self) -> bool {
        !self.draining.load(Ordering::Relaxed)
    }
}
