//! `app`: an HTTP API, a durable job queue with workers and a scheduler, and notifications in one binary.
//!
//! The crate is a house: a room (top-level module) imports lower floors only, and rooms on one floor do not import
//! each other. `tests/it/floors.rs` proves it. From the ground up:
//!
//! | floor | rooms |
//! |---|---|
//! | 0 | [`base`] |
//! | 6 | [`items`] |
//! | 10 | [`http`] |
pub mod base;
pub mod items;

pub mod http;
