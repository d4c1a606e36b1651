//! What `hairpin bench` can be told.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::cli::Error;
use crate::load::{
    self, BURST_MAX, CLIENTS_MAX, Core, DURATION_MAX, Order, RATE_MAX, SIZE_MAX, SIZE_MIN, Shape,
    THREADS_MAX, Transport, Trust, Uri,
};
use crate::net::clock;
use crate::turn::rest;

/// How long minted credentials are good: longer than any load.
const CREDENTIAL_SECS: u64 = 24 * 3600;
/// Where nothing is said: packets, and allocations to begin a search with.
const RATE: u64 = 10_000;
const ALLOCATION_RATE: u64 = 200;

/// Load a TURN or STUN server, and tell what became of each packet.
///
/// Clients and their peers are in this process, so relayed traffic comes back to it. Latency is
/// from when a packet was meant to leave, whatever held it up. The server must let so many clients
/// of one address in: for hairpin that is unauthenticated_per_source = 0 and
/// allocations_per_user = 0 under limits, and this machine in peers.allow.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  hairpin bench turn:127.0.0.1 --user dev --pass dev
  hairpin bench turn:127.0.0.1 --user dev --pass dev --pattern relay-to-relay --burst 8 --rate 100000
  hairpin bench turn:127.0.0.1 --user dev --pass dev --search --cpu 0 --pid $(pgrep hairpin)
  hairpin bench 'turn:10.0.0.5?transport=tcp' turns:10.0.0.5 --secret S --ca ca.pem --json
  hairpin bench turn:10.0.0.5 --secret S --pattern allocate --clients 100
  hairpin bench stun:127.0.0.1 --rate 200000 --clients 100")]
pub(in crate::cli) struct Bench {
    /// Servers, loaded one after the other: turn:host:port?transport=udp, turns:host, stun:host.
    #[arg(value_name = "URI", required = true)]
    uris: Vec<String>,
    /// The user of static credentials.
    #[arg(long, value_name = "NAME", requires = "pass", conflicts_with = "secret")]
    user: Option<String>,
    /// The user's password.
    #[arg(long, value_name = "PASSWORD", requires = "user")]
    pass: Option<String>,
    /// A shared secret to mint time-limited credentials with.
    #[arg(long)]
    secret: Option<String>,
    /// Who sends to whom; to-peer for turn:, binding for stun:.
    #[arg(long)]
    pattern: Option<Pattern>,
    /// ChannelData, or Send and Data indications.
    #[arg(long, default_value = "channel")]
    mode: Mode,
    /// Clients that send or are sent to; with relay-to-relay each has a partner besides.
    #[arg(long, value_name = "N", default_value = "10",
        value_parser = clap::value_parser!(u32).range(1..=i64::from(CLIENTS_MAX)))]
    clients: u32,
    /// Packets, requests or allocations per second, of all clients together; 10,000 if not given.
    /// Allocations: as fast as the clients can if not given. With --search, where it begins.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=RATE_MAX))]
    rate: Option<u64>,
    /// Packets a client sends at once.
    #[arg(long, value_name = "N", default_value = "1",
        value_parser = clap::value_parser!(u32).range(1..=i64::from(BURST_MAX)))]
    burst: u32,
    /// Bytes of data in each packet.
    #[arg(long, value_name = "BYTES", default_value = "1000", value_parser = size)]
    size: usize,
    /// How long to measure, such as 10s; at most 4m.
    #[arg(long, default_value = "10s", value_parser = duration)]
    duration: Duration,
    /// How long to run before that without counting; 0s for not at all.
    #[arg(long, default_value = "1s", value_parser = duration)]
    warm_up: Duration,
    /// All clients send at the same moment instead of evenly spread.
    #[arg(long)]
    together: bool,
    /// Each datagram leaves in a call of its own, instead of bursts as GSO trains.
    #[arg(long)]
    one_by_one: bool,
    /// Find the highest rate without loss first, and measure at that.
    #[arg(long)]
    search: bool,
    /// Loss in percent that still counts as none in a search.
    #[arg(long, value_name = "PERCENT", default_value = "0", requires = "search",
        value_parser = percent)]
    loss: f64,
    /// Threads of the generator.
    #[arg(long, value_name = "N", default_value = "1", conflicts_with = "cpu",
        value_parser = clap::value_parser!(u16).range(1..=THREADS_MAX as i64))]
    threads: u16,
    /// Cores to run on, one thread pinned to each, such as 0,1.
    #[arg(long, value_name = "CORE", value_delimiter = ',')]
    cpu: Vec<usize>,
    /// Local addresses of clients, taken in turn; one has room for some 28,000 clients.
    #[arg(long, value_name = "IP", value_delimiter = ',')]
    local: Vec<IpAddr>,
    /// The server's process on this machine: adds its CPU per packet and memory per allocation.
    #[arg(long)]
    pid: Option<u32>,
    /// PEM file of the certificates to trust over TLS.
    #[arg(long, value_name = "FILE", conflicts_with = "insecure")]
    ca: Option<PathBuf>,
    /// Trust any certificate over TLS.
    #[arg(long)]
    insecure: bool,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
    /// Load servers with public addresses, too.
    #[arg(long)]
    yes_really: bool,
}

/// Who sends to whom.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(super) enum Pattern {
    /// Clients to peers.
    ToPeer,
    /// Peers to clients.
    ToClient,
    /// Clients to peers, which send everything back.
    Echo,
    /// Clients to clients, from relayed address to relayed address.
    RelayToRelay,
    /// Allocations with a channel or permission, made and deleted.
    Allocate,
    /// Binding requests.
    Binding,
}

/// What carries data.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(super) enum Mode {
    /// ChannelData.
    Channel,
    /// Send and Data indications.
    Send,
}

/// The options, checked.
pub(super) struct Settings {
    pub(super) uris: Vec<Uri>,
    pub(super) pattern: Pattern,
    pub(super) mode: Mode,
    pub(super) shape: Shape,
    pub(super) order: Order,
    pub(super) warm_up: Duration,
    pub(super) search: bool,
    pub(super) loss_percent: f64,
    pub(super) trust: Option<Trust>,
    pub(super) pid: Option<u32>,
    pub(super) json: bool,
    pub(super) public: bool,
}

impl Bench {
    /// Checks what clap cannot.
    pub(super) fn settings(self) -> Result<Settings, Error> {
        let refused = |error: load::Error| Error::Refused(error.to_string());
        let uris: Vec<Uri> =
            self.uris.iter().map(|uri| uri.parse()).collect::<Result<_, _>>().map_err(refused)?;
        let pattern = self.pattern(&uris)?;
        let login = self.login(pattern)?;
        let trust = match (&self.ca, self.insecure) {
            (Some(file), _) => Some(Trust::roots(file).map_err(refused)?),
            (None, true) => Some(Trust::anyone()),
            (None, false) if uris.iter().any(|uri| uri.transport() == Transport::Tls) => {
                return Err(refused(load::Error::NoRoots));
            }
            (None, false) => None,
        };
        let threads = match self.cpu.len() {
            0 => vec![Core::Any; usize::from(self.threads)],
            1..=THREADS_MAX => self.cpu.iter().copied().map(Core::Pinned).collect(),
            _ => return Err(Error::Refused(format!("--cpu: at most {THREADS_MAX} cores"))),
        };
        let shape = Shape {
            pattern: pattern.into(),
            mode: self.mode.into(),
            clients: self.clients,
            threads,
            local: self.local,
            login,
            public: self.yes_really,
        };
        let unless_given = match pattern {
            Pattern::Allocate if self.search => ALLOCATION_RATE,
            Pattern::Allocate => 0,
            _ => RATE,
        };
        let order = Order {
            rate: self.rate.unwrap_or(unless_given),
            burst: self.burst,
            size: self.size,
            duration: self.duration,
            together: self.together,
            one_by_one: self.one_by_one,
        };
        Ok(Settings {
            uris,
            pattern,
            mode: self.mode,
            shape,
            order,
            warm_up: self.warm_up,
            search: self.search,
            loss_percent: self.loss,
            trust,
            pid: self.pid,
            json: self.json,
            public: self.yes_really,
        })
    }

    fn pattern(&self, uris: &[Uri]) -> Result<Pattern, Error> {
        let all_relay = uris.iter().all(Uri::relays);
        match self.pattern {
            None if all_relay => Ok(Pattern::ToPeer),
            None | Some(Pattern::Binding) => Ok(Pattern::Binding),
            Some(pattern) if all_relay => Ok(pattern),
            Some(_) => Err(Error::Refused(
                "a stun: URI takes no other pattern than binding: use turn:".to_owned(),
            )),
        }
    }

    fn login(&self, pattern: Pattern) -> Result<load::Login, Error> {
        if let (Some(user), Some(password)) = (&self.user, &self.pass) {
            return Ok(load::Login { user: user.clone(), password: password.clone() });
        }
        if let Some(secret) = &self.secret {
            let expires = clock::now().unix_secs.saturating_add(CREDENTIAL_SECS);
            let user = rest::username(expires, "bench");
            let password = rest::password(secret, &user);
            return Ok(load::Login { user, password });
        }
        if pattern == Pattern::Binding {
            return Ok(load::Login { user: String::new(), password: String::new() });
        }
        Err(Error::Refused("needs --user and --pass, or --secret".to_owned()))
    }
}

impl From<Pattern> for load::Pattern {
    fn from(pattern: Pattern) -> Self {
        match pattern {
            Pattern::ToPeer => Self::ToPeer,
            Pattern::ToClient => Self::ToClient,
            Pattern::Echo => Self::Echo,
            Pattern::RelayToRelay => Self::RelayToRelay,
            Pattern::Allocate => Self::Allocate,
            Pattern::Binding => Self::Binding,
        }
    }
}

impl From<Mode> for load::Mode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Channel => Self::Channel,
            Mode::Send => Self::Send,
        }
    }
}

/// A value as it is typed.
pub(super) fn name(value: impl ValueEnum) -> String {
    value.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

/// `500ms`, `10s`, `2m`.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.len() - text.trim_start_matches(|char: char| char.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let millis = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        _ => return Err("must be a time such as 500ms, 10s or 2m".to_owned()),
    };
    let number = number.parse::<u64>().map_err(|_| "must begin with a number".to_owned())?;
    let duration = Duration::from_millis(number.saturating_mul(millis));
    if duration > DURATION_MAX {
        return Err(format!("at most {} seconds", DURATION_MAX.as_secs()));
    }
    Ok(duration)
}

fn size(text: &str) -> Result<usize, String> {
    let range = SIZE_MIN..=SIZE_MAX;
    let size = text.parse().ok().filter(|size| range.contains(size));
    size.ok_or_else(|| format!("a number from {SIZE_MIN} to {SIZE_MAX}"))
}

fn percent(text: &str) -> Result<f64, String> {
    let percent = text.parse().ok().filter(|percent| (0.0..100.0).contains(percent));
    percent.ok_or_else(|| "a number from 0 to below 100".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit_and_a_limit() {
        let parsed = ["500ms", "10s", "4m", "0s"].map(|text| duration(text).unwrap().as_millis());
        assert_eq!(parsed, [500, 10_000, 240_000, 0]);
        for text in ["", "10", "s", "-1s", "1.5s", "5m", "241s", "10h", "99999999999999999999s"] {
            assert!(duration(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn sizes_and_percents_have_bounds() {
        assert!(size("12").is_ok() && size("65000").is_ok());
        assert!(["11", "65507", "", "x"].into_iter().all(|text| size(text).is_err()));
        assert!(percent("0").is_ok() && percent("0.1").is_ok());
        assert!(["-1", "100", "NaN", ""].into_iter().all(|text| percent(text).is_err()));
    }
}
