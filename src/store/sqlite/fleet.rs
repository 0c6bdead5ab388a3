//! Queues and workers on SQLite.

use std::collections::BTreeMap;

use async_trait::async_trait;
use rusqlite::{OptionalExtension, params};

use super::{Fault, Sqlite, row};
use crate::{
    base::{
        clock::Timestamp,
        id::{QueueName, WorkerId},
    },
    jobs::{
        state::State,
        store::{FleetStore, QueueCounts, QueueState, StoreError, WorkerReport},
    },
};

#[async_trait]
impl FleetStore for Sqlite {
    async fn queues(&self) -> Result<Vec<QueueState>, StoreError> {
        let counts = self.counts();
        self.read(move |conn| {
            let mut states: BTreeMap<QueueName, QueueState> = BTreeMap::new();
            for (name, of) in counts {
                let n = |s: State| of.get(s as usize).copied().unwrap_or(0);
                let counts = QueueCounts {
                    scheduled: n(State::Scheduled),
                    queued: n(State::Queued),
                    running: n(State::Running),
                    failed: n(State::Failed),
                };
                let oldest: Option<i64> = conn
                    .prepare_cached(
                        "SELECT at FROM jobs INDEXED BY jobs_queued WHERE state = 1 AND queue = ?1 ORDER BY at LIMIT 1",
                    )?
                    .query_row([name.as_str()], |r| r.get(0))
                    .optional()?;
                let oldest = oldest.map(Timestamp::from_millis);
                states.insert(name.clone(), QueueState { name, counts, oldest, paused: false });
            }
            let mut paused = conn.prepare_cached("SELECT name FROM queues WHERE paused = 1")?;
            let mut rows = paused.query([])?;
            while let Some(r) = rows.next()? {
                let name = row::queue(r, 0)?;
                let empty =
                    || QueueState { name: name.clone(), counts: QueueCounts::default(), oldest: None, paused: true };
                states.entry(name.clone()).or_insert_with(empty).paused = true;
            }
            // A queue whose jobs all ended is gone unless it is paused.
            states.retain(|_, q| q.paused || q.counts != QueueCounts::default());
            Ok(states.into_values().collect())
        })
        .await
    }

    async fn set_paused(&self, queue: &QueueName, paused: bool) -> Result<(), StoreError> {
        let queue = queue.clone();
        self.write(move |w| {
            let sql = "INSERT INTO queues (name, paused) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET paused = ?2";
            w.conn.prepare_cached(sql)?.execute(params![queue.as_str(), paused])?;
            Ok(())
        })
        .await
    }

    async fn report(&self, worker: WorkerReport) -> Result<(), StoreError> {
        self.write_lazily(move |w| {
            let report = row::to_json("worker report", &worker)?;
            w.conn
                .prepare_cached("INSERT OR REPLACE INTO workers (id, report) VALUES (?1, ?2)")?
                .execute(params![worker.id.0.as_bytes(), report])?;
            Ok(())
        })
        .await
    }

    async fn workers(&self) -> Result<Vec<WorkerReport>, StoreError> {
        self.read(|conn| {
            let mut select = conn.prepare_cached("SELECT report FROM workers ORDER BY id")?;
            let mut rows = select.query([])?;
            let mut out = Vec::new();
            while let Some(r) = rows.next()? {
                let text = r.get_ref(0)?.as_str().map_err(|e| row::corrupt("worker report", e))?;
                out.push(serde_json::from_str(text).map_err(|e| row::corrupt("worker report", e))?);
            }
            Ok::<_, Fault>(out)
        })
        .await
    }

    async fn forget(&self, worker: WorkerId) -> Result<(), StoreError> {
        self.write_lazily(move |w| {
            w.conn.prepare_cached("DELETE FROM workers WHERE id = ?1")?.execute([worker.0.as_bytes()])?;
            Ok(())
        })
        .await
    }
    async fn clock(&self) -> Result<Option<Timestamp>, StoreError> {
        Ok(None)
    }
}
