//! The SQLite store: one file, one writer thread with group commit, a few reader threads.
//!
//! ```text
//! callers ──▶ writer channel ──▶ writer thread: BEGIN, every waiting operation, COMMIT (synced), answers
//!        └──▶ reader channels ─▶ reader threads: snapshots of the last commit (WAL)
//! ```
//! The process owns the file (a lock file proves it), so counts of jobs by queue and state live in memory, follow each
//! commit, and cost no query.

use std::{
    collections::HashMap,
    fs::File,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
};

use async_trait::async_trait;
use rusqlite::{Connection, OpenFlags};
use tokio::sync::oneshot;

use super::Sync;
use crate::base::{id::QueueName, probe::Probe, store::StoreError};

mod control;
mod fleet;
mod items;
mod jobs;
mod log;
mod migrate;
mod read;
mod records;
mod row;
mod sweep;
mod writer;

use writer::{Counts, Writer, Writing};

/// Reader threads; reads are short and the writer shares the cores with them.
const READERS: usize = 2;

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
        Some(C::DatabaseCorrupt | C::NotADatabase) => StoreError::Corrupt(e.to_string()),
        _ => StoreError::Internal(e.to_string()),
    }
}

type Read = Box<dyn FnOnce(&Connection) + Send>;

/// An opened SQLite database; implements every store port.
pub(super) struct Sqlite {
    writer: Writer,
    readers: Vec<mpsc::Sender<Read>>,
    turn: AtomicUsize,
    counts: Arc<Mutex<Counts>>,
    /// Held for as long as the database is open; the kernel frees it when the process dies.
    _lock: File,
}

impl Sqlite {
    pub(super) fn open(path: &Path, sync: Sync) -> Result<Arc<Self>, StoreError> {
        let lock = migrate::lock(path)?;
        let mut conn = Connection::open(path).map_err(|e| migrate::unusable(path, &e))?;
        // Before anything is set: a file that is not ours stays as it is, to the byte.
        migrate::check(&conn, path)?;
        configure(&conn).map_err(|e| migrate::unusable(path, &e))?;
        migrate::run(&mut conn, path)?;
        let counts = Arc::new(Mutex::new(writer::count(&conn)?));
        let mut readers = Vec::with_capacity(READERS);
        for n in 0..READERS {
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let reader = Connection::open_with_flags(path, flags).map_err(|e| migrate::unusable(path, &e))?;
            reader.set_prepared_statement_cache_capacity(64);
            reader.pragma_update(None, "cache_size", -2048).map_err(|e| from_sql(&e))?;
            let (tx, rx) = mpsc::channel::<Read>();
            spawn(format!("sqlite-read-{n}"), move || {
                for work in rx {
                    work(&reader);
                }
            })?;
            readers.push(tx);
        }
        let log = log::Log::of(&mut conn).map_err(|e| from_sql(&e))?;
        let writer = Writer::start(conn, log, sync, Arc::clone(&counts))?;
        Ok(Arc::new(Self { writer, readers, turn: AtomicUsize::new(0), counts, _lock: lock }))
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
        let (tx, rx) = oneshot::channel();
        let work: Read = Box::new(move |conn| {
            // Whoever asked may have gone away.
            drop(tx.send(f(conn)));
        });
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % READERS;
        let reader = self.readers.get(turn).ok_or_else(|| closed("no reader"))?;
        reader.send(work).map_err(closed)?;
        rx.await.map_err(closed)?.map_err(StoreError::from)
    }

    fn counts(&self) -> HashMap<QueueName, [u64; 6]> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The thread that should do it is gone.
fn closed(e: impl std::fmt::Display) -> StoreError {
    StoreError::Unavailable(format!("the database is closed: {e}"))
}

fn spawn(name: String, f: impl FnOnce() + Send + 'static) -> Result<(), StoreError> {
    std::thread::Builder::new()
        .name(name)
        .spawn(f)
        .map(drop)
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
        "sqlite"
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
}
