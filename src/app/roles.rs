//! Runs roles.

use super::Error;
use crate::config::{Config, Role};
/// x
/// # Errors
/// x
pub async fn run(_role: Role, _config: Config) -> Result<(), Error> {
    Ok(())
}
/// x
/// # Errors
/// x
pub async fn run_all() -> Result<(), Error> {
    Ok(())
}
/// x
/// # Errors
/// x
pub async fn migrate(_config: Config) -> Result<(), Error> {
    Ok(())
}
/// x
pub fn openapi_json() -> String {
    String::new()
}
