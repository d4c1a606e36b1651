//! The handshake, and in words what is wrong with a certificate.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, Error as TlsError,
    InvalidMessage, RootCertStore, SignatureScheme,
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::report::Fault;

const SECS_PER_DAY: u64 = 24 * 3600;
/// Certificates that end sooner are worth a warning: Let's Encrypt renews 30 days before.
const SOON_DAYS: u64 = 14;

/// Whom to trust.
#[derive(Clone, Debug)]
pub struct Trust {
    roots: Arc<RootCertStore>,
    source: String,
}

impl Trust {
    /// The authorities of this machine.
    ///
    /// # Errors
    /// One line, where it has none.
    pub fn of_this_machine() -> Result<Self, String> {
        let found = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(found.certs);
        if roots.is_empty() {
            return Err("this machine trusts no certificate authority; install its \
                        ca-certificates, or name one with --ca"
                .to_owned());
        }
        Ok(Self { roots: Arc::new(roots), source: "this machine's authorities".to_owned() })
    }

    /// The certificates of a PEM file, and no other.
    ///
    /// # Errors
    /// One line, where the file cannot serve.
    pub fn in_file(file: &Path) -> Result<Self, String> {
        let pem = fs::read(file).map_err(|error| format!("cannot read {file:?}: {error}"))?;
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let certificate = certificate.map_err(|error| format!("{file:?}: {error}"))?;
            roots.add(certificate).map_err(|error| format!("{file:?}: {error}"))?;
        }
        if roots.is_empty() {
            return Err(format!("{file:?} holds no certificate"));
        }
        Ok(Self { roots: Arc::new(roots), source: format!("{file:?}") })
    }
}

/// What the server has shown.
#[derive(Clone, Debug, Default)]
struct Shown {
    subject: String,
    issuer: String,
    names: String,
    not_after: i64,
    certificates: usize,
    is_self_signed: bool,
}

/// Verifies as usual, and keeps what it has seen.
#[derive(Debug)]
struct Witness {
    judge: Arc<WebPkiServerVerifier>,
    shown: Mutex<Shown>,
}

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        if let Ok(mut shown) = self.shown.lock() {
            *shown = look_at(leaf, intermediates.len() + 1);
        }
        self.judge.verify_server_cert(leaf, intermediates, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.judge.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.judge.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.judge.supported_verify_schemes()
    }
}

/// A verified connection, what to say of it, and what to warn of.
pub(super) struct Secured<S> {
    pub(super) stream: S,
    pub(super) detail: String,
    pub(super) warning: Option<(String, String)>,
}

/// Makes the handshake with the server of this name.
pub(super) async fn secure(
    stream: TcpStream,
    host: &str,
    trust: &Trust,
    unix_secs: u64,
) -> Result<Secured<TlsStream<TcpStream>>, Fault> {
    let name = ServerName::try_from(host.to_owned()).map_err(|error| unusable(&error))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let judge = judge(trust)?;
    let witness = Arc::new(Witness { judge, shown: Mutex::default() });
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(&error))?
        .dangerous()
        .with_custom_certificate_verifier(witness.clone())
        .with_no_client_auth();
    let connected = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
    let shown = witness.shown.lock().map(|shown| shown.clone()).unwrap_or_default();
    let stream = connected.map_err(|error| explained(&error, &shown, host, trust, unix_secs))?;
    let version = match stream.get_ref().1.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_2) => "TLS 1.2",
        _ => "TLS 1.3",
    };
    let (detail, warning) = accepted(version, &shown, unix_secs);
    Ok(Secured { stream, detail, warning })
}

/// The same judgement on a chain that came by another way; what to say of it, and to warn of.
pub(super) fn judged(
    version: &str,
    chain: &[CertificateDer<'_>],
    host: &str,
    trust: &Trust,
    unix_secs: u64,
) -> Result<(String, Option<(String, String)>), Fault> {
    let name = ServerName::try_from(host.to_owned()).map_err(|error| unusable(&error))?;
    let Some((leaf, intermediates)) = chain.split_first() else {
        return Err(unusable(&"the server has shown no certificate"));
    };
    let shown = look_at(leaf, chain.len());
    let now = UnixTime::since_unix_epoch(Duration::from_secs(unix_secs));
    judge(trust)?
        .verify_server_cert(leaf, intermediates, &name, &[], now)
        .map_err(|error| explained(&io::Error::other(error), &shown, host, trust, unix_secs))?;
    Ok(accepted(version, &shown, unix_secs))
}

fn judge(trust: &Trust) -> Result<Arc<WebPkiServerVerifier>, Fault> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let judge = WebPkiServerVerifier::builder_with_provider(trust.roots.clone(), provider);
    judge.build().map_err(|error| unusable(&error))
}

fn unusable(error: &dyn std::fmt::Display) -> Fault {
    Fault::new(error.to_string(), "TLS cannot be used for this host", "give the server's name")
}

/// What to say of a good certificate, and to warn of.
fn accepted(version: &str, shown: &Shown, unix_secs: u64) -> (String, Option<(String, String)>) {
    let days = u64::try_from(shown.not_after).unwrap_or(0).saturating_sub(unix_secs) / SECS_PER_DAY;
    let warning = (days < SOON_DAYS).then(|| {
        let cause = format!("the certificate ends in {days} days");
        (cause, "renew it; see why that has not happened by itself".to_owned())
    });
    (format!("{version}, certificate for {}, ends in {days} days", shown.names), warning)
}

fn look_at(leaf: &CertificateDer<'_>, certificates: usize) -> Shown {
    let Ok((_, parsed)) = X509Certificate::from_der(leaf) else { return Shown::default() };
    let mut names = Vec::new();
    if let Ok(Some(extension)) = parsed.subject_alternative_name() {
        for name in &extension.value.general_names {
            match name {
                x509_parser::extensions::GeneralName::DNSName(name) => {
                    names.push(name.escape_debug().to_string());
                }
                x509_parser::extensions::GeneralName::IPAddress(octets) => {
                    names.extend(ip(octets).map(|ip| ip.to_string()));
                }
                _ => {}
            }
        }
    }
    Shown {
        subject: parsed.subject().to_string().escape_debug().to_string(),
        issuer: parsed.issuer().to_string().escape_debug().to_string(),
        names: if names.is_empty() { "no name at all".to_owned() } else { names.join(", ") },
        not_after: parsed.validity().not_after.timestamp(),
        certificates,
        is_self_signed: parsed.subject() == parsed.issuer(),
    }
}

fn ip(octets: &[u8]) -> Option<IpAddr> {
    let v4 = || <[u8; 4]>::try_from(octets).map(IpAddr::from);
    v4().or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from)).ok()
}

fn explained(error: &io::Error, shown: &Shown, host: &str, trust: &Trust, unix_secs: u64) -> Fault {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>());
    match inner {
        Some(TlsError::InvalidCertificate(problem)) => {
            certificate_fault(problem, shown, host, trust, unix_secs)
        }
        Some(TlsError::InvalidMessage(InvalidMessage::InvalidContentType)) => Fault::new(
            "the answer is not TLS",
            "this port does not speak TLS",
            "use the server's TLS port, or turn: without the s; in hairpin, TLS needs [tls] cert \
             and key",
        ),
        Some(TlsError::AlertReceived(AlertDescription::ProtocolVersion)) => Fault::new(
            error.to_string(),
            "the server speaks only versions of TLS that are no longer used",
            "let the server speak TLS 1.2 or 1.3",
        ),
        Some(TlsError::AlertReceived(alert)) => Fault::new(
            error.to_string(),
            format!("the server refuses the handshake: {alert:?}"),
            "look into the server's log; it may have no certificate for this name",
        ),
        Some(_) | None => Fault::new(
            error.to_string(),
            "the server, or something in front of it, ended the handshake: this port does not speak \
             TLS, or the server has no certificate",
            "use the server's TLS port, or turn: without the s; in hairpin, TLS needs [tls] cert \
             and key",
        ),
    }
}

fn certificate_fault(
    problem: &CertificateError,
    shown: &Shown,
    host: &str,
    trust: &Trust,
    unix_secs: u64,
) -> Fault {
    let mut detail = format!("certificate of {}, from {}", shown.subject, shown.issuer);
    let _ = write!(detail, ", for {}", shown.names);
    match problem {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            let ended = u64::try_from(shown.not_after).unwrap_or(0);
            let days = unix_secs.saturating_sub(ended) / SECS_PER_DAY;
            Fault::new(
                detail,
                format!("the certificate expired {days} days ago"),
                "renew the certificate, and see that the server reads the new one",
            )
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => Fault::new(
            detail,
            "the certificate is not valid yet",
            "set the clocks of this machine and of the one that made the certificate",
        ),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            Fault::new(
                detail,
                format!("the certificate is for {}, not for {host}", shown.names),
                format!("use a name of the certificate in the URI, or get one for {host}"),
            )
        }
        CertificateError::UnknownIssuer if shown.is_self_signed => Fault::new(
            detail,
            "the certificate is self-signed: no browser accepts it",
            "get one from a public authority such as Let's Encrypt; to test this one, name it with \
             --ca",
        ),
        CertificateError::UnknownIssuer if shown.certificates == 1 => Fault::new(
            detail,
            format!(
                "nobody known to {} has signed it; the server sends no intermediate certificate",
                trust.source
            ),
            "put the whole chain into the server's certificate file (fullchain.pem); for an \
             authority of your own, name it with --ca",
        ),
        CertificateError::UnknownIssuer => Fault::new(
            detail,
            format!("its chain does not end at {}", trust.source),
            "get a certificate from a public authority; for one of your own, name it with --ca",
        ),
        problem => Fault::new(
            detail,
            format!("the certificate is not acceptable: {problem}"),
            "get a new certificate",
        ),
    }
}
