//! Hosts whose clocks are half a minute wrong, which is ten leases: nobody may notice.

use app::base::clock::Timestamp;
use serde_json::{Value, json};

use crate::support::{
    fleet::{Fleet, Via, in_state, live_workers, submit},
    process::Process,
    wait_until,
};

const AHEAD: &str = "30000";
const BEHIND: &str = "-30000";

async fn skewed(fleet: &Fleet, role: &str, by: &str) -> Process {
    let mut p = fleet.spawn_with(role, &[], &[("APP_TEST_CLOCK_OFFSET_MS", by)]);
    p.said("ready").await;
    p
}

fn time(job: &Value, field: &str) -> Timestamp {
    Timestamp::parse(job[field].as_str().unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_hold_between_hosts_whose_clocks_disagree() {
    let fleet = Fleet::shared(Via::Redis).await;
    let a = fleet.serve().await;
    let _schedulers = (skewed(&fleet, "scheduler", BEHIND).await, skewed(&fleet, "scheduler", AHEAD).await);
    let mut ahead = skewed(&fleet, "worker", AHEAD).await;
    let append = json!({"append": fleet.file("ran")});
    // Longer than a lease, so that each lives by its renewals.
    let mut long = Vec::new();
    for _ in 0..4 {
        long.push(submit(&a, json!([[append, {"sleep": 4000}]]), Value::Null).await);
    }
    wait_until("all run", async || fleet.appended("ran").len() == 4).await;
    let _behind = skewed(&fleet, "worker", BEHIND).await;
    for _ in 0..4 {
        long.push(submit(&a, json!([[append, {"sleep": 4000}]]), Value::Null).await);
    }
    for id in &long {
        let job = in_state(&a, id, "succeeded").await;
        assert_eq!((&job["runs"], &job["crashes"]), (&json!(1), &json!(0)), "{job}");
    }
    assert_eq!(fleet.appended("ran").len(), long.len());
    live_workers(&a, 2).await;

    // Nothing that was put off starts early, by whatever scheduler.
    let delayed = submit(&a, json!([[{"ok": 1}]]), json!({"delay": 2})).await;
    let job = in_state(&a, &delayed, "succeeded").await;
    let waited = time(&job, "started_at").since(time(&job, "created_at"));
    assert!(waited.as_millis() >= 1900, "{job}");

    // A worker ahead of the others holds its jobs no longer than any other when it dies.
    std::fs::remove_file(fleet.file("ran")).unwrap();
    let mut gated = Vec::new();
    for _ in 0..8 {
        gated.push(submit(&a, json!([[append, {"await": fleet.file("gate")}]]), Value::Null).await);
    }
    wait_until("both are full", async || fleet.appended("ran").len() == 8).await;
    ahead.kill();
    std::fs::write(fleet.file("gate"), "").unwrap();
    for id in &gated {
        let job = in_state(&a, id, "succeeded").await;
        assert!(job["runs"].as_u64().unwrap() <= 2, "{job}");
    }
}
