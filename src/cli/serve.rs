//! `hairpin serve`.

use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;

use clap::Args;
use tracing::{info, warn};

use super::{Error, holder};
use crate::config::{Config, Origin};
use crate::logging;
use crate::net::{BindError, sys};
use crate::server::{self, Addresses};

/// Run the server.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  hairpin serve --config /etc/hairpin/config.toml
  hairpin serve --dev")]
pub(super) struct Serve {
    /// The configuration; otherwise ./config.toml, /etc/hairpin/config.toml or the defaults.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// For development: user dev, password dev, private peers allowed, on 127.0.0.1 only.
    ///
    /// STUN and TURN on UDP port 3478, HTTP on 8080 or, where that is taken, on any free port.
    /// No file has a say in it, so that this much freedom is never served on a public address.
    #[arg(long, conflicts_with = "config")]
    dev: bool,
}

impl Serve {
    pub(super) fn run(self, out: &mut impl Write) -> Result<(), Error> {
        let (config, origin) = match self.dev {
            true => (dev_config().allowing_this_machine(), Origin::default()),
            false => Config::load(self.config.as_deref())?,
        };
        // Held to the end: dropping it writes the last lines.
        let _log = logging::init(&config.log)
            .map_err(|error| Error::Refused(format!("cannot start logging: {error}")))?;
        if !self.dev {
            info!(config = %origin, "configuration read");
        }
        if let Err(error) = sys::raise_descriptor_limit() {
            warn!(%error, "the limit of open files stays where it is");
        }
        let few = server::descriptor_warning(&config.net, sys::descriptor_limit());
        for warning in config.warnings(&origin).into_iter().chain(few) {
            warn!("{warning}");
        }
        let mut printed = Ok(());
        let served = server::run(config, |addresses| {
            if let Some(banner) = dev_banner(addresses).filter(|_| self.dev) {
                printed = write!(out, "{banner}").and_then(|()| out.flush());
            }
        });
        served.map_err(explained)?;
        Ok(printed?)
    }
}

/// The pages of a development server are found through its banner, so they may be anywhere; half
/// the tools of a developer want port 8080.
fn dev_config() -> Config {
    let mut config = Config::dev();
    for address in &mut config.http.listen {
        let bound = TcpListener::bind(*address);
        if bound.is_err_and(|error| error.kind() == ErrorKind::AddrInUse) {
            address.set_port(0);
        }
    }
    config
}

/// Says who holds the port of a listener that is taken.
fn explained(error: server::Error) -> Error {
    let server::Error::Bind(BindError::Listen { address, transport: "udp" | "dtls", error: cause }) =
        &error
    else {
        return error.into();
    };
    match holder::of_udp_port(address.port()).filter(|_| cause.kind() == ErrorKind::AddrInUse) {
        Some(holder) => Error::Refused(format!("{error}; {holder} holds it")),
        None => error.into(),
    }
}

/// What a developer pastes into a page, or `None` where nothing listens.
fn dev_banner(addresses: &Addresses) -> Option<String> {
    let turn = addresses.listen.first()?;
    let http = addresses.http.iter().map(http_lines).collect::<String>();
    Some(format!(
        "\
hairpin is ready. For your RTCPeerConnection:

iceServers: [
  {{ urls: \"stun:{turn}\" }},
  {{ urls: \"turn:{turn}?transport=udp\", username: \"dev\", credential: \"dev\" }},
  {{ urls: \"turn:{turn}?transport=tcp\", username: \"dev\", credential: \"dev\" }},
  // Only for browsers that were told to accept the certificate, which is new at each start.
  {{ urls: \"turns:{turn}?transport=tcp\", username: \"dev\", credential: \"dev\" }},
]

{http}"
    ))
}

fn http_lines(http: &SocketAddr) -> String {
    format!(
        "\
Test:    http://{http}/test
Call:    http://{http}/call
Metrics: http://{http}/metrics
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_banner_can_be_pasted() {
        let addresses = Addresses {
            listen: vec!["127.0.0.1:3478".parse().unwrap()],
            tls: Vec::new(),
            dtls: Vec::new(),
            http: vec!["127.0.0.1:8080".parse().unwrap()],
        };
        let expected = r#"hairpin is ready. For your RTCPeerConnection:

iceServers: [
  { urls: "stun:127.0.0.1:3478" },
  { urls: "turn:127.0.0.1:3478?transport=udp", username: "dev", credential: "dev" },
  { urls: "turn:127.0.0.1:3478?transport=tcp", username: "dev", credential: "dev" },
  // Only for browsers that were told to accept the certificate, which is new at each start.
  { urls: "turns:127.0.0.1:3478?transport=tcp", username: "dev", credential: "dev" },
]

Test:    http://127.0.0.1:8080/test
Call:    http://127.0.0.1:8080/call
Metrics: http://127.0.0.1:8080/metrics
"#;
        assert_eq!(dev_banner(&addresses).unwrap(), expected);
    }
}
