//! A certificate authority of the tests' own, so that browsers verify as they always do.

use std::fs;
use std::path::{Path, PathBuf};

use hairpin::net::certificates::{Files, Pair};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use tempfile::TempDir;

/// Holds its files as long as it lives.
pub(crate) struct Authority {
    directory: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "hairpin test authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let directory = tempfile::tempdir().unwrap();
        write_pem(&directory.path().join("authority.pem"), "CERTIFICATE", certificate.der());
        Self { directory, issuer: Issuer::new(params, key) }
    }

    /// Its own certificate, in PEM.
    pub(crate) fn certificate(&self) -> PathBuf {
        self.directory.path().join("authority.pem")
    }

    /// A certificate for a server with these names and addresses.
    pub(crate) fn certify(&self, names: &[&str]) -> Pair {
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        let params = CertificateParams::new(names).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let [cert, key_file] = ["cert.pem", "key.pem"].map(|name| self.directory.path().join(name));
        write_pem(&cert, "CERTIFICATE", certificate.der());
        write_pem(&key_file, "PRIVATE KEY", &key.serialize_der());
        Pair::load(Files { cert, key: key_file }).unwrap()
    }
}

fn write_pem(file: &Path, label: &str, der: &[u8]) {
    use base64::Engine;

    let text = base64::prelude::BASE64_STANDARD.encode(der);
    fs::write(file, format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")).unwrap();
}
