//! The hash chain: each event is bound to everything before it.

use engine_core::digest::Digest;

/// An event exactly as it is stored, as bytes: what a changed file holds need not be text.
#[derive(Debug, Clone, Copy)]
pub(super) struct RawEvent<'a> {
    pub(super) pos: u64,
    pub(super) run: &'a [u8],
    pub(super) seq: u64,
    pub(super) at: &'a [u8],
    pub(super) kind: &'a [u8],
    pub(super) body: &'a [u8],
    pub(super) prev: &'a [u8],
    pub(super) hash: &'a [u8],
}

/// Returns the digest that stands before the first event.
pub(super) fn genesis() -> Digest {
    Digest::of(b"slurmedic journal 1")
}

/// Digests an event together with the digest of the one before it; `event.hash` and `event.prev` play no part.
///
/// Each field is preceded by its length, so that no two different events have the same bytes.
pub(super) fn link(prev: &[u8], event: &RawEvent<'_>) -> Digest {
    let fields = [prev, event.run, event.at, event.kind, event.body];
    let mut bytes = Vec::with_capacity(16 + fields.iter().map(|f| f.len() + 8).sum::<usize>());
    bytes.extend_from_slice(&event.pos.to_be_bytes());
    bytes.extend_from_slice(&event.seq.to_be_bytes());
    for field in fields {
        bytes.extend_from_slice(&(field.len() as u64).to_be_bytes());
        bytes.extend_from_slice(field);
    }
    Digest::of(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_counts_and_none_flows_into_the_next() {
        let base = RawEvent {
            pos: 7,
            run: b"r1",
            seq: 3,
            at: b"2026-01-02T03:04:05Z",
            kind: b"noted",
            body: b"{}",
            prev: b"",
            hash: b"",
        };
        let prev = genesis();
        let of = |e: RawEvent<'_>| link(prev.as_str().as_bytes(), &e);
        let all = [
            of(base),
            of(RawEvent { pos: 8, ..base }),
            of(RawEvent { seq: 4, ..base }),
            of(RawEvent { run: b"r2", ..base }),
            of(RawEvent { at: b"2026-01-02T03:04:06Z", ..base }),
            of(RawEvent { kind: b"ended", ..base }),
            of(RawEvent { body: b"{ }", ..base }),
            // The same bytes, cut elsewhere.
            of(RawEvent { kind: b"noted{", body: b"}", ..base }),
            link(b"another", &base),
        ];
        for (i, a) in all.iter().enumerate() {
            assert!(all[i + 1..].iter().all(|b| a != b), "{i}");
        }
    }
}
