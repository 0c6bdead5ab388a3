//! Signals: the first lets running jobs finish, the second gives them back at once.

use std::{path::Path, process::Stdio};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{
    process::{Process, binary, binary_after, client, free_port, signal},
    wait_until,
};

async fn submit(process: &Process, steps: Value) -> String {
    let job =
        process.post("/api/v1/jobs", &json!({"kind": "test.script", "payload": {"runs": [steps]}})).await.unwrap();
    job["id"].as_str().unwrap().to_owned()
}

async fn state(process: &Process, id: &str) -> Value {
    process.get(&format!("/api/v1/jobs/{id}")).await.unwrap()
}

async fn runs(process: &Process, id: &str) {
    wait_until("the job runs", async || state(process, id).await["state"] == "running").await;
}

async fn start(dir: &Path) -> Process {
    Process::start(dir, &[("APP__WORKER__SHUTDOWN_GRACE", "60s")]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_lets_running_jobs_finish() {
    let dir = tempfile::tempdir().unwrap();
    let gate = dir.path().join("gate");
    let mut process = start(dir.path()).await;
    let id = submit(&process, json!([{"await": gate}, {"ok": "done"}])).await;
    runs(&process, &id).await;
    process.signal(Signal::TERM);
    wait_until("the worker drains", async || process.log().contains("worker drains")).await;
    std::fs::write(&gate, "").unwrap();
    assert_eq!(process.exit().await.code(), Some(0));
    let process = start(dir.path()).await;
    let job = state(&process, &id).await;
    assert_eq!((&job["state"], &job["result"], &job["runs"]), (&json!("succeeded"), &json!("done"), &json!(1)));
}

/// The shell and the kernel may both send one when a terminal closes; together they are not more.
#[tokio::test(flavor = "multi_thread")]
async fn sighup_lets_running_jobs_finish_however_often_it_comes() {
    let dir = tempfile::tempdir().unwrap();
    let gate = dir.path().join("gate");
    let mut process = start(dir.path()).await;
    let id = submit(&process, json!([{"await": gate}, {"ok": "done"}])).await;
    runs(&process, &id).await;
    process.signal(Signal::HUP);
    wait_until("the worker drains", async || process.log().contains("worker drains")).await;
    let remedy = "running jobs may finish; SIGTERM or Ctrl-C, sent twice, stops at once";
    assert!(process.log().contains(remedy), "{}", process.log());
    process.signal(Signal::HUP);
    wait_until("the second came", async || process.log().contains("already shutting down")).await;
    process.signal(Signal::TERM);
    wait_until("one that counts came", async || process.log().matches("already shutting down").count() == 2).await;
    std::fs::write(&gate, "").unwrap();
    assert_eq!(process.exit().await.code(), Some(0));
    let process = start(dir.path()).await;
    let job = state(&process, &id).await;
    assert_eq!((&job["state"], &job["runs"], &job["crashes"]), (&json!("succeeded"), &json!(1), &json!(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_started_to_outlive_the_terminal_does() {
    let dir = tempfile::tempdir().unwrap();
    let store = format!("sqlite://{}", dir.path().join("app.db").display());
    let log = dir.path().join("app.log");
    let args = ["--store-url", &store];
    let mut process = Process::launch_as(binary_after("trap '' HUP"), "all", &log, &args, &[]);
    process.ready().await;
    process.signal(Signal::HUP);
    process.signal(Signal::TERM);
    assert_eq!(process.exit().await.code(), Some(0));
    assert!(!process.log().contains("SIGHUP") && process.log().contains("SIGTERM"), "{}", process.log());
}

/// Nobody reads the log any more: what cannot be written must not keep the end from being orderly.
#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_that_is_gone_does_not_spoil_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let (gate, port) = (dir.path().join("gate"), free_port());
    let mut command = binary();
    command.args(["all", "--port", &port.to_string(), "--store-url", "sqlite://app.db"]);
    command.current_dir(dir.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(child.stderr.take());
    let url = format!("http://127.0.0.1:{port}");
    let ready = async || client().get(format!("{url}/health/ready")).send().await.is_ok_and(|r| r.status() == 200);
    wait_until("the process is ready", ready).await;
    let body = json!({"kind": "test.script", "payload": {"runs": [[{"await": gate}, {"ok": 1}]]}});
    let job = client().post(format!("{url}/api/v1/jobs")).json(&body).send().await.unwrap();
    let job: Value = job.json().await.unwrap();
    let path = format!("/api/v1/jobs/{}", job["id"].as_str().unwrap());
    let state = async || -> Value { client().get(format!("{url}{path}")).send().await.unwrap().json().await.unwrap() };
    wait_until("the job runs", async || state().await["state"] == "running").await;
    signal(&child, Signal::HUP);
    std::fs::write(&gate, "").unwrap();
    let mut code = None;
    wait_until("the process ends", async || {
        code = child.try_wait().unwrap();
        code.is_some()
    })
    .await;
    assert_eq!(code.unwrap().code(), Some(0));
    let process = start(dir.path()).await;
    assert_eq!(process.get(&path).await.unwrap()["state"], "succeeded");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_gives_running_jobs_back_without_spending_an_attempt() {
    let dir = tempfile::tempdir().unwrap();
    let mut process = start(dir.path()).await;
    let id = submit(&process, json!(["await_stop"])).await;
    runs(&process, &id).await;
    process.signal(Signal::TERM);
    wait_until("the worker drains", async || process.log().contains("worker drains")).await;
    process.signal(Signal::TERM);
    assert_eq!(process.exit().await.code(), Some(0));
    let process = start(dir.path()).await;
    runs(&process, &id).await;
    let job = state(&process, &id).await;
    assert_eq!((&job["attempt"], &job["runs"], &job["crashes"]), (&json!(1), &json!(2), &json!(0)));
    assert_eq!(job["attempts"][0]["outcome"], "released");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_was_suspended_past_its_leases_keeps_its_jobs() {
    let dir = tempfile::tempdir().unwrap();
    let gate = dir.path().join("gate");
    let env = [("APP__JOBS__LEASE", "3s"), ("APP__JOBS__RENEW_EVERY", "1s")];
    let process = Process::start(dir.path(), &env).await;
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(submit(&process, json!([{"await": gate}])).await);
    }
    for id in &ids {
        runs(&process, id).await;
    }
    process.signal(Signal::STOP);
    // No condition to wait for: what is tested is that this much time passes without the process.
    tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    process.signal(Signal::CONT);
    wait_until("the process has noticed", async || process.log().contains("the process was suspended")).await;
    std::fs::write(&gate, "").unwrap();
    for id in &ids {
        wait_until("the job ends", async || state(&process, id).await["state"] == "succeeded").await;
        let job = state(&process, id).await;
        assert_eq!((&job["runs"], &job["crashes"]), (&json!(1), &json!(0)), "{job}");
    }
}
