//! What the scheduler's passes ask of the store, and purge.

use std::{collections::BTreeSet, time::Duration};

use app::{
    base::{clock::Timestamp, id::JobId},
    jobs::{
        model::Job,
        state::{State, Verdict},
        store::Waiting,
    },
};

use super::super::fixture::Fixture;
use crate::support::jobs::{new_job, priority, queue, text};

pub(crate) async fn due_moves_the_earliest_first_and_only_due_ones(f: &mut Fixture) {
    let mut ids = Vec::new();
    for seconds in [30, 10, 50, 20, 40] {
        ids.push(f.scheduled(f.in_secs(seconds)).await);
    }
    let [at30, at10, at50, at20, at40] = ids[..] else { panic!("five") };
    let due = async |limit| f.jobs().due(f.now(), limit).await.unwrap();
    assert!(due(10).await.is_empty());
    f.pass(9);
    f.clock.advance(Duration::from_millis(999));
    assert!(due(10).await.is_empty());
    f.clock.advance(Duration::from_millis(1));
    let job = f.get(at10).await;
    let expected = Waiting { id: at10, queue: job.queue, priority: job.priority, since: f.now() };
    assert_eq!(due(10).await, [expected]);
    assert!(due(10).await.is_empty(), "moved twice");
    let job = f.get(at10).await;
    assert_eq!((job.state, job.at), (State::Queued, f.now()));
    f.pass(30);
    let first: Vec<JobId> = due(2).await.into_iter().map(|w| w.id).collect();
    assert_eq!(first, [at20, at30]);
    let rest: Vec<JobId> = due(2).await.into_iter().map(|w| w.id).collect();
    assert_eq!(rest, [at40]);
    assert_eq!(f.get(at50).await.state, State::Scheduled);
    // A retry comes due like a delay, in its own queue and with its own priority.
    let job = Job { queue: queue("heavy"), priority: priority(9), ..new_job(&f.clock) };
    let job = f.win(f.insert(&job).await).await;
    f.end(&job, Verdict::Retry { at: f.in_secs(1) }).await;
    f.pass(1);
    let expected = Waiting { id: job.id, queue: queue("heavy"), priority: priority(9), since: f.now() };
    assert_eq!(due(10).await, [expected]);
}

pub(crate) async fn of_racing_due_passes_one_moves_each_job(f: &mut Fixture) {
    let mut ids = Vec::new();
    for n in 0..40 {
        ids.push(f.scheduled(f.in_secs(n % 4)).await);
    }
    f.pass(10);
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (store, now) = (f.jobs(), f.now());
        calls.spawn(async move {
            let mut moved = Vec::new();
            loop {
                let batch = store.due(now, 3).await.unwrap();
                if batch.is_empty() {
                    return moved;
                }
                moved.extend(batch.into_iter().map(|w| w.id));
            }
        });
    }
    let mut moved: Vec<JobId> = calls.join_all().await.into_iter().flatten().collect();
    moved.sort();
    assert_eq!(moved, ids);
}

pub(crate) async fn next_due_is_the_earliest(f: &mut Fixture) {
    let next = async || f.jobs().next_due().await.unwrap();
    assert_eq!(next().await, None);
    f.queued().await;
    f.running().await;
    assert_eq!(next().await, None);
    f.scheduled(f.in_secs(50)).await;
    let earliest = f.scheduled(f.in_secs(20)).await;
    f.scheduled(f.in_secs(30)).await;
    assert_eq!(next().await, Some(f.in_secs(20)));
    f.cancel(earliest).await;
    assert_eq!(next().await, Some(f.in_secs(30)));
    // What is overdue is still next.
    let at = f.in_secs(30);
    f.pass(100);
    assert_eq!(next().await, Some(at));
}

pub(crate) async fn waiting_goes_through_a_queue_by_age(f: &mut Fixture) {
    let (mine, other) = (queue("mine"), queue("other"));
    let mut expected = Vec::new();
    for n in 1..=7 {
        f.queued_in(&other).await;
        let job = Job { queue: mine.clone(), priority: priority(n), ..new_job(&f.clock) };
        let id = f.insert(&job).await;
        expected.push(Waiting { id, queue: mine.clone(), priority: priority(n), since: f.now() });
        f.pass(1);
    }
    // Age counts from when it was queued last, not from its id.
    let first = expected.remove(0);
    let job = f.win(first.id).await;
    f.end(&job, Verdict::Release).await;
    expected.push(Waiting { since: f.now(), ..first });
    f.pass(1);
    f.scheduled(f.in_secs(5)).await;
    f.win(f.queued_in(&mine).await).await;
    for limit in [1, 2, 3, 100] {
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let batch = f.jobs().waiting(&mine, f.now(), after, limit).await.unwrap();
            assert!(batch.len() <= limit);
            let Some(last) = batch.last() else { break };
            after = Some((last.since, last.id));
            seen.extend(batch);
        }
        assert_eq!(seen, expected, "limit {limit}");
    }
    let before = expected[3].since;
    assert_eq!(f.jobs().waiting(&mine, before, None, 100).await.unwrap(), expected[..3]);
    assert!(f.jobs().waiting(&queue("none"), f.now(), None, 100).await.unwrap().is_empty());
}

pub(crate) async fn waiting_jobs_that_came_together_are_not_skipped(f: &mut Fixture) {
    let mut expected = BTreeSet::new();
    for _ in 0..20 {
        expected.insert(f.queued().await);
    }
    let (before, mine) = (f.in_secs(1), queue("default"));
    let mut seen = BTreeSet::new();
    let mut after: Option<(Timestamp, JobId)> = None;
    loop {
        let batch = f.jobs().waiting(&mine, before, after, 3).await.unwrap();
        let Some(last) = batch.last() else { break };
        after = Some((last.since, last.id));
        for w in batch {
            assert!(seen.insert(w.id), "listed twice");
        }
    }
    assert_eq!(seen, expected);
}

pub(crate) async fn purge_cancels_queued_jobs_of_one_queue(f: &mut Fixture) {
    let (mine, other) = (queue("mine"), queue("other"));
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(f.queued_in(&mine).await);
    }
    let mut others = vec![f.queued_in(&other).await];
    for state in [State::Scheduled, State::Running, State::Succeeded, State::Failed] {
        others.push(f.in_state(state).await.id);
    }
    let running = f.win(ids[4]).await;
    let mut before = Vec::new();
    for id in &others {
        before.push(text(&f.get(*id).await));
    }
    f.pass(1);
    let purge = async |limit| f.jobs().purge(&mine, f.now(), limit).await.unwrap();
    assert_eq!(purge(3).await, 3);
    assert_eq!(f.queue_state(&mine).await.counts.queued, 1);
    assert_eq!(purge(3).await, 1);
    assert_eq!(purge(3).await, 0);
    for id in &ids[..4] {
        let job = f.get(*id).await;
        assert_eq!((job.state, job.at, job.failures), (State::Cancelled, f.now(), 0));
    }
    assert_eq!(f.get(running.id).await.state, State::Running);
    for (id, before) in others.iter().zip(before) {
        assert_eq!(text(&f.get(*id).await), before);
    }
    assert_eq!(f.jobs().purge(&queue("default"), f.now(), 10).await.unwrap(), 0);
}
