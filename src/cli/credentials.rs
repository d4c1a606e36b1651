//! `hairpin credentials`: what a web service hands to its clients, made by hand.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::Error;
use crate::config::{Config, Lifetime, MAX_USERNAME_BYTES, PublicHost};
use crate::net::{clock, ice_urls};
use crate::turn::rest::Credentials as Minted;

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
    /// The server's name or IP address in the URLs; otherwise public_host, otherwise its first
    /// listen address, and needed where that is a wildcard.
    #[arg(long)]
    host: Option<PublicHost>,
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
        let minted = Minted::mint(secret, &self.user, unix_secs.saturating_add(ttl));
        if minted.username.len() > MAX_USERNAME_BYTES {
            return Err(Error::Refused(format!(
                "--user: too long; with the time in front it has {MAX_USERNAME_BYTES} bytes at most"
            )));
        }
        let tls = config.net.tls.as_ref().map(|tls| &tls.listen[..]);
        let urls = ice_urls(&self.host(config)?, &config.net.listen, tls);
        Ok(json!({ "iceServers": [minted.ice_server(&urls)], "ttl": ttl }))
    }

    /// The host as it is written in a URL.
    fn host(&self, config: &Config) -> Result<String, Error> {
        if let Some(host) = &self.host {
            return Ok(host.to_string());
        }
        config.public_host().ok_or_else(|| {
            Error::Refused(
                "--host is needed, for the server listens on all addresses: give the name or IP \
                 address that clients reach it by, such as --host turn.example.org, or set \
                 public_host"
                    .to_owned(),
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::turn::rest;

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
