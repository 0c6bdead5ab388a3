//! Workers share the work: nobody holds what another could be doing.

use serde_json::{Value, json};

use super::over_each_broker;
use crate::support::{
    fleet::{Fleet, Via, in_state, submit},
    wait_until,
};

over_each_broker![
    twelve_slots_run_twelve_jobs_at_once,
    a_busy_worker_holds_nothing_back_from_an_idle_one,
    a_full_worker_of_two_queues_holds_nothing_back,
    priority_is_kept_across_processes,
    a_worker_of_max_jobs_leaves_the_rest_to_others,
];

/// Jobs that append themselves and wait for the gate.
async fn gated(fleet: &Fleet, at: &crate::support::process::Process, n: usize, queue: &str) -> Vec<String> {
    let mut ids = Vec::new();
    for _ in 0..n {
        let runs = json!([[{"append": fleet.file("ran")}, {"await": fleet.file("gate")}]]);
        ids.push(submit(at, runs, json!({"queue": queue})).await);
    }
    ids
}

async fn twelve_slots_run_twelve_jobs_at_once(via: Via) {
    let fleet = Fleet::shared(via).await;
    let a = fleet.serve().await;
    let _workers = (fleet.worker(&[]).await, fleet.worker(&[]).await, fleet.worker(&[]).await);
    let ids = gated(&fleet, &a, 12, "default").await;
    // None of them ends before the gate opens: twelve have begun only if all run at the same time.
    wait_until("all twelve run", async || fleet.appended("ran").len() == 12).await;
    std::fs::write(fleet.file("gate"), "").unwrap();
    for id in ids {
        in_state(&a, &id, "succeeded").await;
    }
    assert_eq!(fleet.appended("ran").len(), 12);
}

async fn a_busy_worker_holds_nothing_back_from_an_idle_one(via: Via) {
    let fleet = Fleet::shared(via).await;
    let a = fleet.serve().await;
    let _busy = fleet.worker(&["--concurrency", "1"]).await;
    let long = gated(&fleet, &a, 1, "default").await;
    wait_until("the long one runs", async || fleet.appended("ran").len() == 1).await;
    // These come to the busy worker's broker queue first, before anybody else is there.
    let mut short = Vec::new();
    for n in 0..8 {
        short.push(submit(&a, json!([[{"ok": n}]]), Value::Null).await);
    }
    let _idle = fleet.worker(&["--concurrency", "1"]).await;
    for id in &short {
        in_state(&a, id, "succeeded").await;
    }
    in_state(&a, &long[0], "running").await;
    std::fs::write(fleet.file("gate"), "").unwrap();
    in_state(&a, &long[0], "succeeded").await;
}

async fn a_full_worker_of_two_queues_holds_nothing_back(via: Via) {
    let fleet = Fleet::shared(via).await;
    let a = fleet.serve().await;
    let _full = fleet.worker(&["--queues", "default,heavy", "--concurrency", "2"]).await;
    let long = gated(&fleet, &a, 2, "default").await;
    wait_until("both run", async || fleet.appended("ran").len() == 2).await;
    let mut other = Vec::new();
    for n in 0..6 {
        other.push(submit(&a, json!([[{"ok": n}]]), json!({"queue": "heavy"})).await);
    }
    let _idle = fleet.worker(&["--queues", "heavy", "--concurrency", "1"]).await;
    for id in &other {
        in_state(&a, id, "succeeded").await;
    }
    std::fs::write(fleet.file("gate"), "").unwrap();
    for id in &long {
        in_state(&a, id, "succeeded").await;
    }
}

async fn priority_is_kept_across_processes(via: Via) {
    let fleet = Fleet::shared(via).await;
    let a = fleet.serve().await;
    let mut ids = Vec::new();
    for priority in [1, 5, 10, 3, 9] {
        let runs = json!([[{"append": fleet.file("ran")}]]);
        ids.push((priority, submit(&a, runs, json!({"priority": priority})).await));
    }
    let _worker = fleet.worker(&["--concurrency", "1"]).await;
    for (_, id) in &ids {
        in_state(&a, id, "succeeded").await;
    }
    ids.sort_by_key(|(priority, _)| std::cmp::Reverse(*priority));
    let expected: Vec<String> = ids.iter().map(|(_, id)| format!("{id} 1")).collect();
    assert_eq!(fleet.appended("ran"), expected);
}

async fn a_worker_of_max_jobs_leaves_the_rest_to_others(via: Via) {
    let fleet = Fleet::shared(via).await;
    let a = fleet.serve().await;
    let mut ids = Vec::new();
    for n in 0..6 {
        ids.push(submit(&a, json!([[{"append": fleet.file("ran")}, {"ok": n}]]), Value::Null).await);
    }
    let mut first = fleet.worker(&["--max-jobs", "2", "--concurrency", "4"]).await;
    assert!(first.exit().await.success(), "{}", first.log());
    assert_eq!(fleet.appended("ran").len(), 2);
    let _second = fleet.worker(&[]).await;
    for id in &ids {
        in_state(&a, id, "succeeded").await;
    }
    assert_eq!(fleet.appended("ran").len(), 6);
}
