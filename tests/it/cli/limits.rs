//! What only a whole process shows: queues that are full, a worker that ends after so many jobs, and `/metrics`.

use std::collections::{BTreeMap, BTreeSet};

use app::telemetry::metrics::{METRICS, MetricKind};
use reqwest::{StatusCode, header::RETRY_AFTER};
use serde_json::{Value, json};

use super::run::{Cli, Server};
use crate::support::wait_until;

fn script(steps: &Value) -> Value {
    json!({"kind": "test.script", "payload": {"runs": [steps]}})
}

/// The value of one line of `/metrics`, which `start` begins.
fn sample(metrics: &str, start: &str) -> Option<f64> {
    metrics.lines().find_map(|l| l.strip_prefix(start)?.trim().parse().ok())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_sheds_load_and_counts_it() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("mine.toml"), "[queues.default]\ndepth_limit = 3\n").unwrap();
    let server = Server::start(dir.path(), &["--config", "mine.toml"]).await;
    let cli = Cli { dir: dir.path(), url: &server.url };
    cli.ok(&["queues", "pause", "default"]).await;
    let job = script(&json!([{"ok": 1}]));
    for _ in 0..3 {
        assert_eq!(server.post("/api/v1/jobs", &job).await.status(), StatusCode::ACCEPTED);
    }
    let refused = server.post("/api/v1/jobs", &job).await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    let after: u64 = refused.headers()[RETRY_AFTER].to_str().unwrap().parse().unwrap();
    assert!(after >= 1);
    let problem: Value = refused.json().await.unwrap();
    assert_eq!((&problem["type"], &problem["status"]), (&json!("/problems/unavailable"), &json!(503)));
    let sentence = cli.fails(&["jobs", "submit", "test.script", "--payload", "{}"], 6).await;
    assert!(sentence.contains("status 503"), "{sentence}");
    let shed = sample(&server.text("/metrics").await, "app_jobs_shed_total{queue=\"default\"}");
    assert_eq!(shed, Some(2.0));
    let bulk = server.post("/api/v1/jobs/bulk", &json!({"jobs": [job, job]})).await;
    assert_eq!(bulk.status(), StatusCode::SERVICE_UNAVAILABLE);
    let queued = cli.json(&["jobs", "list"]).await;
    assert_eq!(queued["data"].as_array().unwrap().len(), 3, "what was refused left something: {queued}");
    // Another queue has room, and so has this one once it is emptied.
    let elsewhere = ["jobs", "submit", "test.script", "--payload", "{}", "--queue", "elsewhere"];
    cli.ok(&elsewhere).await;
    cli.ok(&["queues", "purge", "default", "--yes"]).await;
    assert_eq!(server.post("/api/v1/jobs", &job).await.status(), StatusCode::ACCEPTED);
}

#[tokio::test(flavor = "multi_thread")]
async fn max_jobs_ends_the_process_and_the_rest_waits_for_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let runs = dir.path().join("runs");
    let ran = || std::fs::read_to_string(&runs).unwrap_or_default();
    let job = script(&json!([{"append": runs}, {"ok": 1}]));
    let mut server = Server::start(dir.path(), &["--max-jobs", "3", "--concurrency", "8"]).await;
    let bulk = server.post("/api/v1/jobs/bulk", &json!({"jobs": vec![job; 7]})).await;
    assert_eq!(bulk.status(), StatusCode::ACCEPTED);
    assert_eq!(server.exit().await.code(), Some(0), "{}", server.log());
    assert_eq!(ran().lines().count(), 3);

    let server = Server::start(dir.path(), &[]).await;
    let cli = Cli { dir: dir.path(), url: &server.url };
    let states = async || {
        let list = cli.json(&["jobs", "list"]).await;
        list["data"].as_array().unwrap().iter().map(|j| j["state"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    wait_until("all have succeeded", async || states().await == ["succeeded"; 7]).await;
    let ran = ran();
    let different: BTreeSet<_> = ran.lines().collect();
    assert_eq!((ran.lines().count(), different.len()), (7, 7), "each ran once: {ran}");
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_those_of_the_table_and_cover_the_way_of_a_job() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]).await;
    let cli = Cli { dir: dir.path(), url: &server.url };
    cli.ok(&["jobs", "submit", "test.script", "--payload", r#"{"runs":[[{"ok":1}]]}"#, "--wait"]).await;
    let known: BTreeMap<&str, &str> = METRICS
        .iter()
        .map(|m| {
            let kind = match m.kind {
                MetricKind::Counter => "counter",
                MetricKind::Gauge => "gauge",
                MetricKind::Histogram(_) => "histogram",
            };
            (m.name, kind)
        })
        .collect();
    // Some are written on their way, the worker's a moment after the job's end is told.
    let way = [
        "app_http_requests_total",
        "app_http_request_duration_seconds",
        "app_jobs_submitted_total",
        "app_jobs_started_total",
        "app_jobs_finished_total",
        "app_job_wait_seconds",
        "app_job_duration_seconds",
        "app_broker_published_total",
        "app_broker_consumed_total",
        "app_store_commits_total",
        "app_store_ops_total",
        "app_store_commit_duration_seconds",
        "app_worker_slots",
        "app_worker_busy_slots",
        "app_queue_jobs",
        "app_process_resident_memory_bytes",
        "app_build_info",
    ];
    wait_until("the way of a job shows", async || {
        let text = server.text("/metrics").await;
        let mut seen = BTreeSet::new();
        for line in text.lines().filter_map(|l| l.strip_prefix("# TYPE ")) {
            let (name, kind) = line.split_once(' ').unwrap();
            assert_eq!(known.get(name), Some(&kind), "{name} is not in the table as a {kind}");
            seen.insert(name);
        }
        for line in text.lines().filter(|l| !l.starts_with('#') && !l.is_empty()) {
            let name = line.split(['{', ' ']).next().unwrap();
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|s| name.strip_suffix(s));
            let typed = seen.contains(name) || base.is_some_and(|b| seen.contains(b));
            assert!(typed, "no type: {line}");
        }
        way.iter().all(|name| seen.contains(name))
    })
    .await;
    let text = server.text("/metrics").await;
    let finished = "app_jobs_finished_total{kind=\"test.script\",queue=\"default\",outcome=\"succeeded\"}";
    assert_eq!(sample(&text, finished), Some(1.0), "{text}");
}
