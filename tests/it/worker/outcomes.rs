//! How runs end, and what becomes of their jobs.

use std::{sync::Arc, time::Duration};

use app::{
    base::{backoff::Backoff, shutdown::Shutdown},
    jobs::{
        model::{AttemptOutcome as O, Job},
        registry::{Defaults, Registry},
        state::State,
    },
    worker,
};
use serde_json::json;

use crate::support::{app::TestApp, eventually, jobs::queue, within};

fn outcomes(job: &Job) -> Vec<O> {
    job.attempts.iter().map(|a| a.outcome).collect()
}

fn code(job: &Job) -> &str {
    job.error.as_ref().map_or("-", |e| e.code.as_str())
}

#[tokio::test]
async fn success() {
    let (t, w) = TestApp::running(&[]);
    let id = t.submit(json!([[{"ok": {"answer": 42}}]])).await;
    let job = t.reaches(id, State::Succeeded).await;
    assert_eq!(job.result.as_deref().map(|r| r.get()), Some("{\"answer\":42}"));
    assert_eq!((outcomes(&job), job.failures, job.error.is_none()), (vec![O::Succeeded], 0, true));
    let run = &job.attempts[0];
    assert!(Some(run.worker) == job.worker && run.started_at <= run.finished_at);
    t.stop(w).await;
}

#[tokio::test]
async fn an_error_is_retried_until_it_works() {
    let (t, w) = TestApp::running(&[]);
    let id = t.submit(json!([[{"error": "one"}], [{"error": "two"}], [{"ok": 1}]])).await;
    let job = t.reaches(id, State::Succeeded).await;
    assert_eq!(outcomes(&job), [O::Failed, O::Failed, O::Succeeded]);
    assert_eq!((job.failures, job.attempt()), (2, 3));
    for (n, run) in job.attempts[..2].iter().enumerate() {
        let wait = run.retry_at.unwrap().since(run.finished_at);
        assert!(wait <= job.spec.backoff.ceiling(u32::try_from(n).unwrap()), "waits longer than its backoff");
        assert!(job.attempts[n + 1].started_at >= run.retry_at.unwrap(), "started before its time");
    }
    t.stop(w).await;
}

#[tokio::test]
async fn the_last_attempt_makes_a_dead_letter() {
    let (t, w) = TestApp::running(&[]);
    let id = t.submit_with(json!([[{"error": "no"}]]), |s| s.max_attempts = Some(3)).await;
    let job = t.reaches(id, State::Failed).await;
    assert_eq!((outcomes(&job), job.failures), (vec![O::Failed; 3], 3));
    assert_eq!((code(&job), job.attempts[2].retry_at), ("scripted", None));
    t.stop(w).await;
}

#[tokio::test]
async fn a_permanent_error_is_not_retried() {
    let (t, w) = TestApp::running(&[]);
    let id = t.submit(json!([[{"permanent": "never"}], [{"ok": 1}]])).await;
    let job = t.reaches(id, State::Failed).await;
    assert_eq!((outcomes(&job), code(&job)), (vec![O::Failed], "scripted"));
    t.stop(w).await;
}

#[tokio::test]
async fn a_time_out_is_a_failed_attempt() {
    let (t, w) = TestApp::running(&[]);
    // A handler that waits, and one that burns a thread.
    for step in [json!("await_stop"), json!({"spin": 60_000})] {
        let runs = json!([[step], [step], [{"ok": 1}]]);
        let id = t.submit_with(runs, |s| s.timeout = Some(Duration::from_millis(30))).await;
        let job = t.reaches(id, State::Succeeded).await;
        assert_eq!(outcomes(&job), [O::TimedOut, O::TimedOut, O::Succeeded]);
        assert_eq!(job.failures, 2);
        assert_eq!(job.attempts[0].error.as_ref().unwrap().code, "timed_out");
    }
    let short = |s: &mut app::jobs::service::Submit| {
        s.timeout = Some(Duration::from_millis(30));
        s.max_attempts = Some(1);
    };
    let id = t.submit_with(json!([["await_stop"]]), short).await;
    assert_eq!(code(&t.reaches(id, State::Failed).await), "timed_out");
    t.stop(w).await;
}

#[tokio::test]
async fn a_snooze_spends_no_attempt() {
    let (t, w) = TestApp::running(&[]);
    let runs = json!([[{"snooze": 1}], [{"snooze": 0}], [{"snooze": 5}], [{"ok": 1}]]);
    let id = t.submit_with(runs, |s| s.max_attempts = Some(1)).await;
    let job = t.reaches(id, State::Succeeded).await;
    assert_eq!(outcomes(&job), [O::Snoozed, O::Snoozed, O::Snoozed, O::Succeeded]);
    assert_eq!((job.failures, job.attempt(), job.fence), (0, 1, 4));
    t.stop(w).await;
}

#[tokio::test]
async fn a_postponement_spends_no_attempt_and_says_why() {
    let (t, w) = TestApp::running(&[]);
    let id = t.submit_with(json!([[{"postpone": ["not yet", 5]}], [{"ok": 1}]]), |s| s.max_attempts = Some(1)).await;
    let job = t.reaches(id, State::Succeeded).await;
    assert_eq!((outcomes(&job), job.failures), (vec![O::Snoozed, O::Succeeded], 0));
    assert_eq!(job.attempts[0].error.as_ref().map(|e| e.message.as_str()), Some("not yet"));
    t.stop(w).await;
}

#[tokio::test]
async fn a_handler_says_when_to_try_again() {
    let (t, w) = TestApp::running(&[]);
    let id = t.submit(json!([[{"error_until": ["busy", 3_600_000]}]])).await;
    let job = t.reaches(id, State::Scheduled).await;
    let attempt = &job.attempts[0];
    assert_eq!(attempt.retry_at.unwrap().since(attempt.finished_at).as_secs(), 3600, "not the usual back-off");
    assert_eq!((job.failures, code(&job)), (1, "scripted"));
    t.stop(w).await;
}

#[tokio::test]
async fn a_panic_is_isolated() {
    let (t, w) = TestApp::running(&[("worker.concurrency", "1")]);
    let id = t.submit(json!([[{"panic": "ouch"}], [{"ok": 1}]])).await;
    let other = t.submit(json!([[{"ok": 1}]])).await;
    t.reaches(other, State::Succeeded).await;
    let job = t.reaches(id, State::Succeeded).await;
    assert_eq!((outcomes(&job), job.failures), (vec![O::Panicked, O::Succeeded], 1));
    assert!(job.attempts[0].error.as_ref().unwrap().message.contains("ouch"));
    let id = t.submit_with(json!([[{"panic": "ouch"}]]), |s| s.max_attempts = Some(1)).await;
    assert_eq!(code(&t.reaches(id, State::Failed).await), "panicked");
    t.stop(w).await;
}

#[tokio::test]
async fn a_handler_may_cancel_its_job() {
    let (t, w) = TestApp::running(&[]);
    let id = t.submit(json!([["cancel"]])).await;
    let job = t.reaches(id, State::Cancelled).await;
    assert_eq!((outcomes(&job), job.failures, job.cancel_requested), (vec![O::Cancelled], 0, false));
    t.stop(w).await;
}

#[tokio::test]
async fn a_result_over_the_limit_fails_for_good() {
    let (t, w) = TestApp::running(&[("jobs.max_result", "1KiB")]);
    // With its quotes: as large as allowed, and a byte more.
    let fits = t.submit(json!([[{"big": 1022}]])).await;
    let over = t.submit(json!([[{"big": 1023}], [{"ok": 1}]])).await;
    assert_eq!(t.reaches(fits, State::Succeeded).await.result.unwrap().get().len(), 1024);
    let job = t.reaches(over, State::Failed).await;
    assert_eq!((outcomes(&job), code(&job), job.result.is_none()), (vec![O::Failed], "result_too_large", true));
    t.stop(w).await;
}

/// As during a rolling update.
#[tokio::test]
async fn a_kind_that_a_worker_does_not_know_waits_for_one_that_does() {
    let mut t = TestApp::new(&[("jobs.max_attempts", "1")]);
    t.start_scheduler();
    let (deps, options) = t.app.worker();
    let nothing = Defaults {
        queue: queue("default"),
        max_attempts: 1,
        backoff: Backoff { base_ms: 1, cap_ms: 1 },
        timeout: Duration::from_secs(60),
    };
    let old = worker::Deps { registry: Arc::new(Registry::new(nothing)), ..deps };
    let shutdown = Shutdown::new();
    let task = tokio::spawn(worker::run(old, options, shutdown.clone()));
    let ids = [t.submit(json!([[{"ok": 1}]])).await, t.submit(json!([[{"ok": 2}]])).await];
    for id in ids {
        let job = eventually("the old worker has put it off", async || {
            let job = t.get(id).await;
            (!job.attempts.is_empty() && job.state != State::Running).then_some(job)
        })
        .await;
        assert_eq!((outcomes(&job)[0], job.failures, job.crashes), (O::Snoozed, 0, 0));
        let why = job.attempts[0].error.as_ref().unwrap();
        assert!(why.code == "unknown_kind" && why.message.contains("`test.script`"), "{why:?}");
    }
    let new = t.start_worker();
    for id in ids {
        let job = t.reaches(id, State::Succeeded).await;
        assert_eq!(job.failures, 0, "it cost no attempt: {job:?}");
    }
    shutdown.drain.cancel();
    within("the old worker stops", task).await.unwrap();
    t.stop(new).await;
}

#[tokio::test]
async fn progress_is_seen_while_it_runs_and_kept() {
    let (t, w) = TestApp::running(&[]);
    let steps = json!([{"progress": [3, 10]}, {"await": t.file("go")}, {"progress": [10, 10]}, {"permanent": "x"}]);
    let id = t.submit(json!([steps])).await;
    let seen = eventually("progress", async || {
        let job = t.get(id).await;
        job.progress.map(|p| (job.state, p.current, p.total))
    })
    .await;
    assert_eq!(seen, (State::Running, 3, 10));
    t.touch("go");
    let last = t.reaches(id, State::Failed).await.progress.unwrap();
    assert_eq!((last.current, last.percent()), (10, 100.0));
    t.stop(w).await;
}

#[tokio::test]
async fn a_delayed_job_starts_at_its_time() {
    let (t, w) = TestApp::running(&[]);
    let id = t.submit_with(json!([[{"ok": 1}]]), |s| s.delay = Some(Duration::from_millis(40))).await;
    let submitted = t.get(id).await;
    let due = submitted.run_at().unwrap_or(submitted.created_at);
    let job = t.reaches(id, State::Succeeded).await;
    assert!(job.attempts[0].started_at >= due, "started before its time");
    t.stop(w).await;
}
