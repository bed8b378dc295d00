//! Keys of nodes, signed orders, and signed requests of agents.
//!
//! The site has one secret; the key of a node is derived from it and from the node's name, so the engine stores no list
//! and a node's key tells nothing about another's. Both directions are signed with it: an agent believes an order only
//! from somebody who holds its key, and the engine an answer only from the node it is about.

use crate::ports::WorkOrder;
use engine_core::model::NodeName;
use hmac::{Hmac, KeyInit as _, Mac as _};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// The fewest bytes of the site's secret.
pub const MIN_MASTER: usize = 32;
/// The longest order, in bytes of its text.
pub const MAX_ORDER: usize = 16 << 10;
/// The longest time for which an order may be good.
pub const MAX_ORDER_LIFE: SignedDuration = SignedDuration::from_hours(3);
/// How far the clocks of a node and of the engine may be apart.
const SKEW: SignedDuration = SignedDuration::from_secs(60);

/// The site's secret, from which the key of each node is made. Only the engine has it.
#[derive(Clone)]
pub struct OrderMaster(Vec<u8>);

impl std::fmt::Debug for OrderMaster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OrderMaster(..)")
    }
}

/// The key of one node.
#[derive(Clone, PartialEq, Eq)]
pub struct NodeKey([u8; 32]);

impl std::fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NodeKey(..)")
    }
}

/// Why an order or a request does not count. It says no more than a forger may know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadOrder {
    /// The secret is too short.
    #[error("the secret for orders has fewer than {MIN_MASTER} bytes")]
    ShortSecret,
    /// Not 64 hexadecimal digits.
    #[error("this is not the key of a node: `slurmedic agent key NODE` on the engine's host prints it")]
    NoKey,
    /// Not of this key, or changed since.
    #[error("the signature does not fit")]
    Forged,
    /// It is for another node.
    #[error("it is for another node")]
    WrongNode,
    /// Too old.
    #[error("it has expired")]
    Expired,
    /// Dated ahead, or good for longer than anything may be.
    #[error("it is dated ahead, or good for too long: are the clocks right?")]
    Dated,
    /// A verb or a form that this release does not know.
    #[error("it is no order that this release knows")]
    Unknown,
}

/// An order with its time, as it goes to the node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedOrder {
    /// What to do.
    pub order: WorkOrder,
    /// When it was given.
    pub issued_at: Timestamp,
    /// When it is void.
    pub expires_at: Timestamp,
}

/// What an agent's request is signed over: nobody can use it for another path, body or time.
#[derive(Debug, Clone, Copy)]
pub struct RequestMark<'a> {
    /// The node.
    pub node: &'a str,
    /// Path of the request.
    pub path: &'a str,
    /// When it was made.
    pub at: &'a str,
    /// Tells it from every other request.
    pub nonce: &'a str,
    /// Its body.
    pub body: &'a [u8],
}

impl OrderMaster {
    /// Takes the secret.
    pub fn new(bytes: Vec<u8>) -> Result<Self, BadOrder> {
        if bytes.len() < MIN_MASTER { Err(BadOrder::ShortSecret) } else { Ok(Self(bytes)) }
    }

    /// Makes the key of a node.
    pub fn key_of(&self, node: &NodeName) -> Result<NodeKey, BadOrder> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).map_err(|_| BadOrder::ShortSecret)?;
        mac.update(b"slurmedic node 1\n");
        mac.update(node.as_str().as_bytes());
        Ok(NodeKey(mac.finalize().into_bytes().into()))
    }
}

impl NodeKey {
    /// Reads a key as it is written in a file.
    pub fn parse(text: &str) -> Result<Self, BadOrder> {
        let bytes = unhex(text.trim()).ok_or(BadOrder::NoKey)?;
        bytes.try_into().map(Self).map_err(|_| BadOrder::NoKey)
    }

    /// Writes the key as it belongs into a file of the node that only root reads.
    pub fn reveal(&self) -> String {
        hex(&self.0)
    }

    fn mac(&self, parts: &[&[u8]]) -> Result<Hmac<Sha256>, BadOrder> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).map_err(|_| BadOrder::NoKey)?;
        for part in parts {
            mac.update(part);
            mac.update(b"\n");
        }
        Ok(mac)
    }

    /// Writes an order as text.
    pub fn sign(&self, order: &SignedOrder) -> Result<String, BadOrder> {
        let body = serde_json::to_vec(order).map_err(|_| BadOrder::Unknown)?;
        let tag = self.mac(&[b"slurmedic order 1", &body])?.finalize().into_bytes();
        Ok(format!("{}.{}", hex(&tag), String::from_utf8(body).map_err(|_| BadOrder::Unknown)?))
    }

    /// Reads an order on its node: first the signature, in constant time, then everything else.
    pub fn open(&self, text: &str, node: &NodeName, now: Timestamp) -> Result<SignedOrder, BadOrder> {
        if text.len() > MAX_ORDER {
            return Err(BadOrder::Forged);
        }
        let (tag, body) = text.split_once('.').ok_or(BadOrder::Forged)?;
        let tag = unhex(tag).ok_or(BadOrder::Forged)?;
        self.mac(&[b"slurmedic order 1", body.as_bytes()])?
            .verify_slice(&tag)
            .map_err(|_| BadOrder::Forged)?;
        let order: SignedOrder = serde_json::from_str(body).map_err(|_| BadOrder::Unknown)?;
        if order.order.node != *node {
            return Err(BadOrder::WrongNode);
        }
        let life = order.expires_at.duration_since(order.issued_at);
        if life > MAX_ORDER_LIFE || order.issued_at.duration_since(now) > SKEW {
            return Err(BadOrder::Dated);
        }
        if order.expires_at <= now {
            return Err(BadOrder::Expired);
        }
        Ok(order)
    }

    fn mark_mac(&self, mark: RequestMark<'_>) -> Result<Hmac<Sha256>, BadOrder> {
        let digest = hex(&Sha256::digest(mark.body));
        let RequestMark { node, path, at, nonce, .. } = mark;
        let parts = [node, path, at, nonce, &digest];
        // A line end in one of them would let two requests look alike.
        if parts.iter().any(|p| p.contains('\n')) {
            return Err(BadOrder::Forged);
        }
        let parts = parts.map(str::as_bytes);
        let mut all: Vec<&[u8]> = vec![b"slurmedic agent 1"];
        all.extend(parts);
        self.mac(&all)
    }

    /// Signs a request.
    pub fn mark(&self, mark: RequestMark<'_>) -> Result<String, BadOrder> {
        Ok(hex(&self.mark_mac(mark)?.finalize().into_bytes()))
    }

    /// Checks a request of an agent, in constant time; whether its nonce was used before is for the caller to know.
    pub fn check(&self, mark: RequestMark<'_>, tag: &str, now: Timestamp) -> Result<(), BadOrder> {
        let bytes = unhex(tag).ok_or(BadOrder::Forged)?;
        self.mark_mac(mark)?.verify_slice(&bytes).map_err(|_| BadOrder::Forged)?;
        let at: Timestamp = mark.at.parse().map_err(|_| BadOrder::Forged)?;
        let age = now.duration_since(at);
        if age > SKEW {
            return Err(BadOrder::Expired);
        }
        if -age > SKEW { Err(BadOrder::Dated) } else { Ok(()) }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().flat_map(|b| [b >> 4, b & 15]).filter_map(|n| char::from_digit(u32::from(n), 16)).collect()
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
    use crate::ports::Verb;

    fn node(name: &str) -> NodeName {
        NodeName::new(name).unwrap()
    }

    fn master() -> OrderMaster {
        OrderMaster::new(vec![7; 32]).unwrap()
    }

    fn now() -> Timestamp {
        "2026-03-04T05:06:07Z".parse().unwrap()
    }

    fn order(name: &str) -> SignedOrder {
        SignedOrder {
            order: WorkOrder {
                id: "r1/step2/1".to_owned(),
                node: node(name),
                run: None,
                verb: Verb::ResetGpu { uuid: "GPU-1".into(), bus_id: "00000000:1B:00.0".into() },
                limit: SignedDuration::from_secs(60),
            },
            issued_at: now(),
            expires_at: now() + SignedDuration::from_mins(2),
        }
    }

    #[test]
    fn an_order_reads_back_on_its_node_until_it_expires() {
        let key = master().key_of(&node("gpu001")).unwrap();
        let text = key.sign(&order("gpu001")).unwrap();
        assert_eq!(key.open(&text, &node("gpu001"), now()), Ok(order("gpu001")));
        let late = order("gpu001").expires_at;
        assert_eq!(key.open(&text, &node("gpu001"), late), Err(BadOrder::Expired));
        let early = now() - SignedDuration::from_mins(2);
        assert_eq!(key.open(&text, &node("gpu001"), early), Err(BadOrder::Dated));
    }

    #[test]
    fn an_order_is_useless_on_another_node() {
        let (one, two) =
            (master().key_of(&node("gpu001")).unwrap(), master().key_of(&node("gpu002")).unwrap());
        let text = one.sign(&order("gpu001")).unwrap();
        assert_eq!(two.open(&text, &node("gpu002"), now()), Err(BadOrder::Forged));
        // Not even the holder of the other key can point it there.
        let text = two.sign(&order("gpu001")).unwrap();
        assert_eq!(two.open(&text, &node("gpu002"), now()), Err(BadOrder::WrongNode));
    }

    #[test]
    fn any_changed_byte_is_a_forgery() {
        let key = master().key_of(&node("gpu001")).unwrap();
        let text = key.sign(&order("gpu001")).unwrap();
        for i in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[i] ^= 1;
            let Ok(changed) = String::from_utf8(bytes) else { continue };
            assert_eq!(key.open(&changed, &node("gpu001"), now()), Err(BadOrder::Forged), "at {i}");
        }
        for bad in ["", ".", "00.{}", "zz.{}", &"0".repeat(MAX_ORDER + 1)] {
            assert_eq!(key.open(bad, &node("gpu001"), now()), Err(BadOrder::Forged), "{bad:.10}");
        }
    }

    #[test]
    fn a_signed_order_of_unknown_form_or_endless_life_is_refused() {
        let key = master().key_of(&node("gpu001")).unwrap();
        let mut long = order("gpu001");
        long.expires_at = now() + MAX_ORDER_LIFE + SignedDuration::from_secs(1);
        assert_eq!(key.open(&key.sign(&long).unwrap(), &node("gpu001"), now()), Err(BadOrder::Dated));
        let mut body = serde_json::to_value(order("gpu001")).unwrap();
        body["order"]["verb"] = serde_json::json!({"verb": "shell", "command": "id"});
        let body = body.to_string();
        let tag = key.mac(&[b"slurmedic order 1", body.as_bytes()]).unwrap().finalize().into_bytes();
        let text = format!("{}.{body}", hex(&tag));
        assert_eq!(key.open(&text, &node("gpu001"), now()), Err(BadOrder::Unknown), "there is no such verb");
    }

    #[test]
    fn a_request_is_good_for_its_path_body_and_minute() {
        let key = master().key_of(&node("gpu001")).unwrap();
        let at = now().to_string();
        let mark = RequestMark { node: "gpu001", path: "/a", at: &at, nonce: "n", body: b"x" };
        let tag = key.mark(mark).unwrap();
        assert_eq!(key.check(mark, &tag, now()), Ok(()));
        for other in [
            RequestMark { path: "/b", ..mark },
            RequestMark { body: b"y", ..mark },
            RequestMark { nonce: "m", ..mark },
            RequestMark { node: "gpu002", ..mark },
            RequestMark { node: "gpu001\n/a", path: "", ..mark },
        ] {
            assert_eq!(key.check(other, &tag, now()), Err(BadOrder::Forged));
        }
        assert_eq!(key.check(mark, &tag, now() + SignedDuration::from_mins(2)), Err(BadOrder::Expired));
        assert_eq!(key.check(mark, &tag, now() - SignedDuration::from_mins(2)), Err(BadOrder::Dated));
    }

    #[test]
    fn a_key_is_written_and_read() {
        let key = master().key_of(&node("gpu001")).unwrap();
        assert_eq!(NodeKey::parse(&format!("{}\n", key.reveal())), Ok(key));
        assert_eq!(NodeKey::parse("abc"), Err(BadOrder::NoKey));
        assert!(matches!(OrderMaster::new(vec![0; 31]), Err(BadOrder::ShortSecret)));
    }
}
