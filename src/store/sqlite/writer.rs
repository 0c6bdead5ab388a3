//! The one thread that writes, and its group commit.
//!
//! Operations that arrive while a commit is under way go together in the next one, so a commit's sync is shared by
//! all callers who wait, and an idle system adds no delay.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::{Fault, Sync, from_sql, log::Log, spawn};
use crate::{
    base::{
        id::{JobId, QueueName},
        store::StoreError,
    },
    jobs::state::State,
    telemetry::metrics as names,
};

/// Jobs by queue and state; only states that are indexed are counted.
pub(super) type Counts = HashMap<QueueName, [u64; 6]>;

/// What one commit changes of [`Counts`].
type Deltas = Vec<(QueueName, [i64; 6])>;

/// The queue of each job that this process claimed; a job that is not in it has to be looked at. It may hold jobs that
/// run no more, but what it says of a job that runs is right: a claim writes it, and only a job that does not run can
/// change its queue.
pub(super) type RunningQueues = HashMap<JobId, QueueName>;

/// Most operations in one commit: bounds how long the first of them waits.
const MOST_OPERATIONS: usize = 512;

/// Whoever was just answered often asks again at once: a worker's finishes are followed by its next claims. A commit
/// that starts the moment the last one ended would miss them and make them wait for a whole commit, so the next one
/// starts this part of the last one's time after it at the earliest. Who comes later than that waits for nothing.
const GATHER_PART: u32 = 4;
/// The longest such wait.
const GATHER_MOST: Duration = Duration::from_micros(200);

/// What an operation sees: the open transaction, and the counts it changes.
pub(super) struct Writing<'c> {
    pub(super) conn: &'c Connection,
    deltas: Deltas,
    moves: usize,
    /// Queues of running jobs, so that the end of a job needs no look at it.
    pub(super) running: &'c mut RunningQueues,
}

impl Writing<'_> {
    /// The queue of this name; one that was met before in this commit costs no allocation.
    pub(super) fn queue(&self, name: &str) -> Result<QueueName, Fault> {
        match self.deltas.iter().find(|(q, _)| q.as_str() == name) {
            Some((q, _)) => Ok(q.clone()),
            None => QueueName::stored(name).map_err(|e| super::row::corrupt("queue", e)),
        }
    }

    /// Notes that a job of `queue` went from one state to another (none: it did not exist, or is gone).
    pub(super) fn moved(&mut self, queue: &QueueName, from: Option<State>, to: Option<State>) {
        self.moves += 1;
        let at = match self.deltas.iter().position(|(q, _)| q == queue) {
            Some(i) => i,
            None => {
                self.deltas.push((queue.clone(), [0; 6]));
                self.deltas.len() - 1
            }
        };
        let Some((_, delta)) = self.deltas.get_mut(at) else { return };
        for (state, by) in [(from, -1), (to, 1)] {
            if let Some(d) = state.and_then(|s| delta.get_mut(s as usize)) {
                *d += by;
            }
        }
    }
}

trait Operation: Send {
    /// Whether whoever asked relies on it after a loss of power.
    fn synced(&self) -> bool;
    fn run(&mut self, w: &mut Writing<'_>) -> bool;
    fn answer(self: Box<Self>, committed: Result<(), StoreError>);
}

struct Op<F, T> {
    f: F,
    synced: bool,
    out: Option<Result<T, StoreError>>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<T: Send, F: FnMut(&mut Writing<'_>) -> Result<T, Fault> + Send> Operation for Op<F, T> {
    fn synced(&self) -> bool {
        self.synced
    }

    fn run(&mut self, w: &mut Writing<'_>) -> bool {
        let out = (self.f)(w).map_err(StoreError::from);
        let fine = out.is_ok();
        self.out = Some(out);
        fine
    }

    fn answer(self: Box<Self>, committed: Result<(), StoreError>) {
        let lost = || Err(StoreError::Internal("an operation was not run".into()));
        let Self { out, reply, .. } = *self;
        // Whoever asked may have gone away; what was written stands.
        drop(reply.send(committed.and_then(|()| out.unwrap_or_else(lost))));
    }
}

/// What the writer thread is told.
enum Told {
    Run(Box<dyn Operation>),
    /// To commit what came before, and to close the database.
    Close,
}

/// Hands operations to the writer thread.
pub(super) struct Writer(mpsc::Sender<Told>);

impl Writer {
    /// Starts the thread, which ends with the close of the database.
    pub(super) fn start(
        conn: Connection,
        log: Log,
        sync: Sync,
        counts: Arc<Mutex<Counts>>,
    ) -> Result<(Self, JoinHandle<Result<(), StoreError>>), StoreError> {
        let (tx, rx) = mpsc::channel();
        let thread = spawn("sqlite-write".into(), move || write(conn, log, sync, &rx, &counts))?;
        Ok((Self(tx), thread))
    }

    /// Tells the thread to end. Operations that come later fail.
    pub(super) fn close(&self) {
        // A thread that is gone already needs no word.
        drop(self.0.send(Told::Close));
    }

    pub(super) async fn run<T: Send + 'static>(
        &self,
        synced: bool,
        f: impl FnMut(&mut Writing<'_>) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let op = Box::new(Op { f, synced, out: None, reply });
        self.0.send(Told::Run(op)).map_err(super::closed)?;
        answer.await.map_err(super::closed)?
    }
}

/// The life of the writer thread.
fn write(
    conn: Connection,
    mut log: Log,
    sync: Sync,
    rx: &mpsc::Receiver<Told>,
    counts: &Mutex<Counts>,
) -> Result<(), StoreError> {
    let ops = metrics::counter!(names::STORE_OPS);
    let commits = metrics::counter!(names::STORE_COMMITS);
    let seconds = metrics::histogram!(names::STORE_COMMIT_DURATION);
    let mut batch: Vec<Box<dyn Operation>> = Vec::new();
    let mut running = RunningQueues::new();
    let mut gather_until = Instant::now();
    let mut level = Level { may_sync: sync == Sync::Full, syncing: None };
    let mut is_open = true;
    while is_open && let Ok(Told::Run(first)) = rx.recv() {
        batch.push(first);
        is_open = gather(rx, &mut batch, gather_until);
        let began = Instant::now();
        ops.increment(batch.len() as u64);
        level.set(&conn, batch.iter().any(|op| op.synced()));
        let size = commit_all(&conn, &mut batch, counts, &mut running);
        commits.increment(1);
        let took = began.elapsed();
        seconds.record(took.as_secs_f64());
        // A lone caller has nobody to wait for.
        let wait = if size > 1 { (took / GATHER_PART).min(GATHER_MOST) } else { Duration::ZERO };
        gather_until = Instant::now() + wait;
        log.care(&conn);
    }
    log.close(conn)
}

/// Adds to a batch what waits, and what comes until then. Returns whether more may come after it.
fn gather(rx: &mpsc::Receiver<Told>, batch: &mut Vec<Box<dyn Operation>>, until: Instant) -> bool {
    loop {
        while batch.len() < MOST_OPERATIONS {
            match rx.try_recv() {
                Ok(Told::Run(op)) => batch.push(op),
                Ok(Told::Close) => return false,
                Err(_nothing_waits) => break,
            }
        }
        if Instant::now() >= until || batch.len() >= MOST_OPERATIONS {
            return true;
        }
        std::thread::yield_now();
    }
}

/// Whether commits are synced just now.
struct Level {
    may_sync: bool,
    syncing: Option<bool>,
}

impl Level {
    /// Switches the sync on or off for the next commit. A commit without one is in the operating system's hands and
    /// survives the process; the next synced commit makes it durable, too, because the log is written in order.
    fn set(&mut self, conn: &Connection, wanted: bool) {
        let wanted = wanted && self.may_sync;
        if self.syncing == Some(wanted) {
            return;
        }
        match conn.pragma_update(None, "synchronous", if wanted { "full" } else { "normal" }) {
            Ok(()) => self.syncing = Some(wanted),
            Err(e) => tracing::error!(error = %e, "cannot switch the sync of commits"),
        }
    }
}

/// Commits a batch as one transaction; if one of its operations fails, each on its own.
///
/// Answers how much was in it: operations or moves of jobs, whichever is more.
fn commit_all(
    conn: &Connection,
    batch: &mut Vec<Box<dyn Operation>>,
    counts: &Mutex<Counts>,
    running: &mut RunningQueues,
) -> usize {
    let operations = batch.len();
    let mut moved = 0;
    match transaction(conn, batch, running) {
        Ok(Some((deltas, moves))) => {
            moved = moves;
            apply(counts, deltas);
            for op in batch.drain(..) {
                op.answer(Ok(()));
            }
        }
        Ok(None) if batch.len() > 1 => {
            for op in batch.drain(..) {
                commit_all(conn, &mut vec![op], counts, running);
            }
        }
        Ok(None) => {
            for op in batch.drain(..) {
                op.answer(Ok(()));
            }
        }
        Err(e) => {
            tracing::error!(error = %e, "commit failed, nothing of it was written");
            for op in batch.drain(..) {
                op.answer(Err(e.clone()));
            }
        }
    }
    operations.max(moved)
}

/// Runs a batch in one transaction: its deltas if committed, none if an operation failed and all was rolled back.
fn transaction(
    conn: &Connection,
    batch: &mut [Box<dyn Operation>],
    running: &mut RunningQueues,
) -> Result<Option<(Deltas, usize)>, StoreError> {
    let run = |sql: &str| conn.prepare_cached(sql).and_then(|mut s| s.execute([])).map(drop).map_err(|e| from_sql(&e));
    run("BEGIN IMMEDIATE")?;
    let mut w = Writing { conn, deltas: Vec::new(), moves: 0, running };
    let fine = batch.iter_mut().all(|op| op.run(&mut w));
    if !fine {
        rollback(conn);
        return Ok(None);
    }
    let Writing { deltas, moves, .. } = w;
    if let Err(e) = run("COMMIT") {
        rollback(conn);
        return Err(e);
    }
    Ok(Some((deltas, moves)))
}

fn rollback(conn: &Connection) {
    // SQLite has already rolled back after some errors (a full disk); then there is nothing left to do.
    if !conn.is_autocommit()
        && let Err(e) = conn.execute_batch("ROLLBACK")
    {
        tracing::error!(error = %e, "rollback failed");
    }
}

fn apply(counts: &Mutex<Counts>, deltas: Deltas) {
    if deltas.is_empty() {
        return;
    }
    let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
    for (queue, delta) in deltas {
        let of_queue = counts.entry(queue).or_default();
        for (n, d) in of_queue.iter_mut().zip(delta) {
            *n = n.saturating_add_signed(d);
        }
    }
}

/// Counts what is there when the database is opened.
pub(super) fn count(conn: &Connection) -> Result<Counts, StoreError> {
    let mut counts = Counts::new();
    let sql = "SELECT queue, 1, count(*) FROM jobs INDEXED BY jobs_queued WHERE state = 1 GROUP BY queue
               UNION ALL
               SELECT queue, 0, count(*) FROM jobs INDEXED BY jobs_timed WHERE state = 0 GROUP BY queue
               UNION ALL
               SELECT queue, 2, count(*) FROM jobs INDEXED BY jobs_timed WHERE state = 2 GROUP BY queue
               UNION ALL
               SELECT queue, 4, count(*) FROM jobs INDEXED BY jobs_dead WHERE state = 4 GROUP BY queue";
    let mut add = || -> Result<(), Fault> {
        let mut statement = conn.prepare(sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let queue = super::row::queue(row, 0)?;
            let state = usize::try_from(row.get::<_, i64>(1)?).unwrap_or(usize::MAX);
            if let Some(n) = counts.entry(queue).or_default().get_mut(state) {
                *n = row.get::<_, i64>(2)?.try_into().unwrap_or(0);
            }
        }
        Ok(())
    };
    add()?;
    Ok(counts)
}
