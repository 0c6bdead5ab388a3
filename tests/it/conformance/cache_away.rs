//! A Redis that is away, silent, restarted or forgetful: callers get an error in bounded time and go on, and nothing that was
//! written meanwhile is read stale once it is back.

use std::{net::TcpListener, path::Path, sync::Arc, time::Duration};

use crate::support::{
    adapters::cache_options,
    process::{Server, free_port},
    servers::redis_url,
    wait_until, within,
};
use app::{
    base::{clock::Clock, probe::Unfit},
    cache::{self, Admission, Cache, CacheError, Rate, Through},
};

const HOUR: Duration = Duration::from_secs(3600);

fn open(url: &str) -> Arc<dyn Cache> {
    cache::connect(url, cache_options("away", &Clock::system())).unwrap()
}

async fn every_operation_is_unavailable(cache: &dyn Cache) {
    let rate = Rate { burst: 1, every: HOUR };
    let away = |e: CacheError| assert!(matches!(e, CacheError::Unavailable(_)), "{e:?}");
    away(within("get", cache.get("k")).await.unwrap_err());
    away(within("set", cache.set("k", b"v", HOUR)).await.unwrap_err());
    away(within("delete", cache.delete(&["k"])).await.unwrap_err());
    away(within("update", cache.update("k", None, b"v", HOUR)).await.unwrap_err());
    away(within("increment", cache.increment("k", 1, HOUR)).await.unwrap_err());
    away(within("admit", cache.admit("k", rate)).await.unwrap_err());
    within("check", cache.check()).await.unwrap_err();
    let Err(Unfit::Unavailable(_)) = within("inspect", cache.inspect()).await else { panic!("is fit") };
}

async fn reads_and_writes_go_on(cache: Arc<dyn Cache>) {
    let through = Through::new(cache, "away", 1, HOUR);
    let read = within("a read", through.read("x", async || Ok::<_, ()>(Some(7)))).await;
    assert_eq!(read, Ok(Some(7)));
    let mark = within("a mark", through.begin("x")).await;
    within("its end", mark.end(Some(&8))).await;
    let read = within("a read", through.read("x", async || Ok::<_, ()>(Some(8)))).await;
    assert_eq!(read, Ok(Some(8)));
}

#[tokio::test]
async fn a_server_that_is_not_there_breaks_nobody() {
    let cache = open(&format!("redis://127.0.0.1:{}", free_port()));
    every_operation_is_unavailable(&*cache).await;
    reads_and_writes_go_on(cache).await;
}

#[tokio::test]
async fn a_server_that_never_answers_breaks_nobody() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let cache = open(&format!("redis://{}", silent.local_addr().unwrap()));
    every_operation_is_unavailable(&*cache).await;
    reads_and_writes_go_on(cache).await;
}

async fn started(dir: &Path, port: u16) -> Server {
    let server = Server::start("redis", dir, port);
    let cache = open(&format!("redis://127.0.0.1:{port}"));
    wait_until("Redis answers", async || cache.check().await.is_ok()).await;
    server
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_is_survived_and_forgotten_scripts_are_loaded_again() {
    let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
    let server = started(dir.path(), port).await;
    let cache = open(&format!("redis://127.0.0.1:{port}"));
    let version = cache.update("k", None, b"one", HOUR).await.unwrap();
    drop(server);
    within("get", cache.get("k")).await.unwrap_err();
    let _server = started(dir.path(), port).await;
    // The script was loaded into the server that is gone.
    wait_until("an update works", async || {
        cache.update("k", version, b"two", HOUR).await.is_ok_and(|done| done.is_some())
            || cache.get("k").await.is_ok_and(|e| e.is_some_and(|e| e.value == b"two"))
    })
    .await;
    assert_eq!(cache.increment("n", 1, HOUR).await.unwrap(), 1);
}

/// Joins a port of its own to the server.
async fn road(port: u16) {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    let server = redis_url().replace("redis://", "");
    loop {
        let (mut near, _) = listener.accept().await.unwrap();
        let server = server.clone();
        tokio::spawn(async move {
            let mut far = tokio::net::TcpStream::connect(server).await.unwrap();
            drop(tokio::io::copy_bidirectional(&mut near, &mut far).await);
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_while_the_cache_was_away_is_marked_when_it_is_back() {
    let (port, prefix) = (free_port(), Clock::system().new_uuid().to_string());
    let process = |url: &str| {
        let cache = cache::connect(url, cache_options(&prefix, &Clock::system())).unwrap();
        Through::new(cache, "away", 1, HOUR)
    };
    // Only the writer cannot reach the server.
    let (writer, reader) = (process(&format!("redis://127.0.0.1:{port}")), process(&redis_url()));
    let read = async |through: &Through, stored: u32| {
        within("a read", through.read("x", async || Ok::<_, ()>(Some(stored)))).await.unwrap().unwrap()
    };
    assert_eq!(read(&reader, 1).await, 1);
    assert_eq!(read(&reader, 99).await, 1, "it comes from the cache");
    let mark = within("a mark", writer.begin("x")).await;
    within("its end", mark.end(Some(&2))).await;
    let road = tokio::spawn(road(port));
    // The writer's own process goes to the store, whether the mark is paid yet or not.
    assert_eq!(read(&writer, 2).await, 2);
    wait_until("the mark is paid", async || read(&reader, 2).await == 2).await;
    assert_eq!(read(&writer, 2).await, 2);
    road.abort();
}

#[tokio::test]
async fn a_wrong_password_is_refused_in_a_sentence_that_does_not_show_it() {
    let address = redis_url().replace("redis://", "");
    for user in ["nobody:hunter2", ":hunter2"] {
        let Err(Unfit::Refused(why)) = open(&format!("redis://{user}@{address}")).inspect().await else {
            panic!("{user} is let in");
        };
        assert!(why.contains("refuses the user or password in cache.url") && !why.contains("hunter2"), "{why}");
    }
    assert_eq!(open(&redis_url()).inspect().await, Ok(Vec::new()));
}

#[tokio::test]
async fn prefixes_keep_installations_apart() {
    let open = |prefix: &str| cache::connect(&redis_url(), cache_options(prefix, &Clock::system())).unwrap();
    let name = Clock::system().new_uuid();
    let (a, b) = (open(&format!("{name}-a")), open(&format!("{name}-b")));
    a.set("k", b"a", HOUR).await.unwrap();
    assert_eq!(b.get("k").await.unwrap(), None);
    let rate = Rate { burst: 1, every: HOUR };
    assert_eq!(a.admit("l", rate).await.unwrap(), Admission::Allowed);
    assert_eq!(b.admit("l", rate).await.unwrap(), Admission::Allowed);
}
