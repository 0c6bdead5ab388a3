//! Brings the database to the present version: numbered lists of commands, each of which may run twice.
//!
//! Several processes may start at once: every command is idempotent, and the version is only ever raised.

use ::mongodb::{
    Database,
    bson::{Document, doc},
};

use super::fault::{Fault, corrupt};

/// Every migration, oldest first; number n brings a database from version n-1 to n. Old ones never change.
const MIGRATIONS: &[&str] = &[
    include_str!("../../../migrations/mongodb/0001_core.json"),
    include_str!("../../../migrations/mongodb/0002_records.json"),
    include_str!("../../../migrations/mongodb/0003_leases.json"),
];

/// `NamespaceExists`: the collection is there already.
const EXISTS: i32 = 48;

/// The version of the database; none if there is none yet. Refuses one of a newer program.
pub(super) async fn version(db: &Database) -> Result<Option<i64>, Fault> {
    let found = db.collection::<Document>("schema").find_one(doc! { "_id": "version" }).await?;
    let version = found.map(|d| d.get_i64("version").map_err(|e| corrupt("schema version", e)));
    let version = version.transpose()?;
    let present = MIGRATIONS.len() as i64;
    if let Some(version) = version.filter(|v| *v > present) {
        return Err(Fault::Unfit(format!(
            "the database `{}` (store.url) has schema version {version}, this program knows versions up to {present}: use a \
             newer program, or another database",
            db.name()
        )));
    }
    Ok(version)
}

pub(super) async fn run(db: &Database) -> Result<(), Fault> {
    let version = version(db).await?.unwrap_or(0);
    let schema = db.collection::<Document>("schema");
    for (n, text) in (1_i64..).zip(MIGRATIONS).filter(|(n, _)| *n > version) {
        // Read as BSON at once: a command is its first key, and the order of keys is the meaning of an index.
        let commands: Vec<Document> = serde_json::from_str(text).map_err(|e| corrupt("migration", e))?;
        for command in commands {
            if let Err(e) = db.run_command(command).await {
                let e = Fault::from(e);
                if e.code() != Some(EXISTS) {
                    return Err(e);
                }
            }
        }
        schema.update_one(doc! { "_id": "version" }, doc! { "$max": { "version": n } }).upsert(true).await?;
        tracing::info!(version = n, database = db.name(), "database migrated");
    }
    Ok(())
}
