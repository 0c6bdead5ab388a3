//! Items: small named records with free metadata, kept by the store.
//!
//! The room knows what an item is and how it may change; it does not know HTTP, nor which store holds it.

pub mod error;
pub mod model;
pub mod service;
pub mod store;

pub use error::ItemError;
pub use model::{Item, ItemPatch, NewItem};
pub use service::Items;
pub use store::{ItemFilter, ItemStore};
