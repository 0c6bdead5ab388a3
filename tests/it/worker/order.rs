//! What starts first: priorities, weights, strict queues; and nobody holds what it does not start.

use std::collections::BTreeSet;

use app::{
    base::id::JobId,
    jobs::{model::AttemptOutcome, state::State},
};
use serde_json::json;

use crate::support::{
    app::{TestApp, TestWorker},
    eventually,
    jobs::{priority, queue},
};

const ONE_SLOT: (&str, &str) = ("worker.concurrency", "1");

/// A worker whose one slot is taken until `go` is touched.
async fn blocked(t: &TestApp) -> TestWorker {
    let w = t.start_worker();
    let id = t.submit(json!([[{"await": t.file("go")}]])).await;
    t.runs(id, 1).await;
    w
}

async fn appended(t: &TestApp, n: usize) -> Vec<JobId> {
    eventually("all have run", async || Some(t.appended("log")).filter(|l| l.len() == n)).await
}

#[tokio::test]
async fn priority_is_strict_within_a_queue() {
    let t = TestApp::new(&[ONE_SLOT]);
    let w = blocked(&t).await;
    let mut by_priority = Vec::new();
    for (n, p) in [1, 5, 10, 5, 9, 1, 10].into_iter().enumerate() {
        let runs = json!([[{"append": t.file("log")}]]);
        let id = t.submit_with(runs, |s| s.priority = Some(priority(p))).await;
        by_priority.push((-p, n, id));
    }
    t.touch("go");
    by_priority.sort_unstable();
    let expected: Vec<JobId> = by_priority.into_iter().map(|(_, _, id)| id).collect();
    assert_eq!(appended(&t, 7).await, expected);
    t.stop(w).await;
}

#[tokio::test]
async fn queues_share_the_slots_by_weight() {
    let t = TestApp::new(&[ONE_SLOT, ("worker.queues", "default,a:1,b:3")]);
    let w = blocked(&t).await;
    let mut of_b = BTreeSet::new();
    for _ in 0..40 {
        t.submit_to("a", json!([[{"append": t.file("log")}]])).await;
        of_b.insert(t.submit_to("b", json!([[{"append": t.file("log")}]])).await);
    }
    t.touch("go");
    let order = appended(&t, 80).await;
    let b = order[..40].iter().filter(|id| of_b.contains(id)).count();
    assert!((28..=32).contains(&b), "{b} of the first 40 were of the queue with three quarters of the weight");
    t.stop(w).await;
}

#[tokio::test]
async fn strict_queues_are_emptied_in_their_order() {
    let t = TestApp::new(&[ONE_SLOT, ("worker.queues", "default,a,b"), ("worker.strict", "true")]);
    let w = blocked(&t).await;
    let (mut a, mut b) = (Vec::new(), Vec::new());
    for _ in 0..6 {
        b.push(t.submit_to("b", json!([[{"append": t.file("log")}]])).await);
        a.push(t.submit_to("a", json!([[{"append": t.file("log")}]])).await);
    }
    t.touch("go");
    a.extend(b);
    assert_eq!(appended(&t, 12).await, a);
    t.stop(w).await;
}

#[tokio::test]
async fn a_worker_takes_nothing_it_has_no_slot_for() {
    let t = TestApp::new(&[]);
    let w = t.start_worker();
    let mut ids = Vec::new();
    for _ in 0..6 {
        ids.push(t.submit(json!([[{"await": t.file("go")}]])).await);
    }
    t.runs(ids[0], 1).await;
    t.runs(ids[1], 1).await;
    assert_eq!(t.app.broker.depth(&queue("default")).await.unwrap(), 4);
    // Another worker finds them, although the first came first.
    let other = t.start_worker();
    t.runs(ids[2], 1).await;
    t.runs(ids[3], 1).await;
    assert_eq!(t.get(ids[4]).await.state, State::Queued);
    t.touch("go");
    for id in ids {
        t.reaches(id, State::Succeeded).await;
    }
    other.drained().await;
    t.stop(w).await;
}

/// Runs so many quick jobs that the worker claims ahead.
async fn quick(t: &TestApp, n: usize) {
    let mut ids = Vec::new();
    for _ in 0..n {
        ids.push(t.submit(json!([[{"ok": 1}]])).await);
    }
    for id in ids {
        t.reaches(id, State::Succeeded).await;
    }
}

#[tokio::test]
async fn what_a_quick_worker_claimed_ahead_goes_back_when_a_long_job_comes() {
    let t = TestApp::new(&[ONE_SLOT]);
    let w = t.start_worker();
    // On a busy machine even a quick job may take long, and then nothing is claimed ahead.
    for round in 0..20 {
        quick(&t, 200).await;
        let (gate, log) = (format!("gate{round}"), format!("log{round}"));
        let mut ids = Vec::new();
        for _ in 0..4 {
            ids.push(t.submit(json!([[{"append": t.file(&log)}, {"await": t.file(&gate)}]])).await);
        }
        let first = eventually("one runs", async || t.appended(&log).first().copied()).await;
        let looks = tokio::time::Instant::now() + std::time::Duration::from_secs(2);
        let mut given_back = None;
        while given_back.is_none() && tokio::time::Instant::now() < looks {
            for id in ids.iter().filter(|id| **id != first) {
                let job = t.get(*id).await;
                if job.attempts.first().is_some_and(|a| a.outcome == AttemptOutcome::Released) {
                    given_back = Some(*id);
                }
            }
        }
        let Some(given_back) = given_back else {
            t.touch(&gate);
            continue;
        };
        // Its handler never began, here; another worker has it as soon as there is one.
        assert_eq!(t.appended(&log), [first]);
        let other = t.start_worker();
        eventually("another runs", async || (t.appended(&log).len() == 2).then_some(())).await;
        t.touch(&gate);
        for id in &ids {
            let job = t.reaches(*id, State::Succeeded).await;
            assert_eq!((job.failures, job.crashes), (0, 0));
        }
        assert!(t.get(given_back).await.fence > 1);
        assert_eq!(t.appended(&log).into_iter().collect::<BTreeSet<_>>(), ids.iter().copied().collect());
        assert_eq!(t.appended(&log).len(), ids.len());
        other.drained().await;
        t.stop(w).await;
        return;
    }
    panic!("nothing was claimed ahead in twenty rounds");
}

#[tokio::test]
async fn a_quick_worker_runs_no_more_than_its_max_jobs() {
    let t = TestApp::new(&[ONE_SLOT, ("worker.max_jobs", "100")]);
    let mut ids = Vec::new();
    for _ in 0..150 {
        ids.push(t.submit(json!([[{"append": t.file("log")}]])).await);
    }
    t.start_worker().ended().await;
    let ran: BTreeSet<_> = t.appended("log").into_iter().collect();
    assert_eq!(ran.len(), t.appended("log").len());
    assert_eq!(ran.len(), 100);
    for id in ids {
        let expected = if ran.contains(&id) { State::Succeeded } else { State::Queued };
        assert_eq!(t.get(id).await.state, expected);
    }
}

#[tokio::test]
async fn many_jobs_run_once_each_on_several_workers() {
    let (t, w) = TestApp::running(&[("worker.concurrency", "4")]);
    let others = [t.start_worker(), t.start_worker()];
    let mut ids = BTreeSet::new();
    for n in 0..150 {
        let q = ["default", "a", "b"][n % 3];
        ids.insert(t.submit_to(q, json!([[{"append": t.file("log")}]])).await);
    }
    for id in &ids {
        let job = t.reaches(*id, State::Succeeded).await;
        assert_eq!((job.failures, job.crashes), (0, 0));
    }
    let ran = t.appended("log");
    assert_eq!(ran.len(), ids.len());
    assert_eq!(ran.into_iter().collect::<BTreeSet<_>>(), ids);
    for other in others {
        other.drained().await;
    }
    t.stop(w).await;
}
