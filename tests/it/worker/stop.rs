//! Stopping: drain, abort, grace, `max_jobs`.

use app::jobs::{model::AttemptOutcome, state::State};
use serde_json::json;

use crate::support::{app::TestApp, wait_until};

#[tokio::test]
async fn a_drain_lets_running_jobs_finish_and_starts_no_more() {
    let t = TestApp::new(&[("worker.concurrency", "1")]);
    let w = t.start_worker();
    let running = t.submit(json!([[{"await": t.file("go")}, {"ok": 1}]])).await;
    t.runs(running, 1).await;
    let waiting = t.submit(json!([[{"ok": 1}]])).await;
    w.shutdown.drain.cancel();
    wait_until("the worker says that it drains", async || {
        t.app.jobs.workers().await.unwrap().iter().any(|w| w.draining)
    })
    .await;
    assert!(!w.has_ended(), "it waits for what runs");
    assert_eq!(t.get(running).await.state, State::Running);
    t.touch("go");
    w.ended().await;
    let job = t.get(running).await;
    assert_eq!((job.state, job.fence), (State::Succeeded, 1));
    let job = t.get(waiting).await;
    assert_eq!((job.state, job.fence), (State::Queued, 0));
    // Its wake-up was not lost with the worker.
    let next = t.start_worker();
    t.reaches(waiting, State::Succeeded).await;
    t.stop(next).await;
}

#[tokio::test]
async fn an_abort_gives_back_without_spending_an_attempt() {
    let t = TestApp::new(&[]);
    let w = t.start_worker();
    let (a, b) = (json!([["await_stop"], [{"ok": 1}]]), json!([[{"spin": 60_000}], [{"ok": 2}]]));
    let ids = [t.submit_with(a, |s| s.max_attempts = Some(1)).await, t.submit(b).await];
    for id in ids {
        t.runs(id, 1).await;
    }
    w.shutdown.drain.cancel();
    w.shutdown.abort.cancel();
    w.ended().await;
    for id in ids {
        let job = t.get(id).await;
        assert_eq!((job.state, job.failures, job.crashes), (State::Queued, 0, 0));
        assert_eq!(job.attempts[0].outcome, AttemptOutcome::Released);
    }
    // The next worker is woken for them at once: no scheduler runs here.
    let next = t.start_worker();
    for id in ids {
        assert_eq!(t.reaches(id, State::Succeeded).await.fence, 2);
    }
    t.stop(next).await;
}

#[tokio::test]
async fn what_outlasts_the_grace_is_given_back() {
    let t = TestApp::new(&[("worker.shutdown_grace", "20ms")]);
    let w = t.start_worker();
    let id = t.submit(json!([["await_stop"]])).await;
    t.runs(id, 1).await;
    w.drained().await;
    let job = t.get(id).await;
    assert_eq!((job.state, job.failures), (State::Queued, 0));
    assert_eq!(job.attempts[0].outcome, AttemptOutcome::Released);
}

#[tokio::test]
async fn a_cancelled_job_is_not_given_back() {
    let t = TestApp::new(&[("jobs.renew_every", "10m"), ("jobs.lease", "1h")]);
    let w = t.start_worker();
    let id = t.submit(json!([["await_stop"]])).await;
    t.runs(id, 1).await;
    // The worker has not heard of the cancel when it is told to stop.
    t.app.stores.jobs.cancel(&[id], t.app.clock.now()).await.unwrap();
    w.shutdown.drain.cancel();
    w.shutdown.abort.cancel();
    w.ended().await;
    assert_eq!(t.get(id).await.state, State::Cancelled);
}

#[tokio::test]
async fn a_worker_stops_after_its_max_jobs() {
    for slots in ["1", "4"] {
        let t = TestApp::new(&[("worker.max_jobs", "3"), ("worker.concurrency", slots)]);
        let mut ids = Vec::new();
        for _ in 0..5 {
            ids.push(t.submit(json!([[{"append": t.file("log")}, {"ok": 1}]])).await);
        }
        t.start_worker().ended().await;
        assert_eq!(t.appended("log").len(), 3, "with {slots} slots");
        for (n, id) in ids.iter().enumerate() {
            let expected = if n < 3 { State::Succeeded } else { State::Queued };
            assert_eq!(t.get(*id).await.state, expected);
        }
        let next = t.start_worker();
        for id in &ids[3..] {
            t.reaches(*id, State::Succeeded).await;
        }
        t.stop(next).await;
    }
}
