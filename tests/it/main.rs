//! Integration tests: the house's floors, one conformance suite for each port, a model-based test of the job store,
//! the behaviour of workers and scheduler, and the real binary: its start, its command line and its HTTP contract.
//!
//! Tests wait for conditions with a deadline ([`support::eventually`]); none of them asserts how long something took.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::large_futures,
    reason = "a test that cannot go on should say where and stop"
)]

mod cache;
mod channels;
mod cli;
mod compat;
mod conformance;
mod contract;
mod crash;
mod deploy;
mod faults;
mod files;
mod first_hour;
mod fleet;
mod floors;
mod model;
mod nginx;
mod post;
mod startup;
mod support;
mod users;
mod walk;
mod worker;
