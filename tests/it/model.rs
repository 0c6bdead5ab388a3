//! A model-based test of the job store: random operations, applied to the store and to a simple model, must give the
//! same answers and leave the same jobs. The model knows the rules from their description, not from `jobs::state`.

mod rules;

use app::jobs::announce::Listened;
use std::{collections::BTreeMap, time::Duration};

use app::{
    base::{
        clock::Clock,
        id::{JobId, QueueName, WorkerId},
        page::PageRequest,
    },
    jobs::{
        model::{Attempt, AttemptOutcome, Job, JobError, Progress},
        state::{State, Verdict},
        store::{Again, Claim, Finish, Inserted, JobEdit, JobFilter, QueueCounts, RanAgain, Renewal, Void},
    },
};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use rules::{Answer, Model};

use crate::support::{
    adapters::{Mongodb, Sqlite, StoreHarness},
    jobs::{START, new_job, priority, queue, raw},
};

const QUEUES: [&str; 2] = ["a", "b"];
const LEASE: Duration = Duration::from_secs(15);
const CRASH_LIMIT: u32 = 3;
/// More than any case has jobs.
const ALL: usize = 1000;

/// One step. Jobs are named by their number, counted from the first and wrapped around.
#[derive(Clone, Debug)]
enum Op {
    Insert { queue: bool, delay: Option<u8>, priority: u8 },
    Claim { jobs: Vec<usize>, worker: bool },
    Renew { job: usize, stale: bool, secs: u8 },
    Progress { job: usize, stale: bool, n: u8 },
    Finish { job: usize, stale: bool, how: How, secs: u8 },
    Cancel { job: usize },
    Due { limit: usize },
    Expire { limit: usize },
    Deaths { alive: Vec<bool> },
    RunAgain { job: usize, delay: Option<u8>, edit: Option<(bool, u8)> },
    Purge { queue: bool },
    Discard { job: usize },
    Retain { finished: u8, failed: u8 },
    Advance { secs: u8 },
    Pause { queue: bool, paused: bool },
    Reopen,
}

#[derive(Clone, Copy, Debug)]
enum How {
    Succeed,
    Retry,
    Snooze,
    Fail,
    Cancel,
    Release,
}

fn op() -> impl Strategy<Value = Op> {
    let job = 0..8_usize;
    let secs = 0..40_u8;
    let delay = proptest::option::of(0..40_u8);
    let how = prop_oneof![
        Just(How::Succeed),
        Just(How::Retry),
        Just(How::Snooze),
        Just(How::Fail),
        Just(How::Cancel),
        Just(How::Release)
    ];
    let stale = prop::bool::weighted(0.2);
    prop_oneof![
        6 => (any::<bool>(), proptest::option::weighted(0.3, 0..40_u8), 1..=10_u8)
            .prop_map(|(queue, delay, priority)| Op::Insert { queue, delay, priority }),
        12 => (prop::collection::vec(job.clone(), 1..4), any::<bool>())
            .prop_map(|(jobs, worker)| Op::Claim { jobs, worker }),
        3 => (job.clone(), stale, secs.clone()).prop_map(|(job, stale, secs)| Op::Renew { job, stale, secs }),
        2 => (job.clone(), stale, any::<u8>()).prop_map(|(job, stale, n)| Op::Progress { job, stale, n }),
        12 => (job.clone(), stale, how, secs.clone())
            .prop_map(|(job, stale, how, secs)| Op::Finish { job, stale, how, secs }),
        4 => job.clone().prop_map(|job| Op::Cancel { job }),
        4 => (1..4_usize).prop_map(|limit| Op::Due { limit }),
        3 => (1..4_usize).prop_map(|limit| Op::Expire { limit }),
        2 => prop::collection::vec(any::<bool>(), 0..3).prop_map(|alive| Op::Deaths { alive }),
        5 => (job.clone(), delay, proptest::option::of((any::<bool>(), 1..=10_u8)))
            .prop_map(|(job, delay, edit)| Op::RunAgain { job, delay, edit }),
        1 => any::<bool>().prop_map(|queue| Op::Purge { queue }),
        1 => job.prop_map(|job| Op::Discard { job }),
        1 => (0..60_u8, 0..60_u8).prop_map(|(finished, failed)| Op::Retain { finished, failed }),
        6 => secs.prop_map(|secs| Op::Advance { secs }),
        2 => (any::<bool>(), any::<bool>()).prop_map(|(queue, paused)| Op::Pause { queue, paused }),
        1 => Just(Op::Reopen),
    ]
}

fn queue_name(second: bool) -> QueueName {
    queue(QUEUES[usize::from(second)])
}

/// The store, its model, and what both are told.
struct World {
    store: Box<dyn StoreHarness>,
    model: Model,
    clock: Clock,
    workers: [WorkerId; 2],
    ids: Vec<JobId>,
}

impl World {
    fn new(store: Box<dyn StoreHarness>) -> Self {
        let clock = Clock::manual(START);
        let workers = [WorkerId(clock.new_uuid()), WorkerId(clock.new_uuid())];
        Self { store, model: Model::default(), clock, workers, ids: Vec::new() }
    }

    fn worker(&self, second: bool) -> WorkerId {
        self.workers[usize::from(second)]
    }

    /// A job that was inserted once; one that never was while there is none.
    fn id(&self, n: usize) -> JobId {
        if self.ids.is_empty() { JobId(self.clock.new_uuid()) } else { self.ids[n % self.ids.len()] }
    }

    /// The fence to present for a job: that of its last run, or one that was never given out or is past.
    fn fence(&self, id: JobId, stale: bool) -> u64 {
        let fence = self.model.jobs.get(&id).map_or(0, |j| j.fence);
        if stale { fence.wrapping_sub(1).min(u64::from(u32::MAX)) } else { fence }
    }

    async fn step(&mut self, op: &Op) {
        match op {
            Op::Insert { .. } | Op::Claim { .. } | Op::Renew { .. } | Op::Progress { .. } | Op::Finish { .. } => {
                self.work(op).await;
            }
            _ => self.steer(op).await,
        }
    }

    /// What submitters and workers do.
    async fn work(&mut self, op: &Op) {
        let jobs = self.store.stores().jobs;
        let now = self.clock.now();
        match op {
            Op::Insert { queue, delay, priority: p } => {
                let at = delay.map(|s| now.plus(Duration::from_secs(u64::from(s))));
                let state = if at.is_some() { State::Scheduled } else { State::Queued };
                let (queue, priority) = (queue_name(*queue), priority(i64::from(*p)));
                let job = Job { queue, priority, state, at: at.unwrap_or(now), ..new_job(&self.clock) };
                self.ids.push(job.id);
                self.model.insert(job.clone());
                assert_eq!(jobs.insert(vec![job], None).await.unwrap(), Inserted::New);
            }
            Op::Claim { jobs: named, worker } => {
                let worker = self.worker(*worker);
                let ids: Vec<JobId> = named.iter().map(|n| self.id(*n)).collect();
                let claims = jobs.claim(&ids, worker, now, LEASE).await.unwrap();
                assert_eq!(claims.len(), ids.len());
                for (id, claim) in ids.into_iter().zip(claims) {
                    let expected = self.model.claim(id, worker, now, LEASE);
                    let got = match &claim {
                        Claim::Won { queued_at, .. } => Answer::Won(*queued_at),
                        Claim::Paused => Answer::Paused,
                        Claim::Gone => Answer::Gone,
                    };
                    assert_eq!(got, expected, "claim of {id}");
                    if let Claim::Won { job, .. } = claim {
                        assert_eq!(format!("{job:#?}"), format!("{:#?}", self.model.jobs[&id]));
                    }
                }
            }
            Op::Renew { job, stale, secs } => {
                let id = self.id(*job);
                let (fence, until) = (self.fence(id, *stale), now.plus(Duration::from_secs(u64::from(*secs))));
                let expected = match self.model.held(id, fence) {
                    Some(job) => {
                        job.at = until;
                        Renewal::Held { cancel_requested: job.cancel_requested }
                    }
                    None => Renewal::Lost,
                };
                assert_eq!(jobs.renew(&[(id, fence)], until).await.unwrap(), [expected]);
            }
            Op::Progress { job, stale, n } => {
                let id = self.id(*job);
                let fence = self.fence(id, *stale);
                let note = Progress { current: u64::from(*n), total: 255, message: None, partial: None };
                if let Some(job) = self.model.held(id, fence) {
                    job.progress = Some(note.clone());
                }
                jobs.progress(vec![(id, fence, note)]).await.unwrap();
            }
            Op::Finish { job, stale, how, secs } => {
                let id = self.id(*job);
                let run = self.run(id, self.fence(id, *stale), *how, now.plus(Duration::from_secs(u64::from(*secs))));
                let expected = self.model.finish(run.clone());
                assert_eq!(jobs.finish(vec![run]).await.unwrap(), [expected]);
            }
            _ => unreachable!("is steering"),
        }
    }

    /// What people, the scheduler and time do.
    async fn steer(&mut self, op: &Op) {
        let jobs = self.store.stores().jobs;
        let now = self.clock.now();
        match op {
            Op::Cancel { job } => {
                let id = self.id(*job);
                let expected = self.model.cancel(id, now);
                assert_eq!(jobs.cancel(&[id], now).await.unwrap(), [expected]);
            }
            Op::Due { limit } => {
                let moved = jobs.due(now, *limit).await.unwrap();
                self.model.due(&moved, now, *limit);
            }
            Op::Expire { limit } => {
                let moved =
                    jobs.void(&Void::Expired(now), now, CRASH_LIMIT, *limit, &Listened::default()).await.unwrap();
                let lost: Vec<JobId> = self.model.running(|j| j.at <= now);
                self.model.lose(&moved, &lost, now, CRASH_LIMIT, *limit);
            }
            Op::Deaths { alive } => {
                let alive: Vec<WorkerId> = alive.iter().map(|w| self.worker(*w)).collect();
                let lost = self.model.running(|j| !alive.contains(&j.worker.unwrap()));
                let moved =
                    jobs.void(&Void::NotOwnedBy(alive), now, CRASH_LIMIT, ALL, &Listened::default()).await.unwrap();
                self.model.lose(&moved, &lost, now, CRASH_LIMIT, ALL);
            }
            Op::RunAgain { job, delay, edit } => {
                let again = Again { id: self.id(*job), at: delay.map(|s| now.plus(Duration::from_secs(u64::from(s)))) };
                let edit = edit.map_or_else(JobEdit::default, |(queue, p)| JobEdit {
                    queue: Some(queue_name(queue)),
                    priority: Some(priority(i64::from(p))),
                    payload: Some(raw("{\"edited\":1}")),
                    max_attempts: Some(u32::from(p)),
                });
                let expected: RanAgain = self.model.run_again(&again, &edit, now);
                assert_eq!(jobs.run_again(&[again], &edit, now).await.unwrap(), [expected]);
            }
            Op::Purge { queue } => {
                let queue = queue_name(*queue);
                let expected = self.model.purge(&queue, now);
                assert_eq!(jobs.purge(&queue, now, ALL).await.unwrap(), expected);
            }
            Op::Discard { job } => {
                let id = self.id(*job);
                let dead = self.model.jobs.get(&id).is_some_and(|j| j.state == State::Failed);
                if dead {
                    self.model.jobs.remove(&id);
                }
                assert_eq!(jobs.discard(&[id]).await.unwrap(), u64::from(dead));
            }
            Op::Retain { finished, failed } => {
                let before = |secs: u8| now.minus(Duration::from_secs(u64::from(secs)));
                let (finished, failed) = (before(*finished), before(*failed));
                let expected = self.model.retain(finished, failed);
                let retention = app::jobs::store::Retention { finished_before: finished, failed_before: failed, now };
                assert_eq!(jobs.retain(retention, None, ALL).await.unwrap(), (expected, None));
            }
            Op::Advance { secs } => self.clock.advance(Duration::from_secs(u64::from(*secs))),
            Op::Pause { queue, paused } => {
                let queue = queue_name(*queue);
                self.store.stores().fleet.set_paused(&queue, *paused).await.unwrap();
                self.model.pause(queue, *paused);
            }
            Op::Reopen => {
                drop(jobs);
                self.store.reopen().await;
            }
            _ => unreachable!("is work"),
        }
    }

    /// The end of a run as a worker would report it, whether or not it holds the job.
    fn run(&self, id: JobId, fence: u64, how: How, at: app::base::clock::Timestamp) -> Finish {
        let now = self.clock.now();
        let error = || Some(JobError::new("scripted", format!("run {fence}")));
        let (verdict, outcome, error, retry_at) = match how {
            How::Succeed => (Verdict::Succeed(Some(raw("[1]"))), AttemptOutcome::Succeeded, None, None),
            How::Retry => (Verdict::Retry { at }, AttemptOutcome::Failed, error(), Some(at)),
            How::Snooze => (Verdict::Snooze { at }, AttemptOutcome::Snoozed, None, Some(at)),
            How::Fail => (Verdict::Fail, AttemptOutcome::Panicked, error(), None),
            How::Cancel => (Verdict::Cancel, AttemptOutcome::Cancelled, None, None),
            How::Release => (Verdict::Release, AttemptOutcome::Released, None, None),
        };
        // Who claimed it, and when, is what the claim said; a run that nobody claimed can say anything.
        let job = self.model.jobs.get(&id);
        let worker = job.and_then(|j| j.worker).unwrap_or(self.workers[0]);
        let started_at = job.and_then(|j| j.started_at).unwrap_or(now);
        let attempt = Attempt { run: fence, worker, started_at, finished_at: now, outcome, error, retry_at };
        Finish { id, fence, verdict, attempt, event: None }
    }

    /// Every job and every count of the store is that of the model.
    async fn compare(&self) {
        let stores = self.store.stores();
        let page = PageRequest { limit: ALL, after: None };
        let listed = stores.jobs.list(&JobFilter::default(), page).await.unwrap();
        let stored: BTreeMap<JobId, &Job> = listed.data.iter().map(|j| (j.id, j)).collect();
        assert_eq!(stored.len(), listed.data.len(), "a job is listed twice");
        for (id, expected) in &self.model.jobs {
            let got = stored.get(id).map(|j| format!("{j:#?}"));
            assert_eq!(got, Some(format!("{expected:#?}")), "job {id}");
        }
        assert_eq!(stored.len(), self.model.jobs.len());
        let next_due = self.model.jobs.values().filter(|j| j.state == State::Scheduled).map(|j| j.at).min();
        assert_eq!(stores.jobs.next_due().await.unwrap(), next_due);
        let queues: BTreeMap<QueueName, _> = stores
            .fleet
            .queues()
            .await
            .unwrap()
            .into_iter()
            .map(|q| (q.name, (q.counts, q.oldest, q.paused)))
            .collect();
        let mut expected = self.model.queues();
        expected.retain(|_, (counts, _, paused)| *paused || *counts != QueueCounts::default());
        assert_eq!(queues, expected);
    }
}

/// Runs random operations over stores that `open` makes.
fn check(cases: u32, open: impl AsyncFn() -> Box<dyn StoreHarness>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    // A failing case prints its shrunk operations; no file is written beside the sources.
    let config = Config { cases, max_shrink_iters: cases * 20, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new(config);
    let cases = prop::collection::vec(op(), 1..120);
    let outcome = runner.run(&cases, |ops| {
        runtime.block_on(async {
            let mut world = World::new(open().await);
            for op in &ops {
                world.step(op).await;
                world.compare().await;
            }
        });
        Ok(())
    });
    if let Err(e) = outcome {
        panic!("{e}");
    }
}

#[test]
fn the_sqlite_store_does_what_the_model_does() {
    check(200, Sqlite::open_fresh);
}

/// Fewer cases, because each step asks a server several times.
#[test]
fn the_mongodb_store_does_what_the_model_does() {
    check(25, Mongodb::open_fresh);
}
