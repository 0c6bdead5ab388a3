//! Templates: what messages say, in versions and languages.

mod bounds;
pub mod engine;
mod language;
pub mod model;
