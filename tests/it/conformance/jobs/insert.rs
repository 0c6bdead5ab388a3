//! Storing jobs, with and without an idempotency key.

use app::{
    base::{
        backoff::Backoff,
        clock::Timestamp,
        id::{Priority, QueueName},
    },
    jobs::{
        model::{Job, Progress, Spec},
        state::{State, Verdict},
        store::{Idempotency, Inserted, JobFilter, WorkerReport},
    },
};

use super::super::fixture::Fixture;
use crate::support::jobs::{kind, new_job, queue, raw, report, text};

fn key(scope: &str, request: u8, answer: &str, expires_at: Timestamp) -> Idempotency {
    Idempotency {
        scope: scope.to_owned(),
        key: "k".to_owned(),
        request: [request; 32],
        answer: answer.as_bytes().to_vec(),
        expires_at,
    }
}

pub(crate) async fn what_is_stored_is_what_is_read(f: &mut Fixture) {
    let job = Job {
        kind: kind("some.kind-1"),
        queue: queue("heavy"),
        priority: Priority::MAX,
        state: State::Scheduled,
        at: f.in_secs(77),
        spec: Spec {
            v: Spec::VERSION,
            payload: raw("{ \"b\" : [1.50, \"ü\\u0000\", 12345678901234567890],\"a\":null }"),
            max_attempts: 1000,
            timeout_ms: 86_400_000,
            backoff: Backoff { base_ms: 1, cap_ms: u64::from(u32::MAX) },
            tags: vec!["a b".to_owned(), "ü\"'%".to_owned()],
            correlation_id: Some("request-1".to_owned()),
            traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned()),
        },
        ..new_job(&f.clock)
    };
    let inserted = f.jobs().insert(vec![job.clone()], None).await.unwrap();
    assert_eq!(inserted, Inserted::New);
    assert_eq!(text(&f.get(job.id).await), text(&job));
    assert!(f.jobs().get(app::base::id::JobId(f.clock.new_uuid())).await.unwrap().is_none());
}

/// Programs before this one accepted names that are refused now.
pub(crate) async fn a_queue_name_of_laxer_rules_is_read(f: &mut Fixture) {
    let old = QueueName::stored("amq.jobs").unwrap();
    let id = f.queued_in(&old).await;
    assert_eq!(f.get(id).await.queue, old);
    let queues = f.fleet().queues().await.unwrap();
    assert!(queues.iter().any(|q| q.name == old && q.counts.queued == 1), "{queues:?}");
    let report = WorkerReport { queues: vec![(old.clone(), 1)], ..report(f.worker, f.now()) };
    f.fleet().report(report.clone()).await.unwrap();
    assert_eq!(f.fleet().workers().await.unwrap(), [report]);
    assert_eq!(f.win(id).await.queue, old);
}

pub(crate) async fn what_is_inserted_early_can_be_claimed_before_it_is_told(f: &mut Fixture) {
    for _ in 0..3 {
        let job = new_job(&f.clock);
        let durable = f.jobs().insert_early(job.clone()).await.unwrap();
        assert_eq!(f.win(job.id).await.id, job.id);
        durable.wait().await.unwrap();
        assert_eq!(f.get(job.id).await.state, State::Running);
    }
    // Many at once are stored together, and an id that exists is refused to whoever came with it only.
    let there = new_job(&f.clock);
    f.insert(&there).await;
    let mut calls = tokio::task::JoinSet::new();
    for n in 0..60 {
        let (store, job) = (f.jobs(), if n == 30 { there.clone() } else { new_job(&f.clock) });
        calls.spawn(async move {
            let stored = match store.insert_early(job.clone()).await {
                Ok(durable) => durable.wait().await,
                Err(e) => Err(e),
            };
            (job, stored)
        });
    }
    for (job, stored) in calls.join_all().await {
        assert_eq!(stored.is_ok(), job.id != there.id, "{stored:?}");
        assert_eq!(text(&f.get(job.id).await), text(&job));
    }
}

pub(crate) async fn all_or_none(f: &mut Fixture) {
    let there = new_job(&f.clock);
    f.insert(&there).await;
    let (first, last) = (new_job(&f.clock), new_job(&f.clock));
    // An id that exists cannot come from this program; a defect that makes one must not leave half a batch.
    let batch = vec![first.clone(), there.clone(), last.clone()];
    let key = key("s", 1, "answer", f.in_secs(60));
    f.jobs().insert(batch, Some(key.clone())).await.unwrap_err();
    assert!(f.jobs().get(first.id).await.unwrap().is_none());
    assert!(f.jobs().get(last.id).await.unwrap().is_none());
    assert_eq!(text(&f.get(there.id).await), text(&there));
    assert_eq!(f.jobs().recall("s", "k", f.now()).await.unwrap(), None);
    assert_eq!(f.jobs().insert(vec![first.clone(), last], Some(key)).await.unwrap(), Inserted::New);
    assert_eq!(f.all(&JobFilter::default(), 10).await.len(), 3);
}

pub(crate) async fn the_same_request_gets_the_first_answer(f: &mut Fixture) {
    let until = f.in_secs(60);
    let (first, second) = (new_job(&f.clock), new_job(&f.clock));
    assert_eq!(f.jobs().recall("s", "k", f.now()).await.unwrap(), None);
    let inserted = f.jobs().insert(vec![first], Some(key("s", 1, "first\0", until))).await.unwrap();
    assert_eq!(inserted, Inserted::New);
    let replay = f.jobs().insert(vec![second.clone()], Some(key("s", 1, "second", until))).await.unwrap();
    assert_eq!(replay, Inserted::Replay(b"first\0".to_vec()));
    assert!(f.jobs().get(second.id).await.unwrap().is_none());
    assert_eq!(f.jobs().recall("s", "k", f.now()).await.unwrap(), Some(([1; 32], b"first\0".to_vec())));
}

pub(crate) async fn another_request_under_the_same_key_is_refused(f: &mut Fixture) {
    let until = f.in_secs(60);
    let (first, second) = (new_job(&f.clock), new_job(&f.clock));
    f.jobs().insert(vec![first], Some(key("s", 1, "first", until))).await.unwrap();
    let other = f.jobs().insert(vec![second.clone()], Some(key("s", 2, "second", until))).await.unwrap();
    assert_eq!(other, Inserted::KeyReused);
    assert!(f.jobs().get(second.id).await.unwrap().is_none());
    assert_eq!(f.jobs().recall("s", "k", f.now()).await.unwrap(), Some(([1; 32], b"first".to_vec())));
}

pub(crate) async fn keys_of_different_scopes_never_meet(f: &mut Fixture) {
    let until = f.in_secs(60);
    for scope in ["a", "b", ""] {
        let inserted = f.jobs().insert(vec![new_job(&f.clock)], Some(key(scope, 1, scope, until))).await.unwrap();
        assert_eq!(inserted, Inserted::New, "scope {scope:?}");
    }
    for scope in ["a", "b", ""] {
        let recalled = f.jobs().recall(scope, "k", f.now()).await.unwrap();
        assert_eq!(recalled, Some(([1; 32], scope.as_bytes().to_vec())));
    }
}

pub(crate) async fn an_expired_key_is_free_again(f: &mut Fixture) {
    f.jobs().insert(vec![new_job(&f.clock)], Some(key("s", 1, "first", f.in_secs(60)))).await.unwrap();
    f.pass(59);
    let early = f.jobs().insert(vec![new_job(&f.clock)], Some(key("s", 2, "x", f.in_secs(60)))).await.unwrap();
    assert_eq!(early, Inserted::KeyReused);
    f.pass(1);
    assert_eq!(f.jobs().recall("s", "k", f.now()).await.unwrap(), None);
    let late = f.jobs().insert(vec![new_job(&f.clock)], Some(key("s", 2, "second", f.in_secs(60)))).await.unwrap();
    assert_eq!(late, Inserted::New);
    assert_eq!(f.jobs().recall("s", "k", f.now()).await.unwrap(), Some(([2; 32], b"second".to_vec())));
}

pub(crate) async fn one_of_many_equal_requests_is_new(f: &mut Fixture) {
    let until = f.in_secs(60);
    let mut calls = tokio::task::JoinSet::new();
    for n in 0..100 {
        let (store, job) = (f.jobs(), new_job(&f.clock));
        let key = key("s", 1, &n.to_string(), until);
        calls.spawn(async move { (n, store.insert(vec![job], Some(key)).await.unwrap()) });
    }
    let answers = calls.join_all().await;
    let new: Vec<i32> = answers.iter().filter(|(_, a)| *a == Inserted::New).map(|(n, _)| *n).collect();
    assert_eq!(new.len(), 1);
    let replay = Inserted::Replay(new[0].to_string().into_bytes());
    assert_eq!(answers.iter().filter(|(_, a)| *a == replay).count(), 99);
    assert_eq!(f.all(&JobFilter::default(), 200).await.len(), 1);
}

pub(crate) async fn a_payload_of_256_kib_is_kept(f: &mut Fixture) {
    let payload = format!("\"{}\"", "ü".repeat((256 * 1024 - 2) / 2));
    assert_eq!(payload.len(), 256 * 1024);
    let mut job = new_job(&f.clock);
    job.spec.payload = raw(&payload);
    let job = f.win(f.insert(&job).await).await;
    assert_eq!(job.spec.payload.get(), payload);
    let result = raw(&format!("\"{}\"", "x".repeat(1024 * 1024 - 2)));
    f.end(&job, Verdict::Succeed(Some(result.clone()))).await;
    let job = f.get(job.id).await;
    assert_eq!(job.spec.payload.get(), payload);
    assert_eq!(job.result.unwrap().get(), result.get());
}

pub(crate) async fn reopening_keeps_everything(f: &mut Fixture) {
    f.jobs().insert(vec![new_job(&f.clock)], Some(key("s", 1, "answer", f.in_secs(60)))).await.unwrap();
    for state in State::ALL {
        f.in_state(state).await;
    }
    let running = f.running().await;
    let progress = Progress { current: 3, total: 9, message: Some("m".to_owned()), partial: Some(1.into()) };
    f.jobs().progress(vec![(running.id, running.fence, progress)]).await.unwrap();
    f.cancel(running.id).await;
    let paused = f.queued_in(&queue("paused")).await;
    f.fleet().set_paused(&queue("paused"), true).await.unwrap();
    let before: Vec<String> = f.all(&JobFilter::default(), 100).await.iter().map(text).collect();
    let queues = f.fleet().queues().await.unwrap();
    assert_eq!((before.len(), queues.len()), (9, 2));

    f.reopen().await;
    let after: Vec<String> = f.all(&JobFilter::default(), 100).await.iter().map(text).collect();
    assert_eq!(after, before);
    assert_eq!(f.fleet().queues().await.unwrap(), queues);
    assert_eq!(f.jobs().recall("s", "k", f.now()).await.unwrap(), Some(([1; 32], b"answer".to_vec())));
    assert!(matches!(f.claim(paused).await, app::jobs::store::Claim::Paused));
    // A lease outlives the store's restart.
    assert_eq!(f.end(&running, Verdict::Succeed(None)).await, app::jobs::store::Finished::Now(State::Succeeded));
}
