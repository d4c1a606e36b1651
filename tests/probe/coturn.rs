//! Debian's coturn: a server of others, with RFC 5780.

use std::net::SocketAddr;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::netns::Namespace;
use crate::server::{Process, eventually, hairpin, private_port, run};

/// A coturn that answers. Killed when dropped.
pub(crate) struct Coturn {
    _process: Process,
    _directory: TempDir,
    /// Its first address.
    pub(crate) address: SocketAddr,
}

impl Coturn {
    /// Starts on loopback, on a port of its own; none where coturn is not installed, which CI does
    /// not accept.
    pub(crate) fn start(addresses: &[&str], options: &[&str]) -> Option<Self> {
        let port = private_port();
        Self::run(Command::new("turnserver"), hairpin, addresses, port, options)
    }

    /// Starts in a namespace, on port 3478; `client` is a command of one that reaches it.
    pub(crate) fn start_in(
        namespace: &Namespace,
        client: &Namespace,
        addresses: &[&str],
        options: &[&str],
    ) -> Option<Self> {
        let client = || client.hairpin();
        Self::run(namespace.command("turnserver"), client, addresses, 3478, options)
    }

    fn run(
        mut command: Command,
        client: impl Fn() -> Command,
        addresses: &[&str],
        port: u16,
        options: &[&str],
    ) -> Option<Self> {
        if !is_installed() {
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let alternative = if port == 3478 { 3479 } else { private_port() };
        command.args(["-n", "--no-cli", "--no-dtls", "--log-file", "stdout"]);
        if !options.contains(&"--no-auth") {
            command.arg("-a");
        }
        command.args(["-r", "test", "-m", "1", "-p", &port.to_string()]);
        command.args(["--alt-listening-port", &alternative.to_string()]);
        // TLS goes to the same port; its own has to be another one.
        command.args(["--tls-listening-port", &private_port().to_string()]);
        if !options.contains(&"--cert") {
            command.arg("--no-tls");
        }
        command.arg("--userdb").arg(directory.path().join("turndb"));
        command.arg("--pidfile").arg(directory.path().join("pid"));
        for address in addresses {
            command.args(["-L", address, "-E", address]);
        }
        let process = Process::spawn(command.args(options).stdin(Stdio::null()));
        let address = SocketAddr::new(addresses[0].parse().unwrap(), port);
        let uri = format!("stun:{address}");
        eventually("coturn answers", || {
            let ended = run(client().args(["doctor", &uri, "--timeout", "1s", "--count", "1"]));
            ended.status.success().then_some(())
        });
        Some(Self { _process: process, _directory: directory, address })
    }
}

fn is_installed() -> bool {
    let found = Command::new("turnserver")
        .arg("--help")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if found.is_err() {
        assert!(std::env::var_os("CI").is_none(), "in CI nothing is skipped: install coturn");
        eprintln!("not run: no turnserver on this machine (apt install coturn)");
    }
    found.is_ok()
}
