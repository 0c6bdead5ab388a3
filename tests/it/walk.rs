//! The first five minutes of the README, as typed: items, a job with progress, the command line, kill and restart.

use serde_json::{Value, json};

use crate::support::{
    eventually,
    process::{Process, binary, output},
    wait_until,
};

#[tokio::test(flavor = "multi_thread")]
async fn the_first_five_minutes() {
    let dir = tempfile::tempdir().unwrap();
    let mut process = Process::start(dir.path(), &[]).await;
    let health = process.get("/health").await.unwrap();
    assert_eq!(health["status"], "healthy");
    assert_eq!(health["services"], json!({"sqlite": "connected", "embedded": "connected", "memory": "connected"}));

    let item = json!({"name": "Test Item", "description": "first", "metadata": {"category": "test"}});
    let made = process.post("/api/items", &item).await.unwrap();
    let item_path = format!("/api/items/{}", made["id"].as_str().unwrap());
    assert_eq!(process.get("/api/items").await.unwrap()["data"][0], made);
    assert_eq!(process.get(&item_path).await.unwrap(), made);

    let task = json!({"data": "hello", "iterations": 10, "priority": "high"});
    let task = process.post("/api/async/process", &task).await.unwrap();
    assert_eq!(task["status"], "PENDING");
    let status = format!("/api/async/status/{}", task["task_id"].as_str().unwrap());
    let mut seen = Vec::new();
    let done = eventually("the task succeeds", async || {
        let now = process.get(&status).await.unwrap();
        let word = now["status"].as_str().unwrap().to_owned();
        if seen.last() != Some(&word) {
            seen.push(word);
        }
        (now["status"] == "SUCCESS").then_some(now)
    })
    .await;
    assert!(seen.contains(&"PROGRESS".to_owned()), "{seen:?}");
    assert_eq!(done["result"]["total_processed"], 10);
    assert_eq!(done["result"]["processed_items"].as_array().unwrap().len(), 10);

    let payload = r#"{"data":"x","iterations":5}"#;
    let mut submit = binary();
    submit.args([
        "jobs",
        "submit",
        "process_heavy_task",
        "--payload",
        payload,
        "--wait",
        "--json",
        "--url",
        &process.url,
    ]);
    let submitted = output(submit).await;
    assert!(submitted.status.success(), "{}", String::from_utf8_lossy(&submitted.stderr));
    let job: Value = serde_json::from_slice(&submitted.stdout).unwrap();
    assert_eq!(job["result"]["total_processed"], 5);

    let long = process.post("/api/async/process", &json!({"data": "again", "iterations": 20})).await.unwrap();
    let long = long["task_id"].as_str().unwrap().to_owned();
    wait_until("the job is under way", async || {
        process.get(&format!("/api/v1/jobs/{long}")).await.unwrap()["progress"]["current"].as_u64() >= Some(1)
    })
    .await;
    process.kill();
    let process = Process::start(dir.path(), &[]).await;
    wait_until("the killed job ends", async || {
        process.get(&format!("/api/async/status/{long}")).await.unwrap()["status"] == "SUCCESS"
    })
    .await;
    let job = process.get(&format!("/api/v1/jobs/{long}")).await.unwrap();
    assert_eq!((&job["runs"], &job["attempt"], &job["crashes"]), (&json!(2), &json!(1), &json!(1)));
    assert_eq!(job["attempts"][0]["outcome"], "lost");
    assert_eq!(process.get(&item_path).await.unwrap(), made);
}
