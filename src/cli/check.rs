//! `hairpin check`: what would a server with this configuration do?

mod text;

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::Error;
use crate::config::{Config, Origin};
use crate::http::credentials::Source;
use crate::net::{clock, sys};
use crate::server;
use crate::signal::Replace;
use crate::turn::{Alternate, ChannelRange, Discovery};

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

/// The explanation, and all that `serve` would warn of.
fn as_text(config: &Config, origin: &Origin, unix_secs: u64) -> String {
    let mut text = text::explain(config, origin, unix_secs);
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
            "dtls": tls.dtls,
            "certificates": tls.pairs.iter().map(|pair| json!({
                "names": pair.certificate.names(),
                "not_after_unix_seconds": pair.certificate.not_after(),
            })).collect::<Vec<_>>(),
        })),
        "threads": net.threads,
        "relay": relay_as_json(config),
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
        "alternate_servers": list(&config.turn.alternates),
        "drain_for_seconds": config.drain_for.as_secs(),
        "drain_to": list(&config.turn.drain_to),
        "mobility": config.turn.mobility.is_some(),
        "rfc5766_channels": config.turn.channels == ChannelRange::Rfc5766,
        "software": config.turn.software,
        "proxy_sources": net.proxies,
        "http": config.http.listen,
        "http_shared": config.http.shared,
        "http_shared_admin": config.http.shared_admin,
        "pages": config.http.pages,
        "public_host": config.public_host(),
        "signaling": signaling_as_json(config),
        "log": {
            "level": config.log.level.to_string(),
            "format": config.log.format.to_string(),
        },
        "warnings": warnings(config, origin),
    })
}

/// As they are written in the configuration.
fn list(alternates: &[Alternate]) -> Vec<String> {
    alternates.iter().map(Alternate::to_string).collect()
}

fn relay_as_json(config: &Config) -> Value {
    let net = &config.net;
    let relays_from = net.relays_from();
    json!({
        "low": net.relay_ports.start(),
        "high": net.relay_ports.end(),
        "addresses": net.relay_addresses,
        "resolved": relays_from,
        "tcp": config.turn.tcp_relay,
        "external": net.external.aliases(&relays_from).iter().map(|alias| json!({
            "external": alias.external,
            "local": alias.local,
        })).collect::<Vec<_>>(),
        "asked": net.external.unknown(&relays_from),
        "external_stun": net.external.stun,
    })
}

fn signaling_as_json(config: &Config) -> Option<Value> {
    let signaling = config.http.signaling.as_ref()?;
    let (audience, issuer) = signaling.keys.demands();
    Some(json!({
        "origins": signaling.origins.allowed,
        "open": signaling.hub.open,
        "keys": signaling.keys.len(),
        "audience": audience,
        "issuer": issuer,
        "credentials": !matches!(signaling.source, Source::None),
        "replace": match signaling.hub.replace {
            Replace::Secret => "secret",
            Replace::Always => "always",
        },
    }))
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
    warnings.extend(server::descriptor_warning(&config.net, sys::descriptor_limit()));
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net;
    use crate::net::external::Known;

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
        // Fewer than any limit of open files.
        config.net.relay_ports = 50_000..=50_009;
        let origin = Origin::default();
        let warning = "auth: neither users nor secrets: the server answers STUN and relays nothing";
        assert!(as_text(&config, &origin, 0).ends_with(&format!("\nwarning: {warning}\n")));
        assert_eq!(as_json(&config, &origin)["warnings"], json!([warning]));
    }

    #[test]
    fn room_for_fewer_allocations_than_relay_ports_is_told() {
        let mut net = Config::dev().net;
        net.threads = 1;
        let told = |net: &net::Config, limit| server::descriptor_warning(net, limit);
        let text = told(&net, Some(1024)).unwrap();
        assert!(text.starts_with(
            "open files: 1024, the hard limit here, leave room for 986 allocations of the 16384 "
        ));
        assert_eq!([told(&net, Some(16_384 + 38)), told(&net, None)], [None, None]);
        assert!(told(&net, Some(0)).unwrap().contains("for 0 allocations"));
        net.relay_addresses = ["10.0.0.4", "10.0.0.5"].map(|ip| ip.parse().unwrap()).into();
        assert!(told(&net, Some(16_384 + 38)).unwrap().contains("of the 32768 "));
        net.allocations = 986;
        assert_eq!(told(&net, Some(1024)), None);
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
