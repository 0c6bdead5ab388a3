//! The job queue itself: what a job is, how its state moves, which kinds exist, and what callers may do.
//!
//! The room declares the store it needs ([`store::JobStore`], [`store::FleetStore`]) and uses the broker only to say
//! "look now". Nothing here knows HTTP, SQL or a server.

mod admit;
pub mod announce;
pub mod authority;
pub mod context;
pub mod control;
pub mod error;
pub mod kind;
mod meter;
pub mod model;
pub mod registry;
pub mod retention;
pub mod schema;
pub mod service;
pub mod state;
pub mod store;
mod wake;
