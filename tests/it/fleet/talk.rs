//! Any instance answers for anything.

use serde_json::{Value, json};

use super::over_each_broker;
use crate::support::{
    eventually,
    fleet::{Fleet, Via, in_state, live_workers, submit},
    process::{client, free_port},
    wait_until,
};

over_each_broker![
    any_instance_answers_for_any_job_and_item,
    a_running_job_is_cancelled_through_any_instance,
    a_pause_at_one_instance_holds_everywhere,
    workers_of_the_whole_fleet_are_inspected,
    retries_and_delays_go_through_the_scheduler,
    a_restart_of_every_process_loses_nothing,
    health_names_each_server,
    roles_without_an_api_tell_about_themselves,
];

async fn any_instance_answers_for_any_job_and_item(via: Via) {
    let fleet = Fleet::shared(via).await;
    let (a, b) = (fleet.serve().await, fleet.serve().await);
    let item = a.post("/api/v1/items", &json!({"name": "one"})).await.unwrap();
    let id = item["id"].as_str().unwrap();
    assert_eq!(b.get(&format!("/api/v1/items/{id}")).await.unwrap(), item);
    let job = submit(&a, json!([[{"ok": 42}]]), Value::Null).await;
    assert_eq!(in_state(&b, &job, "queued").await["kind"], "test.script");
    // Whoever starts later finds what came before it.
    let _worker = fleet.worker(&[]).await;
    assert_eq!(in_state(&b, &job, "succeeded").await["result"], 42);
    assert_eq!(in_state(&a, &job, "succeeded").await["attempts"].as_array().unwrap().len(), 1);
}

async fn a_running_job_is_cancelled_through_any_instance(via: Via) {
    let fleet = Fleet::shared(via).await;
    let (a, b) = (fleet.serve().await, fleet.serve().await);
    let _worker = fleet.worker(&[]).await;
    let job = submit(&a, json!([["await_stop"]]), Value::Null).await;
    in_state(&b, &job, "running").await;
    b.post(&format!("/api/v1/jobs/{job}/cancel"), &Value::Null).await.unwrap();
    in_state(&a, &job, "cancelled").await;
}

async fn a_pause_at_one_instance_holds_everywhere(via: Via) {
    let fleet = Fleet::shared(via).await;
    let (a, b) = (fleet.serve().await, fleet.serve().await);
    let _workers = (fleet.worker(&[]).await, fleet.worker(&[]).await);
    a.post("/api/v1/queues/heavy/pause", &Value::Null).await.unwrap();
    let held = submit(&b, json!([[{"append": fleet.file("ran")}]]), json!({"queue": "heavy"})).await;
    let free = submit(&b, json!([[{"ok": 1}]]), json!({"queue": "default"})).await;
    in_state(&a, &free, "succeeded").await;
    in_state(&a, &held, "queued").await;
    assert!(fleet.appended("ran").is_empty());
    b.post("/api/v1/queues/heavy/resume", &Value::Null).await.unwrap();
    in_state(&a, &held, "succeeded").await;
}

async fn workers_of_the_whole_fleet_are_inspected(via: Via) {
    let fleet = Fleet::shared(via).await;
    let a = fleet.serve().await;
    let (_one, mut two) = (fleet.worker(&[]).await, fleet.worker(&["--queues", "heavy:2"]).await);
    live_workers(&a, 2).await;
    let pongs = eventually("both workers answer a ping", async || {
        let answer = a.post("/api/v1/workers/ping", &Value::Null).await?;
        let all = answer["data"].as_array().unwrap().clone();
        (all.len() == 2 && all.iter().all(|p| p["answered"] == true)).then_some(all)
    })
    .await;
    assert_ne!(pongs[0]["id"], pongs[1]["id"]);
    // One that ends in good order signs off.
    two.signal(rustix::process::Signal::TERM);
    assert!(two.exit().await.success(), "{}", two.log());
    live_workers(&a, 1).await;
}

async fn retries_and_delays_go_through_the_scheduler(via: Via) {
    let fleet = Fleet::shared(via).await;
    let a = fleet.serve().await;
    let _worker = fleet.worker(&[]).await;
    let _schedulers = (fleet.scheduler().await, fleet.scheduler().await);
    let runs = json!([[{"append": fleet.file("ran")}, {"error": "once"}], [{"append": fleet.file("ran")}, {"ok": 2}]]);
    let retried = submit(&a, runs, Value::Null).await;
    let delayed = submit(&a, json!([[{"ok": 1}]]), json!({"delay": 0.3})).await;
    let done = in_state(&a, &retried, "succeeded").await;
    assert_eq!(done["attempts"].as_array().unwrap().len(), 2, "{done}");
    in_state(&a, &delayed, "succeeded").await;
    // Two schedulers moved it once.
    assert_eq!(fleet.appended("ran"), [format!("{retried} 1"), format!("{retried} 2")]);
}

async fn a_restart_of_every_process_loses_nothing(via: Via) {
    let fleet = Fleet::shared(via).await;
    let (running, waiting, item) = {
        let a = fleet.serve().await;
        let _worker = fleet.worker(&[]).await;
        let _scheduler = fleet.scheduler().await;
        let gate = fleet.file("gate");
        let running =
            submit(&a, json!([[{"append": fleet.file("ran")}, {"await": gate}, {"ok": 1}]]), Value::Null).await;
        wait_until("it runs", async || fleet.appended("ran").len() == 1).await;
        let waiting = submit(&a, json!([[{"ok": 2}]]), json!({"delay": 0.5})).await;
        let item = a.post("/api/v1/items", &json!({"name": "kept"})).await.unwrap();
        (running, waiting, item)
        // Dropped processes are killed.
    };
    std::fs::write(fleet.file("gate"), "").unwrap();
    let a = fleet.serve().await;
    let _worker = fleet.worker(&[]).await;
    let _scheduler = fleet.scheduler().await;
    let done = in_state(&a, &running, "succeeded").await;
    assert_eq!(done["crashes"], 1, "{done}");
    in_state(&a, &waiting, "succeeded").await;
    assert_eq!(a.get(&format!("/api/v1/items/{}", item["id"].as_str().unwrap())).await.unwrap(), item);
}

async fn health_names_each_server(via: Via) {
    let fleet = Fleet::shared(via).await;
    let a = fleet.serve().await;
    let health = a.get("/health").await.unwrap();
    assert_eq!(health["status"], "healthy");
    let broker = if via == Via::Redis { "redis" } else { "rabbitmq" };
    assert_eq!(health["services"]["mongodb"], "connected");
    assert_eq!(health["services"][broker], "connected");
}

async fn roles_without_an_api_tell_about_themselves(via: Via) {
    let fleet = Fleet::shared(via).await;
    for role in ["worker", "scheduler"] {
        let address = format!("127.0.0.1:{}", free_port());
        let mut process = fleet.spawn_with(role, &[], &[("APP__PROBE__BIND", &address)]);
        process.said("ready").await;
        let get = async |path: &str| client().get(format!("http://{address}{path}")).send().await.unwrap();
        assert_eq!(get("/health/ready").await.status(), 200, "{role}");
        assert_eq!(get("/health").await.status(), 200, "{role}");
        assert!(get("/metrics").await.text().await.unwrap().contains("app_"), "{role}");
        assert_eq!(get("/api/v1/jobs").await.status(), 404, "{role}");
    }
}
