//! Opens the database file: exclusive, of a known make, at the present version.

use std::{
    fs::{File, TryLockError},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rusqlite::Connection;

use super::from_sql;
use crate::base::store::StoreError;

/// The lock of a process that has just been killed is not free the moment it is dead to its parent.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Marks the file as ours (`PRAGMA application_id`): "appq" in ASCII.
const APPLICATION_ID: i64 = 0x6170_7071;

/// Every migration, oldest first; number n brings a database from version n-1 to n. Old ones never change.
const MIGRATIONS: &[&str] = &[
    include_str!("../../../migrations/sqlite/0001_core.sql"),
    include_str!("../../../migrations/sqlite/0002_records.sql"),
];

/// Makes the directory and takes the lock that only one process at a time can hold.
pub(super) fn lock(path: &Path) -> Result<File, StoreError> {
    if let Some(dir) = path.parent().filter(|d| !d.as_os_str().is_empty()) {
        std::fs::create_dir_all(dir).map_err(|e| {
            StoreError::Internal(format!("cannot make the directory `{}` for store.url: {e}", dir.display()))
        })?;
    }
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let name = PathBuf::from(name);
    let file = File::create(&name)
        .map_err(|e| StoreError::Internal(format!("cannot write `{}` beside store.url: {e}", name.display())))?;
    let patience = Instant::now() + LOCK_PATIENCE;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < patience => std::thread::park_timeout(LOCK_PAUSE),
            Err(TryLockError::WouldBlock) => {
                return Err(StoreError::Unavailable(format!(
                    "`{}` is in use by another process: stop it, or give this one another store.url",
                    path.display()
                )));
            }
            Err(TryLockError::Error(e)) => {
                return Err(StoreError::Internal(format!(
                    "cannot lock `{}`: {e}; is it on a local disk?",
                    name.display()
                )));
            }
        }
    }
}

/// The sentence for a file that cannot be opened as a database.
pub(super) fn unusable(path: &Path, e: &rusqlite::Error) -> StoreError {
    StoreError::Internal(format!("cannot use `{}` as a database (store.url): {e}", path.display()))
}

/// Refuses what is no database, or one of another program or of a newer version, and answers its version.
pub(super) fn check(conn: &Connection, path: &Path) -> Result<usize, StoreError> {
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
    Ok(version)
}

/// Brings the database to the present version, each step in a transaction of its own.
pub(super) fn run(conn: &mut Connection, path: &Path) -> Result<(), StoreError> {
    let version = check(conn, path)?;
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
