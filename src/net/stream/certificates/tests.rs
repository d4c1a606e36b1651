//! Files on a real disk, chosen as a handshake chooses them.

use std::fs;
use std::time::Duration;

use super::*;

#[test]
fn names_and_expiry_are_those_of_the_certificate() {
    let home = Home::new();
    let pair = home.pair("a", &["Turn.Example.org", "*.example.net", "192.0.2.1", "2001:db8::1"]);
    let certificate = Pair::load(pair).unwrap().certificate;
    let names = ["turn.example.org", "*.example.net", "192.0.2.1", "2001:db8::1"];
    assert_eq!(certificate.names(), names);
    let lifetime = certificate.not_after() - clock::now().unix_secs;
    assert!((YEAR_SECS - 60..=YEAR_SECS).contains(&lifetime), "{lifetime}");
}

#[test]
fn wildcard_stands_for_one_whole_label() {
    let home = Home::new();
    let files = home.pair("a", &["turn.example.org", "*.example.net"]);
    let certificate = Certificate::load(&files).unwrap();
    for name in ["turn.example.org", "TURN.example.ORG", "a.example.net", "B.Example.Net"] {
        assert!(certificate.is_for(name), "{name}");
    }
    for name in
        ["example.org", "a.turn.example.org", "example.net", "a.b.example.net", "xexample.net", ""]
    {
        assert!(!certificate.is_for(name), "{name}");
    }
}

#[test]
fn host_chooses_the_certificate_and_the_first_is_the_default() {
    let home = Home::new();
    let names = [&["a.test"][..], &["*.b.test"], &["exact.b.test", "c.test"]];
    let pairs: Vec<_> = (0..)
        .zip(names)
        .map(|(at, names)| Pair::load(home.pair(&at.to_string(), names)).unwrap())
        .collect();
    let store = Certificates::new(pairs);
    for (host, expected) in [
        ("a.test", 0),
        ("x.b.test", 1),
        // The first that is for it, not the closest: the order is the operator's.
        ("exact.b.test", 1),
        ("c.test", 2),
        ("unknown.test", 0),
        ("", 0),
    ] {
        assert_eq!(shown(&store, host), store.served()[expected].der(), "{host}");
    }
}

#[test]
fn files_that_cannot_serve_are_named() {
    let home = Home::new();
    let good = home.pair("good", &["a.test"]);
    let other = home.pair("other", &["a.test"]);
    let written = |name: &str, text: &str| {
        let path = home.0.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let blank = written("blank", "# nothing\n");
    let broken =
        written("broken", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let cut = written("cut", "-----BEGIN CERTIFICATE-----\nAAAA\n");
    let large = written("large", &"#".repeat(FILE_BYTES_MAX as usize + 1));
    let missing = home.0.path().join("missing");
    let expired = home.pair_until("expired", &["a.test"], -60);
    for (cert, key, part, problem) in [
        (&missing, &good.key, Part::Cert, "cannot read"),
        (&good.cert, &missing, Part::Key, "cannot read"),
        (&large, &good.key, Part::Cert, "cannot read"),
        (&blank, &good.key, Part::Cert, "holds no certificate"),
        (&good.key, &good.key, Part::Cert, "holds no certificate"),
        (&cut, &good.key, Part::Cert, "is not PEM"),
        (&expired.cert, &expired.key, Part::Cert, "has expired"),
        (&broken, &good.key, Part::Cert, "not a certificate"),
        (&good.cert, &blank, Part::Key, "holds no private key"),
        (&good.cert, &good.cert, Part::Key, "holds no private key"),
        (&good.cert, &other.key, Part::Key, "is not the key of the certificate in"),
    ] {
        let error = Pair::load(Files { cert: cert.clone(), key: key.clone() }).unwrap_err();
        let file = if part == Part::Cert { cert } else { key };
        let message = error.to_string();
        assert_eq!(error.part, part, "{message}");
        assert!(message.contains(&format!("{file:?}")) && message.contains(problem), "{message}");
        assert!(!message.contains('\n'), "{message}");
    }
}

#[test]
fn unchanged_files_are_not_read_again_until_asked_for() {
    let home = Home::new();
    let store = Certificates::new(vec![Pair::load(home.pair("a", &["a.test"])).unwrap()]);
    let before = store.served();
    store.reload(Reload::Changed);
    assert_eq!(store.reload_counts(), ReloadCounts::default());
    assert!(Arc::ptr_eq(&before, &store.served()));
    store.reload(Reload::All);
    assert_eq!(store.reload_counts(), ReloadCounts { succeeded: 1, failed: 0 });
}

#[test]
fn new_files_serve_from_the_next_handshake_on() {
    let home = Home::new();
    let pairs = [home.pair("a", &["a.test"]), home.pair("b", &["b.test"])];
    let pairs = pairs.map(|files| Pair::load(files).unwrap());
    let store = Certificates::new(pairs.to_vec());
    let before = store.served();
    home.pair("b", &["b.test", "new.test"]);
    store.reload(Reload::Changed);
    assert_eq!(store.reload_counts(), ReloadCounts { succeeded: 1, failed: 0 });
    assert_eq!(store.served()[0].der(), before[0].der());
    assert_eq!(shown(&store, "new.test"), store.served()[1].der());
    assert_ne!(before[1].der(), store.served()[1].der());
}

#[test]
fn broken_files_leave_the_old_certificate_and_are_counted_once() {
    let home = Home::new();
    let pairs = [home.pair("a", &["a.test"]), home.pair("b", &["b.test"])];
    let [a, _] = pairs.clone();
    let store = Certificates::new(pairs.map(|files| Pair::load(files).unwrap()).to_vec());
    let before = store.served();
    // Of two changes, the good one counts.
    fs::write(&a.cert, "garbage").unwrap();
    home.pair("b", &["b.test"]);
    for _ in 0..3 {
        store.reload(Reload::Changed);
        assert_eq!(store.reload_counts(), ReloadCounts { succeeded: 1, failed: 1 });
    }
    assert_eq!(store.served()[0].der(), before[0].der());
    assert_ne!(store.served()[1].der(), before[1].der());
    // The key is the new one and the certificate still the old one: half of a replacement.
    let old = fs::read(&a.key).unwrap();
    home.pair("a", &["a.test"]);
    let new = fs::read(&a.key).unwrap();
    fs::write(&a.key, old).unwrap();
    store.reload(Reload::Changed);
    assert_eq!(store.reload_counts(), ReloadCounts { succeeded: 1, failed: 2 });
    fs::remove_file(&a.key).unwrap();
    store.reload(Reload::Changed);
    assert_eq!(store.reload_counts(), ReloadCounts { succeeded: 1, failed: 3 });
    fs::write(&a.key, new).unwrap();
    store.reload(Reload::Changed);
    assert_eq!(store.reload_counts(), ReloadCounts { succeeded: 2, failed: 3 });
    assert_ne!(store.served()[0].der(), before[0].der());
}

#[test]
fn expired_certificate_is_no_replacement() {
    let home = Home::new();
    let store = Certificates::new(vec![Pair::load(home.pair("a", &["a.test"])).unwrap()]);
    let before = store.served();
    home.pair_until("a", &["a.test"], -3600);
    store.reload(Reload::Changed);
    assert_eq!(store.reload_counts(), ReloadCounts { succeeded: 0, failed: 1 });
    assert!(Arc::ptr_eq(&before, &store.served()));
}

/// What Kubernetes does: the files are links into a directory that is itself a link.
#[cfg(unix)]
#[test]
fn swapped_link_is_a_change() {
    use std::os::unix::fs::symlink;

    let home = Home::new();
    let [old, new] = ["old", "new"].map(|version| {
        let files = home.pair(version, &["a.test"]);
        let directory = home.0.path().join(format!("..{version}"));
        fs::create_dir(&directory).unwrap();
        fs::rename(files.cert, directory.join("tls.crt")).unwrap();
        fs::rename(files.key, directory.join("tls.key")).unwrap();
        directory
    });
    let data = home.0.path().join("..data");
    symlink(old, &data).unwrap();
    let [cert, key] = ["tls.crt", "tls.key"].map(|name| {
        let link = home.0.path().join(name);
        symlink(format!("..data/{name}"), &link).unwrap();
        link
    });
    let store = Certificates::new(vec![Pair::load(Files { cert, key }).unwrap()]);
    let before = store.served();
    let next = home.0.path().join("..next");
    symlink(new, &next).unwrap();
    fs::rename(next, data).unwrap();
    store.reload(Reload::Changed);
    assert_eq!(store.reload_counts(), ReloadCounts { succeeded: 1, failed: 0 });
    assert_ne!(store.served()[0].der(), before[0].der());
}

/// A file that could not be read may be readable by now, with the same content and time.
#[cfg(unix)]
#[test]
fn files_with_other_permissions_are_read_again() {
    use std::os::unix::fs::PermissionsExt;

    let home = Home::new();
    let files = home.pair("a", &["a.test"]);
    let store = Certificates::new(vec![Pair::load(files.clone()).unwrap()]);
    // Whoever runs the tests may read everything, so it is something else that is wrong with it.
    fs::write(&files.key, "garbage").unwrap();
    store.reload(Reload::Changed);
    assert_eq!(store.reload_counts(), ReloadCounts { succeeded: 0, failed: 1 });
    store.reload(Reload::Changed);
    assert_eq!(store.reload_counts(), ReloadCounts { succeeded: 0, failed: 1 });
    // The clock of a file system may stand still for some milliseconds.
    let again = (0..1000).any(|round| {
        std::thread::sleep(Duration::from_millis(5));
        let mode = if round % 2 == 0 { 0o600 } else { 0o640 };
        fs::set_permissions(&files.key, fs::Permissions::from_mode(mode)).unwrap();
        store.reload(Reload::Changed);
        store.reload_counts().failed == 2
    });
    assert!(again, "never read again");
}

#[test]
fn self_signed_certificate_is_another_one_each_time() {
    let [one, other] = [(); 2].map(|()| Pair::self_signed(&["localhost", "127.0.0.1"]).unwrap());
    assert_eq!(one.certificate.names(), ["localhost", "127.0.0.1"]);
    assert_ne!(one.certificate.der(), other.certificate.der());
    let store = Certificates::new(vec![one]);
    store.reload(Reload::All);
    assert_eq!(store.reload_counts(), ReloadCounts::default());
}

#[test]
fn debug_shows_no_key() {
    let shown = format!("{:?}", Pair::self_signed(&["localhost"]).unwrap());
    assert!(shown.contains("localhost") && !shown.contains("key"), "{shown}");
}

const YEAR_SECS: u64 = 365 * 24 * 3600;

/// A directory of certificates.
struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// Writes a new certificate and key that are good for a year.
    fn pair(&self, name: &str, hosts: &[&str]) -> Files {
        self.pair_until(name, hosts, YEAR_SECS as i64)
    }

    fn pair_until(&self, name: &str, hosts: &[&str], secs: i64) -> Files {
        let hosts: Vec<_> = hosts.iter().map(|&host| host.to_owned()).collect();
        let mut params = rcgen::CertificateParams::new(hosts).unwrap();
        let expiry = clock::now().unix_secs as i64 + secs;
        params.not_after = ASN1Time::from_timestamp(expiry).unwrap().to_datetime();
        let key = rcgen::KeyPair::generate().unwrap();
        let cert = params.self_signed(&key).unwrap();
        let directory = self.0.path();
        let files = Files {
            cert: directory.join(format!("{name}.pem")),
            key: directory.join(format!("{name}.key")),
        };
        fs::write(&files.cert, pem("CERTIFICATE", cert.der())).unwrap();
        fs::write(&files.key, pem("PRIVATE KEY", &key.serialize_der())).unwrap();
        files
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    use base64::Engine;

    let text = base64::prelude::BASE64_STANDARD.encode(der);
    format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
}

/// The certificate that a client which asks for `host` is shown.
fn shown(store: &Certificates, host: &str) -> Vec<u8> {
    let chosen = store.choose(Some(host), &[SignatureScheme::ECDSA_NISTP256_SHA256]).unwrap();
    chosen.der().to_vec()
}
