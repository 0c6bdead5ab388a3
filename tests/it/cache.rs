//! The real binary with Redis as its cache: items come from it, a write is seen at once, and it may go away.

use rustix::process::Signal;
use serde_json::json;

use crate::{
    cli::run::run_in,
    support::{
        process::{Process, Server, client, free_port},
        servers::redis_url,
        wait_until,
    },
};

/// The value of a counter with these labels; 0 if it was never counted.
async fn counter(process: &Process, line: &str) -> u64 {
    let page = client().get(format!("{}/metrics", process.url)).send().await.unwrap().text().await.unwrap();
    page.lines().find_map(|l| l.strip_prefix(line)?.trim().parse().ok()).unwrap_or(0)
}

const HITS: &str = "app_cache_lookups_total{cache=\"items\",result=\"hit\"}";
const ERRORS: &str = "app_cache_lookups_total{cache=\"items\",result=\"error\"}";

#[tokio::test(flavor = "multi_thread")]
async fn items_are_read_through_redis_and_never_stale() {
    let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
    let server = Server::start("redis", dir.path(), port);
    let url = format!("redis://127.0.0.1:{port}");
    let mut process = Process::start(dir.path(), &[("APP__CACHE__URL", &url)]).await;
    wait_until("Redis is connected", async || {
        process.get("/health").await.is_some_and(|h| h["services"]["redis"] == "connected")
    })
    .await;
    let item = process.post("/api/v1/items", &json!({"name": "first", "metadata": {"n": 1}})).await.unwrap();
    let path = format!("/api/v1/items/{}", item["id"].as_str().unwrap());
    for _ in 0..5 {
        assert_eq!(process.get(&path).await.unwrap(), item, "what is cached is what was stored");
    }
    assert_eq!(counter(&process, HITS).await, 4);
    let patched = async |name: &str| {
        let url = format!("{}{path}", process.url);
        client().patch(url).json(&json!({"name": name})).send().await.unwrap().status().as_u16()
    };
    for name in ["second", "third"] {
        assert_eq!(patched(name).await, 200);
        assert_eq!(process.get(&path).await.unwrap()["name"], name);
    }
    assert_eq!(counter(&process, HITS).await, 6, "a write leaves the new record in the cache");

    // Away: slower, not broken.
    drop(server);
    assert_eq!(process.get(&path).await.unwrap()["name"], "third");
    assert_eq!(patched("fourth").await, 200);
    assert_eq!(process.get(&path).await.unwrap()["name"], "fourth");
    assert!(counter(&process, ERRORS).await > 0);
    assert!(process.get("/health").await.is_none(), "the cache is away and /health says so");
    let deleted = client().delete(format!("{}{path}", process.url)).send().await.unwrap();
    assert_eq!(deleted.status(), 204);
    // Back, with what it held when it died.
    let _server = Server::start("redis", dir.path(), port);
    wait_until("Redis is connected again", async || process.get("/health").await.is_some()).await;
    assert!(process.get(&path).await.is_none(), "a deleted item was read");
    process.signal(Signal::TERM);
    assert_eq!(process.exit().await.code(), Some(0));
}

#[tokio::test]
async fn wrong_credentials_end_the_start_with_one_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let url = redis_url().replace("redis://", "redis://app:hunter2@");
    let env = [("APP__CACHE__URL", url.as_str()), ("APP__LOG__LEVEL", "off")];
    let ended = run_in(dir.path(), &["all", "--port", "0"], &env, "").await;
    assert_eq!((ended.code, ended.err.lines().count()), (Some(3), 1), "{ended:?}");
    assert!(ended.sentence().contains("refuses the user or password in cache.url"), "{ended:?}");
    assert!(!ended.err.contains("hunter2"), "{ended:?}");
}
