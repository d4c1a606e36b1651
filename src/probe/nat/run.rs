//! Drives the machines with sockets and the clock.

use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::io::ReadBuf;
use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::discovery::{Discovery, Facts, SOCKETS, Trial};
use super::lifetime::{Lifetime, LifetimeSearch};
use super::tcp::{self, Tcp};
use super::transaction::{SocketIndex, Transmit};
use super::verdict::{Kind, Report};
use crate::net::clock;
use crate::probe::message::Request;
use crate::probe::resolve::wildcard;

/// The longest datagram.
const DATAGRAM_BYTES: usize = 65_535;

/// What to look for, and how long.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How long each trial may take.
    pub timeout: Duration,
    /// Up to which time bindings are watched; none: not at all.
    pub lifetime: Option<Duration>,
}

/// What is going on.
#[derive(Clone, Copy, Debug)]
pub enum Progress {
    /// A trial that takes at most this long.
    Trial(Trial, Duration),
    /// TCP, for at most this long.
    Tcp(Duration),
    /// The search for the lifetime: so much of so much.
    Lifetime(Duration, Duration),
}

/// All that has been found out.
#[derive(Debug)]
pub struct Outcome {
    /// Over UDP.
    pub report: Report,
    /// Where UDP was not answered: whether the host says that nobody listens there.
    pub refused: bool,
    /// Over TCP, or why not.
    pub tcp: Result<Tcp, String>,
    /// The lifetime of UDP bindings, where it was looked for.
    pub lifetime: Option<Lifetime>,
}

/// Examines the way to a server.
///
/// # Errors
/// Where this machine has no way to it, or no sockets.
pub async fn examine(
    server: SocketAddr,
    options: Options,
    mut progress: impl FnMut(Progress),
) -> io::Result<Outcome> {
    let local = local_towards(server).await?;
    let facts = discover(server, local, options.timeout, &mut progress).await?;
    let report = Report::of(&facts);
    progress(Progress::Tcp(options.timeout));
    let tcp = tcp::examine(&facts, options.timeout).await;
    if report.kind == Kind::Blocked {
        let refused = is_refused(server, options.timeout).await?;
        return Ok(Outcome { report, refused, tcp, lifetime: None });
    }
    // Without a NAT there is nothing that could be forgotten.
    let longest = options.lifetime.filter(|_| facts.is_translated() == Some(true));
    let lifetime = match longest {
        None => None,
        Some(longest) => {
            Some(search(server, local, longest, options.timeout, &mut progress).await?)
        }
    };
    Ok(Outcome { report, refused: false, tcp, lifetime })
}

/// The address from which this machine would send there.
async fn local_towards(server: SocketAddr) -> io::Result<SocketAddr> {
    let socket = UdpSocket::bind(wildcard(server)).await?;
    socket.connect(server).await?;
    Ok(SocketAddr::new(socket.local_addr()?.ip(), 0))
}

async fn discover(
    server: SocketAddr,
    local: SocketAddr,
    limit: Duration,
    progress: &mut impl FnMut(Progress),
) -> io::Result<Facts> {
    let sockets = Sockets::bind(local, SOCKETS).await?;
    let locals = [sockets.locals[0], sockets.locals[1]];
    let mut discovery = Discovery::new(server, locals, limit, sockets.now(), rand::random());
    let mut buffer = vec![0; DATAGRAM_BYTES];
    let mut shown = None;
    while let Some(wakes) = discovery.poll_timeout() {
        let trial = discovery.trial();
        if let Some((trial, limit)) = trial.filter(|_| trial != shown) {
            progress(Progress::Trial(trial, limit));
        }
        shown = trial;
        while let Some(datagram) = discovery.poll_transmit(sockets.now()) {
            sockets.send(&datagram).await?;
        }
        match sockets.receive(&mut buffer, wakes).await {
            Some((_, length, from)) => {
                discovery.handle_datagram(from, &buffer[..length], sockets.now());
            }
            None => discovery.handle_timeout(sockets.now()),
        }
    }
    Ok(discovery.facts().clone())
}

async fn search(
    server: SocketAddr,
    local: SocketAddr,
    longest: Duration,
    limit: Duration,
    progress: &mut impl FnMut(Progress),
) -> io::Result<Lifetime> {
    /// How often the bar moves.
    const TICK: Duration = Duration::from_millis(500);
    let sockets = Sockets::bind(local, LifetimeSearch::SOCKETS).await?;
    let locals = std::array::from_fn(|index| sockets.locals[index]);
    let mut search =
        LifetimeSearch::new(server, locals, longest, limit, sockets.now(), rand::random());
    let mut buffer = vec![0; DATAGRAM_BYTES];
    // The three steps before, in between and at the end take a timeout each at most.
    let total = longest + limit * 3;
    loop {
        if let Some(lifetime) = search.result() {
            return Ok(lifetime);
        }
        let now = sockets.now();
        progress(Progress::Lifetime(now, total));
        while let Some(datagram) = search.poll_transmit(sockets.now()) {
            sockets.send(&datagram).await?;
        }
        let wakes = search.poll_timeout().unwrap_or(now).min(now + TICK);
        match sockets.receive(&mut buffer, wakes).await {
            Some((at, length, _)) => {
                search.handle_datagram(at, &buffer[..length], sockets.now());
            }
            None => search.handle_timeout(sockets.now()),
        }
    }
}

/// Whether the host says that nobody listens there.
async fn is_refused(server: SocketAddr, limit: Duration) -> io::Result<bool> {
    let socket = UdpSocket::bind(wildcard(server)).await?;
    socket.connect(server).await?;
    // Errors come to connected sockets only, and with the call after the one they belong to.
    let refused = async {
        let mut buffer = [0; 1];
        loop {
            socket.send(&Request::binding(rand::random()).bytes()).await?;
            socket.recv(&mut buffer).await?;
        }
    };
    match timeout(limit, refused).await {
        Ok(Err::<(), io::Error>(error)) => Ok(error.kind() == ErrorKind::ConnectionRefused),
        _ => Ok(false),
    }
}

/// Sockets of one local address, and the time since they were bound.
struct Sockets {
    sockets: Vec<UdpSocket>,
    locals: Vec<SocketAddr>,
    start: Instant,
}

impl Sockets {
    async fn bind(local: SocketAddr, count: usize) -> io::Result<Self> {
        let mut sockets = Vec::new();
        let mut locals = Vec::new();
        for _ in 0..count {
            let socket = UdpSocket::bind(local).await?;
            locals.push(socket.local_addr()?);
            sockets.push(socket);
        }
        Ok(Self { sockets, locals, start: clock::now().instant })
    }

    fn now(&self) -> Duration {
        clock::now().instant.saturating_duration_since(self.start)
    }

    async fn send(&self, datagram: &Transmit) -> io::Result<()> {
        let sent = self.sockets[datagram.socket].send_to(&datagram.bytes, datagram.to).await;
        match sent {
            // Nobody can send to what a server made up as its other address. No route to it, or a
            // firewall of this machine, is silence like any other.
            Err(error) if is_only_silence(&error) => Ok(()),
            sent => sent.map(|_| ()),
        }
    }

    /// The next datagram with its socket; none at `until`.
    async fn receive(
        &self,
        buffer: &mut [u8],
        until: Duration,
    ) -> Option<(SocketIndex, usize, SocketAddr)> {
        let arrival = poll_fn(|context| {
            for (index, socket) in self.sockets.iter().enumerate() {
                let mut buffer = ReadBuf::new(buffer);
                if let Poll::Ready(Ok(from)) = socket.poll_recv_from(context, &mut buffer) {
                    return Poll::Ready((index, buffer.filled().len(), from));
                }
            }
            Poll::Pending
        });
        timeout(until.saturating_sub(self.now()), arrival).await.ok()
    }
}

fn is_only_silence(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
            | ErrorKind::PermissionDenied
            | ErrorKind::ConnectionRefused
    )
}
