//! Cancel, pause, and what the fleet is told.

use app::{
    base::shutdown::Shutdown,
    jobs::{authority::Authority, state::State},
};
use serde_json::json;

use crate::support::{
    app::{FAR, TestApp},
    eventually,
    jobs::queue,
    wait_until,
};

#[tokio::test]
async fn a_cancelled_queued_job_never_starts() {
    let t = TestApp::new(&[("worker.concurrency", "1")]);
    let log = t.file("log");
    let cancelled = t.submit(json!([[{"append": log}]])).await;
    let (job, still_running) = t.app.jobs.cancel(cancelled, Authority::PROGRAM).await.unwrap();
    assert_eq!((job.state, still_running), (State::Cancelled, false));
    let next = t.submit(json!([[{"append": log}]])).await;
    let w = t.start_worker();
    t.reaches(next, State::Succeeded).await;
    assert_eq!(t.appended("log"), [next]);
    assert_eq!(t.get(cancelled).await.fence, 0);
    t.stop(w).await;
}

#[tokio::test]
async fn a_cancelled_scheduled_job_never_starts() {
    let (t, w) = TestApp::running(&[]);
    let id = t.submit_with(json!([[{"ok": 1}]]), |s| s.delay = Some(FAR)).await;
    assert_eq!(t.get(id).await.state, State::Scheduled);
    let (job, still_running) = t.app.jobs.cancel(id, Authority::PROGRAM).await.unwrap();
    assert_eq!((job.state, still_running, job.fence), (State::Cancelled, false, 0));
    t.app.jobs.cancel(id, Authority::PROGRAM).await.unwrap_err();
    t.stop(w).await;
}

#[tokio::test]
async fn a_running_job_is_cancelled() {
    let (t, w) = TestApp::running(&[]);
    // One that waits and one that burns a thread; each is told at once by broadcast.
    for step in [json!("await_stop"), json!({"spin": 60_000})] {
        let id = t.submit(json!([[step]])).await;
        t.runs(id, 1).await;
        let (_, still_running) = t.app.jobs.cancel(id, Authority::PROGRAM).await.unwrap();
        assert!(still_running);
        let job = t.reaches(id, State::Cancelled).await;
        assert_eq!((job.attempts.len(), job.failures), (1, 0));
    }
    t.stop(w).await;
}

#[tokio::test]
async fn a_cancel_whose_broadcast_is_lost_comes_with_the_renewal() {
    let (t, w) = TestApp::running(&[]);
    let id = t.submit(json!([["await_stop"]])).await;
    t.runs(id, 1).await;
    // The store alone is told.
    t.app.stores.jobs.cancel(&[id], t.app.clock.now()).await.unwrap();
    t.reaches(id, State::Cancelled).await;
    t.stop(w).await;
}

#[tokio::test]
async fn work_that_got_done_all_the_same_is_done() {
    let (t, w) = TestApp::running(&[]);
    let id = t.submit(json!([[{"deaf": 300}, {"ok": "done"}]])).await;
    t.runs(id, 1).await;
    t.app.jobs.cancel(id, Authority::PROGRAM).await.unwrap();
    let job = t.reaches(id, State::Succeeded).await;
    assert_eq!(job.result.unwrap().get(), "\"done\"");
    t.stop(w).await;
}

#[tokio::test]
async fn a_cancelled_job_is_not_retried() {
    let (t, w) = TestApp::running(&[]);
    let id = t.submit(json!([[{"await": t.file("go")}, {"error": "x"}], [{"ok": 1}]])).await;
    t.runs(id, 1).await;
    t.app.jobs.cancel(id, Authority::PROGRAM).await.unwrap();
    t.touch("go");
    let job = t.reaches(id, State::Cancelled).await;
    assert_eq!(job.fence, 1);
    t.stop(w).await;
}

#[tokio::test]
async fn a_pause_stops_new_starts_only() {
    let (t, w) = TestApp::running(&[]);
    let log = t.file("log");
    let running = t.submit_to("a", json!([[{"await": t.file("go")}, {"append": log}]])).await;
    t.runs(running, 1).await;
    t.app.jobs.set_paused(&queue("a"), true).await.unwrap();
    let held = t.submit_to("a", json!([[{"append": log}]])).await;
    t.touch("go");
    t.reaches(running, State::Succeeded).await;
    // Other queues go on, and each of these would have been a chance for the held one.
    for _ in 0..10 {
        let other = t.submit_to("b", json!([[{"ok": 1}]])).await;
        t.reaches(other, State::Succeeded).await;
    }
    let job = t.get(held).await;
    assert_eq!((job.state, job.fence), (State::Queued, 0));
    t.app.jobs.set_paused(&queue("a"), false).await.unwrap();
    t.reaches(held, State::Succeeded).await;
    assert_eq!(t.appended("log"), [running, held]);
    t.stop(w).await;
}

#[tokio::test]
async fn a_queue_that_was_paused_before_the_start_is_held() {
    let (t, w) = TestApp::running(&[]);
    t.app.stores.fleet.set_paused(&queue("a"), true).await.unwrap();
    let held = t.submit_to("a", json!([[{"ok": 1}]])).await;
    let other = t.submit_to("b", json!([[{"ok": 1}]])).await;
    t.reaches(other, State::Succeeded).await;
    assert_eq!(t.get(held).await.state, State::Queued);
    // The store alone is told; the worker reads it with its heartbeat.
    t.app.stores.fleet.set_paused(&queue("a"), false).await.unwrap();
    t.reaches(held, State::Succeeded).await;
    t.stop(w).await;
}

#[tokio::test]
async fn a_purged_queue_is_empty_and_goes_on() {
    let t = TestApp::new(&[]);
    let log = t.file("log");
    for _ in 0..5 {
        t.submit_to("a", json!([[{"append": log}]])).await;
    }
    assert_eq!(t.app.jobs.purge(&queue("a"), Authority::PROGRAM).await.unwrap(), 5);
    assert_eq!(t.app.broker.depth(&queue("a")).await.unwrap(), 0);
    let w = t.start_worker();
    let id = t.submit_to("a", json!([[{"append": log}]])).await;
    t.reaches(id, State::Succeeded).await;
    assert_eq!(t.appended("log"), [id]);
    t.stop(w).await;
}

#[tokio::test]
async fn a_worker_reports_itself_and_signs_off() {
    let (t, w) = TestApp::running(&[]);
    let id = t.submit_to("b", json!([[{"await": t.file("go")}]])).await;
    let report = eventually("a report with the job", async || {
        let workers = t.app.jobs.workers().await.unwrap();
        workers.into_iter().find(|w| w.busy == 1)
    })
    .await;
    assert_eq!((report.slots, report.active[0].job_id, report.draining), (2, id, false));
    assert_eq!(report.queues.iter().map(|(q, _)| q.as_str()).collect::<Vec<_>>(), ["default", "a", "b"]);
    let pongs = t.app.jobs.ping(FAR).await.unwrap();
    assert!(pongs.len() == 1 && pongs[0].after.is_some(), "{pongs:?}");
    t.touch("go");
    let (fleet, shutdown): (_, Shutdown) = (t.app.stores.fleet.clone(), w.shutdown.clone());
    t.stop(w).await;
    assert!(shutdown.drain.is_cancelled());
    wait_until("the worker is gone", async || fleet.workers().await.unwrap().is_empty()).await;
}
