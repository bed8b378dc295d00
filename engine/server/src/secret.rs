//! Secrets in files: keys and random texts. A file that others may read is refused.

use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// The largest file of a secret, in bytes.
const MAX_SECRET: u64 = 4_096;
/// The fewest bytes of a secret.
pub(crate) const MIN_SECRET: usize = 16;

/// Why a secret is not used.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// It cannot be read.
    #[error("the secret {path} could not be read")]
    Read {
        /// Its file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Others may read it.
    #[error("the secret {path} may be read by others: run `chmod 600 {path}`")]
    Open {
        /// Its file.
        path: PathBuf,
    },
    /// It is too short or too long.
    #[error("the secret {path} has {len} bytes; {MIN_SECRET} to {MAX_SECRET} are taken")]
    Size {
        /// Its file.
        path: PathBuf,
        /// Its length.
        len: usize,
    },
    /// The machine gives no random bytes.
    #[error("the machine gives no random bytes")]
    Random(#[source] std::io::Error),
}

/// Reads a secret; a line end behind it does not belong to it.
pub fn read_secret(path: &Path) -> Result<Vec<u8>, SecretError> {
    let fail = |source| SecretError::Read { path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(fail)?;
    let meta = file.metadata().map_err(fail)?;
    if meta.mode() & 0o077 != 0 {
        return Err(SecretError::Open { path: path.to_owned() });
    }
    let mut bytes = Vec::new();
    file.take(MAX_SECRET + 1).read_to_end(&mut bytes).map_err(fail)?;
    while bytes.last().is_some_and(|b| matches!(b, b'\n' | b'\r')) {
        bytes.pop();
    }
    if bytes.len() < MIN_SECRET || bytes.len() as u64 > MAX_SECRET {
        return Err(SecretError::Size { path: path.to_owned(), len: bytes.len() });
    }
    Ok(bytes)
}

/// Returns so many random bytes as hexadecimal digits.
pub fn random_hex(bytes: usize) -> Result<String, SecretError> {
    let mut raw = vec![0_u8; bytes];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut f| f.read_exact(&mut raw))
        .map_err(SecretError::Random)?;
    Ok(hex(&raw))
}

/// Writes bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Reads hexadecimal digits.
pub(crate) fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        text.chars().map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok())).collect();
    let digits = digits?;
    digits.len().is_multiple_of(2).then(|| digits.chunks_exact(2).map(|p| p[0] << 4 | p[1]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_secret_that_others_may_read_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        std::fs::write(&path, "0123456789abcdef\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(read_secret(&path), Err(SecretError::Open { .. })));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(read_secret(&path).unwrap(), b"0123456789abcdef");
        std::fs::write(&path, "short\n").unwrap();
        assert!(matches!(read_secret(&path), Err(SecretError::Size { len: 5, .. })));
    }

    #[test]
    fn random_texts_differ_and_read_back() {
        let (a, b) = (random_hex(32).unwrap(), random_hex(32).unwrap());
        assert!(a != b && a.len() == 64);
        assert_eq!(hex(&unhex(&a).unwrap()), a);
        assert!(unhex("0").is_none() && unhex("zz").is_none());
    }
}
