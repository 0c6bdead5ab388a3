//! Keeps the write-ahead log out of the callers' way: it is laid out before it is written to, and copied into the
//! database after whoever waited has been answered.
//!
//! A sync of a file that has just grown writes the file system's journal, too, which takes several times as long as a sync
//! of bytes whose place is known. SQLite writes the log from its beginning again after each checkpoint, so only the first lap
//! has to be laid out. Zeros behind the last frame are no frames: reading the log ends at the first that is not whole
//! (<https://sqlite.org/fileformat2.html#walformat>, section 4.2).

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use rusqlite::Connection;

/// A checkpoint is due when the log has this many pages: 32 MiB.
const CHECKPOINT_PAGES: u64 = 8192;
/// A page and the header of its frame.
const FRAME: u64 = 4096 + 24;
/// The log is laid out this far before its end, and so much at a time: about a millisecond's work.
const STEP: u64 = 1 << 20;
/// No further than this: by then the next checkpoint has made room at the beginning.
const LAST: u64 = CHECKPOINT_PAGES * FRAME + 4 * STEP;

/// The log of the connection that writes.
pub(super) struct Log {
    /// None if it cannot be laid out; then it grows with each commit.
    file: Option<File>,
    laid_out: u64,
    /// Pages in it, as SQLite told after the last commit.
    pages: Arc<AtomicU64>,
}

impl Log {
    /// Takes over from SQLite when to copy the log of `database`. The connection must be the only one that writes.
    pub(super) fn of(conn: &mut Connection, database: &Path) -> Result<Self, rusqlite::Error> {
        let pages = Arc::new(AtomicU64::new(0));
        let told = Arc::clone(&pages);
        // Replaces SQLite's own checkpoints, which are done within the commit.
        conn.wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, pages: std::ffi::c_int| {
            told.store(u64::try_from(pages).unwrap_or(0), Ordering::Relaxed);
            Ok(())
        }))?;
        let mut name = database.as_os_str().to_owned();
        name.push("-wal");
        let file = match OpenOptions::new().write(true).open(PathBuf::from(name)) {
            Ok(file) => Some(file),
            Err(e) => {
                tracing::warn!(error = %e, "cannot lay out the write-ahead log, commits will take longer");
                None
            }
        };
        Ok(Self { file, laid_out: 0, pages })
    }

    /// Does what is due. To be called by the thread that writes, between two commits.
    pub(super) fn care(&mut self, conn: &Connection) {
        let pages = self.pages.load(Ordering::Relaxed);
        if pages >= CHECKPOINT_PAGES {
            // A checkpoint that readers keep from ending goes on with the next commit.
            if let Err(e) = conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())) {
                tracing::error!(error = %e, "cannot copy the write-ahead log into the database");
            }
        }
        if self.laid_out < LAST && pages * FRAME + STEP > self.laid_out {
            self.lay_out();
        }
    }

    fn lay_out(&mut self) {
        let Some(file) = &self.file else { return };
        let mut more = || {
            // A large commit may have gone beyond what was laid out.
            let end = self.laid_out.max(file.metadata()?.len());
            file.write_all_at(&vec![0; STEP as usize], end)?;
            file.sync_data()?;
            self.laid_out = end + STEP;
            Ok(())
        };
        if let Err(e) = more() {
            let e: std::io::Error = e;
            // A full disk is told by the commit that needs the room.
            tracing::debug!(error = %e, "the write-ahead log is not laid out any further");
            self.file = None;
        }
    }
}
