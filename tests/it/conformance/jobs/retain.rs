//! Retention: what ended is forgotten at its age, and nothing else ever is.

use app::{
    base::id::JobId,
    jobs::{
        state::{State, Verdict},
        store::{Idempotency, JobFilter, Retention},
    },
};

use super::super::fixture::Fixture;
use crate::support::jobs::{new_job, text};

/// Finished jobs are kept for 100 s here, dead letters for 300 s.
fn retention(f: &Fixture) -> Retention {
    let before = |seconds| f.now().minus(std::time::Duration::from_secs(seconds));
    Retention { finished_before: before(100), failed_before: before(300), now: f.now() }
}

/// A whole sweep, batch by batch.
async fn sweep(f: &Fixture, limit: usize) -> u64 {
    let (mut removed, mut after) = (0, None);
    loop {
        let (n, next) = f.jobs().retain(retention(f), after, limit).await.unwrap();
        removed += n;
        match next {
            Some(_) => after = next,
            None => return removed,
        }
    }
}

async fn left(f: &Fixture) -> Vec<JobId> {
    f.all(&JobFilter::default(), 100).await.iter().rev().map(|j| j.id).collect()
}

pub(crate) async fn each_end_by_its_own_age(f: &mut Fixture) {
    let mut ids = Vec::new();
    for state in [State::Succeeded, State::Failed, State::Cancelled] {
        ids.push(f.in_state(state).await.id);
    }
    f.pass(100);
    assert_eq!(sweep(f, 100).await, 0, "exactly as old as the limit is kept");
    f.pass(1);
    assert_eq!(sweep(f, 100).await, 2);
    assert_eq!(left(f).await, [ids[1]]);
    f.pass(199);
    assert_eq!(sweep(f, 100).await, 0);
    f.pass(1);
    assert_eq!(sweep(f, 100).await, 1);
    assert!(left(f).await.is_empty());
}

pub(crate) async fn what_has_not_ended_is_never_forgotten(f: &mut Fixture) {
    let mut jobs = Vec::new();
    for state in [State::Scheduled, State::Queued, State::Running] {
        jobs.push(f.in_state(state).await);
    }
    // Age counts from the end, not from the beginning.
    let late = f.running().await;
    f.pass(100_000);
    f.end(&late, Verdict::Succeed(None)).await;
    assert_eq!(sweep(f, 2).await, 0);
    for job in jobs {
        assert_eq!(text(&f.get(job.id).await), text(&job));
    }
    assert_eq!(f.get(late.id).await.state, State::Succeeded);
}

pub(crate) async fn batch_by_batch(f: &mut Fixture) {
    let mut kept = Vec::new();
    for n in 0..20 {
        if n % 3 == 0 {
            kept.push(f.queued().await);
        } else {
            f.in_state(State::Succeeded).await;
        }
    }
    f.pass(101);
    kept.push(f.in_state(State::Succeeded).await.id);
    let (mut batches, mut removed, mut after) = (0, 0, None);
    loop {
        let (n, next) = f.jobs().retain(retention(f), after, 4).await.unwrap();
        assert!(n <= 4, "more than it may look at");
        removed += n;
        batches += 1;
        match next {
            Some(next) => {
                assert!(after.is_none_or(|a| a < next), "goes on from where it was");
                after = Some(next);
            }
            None => break,
        }
    }
    assert!(batches >= 5, "{batches} batches of at most 4 for 20 old jobs");
    assert_eq!(removed, 13);
    assert_eq!(left(f).await, kept);
}

pub(crate) async fn expired_keys_go(f: &mut Fixture) {
    let key = |name: &str, seconds| Idempotency {
        scope: "s".to_owned(),
        key: name.to_owned(),
        request: [7; 32],
        answer: Vec::new(),
        expires_at: f.in_secs(seconds),
    };
    for (name, seconds) in [("short", 10), ("long", 1000)] {
        f.jobs().insert(vec![new_job(&f.clock)], Some(key(name, seconds))).await.unwrap();
    }
    let start = f.now();
    f.pass(500);
    sweep(f, 100).await;
    // Seen from before its end, a key that was removed is gone, and one that was not is not.
    assert_eq!(f.jobs().recall("s", "short", start).await.unwrap(), None);
    assert_eq!(f.jobs().recall("s", "long", start).await.unwrap(), Some(([7; 32], Vec::new())));
}
