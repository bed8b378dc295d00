//! XIDs: which fault an XID of the driver tells, where it tells one by itself.
//!
//! The table is made from `knowledge/xid.yaml` when the program is built, the same one for the watch, the agent and the
//! hook: nodes do not see a site's file, and what an XID tells must not depend on who looks.

include!(concat!(env!("OUT_DIR"), "/xid_table.rs"));

/// Finds the fault word of an XID; `None` for those of applications, and for those that only inform. 154 is left out: what
/// the driver asks for is a value of its own.
pub fn fault_of(xid: u32) -> Option<&'static str> {
    let found = XIDS.binary_search_by_key(&xid, |entry| entry.0).ok()?;
    Some(XIDS[found].1).filter(|fault| !fault.is_empty() && *fault != crate::knowledge::WISH)
}
