//! Every operation on a job in every state: either the legal transition, or nothing at all.

use app::jobs::announce::Listened;
use app::{
    base::id::JobId,
    jobs::{
        model::{Job, Progress},
        state::{State, Verdict},
        store::{Again, Cancelled, Claim, JobEdit, RanAgain, Renewal, Void},
    },
};

use super::super::fixture::{CRASH_LIMIT, Fixture, LEASE};
use crate::support::jobs::{raw, text};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    Due,
    Claim,
    Succeed,
    Retry,
    Snooze,
    Fail,
    EndCancelled,
    Release,
    Void,
    Cancel,
    RunAgain,
    Postpone,
    Purge,
    Discard,
    Renew,
    Progress,
}

const OPS: [Op; 16] = [
    Op::Due,
    Op::Claim,
    Op::Succeed,
    Op::Retry,
    Op::Snooze,
    Op::Fail,
    Op::EndCancelled,
    Op::Release,
    Op::Void,
    Op::Cancel,
    Op::RunAgain,
    Op::Postpone,
    Op::Purge,
    Op::Discard,
    Op::Renew,
    Op::Progress,
];

/// Where an operation leads; none: nothing of the job changes.
fn expected(from: State, op: Op) -> Option<State> {
    use State as S;
    let to = match (from, op) {
        (S::Scheduled, Op::Due | Op::RunAgain) => S::Queued,
        (S::Failed | S::Cancelled, Op::RunAgain) => S::Queued,
        (S::Failed | S::Cancelled, Op::Postpone) => S::Scheduled,
        (S::Queued, Op::Claim) => S::Running,
        (S::Queued, Op::Purge) => S::Cancelled,
        (S::Scheduled | S::Queued, Op::Cancel) => S::Cancelled,
        (S::Running, Op::Succeed) => S::Succeeded,
        (S::Running, Op::Retry | Op::Snooze) => S::Scheduled,
        (S::Running, Op::Fail) => S::Failed,
        (S::Running, Op::EndCancelled) => S::Cancelled,
        (S::Running, Op::Release | Op::Void) => S::Queued,
        // These leave their mark on a running job without moving it.
        (S::Running, Op::Cancel | Op::Renew | Op::Progress) => S::Running,
        _ => return None,
    };
    Some(to)
}

async fn act(f: &Fixture, job: &Job, op: Op) {
    let later = f.in_secs(500);
    let verdict = match op {
        Op::Succeed => Some(Verdict::Succeed(Some(raw("1")))),
        Op::Retry => Some(Verdict::Retry { at: later }),
        Op::Snooze => Some(Verdict::Snooze { at: later }),
        Op::Fail => Some(Verdict::Fail),
        Op::EndCancelled => Some(Verdict::Cancel),
        Op::Release => Some(Verdict::Release),
        _ => None,
    };
    if let Some(verdict) = verdict {
        // A job that never ran has no run to end; whoever claims to have run it holds no lease.
        let claimant = Job { worker: Some(f.worker), started_at: Some(f.now()), ..job.clone() };
        f.end(&claimant, verdict).await;
        return;
    }
    let store = f.jobs();
    let again = |at| [Again { id: job.id, at }];
    let edit = JobEdit::default();
    match op {
        Op::Due => drop(store.due(f.now(), 10).await.unwrap()),
        Op::Claim => drop(f.claim(job.id).await),
        Op::Void => drop(
            store.void(&Void::NotOwnedBy(Vec::new()), f.now(), CRASH_LIMIT, 10, &Listened::default()).await.unwrap(),
        ),
        Op::Cancel => drop(store.cancel(&[job.id], f.now()).await.unwrap()),
        Op::RunAgain => drop(store.run_again(&again(None), &edit, f.now()).await.unwrap()),
        Op::Postpone => drop(store.run_again(&again(Some(later)), &edit, f.now()).await.unwrap()),
        Op::Purge => drop(store.purge(&job.queue, f.now(), 10).await.unwrap()),
        Op::Discard => drop(store.discard(&[job.id]).await.unwrap()),
        Op::Renew => drop(store.renew(&[(job.id, job.fence)], later).await.unwrap()),
        Op::Progress => {
            let progress = Progress { current: 1, total: 2, message: None, partial: None };
            store.progress(vec![(job.id, job.fence, progress)]).await.unwrap();
        }
        _ => unreachable!("is a verdict"),
    }
}

pub(crate) async fn exactly_the_legal_ones_happen(f: &mut Fixture) {
    for from in State::ALL {
        for op in OPS {
            let before = f.in_state(from).await;
            f.pass(100);
            act(f, &before, op).await;
            let after = f.jobs().get(before.id).await.unwrap();
            match (expected(from, op), after) {
                (_, None) => assert_eq!((from, op), (State::Failed, Op::Discard), "forgotten"),
                (Some(to), Some(after)) => {
                    assert_eq!(after.state, to, "{from:?} {op:?}");
                    assert_ne!(text(&before), text(&after), "{from:?} {op:?} left no mark");
                }
                (None, Some(after)) => assert_eq!(text(&before), text(&after), "{from:?} {op:?}"),
            }
            f.check().await;
            clear(f, before.id).await;
        }
    }
}

/// Puts a job where no later operation of this case can reach it.
async fn clear(f: &Fixture, id: JobId) {
    let Some(job) = f.jobs().get(id).await.unwrap() else { return };
    if job.state == State::Running {
        f.end(&job, Verdict::Succeed(None)).await;
    } else {
        f.cancel(id).await;
    }
}

pub(crate) async fn every_job_of_a_mixed_batch_has_its_own_answer(f: &mut Fixture) {
    let mut jobs = Vec::new();
    for state in State::ALL {
        jobs.push(f.in_state(state).await);
    }
    let mut ids: Vec<JobId> = jobs.iter().map(|j| j.id).collect();
    ids.push(JobId(f.clock.new_uuid()));
    let store = f.jobs();

    let claims = store.claim(&ids, f.worker, f.now(), LEASE).await.unwrap();
    let won: Vec<bool> = claims.iter().map(|c| matches!(c, Claim::Won { .. })).collect();
    assert_eq!(won, [false, true, false, false, false, false, false]);
    assert!(claims.iter().filter(|c| matches!(c, Claim::Gone)).count() == 6, "{claims:?}");

    let held: Vec<(JobId, u64)> = ids.iter().map(|id| (*id, 1)).collect();
    let renewed = store.renew(&held, f.in_secs(60)).await.unwrap();
    let holds: Vec<bool> = renewed.iter().map(|r| *r != Renewal::Lost).collect();
    assert_eq!(holds, [false, true, true, false, false, false, false]);

    let again: Vec<Again> = ids.iter().map(|id| Again { id: *id, at: Some(f.in_secs(9)) }).collect();
    let ran = store.run_again(&again, &JobEdit::default(), f.now()).await.unwrap();
    let refused = RanAgain::Refused;
    let expected = [
        refused(State::Scheduled),
        refused(State::Running),
        refused(State::Running),
        refused(State::Succeeded),
        RanAgain::Scheduled,
        RanAgain::Scheduled,
        RanAgain::NotFound,
    ];
    assert_eq!(ran, expected);

    let cancelled = store.cancel(&ids, f.now()).await.unwrap();
    let expected = [
        Cancelled::Now,
        Cancelled::Requested,
        Cancelled::Requested,
        Cancelled::AlreadyFinal(State::Succeeded),
        Cancelled::Now,
        Cancelled::Now,
        Cancelled::NotFound,
    ];
    assert_eq!(cancelled, expected);
}
