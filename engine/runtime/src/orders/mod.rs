//! Orders to nodes whose agents fetch them: signed for one node each, handed out once, answered once.
//!
//! ```text
//! engine ─ perform ─▶ mailbox ◀─ fetch ── agent of the node ─▶ the node's own check ─▶ tools
//!              ▲         ▲                        │
//!              └ result ─┴──────── answer ────────┘
//! ```
//!
//! Nobody connects to a node. An agent holds the key of its node and of no other; an order is good for that node, for a
//! while, and for once.

mod actuator;
mod enrol;
mod key;
mod mailbox;

pub use actuator::AgentNodes;
pub use enrol::{BadSeal, EnrolRules, Enrolment, NotEnrolled, Opened, Seals, ask_for_key, forget, read_key};
pub use key::{
    BadOrder, MAX_ORDER, MAX_ORDER_LIFE, MIN_MASTER, NodeKey, OrderMaster, RequestMark, SignedOrder,
};
pub use mailbox::{AgentSeen, Answered, Fetched, MAX_WAITING_ORDERS, Mailbox, Silence};
