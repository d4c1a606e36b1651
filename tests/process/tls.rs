//! Certificates as an operator handles them: named in a file, replaced on disk, asked about.

use crate::server::{ConfigFile, Ended, Server, Settings, eventually, hairpin, run};

const RELOADED: &str = r#"hairpin_tls_reloads_total{result="success"}"#;
const FAILED: &str = r#"hairpin_tls_reloads_total{result="failure"}"#;

#[test]
fn replaced_files_serve_without_a_signal_and_with_one() {
    let config = ConfigFile::new(&toml("cert = \"cert.pem\"\nkey = \"key.pem\""));
    write_pair(&config, "cert.pem", "key.pem", YEAR);
    let server = Server::start_in(&mut hairpin(), config);
    server.process().stderr().wait_for("serving TLS", 1);
    for round in 1..=2 {
        write_pair(&server.config, "cert.pem", "key.pem", YEAR);
        // Between the two renames the files may be seen once, and refused.
        eventually("a change is seen", || {
            (server.metrics().sum(&[RELOADED]) == round).then_some(())
        });
    }
    let failed = server.metrics().sum(&[FAILED]);
    server.process().signal("HUP");
    eventually("the signal is heard", || (server.metrics().sum(&[RELOADED]) == 3).then_some(()));
    server.config.write("key.pem", "garbage");
    server.process().signal("HUP");
    eventually("garbage is counted", || (server.metrics().sum(&[FAILED]) > failed).then_some(()));
    assert_eq!(server.metrics().sum(&[RELOADED]), 3);
    let line = &server.process().stderr().wait_for("certificate not replaced", 1)[0];
    assert!(line.contains("WARN") && line.contains("key.pem"), "{line}");
    server.stop();
}

#[test]
fn hangup_without_certificates_ends_nothing() {
    let server = Server::start(&Settings::default());
    server.process().signal("HUP");
    server.process().stderr().wait_for("reading certificates again", 1);
    assert!(crate::client::is_served(server.turn));
    server.stop();
}

#[test]
fn certificates_that_cannot_serve_are_refused_with_file_line_and_key() {
    for (tls, line, key, problem) in [
        ("cert = \"a.pem\"", 2, "tls.cert", "needs tls.key"),
        ("key = \"a.key\"", 2, "tls.key", "needs tls.cert"),
        ("listen = [\"127.0.0.1:5349\"]", 2, "tls.listen", "needs tls.cert and tls.key"),
        ("cert = \"none\"\nkey = \"a.key\"", 2, "tls.cert", "cannot read"),
        ("cert = \"a.pem\"\nkey = \"none\"", 3, "tls.key", "cannot read"),
        ("cert = \"a.key\"\nkey = \"a.key\"", 2, "tls.cert", "holds no certificate"),
        ("cert = \"a.pem\"\nkey = \"b.key\"", 3, "tls.key", "is not the key of"),
        (
            "cert = [\"a.pem\", \"b.pem\"]\nkey = [\n\"a.key\",\n\"a.key\"]",
            5,
            "tls.key[1]",
            "is not the key of",
        ),
        ("cert = \"old.pem\"\nkey = \"old.key\"", 2, "tls.cert", "old.pem\" has expired"),
        (
            "cert = [\n\"a.pem\",\n\"old.pem\"]\nkey = [\"a.key\", \"old.key\"]",
            4,
            "tls.cert[1]",
            "has expired",
        ),
        ("cert = [\"a.pem\", \"b.pem\"]\nkey = \"a.key\"", 3, "tls.key", "1 for 2 in tls.cert"),
        ("cert = [\"\"]\nkey = \"a.key\"", 2, "tls.cert", "must not be empty"),
        ("cert = 7\nkey = \"a.key\"", 2, "tls.cert", "must be the name of a file"),
        (
            "cert = \"a.pem\"\nkey = \"a.key\"\nlisten = [\"127.0.0.1:3478\"]",
            4,
            "tls.listen[0]",
            "is in `listen` already",
        ),
        ("dtls = true", 2, "tls.dtls", "needs tls.cert and tls.key"),
        ("cert = \"a.pem\"\nkey = \"a.key\"\ndtls = 1", 4, "tls.dtls", ""),
    ] {
        let config = ConfigFile::new(&format!("[tls]\n{tls}\n[http]\nlisten = []\n"));
        // In front of [tls] it would move the lines.
        let toml = std::fs::read_to_string(config.path()).unwrap();
        config.write("hairpin.toml", &(toml + "[log]\n"));
        write_pair(&config, "a.pem", "a.key", YEAR);
        write_pair(&config, "b.pem", "b.key", YEAR);
        write_pair(&config, "old.pem", "old.key", -1);
        let listen = tls.contains("3478").then_some("listen = [\"127.0.0.1:3478\"] \n");
        let line = line + usize::from(listen.is_some());
        if let Some(listen) = listen {
            let toml = std::fs::read_to_string(config.path()).unwrap();
            config.write("hairpin.toml", &format!("{listen}{toml}"));
        }
        let ended = check(&config);
        assert_eq!(ended.status.code(), Some(1), "{tls}: {ended:?}");
        let [only] = ended.stderr.as_slice() else { panic!("{tls}: one line, {ended:?}") };
        let expected = format!("error: {}:{line}: {key}: ", config.path().display());
        assert!(only.starts_with(&expected) && only.contains(problem), "{tls}: {only}");
    }
}

#[test]
fn check_explains_tls_and_warns_before_it_expires() {
    let tls = "cert = [\"a.pem\", \"b.pem\"]\nkey = [\"a.key\", \"b.key\"]\n\
               listen = [\"127.0.0.1:5349\"]\ndtls = true";
    let config = ConfigFile::new(&toml(tls));
    write_pair(&config, "a.pem", "a.key", 10 * 24 * 3600 + 1800);
    write_pair(&config, "b.pem", "b.key", YEAR + 1800);
    let ended = check(&config);
    assert!(ended.status.success(), "{ended:?}");
    for line in [
        "listen         127.0.0.1:0 (UDP, TCP, TLS, DTLS)\n",
        "tls only       127.0.0.1:5349\n",
        "certificate    localhost, 127.0.0.1; expires in 10 days\n",
        "certificate    localhost, 127.0.0.1; expires in 365 days\n",
        "warning: tls.cert: certificate 0 (localhost, 127.0.0.1) expires in 10 days\n",
    ] {
        assert!(ended.stdout.contains(line), "not {line:?} in {}", ended.stdout);
    }
    assert!(!ended.stdout.contains("certificate 1 ("), "{}", ended.stdout);
}

pub(crate) const YEAR: i64 = 365 * 24 * 3600;

pub(crate) fn toml(tls: &str) -> String {
    format!("{}[tls]\n{tls}\n", Settings::default().toml())
}

fn check(config: &ConfigFile) -> Ended {
    run(hairpin().args(["check", "--config"]).arg(config.path()))
}

/// Writes another certificate for this machine, good for so many seconds.
/// What a certificate is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Key {
    Ecdsa,
    Rsa,
}

pub(crate) fn write_pair(config: &ConfigFile, cert_name: &str, key_name: &str, secs: i64) {
    write_pair_of(Key::Ecdsa, config, cert_name, key_name, secs);
}

pub(crate) fn write_pair_of(
    kind: Key,
    config: &ConfigFile,
    cert_name: &str,
    key_name: &str,
    secs: i64,
) {
    let names = ["localhost", "127.0.0.1"].map(str::to_owned);
    let mut params = rcgen::CertificateParams::new(names).unwrap();
    let expiry = hairpin::net::clock::now().unix_secs as i64 + secs;
    let expiry = x509_parser::time::ASN1Time::from_timestamp(expiry).unwrap();
    params.not_after = expiry.to_datetime();
    let key = match kind {
        Key::Ecdsa => rcgen::KeyPair::generate().unwrap(),
        Key::Rsa => {
            let key = openssl::rsa::Rsa::generate(2048).unwrap();
            let key = openssl::pkey::PKey::from_rsa(key).unwrap();
            rcgen::KeyPair::try_from(key.private_key_to_pkcs8().unwrap()).unwrap()
        }
    };
    let cert = params.self_signed(&key).unwrap();
    config.write(cert_name, &pem("CERTIFICATE", cert.der()));
    config.write(key_name, &pem("PRIVATE KEY", &key.serialize_der()));
}

pub(crate) fn pem(label: &str, der: &[u8]) -> String {
    use base64::Engine;

    let text = base64::prelude::BASE64_STANDARD.encode(der);
    format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
}
