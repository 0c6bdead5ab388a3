//! Jobs in the lease of a batch over MongoDB, seen and touched through another connection than the one that claimed them,
//! as other processes do; and what a process leaves that dies between two writes.

use std::time::Duration;

use app::{
    base::{clock::Clock, clock::Timestamp, id::JobId, id::WorkerId, page::PageRequest},
    jobs::{
        announce::Listened,
        model::{AttemptOutcome, Job, Progress},
        state::{State, Verdict},
        store::{Cancelled, Claim, Finish, Finished, JobFilter, Renewal, Void},
    },
    store::{self, Stores, Sync},
};
use mongodb::{
    Collection,
    bson::{self, Bson, Document, doc},
};

use crate::support::{
    jobs::{START, attempt, finish, new_job, queue, worker},
    servers,
};

const LEASE: Duration = Duration::from_secs(15);

/// Two connections to one database.
struct Two {
    url: String,
    ours: Stores,
    theirs: Stores,
    clock: Clock,
    worker: WorkerId,
}

impl Drop for Two {
    fn drop(&mut self) {
        servers::drop_database(&self.url);
    }
}

impl Two {
    async fn new() -> Self {
        let url = servers::mongodb_database().await;
        let open = || store::open(&url, Sync::Full).unwrap();
        let clock = Clock::manual(START);
        Self { ours: open(), theirs: open(), worker: worker(&clock), url, clock }
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    async fn queued(&self, n: usize) -> Vec<JobId> {
        let jobs: Vec<Job> = (0..n).map(|_| new_job(&self.clock)).collect();
        let ids = jobs.iter().map(|j| j.id).collect();
        self.ours.jobs.insert(jobs, None).await.unwrap();
        ids
    }

    /// Jobs that we claimed together.
    async fn running(&self, n: usize) -> Vec<Job> {
        let ids = self.queued(n).await;
        let claims = self.ours.jobs.claim(&ids, self.worker, self.now(), LEASE).await.unwrap();
        claims.into_iter().map(|c| if let Claim::Won { job, .. } = c { *job } else { panic!("{c:?}") }).collect()
    }

    async fn raw(&self, collection: &str) -> Collection<Document> {
        let client = mongodb::Client::with_uri_str(&self.url).await.unwrap();
        client.default_database().unwrap().collection(collection)
    }

    fn success(&self, job: &Job) -> Finish {
        finish(job, Verdict::Succeed(None), attempt(job, self.now(), AttemptOutcome::Succeeded, None))
    }

    async fn void(&self) -> Vec<State> {
        let which = Void::Expired(self.now());
        let moved = self.theirs.jobs.void(&which, self.now(), 3, 100, &Listened::default()).await.unwrap();
        moved.into_iter().map(|m| m.state).collect()
    }
}

fn uuid(job: JobId) -> bson::Uuid {
    bson::Uuid::from_bytes(job.0.into_bytes())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_success_is_the_only_update_of_its_job() {
    let t = Two::new().await;
    let jobs = t.running(20).await;
    let (raw, leases) = (t.raw("jobs").await, t.raw("leases").await);
    assert_eq!(raw.count_documents(doc! { "state": 1 }).await.unwrap(), 20, "the claim did not touch them");
    assert_eq!(leases.count_documents(doc! {}).await.unwrap(), 1);
    let ends = t.ours.jobs.finish(jobs.iter().map(|j| t.success(j)).collect()).await.unwrap();
    assert_eq!(ends, vec![Finished::Now(State::Succeeded); 20]);
    assert_eq!(raw.count_documents(doc! { "state": 3, "fence": 1, "claim": null }).await.unwrap(), 20);
    crate::support::wait_until("the lease is gone", async || leases.count_documents(doc! {}).await.unwrap() == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn others_see_it_run() {
    let t = Two::new().await;
    let (jobs, waits) = (t.running(3).await, t.queued(1).await[0]);
    for job in &jobs {
        let seen = t.theirs.jobs.get(job.id).await.unwrap().unwrap();
        assert_eq!((seen.state, seen.fence, seen.worker), (State::Running, 1, Some(t.worker)));
        assert_eq!((seen.started_at, seen.at), (Some(t.now()), t.now().plus(LEASE)));
    }
    let [of_all] = &t.theirs.fleet.queues().await.unwrap()[..] else { panic!("one queue") };
    assert_eq!((of_all.counts.queued, of_all.counts.running), (1, 3));
    t.clock.advance(Duration::from_secs(1));
    let waiting = t.theirs.jobs.waiting(&queue("default"), t.now(), None, 2).await.unwrap();
    assert_eq!(waiting.iter().map(|w| w.id).collect::<Vec<_>>(), [waits]);
    for (state, n) in [(None, 4), (Some(State::Queued), 1), (Some(State::Running), 3)] {
        let filter = JobFilter { state, ..JobFilter::default() };
        let page = t.theirs.jobs.list(&filter, PageRequest { limit: 10, after: None }).await.unwrap();
        let as_asked = page.data.iter().filter(|j| state.is_none_or(|s| s == j.state)).count();
        assert_eq!((page.data.len(), as_asked), (n, n), "{state:?}");
    }
    // The list of what runs has written the leases out; whoever holds them does not mind.
    assert_eq!(t.raw("jobs").await.count_documents(doc! { "state": 2 }).await.unwrap(), 3);
    let ends = t.ours.jobs.finish(jobs.iter().map(|j| t.success(j)).collect()).await.unwrap();
    assert_eq!(ends, vec![Finished::Now(State::Succeeded); 3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn others_renew_it_note_its_progress_and_end_it() {
    let t = Two::new().await;
    let jobs = t.running(3).await;
    let held: Vec<(JobId, u64)> = jobs.iter().map(|j| (j.id, j.fence)).collect();
    let some = Progress { current: 1, total: 2, message: None, partial: None };
    t.theirs.jobs.progress(vec![(held[0].0, 1, some.clone())]).await.unwrap();
    assert_eq!(t.ours.jobs.get(held[0].0).await.unwrap().unwrap().progress, Some(some));
    let renewed = t.theirs.jobs.renew(&held[..2], t.now().plus(LEASE * 2)).await.unwrap();
    assert_eq!(renewed, vec![Renewal::Held { cancel_requested: false }; 2]);
    let ends = t.theirs.jobs.finish(vec![t.success(&jobs[0]), t.success(&jobs[2])]).await.unwrap();
    assert_eq!(ends, vec![Finished::Now(State::Succeeded); 2]);
    // Only the one that was not ended and not renewed would have been void.
    t.clock.advance(LEASE);
    assert_eq!(t.void().await, []);
    assert_eq!(t.ours.jobs.finish(vec![t.success(&jobs[0])]).await.unwrap(), [Finished::LeaseLost]);
    assert_eq!(t.ours.jobs.finish(vec![t.success(&jobs[1])]).await.unwrap(), [Finished::Now(State::Succeeded)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn others_cancel_it_and_do_not_purge_it() {
    let t = Two::new().await;
    let jobs = t.running(2).await;
    let waits = t.queued(1).await[0];
    assert_eq!(t.theirs.jobs.purge(&queue("default"), t.now(), 1).await.unwrap(), 1);
    assert_eq!(t.ours.jobs.get(waits).await.unwrap().unwrap().state, State::Cancelled);
    assert_eq!(t.theirs.jobs.purge(&queue("default"), t.now(), 1).await.unwrap(), 0);
    assert_eq!(t.theirs.jobs.cancel(&[jobs[0].id], t.now()).await.unwrap(), [Cancelled::Requested]);
    let held: Vec<(JobId, u64)> = jobs.iter().map(|j| (j.id, j.fence)).collect();
    let renewed = t.ours.jobs.renew(&held, t.now().plus(LEASE)).await.unwrap();
    let asked = |cancel_requested| Renewal::Held { cancel_requested };
    assert_eq!(renewed, [asked(true), asked(false)]);
}

/// Batches are claimed while their jobs are cancelled: a job that was cancelled never starts, and the worker of one that
/// started hears of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_of_batches_and_cancels_race() {
    let t = Two::new().await;
    let ids = t.queued(200).await;
    let (theirs, now, all) = (t.theirs.clone(), t.now(), ids.clone());
    let cancels = tokio::spawn(async move {
        let mut answers = Vec::new();
        for some in all.chunks(7) {
            answers.extend(theirs.jobs.cancel(some, now).await.unwrap());
        }
        answers
    });
    let mut claims = Vec::new();
    for some in ids.rchunks(9) {
        let answers = t.ours.jobs.claim(some, t.worker, t.now(), LEASE).await.unwrap();
        claims.extend(some.iter().copied().zip(answers));
    }
    let answers = cancels.await.unwrap();
    let mut started = 0;
    for (id, claim) in claims {
        let answer = answers[ids.iter().position(|i| *i == id).unwrap()];
        let state = t.ours.jobs.get(id).await.unwrap().unwrap().state;
        match claim {
            Claim::Won { job, .. } => {
                assert_eq!((answer, state), (Cancelled::Requested, State::Running));
                let renewed = t.ours.jobs.renew(&[(id, job.fence)], t.now().plus(LEASE)).await.unwrap();
                assert_eq!(renewed, [Renewal::Held { cancel_requested: true }]);
                started += 1;
            }
            _ => assert_eq!((answer, state), (Cancelled::Now, State::Cancelled)),
        }
    }
    assert!(started < 200, "some were cancelled first");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_racing_batches_each_job_is_won_once() {
    let t = Two::new().await;
    let ids = t.queued(300).await;
    let mut calls = tokio::task::JoinSet::new();
    for n in 0..6 {
        let (stores, clock) = (if n % 2 == 0 { t.ours.clone() } else { t.theirs.clone() }, t.clock.clone());
        let mut ids = ids.clone();
        ids.rotate_left(n * 50);
        calls.spawn(async move {
            let me = worker(&clock);
            let mut won = Vec::new();
            for batch in ids.chunks(n + 5) {
                let claims = stores.jobs.claim(batch, me, clock.now(), LEASE).await.unwrap();
                won.extend(batch.iter().zip(claims).filter(|(_, c)| matches!(c, Claim::Won { .. })).map(|(j, _)| *j));
            }
            won
        });
    }
    let mut won: Vec<JobId> = calls.join_all().await.into_iter().flatten().collect();
    won.sort();
    assert_eq!(won, ids);
}

/// The process died after it had written the job out, before the lease let go of it; then the run was void, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_written_out_is_not_written_out_again() {
    let t = Two::new().await;
    let job = t.running(2).await.remove(0);
    let (raw, leases) = (t.raw("jobs").await, t.raw("leases").await);
    let lease = leases.find_one(doc! {}).await.unwrap().unwrap();
    let claim = lease.get_i64("_id").unwrap();
    let set = doc! { "fence": 1_i64, "crashes": 1, "claim": claim };
    raw.update_one(doc! { "_id": uuid(job.id) }, doc! { "$set": set }).await.unwrap();
    let seen = t.theirs.jobs.get(job.id).await.unwrap().unwrap();
    assert_eq!((seen.state, seen.crashes), (State::Queued, 1));
    assert_eq!(t.ours.jobs.finish(vec![t.success(&job)]).await.unwrap(), [Finished::LeaseLost]);
    t.clock.advance(LEASE);
    assert_eq!(t.void().await, [State::Queued], "the other job, and that once");
    assert_eq!(t.void().await, []);
    assert_eq!(leases.count_documents(doc! {}).await.unwrap(), 0);
    let claims = t.theirs.jobs.claim(&[job.id], t.worker, t.now(), LEASE).await.unwrap();
    assert!(matches!(&claims[..], [Claim::Won { job, .. }] if job.fence == 2 && job.crashes == 1), "{claims:?}");
}

/// The process died after it had flagged the job, before it had cancelled it: nobody starts it, and the pass that looks for
/// lost wake-ups cancels it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_that_was_begun_is_ended_by_the_pass() {
    let t = Two::new().await;
    for n in [1, 3] {
        let ids = t.queued(n).await;
        let flag = doc! { "$set": { "cancel": true } };
        t.raw("jobs").await.update_one(doc! { "_id": uuid(ids[0]) }, flag).await.unwrap();
        let claims = t.ours.jobs.claim(&ids, t.worker, t.now(), LEASE).await.unwrap();
        assert!(matches!(claims[0], Claim::Gone));
        assert!(claims[1..].iter().all(|c| matches!(c, Claim::Won { .. })), "{claims:?}");
        t.clock.advance(Duration::from_secs(1));
        assert_eq!(t.theirs.jobs.waiting(&queue("default"), t.now(), None, 10).await.unwrap(), []);
        assert_eq!(t.theirs.jobs.get(ids[0]).await.unwrap().unwrap().state, State::Cancelled);
    }
}

/// An older process claims by updating the job, and knows nothing of leases.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_of_an_older_version_is_not_ended_by_ours() {
    let t = Two::new().await;
    let job = t.running(2).await.remove(0);
    let other = worker(&t.clock);
    let set = doc! {
        "state": 2, "fence": 1_i64, "claim": 42_i64, "worker": bson::Uuid::from_bytes(other.0.into_bytes()),
        "started": bson::DateTime::from_millis(t.now().as_millis()), "lease": bson::DateTime::from_millis(t.now().plus(LEASE).as_millis()),
    };
    t.raw("jobs").await.update_one(doc! { "_id": uuid(job.id) }, doc! { "$set": set }).await.unwrap();
    assert_eq!(t.ours.jobs.finish(vec![t.success(&job)]).await.unwrap(), [Finished::LeaseLost]);
    let mut theirs = job.clone();
    theirs.worker = Some(other);
    assert_eq!(t.theirs.jobs.finish(vec![t.success(&theirs)]).await.unwrap(), [Finished::Now(State::Succeeded)]);
    assert_eq!(t.ours.jobs.get(job.id).await.unwrap().unwrap().worker, Some(other));
    assert!(matches!(
        t.raw("jobs").await.find_one(doc! { "_id": uuid(job.id) }).await.unwrap().unwrap().get("fence"),
        Some(Bson::Int64(1))
    ));
}
