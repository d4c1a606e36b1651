//! The explanation as text: a line for each thing an operator decides.

use std::fmt::Display;
use std::net::IpAddr;

use crate::config::{Bandwidth, Config, Lifetime, Origin, SECS_PER_DAY, Wait};
use crate::logging::escaped;
use crate::net::{SHARES_PORTS, external, tls};
use crate::turn::Discovery;

/// Where the values begin.
const COLUMN: usize = 15;

/// Lines of a label and a value.
#[derive(Default)]
struct Lines(String);

impl Lines {
    fn say(&mut self, label: &str, value: impl Display) {
        self.0.push_str(&format!("{label:COLUMN$}{value}\n"));
    }
}

/// All that a server with this configuration would do.
pub(super) fn explain(config: &Config, origin: &Origin, unix_secs: u64) -> String {
    let mut lines = Lines::default();
    lines.say("configuration", format_args!("{origin}: ok"));
    lines.say("realm", &config.turn.auth.realm);
    listening(&mut lines, config, unix_secs);
    relaying(&mut lines, config);
    limiting(&mut lines, config);
    if let Some(discovery) = &config.turn.discovery {
        lines.say("NAT discovery", addresses(discovery));
    }
    if config.turn.mobility.is_some() {
        lines.say("mobility", "on (RFC 8016)");
    }
    draining(&mut lines, config);
    lines.say("http", http(config));
    lines.say("signaling", signaling(config));
    lines.say("log", format_args!("{} as {}, to stderr", config.log.level, config.log.format));
    lines.0
}

fn listening(lines: &mut Lines, config: &Config, unix_secs: u64) {
    let net = &config.net;
    let tls = match &net.tls {
        None => "",
        Some(tls) if tls.dtls => ", TLS, DTLS",
        Some(_) => ", TLS",
    };
    let http = if config.http.shared { ", HTTP" } else { "" };
    lines.say("listen", format_args!("{} (UDP, TCP{tls}{http})", list(&net.listen)));
    if !net.proxies.is_empty() {
        lines.say("proxies", format_args!("{} (PROXY protocol, version 2)", list(&net.proxies)));
    }
    if let Some(tls) = &net.tls {
        certificates(lines, tls, unix_secs);
    }
    match net.threads {
        0 if !SHARES_PORTS => lines.say("threads", "one"),
        0 => lines.say("threads", "one per core"),
        threads => lines.say("threads", threads),
    }
}

fn certificates(lines: &mut Lines, tls: &tls::Config, unix_secs: u64) {
    if !tls.listen.is_empty() {
        lines.say("tls only", list(&tls.listen));
    }
    for pair in &tls.pairs {
        let names = match pair.certificate.names() {
            [] => "no name at all".to_owned(),
            names => escaped(&list(names)).to_string(),
        };
        let days = pair.certificate.not_after().saturating_sub(unix_secs) / SECS_PER_DAY;
        lines.say("certificate", format_args!("{names}; expires in {days} days"));
    }
}

fn relaying(lines: &mut Lines, config: &Config) {
    let net = &config.net;
    let transports = if config.turn.tcp_relay { "UDP and TCP" } else { "UDP" };
    let relays_from = net.relays_from();
    let from = match (relays_from.is_empty(), net.relay_addresses.is_empty()) {
        (true, _) => "none".to_owned(),
        (false, true) => format!("{} (from the listeners)", list(&relays_from)),
        (false, false) => list(&relays_from),
    };
    let (first, last) = (net.relay_ports.start(), net.relay_ports.end());
    let count = net.relay_ports.len();
    let each = if relays_from.len() > 1 { " on each" } else { "" };
    let text =
        format_args!("{transports}, ports {first}-{last} ({count}{each}), addresses: {from}");
    lines.say("relay", text);
    let shown = shown(&net.external, &relays_from);
    if !shown.is_empty() {
        lines.say("external", list(&shown));
    }
}

/// What the NAT in front makes of our relay addresses, as far as it is known yet.
fn shown(external: &external::Config, relays_from: &[IpAddr]) -> Vec<String> {
    let aliases = external.aliases(relays_from);
    let known = aliases.iter().map(|alias| format!("{} for {}", alias.external, alias.local));
    let stun = external.stun.as_deref().unwrap_or_default();
    let unknown = external.unknown(relays_from);
    known.chain(unknown.iter().map(|local| format!("for {local} ask {stun}"))).collect()
}

fn limiting(lines: &mut Lines, config: &Config) {
    let auth = &config.turn.auth;
    let limits = &config.turn.limits;
    let net = &config.net;
    let (users, secrets) = (auth.users.len(), auth.secrets.len());
    lines.say("credentials", format_args!("users: {users}, shared secrets: {secrets}"));
    lines.say("peers", peers(config));
    let (each, all) = (limit(net.allocations_per_user), limit(net.allocations));
    lines.say("allocations", format_args!("per user: {each}, in all: {all}"));
    let permissions = limit(limits.permissions_per_allocation);
    let channels = limit(limits.channels_per_allocation);
    let lifetime = Lifetime(limits.default_lifetime);
    let longest = Lifetime(limits.max_lifetime);
    let text = format_args!(
        "permissions: {permissions}, channels: {channels}, lifetime: {lifetime} unless asked for, \
         {longest} at most"
    );
    lines.say("allocation", text);
    let bandwidth = match net.user_bandwidth {
        0 => "no limit".to_owned(),
        bytes => Bandwidth(bytes).to_string(),
    };
    lines.say("bandwidth", format_args!("per user: {bandwidth}"));
    let replies = limit(limits.unauthenticated_per_source as usize);
    lines.say("strangers", format_args!("replies per second and source: {replies}"));
}

fn draining(lines: &mut Lines, config: &Config) {
    let turn = &config.turn;
    if !turn.alternates.is_empty() {
        lines.say("alternates", format_args!("new clients go to {}", list(&turn.alternates)));
    }
    if config.drain_for.is_zero() {
        return lines.say("drain", "not at all: SIGTERM stops at once");
    }
    let to = match &[&turn.drain_to[..], &turn.alternates].concat()[..] {
        [] => "are refused".to_owned(),
        to => format!("go to {}", list(to)),
    };
    let at_most = Wait(config.drain_for);
    lines.say("drain", format_args!("{at_most} at most; new clients {to} meanwhile"));
}

fn addresses(discovery: &Discovery) -> String {
    let [primary, .., alternate] = discovery.addresses();
    format!("{primary} and {alternate} (RFC 5780)")
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
    let public = if http.pages { "health and pages" } else { "health" };
    let own = match http.listen.is_empty() {
        true => "off".to_owned(),
        false => format!("metrics, {public} on {}", list(&http.listen)),
    };
    match (http.shared, http.shared_admin) {
        (false, _) => own,
        (true, false) => format!("{own}; {public} on the ports of TURN"),
        (true, true) => format!("{own}; metrics, {public} on the ports of TURN, for anybody"),
    }
}

fn signaling(config: &Config) -> String {
    let Some(signaling) = &config.http.signaling else { return "off".to_owned() };
    let host = config.public_host().unwrap_or_default();
    let claimed = |claim, wanted: Option<&str>| match wanted {
        None => String::new(),
        Some(wanted) => format!(" {claim} {}", escaped(wanted)),
    };
    let keys = &signaling.keys;
    let (audience, issuer) = keys.demands();
    let who = match (signaling.hub.open, keys.len()) {
        (true, _) => "open to everybody".to_owned(),
        (false, count) => format!(
            "with tokens of {count} key(s){}{}",
            claimed("for", audience),
            claimed("by", issuer)
        ),
    };
    let origins = match &signaling.origins.allowed[..] {
        [] => "its own origin".to_owned(),
        origins => format!("its own origin, {}", list(origins)),
    };
    format!("/ws and /ice-servers for {host}, {who}, for pages of {origins}")
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

    #[test]
    fn the_explanation_says_what_the_server_would_do() {
        let expected = "\
configuration  built-in defaults: ok
realm          localhost
listen         127.0.0.1:3478 (UDP, TCP, TLS, DTLS)
tls only       127.0.0.1:5349
certificate    localhost, 127.0.0.1, ::1; expires in 20 days
threads        one per core
relay          UDP and TCP, ports 49152-65535 (16384), addresses: 127.0.0.1 (from the listeners)
credentials    users: 1, shared secrets: 0
peers          public unicast addresses, 127.0.0.0/8, 10.0.0.0/8, 172.16.0.0/12, \
192.168.0.0/16, ::1/128, fc00::/7
allocations    per user: 64, in all: no limit
allocation     permissions: 256, channels: 256, lifetime: 10m unless asked for, 1h at most
bandwidth      per user: no limit
strangers      replies per second and source: no limit
drain          not at all: SIGTERM stops at once
http           metrics, health and pages on 127.0.0.1:8080
signaling      /ws and /ice-servers for 127.0.0.1, open to everybody, for pages of its own origin
log            info as text, to stderr
";
        let mut config = Config::dev();
        let tls = config.net.tls.as_mut().unwrap();
        tls.listen.push("127.0.0.1:5349".parse().unwrap());
        let now = tls.pairs[0].certificate.not_after() - 20 * SECS_PER_DAY;
        assert_eq!(explain(&config, &Origin::default(), now), expected);
    }

    #[test]
    fn what_shares_the_ports_and_what_is_in_front_of_them_is_told() {
        let mut config = Config::dev();
        config.net.proxies = vec!["10.1.0.0/16".parse().unwrap()];
        config.http.shared = true;
        let text = explain(&config, &Origin::default(), 0);
        for line in [
            "listen         127.0.0.1:3478 (UDP, TCP, TLS, DTLS, HTTP)\n\
             proxies        10.1.0.0/16 (PROXY protocol, version 2)\n",
            "http           metrics, health and pages on 127.0.0.1:8080; health and pages on the ports \
             of TURN\n",
        ] {
            assert!(text.contains(line), "{text}");
        }
        config.http.listen.clear();
        config.http.shared_admin = true;
        let text = explain(&config, &Origin::default(), 0);
        assert!(text.contains(
            "http           off; metrics, health and pages on the ports of TURN, for anybody\n"
        ));
    }

    #[test]
    fn several_relay_addresses_have_the_ports_each() {
        let mut config = Config::dev();
        config.net.relay_addresses = ["10.0.0.4", "10.0.0.5"].map(|ip| ip.parse().unwrap()).into();
        let text = explain(&config, &Origin::default(), 0);
        let line = "relay          UDP and TCP, ports 49152-65535 (16384 on each), addresses: \
                    10.0.0.4, 10.0.0.5\n";
        assert!(text.contains(line), "{text}");
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
}
