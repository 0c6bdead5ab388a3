//! Copies the write-ahead log into the database when it is long, after whoever waited for the commit has been answered.
//!
//! Left to itself SQLite does so within the commit that makes the log too long, which then takes some milliseconds more.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use rusqlite::{Connection, hooks::Wal};

/// Pages in the log that make a checkpoint due: 32 MiB.
const CHECKPOINT_PAGES: u64 = 8192;

/// The log of the connection that writes.
pub(super) struct Log {
    /// Pages in it, as SQLite told after the last commit.
    pages: Arc<AtomicU64>,
}

impl Log {
    /// Takes over from SQLite when to copy the log.
    pub(super) fn of(conn: &mut Connection) -> Result<Self, rusqlite::Error> {
        let pages = Arc::new(AtomicU64::new(0));
        let told = Arc::clone(&pages);
        // This hook is what SQLite's own checkpoints are made of; another one in its place ends them.
        conn.wal_hook(Some(move |_: &mut Wal, pages| {
            told.store(u64::try_from(pages).unwrap_or(0), Ordering::Relaxed);
            Ok(())
        }))?;
        Ok(Self { pages })
    }

    /// Copies it if that is due. To be called between two commits.
    pub(super) fn care(&self, conn: &Connection) {
        if self.pages.load(Ordering::Relaxed) < CHECKPOINT_PAGES {
            return;
        }
        // What a reader still needs stays; the checkpoint after the next commit goes on with it.
        if let Err(e) = conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())) {
            tracing::error!(error = %e, "cannot copy the write-ahead log into the database");
        }
    }
}
