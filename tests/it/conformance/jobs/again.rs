//! Running jobs again, with or without an edit; and forgetting dead letters.

use app::jobs::announce::Listened;
use app::{
    base::{clock::Timestamp, id::JobId},
    jobs::{
        model::{Job, Progress},
        state::{State, Verdict},
        store::{Again, Cancelled, Finished, JobEdit, RanAgain, Renewal, Void, Waiting},
    },
};

use super::super::fixture::{CRASH_LIMIT, Fixture};
use crate::support::jobs::{priority, queue, raw, text};

async fn again(f: &Fixture, id: JobId, at: Option<Timestamp>, edit: &JobEdit) -> RanAgain {
    f.jobs().run_again(&[Again { id, at }], edit, f.now()).await.unwrap().remove(0)
}

async fn now(f: &Fixture, id: JobId) -> RanAgain {
    again(f, id, None, &JobEdit::default()).await
}

/// A job with a crash, two spent attempts and some progress, that ended in `state`.
async fn battered(f: &Fixture, state: State) -> Job {
    let id = f.running().await.id;
    f.jobs().void(&Void::NotOwnedBy(Vec::new()), f.now(), CRASH_LIMIT, 10, &Listened::default()).await.unwrap();
    let job = f.win(id).await;
    f.end(&job, Verdict::Retry { at: f.now() }).await;
    f.jobs().due(f.now(), 10).await.unwrap();
    let job = f.win(id).await;
    let progress = Progress { current: 1, total: 2, message: None, partial: None };
    f.jobs().progress(vec![(id, job.fence, progress)]).await.unwrap();
    let verdict = match state {
        State::Failed => Verdict::Fail,
        State::Scheduled => Verdict::Retry { at: f.in_secs(500) },
        _ => Verdict::Cancel,
    };
    assert_eq!(f.end(&job, verdict).await, Finished::Now(state));
    f.get(id).await
}

pub(crate) async fn from_failed_cancelled_and_scheduled(f: &mut Fixture) {
    for state in [State::Failed, State::Cancelled, State::Scheduled] {
        let before = battered(f, state).await;
        assert_eq!((before.crashes, before.attempts.len()), (1, 3));
        f.pass(9);
        let queued = Waiting { id: before.id, queue: before.queue.clone(), priority: before.priority, since: f.now() };
        assert_eq!(now(f, before.id).await, RanAgain::Queued(queued), "{state:?}");
        let after = f.get(before.id).await;
        assert_eq!((after.state, after.at), (State::Queued, f.now()));
        assert_eq!((after.failures, after.crashes), (0, 0), "forgiven");
        assert!(after.progress.is_none() && after.result.is_none());
        assert_eq!(after.fence, before.fence, "an old worker must stay locked out");
        assert_eq!(after.spec.payload.get(), before.spec.payload.get());
        assert_eq!(f.win(before.id).await.fence, before.fence + 1);
    }
    assert_eq!(now(f, JobId(f.clock.new_uuid())).await, RanAgain::NotFound);
}

pub(crate) async fn at_a_time(f: &mut Fixture) {
    for state in [State::Failed, State::Cancelled] {
        let job = battered(f, state).await;
        let at = f.in_secs(30);
        assert_eq!(again(f, job.id, Some(at), &JobEdit::default()).await, RanAgain::Scheduled);
        let after = f.get(job.id).await;
        assert_eq!((after.state, after.at, after.failures, after.crashes), (State::Scheduled, at, 0, 0));
        assert_eq!(f.jobs().next_due().await.unwrap(), Some(at));
        f.pass(30);
        assert_eq!(f.jobs().due(f.now(), 10).await.unwrap().len(), 1);
        f.win(job.id).await;
    }
    // A time that is no more than now is now.
    let job = f.in_state(State::Failed).await;
    assert!(matches!(again(f, job.id, Some(f.now()), &JobEdit::default()).await, RanAgain::Queued(_)));
    assert_eq!(f.get(job.id).await.at, f.now());
}

pub(crate) async fn refused_from_queued_running_and_succeeded(f: &mut Fixture) {
    let edit = JobEdit { queue: Some(queue("elsewhere")), ..JobEdit::default() };
    for state in [State::Queued, State::Running, State::Succeeded] {
        let job = f.in_state(state).await;
        f.pass(1);
        assert_eq!(again(f, job.id, None, &edit).await, RanAgain::Refused(state));
        assert_eq!(again(f, job.id, Some(f.in_secs(9)), &edit).await, RanAgain::Refused(state));
        assert_eq!(text(&f.get(job.id).await), text(&job));
    }
}

pub(crate) async fn an_edit_is_applied(f: &mut Fixture) {
    let whole = JobEdit {
        queue: Some(queue("heavy")),
        priority: Some(priority(10)),
        payload: Some(raw("{\"new\":  true}")),
        max_attempts: Some(77),
    };
    let (a, b) = (f.in_state(State::Failed).await, f.in_state(State::Cancelled).await);
    let asked = [Again { id: a.id, at: None }, Again { id: b.id, at: Some(f.in_secs(60)) }];
    let answers = f.jobs().run_again(&asked, &whole, f.now()).await.unwrap();
    let queued = Waiting { id: a.id, queue: queue("heavy"), priority: priority(10), since: f.now() };
    assert_eq!(answers, [RanAgain::Queued(queued), RanAgain::Scheduled]);
    for before in [a, b] {
        let job = f.get(before.id).await;
        assert_eq!((&job.queue, job.priority), (&queue("heavy"), priority(10)));
        assert_eq!((job.spec.payload.get(), job.spec.max_attempts), ("{\"new\":  true}", 77));
        assert_eq!((job.spec.timeout_ms, job.kind), (before.spec.timeout_ms, before.kind), "the rest stays");
    }
    let counts = f.queue_state(&queue("heavy")).await.counts;
    assert_eq!((counts.queued, counts.scheduled), (1, 1));
    assert_eq!(f.queue_state(&queue("default")).await.counts, app::jobs::store::QueueCounts::default());
    // One field alone.
    let job = f.in_state(State::Failed).await;
    again(f, job.id, None, &JobEdit { priority: Some(priority(1)), ..JobEdit::default() }).await;
    let after = f.get(job.id).await;
    assert_eq!((after.priority, &after.queue), (priority(1), &job.queue));
    assert_eq!(after.spec.payload.get(), job.spec.payload.get());
}

pub(crate) async fn a_cancel_of_its_former_life_is_forgotten(f: &mut Fixture) {
    let queued = f.queued().await;
    assert_eq!(f.cancel(queued).await, Cancelled::Now);
    let running = f.running().await;
    f.cancel(running.id).await;
    f.end(&running, Verdict::Fail).await;
    for id in [queued, running.id] {
        assert!(matches!(now(f, id).await, RanAgain::Queued(_)));
        let job = f.win(id).await;
        assert!(!job.cancel_requested);
        let renewed = f.jobs().renew(&[(id, job.fence)], f.in_secs(9)).await.unwrap();
        assert_eq!(renewed, [Renewal::Held { cancel_requested: false }]);
        assert_eq!(f.end(&job, Verdict::Release).await, Finished::Now(State::Queued));
    }
}

pub(crate) async fn the_history_stays(f: &mut Fixture) {
    let before = battered(f, State::Failed).await;
    now(f, before.id).await;
    let job = f.win(before.id).await;
    f.end(&job, Verdict::Succeed(Some(raw("1")))).await;
    let after = f.get(before.id).await;
    assert_eq!(after.attempts[..3], before.attempts[..]);
    assert_eq!(after.attempts.iter().map(|a| a.run).collect::<Vec<_>>(), [1, 2, 3, 4]);
}

pub(crate) async fn discard_forgets_dead_letters_only(f: &mut Fixture) {
    let mut kept = Vec::new();
    for state in [State::Scheduled, State::Queued, State::Running, State::Succeeded, State::Cancelled] {
        kept.push(f.in_state(state).await);
    }
    let (a, b) = (f.in_state(State::Failed).await.id, f.in_state(State::Failed).await.id);
    let mut ids: Vec<JobId> = kept.iter().map(|j| j.id).collect();
    ids.extend([a, JobId(f.clock.new_uuid()), a]);
    assert_eq!(f.jobs().discard(&ids).await.unwrap(), 1);
    assert!(f.jobs().get(a).await.unwrap().is_none());
    assert_eq!(f.get(b).await.state, State::Failed);
    for job in kept {
        assert_eq!(text(&f.get(job.id).await), text(&job));
    }
    assert_eq!(f.jobs().discard(&[]).await.unwrap(), 0);
}
