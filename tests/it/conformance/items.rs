//! The suite of [`ItemStore`](app::items::ItemStore): every sentence of its contract in `src/items/store.rs`.

macro_rules! conformance_items {
    ($adapter:ident, $open:path) => {
        crate::conformance::suite!($adapter, $open, items, fixture::store, {
            one: [
                what_is_stored_is_what_is_read,
                an_update_needs_the_version,
                of_racing_updates_exactly_one_is_written,
                of_racing_deletes_exactly_one_removes,
                each_change_keeps_its_event_and_no_other,
                reopening_keeps_everything,
            ],
            lists: [
                newest_first_in_pages_without_gaps_or_doubles,
                pages_stay_whole_while_items_come_and_go,
                each_filter_alone,
                filters_together,
            ],
        });
    };
}

conformance_items!(sqlite, crate::support::adapters::Sqlite::open_fresh);
conformance_items!(mongodb, crate::support::adapters::Mongodb::open_fresh);

use app::{
    base::id::ItemId,
    items::Item,
    jobs::{state::State, store::JobFilter},
};
use serde_json::{Map, Value, json};

use super::fixture::Fixture;

fn metadata(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        other => panic!("{other} is no object"),
    }
}

fn new(f: &Fixture, name: &str) -> Item {
    Item {
        id: ItemId(f.clock.new_uuid()),
        name: name.to_owned(),
        description: None,
        metadata: Map::new(),
        created_at: f.now(),
        updated_at: f.now(),
        version: 1,
    }
}

async fn insert(f: &Fixture, item: Item) -> Item {
    f.items().insert(item.clone(), &f.event()).await.unwrap();
    item
}

pub(crate) mod one {
    use super::*;

    pub(crate) async fn what_is_stored_is_what_is_read(f: &mut Fixture) {
        let item = Item {
            description: Some("line\nÜ \u{1F600}".to_owned()),
            metadata: metadata(json!({
                "category": "test", "n": 12_345_678_901_234_567_u64, "x": -0.5, "none": null, "deep": [[{"a": []}]]
            })),
            ..new(f, "Test Item")
        };
        insert(f, item.clone()).await;
        assert_eq!(f.items().get(item.id).await.unwrap(), Some(item));
        let bare = insert(f, Item { description: Some(String::new()), ..new(f, "ü") }).await;
        assert_eq!(f.items().get(bare.id).await.unwrap(), Some(bare));
        assert_eq!(f.items().get(ItemId(f.clock.new_uuid())).await.unwrap(), None);
    }

    pub(crate) async fn an_update_needs_the_version(f: &mut Fixture) {
        let (first, other) = (insert(f, new(f, "first")).await, insert(f, new(f, "other")).await);
        f.pass(5);
        let second = Item {
            name: "second".to_owned(),
            description: Some("d".to_owned()),
            metadata: metadata(json!({ "a": 1 })),
            updated_at: f.now(),
            version: 2,
            ..first.clone()
        };
        for wrong in [0, 2, 99] {
            assert!(!f.items().update(first.id, wrong, second.clone(), &f.event()).await.unwrap());
        }
        assert_eq!(f.items().get(first.id).await.unwrap(), Some(first.clone()));
        assert!(f.items().update(first.id, 1, second.clone(), &f.event()).await.unwrap());
        assert!(!f.items().update(first.id, 1, first.clone(), &f.event()).await.unwrap());
        assert_eq!(f.items().get(first.id).await.unwrap(), Some(second));
        assert_eq!(f.items().get(other.id).await.unwrap(), Some(other));
        let gone = new(f, "gone");
        assert!(!f.items().update(gone.id, 1, gone.clone(), &f.event()).await.unwrap());
        assert_eq!(f.items().get(gone.id).await.unwrap(), None, "an update makes nothing");
    }

    pub(crate) async fn each_change_keeps_its_event_and_no_other(f: &mut Fixture) {
        let item = new(f, "told");
        let (made, changed, gone) = (f.event(), f.event(), f.event());
        f.items().insert(item.clone(), &made).await.unwrap();
        assert!(f.items().update(item.id, 1, Item { version: 2, ..item.clone() }, &changed).await.unwrap());
        assert!(!f.items().update(item.id, 1, item.clone(), &f.event()).await.unwrap());
        assert!(f.items().delete(item.id, &gone).await.unwrap());
        assert!(!f.items().delete(item.id, &f.event()).await.unwrap());
        let told = f.all(&JobFilter::default(), 50).await;
        let ids: Vec<_> = told.iter().rev().map(|j| j.id.0).collect();
        assert_eq!(ids, [made.id, changed.id, gone.id]);
        for job in told {
            assert_eq!((job.state, job.kind.as_str(), job.queue.as_str()), (State::Queued, "event", "events"));
        }
    }

    pub(crate) async fn of_racing_updates_exactly_one_is_written(f: &mut Fixture) {
        let item = insert(f, new(f, "0")).await;
        for version in 1..=10 {
            let mut calls = tokio::task::JoinSet::new();
            for n in 0..8 {
                let (store, event) = (f.items(), f.event());
                let next = Item { name: format!("{version}/{n}"), version: version + 1, ..item.clone() };
                calls.spawn(async move {
                    let name = next.name.clone();
                    (name, store.update(next.id, version, next, &event).await.unwrap())
                });
            }
            let won: Vec<String> = calls.join_all().await.into_iter().filter(|(_, w)| *w).map(|(n, _)| n).collect();
            assert_eq!(won.len(), 1);
            let now = f.items().get(item.id).await.unwrap().unwrap();
            assert_eq!((now.version, &now.name), (version + 1, &won[0]));
        }
    }

    pub(crate) async fn of_racing_deletes_exactly_one_removes(f: &mut Fixture) {
        let (item, kept) = (insert(f, new(f, "a")).await, insert(f, new(f, "b")).await);
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let (store, event, id) = (f.items(), f.event(), item.id);
            calls.spawn(async move { store.delete(id, &event).await.unwrap() });
        }
        assert_eq!(calls.join_all().await.into_iter().filter(|gone| *gone).count(), 1);
        assert_eq!(f.items().get(item.id).await.unwrap(), None);
        assert!(!f.items().delete(item.id, &f.event()).await.unwrap());
        assert!(!f.items().update(item.id, 1, item.clone(), &f.event()).await.unwrap());
        assert_eq!(f.items().get(kept.id).await.unwrap(), Some(kept));
    }

    pub(crate) async fn reopening_keeps_everything(f: &mut Fixture) {
        let (kept, gone) = (insert(f, new(f, "kept")).await, insert(f, new(f, "gone")).await);
        let changed = Item { name: "changed".to_owned(), version: 2, ..kept };
        assert!(f.items().update(changed.id, 1, changed.clone(), &f.event()).await.unwrap());
        assert!(f.items().delete(gone.id, &f.event()).await.unwrap());
        f.reopen().await;
        assert_eq!(f.items().get(changed.id).await.unwrap(), Some(changed));
        assert_eq!(f.items().get(gone.id).await.unwrap(), None);
    }
}

pub(crate) mod lists {
    use app::{base::page::PageRequest, items::ItemFilter};

    use super::*;

    /// Every item that matches, page by page; each page but the last is full.
    async fn all(f: &Fixture, filter: &ItemFilter, limit: usize) -> Vec<ItemId> {
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let page = f.items().list(filter, PageRequest { limit, after }).await.unwrap();
            all.extend(page.data.iter().map(|i| i.id));
            match page.next {
                Some(next) => {
                    assert_eq!(page.data.len(), limit, "only the last page may be short");
                    after = Some(next);
                }
                None => return all,
            }
        }
    }

    pub(crate) async fn newest_first_in_pages_without_gaps_or_doubles(f: &mut Fixture) {
        assert!(all(f, &ItemFilter::default(), 5).await.is_empty());
        let mut ids = Vec::new();
        for n in 0..12 {
            if n % 4 == 0 {
                f.pass(1);
            }
            ids.insert(0, insert(f, new(f, &n.to_string())).await.id);
        }
        for limit in [1, 5, 6, 12, 13] {
            assert_eq!(all(f, &ItemFilter::default(), limit).await, ids, "limit {limit}");
        }
        // `next` is set exactly if more match.
        let page = f.items().list(&ItemFilter::default(), PageRequest { limit: 12, after: None }).await.unwrap();
        assert_eq!((page.data.len(), page.next), (12, None));
    }

    pub(crate) async fn pages_stay_whole_while_items_come_and_go(f: &mut Fixture) {
        let mut ids = Vec::new();
        for n in 0..12 {
            ids.insert(0, insert(f, new(f, &n.to_string())).await.id);
        }
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let page = f.items().list(&ItemFilter::default(), PageRequest { limit: 5, after }).await.unwrap();
            seen.extend(page.data.iter().map(|i| i.id));
            insert(f, new(f, "new")).await;
            // The one that the cursor names goes.
            if let Some(last) = page.data.last() {
                assert!(f.items().delete(last.id, &f.event()).await.unwrap());
            }
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        assert_eq!(seen, ids);
    }

    /// Items that differ in what can be asked for, newest first.
    async fn zoo(f: &Fixture) -> Vec<Item> {
        let mut zoo = Vec::new();
        let categories = [
            ("Test Item", json!({ "category": "test" })),
            ("ÜBERGRÖSSE", json!({ "category": "Test" })),
            ("100%", json!({ "category": "test", "x": 1 })),
            ("under_score", json!({ "category": ["test"] })),
            ("x' OR 1=1 --", json!({ "other": "test" })),
            ("last item", json!({ "category": null })),
        ];
        for (name, value) in categories {
            f.pass(10);
            zoo.insert(0, insert(f, Item { metadata: metadata(value), ..new(f, name) }).await);
        }
        zoo
    }

    async fn found(f: &Fixture, zoo: &[Item], filter: &ItemFilter) -> Vec<String> {
        let ids = all(f, filter, 2).await;
        assert_eq!(ids, all(f, filter, 100).await);
        zoo.iter().filter(|i| ids.contains(&i.id)).map(|i| i.name.clone()).collect()
    }

    pub(crate) async fn each_filter_alone(f: &mut Fixture) {
        let start = f.now();
        let zoo = zoo(f).await;
        let names = [
            ("item", vec!["last item", "Test Item"]),
            ("ITEM", vec!["last item", "Test Item"]),
            ("übergrö", vec!["ÜBERGRÖSSE"]),
            ("%", vec!["100%"]),
            ("_", vec!["under_score"]),
            ("' or 1", vec!["x' OR 1=1 --"]),
            ("nothing like it", vec![]),
        ];
        for (text, expected) in names {
            let filter = ItemFilter { name_contains: Some(text.to_owned()), ..ItemFilter::default() };
            assert_eq!(found(f, &zoo, &filter).await, expected, "{text}");
        }
        for (category, expected) in [("test", vec!["100%", "Test Item"]), ("Test", vec!["ÜBERGRÖSSE"]), ("", vec![])]
        {
            let filter = ItemFilter { category: Some(category.to_owned()), ..ItemFilter::default() };
            assert_eq!(found(f, &zoo, &filter).await, expected, "{category}");
        }
        let at = |s| start.plus(std::time::Duration::from_secs(s));
        let after = ItemFilter { created_after: Some(at(50)), ..ItemFilter::default() };
        assert_eq!(found(f, &zoo, &after).await, ["last item", "x' OR 1=1 --"]);
        let before = ItemFilter { created_before: Some(at(20)), ..ItemFilter::default() };
        assert_eq!(found(f, &zoo, &before).await, ["Test Item"]);
    }

    pub(crate) async fn filters_together(f: &mut Fixture) {
        let start = f.now();
        let zoo = zoo(f).await;
        let at = |s| Some(start.plus(std::time::Duration::from_secs(s)));
        let filter = ItemFilter {
            name_contains: Some("t".to_owned()),
            category: Some("test".to_owned()),
            created_after: at(10),
            created_before: at(11),
        };
        assert_eq!(found(f, &zoo, &filter).await, ["Test Item"]);
        let none = ItemFilter { created_after: at(11), ..filter.clone() };
        assert!(found(f, &zoo, &none).await.is_empty());
        let none = ItemFilter { category: Some("Test".to_owned()), ..filter };
        assert!(found(f, &zoo, &none).await.is_empty());
    }
}
