//! The job kinds that come with the program.
//!
//! The list in [`register`] is the whole of it; a kind is the payload struct, its constants and its `run`.

use std::sync::Arc;

use crate::{
    base::clock::Clock,
    jobs::{registry::Registry, retention::Rule, store::JobStore},
};

mod cleanup;
mod demo;
#[cfg(feature = "testing")]
mod scripted;

/// What kinds need from the process.
pub struct Deps {
    /// Jobs, to clean up.
    pub store: Arc<dyn JobStore>,
    /// Time.
    pub clock: Clock,
    /// How long jobs are kept unless a clean-up says otherwise.
    pub retention: Rule,
}

/// Adds every built-in kind.
///
/// # Errors
/// A sentence, if two kinds share a name or one is wrong in itself.
pub fn register(registry: &mut Registry, deps: Deps) -> Result<(), String> {
    registry.add(demo::Noop)?;
    registry.add(demo::Heavy)?;
    registry.add(demo::Batch)?;
    registry.add(cleanup::Cleanup::new(deps))?;
    #[cfg(feature = "testing")]
    registry.add(scripted::Scripted)?;
    Ok(())
}
