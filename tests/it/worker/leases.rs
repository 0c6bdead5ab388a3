//! Jobs that lose their worker or their wake-up, and workers that lose their jobs.

use app::jobs::{announce::Listened, authority::Authority};
use std::time::Duration;

use app::{
    base::id::{JobId, WorkerId},
    jobs::{
        model::AttemptOutcome,
        state::State,
        store::{Claim, Moved, Void},
    },
    scheduler,
};
use serde_json::json;

use crate::support::{
    app::{FAR, TestApp},
    jobs::{queue, text},
};

/// Takes every running job from its worker, as a scheduler would that holds it for dead.
async fn take(t: &TestApp) -> Vec<Moved> {
    let void = Void::NotOwnedBy(Vec::new());
    t.app
        .stores
        .jobs
        .void(&void, t.app.clock.now(), t.app.config.jobs.crash_limit, 100, &Listened::default())
        .await
        .unwrap()
}

async fn wake(t: &TestApp, id: JobId) {
    let job = t.get(id).await;
    t.app.jobs.wake(&[app::broker::wake_up(job.id, &job.queue, job.priority)]).await;
}

/// Claims a job for a worker that dies with it.
async fn claim_and_die(t: &TestApp, id: JobId, lease: Duration) {
    let dead = WorkerId(t.app.clock.new_uuid());
    let claims = t.app.stores.jobs.claim(&[id], dead, t.app.clock.now(), lease).await.unwrap();
    assert!(matches!(claims[..], [Claim::Won { .. }]), "{claims:?}");
}

#[tokio::test]
async fn a_stolen_lease_stops_the_run_and_writes_nothing() {
    let t = TestApp::new(&[("worker.concurrency", "1")]);
    let w = t.start_worker();
    let id = t.submit(json!([[{"progress": [1, 2]}, "await_stop"]])).await;
    t.runs(id, 1).await;
    take(&t).await;
    let stolen = t.get(id).await;
    assert_eq!((stolen.state, stolen.crashes), (State::Queued, 1));
    // The only slot comes free because the worker hears of its loss.
    let other = t.submit(json!([[{"ok": 1}]])).await;
    t.reaches(other, State::Succeeded).await;
    let mut after = t.get(id).await;
    // What it noted before it lost the job may have been stored then.
    after.progress.clone_from(&stolen.progress);
    assert_eq!(text(&after), text(&stolen));
    t.stop(w).await;
}

#[tokio::test]
async fn a_worker_that_takes_back_its_lost_job_stops_the_old_run() {
    let t = TestApp::new(&[]);
    let w = t.start_worker();
    let id = t.submit(json!([["await_stop"], [{"ok": 2}]])).await;
    t.runs(id, 1).await;
    take(&t).await;
    wake(&t, id).await;
    let job = t.reaches(id, State::Succeeded).await;
    assert_eq!((job.fence, job.attempts.len(), job.attempts[0].outcome), (2, 2, AttemptOutcome::Lost));
    // The drain has an hour of patience; it ends because the old run was stopped.
    t.stop(w).await;
}

#[tokio::test]
async fn a_job_that_takes_its_workers_with_it_is_poison() {
    let t = TestApp::new(&[]);
    let w = t.start_worker();
    let id = t.submit(json!([["await_stop"]])).await;
    for crash in 1..=3 {
        t.runs(id, crash).await;
        let moved = take(&t).await;
        let expected = [State::Queued, State::Scheduled, State::Failed][crash as usize - 1];
        assert_eq!(moved.iter().map(|m| m.state).collect::<Vec<_>>(), [expected]);
        t.app.stores.jobs.due(t.get(id).await.at, 1).await.unwrap();
        wake(&t, id).await;
    }
    let job = t.get(id).await;
    assert_eq!((job.state, job.crashes, job.failures), (State::Failed, 3, 0));
    assert_eq!(job.error.map(|e| e.code).as_deref(), Some("crash_limit"));
    t.stop(w).await;
    assert_eq!(job.attempts.len(), 3);
}

#[tokio::test]
async fn the_scheduler_takes_jobs_from_the_dead() {
    let (t, w) = {
        let mut t = TestApp::new(&[]);
        let id = t.submit(json!([[{"ok": 1}]])).await;
        claim_and_die(&t, id, Duration::from_millis(1)).await;
        t.start_scheduler();
        let w = t.start_worker();
        let job = t.reaches(id, State::Succeeded).await;
        assert_eq!((job.crashes, job.fence, job.failures), (1, 2, 0));
        assert_eq!(job.attempts[0].outcome, AttemptOutcome::Lost);
        (t, w)
    };
    t.stop(w).await;
}

#[tokio::test]
async fn a_living_worker_keeps_its_job_beyond_the_lease() {
    let (t, w) = TestApp::running(&[("jobs.lease", "1s"), ("jobs.renew_every", "50ms")]);
    let id = t.submit(json!([[{"sleep": 2500}, {"ok": 1}]])).await;
    let job = t.reaches(id, State::Succeeded).await;
    assert_eq!((job.fence, job.crashes), (1, 0));
    t.stop(w).await;
}

#[tokio::test]
async fn a_start_recovers_what_the_process_before_it_left() {
    let t = TestApp::new(&[]);
    let (running, waiting) = (t.submit(json!([[{"ok": 1}]])).await, t.submit(json!([[{"ok": 2}]])).await);
    claim_and_die(&t, running, FAR).await;
    // The broker died with the process.
    t.app.broker.purge(&queue("default")).await.unwrap();
    let (deps, options) = t.app.scheduler();
    scheduler::recover(&deps, &options).await.unwrap();
    let w = t.start_worker();
    assert_eq!(t.reaches(running, State::Succeeded).await.crashes, 1);
    assert_eq!(t.reaches(waiting, State::Succeeded).await.crashes, 0);
    t.stop(w).await;
}

#[tokio::test]
async fn a_lost_wake_up_is_repaired() {
    let mut t = TestApp::new(&[("scheduler.lost_after", "10ms")]);
    let mut ids = Vec::new();
    for q in ["default", "a", "a", "b"] {
        ids.push(t.submit_to(q, json!([[{"append": t.file("log")}]])).await);
    }
    for q in ["default", "a"] {
        assert!(t.app.broker.purge(&queue(q)).await.unwrap() > 0);
    }
    t.start_scheduler();
    let w = t.start_worker();
    for id in &ids {
        assert_eq!(t.reaches(*id, State::Succeeded).await.fence, 1);
    }
    assert_eq!(t.appended("log").len(), 4);
    t.stop(w).await;
}

#[tokio::test]
async fn wake_ups_too_many_do_no_harm() {
    let (t, w) = TestApp::running(&[]);
    let id = t.submit(json!([[{"append": t.file("log")}]])).await;
    for _ in 0..20 {
        wake(&t, id).await;
    }
    t.reaches(id, State::Succeeded).await;
    for _ in 0..20 {
        wake(&t, id).await;
    }
    let last = t.submit_with(json!([[{"ok": 1}]]), |s| s.priority = Some(app::base::id::Priority::MIN)).await;
    t.reaches(last, State::Succeeded).await;
    assert_eq!(t.appended("log"), [id]);
    t.stop(w).await;
}

#[tokio::test]
async fn a_retried_dead_letter_runs_again() {
    let (t, w) = TestApp::running(&[]);
    let id = t.submit(json!([[{"permanent": "x"}], [{"ok": 1}]])).await;
    t.reaches(id, State::Failed).await;
    t.app.jobs.retry(id, Authority::PROGRAM).await.unwrap();
    let job = t.reaches(id, State::Succeeded).await;
    assert_eq!((job.fence, job.failures, job.attempts.len()), (2, 0, 2));
    t.stop(w).await;
}
