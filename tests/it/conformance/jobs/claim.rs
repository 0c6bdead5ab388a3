//! Claims: queued → running, for one worker, with a lease.

use app::{
    base::id::JobId,
    jobs::{
        model::Progress,
        state::{State, Verdict},
        store::Claim,
    },
};

use super::super::fixture::{Fixture, LEASE};
use crate::support::jobs::{new_job, queue, text, worker};

pub(crate) async fn starts_a_queued_job_with_a_lease(f: &mut Fixture) {
    let id = f.queued().await;
    let since = f.now();
    let before = f.get(id).await;
    f.pass(7);
    let Claim::Won { job, queued_at } = f.claim(id).await else { panic!("not won") };
    assert_eq!(queued_at, since);
    assert_eq!((job.state, job.fence, job.failures, job.crashes), (State::Running, 1, 0, 0));
    assert_eq!((job.at, job.started_at), (f.now().plus(LEASE), Some(f.now())));
    assert_eq!(job.worker, Some(f.worker));
    assert_eq!((job.attempt(), job.cancel_requested), (1, false));
    assert_eq!(job.spec.payload.get(), before.spec.payload.get());
    assert_eq!(text(&f.get(id).await), text(&job), "what the worker was given is what is stored");
}

pub(crate) async fn answers_in_the_order_of_the_ids(f: &mut Fixture) {
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(f.queued().await);
    }
    let unknown = JobId(f.clock.new_uuid());
    let asked = [ids[3], unknown, ids[0], ids[4], ids[1]];
    let claims = f.jobs().claim(&asked, f.worker, f.now(), LEASE).await.unwrap();
    let answered: Vec<Option<JobId>> = claims
        .iter()
        .map(|c| match c {
            Claim::Won { job, .. } => Some(job.id),
            Claim::Gone | Claim::Paused => None,
        })
        .collect();
    assert_eq!(answered, [Some(ids[3]), None, Some(ids[0]), Some(ids[4]), Some(ids[1])]);
    assert_eq!(f.get(ids[2]).await.state, State::Queued);
    assert!(f.jobs().claim(&[], f.worker, f.now(), LEASE).await.unwrap().is_empty());
}

pub(crate) async fn an_id_named_twice_is_won_once(f: &mut Fixture) {
    let id = f.queued().await;
    let claims = f.jobs().claim(&[id, id], f.worker, f.now(), LEASE).await.unwrap();
    assert!(matches!(claims[..], [Claim::Won { .. }, Claim::Gone]), "{claims:?}");
}

pub(crate) async fn a_paused_queue_keeps_its_jobs(f: &mut Fixture) {
    let (held, free) = (queue("held"), queue("free"));
    let running = f.win(f.queued_in(&held).await).await;
    let (a, b) = (f.queued_in(&held).await, f.queued_in(&free).await);
    f.fleet().set_paused(&held, true).await.unwrap();
    f.pass(5);
    let before = f.get(a).await;
    let claims = f.jobs().claim(&[a, b], f.worker, f.now(), LEASE).await.unwrap();
    assert!(matches!(claims[..], [Claim::Paused, Claim::Won { .. }]), "{claims:?}");
    assert_eq!(text(&f.get(a).await), text(&before));
    // What is not queued is gone, paused or not; and what runs is not held.
    assert!(matches!(f.claim(running.id).await, Claim::Gone));
    f.end(&running, Verdict::Succeed(None)).await;
    assert_eq!(f.get(running.id).await.state, State::Succeeded);
    f.fleet().set_paused(&held, false).await.unwrap();
    f.win(a).await;
}

pub(crate) async fn of_racing_claimers_exactly_one_wins(f: &mut Fixture) {
    let mut ids = Vec::new();
    for _ in 0..40 {
        ids.push(f.queued().await);
    }
    let mut calls = tokio::task::JoinSet::new();
    for n in 0..8 {
        let (store, clock) = (f.jobs(), f.clock.clone());
        let mut ids = ids.clone();
        ids.rotate_left(n * 5);
        calls.spawn(async move {
            let me = worker(&clock);
            let mut won = Vec::new();
            for batch in ids.chunks(3) {
                for claim in store.claim(batch, me, clock.now(), LEASE).await.unwrap() {
                    if let Claim::Won { job, .. } = claim {
                        assert_eq!((job.worker, job.fence), (Some(me), 1));
                        won.push(job.id);
                    }
                }
            }
            won
        });
    }
    let mut won: Vec<JobId> = calls.join_all().await.into_iter().flatten().collect();
    won.sort();
    assert_eq!(won, ids);
}

pub(crate) async fn a_later_run_has_a_higher_fence_and_no_old_progress(f: &mut Fixture) {
    let id = f.insert(&new_job(&f.clock)).await;
    for fence in 1..=3 {
        let job = f.win(id).await;
        assert_eq!(job.fence, fence);
        assert_eq!(job.progress, None);
        let progress = Progress { current: fence, total: 3, message: None, partial: None };
        f.jobs().progress(vec![(id, fence, progress.clone())]).await.unwrap();
        assert_eq!(f.get(id).await.progress, Some(progress));
        f.end(&job, Verdict::Release).await;
    }
}
