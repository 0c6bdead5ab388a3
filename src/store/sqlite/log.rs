//! Looks after the write-ahead log: copies it into the database when it is long, after whoever
//! waited for the commit has been answered, and gives its space back when a reader made it far too
//! long.
//!
//! Left to itself SQLite copies within the commit that makes the log too long, which then takes
//! some milliseconds more, and never makes the file shorter.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use metrics::Gauge;
use rusqlite::{Connection, hooks::Wal};

use super::{file, from_sql};
use crate::{base::store::StoreError, telemetry::metrics as names};

/// What the log's file begins with, and what stands before each page in it, in bytes.
const HEADER: u64 = 32;
const FRAME_HEADER: u64 = 24;

/// How long a commit may wait for another program's lock; also at the end, for readers.
const BUSY_PATIENCE: Duration = Duration::from_secs(5);
/// How long a cut of a log that is far too long may make the next commit wait for readers …
const CUT_PATIENCE: Duration = Duration::from_millis(50);
/// … and how seldom it may.
const CUT_EVERY: Duration = Duration::from_secs(1);

/// Sizes of the log at which something is done.
#[derive(Clone, Copy)]
pub(super) struct Bounds {
    /// Pages that make a checkpoint due.
    pub(super) checkpoint_pages: u64,
    /// Bytes that the file may keep once all of it has been copied. More than a checkpoint's worth:
    /// to write into a file that is laid out is quicker than to make it longer.
    pub(super) kept: u64,
    /// Bytes from which on a commit is made to wait for readers, so that the log ends somewhere.
    pub(super) far: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        // 32 MiB of pages.
        Self { checkpoint_pages: 8192, kept: 64 << 20, far: 256 << 20 }
    }
}

/// The log of the connection that writes.
pub(super) struct Log {
    path: PathBuf,
    bounds: Bounds,
    /// Pages in it, as SQLite told after the last commit.
    pages: Arc<AtomicU64>,
    /// The same after the commit before.
    seen: u64,
    /// Bytes that one page takes in it.
    frame: u64,
    /// Bytes of the file.
    size: u64,
    told: Gauge,
    /// When a cut last waited for readers.
    waited: Option<Instant>,
}

/// How a checkpoint ended.
#[derive(Debug, PartialEq)]
enum Copied {
    /// All of the log is in the database.
    All,
    /// Somebody still reads from the log.
    Part,
}

impl Log {
    /// Takes over from SQLite when to copy the log of the database at `path`.
    pub(super) fn of(conn: &mut Connection, path: &Path, bounds: Bounds) -> Result<Self, rusqlite::Error> {
        let pages = Arc::new(AtomicU64::new(0));
        let told = Arc::clone(&pages);
        // This hook is what SQLite's own checkpoints are made of; another one in its place ends
        // them.
        conn.wal_hook(Some(move |_: &mut Wal, pages| {
            told.store(u64::try_from(pages).unwrap_or(0), Ordering::Relaxed);
            Ok(())
        }))?;
        // For the commit that begins the log anew before a cut did.
        let kept = i64::try_from(bounds.kept).unwrap_or(i64::MAX);
        conn.query_row(&format!("PRAGMA journal_size_limit = {kept}"), [], |_| Ok(()))?;
        let page: i64 = conn.pragma_query_value(None, "page_size", |r| r.get(0))?;
        let mut log = Self {
            path: file::log(path),
            bounds,
            pages,
            seen: 0,
            frame: FRAME_HEADER + u64::try_from(page).unwrap_or(0),
            size: 0,
            told: metrics::gauge!(names::STORE_LOG),
            waited: None,
        };
        log.measure();
        Ok(log)
    }

    /// Copies it if that is due, and cuts it if it is too long. To be called between two commits.
    pub(super) fn care(&mut self, conn: &Connection) {
        let pages = self.pages.load(Ordering::Relaxed);
        if pages < self.seen {
            // SQLite began it anew, and made the file shorter if that was over its limit.
            self.measure();
        }
        self.seen = pages;
        let written = HEADER + pages * self.frame;
        if written > self.size {
            self.is_now(written);
        }
        if pages < self.bounds.checkpoint_pages {
            return;
        }
        match checkpoint(conn, "PASSIVE") {
            Ok(Copied::All) if self.size > self.bounds.kept => self.cut(conn),
            // What a reader still needs stays; the checkpoint after the next commit goes on with
            // it.
            Ok(Copied::All | Copied::Part) => {}
            Err(e) => tracing::error!(error = %e, "cannot copy the write-ahead log into the database"),
        }
    }

    /// Empties the file, all of which has been copied. A reader that began before the last
    /// checkpoint ended may hold it: then the next commit's turn comes, and only if the log is far
    /// too long, a short wait.
    fn cut(&mut self, conn: &Connection) {
        let may_wait = self.size > self.bounds.far && self.waited.is_none_or(|at| at.elapsed() >= CUT_EVERY);
        let patience = if may_wait { CUT_PATIENCE } else { Duration::ZERO };
        let cut = conn.busy_timeout(patience).and_then(|()| checkpoint(conn, "TRUNCATE"));
        // However the cut ended, the next commit has its patience again.
        if let Err(e) = conn.busy_timeout(BUSY_PATIENCE) {
            tracing::error!(error = %e, "cannot set how long a commit waits for another program's lock");
        }
        if may_wait {
            self.waited = Some(Instant::now());
        }
        match cut {
            Ok(Copied::All) => {
                self.pages.store(0, Ordering::Relaxed);
                self.seen = 0;
                self.measure();
            }
            Ok(Copied::Part) => {}
            Err(e) => tracing::error!(error = %e, "cannot cut the write-ahead log"),
        }
    }

    fn measure(&mut self) {
        // A file that is not there has no size.
        let size = self.path.metadata().map_or(0, |m| m.len());
        self.is_now(size);
    }

    fn is_now(&mut self, size: u64) {
        self.size = size;
        self.told.set(size as f64);
    }

    /// Closes the database: copies the whole log into it, so that its one file is all there is.
    pub(super) fn close(mut self, conn: Connection) -> Result<(), StoreError> {
        match checkpoint(&conn, "TRUNCATE") {
            Ok(Copied::All) => {}
            Ok(Copied::Part) => tracing::warn!(
                log = %self.path.display(),
                "another program reads the database, so part of it stays in the log: a copy needs that file, too"
            ),
            Err(e) => {
                tracing::error!(error = %e, log = %self.path.display(), "cannot copy the log into the database");
                return Err(from_sql(&e));
            }
        }
        conn.close().map_err(|(_, e)| from_sql(&e))?;
        self.measure();
        Ok(())
    }
}

fn checkpoint(conn: &Connection, mode: &str) -> Result<Copied, rusqlite::Error> {
    // Whether somebody was in the way, pages in the log, and those of them that are copied.
    conn.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |r| {
        let (busy, pages, copied): (bool, i64, i64) = (r.get(0)?, r.get(1)?, r.get(2)?);
        Ok(if busy || copied < pages { Copied::Part } else { Copied::All })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { checkpoint_pages: 32, kept: 256 << 10, far: 1 << 20 };

    struct Under {
        dir: tempfile::TempDir,
        conn: Connection,
        log: Log,
    }

    impl Under {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("app.db");
            let mut conn = Connection::open(&path).unwrap();
            super::super::configure(&conn).unwrap();
            conn.execute_batch("CREATE TABLE t (x BLOB)").unwrap();
            let log = Log::of(&mut conn, &path, BOUNDS).unwrap();
            Self { dir, conn, log }
        }

        fn commit(&mut self) {
            self.conn.execute("INSERT INTO t VALUES (zeroblob(16384))", []).unwrap();
            self.log.care(&self.conn);
        }

        fn reader(&self) -> Connection {
            let reader = Connection::open(self.dir.path().join("app.db")).unwrap();
            reader.execute_batch("BEGIN").unwrap();
            reader.query_row("SELECT count(*) FROM t", [], |_| Ok(())).unwrap();
            reader
        }

        fn size(&self) -> u64 {
            self.dir.path().join("app.db-wal").metadata().map_or(0, |m| m.len())
        }
    }

    #[test]
    fn an_ordinary_log_stays_laid_out_and_bounded() {
        let mut t = Under::new();
        for _ in 0..500 {
            t.commit();
        }
        assert!(t.size() > 0 && t.size() <= BOUNDS.kept, "{}", t.size());
        assert_eq!(t.log.size, t.size());
    }

    #[test]
    fn a_log_that_a_reader_held_shrinks_when_the_reader_has_gone() {
        for commits in [40, 200] {
            let mut t = Under::new();
            t.commit();
            let reader = t.reader();
            for _ in 0..commits {
                t.commit();
                assert_eq!(t.log.size, t.size(), "the metric is the file's size");
            }
            assert!(t.size() > 2 * BOUNDS.kept, "the reader held it: {}", t.size());
            drop(reader);
            t.commit();
            assert!(t.size() <= BOUNDS.kept, "{}", t.size());
            t.commit();
            assert_eq!(t.log.size, t.size());
            let rows: i64 = t.conn.query_row("SELECT count(*) FROM t", [], |r| r.get(0)).unwrap();
            assert_eq!(rows, commits + 3);
        }
    }

    /// A reader that began after the last commit lets all be copied, and holds the file.
    #[test]
    fn a_reader_of_the_newest_page_puts_a_cut_off_and_fails_no_commit() {
        let mut t = Under::new();
        let first = t.reader();
        for _ in 0..100 {
            t.commit();
        }
        let second = t.reader();
        drop(first);
        t.log.care(&t.conn);
        assert!(t.size() > BOUNDS.far && t.log.waited.is_some(), "{}", t.size());
        drop(second);
        t.commit();
        assert!(t.size() <= BOUNDS.kept, "{}", t.size());
    }

    #[test]
    fn a_cut_that_fails_leaves_commits_their_patience() {
        let mut t = Under::new();
        t.commit();
        // SQLite refuses to copy the log within a transaction.
        t.conn.execute_batch("BEGIN IMMEDIATE; INSERT INTO t VALUES (x'00')").unwrap();
        assert!(checkpoint(&t.conn, "TRUNCATE").is_err());
        t.log.cut(&t.conn);
        let patience: u32 = t.conn.pragma_query_value(None, "busy_timeout", |r| r.get(0)).unwrap();
        assert_eq!(Duration::from_millis(patience.into()), BUSY_PATIENCE);
    }

    #[test]
    fn a_close_leaves_one_file() {
        let mut t = Under::new();
        t.commit();
        t.log.close(t.conn).unwrap();
        let names: Vec<_> = std::fs::read_dir(t.dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["app.db"]);
    }
}
