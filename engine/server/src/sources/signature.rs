//! Signatures of posts: HMAC-SHA256 over the body, or over `time:body` where the sender dates its posts, as Grafana does.

use crate::secret::unhex;
use hmac::{Hmac, KeyInit as _, Mac as _};
use jiff::{SignedDuration, Timestamp};
use sha2::Sha256;

/// How old a dated post may be, and how far ahead its clock.
const MAX_AGE: SignedDuration = SignedDuration::from_mins(5);

/// How a source signs.
#[derive(Clone, PartialEq, Eq)]
pub struct Signing {
    secret: Vec<u8>,
    /// Header with the signature, in lower case.
    pub header: String,
    /// Header with the time in seconds since 1970, in lower case; posts are not dated where not set.
    pub time_header: Option<String>,
}

impl std::fmt::Debug for Signing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signing").field("header", &self.header).finish_non_exhaustive()
    }
}

/// Why a signature does not count. It says no more than a forger may know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadSignature {
    /// There is none.
    #[error("the post is not signed")]
    Missing,
    /// It is not of this secret and this body.
    #[error("the signature does not fit")]
    Forged,
    /// It is dated too long ago, or ahead.
    #[error("the post is dated too long ago or ahead")]
    Stale,
}

impl Signing {
    /// Builds it.
    pub fn new(secret: Vec<u8>, header: &str, time_header: Option<&str>) -> Self {
        let lower = |t: &str| t.to_ascii_lowercase();
        Self { secret, header: lower(header), time_header: time_header.map(lower) }
    }

    fn mac(&self, time: Option<&str>, body: &[u8]) -> Option<Hmac<Sha256>> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.secret).ok()?;
        if let Some(t) = time {
            mac.update(t.as_bytes());
            mac.update(b":");
        }
        mac.update(body);
        Some(mac)
    }

    /// Signs a body, as a sender does.
    pub fn sign(&self, time: Option<&str>, body: &[u8]) -> String {
        self.mac(time, body).map(|m| crate::secret::hex(&m.finalize().into_bytes())).unwrap_or_default()
    }

    /// Checks a post, in constant time.
    pub fn check(
        &self,
        signature: Option<&str>,
        time: Option<&str>,
        body: &[u8],
        now: Timestamp,
    ) -> Result<(), BadSignature> {
        let signature = signature.ok_or(BadSignature::Missing)?.trim();
        let signature = signature.strip_prefix("sha256=").unwrap_or(signature);
        let tag = unhex(signature).ok_or(BadSignature::Forged)?;
        let time = match &self.time_header {
            Some(_) => Some(time.ok_or(BadSignature::Missing)?),
            None => None,
        };
        let mac = self.mac(time, body).ok_or(BadSignature::Forged)?;
        mac.verify_slice(&tag).map_err(|_| BadSignature::Forged)?;
        if let Some(t) = time {
            let at = t.parse::<i64>().ok().and_then(|s| Timestamp::from_second(s).ok());
            let at = at.ok_or(BadSignature::Stale)?;
            if now.duration_since(at).abs() > MAX_AGE {
                return Err(BadSignature::Stale);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_secret_and_the_same_body_fit() {
        let s = Signing::new(vec![7; 32], "X-Sig", None);
        let now = Timestamp::UNIX_EPOCH;
        let good = s.sign(None, b"body");
        assert_eq!(s.check(Some(&good), None, b"body", now), Ok(()));
        assert_eq!(s.check(Some(&format!("sha256={good}")), None, b"body", now), Ok(()));
        assert_eq!(s.check(Some(&good), None, b"bodx", now), Err(BadSignature::Forged));
        assert_eq!(s.check(None, None, b"body", now), Err(BadSignature::Missing));
        for bad in ["", "zz", &good[..62], &good.replace(&good[..1], "")] {
            assert_eq!(s.check(Some(bad), None, b"body", now), Err(BadSignature::Forged), "{bad}");
        }
        let other = Signing::new(vec![8; 32], "X-Sig", None);
        assert_eq!(other.check(Some(&good), None, b"body", now), Err(BadSignature::Forged));
    }

    #[test]
    fn a_dated_post_is_good_for_five_minutes_and_its_date_is_signed() {
        let s = Signing::new(vec![7; 32], "X-Sig", Some("X-Time"));
        let now = Timestamp::from_second(10_000).unwrap();
        let good = s.sign(Some("10000"), b"body");
        assert_eq!(s.check(Some(&good), Some("10000"), b"body", now), Ok(()));
        assert_eq!(s.check(Some(&good), Some("10001"), b"body", now), Err(BadSignature::Forged));
        assert_eq!(s.check(Some(&good), None, b"body", now), Err(BadSignature::Missing));
        let later = Timestamp::from_second(10_301).unwrap();
        assert_eq!(s.check(Some(&good), Some("10000"), b"body", later), Err(BadSignature::Stale));
        let earlier = Timestamp::from_second(9_699).unwrap();
        assert_eq!(s.check(Some(&good), Some("10000"), b"body", earlier), Err(BadSignature::Stale));
    }

    #[test]
    fn the_reference_value_of_rfc_4231_fits() {
        let s = Signing::new(b"Jefe".to_vec(), "h", None);
        let tag = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(s.sign(None, b"what do ya want for nothing?"), tag);
    }
}
