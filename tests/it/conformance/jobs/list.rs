//! Lists, their filters and their pages.

use app::{
    base::page::PageRequest,
    jobs::{
        model::Job,
        state::{State, Verdict},
        store::JobFilter,
    },
};

use super::super::fixture::Fixture;
use crate::support::jobs::{kind, new_job, queue};

pub(crate) async fn newest_first_in_pages_without_gaps_or_doubles(f: &mut Fixture) {
    let mut ids = Vec::new();
    for n in 0..25 {
        // Several in one millisecond, too.
        if n % 3 == 0 {
            f.pass(1);
        }
        ids.push(f.queued().await);
    }
    ids.reverse();
    for limit in [1, 7, 24, 25, 26] {
        let listed: Vec<_> = f.all(&JobFilter::default(), limit).await.iter().map(|j| j.id).collect();
        assert_eq!(listed, ids, "limit {limit}");
    }
}

pub(crate) async fn pages_stay_whole_while_jobs_arrive(f: &mut Fixture) {
    let mut ids = Vec::new();
    for _ in 0..20 {
        ids.push(f.queued().await);
    }
    ids.reverse();
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = f.jobs().list(&JobFilter::default(), PageRequest { limit: 3, after }).await.unwrap();
        seen.extend(page.data.iter().map(|j| j.id));
        // New ones arrive, and the one that the cursor names is forgotten.
        f.queued().await;
        if let Some(last) = page.data.last() {
            let job = f.win(last.id).await;
            f.end(&job, Verdict::Fail).await;
            f.jobs().discard(&[job.id]).await.unwrap();
        }
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    assert_eq!(seen, ids);
}

/// One job in each state and one with each property that can be asked for.
async fn zoo(f: &Fixture) -> Vec<Job> {
    let mut zoo = Vec::new();
    for state in State::ALL {
        zoo.push(f.in_state(state).await.id);
    }
    f.pass(10);
    zoo.push(f.insert(&Job { kind: kind("other"), ..new_job(&f.clock) }).await);
    zoo.push(f.insert(&Job { queue: queue("other"), ..new_job(&f.clock) }).await);
    f.pass(10);
    for tags in [&["a"][..], &["b", "a"], &["A"], &["a%"], &["x\"', y"]] {
        let mut job = new_job(&f.clock);
        job.spec.tags = tags.iter().map(|t| (*t).to_owned()).collect();
        zoo.push(f.insert(&job).await);
    }
    let mut jobs = Vec::new();
    for id in zoo.iter().rev() {
        jobs.push(f.get(*id).await);
    }
    jobs
}

fn matches(filter: &JobFilter, job: &Job) -> bool {
    filter.state.is_none_or(|s| s == job.state)
        && filter.kind.as_ref().is_none_or(|k| *k == job.kind)
        && filter.queue.as_ref().is_none_or(|q| *q == job.queue)
        && filter.tags.iter().all(|t| job.spec.tags.contains(t))
        && filter.created_after.is_none_or(|t| job.created_at >= t)
        && filter.created_before.is_none_or(|t| job.created_at < t)
}

async fn check(f: &Fixture, zoo: &[Job], filter: &JobFilter) -> usize {
    let expected: Vec<_> = zoo.iter().filter(|j| matches(filter, j)).map(|j| j.id).collect();
    for limit in [1, 2, 50] {
        let listed: Vec<_> = f.all(filter, limit).await.iter().map(|j| j.id).collect();
        assert_eq!(listed, expected, "{filter:?} in pages of {limit}");
    }
    expected.len()
}

pub(crate) async fn each_filter_alone(f: &mut Fixture) {
    let start = f.now();
    let zoo = zoo(f).await;
    for state in State::ALL {
        assert!(check(f, &zoo, &JobFilter { state: Some(state), ..JobFilter::default() }).await >= 1);
    }
    let kind = JobFilter { kind: Some(kind("other")), ..JobFilter::default() };
    assert_eq!(check(f, &zoo, &kind).await, 1);
    let queue = JobFilter { queue: Some(queue("other")), ..JobFilter::default() };
    assert_eq!(check(f, &zoo, &queue).await, 1);
    for (tag, n) in [("a", 2), ("b", 1), ("A", 1), ("a%", 1), ("x\"', y", 1), ("", 0), ("%", 0)] {
        let filter = JobFilter { tags: vec![tag.to_owned()], ..JobFilter::default() };
        assert_eq!(check(f, &zoo, &filter).await, n, "tag {tag}");
    }
    let ten = start.plus(std::time::Duration::from_secs(10));
    let after = JobFilter { created_after: Some(ten), ..JobFilter::default() };
    assert_eq!(check(f, &zoo, &after).await, 7);
    let before = JobFilter { created_before: Some(ten), ..JobFilter::default() };
    assert_eq!(check(f, &zoo, &before).await, 6);
}

pub(crate) async fn filters_together(f: &mut Fixture) {
    let start = f.now();
    let zoo = zoo(f).await;
    let some = |n: u32, bit: u32| n & (1 << bit) != 0;
    let mut found = 0;
    for n in 0..64 {
        let at = |s| start.plus(std::time::Duration::from_secs(s));
        let filter = JobFilter {
            state: some(n, 0).then_some(State::Queued),
            kind: some(n, 1).then(|| kind("noop")),
            queue: some(n, 2).then(|| queue("default")),
            tags: some(n, 3).then(|| "a".to_owned()).into_iter().collect(),
            created_after: some(n, 4).then(|| at(20)),
            created_before: some(n, 5).then(|| at(21)),
        };
        found += check(f, &zoo, &filter).await;
    }
    assert!(found > 64, "the filters found next to nothing: {found}");
    // All at once, and one of them wrong.
    let all = JobFilter {
        state: Some(State::Queued),
        kind: Some(kind("noop")),
        queue: Some(queue("default")),
        tags: vec!["b".to_owned()],
        created_after: Some(start),
        created_before: Some(f.in_secs(1)),
    };
    assert_eq!(check(f, &zoo, &all).await, 1);
    assert_eq!(check(f, &zoo, &JobFilter { queue: Some(queue("other")), ..all }).await, 0);
}

pub(crate) async fn nothing_found(f: &mut Fixture) {
    assert!(f.all(&JobFilter::default(), 10).await.is_empty());
    f.queued().await;
    for state in [State::Running, State::Failed, State::Succeeded] {
        assert!(f.all(&JobFilter { state: Some(state), ..JobFilter::default() }, 10).await.is_empty());
    }
}
