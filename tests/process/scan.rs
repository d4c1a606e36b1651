//! TLS as a scanner sees it.

use std::process::{Command, Stdio};

use crate::server::{ConfigFile, Server, hairpin, run};
use crate::tls::{YEAR, toml, write_pair};

#[test]
fn a_scanner_finds_no_old_version_and_no_weak_suite() {
    let config = ConfigFile::new(&toml("cert = \"cert.pem\"\nkey = \"key.pem\""));
    write_pair(&config, "cert.pem", "key.pem", YEAR);
    let server = Server::start_in(&mut hairpin(), config);
    if Command::new("sslscan").arg("--version").stdout(Stdio::null()).status().is_err() {
        assert!(std::env::var_os("CI").is_none(), "in CI nothing is skipped: install sslscan");
        eprintln!("not run: no sslscan on this machine (apt install sslscan)");
        return;
    }
    let options = ["--no-colour", "--show-sigs"];
    let target = server.turn.to_string();
    let ended = run(Command::new("sslscan").args(options).arg(target).stdin(Stdio::null()));
    let report = ended.stdout;
    assert!(ended.status.success(), "{report}");
    for (version, state) in [
        ("SSLv2", "disabled"),
        ("SSLv3", "disabled"),
        ("TLSv1.0", "disabled"),
        ("TLSv1.1", "disabled"),
        ("TLSv1.2", "enabled"),
        ("TLSv1.3", "enabled"),
    ] {
        let said = |line: &str| line.split_whitespace().eq([version, state]);
        assert!(report.lines().any(said), "{version} {state}: {report}");
    }
    assert!(report.contains("Session renegotiation not supported"), "{report}");
    assert!(!report.replace("not vulnerable", "").contains("vulnerable"), "{report}");
    let suites: Vec<_> = report
        .lines()
        .filter(|line| line.starts_with("Preferred") || line.starts_with("Accepted"))
        .collect();
    assert!(suites.len() >= 6, "{report}");
    for suite in suites {
        // Forward secrecy, and authenticated encryption.
        let name = suite.split_whitespace().nth(4).unwrap();
        let is_agreed_anew = name.starts_with("TLS_") || name.starts_with("ECDHE-");
        let is_authenticated = name.contains("GCM") || name.contains("CHACHA20");
        assert!(is_agreed_anew && is_authenticated, "{suite}");
    }
    assert!(server.process().stderr().lines().iter().all(|line| !line.contains("ERROR")));
    server.stop();
}
