//! What released versions stored and sent must be read by this one, and old processes beside new ones must read what
//! those write.
//!
//! `vX.Y.Z/` was written by that version and never changes:
//! ```text
//! sqlite.sql, mongodb.json        a database: a job in every state, an item, a paused queue, a worker, an idempotency key
//! sqlite.answers.json, mongodb.…  what its API said of each
//! records.json, notification.json what it kept of users, templates, rules and the like, and of notifications and events
//! wake-up.hex, controls.jsonl     what it sent through brokers
//! ```
//! Each is read twice: as it is, and with fields that this version does not know, as a newer one would write them.

mod records;
mod stored;
mod wire;
