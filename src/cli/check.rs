//! `hairpin check`: what would a server with this configuration do?

use std::io::Write;
use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;
use ipnet::IpNet;
use serde_json::{Value, json};

use super::Error;
use crate::config::{Bandwidth, Config, Lifetime, Origin, SECS_PER_DAY};
use crate::logging::escaped;
use crate::net::{self, SHARES_PORTS, clock, tls};
use crate::server;
use crate::turn::{ChannelRange, Discovery};

/// Validate a configuration and explain it, without starting anything.
///
/// Exits with 0 where the file is valid, and with 1 where it is not. Nothing is bound: whether its
/// addresses are this machine's and its ports free, `serve` alone finds out.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  hairpin check --config /etc/hairpin/config.toml
  hairpin check --json | jq .warnings")]
pub(super) struct Check {
    /// The configuration; otherwise ./config.toml, /etc/hairpin/config.toml or the defaults.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print JSON instead of text.
    #[arg(long)]
    json: bool,
}

impl Check {
    pub(super) fn run(self, out: &mut impl Write) -> Result<(), Error> {
        let loaded = Config::load(self.config.as_deref());
        if let (Err(error), true) = (&loaded, self.json) {
            writeln!(out, "{:#}", json!({ "error": error.to_string() }))?;
        }
        let (config, origin) = loaded?;
        match self.json {
            true => writeln!(out, "{:#}", as_json(&config, &origin))?,
            false => {
                write!(out, "{}", as_text(&config, &origin, clock::now().unix_secs))?;
            }
        }
        Ok(())
    }
}

fn as_text(config: &Config, origin: &Origin, unix_secs: u64) -> String {
    let auth = &config.turn.auth;
    let limits = &config.turn.limits;
    let net = &config.net;
    let threads = match net.threads {
        0 if !SHARES_PORTS => "one".to_owned(),
        0 => "one per core".to_owned(),
        threads => threads.to_string(),
    };
    let relays_from = net.relays_from();
    let relay_addresses = match (relays_from.is_empty(), net.relay_addresses.is_empty()) {
        (true, _) => "none".to_owned(),
        (false, true) => format!("{} (from the listeners)", list(&relays_from)),
        (false, false) => list(&relays_from),
    };
    let external = external(net, &relays_from);
    let bandwidth = match net.user_bandwidth {
        0 => "no limit".to_owned(),
        bytes => Bandwidth(bytes).to_string(),
    };
    let mut text = format!(
        "\
configuration  {origin}: ok
realm          {}
listen         {} (UDP, TCP{}{})
{}{}threads        {threads}
relay          ports {}-{} ({}), addresses: {relay_addresses}
{external}\
credentials    users: {}, shared secrets: {}
peers          {}
allocations    per user: {}, in all: {}
allocation     permissions: {}, channels: {}, lifetime: {} unless asked for, {} at most
bandwidth      per user: {bandwidth}
strangers      replies per second and source: {}
{}{}http           {}
log            {} as {}, to stderr
",
        auth.realm,
        list(&net.listen),
        if net.tls.is_some() { ", TLS" } else { "" },
        if config.http.shared { ", HTTP" } else { "" },
        proxies(&net.proxies),
        net.tls.as_ref().map_or_else(String::new, |tls| certificates(tls, unix_secs)),
        net.relay_ports.start(),
        net.relay_ports.end(),
        net.relay_ports.len(),
        auth.users.len(),
        auth.secrets.len(),
        peers(config),
        limit(net.allocations_per_user),
        limit(net.allocations),
        limit(limits.permissions_per_allocation),
        limit(limits.channels_per_allocation),
        Lifetime(limits.default_lifetime),
        Lifetime(limits.max_lifetime),
        limit(limits.unauthenticated_per_source as usize),
        config.turn.discovery.as_ref().map_or_else(String::new, discovery),
        if config.turn.mobility.is_some() { "mobility       on (RFC 8016)\n" } else { "" },
        http(config),
        config.log.level,
        config.log.format,
    );
    for warning in warnings(config, origin) {
        text.push_str(&format!("warning: {warning}\n"));
    }
    text
}

fn as_json(config: &Config, origin: &Origin) -> Value {
    let auth = &config.turn.auth;
    let limits = &config.turn.limits;
    let policy = &config.turn.policy;
    let net = &config.net;
    json!({
        "file": origin.file,
        "realm": auth.realm,
        "listen": net.listen,
        "tls": net.tls.as_ref().map(|tls| json!({
            "listen": tls.listen,
            "certificates": tls.pairs.iter().map(|pair| json!({
                "names": pair.certificate.names(),
                "not_after_unix_seconds": pair.certificate.not_after(),
            })).collect::<Vec<_>>(),
        })),
        "threads": net.threads,
        "relay": {
            "low": net.relay_ports.start(),
            "high": net.relay_ports.end(),
            "addresses": net.relay_addresses,
            "resolved": net.relays_from(),
            "external": net.external.aliases(&net.relays_from()).iter().map(|alias| json!({
                "external": alias.external,
                "local": alias.local,
            })).collect::<Vec<_>>(),
            "asked": net.external.unknown(&net.relays_from()),
            "external_stun": net.external.stun,
        },
        "auth": {
            "users": auth.users.len(),
            "secrets": auth.secrets.len(),
            "nonce_lifetime_seconds": auth.nonce_lifetime.as_secs(),
            "sha256": auth.sha256,
        },
        "peers": {
            "allow": policy.allow,
            "deny": policy.deny,
            "only_allowed": policy.only_allowed,
        },
        "limits": {
            "allocations_per_user": net.allocations_per_user,
            "allocations": net.allocations,
            "permissions_per_allocation": limits.permissions_per_allocation,
            "channels_per_allocation": limits.channels_per_allocation,
            "user_bandwidth_bytes_per_second": net.user_bandwidth,
            "unauthenticated_per_source": limits.unauthenticated_per_source,
            "default_lifetime_seconds": limits.default_lifetime.as_secs(),
            "max_lifetime_seconds": limits.max_lifetime.as_secs(),
            "permission_lifetime_seconds": limits.permission_lifetime.as_secs(),
            "channel_lifetime_seconds": limits.channel_lifetime.as_secs(),
            "unauthenticated_idle_seconds": net.unauthenticated_idle.as_secs(),
        },
        "nat_discovery": config.turn.discovery.as_ref().map(Discovery::addresses),
        "mobility": config.turn.mobility.is_some(),
        "rfc5766_channels": config.turn.channels == ChannelRange::Rfc5766,
        "software": config.turn.software,
        "proxy_sources": net.proxies,
        "http": config.http.listen,
        "http_shared": config.http.shared,
        "http_shared_admin": config.http.shared_admin,
        "log": {
            "level": config.log.level.to_string(),
            "format": config.log.format.to_string(),
        },
        "warnings": warnings(config, origin),
    })
}

/// All that `serve` would warn of.
fn warnings(config: &Config, origin: &Origin) -> Vec<String> {
    let mut warnings = config.warnings(origin);
    let relays_from = config.net.relays_from();
    let external = &config.net.external;
    let (aliases, asked) = (external.aliases(&relays_from), external.unknown(&relays_from));
    let shown = relays_from.iter().filter(|relay| !asked.contains(relay)).map(|&relay| {
        aliases.iter().find(|alias| alias.local == relay).map_or(relay, |alias| alias.external)
    });
    warnings.extend(shown.filter_map(|address| {
        Some(format!("relay address {address}: {}", server::reach_warning(address)?))
    }));
    warnings
}

/// A whole line, or nothing.
fn external(net: &net::Config, relays_from: &[IpAddr]) -> String {
    let known = net.external.aliases(relays_from);
    let known = known.iter().map(|alias| format!("{} for {}", alias.external, alias.local));
    let stun = net.external.stun.as_deref().unwrap_or_default();
    let asked = net.external.unknown(relays_from);
    let asked = asked.iter().map(|local| format!("for {local} ask {stun}"));
    match known.chain(asked).collect::<Vec<_>>() {
        lines if lines.is_empty() => String::new(),
        lines => format!("external       {}\n", lines.join(", ")),
    }
}

/// A whole line.
fn discovery(discovery: &Discovery) -> String {
    let [primary, .., alternate] = discovery.addresses();
    format!("NAT discovery  {primary} and {alternate} (RFC 5780)\n")
}

/// Whole lines.
fn certificates(tls: &tls::Config, unix_secs: u64) -> String {
    let mut lines = String::new();
    if !tls.listen.is_empty() {
        lines = format!("tls only       {}\n", list(&tls.listen));
    }
    for pair in &tls.pairs {
        let names = match pair.certificate.names() {
            [] => "no name at all".to_owned(),
            names => escaped(&list(names)).to_string(),
        };
        let days = pair.certificate.not_after().saturating_sub(unix_secs) / SECS_PER_DAY;
        lines.push_str(&format!("certificate    {names}; expires in {days} days\n"));
    }
    lines
}

fn peers(config: &Config) -> String {
    let policy = &config.turn.policy;
    let allowed = match (policy.only_allowed, policy.allow.is_empty()) {
        (true, true) => "none at all".to_owned(),
        (true, false) => format!("only {}", list(&policy.allow)),
        (false, true) => "public unicast addresses".to_owned(),
        (false, false) => format!("public unicast addresses, {}", list(&policy.allow)),
    };
    match policy.deny.is_empty() {
        true => allowed,
        false => format!("{allowed}; never {}", list(&policy.deny)),
    }
}

fn http(config: &Config) -> String {
    let http = &config.http;
    let own = match http.listen.is_empty() {
        true => "off".to_owned(),
        false => format!("metrics and health on {}", list(&http.listen)),
    };
    match (http.shared, http.shared_admin) {
        (false, _) => own,
        (true, false) => format!("{own}; health on the ports of TURN"),
        (true, true) => format!("{own}; metrics and health on the ports of TURN, for anybody"),
    }
}

/// A whole line, if any.
fn proxies(sources: &[IpNet]) -> String {
    match sources.is_empty() {
        true => String::new(),
        false => format!("proxies        {} (PROXY protocol, version 2)\n", list(sources)),
    }
}

fn limit(count: usize) -> String {
    match count {
        0 => "no limit".to_owned(),
        count => count.to_string(),
    }
}

fn list<T: ToString>(items: &[T]) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::external::Known;

    #[test]
    fn the_explanation_says_what_the_server_would_do() {
        let expected = "\
configuration  built-in defaults: ok
realm          localhost
listen         127.0.0.1:3478 (UDP, TCP, TLS)
tls only       127.0.0.1:5349
certificate    localhost, 127.0.0.1, ::1; expires in 20 days
threads        one per core
relay          ports 49152-65535 (16384), addresses: 127.0.0.1 (from the listeners)
credentials    users: 1, shared secrets: 0
peers          public unicast addresses, 127.0.0.0/8, 10.0.0.0/8, 172.16.0.0/12, \
192.168.0.0/16, ::1/128, fc00::/7
allocations    per user: 64, in all: no limit
allocation     permissions: 256, channels: 256, lifetime: 10m unless asked for, 1h at most
bandwidth      per user: no limit
strangers      replies per second and source: no limit
http           metrics and health on 127.0.0.1:8080
log            info as text, to stderr
";
        let mut config = Config::dev();
        let tls = config.net.tls.as_mut().unwrap();
        tls.listen.push("127.0.0.1:5349".parse().unwrap());
        let now = tls.pairs[0].certificate.not_after() - 20 * SECS_PER_DAY;
        assert_eq!(as_text(&config, &Origin::default(), now), expected);
    }

    #[test]
    fn what_shares_the_ports_and_what_is_in_front_of_them_is_told() {
        let mut config = Config::dev();
        config.net.proxies = vec!["10.1.0.0/16".parse().unwrap()];
        config.http.shared = true;
        let text = as_text(&config, &Origin::default(), 0);
        for line in [
            "listen         127.0.0.1:3478 (UDP, TCP, TLS, HTTP)\n\
             proxies        10.1.0.0/16 (PROXY protocol, version 2)\n",
            "http           metrics and health on 127.0.0.1:8080; health on the ports of TURN\n",
        ] {
            assert!(text.contains(line), "{text}");
        }
        config.http.listen.clear();
        config.http.shared_admin = true;
        let text = as_text(&config, &Origin::default(), 0);
        assert!(text.contains(
            "http           off; metrics and health on the ports of TURN, for anybody\n"
        ));
    }

    #[test]
    fn external_addresses_are_told_and_silence_the_warning_about_private_ones() {
        let mut config = Config::dev();
        config.net.relay_addresses = vec!["10.0.0.4".parse().unwrap()];
        let text = |config: &Config| as_text(config, &Origin::default(), 0);
        let warning = "cannot reach relayed addresses like this one";
        assert!(text(&config).contains(warning));
        config.net.external.stun = Some("stun.example.org:3478".to_owned());
        let asked = text(&config);
        assert!(asked.contains("\nexternal       for 10.0.0.4 ask stun.example.org:3478\n"));
        assert!(!asked.contains(warning), "{asked}");
        let external = "8.8.4.4".parse().unwrap();
        config.net.external.known = vec![Known { external, local: None }];
        let known = text(&config);
        assert!(known.contains("\nexternal       8.8.4.4 for 10.0.0.4\n"), "{known}");
        assert!(!known.contains(warning), "{known}");
        let relay = &as_json(&config, &Origin::default())["relay"];
        assert_eq!(relay["external"], json!([{ "external": "8.8.4.4", "local": "10.0.0.4" }]));
    }

    #[test]
    fn warnings_come_with_the_explanation() {
        let mut config = Config::dev();
        config.turn.auth.users.clear();
        let origin = Origin::default();
        let warning = "auth: neither users nor secrets: the server answers STUN and relays nothing";
        assert!(as_text(&config, &origin, 0).ends_with(&format!("\nwarning: {warning}\n")));
        assert_eq!(as_json(&config, &origin)["warnings"], json!([warning]));
    }

    #[test]
    fn the_peer_policy_is_told_in_words() {
        let mut config = Config::dev();
        config.turn.policy.allow = vec!["10.0.0.0/8".parse().unwrap()];
        config.turn.policy.deny = vec!["192.0.2.0/24".parse().unwrap()];
        config.turn.policy.only_allowed = true;
        assert_eq!(peers(&config), "only 10.0.0.0/8; never 192.0.2.0/24");
        config.turn.policy.allow.clear();
        assert_eq!(peers(&config), "none at all; never 192.0.2.0/24");
    }

    #[test]
    fn neither_form_shows_a_password() {
        let mut config = Config::dev();
        config.turn.auth.users = [("alice".to_owned(), "hunter2".into())].into();
        config.turn.auth.secrets = vec!["hunter2-hunter2-hunter2".to_owned()];
        let origin = Origin::default();
        assert!(!as_text(&config, &origin, 0).contains("hunter2"));
        assert!(!as_json(&config, &origin).to_string().contains("hunter2"));
    }
}
