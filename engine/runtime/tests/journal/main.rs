//! The journal: the same promises from both stores, damage that is found, processes that die.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test says what it finds by failing"
)]

mod backup;
mod contract;
mod damage;
mod group;
mod locks;
mod processes;
mod sample;
mod streams;
mod two_processes;
mod upgrade;
