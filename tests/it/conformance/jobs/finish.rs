//! Ends of runs: each verdict, what it spends, and what it leaves on record.

use app::jobs::{
    announce::{self, Listened},
    model::{ATTEMPTS_KEPT, AttemptOutcome, Job, JobError},
    state::{State, Verdict},
    store::{Cancelled, Finish, Finished, JobFilter, Void},
};

use super::super::fixture::Fixture;
use crate::support::jobs::{attempt, finish, raw};

/// Runs a fresh job for a while and ends it.
async fn ended(f: &Fixture, verdict: Verdict, expected: State) -> Job {
    let job = f.running().await;
    f.pass(5);
    assert_eq!(f.end(&job, verdict).await, Finished::Now(expected));
    let after = f.get(job.id).await;
    assert_eq!((after.state, after.fence, after.worker), (expected, 1, Some(f.worker)));
    let [run] = &after.attempts[..] else { panic!("{} runs on record", after.attempts.len()) };
    assert_eq!((run.run, Some(run.worker)), (1, job.worker));
    assert_eq!((Some(run.started_at), run.finished_at), (job.started_at, f.now()));
    assert_eq!(after.attempts_dropped(), 0);
    after
}

pub(crate) async fn succeed(f: &mut Fixture) {
    let job = ended(f, Verdict::Succeed(Some(raw("{\"a\": [1.0, null]}"))), State::Succeeded).await;
    assert_eq!(job.result.as_deref().map(|r| r.get()), Some("{\"a\": [1.0, null]}"));
    assert_eq!((job.at, job.finished_at()), (f.now(), Some(f.now())));
    assert_eq!((job.failures, job.attempt(), job.error), (0, 1, None));
    assert_eq!(job.attempts[0].outcome, AttemptOutcome::Succeeded);
}

pub(crate) async fn succeed_with_nothing(f: &mut Fixture) {
    let job = ended(f, Verdict::Succeed(None), State::Succeeded).await;
    assert!(job.result.is_none());
    // A result that is `null` is a result.
    let job = ended(f, Verdict::Succeed(Some(raw("null"))), State::Succeeded).await;
    assert_eq!(job.result.as_deref().map(|r| r.get()), Some("null"));
}

/// Together they are larger than any message that a server takes.
pub(crate) async fn many_large_results_at_once(f: &mut Fixture) {
    let large = |n: usize| raw(&format!("\"{}\"", char::from(b'a' + n as u8).to_string().repeat((1 << 20) - 2)));
    let mut runs = Vec::new();
    for n in 0..20 {
        let job = f.running().await;
        f.clock.advance(std::time::Duration::from_millis(1));
        let run = attempt(&job, f.now(), AttemptOutcome::Succeeded, None);
        runs.push(finish(&job, Verdict::Succeed(Some(large(n))), run));
    }
    let ids: Vec<_> = runs.iter().map(|r| r.id).collect();
    assert_eq!(f.jobs().finish(runs).await.unwrap(), vec![Finished::Now(State::Succeeded); 20]);
    for (n, id) in ids.into_iter().enumerate() {
        let result = f.get(id).await.result.unwrap();
        assert!(result.get() == large(n).get(), "job {n} has its own result");
    }
}

pub(crate) async fn retry_spends_an_attempt_and_waits(f: &mut Fixture) {
    let at = f.in_secs(90);
    let job = ended(f, Verdict::Retry { at }, State::Scheduled).await;
    assert_eq!((job.at, job.failures, job.crashes), (at, 1, 0));
    assert_eq!(job.error.map(|e| e.code).as_deref(), Some("flaky"));
    assert_eq!(job.attempts[0].error.as_ref().map(|e| e.message.as_str()), Some("may work later"));
}

pub(crate) async fn snooze_spends_none(f: &mut Fixture) {
    let at = f.in_secs(90);
    let job = ended(f, Verdict::Snooze { at }, State::Scheduled).await;
    assert_eq!((job.at, job.failures, job.error), (at, 0, None));
    assert_eq!(job.attempts[0].outcome, AttemptOutcome::Snoozed);
    let running = f.running().await;
    let why = JobError::new("quiet_hours", "the recipient sleeps");
    let run = attempt(&running, f.now(), AttemptOutcome::Snoozed, Some(why.clone()));
    f.jobs().finish(vec![finish(&running, Verdict::Snooze { at }, run)]).await.unwrap();
    let job = f.get(running.id).await;
    assert_eq!(
        (job.error, job.attempts[0].error.as_ref()),
        (None, Some(&why)),
        "what puts a job off is no failure of it"
    );
}

pub(crate) async fn fail_makes_a_dead_letter(f: &mut Fixture) {
    let job = ended(f, Verdict::Fail, State::Failed).await;
    assert_eq!((job.at, job.failures), (f.now(), 1));
    assert_eq!(job.error.map(|e| e.code).as_deref(), Some("broken"));
    assert_eq!(f.queue_state(&job.queue).await.counts.failed, 1);
}

pub(crate) async fn cancel_ends_it(f: &mut Fixture) {
    let job = ended(f, Verdict::Cancel, State::Cancelled).await;
    assert_eq!((job.at, job.failures, job.error), (f.now(), 0, None));
    assert_eq!(job.attempts[0].outcome, AttemptOutcome::Cancelled);
}

pub(crate) async fn release_queues_it_again(f: &mut Fixture) {
    let job = ended(f, Verdict::Release, State::Queued).await;
    assert_eq!((job.at, job.failures, job.crashes, job.error), (f.now(), 0, 0, None));
    assert_eq!(job.attempts[0].outcome, AttemptOutcome::Released);
    assert_eq!(f.queue_state(&job.queue).await.oldest, Some(f.now()));
    assert_eq!(f.win(job.id).await.fence, 2);
}

pub(crate) async fn a_requested_cancel_wins_over_running_again(f: &mut Fixture) {
    let at = f.in_secs(60);
    for verdict in [Verdict::Retry { at }, Verdict::Snooze { at }, Verdict::Release, Verdict::Cancel] {
        let what = format!("{verdict:?}");
        let job = f.running().await;
        assert_eq!(f.cancel(job.id).await, Cancelled::Requested);
        f.pass(1);
        assert_eq!(f.end(&job, verdict).await, Finished::Now(State::Cancelled), "{what}");
        let job = f.get(job.id).await;
        assert_eq!((job.state, job.at, job.attempts.len()), (State::Cancelled, f.now(), 1), "{what}");
    }
    assert_eq!(f.jobs().next_due().await.unwrap(), None);
}

pub(crate) async fn a_requested_cancel_does_not_undo_an_end(f: &mut Fixture) {
    for (verdict, state) in [(Verdict::Succeed(Some(raw("1"))), State::Succeeded), (Verdict::Fail, State::Failed)] {
        let job = f.running().await;
        f.cancel(job.id).await;
        assert_eq!(f.end(&job, verdict).await, Finished::Now(state));
        assert_eq!(f.get(job.id).await.state, state);
    }
}

pub(crate) async fn an_error_is_kept_until_success(f: &mut Fixture) {
    let job = f.running().await;
    f.end(&job, Verdict::Retry { at: f.now() }).await;
    f.jobs().due(f.now(), 1).await.unwrap();
    let job = f.win(job.id).await;
    assert_eq!((job.failures, job.attempt()), (1, 2));
    f.end(&job, Verdict::Snooze { at: f.now() }).await;
    let job = f.get(job.id).await;
    assert_eq!((job.error.map(|e| e.code).as_deref(), job.failures), (Some("flaky"), 1));
    f.jobs().due(f.now(), 1).await.unwrap();
    let job = f.win(job.id).await;
    f.end(&job, Verdict::Succeed(None)).await;
    let job = f.get(job.id).await;
    assert_eq!((&job.error, job.failures, job.attempt()), (&None, 1, 2));
    let outcomes: Vec<_> = job.attempts.iter().map(|a| (a.run, a.outcome)).collect();
    assert_eq!(outcomes, [(1, AttemptOutcome::Failed), (2, AttemptOutcome::Snoozed), (3, AttemptOutcome::Succeeded)]);
}

pub(crate) async fn the_last_runs_are_kept(f: &mut Fixture) {
    let id = f.queued().await;
    let runs = ATTEMPTS_KEPT as u64 + 5;
    for n in 1..=runs {
        let job = f.win(id).await;
        f.pass(1);
        // The history is whole however a run ended.
        if n % 10 == 0 {
            let void = app::jobs::store::Void::NotOwnedBy(Vec::new());
            f.jobs().void(&void, f.now(), u32::MAX, 10, &Listened::default()).await.unwrap();
            f.pass(5);
            f.jobs().due(f.now(), 10).await.unwrap();
        } else {
            f.end(&job, Verdict::Release).await;
        }
        let kept: Vec<u64> = f.get(id).await.attempts.iter().map(|a| a.run).collect();
        let first = n.saturating_sub(ATTEMPTS_KEPT as u64) + 1;
        assert_eq!(kept, (first..=n).collect::<Vec<_>>());
    }
    let job = f.get(id).await;
    assert_eq!(job.attempts_dropped(), 5);
    assert_eq!(job.crashes, 10);
    assert_eq!(f.win(id).await.attempts_dropped(), 5);
}

pub(crate) async fn answers_come_in_the_order_given(f: &mut Fixture) {
    let (a, b, c) = (f.running().await, f.running().await, f.running().await);
    f.cancel(b.id).await;
    let stale = Job { fence: 9, ..c.clone() };
    let runs = [
        (&c, Verdict::Fail),
        (&stale, Verdict::Succeed(None)),
        (&a, Verdict::Succeed(None)),
        (&b, Verdict::Release),
        (&a, Verdict::Fail),
    ];
    let error = || Some(JobError::new("x", "y"));
    let runs = runs.map(|(j, v)| finish(j, v, attempt(j, f.now(), AttemptOutcome::Failed, error())));
    let answers = f.jobs().finish(runs.to_vec()).await.unwrap();
    let now = Finished::Now;
    let expected =
        [now(State::Failed), Finished::LeaseLost, now(State::Succeeded), now(State::Cancelled), Finished::LeaseLost];
    assert_eq!(answers, expected);
    assert!(f.jobs().finish(Vec::new()).await.unwrap().is_empty());
}

/// The jobs of events, oldest first.
async fn told(f: &Fixture) -> Vec<Job> {
    let mut told = f.all(&JobFilter::default(), 50).await;
    told.retain(|j| j.kind.as_str() == "event");
    told.reverse();
    told
}

pub(crate) async fn an_end_and_its_event_are_one_step(f: &mut Fixture) {
    let (good, bad, other) = (f.running().await, f.running().await, f.running().await);
    let told_end = |job: &Job, verdict: Verdict, outcome, state| {
        let error = (outcome != AttemptOutcome::Succeeded).then(|| JobError::new("broken", "will not work"));
        let event = Some(announce::end_of(job, state, error.as_ref(), f.now()));
        Finish { event, ..finish(job, verdict, attempt(job, f.now(), outcome, error)) }
    };
    let ends = vec![
        told_end(&good, Verdict::Succeed(Some(raw("[1]"))), AttemptOutcome::Succeeded, State::Succeeded),
        told_end(&bad, Verdict::Fail, AttemptOutcome::Failed, State::Failed),
        finish(&other, Verdict::Succeed(None), attempt(&other, f.now(), AttemptOutcome::Succeeded, None)),
    ];
    let now = |state| Finished::Now(state);
    let done = f.jobs().finish(ends.clone()).await.unwrap();
    assert_eq!(done, [now(State::Succeeded), now(State::Failed), now(State::Succeeded)]);
    let (good, bad) = (f.get(good.id).await, f.get(bad.id).await);
    assert_eq!((good.state, good.result.as_deref().map(|r| r.get())), (State::Succeeded, Some("[1]")));
    assert_eq!((bad.state, bad.failures, bad.attempts.len()), (State::Failed, 1, 1));
    assert_eq!(bad.error.map(|e| e.code).as_deref(), Some("broken"));
    let events = told(f).await;
    let tags: Vec<_> = events.iter().map(|e| e.spec.tags.clone()).collect();
    let tag = |name: &str, job: &Job| vec![name.to_owned(), format!("subject:{}", job.id)];
    assert_eq!(events.len(), 2);
    assert!(
        tags.contains(&tag("job.finished", &good))
            && tags.contains(&vec!["job.failed".to_owned(), format!("subject:{}", bad.id)])
    );
    // A worker that lost its lease tells nothing.
    let late = f.running().await;
    let end = told_end(&late, Verdict::Succeed(None), AttemptOutcome::Succeeded, State::Succeeded);
    f.end(&late, Verdict::Release).await;
    assert_eq!(f.jobs().finish(vec![end]).await.unwrap(), [Finished::LeaseLost]);
    // What is to run again is no end.
    let again = f.running().await;
    let retry = told_end(&again, Verdict::Retry { at: f.in_secs(9) }, AttemptOutcome::Failed, State::Failed);
    assert_eq!(f.jobs().finish(vec![retry]).await.unwrap(), [now(State::Scheduled)]);
    assert_eq!(told(f).await.len(), 2);
}

pub(crate) async fn a_crash_that_ends_a_job_is_told_if_somebody_listens(f: &mut Fixture) {
    let deaf = Listened::default();
    let listening = Listened::default();
    listening.set(false, true);
    for (listened, events) in [(deaf, 0), (listening, 1)] {
        let job = f.running().await;
        f.pass(60);
        let moved = f.jobs().void(&Void::Expired(f.now()), f.now(), 1, 10, &listened).await.unwrap();
        assert_eq!(moved.iter().map(|m| (m.job.id, m.state)).collect::<Vec<_>>(), [(job.id, State::Failed)]);
        let after = f.get(job.id).await;
        assert_eq!((after.state, after.crashes, after.attempts.len()), (State::Failed, 1, 1));
        let told = told(f).await;
        assert_eq!(told.len(), events);
        assert!(told.iter().all(|e| e.spec.payload.get().contains("crash_limit")), "{told:?}");
    }
}
