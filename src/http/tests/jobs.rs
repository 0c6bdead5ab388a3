//! Submitting and steering jobs: what it does, and what it says about requests that are wrong.

use std::time::Duration;

use serde_json::json;

use super::*;
use crate::{
    base::id::{JobId, WorkerId},
    jobs::{
        model::{Attempt, AttemptOutcome, Job, JobError},
        state::Verdict,
        store::{Claim, Finish, Finished},
    },
};

pub(super) const JOBS: &str = "/api/v1/jobs";
pub(super) const BULK: &str = "/api/v1/jobs/bulk";
const NOBODY: &str = "/api/v1/jobs/0192f0c1-2345-7abc-8def-0123456789ab";

impl Under {
    /// Submits a job and gives its id.
    pub(super) async fn submitted(&self, body: Value) -> String {
        let answer = self.post(JOBS, body).await;
        assert_eq!(answer.status, 202, "{}", answer.json());
        answer.json()["id"].as_str().unwrap().to_owned()
    }

    pub(super) async fn job(&self, id: &str) -> Value {
        self.get(&format!("{JOBS}/{id}")).await.json()
    }

    pub(super) async fn command(&self, path: &str) -> Answer {
        self.send(TestRequest::post().uri(path)).await
    }

    /// What a worker does first.
    pub(super) async fn claim(&self, id: &str) -> Job {
        let id: JobId = id.parse().unwrap();
        let (worker, now) = (WorkerId(self.state.clock.new_uuid()), self.state.clock.now());
        let claims = self.backing.app.stores.jobs.claim(&[id], worker, now, Duration::from_secs(15)).await.unwrap();
        match claims.into_iter().next().unwrap() {
            Claim::Won { job, .. } => *job,
            other => panic!("{other:?}"),
        }
    }

    /// What a worker does last.
    pub(super) async fn finish(&self, job: &Job, verdict: Verdict, error: Option<JobError>) {
        let now = self.state.clock.now();
        let attempt = Attempt {
            run: job.fence,
            worker: job.worker.unwrap(),
            started_at: now,
            finished_at: now,
            outcome: if error.is_some() { AttemptOutcome::Failed } else { AttemptOutcome::Succeeded },
            error,
            retry_at: None,
        };
        let run = Finish { id: job.id, fence: job.fence, verdict, attempt, event: None };
        let done = self.backing.app.stores.jobs.finish(vec![run]).await.unwrap();
        assert!(matches!(done.as_slice(), [Finished::Now(_)]), "{done:?}");
    }

    /// Makes a dead letter and gives its id.
    pub(super) async fn dead(&self, body: Value) -> String {
        let id = self.submitted(body).await;
        self.fail(&id).await;
        id
    }

    /// The same, submitted by a caller with a key.
    pub(super) async fn dead_by(&self, auth: &str, body: Value) -> String {
        let answer = self.call(Method::POST, JOBS, auth, body).await;
        let id = answer.json()["id"].as_str().unwrap().to_owned();
        self.fail(&id).await;
        id
    }

    /// Lets a queued job run and fail for good.
    pub(super) async fn fail(&self, id: &str) {
        let job = self.claim(id).await;
        self.finish(&job, Verdict::Fail, Some(JobError::new("boom", "it broke"))).await;
    }

    pub(super) async fn count(&self) -> usize {
        self.get(&format!("{JOBS}?limit=200")).await.json()["data"].as_array().unwrap().len()
    }
}

#[actix_web::test]
async fn a_job_is_accepted_and_read_as_it_was_written() {
    let t = Under::new().await;
    let body = json!({"kind": "noop", "payload": {"z": [1, "ü", null], "a": 1.50}, "queue": "mine", "priority": "high",
        "max_attempts": 3, "timeout": 1.5, "tags": ["x", "y"], "backoff": {"base": 0.5, "cap": 2}});
    let answer = t.post(JOBS, body.clone()).await;
    let job = answer.json();
    assert_eq!(answer.status, 202);
    assert_eq!(answer.header("location"), format!("{JOBS}/{}", job["id"].as_str().unwrap()));
    assert_eq!(t.get(answer.header("location")).await.json(), job);
    for (key, value) in [
        ("kind", json!("noop")),
        ("queue", json!("mine")),
        ("priority", json!(9)),
        ("state", json!("queued")),
        ("payload", body["payload"].clone()),
        ("tags", json!(["x", "y"])),
        ("attempt", json!(0)),
        ("max_attempts", json!(3)),
        ("timeout", json!(1.5)),
        ("run_at", json!("2026-11-21T08:00:00.000Z")),
        ("result", Value::Null),
        ("correlation_id", json!(answer.header("x-request-id"))),
        ("attempts", json!([])),
    ] {
        assert_eq!(job[key], value, "{key}");
    }
    let stored = t.state.jobs.get(job["id"].as_str().unwrap().parse().unwrap()).await.unwrap();
    assert_eq!((stored.spec.backoff.base_ms, stored.spec.backoff.cap_ms), (500, 2000));
}

#[actix_web::test]
async fn jobs_are_put_off_by_time_or_by_delay() {
    let t = Under::new().await;
    for (body, state, run_at) in [
        (json!({"kind": "noop", "delay": 1.5}), "scheduled", "2026-11-21T08:00:01.500Z"),
        (json!({"kind": "noop", "delay": 0}), "queued", "2026-11-21T08:00:00.000Z"),
        (json!({"kind": "noop", "run_at": "2026-11-21T10:00:00+01:00"}), "scheduled", "2026-11-21T09:00:00.000Z"),
        (json!({"kind": "noop", "run_at": "1999-01-01T00:00:00Z"}), "queued", "2026-11-21T08:00:00.000Z"),
    ] {
        let job = t.post(JOBS, body).await.json();
        assert_eq!((&job["state"], &job["run_at"]), (&json!(state), &json!(run_at)));
    }
}

#[actix_web::test]
async fn wrong_jobs_name_the_field_at_fault() {
    let t = Under::new().await;
    let long = "x".repeat(101);
    for (body, field) in [
        (r#"{"#, "body"),
        ("[]", "body"),
        (r#"["noop"]"#, "body"),
        ("{}", "kind"),
        (r#"{"kind":5}"#, "kind"),
        (r#"{"kind":"nonsense"}"#, "kind"),
        (r#"{"kind":"no\u0000op"}"#, "kind"),
        (r#"{"kind":"noop","colour":1}"#, "colour"),
        (r#"{"kind":"noop","kind":"noop"}"#, "kind"),
        (r#"{"kind":"noop","payload":[1]}"#, "payload"),
        (r#"{"kind":"noop","payload":null}"#, "payload"),
        (r#"{"kind":"process_heavy_task","payload":{"data":7,"iterations":1}}"#, "payload.data"),
        (r#"{"kind":"batch_process_task","payload":{"items":[]}}"#, "payload.items"),
        (r#"{"kind":"noop","queue":"a b"}"#, "queue"),
        (r#"{"kind":"noop","queue":"a\u0000"}"#, "queue"),
        (r#"{"kind":"noop","priority":11}"#, "priority"),
        (r#"{"kind":"noop","priority":0}"#, "priority"),
        (r#"{"kind":"noop","priority":5.5}"#, "priority"),
        (r#"{"kind":"noop","priority":"urgent"}"#, "priority"),
        (r#"{"kind":"noop","run_at":"9999-12-31T23:59:59Z"}"#, "run_at"),
        (r#"{"kind":"noop","run_at":"2999-12-31T23:59:59Z"}"#, "run_at"),
        (r#"{"kind":"noop","run_at":"tomorrow"}"#, "run_at"),
        (r#"{"kind":"noop","run_at":1}"#, "run_at"),
        (r#"{"kind":"noop","run_at":"2026-12-01T00:00:00Z","delay":1}"#, "delay"),
        (r#"{"kind":"noop","delay":-1}"#, "delay"),
        (r#"{"kind":"noop","delay":1e300}"#, "delay"),
        (r#"{"kind":"noop","delay":1e999}"#, "delay"),
        (r#"{"kind":"noop","delay":"1s"}"#, "delay"),
        (r#"{"kind":"noop","delay":900000000}"#, "delay"),
        (r#"{"kind":"noop","timeout":0}"#, "timeout"),
        (r#"{"kind":"noop","timeout":1e9}"#, "timeout"),
        (r#"{"kind":"noop","max_attempts":0}"#, "max_attempts"),
        (r#"{"kind":"noop","max_attempts":1001}"#, "max_attempts"),
        (r#"{"kind":"noop","max_attempts":99999999999}"#, "max_attempts"),
        (r#"{"kind":"noop","backoff":{"base":9,"cap":1}}"#, "backoff.cap"),
        (r#"{"kind":"noop","backoff":{"base":-9}}"#, "backoff.base"),
        (r#"{"kind":"noop","backoff":[1,2]}"#, "backoff"),
        (r#"{"kind":"noop","tags":"x"}"#, "tags"),
        (r#"{"kind":"noop","tags":["x",""]}"#, "tags[1]"),
        (r#"{"kind":"noop","tags":["a\u0000b"]}"#, "tags[0]"),
        (r#"{"kind":"noop","tags":["","","","","","","","","","","","","","","","",""]}"#, "tags"),
        (&format!(r#"{{"kind":"noop","tags":["{long}"]}}"#), "tags[0]"),
        (&format!(r#"{{"kind":"noop","payload":{}1{}}}"#, "{\"a\":".repeat(200), "}".repeat(200)), "payload"),
        (&format!(r#"{{"kind":"noop","payload":{}"#, "[".repeat(100_000)), "payload"),
        (r#"{"kind":"noop","payload":{"a":1e999}}"#, "payload"),
        (r#"{"kind":"noop","payload":{"a":"\ud800"}}"#, "payload"),
    ] {
        let shown: String = body.chars().take(100).collect();
        let fields = t.body(Method::POST, JOBS, body).await.problem(400, "invalid_request");
        assert_eq!(fields.first().map(String::as_str), Some(field), "{shown}");
    }
    t.body(Method::POST, JOBS, b"{\"kind\":\"noop\",\"payload\":{\"a\":\"\xff\"}}")
        .await
        .problem(400, "invalid_request");
    t.send(TestRequest::post().uri(JOBS).set_payload("{}")).await.problem(415, "unsupported_media_type");
    assert_eq!(t.count().await, 0);
}

#[actix_web::test]
async fn too_much_is_refused_with_413() {
    let t = Under::configured(&[("jobs.max_payload", "1KiB")], |_| {}).await;
    let job = |n: usize| json!({"kind": "noop", "payload": {"a": "x".repeat(n)}});
    assert_eq!(t.post(JOBS, job(1000)).await.status, 202);
    assert_eq!(t.post(JOBS, job(1025)).await.problem(413, "payload_too_large"), ["payload"]);
    let bulk = json!({"jobs": [job(1), job(1025)]});
    assert_eq!(t.post(BULK, bulk).await.problem(413, "payload_too_large"), ["jobs[1].payload"]);
    let alone = json!({"jobs": [job(1025)]});
    assert_eq!(t.post(BULK, alone).await.problem(413, "payload_too_large"), ["jobs[0].payload"]);
    t.post(JOBS, job(LIMITS.max_body)).await.problem(413, "payload_too_large");
    t.post(BULK, job(LIMITS.max_bulk_body)).await.problem(413, "payload_too_large");
    // A bulk body may be larger than others.
    let many = json!({"jobs": vec![job(900); LIMITS.max_body / 900 + 1]});
    assert_eq!(t.post(BULK, many).await.status, 202);
}

#[actix_web::test]
async fn bulk_stores_all_or_none() {
    let t = Under::new().await;
    let answer = t.post(BULK, json!({"jobs": [{"kind": "noop"}, {"kind": "noop", "delay": 5}]})).await;
    let body = answer.json();
    assert_eq!((answer.status, &body["meta"]), (202, &json!({"count": 2})));
    assert_eq!((&body["data"][0]["state"], &body["data"][1]["state"]), (&json!("queued"), &json!("scheduled")));
    for entry in body["data"].as_array().unwrap() {
        assert_eq!(t.job(entry["id"].as_str().unwrap()).await["state"], entry["state"]);
    }
    for (bad, fields) in [
        (json!({"jobs": []}), vec!["jobs"]),
        (json!({"jobs": vec![json!({"kind": "noop"}); 1001]}), vec!["jobs"]),
        (json!({"jobs": vec![json!({"kind": "noop"}); 10_001]}), vec!["jobs"]),
        (json!({"jobs": {}}), vec!["jobs"]),
        (json!({}), vec!["jobs"]),
        (json!({"jobs": [["noop"]]}), vec!["jobs[0]"]),
        (json!({"jobs": [{"kind": "noop"}, {"kind": "noop", "priority": 11}]}), vec!["jobs[1].priority"]),
        (json!({"jobs": [{"kind": "noop"}, {"kind": "noop", "colour": 1}]}), vec!["jobs[1].colour"]),
        (json!({"jobs": [{"kind": "noop"}, {"kind": "nonsense"}]}), vec!["jobs[1].kind"]),
        (json!({"jobs": [{"kind": "nonsense"}]}), vec!["jobs[0].kind"]),
        (json!({"jobs": [{"kind": "noop"}, {"kind": "noop", "queue": "amq.jobs"}]}), vec!["jobs[1].queue"]),
        (
            json!({"jobs": [{"kind": "noop", "max_attempts": 0}, {"kind": "noop"}, {"kind": "noop", "tags": [""]}]}),
            vec!["jobs[0].max_attempts", "jobs[2].tags[0]"],
        ),
    ] {
        assert_eq!(t.post(BULK, bad).await.problem(400, "invalid_request"), fields);
    }
    assert_eq!(t.count().await, 2);
    assert_eq!(t.post(BULK, json!({"jobs": vec![json!({"kind": "noop"}); 1000]})).await.status, 202);
}

#[actix_web::test]
async fn a_full_queue_sheds_load_and_says_when_to_come_back() {
    let t = Under::configured(&[("jobs.depth_limit", "2")], |_| {}).await;
    t.submitted(json!({"kind": "noop"})).await;
    t.submitted(json!({"kind": "noop", "delay": 60})).await;
    let refused = t.post(JOBS, json!({"kind": "noop"})).await;
    assert_eq!(refused.header("retry-after"), "5");
    refused.problem(503, "unavailable");
    assert!(refused.json()["detail"].as_str().unwrap().contains("`default` holds 2 jobs and its limit is 2"));
    let bulk = |queue: &str, n| json!({"jobs": vec![json!({"kind": "noop", "queue": queue}); n]});
    t.post(BULK, bulk("default", 2)).await.problem(503, "unavailable");
    // More than would ever fit: trying again cannot help.
    assert_eq!(t.post(BULK, bulk("other", 3)).await.problem(400, "invalid_request"), ["jobs"]);
    assert_eq!(t.count().await, 2);
}

#[actix_web::test]
async fn lists_are_filtered_and_paged_newest_first() {
    let t = Under::new().await;
    let mut ids = Vec::new();
    for n in 0..5 {
        let queue = if n % 2 == 0 { "even" } else { "odd" };
        ids.push(t.submitted(json!({"kind": "noop", "queue": queue, "tags": [format!("t{n}")]})).await);
        t.state.clock.advance(Duration::from_secs(60));
    }
    t.command(&format!("{JOBS}/{}/cancel", ids[0])).await;
    let of = |body: &Value| -> Vec<usize> {
        let data = body["data"].as_array().unwrap();
        data.iter().map(|j| ids.iter().position(|id| j["id"] == id.as_str()).unwrap()).collect()
    };
    let first = t.get(&format!("{JOBS}?limit=2")).await.json();
    assert_eq!((of(&first), &first["meta"]["has_next"]), (vec![4, 3], &json!(true)));
    let next = first["meta"]["next_cursor"].as_str().unwrap();
    assert_eq!(of(&t.get(&format!("{JOBS}?limit=2&cursor={next}")).await.json()), [2, 1]);
    for (query, expected) in [
        ("queue=even", vec![4, 2, 0]),
        ("state=cancelled", vec![0]),
        ("state=queued&queue=even", vec![4, 2]),
        ("tag=t3", vec![3]),
        ("kind=process_heavy_task", vec![]),
        ("created_after=2026-11-21T08:01:00Z&created_before=2026-11-21T08:03:00Z", vec![2, 1]),
    ] {
        assert_eq!(of(&t.get(&format!("{JOBS}?{query}")).await.json()), expected, "{query}");
    }
    for (query, field) in [
        ("state=lost", "state"),
        ("kind=No", "kind"),
        ("queue=a%00", "queue"),
        ("cursor=c1_x", "cursor"),
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("created_after=9999-12-31T23:59:59Z", "created_after"),
        ("colour=red", "colour"),
    ] {
        let answer = t.get(&format!("{JOBS}?{query}")).await;
        assert_eq!(answer.problem(400, "invalid_request"), [field], "{query}");
    }
}

#[actix_web::test]
async fn jobs_are_cancelled_and_run_again() {
    let t = Under::new().await;
    let id = t.submitted(json!({"kind": "noop"})).await;
    let (cancel, retry) = (format!("{JOBS}/{id}/cancel"), format!("{JOBS}/{id}/retry"));
    t.command(&retry).await.problem(409, "conflict");
    let cancelled = t.command(&cancel).await;
    assert_eq!((cancelled.status, &cancelled.json()["state"]), (200, &json!("cancelled")));
    t.command(&cancel).await.problem(409, "conflict");
    let again = t.command(&retry).await;
    assert_eq!((again.status, &again.json()["state"]), (200, &json!("queued")));
    let job = t.claim(&id).await;
    let asked = t.command(&cancel).await;
    assert_eq!((asked.status, &asked.json()["cancel_requested"]), (202, &json!(true)));
    t.command(&retry).await.problem(409, "conflict");
    t.finish(&job, Verdict::Succeed(None), None).await;
    t.command(&cancel).await.problem(409, "conflict");
    t.command(&retry).await.problem(409, "conflict");
    let job = t.job(&id).await;
    assert_eq!(
        (&job["state"], &job["runs"], &job["attempts"][0]["outcome"]),
        (&json!("succeeded"), &json!(1), &json!("succeeded"))
    );
}

#[actix_web::test]
async fn waiting_ends_with_the_job_or_in_time() {
    let t = Under::new().await;
    let id = t.submitted(json!({"kind": "noop"})).await;
    assert_eq!(t.get(&format!("{JOBS}/{id}?wait=0.02")).await.json()["state"], "queued");
    let job = t.claim(&id).await;
    let path = format!("{JOBS}/{id}?wait=60");
    let (answer, ()) = futures_util::future::join(t.get(&path), async {
        tokio::time::sleep(Duration::from_millis(30)).await;
        t.finish(&job, Verdict::Succeed(None), None).await;
    })
    .await;
    assert_eq!(answer.json()["state"], "succeeded");
    for wait in ["61", "-1", "NaN", "inf", "soon", ""] {
        let answer = t.get(&format!("{JOBS}/{id}?wait={wait}")).await;
        assert_eq!(answer.problem(400, "invalid_request"), ["wait"], "{wait}");
    }
}

#[actix_web::test]
async fn ids_that_name_nothing_are_404() {
    let t = Under::new().await;
    for path in [NOBODY, "/api/v1/jobs/x", "/api/v1/jobs/%00", "/api/v1/jobs/0192f0c123457abc8def0123456789ab"] {
        assert_eq!(t.get(path).await.problem(404, "not_found"), ["id"], "{path}");
        for verb in ["cancel", "retry"] {
            let answer = t.command(&format!("{path}/{verb}")).await;
            assert_eq!(answer.problem(404, "not_found"), ["id"], "{path} {verb}");
        }
    }
}
