//! The suite of [`RecordStore`](app::records::RecordStore): every sentence of its contract in `src/records/mod.rs`.

macro_rules! conformance_records {
    ($adapter:ident, $open:path) => {
        crate::conformance::suite!($adapter, $open, records, fixture::store, {
            one: [
                what_is_written_is_read_by_id_and_by_each_name,
                of_many_names_each_record_is_found_once,
                a_replacement_needs_the_version_and_moves_names_and_labels,
                a_removal_frees_names,
                of_racing_replacements_exactly_one_is_written,
                of_racing_inserts_under_one_name_exactly_one_is_written,
                reopening_keeps_everything,
            ],
            many: [
                a_commit_is_all_or_nothing,
                events_are_kept_with_their_commit_and_not_without_it,
                a_label_may_pass_from_one_to_another_in_one_commit,
                shelves_do_not_meet,
            ],
            lists: [newest_first_in_pages, by_labels, what_expired_is_removed],
        });
    };
}

conformance_records!(sqlite, crate::support::adapters::Sqlite::open_fresh);
conformance_records!(mongodb, crate::support::adapters::Mongodb::open_fresh);

use app::{
    base::page::PageRequest,
    jobs::store::JobFilter,
    records::{Committed, Record, Shelf, Write},
};
use serde_json::json;

use super::fixture::Fixture;

fn words(all: &[&str]) -> Vec<String> {
    all.iter().map(|w| (*w).to_owned()).collect()
}

fn new(f: &Fixture, shelf: Shelf, names: &[&str], labels: &[&str]) -> Record {
    Record {
        shelf,
        id: f.clock.new_uuid(),
        version: 1,
        names: words(names),
        labels: words(labels),
        created_at: f.now(),
        updated_at: f.now(),
        expires_at: None,
        body: json!({ "a.b": [1, null, { "$set": "ü" }], "n": 12_345_678_901_234_567_u64 }),
    }
}

async fn insert(f: &Fixture, record: Record) -> Record {
    let done = f.records().commit(vec![Write::Insert(record.clone())], &[]).await.unwrap();
    assert_eq!(done, Committed::Done);
    record
}

async fn all(f: &Fixture, shelf: Shelf, labels: &[&str], limit: usize) -> Vec<Record> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let page = f.records().list(shelf, &words(labels), PageRequest { limit, after }).await.unwrap();
        assert!(page.data.len() <= limit);
        all.extend(page.data);
        match page.next {
            Some(next) => after = Some(next),
            None => return all,
        }
    }
}

pub(crate) mod one {
    use super::*;

    pub(crate) async fn what_is_written_is_read_by_id_and_by_each_name(f: &mut Fixture) {
        let full = Record {
            expires_at: Some(f.in_secs(60)),
            ..new(f, Shelf::Users, &["email:ü@example.com", "nick:a/b"], &["role:admin", "x"])
        };
        insert(f, full.clone()).await;
        let bare = insert(f, new(f, Shelf::Users, &[], &[])).await;
        assert_eq!(f.records().get(Shelf::Users, full.id).await.unwrap(), Some(full.clone()));
        assert_eq!(f.records().get(Shelf::Users, bare.id).await.unwrap(), Some(bare));
        for name in &full.names {
            assert_eq!(f.records().find(Shelf::Users, name).await.unwrap(), Some(full.clone()));
        }
        assert_eq!(f.records().get(Shelf::Users, f.clock.new_uuid()).await.unwrap(), None);
        let others = ["email:", "email", "", "role:admin"];
        for other in others {
            assert_eq!(f.records().find(Shelf::Users, other).await.unwrap(), None, "{other:?}");
        }
        assert_eq!(f.records().find_any(Shelf::Users, &words(&others)).await.unwrap(), []);
        let again = f.records().commit(vec![Write::Insert(full.clone())], &[]).await.unwrap();
        assert_eq!(again, Committed::Stale(full.id), "an id is given once");
    }

    pub(crate) async fn of_many_names_each_record_is_found_once(f: &mut Fixture) {
        let two = insert(f, new(f, Shelf::Users, &["a", "b"], &[])).await;
        let one = insert(f, new(f, Shelf::Users, &["c"], &[])).await;
        insert(f, new(f, Shelf::Users, &["d"], &[])).await;
        insert(f, new(f, Shelf::Rules, &["a"], &[])).await;
        let mut found = f.records().find_any(Shelf::Users, &words(&["a", "b", "c", "nobody"])).await.unwrap();
        found.sort_by_key(|r| r.id);
        assert_eq!(found, [two, one]);
        assert_eq!(f.records().find_any(Shelf::Users, &[]).await.unwrap(), []);
    }

    pub(crate) async fn a_replacement_needs_the_version_and_moves_names_and_labels(f: &mut Fixture) {
        let first = insert(f, new(f, Shelf::Rules, &["a", "both"], &["old", "both"])).await;
        let other = insert(f, new(f, Shelf::Rules, &["taken"], &[])).await;
        let second = Record {
            version: 2,
            names: words(&["b", "both"]),
            labels: words(&["new", "both"]),
            updated_at: f.in_secs(5),
            body: json!({ "now": "another" }),
            ..first.clone()
        };
        let replace = |record: &Record, expected| vec![Write::Replace { record: record.clone(), expected }];
        for wrong in [0, 2, 9] {
            let done = f.records().commit(replace(&second, wrong), &[]).await.unwrap();
            assert_eq!(done, Committed::Stale(first.id));
        }
        let clash = Record { names: words(&["taken"]), ..second.clone() };
        let done = f.records().commit(replace(&clash, 1), &[]).await.unwrap();
        assert_eq!(done, Committed::Taken("taken".to_owned()));
        assert_eq!(f.records().get(Shelf::Rules, first.id).await.unwrap(), Some(first.clone()));
        assert_eq!(f.records().commit(replace(&second, 1), &[]).await.unwrap(), Committed::Done);
        assert_eq!(f.records().find(Shelf::Rules, "b").await.unwrap(), Some(second.clone()));
        assert_eq!(f.records().find(Shelf::Rules, "both").await.unwrap(), Some(second.clone()));
        assert_eq!(f.records().find(Shelf::Rules, "a").await.unwrap(), None);
        assert_eq!(all(f, Shelf::Rules, &["old"], 9).await, []);
        assert_eq!(all(f, Shelf::Rules, &["new"], 9).await, [second]);
        let gone = new(f, Shelf::Rules, &[], &[]);
        assert_eq!(f.records().commit(replace(&gone, 1), &[]).await.unwrap(), Committed::Stale(gone.id));
        assert_eq!(f.records().get(Shelf::Rules, other.id).await.unwrap(), Some(other));
    }

    pub(crate) async fn a_removal_frees_names(f: &mut Fixture) {
        let first = insert(f, new(f, Shelf::Users, &["n"], &["l"])).await;
        let remove = |id, expected| vec![Write::Remove { shelf: Shelf::Users, id, expected }];
        let done = f.records().commit(remove(first.id, Some(2)), &[]).await.unwrap();
        assert_eq!(done, Committed::Stale(first.id));
        assert_eq!(f.records().commit(remove(first.id, Some(1)), &[]).await.unwrap(), Committed::Done);
        assert_eq!(f.records().commit(remove(first.id, None), &[]).await.unwrap(), Committed::Stale(first.id));
        assert_eq!(f.records().find(Shelf::Users, "n").await.unwrap(), None);
        assert_eq!(all(f, Shelf::Users, &["l"], 9).await, []);
        let second = insert(f, new(f, Shelf::Users, &["n"], &["l"])).await;
        assert_eq!(f.records().commit(remove(second.id, None), &[]).await.unwrap(), Committed::Done);
    }

    pub(crate) async fn of_racing_replacements_exactly_one_is_written(f: &mut Fixture) {
        let first = insert(f, new(f, Shelf::Users, &["n"], &[])).await;
        for expected in 1..=5 {
            let mut calls = tokio::task::JoinSet::new();
            for n in 0..8 {
                let (store, events) = (f.records(), [f.event()]);
                let record = Record { version: expected + 1, body: json!({ "by": n }), ..first.clone() };
                calls.spawn(async move {
                    store.commit(vec![Write::Replace { record, expected }], &events).await.unwrap() == Committed::Done
                });
            }
            let won = calls.join_all().await.into_iter().filter(|w| *w).count();
            assert_eq!(won, 1);
        }
        assert_eq!(f.all(&JobFilter::default(), 50).await.len(), 5, "one event for each that was written");
    }

    pub(crate) async fn of_racing_inserts_under_one_name_exactly_one_is_written(f: &mut Fixture) {
        for with_event in [false, true] {
            let mut calls = tokio::task::JoinSet::new();
            let name = format!("email:{with_event}");
            for _ in 0..8 {
                let (store, record) = (f.records(), new(f, Shelf::Users, &[&name], &[]));
                let events: Vec<_> = with_event.then(|| f.event()).into_iter().collect();
                calls.spawn(async move { store.commit(vec![Write::Insert(record)], &events).await.unwrap() });
            }
            let mut done = calls.join_all().await;
            done.sort_by_key(|d| *d != Committed::Done);
            assert_eq!(done[0], Committed::Done);
            assert!(done[1..].iter().all(|d| *d == Committed::Taken(name.clone())), "{done:?}");
        }
        assert_eq!(f.all(&JobFilter::default(), 50).await.len(), 1);
    }

    pub(crate) async fn reopening_keeps_everything(f: &mut Fixture) {
        let record = insert(f, new(f, Shelf::Templates, &["n"], &["l"])).await;
        f.reopen().await;
        assert_eq!(f.records().find(Shelf::Templates, "n").await.unwrap(), Some(record.clone()));
        assert_eq!(all(f, Shelf::Templates, &["l"], 1).await, [record]);
    }
}

pub(crate) mod many {
    use super::*;

    pub(crate) async fn a_commit_is_all_or_nothing(f: &mut Fixture) {
        let first = insert(f, new(f, Shelf::Users, &["a"], &[])).await;
        let new_one = new(f, Shelf::Users, &["b"], &["l"]);
        let changed = Record { version: 2, names: words(&["c"]), ..first.clone() };
        let ok = vec![
            Write::Insert(new_one.clone()),
            Write::Replace { record: changed.clone(), expected: 1 },
            Write::Remove { shelf: Shelf::Users, id: first.id, expected: Some(7) },
        ];
        assert_eq!(f.records().commit(ok, &[f.event()]).await.unwrap(), Committed::Stale(first.id));
        let taken = vec![
            Write::Replace { record: changed.clone(), expected: 1 },
            Write::Insert(new_one.clone()),
            Write::Insert(new(f, Shelf::Users, &["a2", "c"], &[])),
        ];
        let taken = f.records().commit(taken, &[f.event()]).await;
        // Two writes of one commit under one name are a mistake of the caller: refused one way or the other.
        assert!(taken != Ok(Committed::Done), "{taken:?}");
        assert_eq!(f.records().get(Shelf::Users, first.id).await.unwrap(), Some(first.clone()));
        assert_eq!(f.records().get(Shelf::Users, new_one.id).await.unwrap(), None);
        assert_eq!(f.all(&JobFilter::default(), 50).await.len(), 0);
        let both = vec![Write::Insert(new_one.clone()), Write::Replace { record: changed.clone(), expected: 1 }];
        assert_eq!(f.records().commit(both, &[]).await.unwrap(), Committed::Done);
        assert_eq!(f.records().get(Shelf::Users, first.id).await.unwrap(), Some(changed));
        assert_eq!(f.records().find(Shelf::Users, "b").await.unwrap(), Some(new_one));
    }

    pub(crate) async fn events_are_kept_with_their_commit_and_not_without_it(f: &mut Fixture) {
        let (first, second) = (f.event(), f.event());
        let record = new(f, Shelf::Users, &["n"], &[]);
        let done = f.records().commit(vec![Write::Insert(record)], &[first.clone(), second.clone()]).await.unwrap();
        assert_eq!(done, Committed::Done);
        let clash = vec![Write::Insert(new(f, Shelf::Users, &["n"], &[]))];
        assert_eq!(f.records().commit(clash, &[f.event()]).await.unwrap(), Committed::Taken("n".to_owned()));
        let told: Vec<_> = f.all(&JobFilter::default(), 50).await.iter().rev().map(|j| j.id.0).collect();
        assert_eq!(told, [first.id, second.id]);
    }

    pub(crate) async fn a_label_may_pass_from_one_to_another_in_one_commit(f: &mut Fixture) {
        let old = insert(f, new(f, Shelf::Templates, &["latest"], &["latest"])).await;
        let next = new(f, Shelf::Templates, &["v2"], &["latest"]);
        let retired = Record { version: 2, labels: Vec::new(), ..old.clone() };
        let pass = vec![Write::Replace { record: retired, expected: 1 }, Write::Insert(next.clone())];
        assert_eq!(f.records().commit(pass, &[]).await.unwrap(), Committed::Done);
        assert_eq!(all(f, Shelf::Templates, &["latest"], 9).await, [next]);
    }

    pub(crate) async fn shelves_do_not_meet(f: &mut Fixture) {
        let user = insert(f, new(f, Shelf::Users, &["n"], &["l"])).await;
        let rule = insert(f, Record { id: user.id, ..new(f, Shelf::Rules, &["n"], &["l"]) }).await;
        for shelf in Shelf::ALL {
            let expected = match shelf {
                Shelf::Users => Some(&user),
                Shelf::Rules => Some(&rule),
                _ => None,
            };
            assert_eq!(f.records().find(shelf, "n").await.unwrap().as_ref(), expected);
            assert_eq!(f.records().get(shelf, user.id).await.unwrap().as_ref(), expected);
            assert_eq!(all(f, shelf, &[], 9).await.first(), expected);
            assert_eq!(all(f, shelf, &["l"], 9).await.first(), expected);
        }
    }
}

pub(crate) mod lists {
    use super::*;

    pub(crate) async fn newest_first_in_pages(f: &mut Fixture) {
        let mut made = Vec::new();
        for _ in 0..7 {
            made.insert(0, insert(f, new(f, Shelf::Sink, &[], &["l"])).await);
        }
        for limit in [1, 3, 7, 50] {
            assert_eq!(all(f, Shelf::Sink, &[], limit).await, made, "pages of {limit}");
            assert_eq!(all(f, Shelf::Sink, &["l"], limit).await, made, "pages of {limit}");
        }
    }

    pub(crate) async fn by_labels(f: &mut Fixture) {
        let a = insert(f, new(f, Shelf::Sink, &[], &["x:1", "y:1"])).await;
        let b = insert(f, new(f, Shelf::Sink, &[], &["x:1", "y:2"])).await;
        let c = insert(f, new(f, Shelf::Sink, &[], &["x:10"])).await;
        assert_eq!(all(f, Shelf::Sink, &["x:1"], 1).await, [b.clone(), a.clone()]);
        assert_eq!(all(f, Shelf::Sink, &["x:1", "y:1"], 1).await, [a]);
        assert_eq!(all(f, Shelf::Sink, &["y:2", "x:1"], 1).await, [b]);
        assert_eq!(all(f, Shelf::Sink, &["x:10"], 1).await, [c]);
        assert_eq!(all(f, Shelf::Sink, &["x:10", "y:1"], 1).await, []);
        assert_eq!(all(f, Shelf::Sink, &["x:"], 1).await, []);
    }

    pub(crate) async fn what_expired_is_removed(f: &mut Fixture) {
        let soon = |names: &[&str]| Record { expires_at: Some(f.in_secs(10)), ..new(f, Shelf::Sink, names, &["l"]) };
        for n in ["a", "b", "c"] {
            insert(f, soon(&[n])).await;
        }
        let late = insert(f, Record { expires_at: Some(f.in_secs(60)), ..new(f, Shelf::Sink, &[], &["l"]) }).await;
        let never = insert(f, new(f, Shelf::Users, &[], &[])).await;
        assert_eq!(f.records().expire(f.now(), 100).await.unwrap(), 0);
        f.pass(11);
        assert_eq!(f.records().expire(f.now(), 2).await.unwrap(), 2);
        assert_eq!(f.records().expire(f.now(), 2).await.unwrap(), 1);
        assert_eq!(f.records().expire(f.now(), 2).await.unwrap(), 0);
        assert_eq!(all(f, Shelf::Sink, &["l"], 9).await, [late]);
        assert_eq!(f.records().get(Shelf::Users, never.id).await.unwrap(), Some(never));
        insert(f, new(f, Shelf::Sink, &["a"], &[])).await;
    }
}
