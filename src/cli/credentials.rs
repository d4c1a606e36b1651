//! `hairpin credentials`: what a web service hands to its clients, made by hand.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use serde_json::{Value, json};

use super::Error;
use crate::config::{Config, Lifetime, MAX_USERNAME_BYTES};
use crate::net::{self, clock};
use crate::turn::rest;

/// Make TURN credentials that expire, as iceServers JSON.
///
/// The first of the configured secrets makes them; every server with that secret accepts them.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  hairpin credentials --user alice --host turn.example.org
  hairpin credentials --user alice --host 192.0.2.7 --ttl 12h
  HAIRPIN_AUTH_SECRET=… hairpin credentials --user alice --host 192.0.2.7 | jq .iceServers")]
pub(super) struct Credentials {
    /// Whose they are; the server logs it and counts its quota by it.
    #[arg(long, value_name = "NAME")]
    user: String,
    /// How long they are good, such as 10m or 1h30m.
    #[arg(long, default_value = "1h")]
    ttl: Lifetime,
    /// The configuration; otherwise ./config.toml, /etc/hairpin/config.toml or the defaults.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The server's name or IP address in the URLs; otherwise its first listen address, and
    /// needed where that is a wildcard.
    #[arg(long)]
    host: Option<Host>,
}

impl Credentials {
    pub(super) fn run(self, out: &mut impl Write) -> Result<(), Error> {
        let (config, _) = Config::load(self.config.as_deref())?;
        let minted = self.mint(&config, clock::now().unix_secs)?;
        writeln!(out, "{minted:#}")?;
        Ok(())
    }

    fn mint(&self, config: &Config, unix_secs: u64) -> Result<Value, Error> {
        if self.user.is_empty() || self.user.chars().any(char::is_control) {
            return Err(Error::Refused(
                "--user: must not be empty or contain control characters".to_owned(),
            ));
        }
        let Some(secret) = config.turn.auth.secrets.first() else {
            return Err(Error::Refused(
                "no secret to make credentials with: add auth.secrets or auth.secret_file to the \
                 configuration, or set HAIRPIN_AUTH_SECRET"
                    .to_owned(),
            ));
        };
        let ttl = self.ttl.0.as_secs();
        let username = rest::username(unix_secs.saturating_add(ttl), &self.user);
        if username.len() > MAX_USERNAME_BYTES {
            return Err(Error::Refused(format!(
                "--user: too long; with the time in front it has {MAX_USERNAME_BYTES} bytes at most"
            )));
        }
        let credential = rest::password(secret, &username);
        let urls = urls(&self.host(config)?, &config.net);
        let server = json!({ "urls": urls, "username": username, "credential": credential });
        Ok(json!({ "iceServers": [server], "ttl": ttl }))
    }

    /// The host as it is written in a URL.
    fn host(&self, config: &Config) -> Result<String, Error> {
        if let Some(host) = &self.host {
            return Ok(host.0.clone());
        }
        let listen = config.net.listen.iter().map(SocketAddr::ip);
        let mut reachable = listen.filter(|host| !host.is_unspecified());
        reachable.next().map(in_url).ok_or_else(|| {
            Error::Refused(
                "--host is needed, for the server listens on all addresses: give the name or IP \
                 address that clients reach it by, such as --host turn.example.org"
                    .to_owned(),
            )
        })
    }
}

/// A host as it is written in a URL.
#[derive(Clone, Debug)]
struct Host(String);

impl FromStr for Host {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse::<IpAddr>() {
            Ok(ip) if ip.is_unspecified() => Err("clients cannot reach a wildcard"),
            // An IPv6 address needs brackets, whoever typed it.
            Ok(ip) => Ok(Self(in_url(ip))),
            Err(_) if is_host_name(text) => Ok(Self(text.to_owned())),
            Err(_) => Err("must be a host name or an IP address, without scheme, port and path"),
        }
    }
}

/// RFC 1123 §2.1, and the underscore that some networks use.
fn is_host_name(text: &str) -> bool {
    let is_label = |label: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        matches!(label.len(), 1..=63)
            && label.bytes().all(plain)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    // A number at the end would make it an IPv4 address, and a wrong one.
    let numeric = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
    text.len() <= 253 && text.split('.').all(is_label) && !text.rsplit('.').take(1).all(numeric)
}

fn in_url(host: IpAddr) -> String {
    match host {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("[{v6}]"),
    }
}

/// The URLs of every port the server listens on, in the order in which clients should try them.
fn urls(host: &str, net: &net::Config) -> Vec<String> {
    let (all, tls) = match &net.tls {
        None => (ports(&net.listen), Vec::new()),
        Some(tls) => (ports(&net.listen), ports(&[&net.listen[..], &tls.listen].concat())),
    };
    let plain = all.iter().flat_map(|port| {
        [
            format!("stun:{host}:{port}"),
            format!("turn:{host}:{port}?transport=udp"),
            format!("turn:{host}:{port}?transport=tcp"),
        ]
    });
    plain.chain(tls.iter().map(|port| format!("turns:{host}:{port}?transport=tcp"))).collect()
}

/// Each port once.
fn ports(listen: &[SocketAddr]) -> Vec<u16> {
    let mut ports: Vec<u16> = listen.iter().map(SocketAddr::port).collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "north-of-everything";

    #[test]
    fn credentials_are_what_a_web_service_would_hand_out() {
        let minted = asked("alice", None).mint(&config(), 1_433_062_316).unwrap();
        let expected = json!({
            "iceServers": [{
                "urls": [
                    "stun:127.0.0.1:3478",
                    "turn:127.0.0.1:3478?transport=udp",
                    "turn:127.0.0.1:3478?transport=tcp",
                    "turns:127.0.0.1:3478?transport=tcp",
                ],
                "username": "1433065916:alice",
                "credential": "EFdEU6pBw2jxgawhGBGz4VQQWeU=",
            }],
            "ttl": 3600,
        });
        assert_eq!(minted, expected);
    }

    #[test]
    fn the_server_that_minted_credentials_accepts_them_until_they_expire() {
        let minted = asked("a:b", None).mint(&config(), 1000).unwrap();
        let username = minted["iceServers"][0]["username"].as_str().unwrap().to_owned();
        assert!(rest::is_valid_at(&username, 4600));
        assert!(!rest::is_valid_at(&username, 4601));
        assert_eq!(minted["iceServers"][0]["credential"], rest::password(SECRET, &username));
    }

    #[test]
    fn the_host_is_the_one_asked_for_or_an_address() {
        let mut config = config();
        assert_eq!(asked("a", Some("turn.test")).host(&config).unwrap(), "turn.test");
        assert_eq!(asked("a", Some("2001:db8::1")).host(&config).unwrap(), "[2001:db8::1]");
        config.net.listen =
            vec!["0.0.0.0:3478".parse().unwrap(), "[2001:db8::1]:3478".parse().unwrap()];
        assert_eq!(asked("a", None).host(&config).unwrap(), "[2001:db8::1]");
    }

    /// The realm is not a name that clients could look up.
    #[test]
    fn without_an_address_the_host_must_be_named() {
        let mut config = config();
        config.net.listen = vec!["0.0.0.0:3478".parse().unwrap(), "[::]:3478".parse().unwrap()];
        let error = asked("a", None).mint(&config, 0).unwrap_err().to_string();
        assert!(error.starts_with("--host is needed"), "{error}");
        assert!(asked("a", Some("turn.test")).mint(&config, 0).is_ok());
    }

    #[test]
    fn hosts_that_make_no_url_are_refused() {
        let long = "x".repeat(64);
        for text in [
            "",
            " ",
            "https://x",
            "x:3478",
            "a b",
            "a/b",
            "x?y",
            "a@b",
            "[::1]",
            "::1]",
            ".",
            "a.",
            "a..b",
            "-a",
            "a-",
            "1.2.3",
            "256.1.1.1",
            "0.0.0.0",
            "::",
            "é.test",
            &long,
        ] {
            assert!(text.parse::<Host>().is_err(), "{text:?}");
        }
        for text in ["x", "localhost", "turn-1.example.org", "a_b", "192.0.2.1", "3com.test"] {
            assert_eq!(text.parse::<Host>().unwrap().0, text);
        }
    }

    #[test]
    fn every_port_has_its_urls_once() {
        let mut net = config().net;
        net.listen =
            ["0.0.0.0:3478", "[::]:3478", "0.0.0.0:443"].map(|it| it.parse().unwrap()).into();
        net.tls.as_mut().unwrap().listen = vec!["[::]:5349".parse().unwrap()];
        let mut expected = vec![
            "stun:h:443",
            "turn:h:443?transport=udp",
            "turn:h:443?transport=tcp",
            "stun:h:3478",
            "turn:h:3478?transport=udp",
            "turn:h:3478?transport=tcp",
            "turns:h:443?transport=tcp",
            "turns:h:3478?transport=tcp",
            "turns:h:5349?transport=tcp",
        ];
        assert_eq!(urls("h", &net), expected);
        net.tls = None;
        expected.truncate(6);
        assert_eq!(urls("h", &net), expected);
    }

    #[test]
    fn names_no_server_would_take_are_refused() {
        for name in ["", "a\nb", &"x".repeat(508)] {
            assert!(asked(name, None).mint(&config(), 1_433_062_316).is_err(), "{name:?}");
        }
    }

    #[test]
    fn without_a_secret_it_says_what_to_add() {
        let error = asked("alice", None).mint(&Config::dev(), 0).unwrap_err();
        assert_eq!(
            error.to_string(),
            "no secret to make credentials with: add auth.secrets or auth.secret_file to the \
             configuration, or set HAIRPIN_AUTH_SECRET"
        );
    }

    fn config() -> Config {
        let mut config = Config::dev();
        config.turn.auth.secrets.push(SECRET.to_owned());
        config
    }

    fn asked(user: &str, host: Option<&str>) -> Credentials {
        Credentials {
            user: user.to_owned(),
            ttl: "1h".parse().unwrap(),
            config: None,
            host: host.map(|host| host.parse().unwrap()),
        }
    }
}
