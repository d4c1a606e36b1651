//! TLS as a scanner sees it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};

use crate::server::{ConfigFile, Server, hairpin, run};
use crate::tls::{Key, YEAR, toml, write_pair_of};

#[test]
fn a_scanner_finds_no_old_version_and_no_weak_suite() {
    for key in [Key::Ecdsa, Key::Rsa] {
        scan(key);
    }
}

fn scan(key: Key) {
    let config = ConfigFile::new(&toml("cert = \"cert.pem\"\nkey = \"key.pem\""));
    write_pair_of(key, &config, "cert.pem", "key.pem", YEAR);
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
    // A scanner without zlib cannot ask; what it would be told is seen below.
    assert!(!report.contains("Compression enabled"), "{report}");
    assert_eq!(compression_agreed_on(server.turn), 0, "RFC 8489 §6.2.3");
    assert!(!report.replace("not vulnerable", "").contains("vulnerable"), "{report}");
    let suites: Vec<_> = report
        .lines()
        .filter(|line| line.starts_with("Preferred") || line.starts_with("Accepted"))
        .collect();
    assert!(suites.len() >= 6, "{report}");
    if key == Key::Rsa {
        // RFC 8489 §6.2.3
        let mandatory = "ECDHE-RSA-AES128-GCM-SHA256";
        assert!(suites.iter().any(|suite| suite.contains(mandatory)), "{report}");
    }
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

/// The method that the server chooses of DEFLATE and none.
fn compression_agreed_on(server: SocketAddr) -> u8 {
    let suites = [0xC0, 0x2B, 0xC0, 0x2F];
    let extensions = [
        // secp256r1, uncompressed points, and ECDSA and RSA-PSS with SHA-256.
        &[0, 10, 0, 4, 0, 2, 0, 23][..],
        &[0, 11, 0, 2, 1, 0],
        &[0, 13, 0, 6, 0, 4, 4, 3, 8, 4],
    ]
    .concat();
    let mut hello = [&[3, 3][..], &[7; 32], &[0, 0, 4], &suites, &[2, 1, 0, 0]].concat();
    hello.push(extensions.len() as u8);
    hello.extend(extensions);
    let length = hello.len() as u8;
    let record = [&[22, 3, 1, 0, length + 4, 1, 0, 0, length][..], &hello].concat();
    let mut stream = TcpStream::connect(server).unwrap();
    stream.write_all(&record).unwrap();
    let mut answer = [0; 44];
    stream.read_exact(&mut answer).unwrap();
    // A record with a ServerHello, up to the length of its session id.
    assert_eq!((answer[0], answer[5]), (22, 2), "{answer:?}");
    let mut rest = vec![0; usize::from(answer[43]) + 3];
    stream.read_exact(&mut rest).unwrap();
    *rest.last().unwrap()
}
