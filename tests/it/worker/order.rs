//! What starts first: priorities, weights, strict queues, and nothing that has no slot.

use std::collections::BTreeSet;

use app::{base::id::JobId, jobs::state::State};
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
        assert_eq!((job.fence, job.crashes), (1, 0));
    }
    let ran = t.appended("log");
    assert_eq!(ran.len(), ids.len());
    assert_eq!(ran.into_iter().collect::<BTreeSet<_>>(), ids);
    for other in others {
        other.drained().await;
    }
    t.stop(w).await;
}
