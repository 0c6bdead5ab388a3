//! SIGKILL between any two durable steps, and at random under load.
//!
//! Each job appends `JOB RUN` to a file when it runs. Whatever happened, in the end every accepted job has succeeded,
//! its history holds exactly one success, and no run began after the one that succeeded.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use app::base::failpoint;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{process::Process, wait_until};

/// What a test knows of the jobs it submitted.
struct Ledger {
    dir: TempDir,
    accepted: BTreeSet<String>,
}

impl Ledger {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), accepted: BTreeSet::new() }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn runs_file(&self) -> PathBuf {
        self.path().join("runs")
    }

    fn script(&self, rest: &[Value]) -> Value {
        let mut steps = vec![json!({"append": self.runs_file()})];
        steps.extend_from_slice(rest);
        json!({"runs": [steps]})
    }

    /// Submits one job; it counts as accepted only if the answer arrived.
    async fn submit(&mut self, process: &Process, mut job: Value) -> bool {
        job["kind"] = json!("test.script");
        let Some(answer) = process.post("/api/v1/jobs", &job).await else { return false };
        self.accepted.insert(answer["id"].as_str().unwrap().to_owned());
        true
    }

    /// A round of jobs of every sort that goes through the scheduler's passes.
    async fn submit_mix(&mut self, process: &Process) -> bool {
        let quick = json!({"payload": self.script(&[])});
        let delayed = json!({"payload": self.script(&[]), "delay": 0.05});
        let retried = json!({
            "payload": {"runs": [[{"append": self.runs_file()}, {"error": "once"}], [{"append": self.runs_file()}]]},
            "backoff": {"base": 0.02, "cap": 0.02},
        });
        let slow = json!({"payload": self.script(&[json!({"sleep": 20})]), "priority": "high"});
        let mut all = true;
        for job in [quick, delayed, retried, slow] {
            all &= self.submit(process, job).await;
        }
        all
    }

    /// Waits until every accepted job has ended, then checks each.
    async fn settle(&self, process: &Process) {
        for id in &self.accepted {
            wait_until("every accepted job succeeds", async || {
                let job = process.get(&format!("/api/v1/jobs/{id}")).await;
                let job = job.unwrap_or_else(|| panic!("accepted job {id} is lost"));
                let state = job["state"].as_str().unwrap().to_owned();
                assert!(!["failed", "cancelled"].contains(&state.as_str()), "job {id} ended as {job}");
                state == "succeeded"
            })
            .await;
        }
        let mut runs: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for line in std::fs::read_to_string(self.runs_file()).unwrap_or_default().lines() {
            let (id, run) = line.split_once(' ').unwrap();
            runs.entry(id.to_owned()).or_default().push(run.parse().unwrap());
        }
        for id in &self.accepted {
            let job = process.get(&format!("/api/v1/jobs/{id}")).await.unwrap();
            let attempts = job["attempts"].as_array().unwrap();
            let good = attempts.iter().filter(|a| a["outcome"] == "succeeded").count();
            assert_eq!(good, 1, "job {id} succeeded {good} times: {job}");
            let last = attempts.last().unwrap();
            assert_eq!(last["outcome"], "succeeded", "{job}");
            let mine = &runs[id];
            let distinct: BTreeSet<_> = mine.iter().collect();
            assert_eq!(distinct.len(), mine.len(), "a run of {id} began twice: {mine:?}");
            assert!(
                mine.iter().all(|r| *r <= last["run"].as_u64().unwrap()),
                "{id} ran after it had succeeded: {mine:?}"
            );
        }
        let left: u64 = process.get("/api/v1/queues").await.unwrap()["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|q| ["queued", "scheduled", "running"].iter().map(|s| q[s].as_u64().unwrap()).sum::<u64>())
            .sum();
        // A submit whose answer was lost may have been stored: it ends, too, but nobody waits for it above.
        if left > 0 {
            wait_until("no job is left over", async || {
                let queues = process.get("/api/v1/queues").await.unwrap();
                let of = |q: &Value| ["queued", "scheduled", "running"].iter().all(|s| q[s] == 0);
                queues["data"].as_array().unwrap().iter().all(of)
            })
            .await;
        }
    }
}

/// Kills a process that holds running and waiting jobs, so that the next one has something to recover.
async fn leave_work_behind(ledger: &mut Ledger) {
    let process = Process::start(ledger.path(), &[]).await;
    let gate = ledger.path().join("gate");
    for _ in 0..12 {
        let job = json!({"payload": ledger.script(&[json!({"await": gate})])});
        assert!(ledger.submit(&process, job).await);
    }
    wait_until("jobs run", async || std::fs::read_to_string(ledger.runs_file()).is_ok_and(|t| t.lines().count() >= 8))
        .await;
    std::fs::write(&gate, "").unwrap();
}

async fn dies_and_recovers_at(name: &'static str) {
    let mut ledger = Ledger::new();
    leave_work_behind(&mut ledger).await;
    if name == "scheduler.retention.after_delete" {
        finish_one(&mut ledger).await;
    }
    for nth in [1, 3] {
        let armed = format!("{name}:{nth}");
        let old = if name.starts_with("scheduler.retention") { "1ms" } else { "7d" };
        let env = [("APP_FAILPOINTS", armed.as_str()), ("APP__JOBS__RETENTION", old)];
        let mut process = Process::start(ledger.path(), &env).await;
        // The first time must come; a later one may not, for a failpoint that is passed at start only.
        let deadline = Instant::now() + Duration::from_secs(if nth == 1 { 20 } else { 2 });
        while !process.was_killed() && Instant::now() < deadline {
            if name.starts_with("scheduler.retention") {
                wait_until("it is reached or not", async || process.was_killed() || Instant::now() >= deadline).await;
            } else if name.starts_with("items.") {
                drop(process.post("/api/v1/items", &json!({"name": "x"})).await);
            } else if name.starts_with("notifications.") {
                drop(process.post("/api/v1/notifications", &line()).await);
            } else {
                ledger.submit_mix(&process).await;
            }
        }
        if nth == 1 {
            assert!(process.was_killed(), "failpoint {name} was never reached:\n{}", process.log());
        }
    }
    if name.starts_with("scheduler.retention") {
        // What was past its retention is rightly gone; what is left must still be whole.
        ledger.accepted.clear();
        let process = Process::start(ledger.path(), &[]).await;
        assert!(ledger.submit_mix(&process).await);
        return ledger.settle(&process).await;
    }
    let process = Process::start(ledger.path(), &[]).await;
    if name.starts_with("items.") {
        return items_have_their_events(&process).await;
    }
    if name.starts_with("notifications.") {
        return lines_are_written(&process).await;
    }
    ledger.settle(&process).await;
}

/// A notification to the log.
fn line() -> Value {
    let event = json!({"name": "n", "subject": "s", "data": {}, "at": "2026-11-21T08:00:00.000Z"});
    json!({"notification_type": "console", "template_code": "event", "variables": {"event": event}})
}

/// What was accepted is delivered, whoever died with it. `tests/it/post/kill.rs` counts what arrives.
async fn lines_are_written(process: &Process) {
    wait_until("every notification is delivered", async || {
        let all = process.get("/api/v1/notifications?limit=200").await.unwrap();
        let all = all["data"].as_array().unwrap();
        assert!(!all.is_empty());
        all.iter().all(|n| n["status"] == "delivered")
    })
    .await;
}

/// Each item has one event, those included whose maker died.
async fn items_have_their_events(process: &Process) {
    let ids = async |path: &str| -> Vec<Value> { process.get(path).await.unwrap()["data"].as_array().unwrap().clone() };
    let items = ids("/api/v1/items?limit=200").await;
    let events = ids("/api/v1/jobs?kind=event&limit=200").await;
    assert!(items.len() >= 2, "{items:?}");
    for item in &items {
        let of_it = events.iter().filter(|e| e["payload"]["subject"] == item["id"]).count();
        assert_eq!(of_it, 1, "{item}: {events:?}");
    }
    assert_eq!(events.len(), items.len());
}

/// Leaves at least one finished job to the next process.
async fn finish_one(ledger: &mut Ledger) {
    let process = Process::start(ledger.path(), &[]).await;
    ledger.settle(&process).await;
}

macro_rules! failpoints {
    ($($test:ident = $name:literal;)*) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                dies_and_recovers_at($name).await;
            }
        )*

        #[test]
        fn every_failpoint_has_its_test() {
            assert_eq!(failpoint::NAMES, [$($name),*]);
        }
    };
}

failpoints! {
    killed_after_insert_before_publish = "submit.after_insert";
    killed_after_publish_before_answer = "submit.after_publish";
    killed_after_claim_before_run = "worker.after_claim";
    killed_after_run_before_finish = "worker.after_run";
    killed_after_finish_before_ack = "worker.after_finish";
    killed_in_the_due_pass = "scheduler.due.after_move";
    killed_in_the_expired_pass = "scheduler.expired.after_move";
    killed_in_the_lost_pass = "scheduler.lost.after_publish";
    killed_in_the_retention_pass = "scheduler.retention.after_delete";
    killed_after_an_item_before_its_bell = "items.after_insert";
    killed_before_a_message_is_sent = "notifications.before_send";
    killed_after_a_message_is_sent = "notifications.after_send";
}

/// How long the random kills go on.
const STORM: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn random_kills_under_load_lose_nothing_and_repeat_nothing() {
    let mut ledger = Ledger::new();
    let end = Instant::now() + STORM;
    let mut kills = 0;
    while Instant::now() < end {
        let mut process = Process::start(ledger.path(), &[]).await;
        let life = Instant::now() + Duration::from_millis(fastrand::u64(20..900));
        while Instant::now() < life {
            assert!(ledger.submit_mix(&process).await, "a living process refuses jobs:\n{}", process.log());
        }
        process.kill();
        kills += 1;
    }
    assert!(kills > 10, "only {kills} kills");
    let process = Process::start(ledger.path(), &[]).await;
    ledger.settle(&process).await;
    eprintln!("{kills} kills, {} jobs accepted, all ended once", ledger.accepted.len());
}
