//! The SQLite store: one file, one writer thread with group commit, a few reader threads.
//!
//! ```text
//! callers ──▶ writer channel ──▶ writer thread: BEGIN, every waiting operation, COMMIT (synced), answers
//!        └──▶ reader channels ─▶ reader threads: snapshots of the last commit (WAL)
//! ```
//! The process owns the file (a lock file proves it), so counts of jobs by queue and state live in memory, follow each
//! commit, and cost no query.
//!
//! A close ends the readers, without those reads that still wait, then the writer, which copies the
//! log into the database: the one file is then all there is.

use std::{
    collections::HashMap,
    fs::File,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
};

use async_trait::async_trait;
use rusqlite::Connection;

use super::{Close, Sync};
use crate::base::{
    id::QueueName,
    probe::{Probe, Unfit},
    store::StoreError,
};

mod control;
mod file;
mod fleet;
mod items;
mod jobs;
mod log;
mod look;
mod migrate;
mod read;
mod readers;
mod records;
mod row;
mod sweep;
mod writer;

pub(super) use file::resolved;
pub(super) use look::look;
use migrate::Contents;
use readers::{Readers, Reading};
use writer::{Counts, Writer, Writing};

/// The backend's name in `/health`.
pub(super) const NAME: &str = "sqlite";

/// Why a statement or what it read is no good.
#[derive(Debug)]
pub(super) enum Fault {
    Sql(rusqlite::Error),
    Corrupt(String),
}

impl From<rusqlite::Error> for Fault {
    fn from(e: rusqlite::Error) -> Self {
        Self::Sql(e)
    }
}

impl From<Fault> for StoreError {
    fn from(f: Fault) -> Self {
        match f {
            Fault::Corrupt(what) => Self::Corrupt(what),
            Fault::Sql(e) => from_sql(&e),
        }
    }
}

fn from_sql(e: &rusqlite::Error) -> StoreError {
    use rusqlite::ErrorCode as C;
    match e.sqlite_error_code() {
        Some(C::DiskFull) => StoreError::Unavailable("the disk is full: free some space".into()),
        Some(C::DatabaseBusy | C::DatabaseLocked | C::SystemIoFailure | C::ReadOnly | C::CannotOpen) => {
            StoreError::Unavailable(e.to_string())
        }
        // Only a close interrupts.
        Some(C::OperationInterrupted) => closed("it was closed while this was read"),
        Some(C::DatabaseCorrupt | C::NotADatabase) => StoreError::Corrupt(e.to_string()),
        _ => StoreError::Internal(e.to_string()),
    }
}

/// An opened SQLite database; implements every store port.
pub(super) struct Sqlite {
    path: PathBuf,
    writer: Writer,
    readers: Readers,
    counts: Arc<Mutex<Counts>>,
    /// None once it is closed.
    threads: Mutex<Option<Threads>>,
    /// Held for as long as the database is open; the kernel frees it when the process dies.
    _lock: File,
}

/// The threads that hold a connection each.
struct Threads {
    readers: Vec<Reading>,
    writer: JoinHandle<Result<(), StoreError>>,
}

impl Sqlite {
    /// Opens the database at an absolute path.
    pub(super) fn open(path: &Path, sync: Sync) -> Result<Arc<Self>, StoreError> {
        let lock = file::lock(path)?;
        file::make(path)?;
        let mut conn = Connection::open(path).map_err(|e| migrate::unusable(path, &e))?;
        // Before anything is set: a file that is not ours stays as it is, to the byte.
        if migrate::check(&conn, path)? == Contents::Nothing {
            tracing::warn!("new, empty database at {}", path.display());
        }
        configure(&conn).map_err(|e| migrate::unusable(path, &e))?;
        migrate::run(&mut conn, path)?;
        let counts = Arc::new(Mutex::new(writer::count(&conn)?));
        let (readers, reading) = Readers::start(path)?;
        let log = log::Log::of(&mut conn, path, log::Bounds::default()).map_err(|e| from_sql(&e))?;
        let (writer, writing) = Writer::start(conn, log, sync, Arc::clone(&counts))?;
        Ok(Arc::new(Self {
            path: path.to_owned(),
            writer,
            readers,
            counts,
            threads: Mutex::new(Some(Threads { readers: reading, writer: writing })),
            _lock: lock,
        }))
    }

    /// Commits what was asked for, gives reads up, and closes every connection. Blocks; a second
    /// call does nothing.
    fn end(&self) -> Result<(), StoreError> {
        let threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Threads { readers, writer }) = threads else { return Ok(()) };
        // Readers first: a snapshot would hold the log.
        self.readers.close();
        let grace = Reading::grace();
        let mut read = Ok(());
        for thread in readers {
            read = thread.join(grace).and(read);
        }
        self.writer.close();
        let written = writer.join().map_err(|_panic| died("writes"))?;
        written.and(read)
    }

    /// Runs `f` in the next commit; returns when that is durable.
    ///
    /// `f` may run twice: if another operation of the same commit fails, all are rolled back and run one by one.
    async fn write<T: Send + 'static>(
        &self,
        f: impl FnMut(&mut Writing<'_>) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.writer.run(true, f).await
    }

    /// Runs `f` in the next commit; returns when that has survived the death of this process. A loss of power may undo
    /// it: only for what may be undone and done again without anyone being told something false, such as a claim, whose
    /// job is then simply queued as before.
    async fn write_lazily<T: Send + 'static>(
        &self,
        f: impl FnMut(&mut Writing<'_>) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.writer.run(false, f).await
    }

    /// Runs `f` on a snapshot of the last commit.
    async fn read<T: Send + 'static>(
        &self,
        f: impl FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.readers.run(f).await
    }

    fn counts(&self) -> HashMap<QueueName, [u64; 6]> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The thread that should do it is gone.
fn closed(e: impl std::fmt::Display) -> StoreError {
    StoreError::Unavailable(format!("the database is closed: {e}"))
}

fn died(what: &str) -> StoreError {
    StoreError::Internal(format!("a thread that {what} the database panicked, see the log"))
}

fn spawn<T: Send + 'static>(name: String, f: impl FnOnce() -> T + Send + 'static) -> Result<JoinHandle<T>, StoreError> {
    std::thread::Builder::new()
        .name(name)
        .spawn(f)
        .map_err(|e| StoreError::Internal(format!("cannot start a thread: {e}")))
}

fn configure(conn: &Connection) -> Result<(), rusqlite::Error> {
    conn.set_prepared_statement_cache_capacity(64);
    conn.pragma_update(None, "journal_mode", "wal")?;
    // Migrations are always synced; the writer then chooses for each commit.
    conn.pragma_update(None, "synchronous", "full")?;
    // 8 MiB of pages for the writer: the hot ends of the trees.
    conn.pragma_update(None, "cache_size", -8192)?;
    conn.pragma_update(None, "temp_store", "memory")
}

#[async_trait]
impl Probe for Sqlite {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn check(&self) -> Result<(), String> {
        // A write, because that is what the service cannot do without: a full disk still reads.
        self.write_lazily(|w| {
            let sql = "INSERT INTO probe (id, at) VALUES (1, 0) ON CONFLICT (id) DO UPDATE SET at = at + 1";
            w.conn.prepare_cached(sql)?.execute([])?;
            Ok(())
        })
        .await
        .map_err(|e| e.to_string())
    }

    async fn inspect(&self) -> Result<Vec<String>, Unfit> {
        Ok(file::exposed(&self.path).into_iter().collect())
    }
}

#[async_trait]
impl Close for Sqlite {
    async fn close(self: Arc<Self>) -> Result<(), StoreError> {
        tokio::task::spawn_blocking(move || self.end()).await.map_err(|e| StoreError::Internal(e.to_string()))?
    }
}

impl Drop for Sqlite {
    fn drop(&mut self) {
        if let Err(e) = self.end() {
            tracing::error!(error = %e, database = %self.path.display(), "not closed in good order");
        }
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::OpenFlags;

    use super::*;
    use crate::jobs::store::FleetStore;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_was_answered_before_a_close_is_in_the_one_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("app.db");
        let db = Sqlite::open(&path, Sync::Normal).unwrap();
        let writes: Vec<_> = (0..200)
            .map(|n| {
                let (db, queue) = (Arc::clone(&db), QueueName::new(&format!("q{n}")).unwrap());
                tokio::spawn(async move { (db.set_paused(&queue, true).await, queue) })
            })
            .collect();
        Arc::clone(&db).close().await.unwrap();
        let mut names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["app.db", "app.db.lock"]);
        let file = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
        for write in writes {
            let (answer, queue) = write.await.unwrap();
            let sql = "SELECT count(*) FROM queues WHERE name = ?1 AND paused = 1";
            let is_there: bool = file.query_row(sql, [queue.as_str()], |r| r.get(0)).unwrap();
            assert_eq!(answer.is_ok(), is_there, "{queue}: {answer:?}");
            assert!(matches!(answer, Ok(()) | Err(StoreError::Unavailable(_))), "{answer:?}");
        }
        Arc::clone(&db).close().await.unwrap();
        assert!(db.queues().await.is_err() && db.check().await.is_err(), "a closed database answers nothing");
    }
}
