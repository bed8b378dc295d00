//! The engine's faces to people and programs: a UNIX socket that knows who calls, HTTP with tokens, health and metrics,
//! and the doors through which alerts are pushed in.
//!
//! It knows the core and the runtime, and no adapter: what it serves is handed to it. Every request has a deadline, a
//! size limit and a place in a bounded crowd; what is refused is counted and logged, by the same value.
//!
//! ```text
//! socket ─ peer credentials ─┐
//! TCP/TLS ─ token, ticket ───┼─▶ caller ─▶ authority (policy) ─▶ desk ─▶ engine, record of the fleet
//! webhook ─ signature, token ┘                                └▶ sources ─▶ intake
//! ```

mod alerts;
mod authority;
mod caller;
mod certificate;
mod crowd;
mod current;
mod desk;
mod documents;
mod exposition;
mod happening;
mod health;
mod limits;
mod listen;
mod metrics;
mod peer;
mod problem;
mod propose;
mod routes;
mod runwatch;
mod secret;
mod server;
mod settings;
mod snapshot;
pub mod sources;
mod systemd;
mod ticket;
mod tls;
mod token;

pub use alerts::{Answered, Gathered, NotTaken, feed};
pub use authority::Authority;
pub use caller::{Caller, Means, TokenScope};
pub use current::{Current, GateNow, PlaybooksNow};
pub use desk::{Desk, Stops};
pub use documents::{
    About, AlertsTaken, Closed, Decided, Incidents, Runs, Show, StopList, StopNow, Stopped, TicketIssued, Why,
};
pub use happening::{Happening, Telemetry};
pub use health::{Health, HealthReport};
pub use listen::{BindError, Bound, bind_net, bind_socket};
pub use peer::{PERSON_HEADER, groups_of, is_name};
pub use problem::{Problem, ProblemKind};
pub use propose::{MAX_ALERT_ID, Wanted, read_params};
pub use runwatch::RunWatch;
pub use secret::{SecretError, random_hex, read_secret};
pub use server::{Parts, Server, SourceTable, serve};
pub use settings::{Limits, Listen, ServerSettings, SettingsError, open_files};
pub use systemd::Notifier;
pub use ticket::{MAX_TICKET_LIFE, TicketDesk};
pub use tls::{TlsError, TlsFiles, TlsNow};
pub use token::{NewToken, StoredToken, TokenError, TokenFile, TokenStore};
