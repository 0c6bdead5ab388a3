//! Leases: renewed while the worker lives, void when it died, and never two holders.

use app::jobs::announce::Listened;
use std::collections::BTreeSet;

use app::{
    base::id::{JobId, WorkerId},
    jobs::{
        model::{AttemptOutcome, Job, Progress},
        state::{State, Verdict, apart},
        store::{Cancelled, Claim, Moved, Renewal, Void, Waiting},
    },
};

use super::super::fixture::{CRASH_LIMIT, Fixture, LEASE};
use crate::support::jobs::{new_job, priority, queue, text, worker};

const HELD: Renewal = Renewal::Held { cancel_requested: false };

async fn expire(f: &Fixture) -> Vec<Moved> {
    f.jobs().void(&Void::Expired(f.now()), f.now(), CRASH_LIMIT, 100, &Listened::default()).await.unwrap()
}

/// A job that runs at another worker.
async fn running_at(f: &Fixture, worker: WorkerId) -> Job {
    match f.claim_as(f.queued().await, worker).await {
        Claim::Won { job, .. } => *job,
        other => panic!("not won: {other:?}"),
    }
}

pub(crate) async fn renewal_extends(f: &mut Fixture) {
    let job = f.running().await;
    for _ in 0..5 {
        f.pass(10);
        let until = f.now().plus(LEASE);
        assert_eq!(f.jobs().renew(&[(job.id, job.fence)], until).await.unwrap(), [HELD]);
        assert!(expire(f).await.is_empty());
        let now = f.get(job.id).await;
        assert_eq!((now.at, now.started_at, now.fence), (until, job.started_at, job.fence));
    }
    assert!(f.jobs().renew(&[], f.in_secs(1)).await.unwrap().is_empty());
}

pub(crate) async fn renewal_repeats_the_cancel(f: &mut Fixture) {
    let (asked, other) = (f.running().await, f.running().await);
    assert_eq!(f.cancel(asked.id).await, Cancelled::Requested);
    for _ in 0..3 {
        let answers = f.jobs().renew(&[(other.id, 1), (asked.id, 1)], f.in_secs(60)).await.unwrap();
        assert_eq!(answers, [HELD, Renewal::Held { cancel_requested: true }]);
    }
    f.reopen().await;
    let answers = f.jobs().renew(&[(asked.id, 1)], f.in_secs(60)).await.unwrap();
    assert_eq!(answers, [Renewal::Held { cancel_requested: true }]);
}

pub(crate) async fn expired_only_and_exactly_at_its_time(f: &mut Fixture) {
    let job = f.running().await;
    f.pass(LEASE.as_secs() - 1);
    let younger = f.running().await;
    assert!(expire(f).await.is_empty());
    f.clock.advance(std::time::Duration::from_millis(999));
    assert!(expire(f).await.is_empty());
    f.clock.advance(std::time::Duration::from_millis(1));
    let moved = expire(f).await;
    let waiting = Waiting { id: job.id, queue: job.queue, priority: job.priority, since: f.now() };
    assert_eq!(moved, [Moved { job: waiting, state: State::Queued }]);
    assert_eq!(f.get(younger.id).await.state, State::Running);
    assert!(expire(f).await.is_empty());
}

pub(crate) async fn a_void_lease_queues_the_job_with_a_crash(f: &mut Fixture) {
    let job = Job { queue: queue("heavy"), priority: priority(9), ..new_job(&f.clock) };
    let job = f.win(f.insert(&job).await).await;
    f.pass(LEASE.as_secs() + 3);
    let moved = expire(f).await;
    assert_eq!((&moved[0].job.queue, moved[0].job.priority), (&queue("heavy"), priority(9)));
    let after = f.get(job.id).await;
    assert_eq!((after.state, after.at), (State::Queued, f.now()));
    assert_eq!((after.crashes, after.failures, after.fence), (1, 0, 1));
    let [run] = &after.attempts[..] else { panic!("{:?}", after.attempts) };
    assert_eq!((run.run, run.outcome, Some(run.worker)), (1, AttemptOutcome::Lost, job.worker));
    assert_eq!((Some(run.started_at), run.finished_at), (job.started_at, f.now()));
    assert_eq!(run.error.as_ref().map(|e| e.code.as_str()), Some("lease_lost"));
    assert_eq!(f.win(job.id).await.fence, 2);
}

pub(crate) async fn the_last_crash_makes_a_dead_letter(f: &mut Fixture) {
    let id = f.queued().await;
    for crash in 1..=CRASH_LIMIT {
        f.win(id).await;
        f.pass(LEASE.as_secs());
        let expected = match crash {
            1 => State::Queued,
            CRASH_LIMIT => State::Failed,
            _ => State::Scheduled,
        };
        assert_eq!(expire(f).await.iter().map(|m| (m.job.id, m.state)).collect::<Vec<_>>(), [(id, expected)]);
        let job = f.get(id).await;
        assert_eq!(job.crashes, crash);
        f.jobs().due(job.at, 1).await.unwrap();
    }
    let job = f.get(id).await;
    assert_eq!((job.state, job.at, job.failures), (State::Failed, f.now(), 0));
    assert_eq!(job.error.map(|e| e.code).as_deref(), Some("crash_limit"));
    assert_eq!(job.attempts.len(), 3);
    assert!(matches!(f.claim(id).await, Claim::Gone));
}

pub(crate) async fn jobs_that_crash_together_again_run_apart(f: &mut Fixture) {
    let ids = [f.queued().await, f.queued().await, f.queued().await];
    for crash in 1..=2 {
        for id in ids {
            f.win(id).await;
        }
        f.pass(LEASE.as_secs());
        assert_eq!(expire(f).await.len(), ids.len(), "{crash}");
    }
    let mut times = ids.map(|id| (apart(id, f.now()), id));
    for (at, id) in times {
        let job = f.get(id).await;
        assert_eq!((job.state, job.at), (State::Scheduled, at));
        assert_eq!(job.attempts.last().and_then(|a| a.retry_at), Some(at));
    }
    times.sort_unstable();
    let mut due = BTreeSet::new();
    for (at, id) in times {
        due.extend(f.jobs().due(at, 10).await.unwrap().into_iter().map(|w| w.id));
        assert!(due.contains(&id), "{due:?}");
        f.win(id).await;
    }
}

pub(crate) async fn a_requested_cancel_wins_over_a_crash(f: &mut Fixture) {
    let job = f.running().await;
    f.cancel(job.id).await;
    f.pass(LEASE.as_secs());
    let moved = f.jobs().void(&Void::Expired(f.now()), f.now(), 1, 10, &Listened::default()).await.unwrap();
    assert_eq!(moved.iter().map(|m| m.state).collect::<Vec<_>>(), [State::Cancelled]);
    let after = f.get(job.id).await;
    assert_eq!((after.state, after.at, after.attempts.len()), (State::Cancelled, f.now(), 1));
    assert_eq!(after.error, None);
}

pub(crate) async fn the_alive_are_spared(f: &mut Fixture) {
    let (a, b, c) = (worker(&f.clock), worker(&f.clock), worker(&f.clock));
    let of_a = [running_at(f, a).await.id, running_at(f, a).await.id];
    let of_b = running_at(f, b).await.id;
    let of_c = running_at(f, c).await.id;
    let before = text(&f.get(of_b).await);
    let void = async |alive: Vec<WorkerId>| {
        let moved =
            f.jobs().void(&Void::NotOwnedBy(alive), f.now(), CRASH_LIMIT, 100, &Listened::default()).await.unwrap();
        moved.into_iter().map(|m| m.job.id).collect::<BTreeSet<JobId>>()
    };
    assert_eq!(void(vec![a, b, c]).await, BTreeSet::new());
    assert_eq!(void(vec![b, c]).await, BTreeSet::from(of_a));
    assert_eq!(text(&f.get(of_b).await), before);
    // Long expired leases of the alive are spared all the same.
    f.pass(1000);
    assert_eq!(void(vec![b]).await, BTreeSet::from([of_c]));
    assert_eq!(void(Vec::new()).await, BTreeSet::from([of_b]));
}

pub(crate) async fn no_more_than_the_limit_until_none_is_left(f: &mut Fixture) {
    let spared = worker(&f.clock);
    let mut expected = BTreeSet::new();
    for n in 0..11 {
        if n % 2 == 0 {
            running_at(f, spared).await;
        }
        f.pass(1);
        expected.insert(f.running().await.id);
    }
    let mut taken = BTreeSet::new();
    let which = Void::NotOwnedBy(vec![spared]);
    for size in [4, 4, 3, 0] {
        let moved = f.jobs().void(&which, f.now(), CRASH_LIMIT, 4, &Listened::default()).await.unwrap();
        assert_eq!(moved.len(), size);
        taken.extend(moved.into_iter().map(|m| m.job.id));
    }
    assert_eq!(taken, expected);
}

pub(crate) async fn what_has_ended_does_not_count_for_the_limit(f: &mut Fixture) {
    for _ in 0..3 {
        let ended = f.running().await;
        f.end(&ended, Verdict::Fail).await;
    }
    let lost = f.running().await;
    f.pass(LEASE.as_secs());
    let moved = f.jobs().void(&Void::Expired(f.now()), f.now(), CRASH_LIMIT, 2, &Listened::default()).await.unwrap();
    assert_eq!(moved.iter().map(|m| m.job.id).collect::<Vec<_>>(), [lost.id]);
}

pub(crate) async fn of_racing_passes_one_takes_each_job(f: &mut Fixture) {
    let mut ids = Vec::new();
    for _ in 0..30 {
        ids.push(f.running().await.id);
    }
    f.pass(LEASE.as_secs());
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (store, now) = (f.jobs(), f.now());
        calls.spawn(async move {
            let mut taken = Vec::new();
            loop {
                let moved = store.void(&Void::Expired(now), now, CRASH_LIMIT, 7, &Listened::default()).await.unwrap();
                if moved.is_empty() {
                    return taken;
                }
                taken.extend(moved.into_iter().map(|m| m.job.id));
            }
        });
    }
    let mut taken: Vec<JobId> = calls.join_all().await.into_iter().flatten().collect();
    taken.sort();
    assert_eq!(taken, ids);
    for id in ids {
        assert_eq!(f.get(id).await.crashes, 1);
    }
}

pub(crate) async fn progress_is_kept_with_the_run(f: &mut Fixture) {
    let job = f.running().await;
    let note = |n: u64| Progress {
        current: n,
        total: u64::MAX >> 1,
        message: Some("halb fertig ½".to_owned()),
        partial: Some(serde_json::json!({ "seen": [n, null] })),
    };
    for n in [1, 2] {
        f.jobs().progress(vec![(job.id, job.fence, note(n))]).await.unwrap();
        assert_eq!(f.get(job.id).await.progress, Some(note(n)));
    }
    f.jobs().progress(vec![(job.id, job.fence, note(3)), (job.id, job.fence, note(4))]).await.unwrap();
    f.end(&job, Verdict::Fail).await;
    assert_eq!(f.get(job.id).await.progress, Some(note(4)));
    f.jobs().progress(Vec::new()).await.unwrap();
}
