//! From the file's values to each module's settings: the rules that concern several values, and
//! those that need the world outside the file.

use std::net::{IpAddr, SocketAddr};

use super::Config;
use super::alternates;
use super::discovery;
use super::error::{Fault, Key};
use super::external;
use super::file::{Auth, File, Http, Limits, Relay, Stun};
use super::host::PublicHost;
use super::opaque;
use super::secrets::{self, Reader};
use super::signaling;
use super::tls;
use super::value::{Host, Listen, Ports};
use crate::turn::policy::RELAY_ADDRESSES_MAX;
use crate::{http, logging, net, turn};

/// RFC 8489 §14.9 allows 127 characters; counted in bytes here, so that a refusal never outgrows
/// the 548 bytes that pass every path.
const MAX_REALM_BYTES: usize = 127;
/// RFC 8489 §14.3: fewer than 509 bytes.
pub(crate) const MAX_USERNAME_BYTES: usize = 508;
/// What SOFTWARE says where it is sent.
const SOFTWARE: &str = concat!("hairpin ", env!("CARGO_PKG_VERSION"));
/// More shards than any machine has cores; each is a thread with its own sockets.
const MAX_THREADS: u32 = 1024;

/// Builds every module's settings, or says what is wrong first.
pub(super) fn config(
    file: File,
    reader: &mut Reader<'_>,
    environment_secret: Option<String>,
) -> Result<Config, Fault> {
    check_realm(&file.realm)?;
    check_listen(&file.listen, &Key::new("listen"))?;
    check_listen(&file.http.listen, &Key::new("http.listen"))?;
    let discovery = discovery::config(&file.stun, &file.listen)?;
    let listen = discovery::listeners(addresses(&file.listen), discovery.as_ref());
    check_relay(&file.relay, &listen)?;
    check_limits(&file.limits)?;
    if file.listen.is_empty() {
        return Err(Fault::new([Key::new("listen")], "needs at least one address"));
    }
    if file.threads.0 > MAX_THREADS {
        let message = format!("more than {MAX_THREADS}; 0 means one per core");
        return Err(Fault::new([Key::new("threads")], message));
    }
    if file.http.shared_admin && !file.http.shared {
        let message = "does nothing unless http.shared is true".to_owned();
        return Err(Fault::new([Key::new("http.shared_admin")], message));
    }
    let tls = tls::config(&file, reader)?;
    let policy = turn::policy::Config {
        allow: file.peers.allow.iter().map(|network| network.0).collect(),
        deny: file.peers.deny.iter().map(|network| network.0).collect(),
        only_allowed: file.peers.only_allowed,
    };
    let net = net(&file, listen, tls)?;
    let (alternates, drain_to) = alternates::config(&file.turn, &net)?;
    let public_host = public_host(&file.public_host)?;
    let auth = auth(file.realm.clone(), file.auth.clone(), reader, environment_secret)?;
    let host = public_host.clone().or_else(|| PublicHost::listened_on(&net.listen));
    let signaling = signaling::config(&file, reader, host.as_ref(), auth.secrets.first())?;
    Ok(Config {
        turn: turn::server::Config {
            auth,
            policy,
            limits: core_limits(&file.limits),
            discovery,
            channels: channels(&file.stun),
            alternates,
            drain_to,
            dont_fragment: net::SETS_DONT_FRAGMENT,
            software: file.stun.software.then(|| SOFTWARE.to_owned()),
            tcp_relay: file.relay.tcp,
            mobility: file.mobility.enabled.then(|| turn::mobility::Key(rand::random())),
        },
        net,
        public_host: public_host.map(|host| host.to_string()),
        http: http(&file.http, signaling),
        log: logging::Config { level: file.log.level, format: file.log.format },
        drain_for: file.turn.drain_for.0,
    })
}

fn net(
    file: &File,
    listen: Vec<SocketAddr>,
    tls: Option<net::tls::Config>,
) -> Result<net::Config, Fault> {
    let mut net = net::Config {
        listen,
        threads: file.threads.0 as usize,
        relay_ports: file.relay.ports.0.clone(),
        relay_addresses: file.relay.addresses.iter().map(|host| host.0).collect(),
        external: net::external::Config::default(),
        allocations_per_user: file.limits.allocations_per_user.0 as usize,
        allocations: file.limits.allocations.0 as usize,
        user_bandwidth: file.limits.user_bandwidth.0,
        unauthenticated_idle: file.limits.unauthenticated_idle.0,
        tls,
        proxies: file.proxy.sources.iter().map(|network| network.0).collect(),
    };
    net.external = external::config(&file.relay, &net)?;
    Ok(net)
}

fn channels(stun: &Stun) -> turn::ChannelRange {
    match stun.rfc5766_channels {
        true => turn::ChannelRange::Rfc5766,
        false => turn::ChannelRange::Rfc8656,
    }
}

fn core_limits(limits: &Limits) -> turn::limits::Config {
    turn::limits::Config {
        permissions_per_allocation: limits.permissions_per_allocation.0 as usize,
        channels_per_allocation: limits.channels_per_allocation.0 as usize,
        unauthenticated_per_source: limits.unauthenticated_per_source.0,
        default_lifetime: limits.default_lifetime.0,
        max_lifetime: limits.max_lifetime.0,
        permission_lifetime: limits.permission_lifetime.0,
        channel_lifetime: limits.channel_lifetime.0,
        ..turn::limits::Config::default()
    }
}

fn http(file: &Http, signaling: Option<http::signaling::Config>) -> http::Config {
    http::Config {
        listen: addresses(&file.listen),
        shared: file.shared,
        shared_admin: file.shared_admin,
        pages: file.pages,
        signaling,
    }
}

fn public_host(text: &str) -> Result<Option<PublicHost>, Fault> {
    if text.is_empty() {
        return Ok(None);
    }
    let refuse = |problem| Fault::new([Key::new("public_host")], format!("{text:?} {problem}"));
    text.parse().map(Some).map_err(refuse)
}

fn addresses(listen: &[Listen]) -> Vec<SocketAddr> {
    listen.iter().map(|listen| listen.0).collect()
}

fn check_realm(realm: &str) -> Result<(), Fault> {
    let refuse = |message: String| Err(Fault::new([Key::new("realm")], message));
    if realm.is_empty() {
        return refuse("must not be empty".to_owned());
    }
    if realm.len() > MAX_REALM_BYTES {
        return refuse(format!("longer than {MAX_REALM_BYTES} bytes"));
    }
    if realm.chars().any(|char| char.is_control() || matches!(char, '"' | '\\')) {
        return refuse("must not contain quotes, backslashes or control characters".to_owned());
    }
    opaque::check(realm).or_else(refuse)
}

fn check_listen(listen: &[Listen], key: &Key) -> Result<(), Fault> {
    for (at, Listen(address)) in listen.iter().enumerate() {
        // Port 0 is a different free port each time.
        let twice = address.port() != 0 && listen[..at].contains(&Listen(*address));
        if twice {
            let message = format!("\"{address}\" is listed twice");
            return Err(Fault::new([key.clone().index(at)], message));
        }
    }
    Ok(())
}

fn check_relay(relay: &Relay, listen: &[SocketAddr]) -> Result<(), Fault> {
    let key = Key::new("relay.addresses");
    for (at, Host(host)) in relay.addresses.iter().enumerate() {
        if relay.addresses[..at].contains(&Host(*host)) {
            return Err(Fault::new([key.index(at)], format!("\"{host}\" is listed twice")));
        }
        if at == RELAY_ADDRESSES_MAX {
            let message = format!("more than {RELAY_ADDRESSES_MAX} relay addresses");
            return Err(Fault::new([key.index(at)], message));
        }
    }
    let Ports(ports) = &relay.ports;
    for (at, address) in listen.iter().enumerate() {
        if !ports.contains(&address.port()) || !relays_on(relay, address.ip(), listen) {
            continue;
        }
        let message = format!(
            "\"{address}\" lies within relay.ports {}-{}, and a relay could take the port",
            ports.start(),
            ports.end()
        );
        // Behind those of `listen` stand those of NAT discovery.
        let own = Key::new("listen").index(at);
        let keys = [own, Key::new("stun.alternate"), Key::new("relay.ports")];
        return Err(Fault::new(keys, message));
    }
    Ok(())
}

/// Whether relay sockets are bound where `host` listens.
fn relays_on(relay: &Relay, host: IpAddr, listen: &[SocketAddr]) -> bool {
    let overlaps = |other: IpAddr| {
        let any = host.is_unspecified() || other.is_unspecified();
        other == host || (any && other.is_ipv4() == host.is_ipv4())
    };
    match relay.addresses.is_empty() {
        true => listen.iter().any(|listen| overlaps(listen.ip())),
        false => relay.addresses.iter().any(|relay| overlaps(relay.0)),
    }
}

fn check_limits(limits: &Limits) -> Result<(), Fault> {
    let (default, max) = (limits.default_lifetime, limits.max_lifetime);
    if default.0 > max.0 {
        let keys = [Key::new("limits.default_lifetime"), Key::new("limits.max_lifetime")];
        let message = format!("default_lifetime ({default}) is longer than max_lifetime ({max})");
        return Err(Fault::new(keys, message));
    }
    Ok(())
}

fn auth(
    realm: String,
    auth: Auth,
    reader: &mut Reader<'_>,
    environment_secret: Option<String>,
) -> Result<turn::auth::Config, Fault> {
    for (name, password) in &auth.users {
        check_user(name, password.as_str())
            .map_err(|problem| Fault::new([Key::new("auth.users").entry(name)], problem))?;
    }
    for (at, secret) in auth.secrets.iter().enumerate() {
        secrets::long_enough(secret)
            .map_err(|problem| Fault::new([Key::new("auth.secrets").index(at)], problem))?;
    }
    let mut secrets = auth.secrets;
    if !auth.secret_file.is_empty() {
        secrets.extend(reader.secrets(&auth.secret_file, &Key::new("auth.secret_file"))?);
    }
    secrets.extend(environment_secret);
    let nonce_key = match auth.nonce_secret_file.as_str() {
        "" => rand::random(),
        file => reader.nonce_key(file, &Key::new("auth.nonce_secret_file"))?,
    };
    Ok(turn::auth::Config {
        realm,
        users: auth.users,
        secrets,
        nonce_key,
        nonce_lifetime: auth.nonce_lifetime.0,
        sha256: auth.sha256,
    })
}

fn check_user(name: &str, password: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("a user name must not be empty".to_owned());
    }
    if name.len() > MAX_USERNAME_BYTES {
        return Err(format!("a user name has {MAX_USERNAME_BYTES} bytes at most"));
    }
    if name.chars().any(char::is_control) {
        return Err("a user name must not contain control characters".to_owned());
    }
    opaque::check(name).map_err(|problem| format!("the user name: {problem}"))?;
    if password.is_empty() {
        return Err("the password must not be empty".to_owned());
    }
    opaque::check(password).map_err(|problem| format!("the password: {problem}"))
}
