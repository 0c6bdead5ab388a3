//! The suite of [`FleetStore`](app::jobs::store::FleetStore).

macro_rules! conformance_fleet {
    ($adapter:ident, $open:path) => {
        crate::conformance::suite!($adapter, $open, fleet, fixture::store, {
            queues: [
                a_queue_is_listed_while_it_has_something,
                counts_follow_every_transition,
                the_oldest_is_the_longest_waiting,
                a_pause_is_kept,
                counts_are_right_after_a_race,
            ],
            workers: [a_report_replaces_the_one_before, those_that_left_are_gone, reports_survive_reopening],
            time: [a_clock_that_is_told_goes_on],
        });
    };
}

conformance_fleet!(sqlite, crate::support::adapters::Sqlite::open_fresh);
conformance_fleet!(mongodb, crate::support::adapters::Mongodb::open_fresh);

pub(crate) mod queues {
    use app::jobs::{
        state::{State, Verdict},
        store::{Again, JobEdit, QueueCounts, Void},
    };

    use crate::{
        conformance::fixture::{CRASH_LIMIT, Fixture, LEASE},
        support::jobs::{new_job, queue},
    };

    pub(crate) async fn a_queue_is_listed_while_it_has_something(f: &mut Fixture) {
        let q = queue("q");
        let listed = async |f: &Fixture| f.fleet().queues().await.unwrap().iter().any(|s| s.name == q);
        assert!(f.fleet().queues().await.unwrap().is_empty());
        for end in [Verdict::Succeed(None), Verdict::Cancel] {
            let id = f.queued_in(&q).await;
            assert!(listed(f).await, "queued");
            let job = f.win(id).await;
            assert!(listed(f).await, "running");
            f.end(&job, end).await;
            assert!(!listed(f).await, "over");
        }
        let job = f.win(f.queued_in(&q).await).await;
        f.end(&job, Verdict::Fail).await;
        assert!(listed(f).await, "a dead letter");
        f.jobs().discard(&[job.id]).await.unwrap();
        assert!(!listed(f).await);
        f.fleet().set_paused(&q, true).await.unwrap();
        assert!(listed(f).await, "paused");
        f.fleet().set_paused(&q, false).await.unwrap();
        assert!(!listed(f).await);
    }

    pub(crate) async fn counts_follow_every_transition(f: &mut Fixture) {
        let q = queue("default");
        let expect = async |f: &Fixture, scheduled, queued, running, failed| {
            let counts = f.queue_state(&q).await.counts;
            assert_eq!(counts, QueueCounts { scheduled, queued, running, failed });
            f.check().await;
        };
        let id = f.scheduled(f.in_secs(1)).await;
        expect(f, 1, 0, 0, 0).await;
        f.pass(1);
        f.jobs().due(f.now(), 10).await.unwrap();
        expect(f, 0, 1, 0, 0).await;
        let job = f.win(id).await;
        expect(f, 0, 0, 1, 0).await;
        f.end(&job, Verdict::Retry { at: f.now() }).await;
        expect(f, 1, 0, 0, 0).await;
        f.jobs().due(f.now(), 10).await.unwrap();
        f.win(id).await;
        f.pass(LEASE.as_secs());
        f.jobs()
            .void(&Void::Expired(f.now()), f.now(), CRASH_LIMIT, 10, &app::jobs::announce::Listened::default())
            .await
            .unwrap();
        expect(f, 0, 1, 0, 0).await;
        let job = f.win(id).await;
        f.end(&job, Verdict::Release).await;
        expect(f, 0, 1, 0, 0).await;
        let job = f.win(id).await;
        f.end(&job, Verdict::Fail).await;
        expect(f, 0, 0, 0, 1).await;
        let again = [Again { id, at: Some(f.in_secs(9)) }];
        f.jobs().run_again(&again, &JobEdit::default(), f.now()).await.unwrap();
        expect(f, 1, 0, 0, 0).await;
        f.cancel(id).await;
        expect(f, 0, 0, 0, 0).await;
        f.jobs().run_again(&[Again { id, at: None }], &JobEdit::default(), f.now()).await.unwrap();
        expect(f, 0, 1, 0, 0).await;
        f.jobs().purge(&q, f.now(), 10).await.unwrap();
        expect(f, 0, 0, 0, 0).await;
        // A batch that is refused as a whole counts as nothing.
        let job = new_job(&f.clock);
        f.jobs().insert(vec![job.clone(), job], None).await.unwrap_err();
        expect(f, 0, 0, 0, 0).await;
        for state in State::ALL {
            f.in_state(state).await;
        }
        expect(f, 1, 1, 1, 1).await;
        f.reopen().await;
        expect(f, 1, 1, 1, 1).await;
    }

    pub(crate) async fn the_oldest_is_the_longest_waiting(f: &mut Fixture) {
        let q = queue("default");
        let (start, first) = (f.now(), f.queued().await);
        f.pass(10);
        f.queued().await;
        assert_eq!(f.queue_state(&q).await.oldest, Some(start));
        let job = f.win(first).await;
        assert_eq!(f.queue_state(&q).await.oldest, Some(f.now()));
        f.pass(10);
        f.end(&job, Verdict::Release).await;
        assert_eq!(f.queue_state(&q).await.oldest, Some(f.now().minus(std::time::Duration::from_secs(10))));
        f.jobs().purge(&q, f.now(), 10).await.unwrap();
        f.in_state(State::Running).await;
        assert_eq!(f.queue_state(&q).await.oldest, None);
    }

    pub(crate) async fn a_pause_is_kept(f: &mut Fixture) {
        let q = queue("q");
        for paused in [true, true, false, false, true] {
            f.fleet().set_paused(&q, paused).await.unwrap();
            assert_eq!(f.queue_state(&q).await.paused, paused);
        }
        f.queued_in(&q).await;
        f.queued().await;
        assert!(!f.queue_state(&queue("default")).await.paused);
        f.reopen().await;
        let state = f.queue_state(&q).await;
        assert_eq!((state.paused, state.counts.queued), (true, 1));
    }

    pub(crate) async fn counts_are_right_after_a_race(f: &mut Fixture) {
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..8_u64 {
            let (store, clock, me) = (f.jobs(), f.clock.clone(), f.worker);
            let q = queue(if n % 2 == 0 { "even" } else { "odd" });
            tasks.spawn(async move {
                for _ in 0..25 {
                    let job = app::jobs::model::Job { queue: q.clone(), ..new_job(&clock) };
                    let id = job.id;
                    store.insert(vec![job], None).await.unwrap();
                    match n {
                        0 | 1 => drop(store.cancel(&[id], clock.now()).await.unwrap()),
                        2 | 3 => drop(store.claim(&[id], me, clock.now(), LEASE).await.unwrap()),
                        4 => drop(store.purge(&q, clock.now(), 3).await.unwrap()),
                        _ => {}
                    }
                }
            });
        }
        tasks.join_all().await;
        f.check().await;
    }
}

pub(crate) mod workers {
    use app::{
        base::id::{JobId, WorkerId},
        jobs::store::{ActiveJob, Totals, WorkerReport},
    };

    use crate::{
        conformance::fixture::Fixture,
        support::jobs::{kind, queue, report, worker},
    };

    async fn reported(f: &Fixture) -> Vec<WorkerReport> {
        let mut workers = f.fleet().workers().await.unwrap();
        workers.sort_by_key(|w| w.id);
        workers
    }

    pub(crate) async fn a_report_replaces_the_one_before(f: &mut Fixture) {
        assert!(f.fleet().workers().await.unwrap().is_empty());
        let (a, b) = (worker(&f.clock), worker(&f.clock));
        let first = report(a, f.now());
        f.fleet().report(first.clone()).await.unwrap();
        assert_eq!(reported(f).await, std::slice::from_ref(&first));
        f.pass(5);
        let active =
            ActiveJob { job_id: JobId(f.clock.new_uuid()), kind: kind("noop"), queue: queue("a"), started_at: f.now() };
        let second = WorkerReport {
            heartbeat_at: f.now(),
            draining: true,
            active: vec![active],
            last_minute: vec![(queue("a"), Totals { started: 1, ..Totals::default() })],
            ..first
        };
        let other = report(b, f.now());
        f.fleet().report(other.clone()).await.unwrap();
        f.fleet().report(second.clone()).await.unwrap();
        assert_eq!(reported(f).await, [second, other]);
    }

    pub(crate) async fn those_that_left_are_gone(f: &mut Fixture) {
        let ids: Vec<WorkerId> = (0..3).map(|_| worker(&f.clock)).collect();
        for id in &ids {
            f.fleet().report(report(*id, f.now())).await.unwrap();
        }
        f.fleet().forget(ids[1]).await.unwrap();
        let left: Vec<WorkerId> = reported(f).await.iter().map(|w| w.id).collect();
        assert_eq!(left, [ids[0], ids[2]]);
        // Leaving twice, or without having come, is no error.
        f.fleet().forget(ids[1]).await.unwrap();
        f.fleet().forget(worker(&f.clock)).await.unwrap();
        assert_eq!(reported(f).await.len(), 2);
    }

    pub(crate) async fn reports_survive_reopening(f: &mut Fixture) {
        let before = report(worker(&f.clock), f.now());
        f.fleet().report(before.clone()).await.unwrap();
        f.reopen().await;
        assert_eq!(reported(f).await, [before]);
    }
}

pub(crate) mod time {
    use crate::{conformance::fixture::Fixture, support::wait_until};

    pub(crate) async fn a_clock_that_is_told_goes_on(f: &mut Fixture) {
        // Without a server there is none to tell.
        let Some(first) = f.fleet().clock().await.unwrap() else { return };
        wait_until("time passes", async || f.fleet().clock().await.unwrap() > Some(first)).await;
        f.reopen().await;
        assert!(f.fleet().clock().await.unwrap() > Some(first));
    }
}
