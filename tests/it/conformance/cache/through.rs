//! Records read through a cache by several processes, with a store that can be watched and held up.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use app::cache::Through;
use tokio::sync::oneshot;

use super::super::fixture::CacheFixture;

/// Records by id, and how often they were loaded.
#[derive(Clone, Default)]
struct Store(Arc<(Mutex<BTreeMap<String, u64>>, AtomicUsize)>);

impl Store {
    fn put(&self, id: &str, value: u64) {
        self.0.0.lock().unwrap().insert(id.to_owned(), value);
    }

    fn remove(&self, id: &str) {
        self.0.0.lock().unwrap().remove(id);
    }

    fn load(&self, id: &str) -> Option<u64> {
        self.0.1.fetch_add(1, Ordering::SeqCst);
        self.0.0.lock().unwrap().get(id).copied()
    }

    fn loads(&self) -> usize {
        self.0.1.load(Ordering::SeqCst)
    }

    /// A reader's answer.
    async fn read(&self, cache: &Through, id: &str) -> Option<u64> {
        cache.read(id, async || Ok::<_, Infallible>(self.load(id))).await.unwrap()
    }

    /// A whole write.
    async fn write(&self, cache: &Through, id: &str, value: u64) {
        let mark = cache.begin(id).await;
        self.put(id, value);
        mark.end(Some(&value)).await;
    }
}

/// A reader that has loaded and is held up before it can cache what it loaded.
async fn held_reader(store: &Store, cache: Through) -> (oneshot::Sender<()>, tokio::task::JoinHandle<Option<u64>>) {
    let (loaded, has_loaded) = oneshot::channel();
    let (go_on, may_go_on) = oneshot::channel();
    let store = store.clone();
    let reader = tokio::spawn(async move {
        let load = || async move {
            let found = store.load("x");
            loaded.send(()).unwrap();
            may_go_on.await.unwrap();
            Ok::<_, Infallible>(found)
        };
        cache.read("x", load).await.unwrap()
    });
    has_loaded.await.unwrap();
    (go_on, reader)
}

pub(crate) async fn a_record_is_loaded_once_for_all_processes(f: &mut CacheFixture) {
    let store = Store::default();
    store.put("x", 1);
    for _ in 0..5 {
        assert_eq!(store.read(&f.through(), "x").await, Some(1));
    }
    assert_eq!(store.loads(), 1);
    // What a writer wrote need not be loaded at all.
    store.write(&f.through(), "x", 2).await;
    assert_eq!(store.read(&f.through(), "x").await, Some(2));
    assert_eq!(store.loads(), 1);
}

pub(crate) async fn what_does_not_exist_is_asked_for_again(f: &mut CacheFixture) {
    let (store, cache) = (Store::default(), f.through());
    assert_eq!(store.read(&cache, "x").await, None);
    store.put("x", 1);
    assert_eq!(store.read(&cache, "x").await, Some(1));
}

pub(crate) async fn a_write_is_seen_by_every_process_at_once(f: &mut CacheFixture) {
    let store = Store::default();
    let processes = [f.through(), f.through(), f.through()];
    store.put("x", 0);
    for n in 1..30 {
        for cache in &processes {
            assert_eq!(store.read(cache, "x").await, Some(n - 1));
        }
        store.write(&processes[n as usize % 3], "x", n).await;
    }
    assert_eq!(store.loads(), 1);
}

pub(crate) async fn a_reader_overtaken_by_a_writer_caches_nothing(f: &mut CacheFixture) {
    let store = Store::default();
    store.put("x", 1);
    let (go_on, reader) = held_reader(&store, f.through()).await;
    store.write(&f.through(), "x", 2).await;
    go_on.send(()).unwrap();
    // It began before the write did, so it may answer either; nobody after it may.
    assert_eq!(reader.await.unwrap(), Some(1));
    for _ in 0..3 {
        assert_eq!(store.read(&f.through(), "x").await, Some(2));
    }
}

pub(crate) async fn a_reader_that_began_during_a_write_caches_nothing(f: &mut CacheFixture) {
    let (store, writer) = (Store::default(), f.through());
    store.put("x", 1);
    let mark = writer.begin("x").await;
    let (go_on, reader) = held_reader(&store, f.through()).await;
    store.put("x", 2);
    // Released before the write has ended, and again after.
    go_on.send(()).unwrap();
    assert_eq!(reader.await.unwrap(), Some(1));
    assert_eq!(store.read(&f.through(), "x").await, Some(2));
    let (go_on, reader) = held_reader(&store, f.through()).await;
    store.put("x", 3);
    mark.end(Some(&3)).await;
    go_on.send(()).unwrap();
    assert_eq!(reader.await.unwrap(), Some(2));
    assert_eq!(store.read(&f.through(), "x").await, Some(3));
}

pub(crate) async fn a_writer_that_dies_leaves_nothing_stale(f: &mut CacheFixture) {
    let store = Store::default();
    store.put("x", 1);
    assert_eq!(store.read(&f.through(), "x").await, Some(1));
    // Dead before it wrote, and dead before it could tell the cache.
    drop(f.through().begin("x").await);
    assert_eq!(store.read(&f.through(), "x").await, Some(1));
    let mark = f.through().begin("x").await;
    store.put("x", 2);
    drop(mark);
    for _ in 0..3 {
        assert_eq!(store.read(&f.through(), "x").await, Some(2));
    }
}

pub(crate) async fn writers_that_overlap_leave_nothing_stale(f: &mut CacheFixture) {
    // Two writers: each begins, writes and ends, in every order that keeps these three in theirs; the reader looks after each
    // step, and one of the two may die instead of ending.
    for (n, order) in ["ABABAB", "AABBAB", "ABBABA", "ABBBAA", "ABAABB", "AABBBA"].iter().enumerate() {
        for dies in ["", "A", "B"] {
            let (store, id) = (Store::default(), format!("x{n}{dies}"));
            store.put(&id, 0);
            let mut marks = BTreeMap::new();
            let mut steps = BTreeMap::from([('A', 0), ('B', 0)]);
            for (at, who) in order.chars().enumerate() {
                let step = steps.get_mut(&who).unwrap();
                *step += 1;
                match *step {
                    1 => drop(marks.insert(who, f.through().begin(&id).await)),
                    2 => store.put(&id, at as u64),
                    _ if dies.contains(who) => drop(marks.remove(&who)),
                    // Writers that overlap cannot know which of them wrote last; each brings what it wrote.
                    _ => {
                        let wrote = order.char_indices().filter(|(_, w)| *w == who).nth(1).unwrap().0 as u64;
                        marks.remove(&who).unwrap().end(Some(&wrote)).await;
                    }
                }
                let now = store.load(&id);
                assert_eq!(store.read(&f.through(), &id).await, now, "{order}, {dies} dies, step {at}");
            }
        }
    }
}

pub(crate) async fn a_removed_record_is_gone(f: &mut CacheFixture) {
    let store = Store::default();
    store.put("x", 1);
    let (go_on, reader) = held_reader(&store, f.through()).await;
    let mark = f.through().begin("x").await;
    store.remove("x");
    mark.end(None::<&u64>).await;
    go_on.send(()).unwrap();
    assert_eq!(reader.await.unwrap(), Some(1));
    assert_eq!(store.read(&f.through(), "x").await, None);
}

pub(crate) async fn another_shape_is_not_read(f: &mut CacheFixture) {
    let store = Store::default();
    store.put("x", 1);
    let newer = Through::new(f.connect(), "test", 2, super::HOUR);
    assert_eq!(store.read(&f.through(), "x").await, Some(1));
    assert_eq!(store.read(&newer, "x").await, Some(1));
    assert_eq!(store.loads(), 2);
    assert_eq!(store.read(&newer, "x").await, Some(1));
    assert_eq!(store.loads(), 2, "the newer shape has taken the older one's place");
    // A write through one is seen through the other.
    store.write(&f.through(), "x", 2).await;
    assert_eq!(store.read(&newer, "x").await, Some(2));
}

/// Each writer notes what it wrote once it has answered; no later reader may see less, as values only grow.
pub(crate) async fn readers_and_writers_at_random_never_see_what_was_overwritten(f: &mut CacheFixture) {
    let (store, next) = (Store::default(), Arc::new(AtomicU64::new(1)));
    let answered: Arc<[AtomicU64; 3]> = Arc::default();
    let ids = ["a", "b", "c"];
    ids.iter().for_each(|id| store.put(id, 0));
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..8_u64 {
        let (store, next, answered, cache) = (store.clone(), Arc::clone(&next), Arc::clone(&answered), f.through());
        tasks.spawn(async move {
            for step in 0..150_u64 {
                let n = fastrand::usize(..3);
                // Few write, so that there is something to be cached.
                if (task + step) % 11 == 0 {
                    let mark = cache.begin(ids[n]).await;
                    let value = {
                        let mut records = store.0.0.lock().unwrap();
                        let value = next.fetch_add(1, Ordering::SeqCst);
                        records.insert(ids[n].to_owned(), value);
                        value
                    };
                    // Some die here, after the store has the record.
                    if fastrand::u8(..4) > 0 {
                        mark.end(Some(&value)).await;
                    }
                    answered[n].fetch_max(value, Ordering::SeqCst);
                } else {
                    let least = answered[n].load(Ordering::SeqCst);
                    let seen = store.read(&cache, ids[n]).await.unwrap();
                    assert!(seen >= least, "{seen} was read after {least} had been written");
                }
            }
        });
    }
    tasks.join_all().await;
}
