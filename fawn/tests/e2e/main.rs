//! The real binary, driven as users drive it: over HTTP, with its own command line and with faas-cli, in front of a
//! real registry, with guests that real toolchains built.
//!
//! `scripts/test` installs what they need and runs them all.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may"
)]
#![expect(clippy::print_stderr, reason = "the log of a failed test's server, and measurements")]

mod airflow;
mod alerts;
mod async_crash;
mod async_disk;
mod async_load;
mod asynchronous;
mod bad_input;
mod caller;
mod canary;
mod certifier;
mod clients;
mod crash;
mod developer;
mod docker;
mod edge;
mod egress;
mod faas_cli;
mod foreign_provider;
mod fresh;
mod functions;
mod guests;
mod halves;
mod handlers;
mod images;
mod inner_loop;
mod later;
mod ledger;
mod logs;
mod memory;
mod monitoring;
mod neighbours;
mod node_faults;
mod openapi;
mod process;
mod registries;
mod registry;
mod secrets;
mod soak;
mod start;
mod store;
mod store_pack;
mod streaming;
mod templates;
mod token_server;
mod updates;
mod wrapped;
