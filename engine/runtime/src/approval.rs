//! Tickets: a person's yes from afar, such as from a chat or a mail. A ticket is for one person, one plan, a while, and
//! once; without the site's key nobody can make or change one.

use engine_core::digest::Digest;
use engine_core::model::RunId;
use hmac::{Hmac, KeyInit as _, Mac as _};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use std::fmt::Write as _;

/// The fewest bytes of a key.
pub const MIN_KEY: usize = 32;
/// The longest text of a ticket, in bytes.
pub const MAX_TICKET: usize = 2_048;

/// Signs and checks tickets.
#[derive(Clone)]
pub struct TicketKey(Vec<u8>);

impl std::fmt::Debug for TicketKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TicketKey(..)")
    }
}

/// What a ticket says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ticket {
    /// The run.
    pub run: RunId,
    /// The plan.
    pub digest: Digest,
    /// The person it was given to.
    pub person: String,
    /// When it is void.
    pub expires_at: Timestamp,
    /// Tells it from every other ticket.
    pub nonce: String,
}

/// Why a text is no ticket. It says no more than a forger may know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadTicket {
    /// The key is too short.
    #[error("the key for tickets has fewer than {MIN_KEY} bytes")]
    ShortKey,
    /// Not written by this site, or changed since.
    #[error("this is no ticket of this site")]
    Forged,
    /// Too old.
    #[error("the ticket has expired: ask for a new one")]
    Expired,
}

impl TicketKey {
    /// Takes a key.
    pub fn new(bytes: Vec<u8>) -> Result<Self, BadTicket> {
        if bytes.len() < MIN_KEY { Err(BadTicket::ShortKey) } else { Ok(Self(bytes)) }
    }

    fn mac(&self, body: &[u8]) -> Result<Hmac<Sha256>, BadTicket> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).map_err(|_| BadTicket::ShortKey)?;
        mac.update(b"slurmedic ticket 1\n");
        mac.update(body);
        Ok(mac)
    }

    /// Writes a ticket as text.
    pub fn sign(&self, ticket: &Ticket) -> Result<String, BadTicket> {
        let body = serde_json::to_vec(ticket).map_err(|_| BadTicket::Forged)?;
        let tag = self.mac(&body)?.finalize().into_bytes();
        Ok(format!("{}.{}", hex(&body), hex(&tag)))
    }

    /// Reads a ticket: first the signature, in constant time, then everything else.
    pub fn open(&self, text: &str, now: Timestamp) -> Result<Ticket, BadTicket> {
        if text.len() > MAX_TICKET {
            return Err(BadTicket::Forged);
        }
        let (body, tag) = text.trim().split_once('.').ok_or(BadTicket::Forged)?;
        let (body, tag) = (unhex(body).ok_or(BadTicket::Forged)?, unhex(tag).ok_or(BadTicket::Forged)?);
        self.mac(&body)?.verify_slice(&tag).map_err(|_| BadTicket::Forged)?;
        let ticket: Ticket = serde_json::from_slice(&body).map_err(|_| BadTicket::Forged)?;
        if ticket.expires_at <= now {
            return Err(BadTicket::Expired);
        }
        Ok(ticket)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, b| {
        // Writing to a text cannot fail.
        let _ = write!(out, "{b:02x}");
        out
    })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        text.chars().map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok())).collect();
    let digits = digits?;
    digits.len().is_multiple_of(2).then(|| digits.chunks_exact(2).map(|p| p[0] << 4 | p[1]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticket() -> Ticket {
        Ticket {
            run: RunId::new("r1").unwrap(),
            digest: Digest::of(b"plan"),
            person: "ada".to_owned(),
            expires_at: "2026-03-04T05:06:07Z".parse().unwrap(),
            nonce: "n1".to_owned(),
        }
    }

    #[test]
    fn a_ticket_reads_back_until_it_expires() {
        let key = TicketKey::new(vec![7; 32]).unwrap();
        let text = key.sign(&ticket()).unwrap();
        let before = "2026-03-04T05:06:06Z".parse().unwrap();
        assert_eq!(key.open(&text, before), Ok(ticket()));
        assert_eq!(key.open(&text, ticket().expires_at), Err(BadTicket::Expired));
    }

    #[test]
    fn any_changed_character_another_key_or_no_key_is_a_forgery() {
        let key = TicketKey::new(vec![7; 32]).unwrap();
        let text = key.sign(&ticket()).unwrap();
        let now = Timestamp::UNIX_EPOCH;
        for i in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[i] = if bytes[i] == b'0' { b'1' } else { b'0' };
            assert_eq!(key.open(&String::from_utf8(bytes).unwrap(), now), Err(BadTicket::Forged), "at {i}");
        }
        let other = TicketKey::new(vec![8; 32]).unwrap();
        assert_eq!(other.open(&text, now), Err(BadTicket::Forged));
        for bad in ["", ".", "00.00", "zz.zz", &"0".repeat(5_000)] {
            assert_eq!(key.open(bad, now), Err(BadTicket::Forged), "{bad:.10}");
        }
        assert!(TicketKey::new(vec![0; 31]).is_err());
    }
}
