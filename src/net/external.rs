//! The addresses that 1:1 NAT shows for those of this machine: told by the operator, or asked of a
//! STUN server, once at the start and then again and again, since such an address may change.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use tracing::warn;

use super::clock;
use super::ports::PortPool;
use crate::stun::{AddressFamily, TransactionId, reflexive};
use crate::turn::policy::{self, Alias};

/// How long the start waits for the answers, resolving the server's name included.
const START_DEADLINE: Duration = Duration::from_secs(10);
/// How often to ask again: calls fail from when the address changes to when it is noticed.
const ASK_AGAIN: Duration = Duration::from_secs(60);
/// How long to wait for an answer, from request to request.
const RETRANSMISSIONS: [Duration; 4] = [
    Duration::from_millis(500),
    Duration::from_millis(1000),
    Duration::from_millis(2000),
    Duration::from_millis(2000),
];
/// Larger than a Binding response of any server.
const RESPONSE_LEN_MAX: usize = 1500;

/// What the operator says of the NAT in front.
#[derive(Clone, Debug)]
pub struct Config {
    /// The addresses that are known.
    pub known: Vec<Known>,
    /// A STUN server, `host:port`, to be asked for those that are not.
    pub stun: Option<String>,
    /// How often it is asked again; a minute unless a test is in a hurry.
    pub ask_again: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self { known: Vec::new(), stun: None, ask_again: ASK_AGAIN }
    }
}

/// One external address.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Known {
    /// As others see it.
    pub external: IpAddr,
    /// The address of ours that it stands for; `None` is the relay address of its family, of which
    /// there must be one only.
    pub local: Option<IpAddr>,
}

impl Config {
    /// What is known, for a server that relays from these addresses.
    #[must_use]
    pub fn aliases(&self, relays_from: &[IpAddr]) -> Vec<Alias> {
        let family = |ip: IpAddr| AddressFamily::of(ip);
        let relay_of = |ip| relays_from.iter().copied().find(|&relay| family(relay) == family(ip));
        let alias = |known: &Known| {
            let local = known.local.or_else(|| relay_of(known.external))?;
            Some(Alias { external: known.external, local })
        };
        self.known.iter().filter_map(alias).collect()
    }

    /// The relay addresses to ask about: peers elsewhere could not reach them, and no external
    /// address is known.
    #[must_use]
    pub fn unknown(&self, relays_from: &[IpAddr]) -> Vec<IpAddr> {
        let aliases = self.aliases(relays_from);
        let is_unknown = |relay: &IpAddr| {
            policy::is_special_purpose(*relay) && !aliases.iter().any(|alias| alias.local == *relay)
        };
        match self.stun {
            Some(_) => relays_from.iter().copied().filter(is_unknown).collect(),
            None => Vec::new(),
        }
    }
}

/// An external address could not be learned.
#[derive(Debug)]
pub struct AskError {
    /// The address of ours.
    pub local: IpAddr,
    /// Who was asked.
    pub stun: String,
    /// What went wrong.
    pub error: io::Error,
}

impl fmt::Display for AskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { local, stun, error } = self;
        write!(
            f,
            "relay.external: cannot learn the external address of {local} from {stun}: {error}"
        )
    }
}

/// What is known now.
#[derive(Debug)]
pub(super) struct Externals {
    pools: Arc<[Arc<PortPool>]>,
    /// Behind a lock that shards take once in a while, and never on the way of a packet.
    aliases: Mutex<Vec<Alias>>,
    /// Goes with this, and so ends the thread that asks.
    _stop: mpsc::Sender<()>,
}

impl Externals {
    /// Lets the pools show what is known; asks for what is not, and waits for the answers.
    ///
    /// # Errors
    /// Where nothing is known in the end. Some machines have an address that leads nowhere.
    pub(super) fn start(
        config: &Config,
        pools: &Arc<[Arc<PortPool>]>,
    ) -> Result<Arc<Self>, AskError> {
        let (stop, stopped) = mpsc::channel();
        let externals =
            Arc::new(Self { pools: Arc::clone(pools), aliases: Mutex::default(), _stop: stop });
        let relays_from: Vec<IpAddr> = pools.iter().map(|pool| pool.address()).collect();
        for alias in config.aliases(&relays_from) {
            // Checked with the rest of the configuration, which has told it.
            let _ = externals.learn(alias);
        }
        let locals = config.unknown(&relays_from);
        let (Some(stun), Some(&first)) = (config.stun.clone(), locals.first()) else {
            return Ok(externals);
        };
        let failed = |local, error| AskError { local, stun: stun.clone(), error };
        let (answers, answered) = mpsc::channel();
        let asker = Asker {
            stun: stun.clone(),
            locals: locals.clone(),
            every: config.ask_again,
            externals: Arc::downgrade(&externals),
        };
        thread::Builder::new()
            .name("external".into())
            .spawn(move || asker.run(&answers, &stopped))
            .map_err(|error| failed(first, error))?;
        let deadline = clock::now().instant + START_DEADLINE;
        let mut failures = Vec::new();
        for local in locals {
            let left = deadline.saturating_duration_since(clock::now().instant);
            let heard = answered.recv_timeout(left);
            match heard.unwrap_or_else(|_| Err(no_answer())) {
                Ok(alias) => {
                    externals.learn(alias).map_err(|error| failed(local, error))?;
                }
                Err(error) => failures.push(failed(local, error)),
            }
        }
        if externals.lock().is_empty()
            && let Some(failure) = failures.pop()
        {
            return Err(failure);
        }
        failures.iter().for_each(|failure| warn!("{failure}; peers are shown that address itself"));
        Ok(externals)
    }

    pub(super) fn aliases(&self) -> Vec<Alias> {
        self.lock().clone()
    }

    /// True if it is news. An error where another relay address shows the same: what peers send
    /// there cannot come to both.
    fn learn(&self, alias: Alias) -> io::Result<bool> {
        let mut aliases = self.lock();
        if aliases.contains(&alias) {
            return Ok(false);
        }
        let shows_it = |pool: &&Arc<PortPool>| {
            pool.address() != alias.local && pool.advertised() == alias.external
        };
        if let Some(other) = self.pools.iter().find(shows_it) {
            let text = format!("it says {}, as for {}", alias.external, other.address());
            return Err(io::Error::other(text));
        }
        aliases.retain(|other| other.local != alias.local);
        aliases.push(alias);
        if let Some(pool) = self.pools.iter().find(|pool| pool.address() == alias.local) {
            pool.advertise(alias.external);
        }
        Ok(true)
    }

    /// No code that holds the lock can leave the list half changed, so a poisoned one is fine.
    fn lock(&self) -> MutexGuard<'_, Vec<Alias>> {
        self.aliases.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread that asks: names are resolved by calls that block.
struct Asker {
    stun: String,
    locals: Vec<IpAddr>,
    every: Duration,
    externals: Weak<Externals>,
}

impl Asker {
    /// Tells the first answers to whoever waits for the start, and keeps what is known up to date.
    fn run(&self, first: &mpsc::Sender<io::Result<Alias>>, stopped: &mpsc::Receiver<()>) {
        // What has failed at the start has been told.
        let mut failing = Vec::with_capacity(self.locals.len());
        for &local in &self.locals {
            let answer = ask(&self.stun, local);
            failing.push(answer.is_err());
            // Nobody listens where the start has failed already.
            let _ = first.send(answer);
        }
        while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(self.every) {
            for (&local, failing) in self.locals.iter().zip(&mut failing) {
                match ask(&self.stun, local).and_then(|alias| self.update(alias)) {
                    Ok(()) => *failing = false,
                    Err(error) => {
                        // Once for a streak: it may last.
                        if !std::mem::replace(failing, true) {
                            warn!(%local, stun = %self.stun, %error,
                                "the external address cannot be learned; the last one stays");
                        }
                    }
                }
            }
        }
    }

    fn update(&self, alias: Alias) -> io::Result<()> {
        let Some(externals) = self.externals.upgrade() else { return Ok(()) };
        if externals.learn(alias)? {
            warn!(local = %alias.local, external = %alias.external,
                "the external address has changed; peers cannot reach what was allocated before");
        }
        Ok(())
    }
}

/// What `local` looks like from the STUN server.
fn ask(stun: &str, local: IpAddr) -> io::Result<Alias> {
    let server = stun.to_socket_addrs()?.find(|server| server.is_ipv4() == local.is_ipv4());
    let server = server.ok_or_else(|| {
        let family = if local.is_ipv4() { "IPv4" } else { "IPv6" };
        io::Error::other(format!("it has no {family} address"))
    })?;
    let socket = UdpSocket::bind((local, 0))?;
    // From now on nobody else is heard.
    socket.connect(server)?;
    let id = TransactionId(rand::random());
    let mapped = exchange(&socket, id)?;
    if mapped.ip().is_unspecified() || mapped.is_ipv4() != local.is_ipv4() {
        return Err(io::Error::other(format!("it says {mapped}")));
    }
    if mapped.port() != socket.local_addr()?.port() {
        warn!(%local, %mapped, "the NAT changes ports: peers cannot reach relayed addresses");
    }
    Ok(Alias { external: mapped.ip(), local })
}

fn exchange(socket: &UdpSocket, id: TransactionId) -> io::Result<SocketAddr> {
    let request = reflexive::request(id);
    let mut bytes = [0; RESPONSE_LEN_MAX];
    for wait in RETRANSMISSIONS {
        socket.send(&request)?;
        let until = clock::now().instant + wait;
        loop {
            let left = until.saturating_duration_since(clock::now().instant);
            if left.is_zero() {
                break;
            }
            socket.set_read_timeout(Some(left))?;
            match socket.recv(&mut bytes) {
                Ok(length) => {
                    if let Some(mapped) = reflexive::mapped(&bytes[..length], id) {
                        return Ok(mapped);
                    }
                }
                Err(error) if is_timeout(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Err(no_answer())
}

/// Systems have two names for it.
fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
    )
}

fn no_answer() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "no answer")
}
