//! The sockets: the only place with the operating system, tokio and a clock.
//!
//! [`Net::start`] binds everything and starts one thread for each shard. Each shard has its own
//! listeners (`SO_REUSEPORT`: the kernel keeps a client on one of them), its own server and its
//! own relay sockets, so no packet changes threads and the data path has no lock. The exception
//! are two clients of this server that relay to each other on different shards; see `post`.

pub mod clock;
mod dtls;
pub mod egress;
pub mod external;
mod journal;
mod moves;
mod pace;
pub mod ports;
mod post;
pub mod quota;
mod relay;
mod shard;
mod stream;
pub mod sys;
mod tcp_relay;
mod thread;
mod udp;
mod urls;
mod work;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use rand::Rng;
use tokio::sync::mpsc;

use crate::stun::AddressFamily;
use crate::turn::{self, Stats, policy};
use external::{AskError, Externals};
use ports::{PortCounts, PortPool};
use quota::Quotas;
use stream::certificates::Certificates;
use stream::count::ConnectionCount;
use stream::handover::Handover;
use thread::{Handle, Listening, Start};
use work::Shared;

pub use stream::{certificates, count, handover, tls};
pub use urls::ice_urls;

/// Whether several shards can listen on one port. Windows has no `SO_REUSEPORT`.
pub const SHARES_PORTS: bool = cfg!(not(windows));
/// Whether datagrams can be sent with the DF bit set.
pub const SETS_DONT_FRAGMENT: bool = sys::SETS_DONT_FRAGMENT;
/// How long a shard may take to answer before it counts as stuck.
const SHARD_DEADLINE: Duration = Duration::from_secs(2);

/// Files and sockets of a process without shards: standard streams, runtimes, the log; and room for
/// some connections to the admin plane.
const DESCRIPTORS_OF_PROCESS: u64 = 32;
/// What a shard needs besides its listeners: its runtime.
const DESCRIPTORS_OF_SHARD: u64 = 4;

/// Where to listen and relay, and the process-wide caps.
#[derive(Clone, Debug)]
pub struct Config {
    /// Each address: UDP and TCP. Port 0 takes any free port (tests).
    pub listen: Vec<SocketAddr>,
    /// Shards; 0 is one per core, or just one where [`SHARES_PORTS`] is false.
    pub threads: usize,
    /// Ports of relay sockets.
    pub relay_ports: RangeInclusive<u16>,
    /// Local addresses of relay sockets, each another one, at most
    /// [`RELAY_ADDRESSES_MAX`](policy::RELAY_ADDRESSES_MAX); empty: the listeners' own.
    pub relay_addresses: Vec<IpAddr>,
    /// What a 1:1 NAT in front of the machine does.
    pub external: external::Config,
    /// Allocations one user may hold; 0 is no limit.
    pub allocations_per_user: usize,
    /// Allocations in all; 0 is no limit.
    pub allocations: usize,
    /// How long a connection without an allocation may be silent.
    pub unauthenticated_idle: Duration,
    /// Bytes per second one user may relay, both directions together; 0 is no limit.
    pub user_bandwidth: u64,
    /// TLS over TCP, on all ports; `None` where there are no certificates.
    pub tls: Option<tls::Config>,
    /// Load balancers: each of their TCP connections must begin with a PROXY protocol header of
    /// version 2, and is its client's from then on.
    pub proxies: Vec<IpNet>,
}

impl Config {
    /// The addresses that are relayed from: the configured ones, else one for each family, the first
    /// listener's own or, where that is a wildcard, the one the routing table prefers.
    #[must_use]
    pub fn relays_from(&self) -> Vec<IpAddr> {
        if !self.relay_addresses.is_empty() {
            return self.relay_addresses.clone();
        }
        let own_of = |family| {
            let ips = self.listen.iter().map(SocketAddr::ip);
            let mut own = ips.filter(|&ip| AddressFamily::of(ip) == family);
            own.clone().find(|ip| !ip.is_unspecified()).or_else(|| preferred_source(own.next()?))
        };
        [AddressFamily::Ipv4, AddressFamily::Ipv6].into_iter().filter_map(own_of).collect()
    }

    /// How many allocations of clients over UDP could be open at once, by ports and by the cap on
    /// all of them. Over TCP and TLS a client takes a descriptor more, which has no port.
    #[must_use]
    pub fn allocations_max(&self) -> u64 {
        let ports = (self.relays_from().len() * self.relay_ports.len()) as u64;
        if self.allocations == 0 { ports } else { ports.min(self.allocations as u64) }
    }

    /// How many there is room for among `limit` descriptors of the process, each of which takes one.
    #[must_use]
    pub fn allocations_within(&self, limit: u64) -> u64 {
        let (tls, dtls) =
            self.tls.as_ref().map_or((0, false), |tls| (tls.listen.len() as u64, tls.dtls));
        let listeners = 2 * self.listen.len() as u64 + tls * (1 + u64::from(dtls));
        let shards = shard_count(self.threads) as u64;
        let own = DESCRIPTORS_OF_PROCESS + shards * (DESCRIPTORS_OF_SHARD + listeners);
        limit.saturating_sub(own)
    }
}

/// A socket, or an address, that could not be had.
#[derive(Debug)]
pub enum BindError {
    /// One that clients send to.
    Listen {
        /// Where.
        address: SocketAddr,
        /// Over what: "udp", "tcp", "tls" or "dtls".
        transport: &'static str,
        /// Why not.
        error: io::Error,
    },
    /// One that peers send to.
    Relay {
        /// Where, on any port of the range.
        address: IpAddr,
        /// Why not.
        error: io::Error,
    },
    /// The address that peers see.
    External(AskError),
}

impl std::fmt::Display for BindError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Listen { address, transport, error } => {
                write!(f, "cannot listen on {address} ({transport}): {error}")
            }
            Self::Relay { address, error } => write!(f, "cannot relay from {address}: {error}"),
            Self::External(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for BindError {}

/// The running shards. Stops them when asked to; dropping it without asking leaves them to the
/// end of the process.
#[derive(Debug)]
pub struct Net {
    shards: Vec<Handle>,
    listening: Listening,
    speaks_dtls: bool,
    certificates: Option<Arc<Certificates>>,
    connections: Arc<ConnectionCount>,
    pools: Arc<[Arc<PortPool>]>,
    quotas: Arc<Quotas>,
}

impl Net {
    /// Binds all sockets and starts the shards. `endpoints` are the addresses of our other
    /// listeners, which no client may reach through the relay. `http` takes the connections that
    /// turn out to speak HTTP; without it they are closed.
    pub fn start(
        config: &Config,
        core: &turn::Config,
        endpoints: Vec<SocketAddr>,
        http: Option<mpsc::Sender<Handover>>,
    ) -> Result<Self, BindError> {
        probe(config)?;
        let tls = config.tls.as_ref().map_or(&[][..], |tls| &tls.listen);
        let speaks_dtls = config.tls.as_ref().is_some_and(|tls| tls.dtls);
        let certificates =
            config.tls.as_ref().map(|tls| Arc::new(Certificates::new(tls.pairs.clone())));
        let pools = pools(config);
        let externals = Externals::start(&config.external, &pools).map_err(BindError::External)?;
        let host = host(config, endpoints, &externals, &pools);
        let server_config = |own| Arc::new(tls::server_config(own, http.is_some()));
        let connections = Arc::new(ConnectionCount::within(descriptors()));
        let streams = stream::Settings {
            unauthenticated_idle: config.unauthenticated_idle,
            tls: certificates.clone().map(server_config),
            proxies: config.proxies.as_slice().into(),
            count: Arc::clone(&connections),
            http,
        };
        let dtls = certificates.clone().filter(|_| speaks_dtls).map(|certificates| {
            let count = Arc::clone(&streams.count);
            dtls::Settings::new(certificates, config.unauthenticated_idle, count, &seed())
        });
        let quotas = quotas(config);
        let shared = Shared {
            pools: Arc::clone(&pools),
            quotas: Arc::clone(&quotas),
            externals,
            rendezvous: Arc::default(),
            bind_warned: Arc::default(),
        };
        let listening = Listening { all: config.listen.clone(), tls: tls.to_vec() };
        let mut net = Self {
            shards: Vec::new(),
            listening,
            speaks_dtls,
            certificates,
            connections,
            pools,
            quotas,
        };
        let count = shard_count(config.threads);
        let (errands, errand_inboxes) = moves::open(count);
        for ((post, inbox), errand_inbox) in post::open(count).into_iter().zip(errand_inboxes) {
            let (handle, listening) = thread::start(Start {
                listening: net.listening.clone(),
                core: core.clone(),
                host: host.clone(),
                seed: seed(),
                shared: shared.clone(),
                streams: streams.clone(),
                dtls: dtls.clone(),
                post,
                inbox,
                errands: errands.clone(),
                errand_inbox,
            })?;
            net.shards.push(handle);
            net.listening = listening;
        }
        net.shards.iter().for_each(Handle::serve);
        Ok(net)
    }

    /// Where the listeners are, in the order of the configuration.
    #[must_use]
    pub fn listening(&self) -> &[SocketAddr] {
        &self.listening.all
    }

    /// Whether the listeners speak DTLS too, over UDP.
    #[must_use]
    pub fn speaks_dtls(&self) -> bool {
        self.speaks_dtls
    }

    /// Where the listeners are that speak TLS only, in the order of the configuration.
    #[must_use]
    pub fn listening_tls(&self) -> &[SocketAddr] {
        &self.listening.tls
    }

    /// The certificates; `None` where there is no TLS.
    #[must_use]
    pub fn certificates(&self) -> Option<&Certificates> {
        self.certificates.as_deref()
    }

    /// Open connections of this kind.
    #[must_use]
    pub fn connections(&self, kind: count::Kind) -> u64 {
        self.connections.live(kind)
    }

    /// Connections refused for this reason since start.
    #[must_use]
    pub fn refused(&self, refusal: count::Refusal) -> u64 {
        self.connections.refused(refusal)
    }

    /// Where relayed addresses are allocated, each with what peers see.
    pub fn relaying(&self) -> impl Iterator<Item = (IpAddr, IpAddr)> {
        self.pools.iter().map(|pool| (pool.address(), pool.advertised()))
    }

    /// A copy of each shard's counters; `None` when a shard does not answer in time.
    pub async fn stats(&self) -> Option<Vec<Stats>> {
        let mut all = Vec::with_capacity(self.shards.len());
        for shard in &self.shards {
            let stats = tokio::time::timeout(SHARD_DEADLINE, shard.stats()).await;
            all.push(stats.ok().flatten()?);
        }
        Some(all)
    }

    /// The relay ports of all addresses together.
    #[must_use]
    pub fn ports(&self) -> PortCounts {
        self.pools.iter().map(|pool| pool.counts()).fold(PortCounts::default(), |sum, counts| {
            PortCounts {
                free: sum.free + counts.free,
                used: sum.used + counts.used,
                reserved: sum.reserved + counts.reserved,
                cooling: sum.cooling + counts.cooling,
            }
        })
    }

    /// Live allocations, and ports that are reserved for some; a dual one counts as two.
    #[must_use]
    pub fn allocations(&self) -> usize {
        let now = clock::now().instant;
        self.pools.iter().for_each(|pool| pool.expire(now));
        self.quotas.allocations()
    }

    /// Lets every shard make no new allocations. On return they make none, but one that does not
    /// answer in time.
    pub async fn drain(&self) {
        for shard in &self.shards {
            let _ = tokio::time::timeout(SHARD_DEADLINE, shard.drain()).await;
        }
    }

    /// Whether every shard still runs.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.shards.iter().all(Handle::is_alive)
    }

    /// Ends all allocations and waits for the threads. Must not be called within a runtime.
    pub fn stop(&self) {
        self.shards.iter().for_each(Handle::stop);
        self.shards.iter().for_each(Handle::join);
    }
}

/// What the peer policy has to know of this machine.
fn host(
    config: &Config,
    endpoints: Vec<SocketAddr>,
    externals: &Externals,
    pools: &[Arc<PortPool>],
) -> policy::Host {
    let (addresses, broadcasts) = own_addresses();
    policy::Host {
        endpoints,
        addresses,
        aliases: externals.aliases(),
        broadcasts,
        relay_addresses: pools.iter().map(|pool| pool.advertised()).collect(),
        relay_ports: config.relay_ports.clone(),
    }
}

/// Tells what cannot be had: `SO_REUSEPORT` would share it with another process.
fn probe(config: &Config) -> Result<(), BindError> {
    let failed = |address, transport| move |error| BindError::Listen { address, transport, error };
    for &address in &config.listen {
        sys::probe(address).map_err(failed(address, "udp"))?;
        stream::probe(address).map_err(failed(address, "tcp"))?;
    }
    for address in config.relays_from() {
        probe_relay(address, config.relay_ports.clone())
            .map_err(|error| BindError::Relay { address, error })?;
    }
    let Some(tls) = &config.tls else { return Ok(()) };
    for &address in &tls.listen {
        stream::probe(address).map_err(failed(address, "tls"))?;
        if tls.dtls {
            sys::probe(address).map_err(failed(address, "dtls"))?;
        }
    }
    Ok(())
}

/// The relay ports, address by address.
fn pools(config: &Config) -> Arc<[Arc<PortPool>]> {
    let pool = |address| PortPool::new(address, config.relay_ports.clone(), seed());
    config.relays_from().into_iter().map(pool).collect()
}

fn quotas(config: &Config) -> Arc<Quotas> {
    Quotas::new(quota::Limits {
        allocations_per_user: config.allocations_per_user,
        allocations: config.allocations,
        user_bandwidth: config.user_bandwidth,
    })
}

/// How many files and sockets the process may have open.
fn descriptors() -> usize {
    sys::descriptor_limit().and_then(|limit| limit.try_into().ok()).unwrap_or(usize::MAX)
}

fn shard_count(threads: usize) -> usize {
    match threads {
        0 if !SHARES_PORTS => 1,
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    }
}

fn seed() -> [u8; 32] {
    let mut seed = [0; 32];
    rand::rng().fill_bytes(&mut seed);
    seed
}

/// Tells whether relay sockets can be had: binds the first port that is free, and lets go at once.
/// Otherwise each client would learn by a 508 that the address is not this machine's.
fn probe_relay(address: IpAddr, ports: RangeInclusive<u16>) -> io::Result<()> {
    for port in ports {
        match sys::probe((address, port).into()) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            outcome => return outcome,
        }
    }
    Err(io::ErrorKind::AddrInUse.into())
}

/// The source address for a host out there. Connecting a datagram socket sends nothing. A machine
/// without a way out has no address to relay from: loopback is never one by itself.
fn preferred_source(wildcard: IpAddr) -> Option<IpAddr> {
    let out_there: IpAddr = match wildcard {
        IpAddr::V4(_) => Ipv4Addr::new(198, 51, 100, 1).into(),
        IpAddr::V6(_) => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
    };
    let socket = UdpSocket::bind((wildcard, 0)).ok()?;
    let routed = socket.connect((out_there, 9)).and_then(|()| socket.local_addr());
    let routed = routed.ok().map(|address| address.ip());
    let own = || own_addresses().0.into_iter().find(|ip| is_source(*ip, wildcard));
    routed.filter(|ip| is_source(*ip, wildcard)).or_else(own)
}

/// Whether peers elsewhere, if only on the same network, could reach `ip`.
fn is_source(ip: IpAddr, wildcard: IpAddr) -> bool {
    let is_link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    AddressFamily::of(ip) == AddressFamily::of(wildcard) && !ip.is_loopback() && !is_link_local
}

/// The machine's addresses, and the broadcast addresses of its networks. A machine that does not
/// tell has none, and is then protected by the deny list alone.
pub(crate) fn own_addresses() -> (Vec<IpAddr>, Vec<Ipv4Addr>) {
    let interfaces = sys::interface_addresses().unwrap_or_default();
    let addresses = interfaces.iter().map(|own| own.ip).collect();
    let broadcasts = interfaces.iter().filter_map(|own| own.broadcast).collect();
    (addresses, broadcasts)
}
