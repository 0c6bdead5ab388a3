//! The threads that read snapshots of the last commit, and how they end.
//!
//! A close waits for no queue of reads: none of those that wait is begun any more, and what is
//! under way has a short grace. Else a few slow searches would outlive the patience of whoever
//! stops the process, and a killed process leaves more than the one file.

use std::{
    convert::Infallible,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use rusqlite::{Connection, InterruptHandle, OpenFlags};
use tokio::sync::oneshot;

use super::{Fault, closed, died, from_sql, migrate, spawn};
use crate::base::store::StoreError;

/// Reader threads; reads are short and the writer shares the cores with them.
const READERS: usize = 2;

/// How long a read that is under way may take once the database is being closed …
const GRACE: Duration = Duration::from_millis(500);
/// … and how often it is interrupted after that: it may be between two statements just then.
const INTERRUPT_EVERY: Duration = Duration::from_millis(10);

type Read = Box<dyn FnOnce(&Connection) + Send>;

/// Hands reads to the threads in turn.
pub(super) struct Readers {
    /// None wakes the thread behind it, so that it sees that the end has come.
    threads: Vec<mpsc::Sender<Option<Read>>>,
    turn: AtomicUsize,
    /// Whether no further read is begun.
    closing: Arc<AtomicBool>,
}

/// A thread that reads.
pub(super) struct Reading {
    thread: JoinHandle<()>,
    /// Nothing is ever sent: it is gone when the thread has ended.
    ended: mpsc::Receiver<Infallible>,
    interrupt: InterruptHandle,
}

impl Readers {
    /// Starts the threads.
    pub(super) fn start(path: &Path) -> Result<(Self, Vec<Reading>), StoreError> {
        let closing = Arc::new(AtomicBool::new(false));
        let (mut threads, mut reading) = (Vec::with_capacity(READERS), Vec::with_capacity(READERS));
        for n in 0..READERS {
            let (tx, thread) = reader(n, path, Arc::clone(&closing))?;
            threads.push(tx);
            reading.push(thread);
        }
        Ok((Self { threads, turn: AtomicUsize::new(0), closing }, reading))
    }

    /// Tells the threads to end. Reads that wait, and those that come later, fail.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Release);
        for thread in &self.threads {
            // A thread that is gone already needs no word.
            drop(thread.send(None));
        }
    }

    /// Runs `f` on a snapshot of the last commit.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        f: impl FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (tx, rx) = oneshot::channel();
        let work: Read = Box::new(move |conn| {
            // Whoever asked may have gone away, now or by the time of the answer.
            if !tx.is_closed() {
                drop(tx.send(f(conn)));
            }
        });
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % READERS;
        let thread = self.threads.get(turn).ok_or_else(|| closed("no reader"))?;
        thread.send(Some(work)).map_err(closed)?;
        rx.await.map_err(closed)?.map_err(StoreError::from)
    }
}

impl Reading {
    /// When the grace of reads that are under way now ends.
    pub(super) fn grace() -> Instant {
        Instant::now() + GRACE
    }

    /// Waits for the thread, which has been told to end, and interrupts its read from `grace` on.
    /// Blocks.
    pub(super) fn join(self, grace: Instant) -> Result<(), StoreError> {
        let mut patience = grace.saturating_duration_since(Instant::now());
        while let Err(RecvTimeoutError::Timeout) = self.ended.recv_timeout(patience) {
            self.interrupt.interrupt();
            patience = INTERRUPT_EVERY;
        }
        self.thread.join().map_err(|_panic| died("reads"))
    }
}

/// Starts a thread that reads snapshots.
fn reader(
    n: usize,
    path: &Path,
    closing: Arc<AtomicBool>,
) -> Result<(mpsc::Sender<Option<Read>>, Reading), StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags).map_err(|e| migrate::unusable(path, &e))?;
    conn.set_prepared_statement_cache_capacity(64);
    conn.pragma_update(None, "cache_size", -2048).map_err(|e| from_sql(&e))?;
    let interrupt = conn.get_interrupt_handle();
    let (tx, rx) = mpsc::channel::<Option<Read>>();
    let (lives, ended) = mpsc::channel();
    let thread = spawn(format!("sqlite-read-{n}"), move || {
        let _lives = lives;
        while let Ok(Some(work)) = rx.recv()
            && !closing.load(Ordering::Acquire)
        {
            work(&conn);
        }
    })?;
    Ok((tx, Reading { thread, ended, interrupt }))
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::store::{Close, Sync, sqlite::Sqlite};

    /// Takes many seconds.
    const SLOW: &str = "WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT 100000000)
                        SELECT count(*) FROM n";

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn slow_reads_do_not_hold_the_close() {
        let dir = tempfile::tempdir().unwrap();
        let db = Sqlite::open(&dir.path().join("app.db"), Sync::Normal).unwrap();
        let (began, begun) = mpsc::channel();
        let reads: Vec<_> = (0..16)
            .map(|_| {
                let (db, began) = (Arc::clone(&db), began.clone());
                let slow = move |conn: &Connection| {
                    began.send(()).unwrap();
                    Ok(conn.query_row(SLOW, [], |r| r.get::<_, i64>(0))?)
                };
                tokio::spawn(async move { db.read(slow).await })
            })
            .collect();
        for _ in 0..READERS {
            begun.recv().unwrap();
        }
        Arc::clone(&db).close().await.unwrap();
        for read in reads {
            let answer = read.await.unwrap();
            assert!(matches!(answer, Err(StoreError::Unavailable(_))), "{answer:?}");
        }
        assert_eq!(begun.try_iter().count(), 0, "reads that waited were begun");
        let mut names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["app.db", "app.db.lock"]);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_read_whose_caller_has_gone_is_not_begun() {
        let dir = tempfile::tempdir().unwrap();
        let db = Sqlite::open(&dir.path().join("app.db"), Sync::Normal).unwrap();
        let (began, begun) = mpsc::channel();
        let mut gates = Vec::new();
        for _ in 0..READERS {
            let (open, gate) = mpsc::channel::<Infallible>();
            let (db, began) = (Arc::clone(&db), began.clone());
            gates.push(open);
            tokio::spawn(async move {
                let held = move |_: &Connection| {
                    began.send("held").unwrap();
                    Ok(gate.recv().is_err())
                };
                db.read(held).await
            });
        }
        for _ in 0..READERS {
            begun.recv().unwrap();
        }
        for _ in 0..READERS {
            let began = began.clone();
            let forsaken = db.read(move |_| {
                began.send("forsaken").unwrap();
                Ok(())
            });
            assert!(forsaken.now_or_never().is_none(), "it waits for the reads before it");
        }
        drop(gates);
        for _ in 0..READERS {
            db.read(|_| Ok(())).await.unwrap();
        }
        assert_eq!(begun.try_iter().count(), 0);
    }
}
