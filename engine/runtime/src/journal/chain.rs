//! The hash chain: each event of a run and each record of a stream is bound to everything before it.

use engine_core::digest::Digest;

/// Whose an entry of the chain is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// An event of a run.
    Run,
    /// A record of a stream.
    Stream,
}

/// An entry exactly as it is stored, as bytes: what a changed file holds need not be text.
#[derive(Debug, Clone, Copy)]
pub(super) struct RawEvent<'a> {
    pub(super) owner: Owner,
    pub(super) pos: u64,
    /// Name of the run or of the stream.
    pub(super) name: &'a [u8],
    pub(super) seq: u64,
    pub(super) at: &'a [u8],
    pub(super) kind: &'a [u8],
    pub(super) body: &'a [u8],
    pub(super) prev: &'a [u8],
    pub(super) hash: &'a [u8],
}

/// Returns the digest that stands before the first entry.
pub(super) fn genesis() -> Digest {
    Digest::of(b"slurmedic journal 1")
}

/// Digests an entry together with the digest of the one before it; `entry.hash` and `entry.prev` play no part.
///
/// Each field is preceded by its length, so that no two different entries have the same bytes. A record has one field
/// more than an event, so that neither can pass for the other.
pub(super) fn link(prev: &Digest, entry: &RawEvent<'_>) -> Digest {
    let fields = [prev.as_str().as_bytes(), b"stream", entry.name, entry.at, entry.kind, entry.body];
    let mut bytes = Vec::with_capacity(16 + fields.iter().map(|f| f.len() + 8).sum::<usize>());
    bytes.extend_from_slice(&entry.pos.to_be_bytes());
    bytes.extend_from_slice(&entry.seq.to_be_bytes());
    for (i, field) in fields.iter().enumerate() {
        if i == 1 && entry.owner == Owner::Run {
            continue;
        }
        bytes.extend_from_slice(&(field.len() as u64).to_be_bytes());
        bytes.extend_from_slice(field);
    }
    Digest::of(&bytes)
}

/// Says whether stored bytes are a digest: events keep its text, records its 32 bytes.
pub(super) fn is_digest(owner: Owner, stored: &[u8], digest: &Digest) -> bool {
    match owner {
        Owner::Run => stored == digest.as_str().as_bytes(),
        Owner::Stream => stored == digest.bytes(),
    }
}

/// Reads a digest as it is stored with an entry.
pub(super) fn stored_digest(owner: Owner, stored: &[u8]) -> Option<Digest> {
    match owner {
        Owner::Run => Digest::parse(std::str::from_utf8(stored).ok()?),
        Owner::Stream => Some(Digest::from_bytes(stored.try_into().ok()?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_counts_and_none_flows_into_the_next() {
        let base = RawEvent {
            owner: Owner::Run,
            pos: 7,
            name: b"r1",
            seq: 3,
            at: b"2026-01-02T03:04:05Z",
            kind: b"noted",
            body: b"{}",
            prev: b"",
            hash: b"",
        };
        let prev = genesis();
        let of = |e: RawEvent<'_>| link(&prev, &e);
        let all = [
            of(base),
            of(RawEvent { pos: 8, ..base }),
            of(RawEvent { seq: 4, ..base }),
            of(RawEvent { name: b"r2", ..base }),
            of(RawEvent { at: b"2026-01-02T03:04:06Z", ..base }),
            of(RawEvent { kind: b"ended", ..base }),
            of(RawEvent { body: b"{ }", ..base }),
            // The same bytes, cut elsewhere, or in the other table.
            of(RawEvent { kind: b"noted{", body: b"}", ..base }),
            of(RawEvent { owner: Owner::Stream, ..base }),
            link(&Digest::of(b"another"), &base),
        ];
        for (i, a) in all.iter().enumerate() {
            assert!(all[i + 1..].iter().all(|b| a != b), "{i}");
        }
    }

    #[test]
    fn both_forms_of_a_digest_read_back() {
        let d = genesis();
        let text = d.as_str().as_bytes();
        assert!(is_digest(Owner::Run, text, &d) && is_digest(Owner::Stream, &d.bytes(), &d));
        assert!(!is_digest(Owner::Stream, text, &d) && !is_digest(Owner::Run, &d.bytes(), &d));
        assert_eq!(stored_digest(Owner::Run, text), Some(d.clone()));
        assert_eq!(stored_digest(Owner::Stream, &d.bytes()), Some(d.clone()));
        assert_eq!(stored_digest(Owner::Stream, text), None);
    }
}
