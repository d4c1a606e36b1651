//! An authority and its certificates.

use std::sync::atomic::{AtomicU32, Ordering};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use x509_parser::time::ASN1Time;

use crate::server::ConfigFile;

const SECS_PER_DAY: i64 = 24 * 3600;

/// An authority of its own.
pub(crate) struct Pki {
    issuer: Issuer<'static, KeyPair>,
    authority: String,
}

impl Pki {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Each its own name, for a chain is looked up by names.
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        params.distinguished_name.push(DnType::CommonName, format!("authority {number}"));
        let key = KeyPair::generate().unwrap();
        let authority = pem("CERTIFICATE", params.self_signed(&key).unwrap().der());
        Self { issuer: Issuer::new(params, key), authority }
    }

    /// Writes `cert.pem`, `key.pem` and the authority's `ca.pem`; the certificate ends in so many
    /// days, which may have been.
    pub(crate) fn write(&self, config: &ConfigFile, names: &[&str], days: i64) {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, "server");
        let now = hairpin::net::clock::now().unix_secs as i64;
        let at = |days: i64| {
            ASN1Time::from_timestamp(now + days * SECS_PER_DAY + 3600).unwrap().to_datetime()
        };
        (params.not_before, params.not_after) = (at(days - 100), at(days));
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        config.write("cert.pem", &pem("CERTIFICATE", certificate.der()));
        config.write("key.pem", &pem("PRIVATE KEY", &key.serialize_der()));
        config.write("ca.pem", &self.authority);
    }

    /// A configuration for loopback that reads them.
    pub(crate) fn toml(&self) -> String {
        let toml = crate::server::Settings::default().toml();
        format!("{toml}[tls]\ncert = \"cert.pem\"\nkey = \"key.pem\"\n")
    }
}

/// Writes a certificate that nobody but itself has signed.
pub(crate) fn write_self_signed(config: &ConfigFile, names: &[&str]) {
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
    config.write("cert.pem", &pem("CERTIFICATE", certificate.der()));
    config.write("key.pem", &pem("PRIVATE KEY", &key.serialize_der()));
}

fn pem(label: &str, der: &[u8]) -> String {
    use base64::Engine;

    let text = base64::prelude::BASE64_STANDARD.encode(der);
    format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
}
