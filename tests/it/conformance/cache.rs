//! The suite of [`Cache`](app::cache::Cache), every sentence of its contract in `src/cache/mod.rs`, and of
//! [`Through`](app::cache::Through) over each adapter: a record is never stale once its write has answered.

macro_rules! conformance_cache {
    ($adapter:ident, $open:path) => {
        crate::conformance::suite!($adapter, $open, cache, fixture::cache, {
            values: [
                every_process_sees_what_is_set,
                any_bytes_are_kept,
                a_value_is_gone_after_its_time,
                a_set_replaces_value_and_time,
                deleted_keys_are_gone_for_every_process,
            ],
            updates: [
                only_the_expected_version_is_replaced,
                of_many_writers_each_wins_once,
                a_version_never_comes_again,
                what_is_over_counts_as_absent,
            ],
            counts: [no_increment_is_lost, a_window_ends_however_often_it_is_counted],
            limits: [
                a_burst_is_admitted_and_no_more,
                after_the_wait_one_more_is_admitted,
                many_processes_share_one_limit,
            ],
            through: [
                a_record_is_loaded_once_for_all_processes,
                what_does_not_exist_is_asked_for_again,
                a_write_is_seen_by_every_process_at_once,
                a_reader_overtaken_by_a_writer_caches_nothing,
                a_reader_that_began_during_a_write_caches_nothing,
                a_writer_that_dies_leaves_nothing_stale,
                writers_that_overlap_leave_nothing_stale,
                a_removed_record_is_gone,
                another_shape_is_not_read,
                readers_and_writers_at_random_never_see_what_was_overwritten,
            ],
        });
    };
}

conformance_cache!(memory, crate::support::adapters::Memory::open_fresh);
conformance_cache!(redis, crate::support::adapters::RedisCache::open_fresh);

use std::time::Duration;

use super::fixture::CacheFixture;
use crate::support::wait_until;

const HOUR: Duration = Duration::from_secs(3600);
/// Soon over on a server, and never while a case is still writing on a manual clock.
const SOON: Duration = Duration::from_millis(50);

pub(crate) mod through;

async fn read(cache: &dyn app::cache::Cache, key: &str) -> Option<Vec<u8>> {
    cache.get(key).await.unwrap().map(|e| e.value)
}

pub(crate) mod values {
    use super::*;

    pub(crate) async fn every_process_sees_what_is_set(f: &mut CacheFixture) {
        let (a, b) = (f.connect(), f.connect());
        assert_eq!(read(&*b, "k").await, None);
        a.set("k", b"one", HOUR).await.unwrap();
        assert_eq!(read(&*b, "k").await.unwrap(), b"one");
        assert_eq!(read(&*b, "K").await, None);
    }

    pub(crate) async fn any_bytes_are_kept(f: &mut CacheFixture) {
        let cache = f.connect();
        let all: Vec<u8> = (0..=255).cycle().take(200_000).collect();
        for value in [&b""[..], b"\0", b"{\"a\": 1}\r\n", &all] {
            cache.set("k", value, HOUR).await.unwrap();
            assert_eq!(read(&*cache, "k").await.unwrap(), value);
        }
        for key in ["a b", "{x}:1", "\u{e4}\n", "*"] {
            cache.set(key, key.as_bytes(), HOUR).await.unwrap();
            assert_eq!(read(&*cache, key).await.unwrap(), key.as_bytes());
        }
    }

    pub(crate) async fn a_value_is_gone_after_its_time(f: &mut CacheFixture) {
        let cache = f.connect();
        cache.set("long", b"v", HOUR).await.unwrap();
        cache.set("short", b"v", SOON).await.unwrap();
        f.pass(SOON);
        wait_until("the value is gone", async || read(&*cache, "short").await.is_none()).await;
        assert!(read(&*cache, "long").await.is_some());
    }

    pub(crate) async fn a_set_replaces_value_and_time(f: &mut CacheFixture) {
        let cache = f.connect();
        cache.set("k", b"one", HOUR).await.unwrap();
        cache.set("k", b"two", SOON).await.unwrap();
        f.pass(SOON);
        wait_until("the second is gone", async || read(&*cache, "k").await.is_none()).await;
        cache.set("k", b"three", SOON).await.unwrap();
        cache.set("k", b"four", HOUR).await.unwrap();
        cache.set("other", b"marks the time", SOON).await.unwrap();
        f.pass(SOON);
        wait_until("time has passed", async || read(&*cache, "other").await.is_none()).await;
        assert_eq!(read(&*cache, "k").await.unwrap(), b"four");
    }

    pub(crate) async fn deleted_keys_are_gone_for_every_process(f: &mut CacheFixture) {
        let (a, b) = (f.connect(), f.connect());
        for key in ["x", "y", "z"] {
            a.set(key, b"v", HOUR).await.unwrap();
        }
        a.increment("n", 5, HOUR).await.unwrap();
        b.delete(&["x", "nothing", "y", "n"]).await.unwrap();
        b.delete(&[]).await.unwrap();
        assert_eq!((read(&*a, "x").await, read(&*a, "y").await), (None, None));
        assert!(read(&*a, "z").await.is_some());
        assert_eq!(a.increment("n", 1, HOUR).await.unwrap(), 1);
    }
}

pub(crate) mod updates {
    use super::*;

    pub(crate) async fn only_the_expected_version_is_replaced(f: &mut CacheFixture) {
        let (a, b) = (f.connect(), f.connect());
        let first = a.update("k", None, b"one", HOUR).await.unwrap().expect("nothing was there");
        assert_eq!(b.update("k", None, b"two", HOUR).await.unwrap(), None);
        let seen = b.get("k").await.unwrap().unwrap();
        assert_eq!((seen.value.as_slice(), seen.version), (&b"one"[..], first));
        let second = b.update("k", Some(first), b"two", HOUR).await.unwrap().expect("the version is that");
        assert_eq!(a.update("k", Some(first), b"three", HOUR).await.unwrap(), None);
        a.set("k", b"two", HOUR).await.unwrap();
        assert_eq!(a.update("k", Some(second), b"three", HOUR).await.unwrap(), None, "a set is a new version");
        assert_eq!(a.update("gone", Some(second), b"three", HOUR).await.unwrap(), None);
        assert_eq!(read(&*b, "k").await.unwrap(), b"two");
    }

    pub(crate) async fn of_many_writers_each_wins_once(f: &mut CacheFixture) {
        let mut writers = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let cache = f.connect();
            writers.spawn(async move {
                for _ in 0..10 {
                    loop {
                        let seen = cache.get("sum").await.unwrap();
                        let sum =
                            seen.as_ref().map_or(0, |e| String::from_utf8_lossy(&e.value).parse::<u32>().unwrap());
                        let next = (sum + 1).to_string();
                        let expected = seen.map(|e| e.version);
                        if cache.update("sum", expected, next.as_bytes(), HOUR).await.unwrap().is_some() {
                            break;
                        }
                    }
                }
            });
        }
        writers.join_all().await;
        assert_eq!(read(&*f.connect(), "sum").await.unwrap(), b"80");
    }

    pub(crate) async fn a_version_never_comes_again(f: &mut CacheFixture) {
        let cache = f.connect();
        let mut old = Vec::new();
        for _ in 0..20 {
            old.push(cache.update("k", None, b"same", HOUR).await.unwrap().unwrap());
            cache.delete(&["k"]).await.unwrap();
        }
        cache.set("k", b"same", HOUR).await.unwrap();
        for version in old {
            assert_eq!(cache.update("k", Some(version), b"other", HOUR).await.unwrap(), None);
        }
    }

    pub(crate) async fn what_is_over_counts_as_absent(f: &mut CacheFixture) {
        let cache = f.connect();
        let version = cache.update("k", None, b"v", SOON).await.unwrap();
        f.pass(SOON);
        wait_until("it is over", async || read(&*cache, "k").await.is_none()).await;
        assert_eq!(cache.update("k", version, b"w", HOUR).await.unwrap(), None);
        assert!(cache.update("k", None, b"w", HOUR).await.unwrap().is_some());
    }
}

pub(crate) mod counts {
    use super::*;

    pub(crate) async fn no_increment_is_lost(f: &mut CacheFixture) {
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..40 {
            let cache = f.connect();
            tasks.spawn(async move { cache.increment("n", 1 + n % 2, HOUR).await.unwrap() });
        }
        let mut sums = tasks.join_all().await;
        sums.sort_unstable();
        assert_eq!(sums.last(), Some(&60));
        sums.dedup();
        assert_eq!(sums.len(), 40, "two callers were told the same sum");
        assert_eq!(f.connect().increment("other", 7, HOUR).await.unwrap(), 7);
    }

    pub(crate) async fn a_window_ends_however_often_it_is_counted(f: &mut CacheFixture) {
        let cache = f.connect();
        assert_eq!(cache.increment("n", 1, SOON).await.unwrap(), 1);
        // A window that every increment made longer would never end here.
        wait_until("the count begins again", async || {
            f.pass(SOON / 5);
            cache.increment("n", 1, SOON).await.unwrap() == 1
        })
        .await;
    }
}

pub(crate) mod limits {
    use app::cache::{Admission, Rate};

    use super::*;

    pub(crate) async fn a_burst_is_admitted_and_no_more(f: &mut CacheFixture) {
        let cache = f.connect();
        let rate = Rate { burst: 5, every: HOUR };
        for _ in 0..5 {
            assert_eq!(cache.admit("k", rate).await.unwrap(), Admission::Allowed);
        }
        for _ in 0..3 {
            let Admission::RetryAfter(wait) = cache.admit("k", rate).await.unwrap() else { panic!("admitted") };
            assert!(wait > Duration::ZERO && wait <= HOUR, "{wait:?}");
        }
        assert_eq!(cache.admit("other", rate).await.unwrap(), Admission::Allowed);
    }

    pub(crate) async fn after_the_wait_one_more_is_admitted(f: &mut CacheFixture) {
        let cache = f.connect();
        let rate = Rate { burst: 2, every: SOON };
        // On a server time passes between the calls, so more than two may be admitted.
        let mut wait = Duration::ZERO;
        wait_until("the limit is used up", async || match cache.admit("k", rate).await.unwrap() {
            Admission::Allowed => false,
            Admission::RetryAfter(time) => {
                wait = time;
                true
            }
        })
        .await;
        assert!(wait > Duration::ZERO && wait <= SOON, "{wait:?}");
        f.pass(wait);
        wait_until("one more", async || cache.admit("k", rate).await.unwrap() == Admission::Allowed).await;
    }

    pub(crate) async fn many_processes_share_one_limit(f: &mut CacheFixture) {
        let rate = Rate { burst: 10, every: HOUR };
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..40 {
            let cache = f.connect();
            tasks.spawn(async move { cache.admit("k", rate).await.unwrap() });
        }
        let admitted = tasks.join_all().await.into_iter().filter(|a| *a == Admission::Allowed).count();
        assert_eq!(admitted, 10);
    }
}
