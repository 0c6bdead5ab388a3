//! `app`: an HTTP API, a durable job queue, workers, a scheduler and notifications in one binary.
//!
//! The crate is a house: a room (top-level module) imports lower floors only, and rooms on one floor do not import
//! each other. `tests/it/floors.rs` proves it. From the ground up:
//!
//! | floor | rooms |
//! |---|---|
//! | 0 | [`base`] |
//! | 1 | [`config`] |
//! | 2 | [`telemetry`], [`redis`] |
//! | 3 | [`broker`], [`cache`], [`events`] |
//! | 4 | [`records`] |
//! | 5 | [`jobs`], [`users`] |
//! | 6 | [`items`] |
//! | 8 | [`notifications`] |
//! | 9 | [`store`], [`kinds`] |
//! | 10 | [`http`], [`worker`], [`scheduler`] |
//! | 11 | [`app`] |
//! | 12 | [`cli`] |
pub mod app;
pub mod base;
pub mod broker;
pub mod cache;
pub mod cli;
pub mod config;
pub mod events;
pub mod http;
pub mod items;
pub mod jobs;
pub mod kinds;
pub mod notifications;
pub mod records;
pub mod redis;
pub mod scheduler;
pub mod store;
pub mod telemetry;
pub mod users;
pub mod worker;
