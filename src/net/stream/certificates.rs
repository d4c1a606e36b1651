//! The server's certificates: read from files, chosen by name in each handshake, and replaced
//! while it runs. The last good pair serves on, whatever becomes of its files.

use std::fmt::{self, Display};
use std::io::{self, Read};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::{fs, mem};

use arc_swap::ArcSwap;
use openssl::ssl::SslContext;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, SignatureScheme};
use tracing::{info, warn};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{ASN1Time, FromDer, X509Certificate};

use crate::logging::escaped;
use crate::net::{clock, dtls};

/// A chain of certificates is a few kilobytes; what is larger is another file.
const FILE_BYTES_MAX: u64 = 256 * 1024;
/// How long a self-signed certificate is good.
const SELF_SIGNED_SECS: i64 = 30 * 24 * 3600;
/// Clocks of other machines may be behind.
const SELF_SIGNED_BACKDATED_SECS: i64 = 24 * 3600;

/// Where a certificate and its key are kept, in PEM.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Files {
    /// The chain, the server's own certificate first.
    pub cert: PathBuf,
    /// The private key of the first certificate.
    pub key: PathBuf,
}

/// Which file of a pair is at fault.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Part {
    /// The certificate.
    Cert,
    /// The private key.
    Key,
}

/// Why a pair of files cannot serve; displayed as one line that names the file.
#[derive(Debug)]
pub struct LoadError {
    /// Which of the two it is.
    pub part: Part,
    message: String,
}

impl Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for LoadError {}

/// A certificate with its key, ready to serve.
pub struct Certificate {
    key: Arc<CertifiedKey>,
    /// The same for DTLS.
    dtls: SslContext,
    names: Vec<String>,
    not_after: u64,
}

/// A certificate and where it comes from.
#[derive(Clone, Debug)]
pub struct Pair {
    /// What serves.
    pub certificate: Arc<Certificate>,
    files: Option<Files>,
    /// What the files looked like when they were read.
    stamps: [Option<Stamp>; 2],
}

impl Pair {
    /// Reads a pair of files.
    ///
    /// # Errors
    /// Where a file cannot be read, does not hold what it should, they do not belong together, or
    /// the certificate has expired.
    pub fn load(files: Files) -> Result<Self, LoadError> {
        // First, so that a change while they are read is seen as one later.
        let stamps = stamps(&files);
        let certificate = Arc::new(Certificate::load(&files)?);
        Ok(Self { certificate, files: Some(files), stamps })
    }

    /// Makes a pair that is trusted by nobody and never touches a disk.
    ///
    /// # Errors
    /// Where the system has no randomness.
    pub fn self_signed(names: &[&str]) -> Result<Self, rcgen::Error> {
        let certificate = Arc::new(Certificate::self_signed(names)?);
        Ok(Self { certificate, files: None, stamps: [None; 2] })
    }
}

impl Certificate {
    fn load(files: &Files) -> Result<Self, LoadError> {
        let fault = |part, message| LoadError { part, message };
        let read = |part, file: &Path| {
            read_bounded(file)
                .map_err(|error| fault(part, format!("cannot read {file:?}: {error}")))
        };
        let Files { cert, key } = files;
        let (cert_pem, key_pem) = (read(Part::Cert, cert)?, read(Part::Key, key)?);
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&cert_pem)
            .collect::<Result<_, _>>()
            .map_err(|error| fault(Part::Cert, format!("{cert:?} is not PEM: {error}")))?;
        if chain.is_empty() {
            return Err(fault(Part::Cert, format!("{cert:?} holds no certificate")));
        }
        let key_der = PrivateKeyDer::from_pem_slice(&key_pem)
            .map_err(|_| fault(Part::Key, format!("{key:?} holds no private key")))?;
        let certificate = Self::new(chain, key_der).map_err(|error| match error {
            Unusable::Certificate(problem) => fault(Part::Cert, format!("{cert:?}: {problem}")),
            Unusable::Key(problem) => fault(Part::Key, format!("{key:?}: {problem}")),
            Unusable::Mismatch => {
                fault(Part::Key, format!("{key:?} is not the key of the certificate in {cert:?}"))
            }
        })?;
        // No client accepts it, and what it would replace some still may.
        if certificate.not_after < clock::now().unix_secs {
            return Err(fault(Part::Cert, format!("the certificate in {cert:?} has expired")));
        }
        Ok(certificate)
    }

    fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, Unusable> {
        let own = chain.first().ok_or_else(|| Unusable::Certificate("empty".to_owned()))?;
        let (_, parsed) = X509Certificate::from_der(own)
            .map_err(|error| Unusable::Certificate(format!("not a certificate: {error}")))?;
        let names = names(&parsed);
        let not_after = parsed.validity().not_after.timestamp().max(0) as u64;
        let dtls = dtls::context(&chain, &key);
        let provider = aws_lc_rs::default_provider();
        let key = provider
            .key_provider
            .load_private_key(key)
            .map_err(|error| Unusable::Key(format!("not a usable key: {error}")))?;
        let key = CertifiedKey::new(chain, key);
        match key.keys_match() {
            Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
            Err(rustls::Error::InconsistentKeys(_)) => return Err(Unusable::Mismatch),
            Err(error) => return Err(Unusable::Certificate(error.to_string())),
        }
        // Last: what is wrong with a pair is better told by the others.
        let dtls = dtls.map_err(|error| Unusable::Certificate(error.to_string()))?;
        Ok(Self { key: Arc::new(key), dtls, names, not_after })
    }

    fn self_signed(names: &[&str]) -> Result<Self, rcgen::Error> {
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = rcgen::CertificateParams::new(names)?;
        let now = clock::now().unix_secs as i64;
        let at = |secs| ASN1Time::from_timestamp(secs).ok().map(|time| time.to_datetime());
        if let (Some(from), Some(to)) =
            (at(now - SELF_SIGNED_BACKDATED_SECS), at(now + SELF_SIGNED_SECS))
        {
            (params.not_before, params.not_after) = (from, to);
        }
        let key = rcgen::KeyPair::generate()?;
        let chain = vec![params.self_signed(&key)?.der().clone()];
        let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        Self::new(chain, key).map_err(|_| rcgen::Error::CouldNotParseCertificate)
    }

    /// The host names and addresses it is for, in lower case; a wildcard as `*.example.org`.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// When it expires, in seconds since 1970.
    #[must_use]
    pub fn not_after(&self) -> u64 {
        self.not_after
    }

    /// The server's own certificate, in DER.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        self.key.cert.first().map_or(&[], |own| own.as_ref())
    }

    /// What DTLS sessions begin with.
    pub(in crate::net) fn dtls(&self) -> &SslContext {
        &self.dtls
    }

    /// Whether it is for a host. A wildcard stands for one label, and not for a part of one.
    fn is_for(&self, host: &str) -> bool {
        let parent = host.split_once('.').map(|(_, parent)| parent);
        self.names.iter().any(|name| match name.strip_prefix("*.") {
            Some(of) => parent.is_some_and(|parent| parent.eq_ignore_ascii_case(of)),
            None => name.eq_ignore_ascii_case(host),
        })
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("names", &self.names).finish_non_exhaustive()
    }
}

enum Unusable {
    Certificate(String),
    Key(String),
    Mismatch,
}

fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(alternatives)) = certificate.subject_alternative_name() else { return Vec::new() };
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        GeneralName::IPAddress(bytes) => address(bytes).map(|ip| ip.to_string()),
        _ => None,
    };
    alternatives.value.general_names.iter().filter_map(name).collect()
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        _ => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
    }
}

/// Which certificates are to be read again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reload {
    /// Every one that comes from files.
    All,
    /// Those whose files have been touched or replaced.
    Changed,
}

/// How often certificates were replaced, and how often their new files could not serve.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ReloadCounts {
    /// The new one serves.
    pub succeeded: u64,
    /// The old one serves on.
    pub failed: u64,
}

/// All certificates of the server. Handshakes read them without a lock.
#[derive(Debug)]
pub struct Certificates {
    served: ArcSwap<Vec<Arc<Certificate>>>,
    pairs: Mutex<Vec<Pair>>,
    succeeded: AtomicU64,
    failed: AtomicU64,
}

impl Certificates {
    /// Where none is for the host a client asks for, or it asks for none, the first one serves.
    #[must_use]
    pub fn new(pairs: Vec<Pair>) -> Self {
        Self {
            served: ArcSwap::from_pointee(served(&pairs)),
            pairs: Mutex::new(pairs),
            succeeded: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        }
    }

    /// Reads files again and swaps in what is good. Sessions go on with what they have.
    pub fn reload(&self, which: Reload) {
        // No code that holds the lock can leave the list half changed, so a poisoned one is fine.
        let mut pairs = self.pairs.lock().unwrap_or_else(PoisonError::into_inner);
        let mut replaced = false;
        for (index, pair) in pairs.iter_mut().enumerate() {
            let Some(files) = &pair.files else { continue };
            let stamps = stamps(files);
            let before = mem::replace(&mut pair.stamps, stamps);
            if which == Reload::Changed && before == stamps {
                continue;
            }
            match Certificate::load(files) {
                Ok(certificate) => {
                    info!(certificate = index, names = %escaped(&certificate.names.join(" ")),
                        "certificate replaced");
                    pair.certificate = Arc::new(certificate);
                    replaced = true;
                    self.succeeded.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) => {
                    warn!(certificate = index, %error,
                        "certificate not replaced; the old one serves on");
                    self.failed.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        if replaced {
            self.served.store(Arc::new(served(&pairs)));
        }
    }

    /// Of several for one name, such as an RSA and an ECDSA one, the first that the client can
    /// verify.
    pub(in crate::net) fn choose(
        &self,
        host: Option<&str>,
        schemes: &[SignatureScheme],
    ) -> Option<Arc<Certificate>> {
        let served = self.served.load();
        let named = |own: &&Arc<Certificate>| host.is_some_and(|host| own.is_for(host));
        let verifiable = |own: &&Arc<Certificate>| own.key.key.choose_scheme(schemes).is_some();
        let chosen = served
            .iter()
            .filter(named)
            .find(verifiable)
            .or_else(|| served.iter().find(named))
            .or_else(|| served.first());
        chosen.map(Arc::clone)
    }

    /// What serves, in the order of the configuration.
    #[must_use]
    pub fn served(&self) -> Arc<Vec<Arc<Certificate>>> {
        self.served.load_full()
    }

    /// What has become of reloading so far.
    #[must_use]
    pub fn reload_counts(&self) -> ReloadCounts {
        ReloadCounts {
            succeeded: self.succeeded.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
        }
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let chosen = self.choose(hello.server_name(), hello.signature_schemes())?;
        Some(Arc::clone(&chosen.key))
    }
}

fn served(pairs: &[Pair]) -> Vec<Arc<Certificate>> {
    pairs.iter().map(|pair| Arc::clone(&pair.certificate)).collect()
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::other(format!("larger than {FILE_BYTES_MAX} bytes")));
    }
    Ok(bytes)
}

/// What tells a file from the one that was there before, behind all symbolic links.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Stamp {
    modified: Option<std::time::SystemTime>,
    length: u64,
    inode: (u64, u64),
    /// When its owner or permissions changed last: now it may be readable.
    changed: (i64, i64),
}

fn stamps(files: &Files) -> [Option<Stamp>; 2] {
    let stamp = |path: &PathBuf| fs::metadata(path).ok().map(|metadata| Stamp::of(&metadata));
    [stamp(&files.cert), stamp(&files.key)]
}

impl Stamp {
    fn of(metadata: &fs::Metadata) -> Self {
        #[cfg(unix)]
        let (inode, changed) = {
            use std::os::unix::fs::MetadataExt;
            ((metadata.dev(), metadata.ino()), (metadata.ctime(), metadata.ctime_nsec()))
        };
        #[cfg(not(unix))]
        let (inode, changed) = ((0, 0), (0, 0));
        Self { modified: metadata.modified().ok(), length: metadata.len(), inode, changed }
    }
}

#[cfg(test)]
mod tests;
