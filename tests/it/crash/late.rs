//! Workers that die or come back late, and schedulers that look at the same leases.

use std::time::Instant;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{
    fleet::over_each_broker,
    support::{
        fleet::{Fleet, Via, in_state, live_workers, submit},
        process::Process,
        wait_until,
    },
};

over_each_broker![a_late_finish_is_refused, three_schedulers_take_a_dead_workers_jobs_once];

async fn gated(fleet: &Fleet, at: &Process, n: usize) -> Vec<String> {
    let mut ids = Vec::new();
    for _ in 0..n {
        let runs = json!([[{"append": fleet.file("ran")}, {"await": fleet.file("gate")}]]);
        ids.push(submit(at, runs, Value::Null).await);
    }
    ids
}

fn outcomes(job: &Value) -> Vec<&str> {
    job["attempts"].as_array().unwrap().iter().map(|a| a["outcome"].as_str().unwrap()).collect()
}

async fn a_late_finish_is_refused(via: Via) {
    let fleet = Fleet::shared(via).await;
    let a = fleet.serve().await;
    let frozen = fleet.worker(&["--concurrency", "1"]).await;
    let _scheduler = fleet.scheduler().await;
    let id = gated(&fleet, &a, 1).await.remove(0);
    wait_until("it runs", async || fleet.appended("ran").len() == 1).await;
    frozen.signal(Signal::STOP);
    let first = in_state(&a, &id, "running").await["worker"].clone();
    let _other = fleet.worker(&[]).await;
    wait_until("it runs elsewhere", async || fleet.appended("ran").len() == 2).await;
    std::fs::write(fleet.file("gate"), "").unwrap();
    in_state(&a, &id, "succeeded").await;
    frozen.signal(Signal::CONT);
    wait_until("the late worker hears of it", async || frozen.log().contains("\"lease_lost\"")).await;
    let job = in_state(&a, &id, "succeeded").await;
    assert_eq!(outcomes(&job), ["lost", "succeeded"], "{job}");
    assert_eq!(job["attempts"][0]["worker"], first);
    assert_ne!(job["attempts"][1]["worker"], first);
    assert_eq!(fleet.appended("ran"), [format!("{id} 1"), format!("{id} 2")]);
    // And it goes on working.
    let next = submit(&a, json!([[{"ok": 1}]]), Value::Null).await;
    in_state(&a, &next, "succeeded").await;
}

async fn three_schedulers_take_a_dead_workers_jobs_once(via: Via) {
    let fleet = Fleet::shared(via).await;
    let a = fleet.serve().await;
    let mut dies = fleet.worker(&[]).await;
    let ids = gated(&fleet, &a, 4).await;
    wait_until("all run", async || fleet.appended("ran").len() == 4).await;
    let schedulers = (fleet.scheduler().await, fleet.scheduler().await, fleet.scheduler().await);
    let _other = fleet.worker(&[]).await;
    live_workers(&a, 2).await;
    dies.kill();
    let died = Instant::now();
    wait_until("all run elsewhere", async || fleet.appended("ran").len() == 8).await;
    let took = died.elapsed().as_secs_f64();
    eprintln!("crash matrix | {via:?} | killed worker's jobs run elsewhere after {took:.1} s (lease 3 s)");
    std::fs::write(fleet.file("gate"), "").unwrap();
    for id in &ids {
        let job = in_state(&a, id, "succeeded").await;
        assert_eq!(outcomes(&job), ["lost", "succeeded"], "{job}");
        assert_eq!(job["crashes"], 1);
    }
    let logs = [schedulers.0.log(), schedulers.1.log(), schedulers.2.log()].concat();
    assert_eq!(logs.matches("job taken from a worker").count(), 4, "{logs}");
}
