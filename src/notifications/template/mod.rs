//! Templates: what messages say, in versions and languages.

pub mod engine;
pub mod model;
