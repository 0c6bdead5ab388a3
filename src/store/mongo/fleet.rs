//! Queues and workers on MongoDB.

use std::collections::BTreeMap;

use ::mongodb::bson::{Bson, Document, doc};
use async_trait::async_trait;
use futures_util::{TryStreamExt, future::try_join_all, try_join};

use super::{
    Mongo, Ready,
    doc::{id, ids, queue, time, to_json},
    fault::{Fault, corrupt},
    jobs::QUEUED,
    write::number,
};
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
impl FleetStore for Mongo {
    async fn queues(&self) -> Result<Vec<QueueState>, StoreError> {
        self.call(async { self.database().await?.queues().await }).await
    }

    async fn set_paused(&self, queue: &QueueName, paused: bool) -> Result<(), StoreError> {
        self.call(async { self.database().await?.set_paused(queue, paused).await }).await
    }

    async fn report(&self, worker: WorkerReport) -> Result<(), StoreError> {
        let report = async {
            let workers = self.database().await?.lazy.collection::<Document>("workers");
            let text = to_json("worker report", &worker)?;
            workers
                .replace_one(doc! { "_id": id(worker.id.0) }, doc! { "_id": id(worker.id.0), "report": text })
                .upsert(true)
                .await?;
            Ok(())
        };
        self.call(report).await
    }

    async fn workers(&self) -> Result<Vec<WorkerReport>, StoreError> {
        let read = async {
            let workers = self.database().await?.durable.collection::<Document>("workers");
            let mut cursor = workers.find(Document::new()).sort(doc! { "_id": 1 }).await?;
            let mut all = Vec::new();
            while let Some(d) = cursor.try_next().await? {
                let text = d.get_str("report").map_err(|e| corrupt("worker report", e))?;
                all.push(serde_json::from_str(text).map_err(|e| corrupt("worker report", e))?);
            }
            Ok(all)
        };
        self.call(read).await
    }

    async fn forget(&self, worker: WorkerId) -> Result<(), StoreError> {
        let forget = async {
            let workers = self.database().await?.lazy.collection::<Document>("workers");
            workers.delete_one(doc! { "_id": id(worker.0) }).await?;
            Ok(())
        };
        self.call(forget).await
    }

    /// The primary's: it is the one that takes the writes.
    async fn clock(&self) -> Result<Option<Timestamp>, StoreError> {
        let ask = async {
            let hello = self.database().await?.durable.run_command(doc! { "hello": 1 }).await?;
            Ok(Some(time(*hello.get_datetime("localTime").map_err(|e| corrupt("localTime", e))?)))
        };
        self.call(ask).await
    }
}

impl Ready {
    /// Every count is read from an index alone, so that it costs nothing per finished job.
    async fn queues(&self) -> Result<Vec<QueueState>, Fault> {
        let leased: Vec<_> = ids(self.leased().await?);
        let (started, queued, scheduled, running, failed, paused) = try_join!(
            self.started(&leased),
            self.queued(&leased),
            self.counted(State::Scheduled, "scheduled"),
            self.counted(State::Running, "running"),
            self.counted(State::Failed, "dead"),
            self.paused_queues(),
        )?;
        let mut states: BTreeMap<QueueName, QueueState> = BTreeMap::new();
        let mut of = |name: QueueName, put: &dyn Fn(&mut QueueState)| {
            let empty =
                || QueueState { name: name.clone(), counts: QueueCounts::default(), oldest: None, paused: false };
            put(states.entry(name.clone()).or_insert_with(empty));
        };
        for (name, n, oldest) in queued {
            of(name, &|q| (q.counts.queued, q.oldest) = (n, oldest));
        }
        for (name, n) in scheduled {
            of(name, &|q| q.counts.scheduled = n);
        }
        for (name, n) in running {
            of(name, &|q| q.counts.running = n);
        }
        for (name, n) in failed {
            of(name, &|q| q.counts.failed = n);
        }
        for (name, n) in started {
            of(name, &|q| {
                q.counts.queued = q.counts.queued.saturating_sub(n);
                q.counts.running += n;
            });
        }
        for name in paused {
            of(name, &|q| q.paused = true);
        }
        states.retain(|_, q| q.paused || q.counts != QueueCounts::default());
        Ok(states.into_values().collect())
    }

    async fn paused_queues(&self) -> Result<Vec<QueueName>, Fault> {
        self.paused().await?.iter().map(|name| queue(name)).collect()
    }

    /// Jobs by queue that run under leases which are still to be written out.
    async fn started(&self, leased: &[::mongodb::bson::Uuid]) -> Result<BTreeMap<QueueName, u64>, Fault> {
        let mut started = BTreeMap::new();
        if leased.is_empty() {
            return Ok(started);
        }
        let jobs = self.durable.collection::<Document>("jobs");
        let these = doc! { "_id": { "$in": leased }, "state": QUEUED };
        let mut found = jobs.find(these).projection(doc! { "_id": 0, "queue": 1 }).await?;
        while let Some(d) = found.try_next().await? {
            *started.entry(queue(d.get_str("queue").map_err(|e| corrupt("queue", e))?)?).or_insert(0) += 1;
        }
        Ok(started)
    }

    /// Documents that say `queued`, by queue, and since when the first of each waits that is not leased.
    async fn queued(
        &self,
        leased: &[::mongodb::bson::Uuid],
    ) -> Result<Vec<(QueueName, u64, Option<Timestamp>)>, Fault> {
        let jobs = self.durable.collection::<Document>("jobs");
        let names = jobs.distinct("queue", doc! { "state": QUEUED }).await?;
        let one = async |name: Bson| {
            let name = name.as_str().map_or(Err(corrupt("queue", "not a text")), queue)?;
            let these = doc! { "state": QUEUED, "queue": name.as_str() };
            let command = doc! { "count": "jobs", "query": these.clone(), "hint": "queued" };
            let n = self.durable.run_command(command).await?.get("n").and_then(number).unwrap_or(0);
            let mut waiting = these;
            waiting.insert("_id", doc! { "$nin": leased });
            let first = jobs.find_one(waiting).sort(doc! { "at": 1 }).projection(doc! { "_id": 0, "at": 1 }).await?;
            let oldest = first.and_then(|d| d.get_datetime("at").ok().map(|at| time(*at)));
            Ok::<_, Fault>((name, n, oldest))
        };
        try_join_all(names.into_iter().map(one)).await
    }

    async fn counted(&self, state: State, index: &str) -> Result<Vec<(QueueName, u64)>, Fault> {
        let jobs = self.durable.collection::<Document>("jobs");
        let stages =
            [doc! { "$match": { "state": state as i32 } }, doc! { "$group": { "_id": "$queue", "n": { "$sum": 1 } } }];
        let query = jobs.aggregate(stages).hint(::mongodb::options::Hint::Name(index.to_owned()));
        let found: Vec<Document> = query.await?.try_collect().await?;
        let one = |d: &Document| {
            let name = d.get_str("_id").map_err(|e| corrupt("queue", e))?;
            Ok((queue(name)?, d.get("n").and_then(number).unwrap_or(0)))
        };
        found.iter().map(one).collect()
    }
}
