//! Fences: whoever lost a job writes nothing of it, whatever it tries.

use app::jobs::announce::Listened;
use app::jobs::{
    model::{Job, Progress},
    state::{State, Verdict},
    store::{Finished, Renewal, Void},
};

use super::super::fixture::{CRASH_LIMIT, Fixture};
use crate::support::jobs::{raw, text, worker};

fn verdicts(f: &Fixture) -> [Verdict; 6] {
    let at = f.in_secs(100);
    [
        Verdict::Succeed(Some(raw("\"late\""))),
        Verdict::Retry { at },
        Verdict::Snooze { at },
        Verdict::Fail,
        Verdict::Cancel,
        Verdict::Release,
    ]
}

/// Takes a running job from its worker.
async fn take(f: &Fixture, job: &Job) {
    let moved =
        f.jobs().void(&Void::NotOwnedBy(Vec::new()), f.now(), CRASH_LIMIT, 10, &Listened::default()).await.unwrap();
    assert_eq!(moved.iter().map(|m| m.job.id).collect::<Vec<_>>(), [job.id]);
}

/// Nothing that the holder of `old` writes may leave a trace.
async fn writes_nothing(f: &Fixture, old: &Job) {
    let before = text(&f.get(old.id).await);
    f.pass(1);
    for verdict in verdicts(f) {
        let what = format!("{verdict:?}");
        assert_eq!(f.end(old, verdict).await, Finished::LeaseLost, "{what}");
        assert_eq!(text(&f.get(old.id).await), before, "{what}");
    }
    let renewed = f.jobs().renew(&[(old.id, old.fence)], f.in_secs(1000)).await.unwrap();
    assert_eq!(renewed, [Renewal::Lost]);
    let progress = Progress { current: 99, total: 100, message: None, partial: None };
    f.jobs().progress(vec![(old.id, old.fence, progress)]).await.unwrap();
    assert_eq!(text(&f.get(old.id).await), before);
}

pub(crate) async fn a_stale_finish_writes_nothing(f: &mut Fixture) {
    let old = f.running().await;
    take(f, &old).await;
    // Queued again; running elsewhere; ended elsewhere.
    writes_nothing(f, &old).await;
    let mut new = f.win(old.id).await;
    new.worker = Some(f.worker);
    writes_nothing(f, &old).await;
    for verdict in verdicts(f) {
        assert!(matches!(f.end(&new, verdict).await, Finished::Now(_)));
        writes_nothing(f, &old).await;
        writes_nothing(f, &new).await;
        new = f.running().await;
        if f.get(old.id).await.state == State::Queued {
            f.win(old.id).await;
        }
    }
}

pub(crate) async fn a_stale_renewal_and_progress_write_nothing(f: &mut Fixture) {
    let (lost, held) = (f.running().await, f.running().await);
    f.end(&lost, Verdict::Release).await;
    let again = f.win(lost.id).await;
    let before = text(&f.get(lost.id).await);
    let until = f.in_secs(300);
    let asked = [(lost.id, lost.fence), (held.id, held.fence)];
    let renewed = f.jobs().renew(&asked, until).await.unwrap();
    assert_eq!(renewed, [Renewal::Lost, Renewal::Held { cancel_requested: false }]);
    let note = |n| Progress { current: n, total: 9, message: None, partial: None };
    f.jobs().progress(vec![(lost.id, lost.fence, note(1)), (held.id, held.fence, note(2))]).await.unwrap();
    assert_eq!(text(&f.get(lost.id).await), before);
    let held = f.get(held.id).await;
    assert_eq!((held.at, held.progress), (until, Some(note(2))));
    assert_eq!(f.get(again.id).await.fence, 2);
}

pub(crate) async fn a_run_ends_once(f: &mut Fixture) {
    for verdict in verdicts(f) {
        let job = f.running().await;
        assert!(matches!(f.end(&job, verdict).await, Finished::Now(_)));
        writes_nothing(f, &job).await;
    }
}

pub(crate) async fn a_fence_of_the_future_is_as_stale(f: &mut Fixture) {
    let job = f.running().await;
    let mut liar = job.clone();
    for fence in [0, 2, u64::from(u32::MAX)] {
        liar.fence = fence;
        writes_nothing(f, &liar).await;
    }
    assert_eq!(f.end(&job, Verdict::Succeed(None)).await, Finished::Now(State::Succeeded));
}

pub(crate) async fn the_same_worker_does_not_inherit_its_lost_run(f: &mut Fixture) {
    let first = f.running().await;
    take(f, &first).await;
    let second = f.win(first.id).await;
    assert_eq!(first.worker, second.worker);
    writes_nothing(f, &first).await;
    assert_eq!(f.end(&second, Verdict::Succeed(None)).await, Finished::Now(State::Succeeded));
}

pub(crate) async fn of_racing_finishes_exactly_one_is_written(f: &mut Fixture) {
    let job = f.running().await;
    let mut calls = tokio::task::JoinSet::new();
    for n in 0..16 {
        let (store, mut job) = (f.jobs(), job.clone());
        job.worker = Some(worker(&f.clock));
        let run = crate::support::jobs::attempt(&job, f.now(), app::jobs::model::AttemptOutcome::Succeeded, None);
        let finish = crate::support::jobs::finish(&job, Verdict::Succeed(Some(raw(&n.to_string()))), run);
        calls.spawn(async move { (n, store.finish(vec![finish]).await.unwrap()[0]) });
    }
    let answers = calls.join_all().await;
    let written: Vec<_> = answers.iter().filter(|(_, a)| *a == Finished::Now(State::Succeeded)).collect();
    assert_eq!(written.len(), 1);
    let job = f.get(job.id).await;
    assert_eq!(job.result.unwrap().get(), written[0].0.to_string());
    assert_eq!(job.attempts.len(), 1);
}
