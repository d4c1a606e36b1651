//! Whom clients over TLS trust.

use std::fmt;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::Error;

/// How a server's certificate is judged.
#[derive(Clone)]
pub struct Trust {
    pub(super) config: Arc<ClientConfig>,
}

impl Trust {
    /// Trusts the certificates of a PEM file, and those they have signed.
    ///
    /// # Errors
    /// Where the file cannot be read or holds no certificate.
    pub fn roots(file: &Path) -> Result<Self, Error> {
        let wrong = |why: &dyn fmt::Display| Error::Roots(format!("{}: {why}", file.display()));
        let pem = fs::read(file).map_err(|error| wrong(&error))?;
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let certificate = certificate.map_err(|error| wrong(&error))?;
            // System bundles have a few that are odd.
            let _ = roots.add(certificate);
        }
        if roots.is_empty() {
            return Err(wrong(&"holds no certificate"));
        }
        Ok(Self { config: Arc::new(builder().with_root_certificates(roots).with_no_client_auth()) })
    }

    /// Trusts any server: for one that made its certificate itself.
    #[must_use]
    pub fn anyone() -> Self {
        let verifier = Arc::new(Anyone(Arc::new(aws_lc_rs::default_provider())));
        let config =
            builder().dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
        Self { config: Arc::new(config) }
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trust").finish_non_exhaustive()
    }
}

fn builder() -> rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier> {
    ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider has cipher suites for all versions")
}

/// Accepts every certificate; signatures are still checked.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
