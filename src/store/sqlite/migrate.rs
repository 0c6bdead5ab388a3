//! Brings the database to the present version, if it is one of ours and none of a newer program.

use std::path::Path;

use rusqlite::Connection;

use super::from_sql;
use crate::base::store::StoreError;

/// Marks the file as ours (`PRAGMA application_id`): "appq" in ASCII.
const APPLICATION_ID: i64 = 0x6170_7071;

/// Every migration, oldest first; number n brings a database from version n-1 to n. Old ones never change.
const MIGRATIONS: &[&str] = &[
    include_str!("../../../migrations/sqlite/0001_core.sql"),
    include_str!("../../../migrations/sqlite/0002_records.sql"),
];

/// The sentence for a file that cannot be opened as a database.
pub(super) fn unusable(path: &Path, e: &rusqlite::Error) -> StoreError {
    StoreError::Internal(format!("cannot use `{}` as a database (store.url): {e}", path.display()))
}

/// What a file that may be used holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Contents {
    /// Nothing yet.
    Nothing,
    /// A database of this program, at this version.
    Database(usize),
}

/// Returns what the file holds. Refuses what is no database, or one of another program or of a
/// newer version.
pub(super) fn check(conn: &Connection, path: &Path) -> Result<Contents, StoreError> {
    let pragma = |name: &str| -> Result<i64, StoreError> {
        conn.pragma_query_value(None, name, |r| r.get(0)).map_err(|e| unusable(path, &e))
    };
    let version = usize::try_from(pragma("user_version")?).unwrap_or(usize::MAX);
    let ours = pragma("application_id")? == APPLICATION_ID;
    let tables: i64 = conn
        .query_row("SELECT count(*) FROM sqlite_schema WHERE type = 'table'", [], |r| r.get(0))
        .map_err(|e| unusable(path, &e))?;
    if !ours && tables > 0 {
        return Err(StoreError::Internal(format!(
            "`{}` is a database of another program: give store.url another file",
            path.display()
        )));
    }
    if version > MIGRATIONS.len() {
        return Err(StoreError::Internal(format!(
            "`{}` was written by a newer version of app (schema {version}, this one knows {}): use that version, or restore a backup",
            path.display(),
            MIGRATIONS.len()
        )));
    }
    Ok(if tables == 0 { Contents::Nothing } else { Contents::Database(version) })
}

/// Brings the database to the present version, each step in a transaction of its own.
pub(super) fn run(conn: &mut Connection, path: &Path) -> Result<(), StoreError> {
    let version = match check(conn, path)? {
        Contents::Nothing => 0,
        Contents::Database(version) => version,
    };
    for (i, sql) in MIGRATIONS.iter().enumerate().skip(version) {
        let tx = conn.transaction().map_err(|e| from_sql(&e))?;
        tx.execute_batch(sql)
            .and_then(|()| tx.pragma_update(None, "user_version", i64::try_from(i + 1).unwrap_or(i64::MAX)))
            .and_then(|()| tx.pragma_update(None, "application_id", APPLICATION_ID))
            .and_then(|()| tx.commit())
            .map_err(|e| StoreError::Internal(format!("migration {} of `{}` failed: {e}", i + 1, path.display())))?;
        tracing::info!(version = i + 1, "database migrated");
    }
    Ok(())
}
