//! What a case is handed: the ports of a fresh adapter, a clock to move, and short ways to bring jobs where a case
//! needs them.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use app::{
    base::{
        clock::{Clock, Timestamp},
        id::{JobId, QueueName, WorkerId},
        page::PageRequest,
    },
    broker::Broker,
    cache::{Cache, Through},
    events::Event,
    items::store::ItemStore,
    jobs::{
        model::{AttemptOutcome, Job, JobError},
        state::{State, Verdict},
        store::{Cancelled, Claim, Finished, FleetStore, JobFilter, JobStore, QueueCounts, QueueState},
    },
    records::RecordStore,
};

use crate::support::{
    adapters::{BrokerHarness, CacheHarness, StoreHarness},
    jobs::{START, attempt, finish, new_job, raw, worker},
    proxy::Proxy,
};

/// How long the fixture's claims last.
pub(crate) const LEASE: Duration = Duration::from_secs(15);
/// Crashes after which a job is poison.
pub(crate) const CRASH_LIMIT: u32 = 3;

/// A fresh store.
pub(crate) struct Fixture {
    harness: Box<dyn StoreHarness>,
    pub(crate) clock: Clock,
    /// Who claims unless a case says otherwise.
    pub(crate) worker: WorkerId,
}

pub(crate) fn store(harness: Box<dyn StoreHarness>) -> Fixture {
    let clock = Clock::manual(START);
    let worker = worker(&clock);
    Fixture { harness, clock, worker }
}

impl Fixture {
    pub(crate) fn jobs(&self) -> Arc<dyn JobStore> {
        self.harness.stores().jobs
    }

    pub(crate) fn fleet(&self) -> Arc<dyn FleetStore> {
        self.harness.stores().fleet
    }

    pub(crate) fn items(&self) -> Arc<dyn ItemStore> {
        self.harness.stores().items
    }

    pub(crate) fn records(&self) -> Arc<dyn RecordStore> {
        self.harness.stores().records
    }

    /// Something that happened.
    pub(crate) fn event(&self) -> Event {
        Event::new(&self.clock, "item.created", "subject", serde_json::json!({ "name": "ü" }))
    }

    pub(crate) async fn reopen(&mut self) {
        self.harness.reopen().await;
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Time passes.
    pub(crate) fn pass(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    /// The time in so many seconds.
    pub(crate) fn in_secs(&self, seconds: u64) -> Timestamp {
        self.now().plus(Duration::from_secs(seconds))
    }

    pub(crate) async fn insert(&self, job: &Job) -> JobId {
        self.jobs().insert(vec![job.clone()], None).await.unwrap();
        job.id
    }

    /// A job queued now.
    pub(crate) async fn queued(&self) -> JobId {
        self.insert(&new_job(&self.clock)).await
    }

    /// A job queued now in this queue.
    pub(crate) async fn queued_in(&self, queue: &QueueName) -> JobId {
        self.insert(&Job { queue: queue.clone(), ..new_job(&self.clock) }).await
    }

    /// A job that waits for a time.
    pub(crate) async fn scheduled(&self, at: Timestamp) -> JobId {
        self.insert(&Job { state: State::Scheduled, at, ..new_job(&self.clock) }).await
    }

    pub(crate) async fn claim(&self, id: JobId) -> Claim {
        self.claim_as(id, self.worker).await
    }

    pub(crate) async fn claim_as(&self, id: JobId, worker: WorkerId) -> Claim {
        self.jobs().claim(&[id], worker, self.now(), LEASE).await.unwrap().remove(0)
    }

    /// Claims a job that must be there to be claimed.
    pub(crate) async fn win(&self, id: JobId) -> Job {
        match self.claim(id).await {
            Claim::Won { job, .. } => *job,
            other => panic!("not won: {other:?}"),
        }
    }

    /// A job that runs.
    pub(crate) async fn running(&self) -> Job {
        self.win(self.queued().await).await
    }

    /// Ends the run of a claimed job.
    pub(crate) async fn end(&self, job: &Job, verdict: Verdict) -> Finished {
        let run = attempt(job, self.now(), outcome(&verdict), error(&verdict));
        self.jobs().finish(vec![finish(job, verdict, run)]).await.unwrap()[0]
    }

    pub(crate) async fn get(&self, id: JobId) -> Job {
        self.jobs().get(id).await.unwrap().expect("is stored")
    }

    pub(crate) async fn cancel(&self, id: JobId) -> Cancelled {
        self.jobs().cancel(&[id], self.now()).await.unwrap()[0]
    }

    /// A new job that went the shortest way to `state`.
    pub(crate) async fn in_state(&self, state: State) -> Job {
        let id = match state {
            State::Scheduled => self.scheduled(self.in_secs(60)).await,
            State::Queued => self.queued().await,
            State::Running => self.running().await.id,
            State::Succeeded | State::Failed | State::Cancelled => {
                let job = self.running().await;
                let verdict = match state {
                    State::Succeeded => Verdict::Succeed(Some(raw("[1]"))),
                    State::Failed => Verdict::Fail,
                    _ => Verdict::Cancel,
                };
                assert_eq!(self.end(&job, verdict).await, Finished::Now(state));
                job.id
            }
        };
        let job = self.get(id).await;
        assert_eq!(job.state, state);
        job
    }

    /// What the store says of a queue; empty and not paused if it does not list it.
    pub(crate) async fn queue_state(&self, name: &QueueName) -> QueueState {
        let found = self.fleet().queues().await.unwrap().into_iter().find(|q| q.name == *name);
        found.unwrap_or(QueueState { name: name.clone(), counts: QueueCounts::default(), oldest: None, paused: false })
    }

    /// Every job, newest first, read page by page.
    pub(crate) async fn all(&self, filter: &JobFilter, limit: usize) -> Vec<Job> {
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let page = self.jobs().list(filter, PageRequest { limit, after }).await.unwrap();
            assert!(page.data.len() <= limit, "a page of {} for a limit of {limit}", page.data.len());
            all.extend(page.data);
            match page.next {
                Some(next) => after = Some(next),
                None => return all,
            }
        }
    }

    /// What must hold after every case: the counts of the queues are those of a recount.
    pub(crate) async fn check(&self) {
        let mut recount: BTreeMap<QueueName, (QueueCounts, Option<Timestamp>)> = BTreeMap::new();
        for job in self.all(&JobFilter::default(), 200).await {
            let (counts, oldest) = recount.entry(job.queue).or_default();
            match job.state {
                State::Scheduled => counts.scheduled += 1,
                State::Queued => {
                    counts.queued += 1;
                    *oldest = Some(oldest.map_or(job.at, |o| o.min(job.at)));
                }
                State::Running => counts.running += 1,
                State::Failed => counts.failed += 1,
                State::Succeeded | State::Cancelled => {}
            }
        }
        recount.retain(|_, (counts, _)| *counts != QueueCounts::default());
        let listed = self.fleet().queues().await.unwrap();
        assert!(listed.is_sorted_by(|a, b| a.name < b.name), "queues are listed once each, by name: {listed:?}");
        for queue in listed {
            let (counts, oldest) = recount.remove(&queue.name).unwrap_or_default();
            assert!(queue.paused || counts != QueueCounts::default(), "an empty queue is listed: {queue:?}");
            assert_eq!((queue.counts, queue.oldest), (counts, oldest), "queue {}", queue.name);
        }
        assert!(recount.is_empty(), "queues are not listed: {recount:?}");
    }
}

fn outcome(verdict: &Verdict) -> AttemptOutcome {
    match verdict {
        Verdict::Succeed(_) => AttemptOutcome::Succeeded,
        Verdict::Retry { .. } | Verdict::Fail => AttemptOutcome::Failed,
        Verdict::Snooze { .. } => AttemptOutcome::Snoozed,
        Verdict::Cancel => AttemptOutcome::Cancelled,
        Verdict::Release => AttemptOutcome::Released,
    }
}

fn error(verdict: &Verdict) -> Option<JobError> {
    match verdict {
        Verdict::Retry { .. } => Some(JobError::new("flaky", "may work later")),
        Verdict::Fail => Some(JobError::new("broken", "will not work")),
        _ => None,
    }
}

/// A fresh broker.
pub(crate) struct BrokerFixture {
    harness: Box<dyn BrokerHarness>,
    pub(crate) clock: Clock,
}

pub(crate) fn broker(harness: Box<dyn BrokerHarness>) -> BrokerFixture {
    BrokerFixture { harness, clock: Clock::manual(START) }
}

impl BrokerFixture {
    pub(crate) async fn connect(&self) -> Arc<dyn Broker> {
        self.harness.connect().await
    }

    pub(crate) async fn connect_breakable(&self) -> (Arc<dyn Broker>, Option<Proxy>) {
        self.harness.connect_breakable().await
    }

    /// What must hold after every case: the broker still answers.
    pub(crate) async fn check(&self) {
        self.connect().await.check().await.unwrap();
    }
}

/// A fresh cache.
pub(crate) struct CacheFixture {
    harness: Box<dyn CacheHarness>,
}

pub(crate) fn cache(harness: Box<dyn CacheHarness>) -> CacheFixture {
    CacheFixture { harness }
}

impl CacheFixture {
    /// The cache as one more process sees it.
    pub(crate) fn connect(&self) -> Arc<dyn Cache> {
        self.harness.connect()
    }

    /// Records read through the cache by one more process.
    pub(crate) fn through(&self) -> Through {
        Through::new(self.connect(), "test", 1, Duration::from_secs(3600))
    }

    /// Lets time pass, where a test can. On a server it passes by itself, so a case waits until it sees that it has.
    pub(crate) fn pass(&self, time: Duration) {
        self.harness.pass(time);
    }

    /// What must hold after every case: the cache still answers.
    pub(crate) async fn check(&self) {
        self.connect().check().await.unwrap();
    }
}
