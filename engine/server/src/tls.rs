//! TLS of the listener: certificate and key from files, read anew by a reload.

use crate::current::Current;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
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

/// The TLS settings that are in force now.
#[derive(Debug)]
pub struct TlsNow {
    config: Current<ServerConfig>,
}

impl TlsNow {
    /// Reads certificate and key.
    pub fn read(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        Ok(Self { config: Current::new(load(certificate, key)?) })
    }

    /// Reads them anew; on an error the old ones stay in force.
    pub fn reload(&self, certificate: &Path, key: &Path) -> Result<(), TlsError> {
        self.config.set(load(certificate, key)?);
        Ok(())
    }

    pub(crate) fn acceptor(&self) -> tokio_rustls::TlsAcceptor {
        tokio_rustls::TlsAcceptor::from(self.config.get())
    }
}

fn load(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    let bad =
        |path: &Path, what: &'static str, why: String| TlsError::File { path: path.to_owned(), what, why };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect)
        .map_err(|e| bad(certificate, "certificate", e.to_string()))?;
    if chain.is_empty() {
        return Err(bad(certificate, "certificate", "there is no certificate in it".to_owned()));
    }
    let private = PrivateKeyDer::from_pem_file(key).map_err(|e| bad(key, "key", e.to_string()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, private)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
