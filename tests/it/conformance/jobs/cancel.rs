//! Cancel: waiting jobs end, running ones are asked, ended ones stay.

use app::{
    base::id::JobId,
    jobs::{
        state::{State, Verdict},
        store::{Cancelled, Claim, Finished},
    },
};

use super::super::fixture::Fixture;
use crate::support::jobs::text;

pub(crate) async fn waiting_jobs_end_at_once(f: &mut Fixture) {
    for state in [State::Scheduled, State::Queued] {
        let job = f.in_state(state).await;
        f.pass(3);
        assert_eq!(f.cancel(job.id).await, Cancelled::Now);
        let after = f.get(job.id).await;
        assert_eq!((after.state, after.at, after.finished_at()), (State::Cancelled, f.now(), Some(f.now())));
        assert_eq!((after.failures, after.crashes, after.fence, after.attempts.len()), (0, 0, 0, 0));
        assert_eq!((after.error, after.result.is_none()), (None, true));
    }
}

pub(crate) async fn a_running_job_is_asked(f: &mut Fixture) {
    let job = f.running().await;
    f.pass(3);
    assert_eq!(f.cancel(job.id).await, Cancelled::Requested);
    let after = f.get(job.id).await;
    assert_eq!((after.state, after.at, after.fence), (State::Running, job.at, job.fence));
    assert!(after.cancel_requested);
    // Asking again is no error and changes nothing.
    assert_eq!(f.cancel(job.id).await, Cancelled::Requested);
    assert_eq!(text(&f.get(job.id).await), text(&after));
    assert_eq!(f.end(&job, Verdict::Cancel).await, Finished::Now(State::Cancelled));
    assert_eq!(f.cancel(job.id).await, Cancelled::AlreadyFinal(State::Cancelled));
}

pub(crate) async fn an_ended_job_stays_as_it_is(f: &mut Fixture) {
    for state in [State::Succeeded, State::Failed, State::Cancelled] {
        let job = f.in_state(state).await;
        f.pass(3);
        assert_eq!(f.cancel(job.id).await, Cancelled::AlreadyFinal(state));
        assert_eq!(text(&f.get(job.id).await), text(&job));
    }
}

pub(crate) async fn answers_come_in_the_order_of_the_ids(f: &mut Fixture) {
    let (queued, running) = (f.queued().await, f.running().await);
    let done = f.in_state(State::Succeeded).await;
    let ids = [done.id, JobId(f.clock.new_uuid()), queued, running.id, queued];
    let answers = f.jobs().cancel(&ids, f.now()).await.unwrap();
    let expected = [
        Cancelled::AlreadyFinal(State::Succeeded),
        Cancelled::NotFound,
        Cancelled::Now,
        Cancelled::Requested,
        Cancelled::AlreadyFinal(State::Cancelled),
    ];
    assert_eq!(answers, expected);
    assert!(f.jobs().cancel(&[], f.now()).await.unwrap().is_empty());
}

pub(crate) async fn a_cancelled_job_cannot_start(f: &mut Fixture) {
    let mut ids = Vec::new();
    for _ in 0..40 {
        ids.push(f.queued().await);
    }
    // Claimer and canceller race for each job: either it never starts, or its worker hears of the cancel.
    let (store, now, batch) = (f.jobs(), f.now(), ids.clone());
    let cancels = tokio::spawn(async move {
        let mut answers = Vec::new();
        for id in batch {
            answers.push(store.cancel(&[id], now).await.unwrap()[0]);
        }
        answers
    });
    let mut claims = Vec::new();
    for id in ids.iter().rev() {
        claims.push(f.claim(*id).await);
    }
    claims.reverse();
    for ((id, cancelled), claim) in ids.iter().zip(cancels.await.unwrap()).zip(claims) {
        let job = f.get(*id).await;
        match (cancelled, claim) {
            (Cancelled::Now, Claim::Gone) => assert_eq!((job.state, job.fence), (State::Cancelled, 0)),
            (Cancelled::Requested, Claim::Won { .. }) => {
                assert_eq!((job.state, job.cancel_requested), (State::Running, true));
            }
            other => panic!("{other:?}"),
        }
    }
}
