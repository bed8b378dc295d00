//! TLS of the listener: certificate and key from files, and whose certificates of nodes count. Read anew by a reload.

use crate::current::Current;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, ServerConfig};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why TLS cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{path} holds no usable {what}: {why}")]
    File {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
        /// Why not.
        why: String,
    },
    /// Certificate and key do not fit.
    #[error("the certificate and the key of the listener cannot be used")]
    Pair(#[from] rustls::Error),
}

/// The files of a TLS listener, all PEM.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificate chain of the listener.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// CAs that sign the certificates of nodes; none where nodes show no certificate.
    pub client_ca: Option<PathBuf>,
    /// Certificates of nodes that do not count any more.
    pub client_crl: Option<PathBuf>,
}

/// The TLS settings that are in force now.
#[derive(Debug)]
pub struct TlsNow {
    config: Current<ServerConfig>,
}

impl TlsNow {
    /// Reads the files.
    pub fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        Ok(Self { config: Current::new(load(files)?) })
    }

    /// Reads them anew; on an error the old ones stay in force.
    pub fn reload(&self, files: &TlsFiles) -> Result<(), TlsError> {
        self.config.set(load(files)?);
        Ok(())
    }

    pub(crate) fn acceptor(&self) -> tokio_rustls::TlsAcceptor {
        tokio_rustls::TlsAcceptor::from(self.config.get())
    }
}

fn bad(path: &Path, what: &'static str, why: String) -> TlsError {
    TlsError::File { path: path.to_owned(), what, why }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let all: Vec<_> = read.map_err(|e| bad(path, "certificate", e.to_string()))?;
    if all.is_empty() {
        return Err(bad(path, "certificate", "there is no certificate in it".to_owned()));
    }
    Ok(all)
}

fn load(files: &TlsFiles) -> Result<Arc<ServerConfig>, TlsError> {
    let chain = certificates(&files.certificate)?;
    let key = &files.key;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|e| bad(key, "key", e.to_string()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(ca) => builder.with_client_cert_verifier(clients(ca, files.client_crl.as_deref(), provider)?),
    };
    let mut config = builder.with_single_cert(chain, private)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Who shows a certificate must show one of these CAs, not revoked. People and programs show none: whose path needs one,
/// its route demands it.
fn clients(
    ca: &Path,
    crl: Option<&Path>,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(ca)? {
        roots.add(certificate).map_err(|e| bad(ca, "certificate of a CA", e.to_string()))?;
    }
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    if let Some(path) = crl {
        let lists = CertificateRevocationListDer::pem_file_iter(path).and_then(Iterator::collect);
        let lists: Vec<_> = lists.map_err(|e| bad(path, "list of revoked certificates", e.to_string()))?;
        if lists.is_empty() {
            return Err(bad(path, "list of revoked certificates", "there is none in it".to_owned()));
        }
        // A list that has run out would let everybody in who was revoked since.
        builder = builder.with_crls(lists).enforce_revocation_expiration();
    }
    let built = builder.allow_unauthenticated().build();
    built.map_err(|e| bad(crl.unwrap_or(ca), "way to check certificates of nodes", e.to_string()))
}
