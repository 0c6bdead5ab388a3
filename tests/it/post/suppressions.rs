//! The suppression list as whoever keeps it sees it.

use app::base::clock::Clock;
use reqwest::Method;
use serde_json::{Value, json};

use super::{Api, House};
use crate::support::wait_until;

/// Takes entries off the suppression list by what a query says.
async fn remove(api: &Api, query: &str) -> Value {
    let path = format!("/api/v1/suppressions?{query}");
    Api::good(&path, api.call(Method::DELETE, &path, None).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_are_taken_off_the_list_by_reason_and_time() {
    let house = House::new();
    let (_process, api) = house.start().await;
    let add = async |name: &str, n: usize| {
        for i in 0..n {
            let entry = json!({"notification_type": "email", "address": format!("{name}{i}@example.com")});
            api.post("/api/v1/suppressions", &entry).await;
        }
    };
    // More than one page of either sort.
    add("early", 120).await;
    let push = json!({"notification_type": "push", "address": "sha256:0123456789abcdef"});
    api.post("/api/v1/suppressions", &push).await;
    let between = api.list("/api/v1/suppressions?limit=1").await[0]["created_at"].as_str().unwrap().to_owned();
    wait_until("the clock goes on", async || Clock::system().now().to_string() > between).await;
    let later = Clock::system().now().to_string();
    add("late", 110).await;
    let done =
        |matched: usize, removed: usize| json!({"matched": matched, "removed": removed, "dry_run": removed == 0});
    assert_eq!(remove(&api, "reason=manual&dry_run=true").await, done(231, 0));
    assert_eq!(remove(&api, "reason=hard_bounce&dry_run=true").await, done(0, 0));
    let unsubscribed = api.call(Method::DELETE, "/api/v1/suppressions?reason=unsubscribed", None).await.unwrap();
    assert_eq!((unsubscribed.0, &unsubscribed.1["errors"][0]["field"]), (400, &json!("reason")));
    assert_eq!(remove(&api, &format!("reason=manual&created_before={later}&dry_run=true")).await, done(121, 0));
    assert_eq!(remove(&api, "reason=manual&notification_type=push&dry_run=true").await, done(1, 0));
    assert_eq!(remove(&api, &format!("reason=manual&created_after={later}")).await, done(110, 110));
    let left = api.list("/api/v1/suppressions?limit=200").await;
    assert_eq!(left.len(), 121);
    assert!(left.iter().all(|e| !e["address"].as_str().unwrap().starts_with("late")), "{left:?}");
    assert_eq!(
        remove(&api, &format!("reason=manual&notification_type=email&created_before={later}")).await,
        done(120, 120)
    );
    assert_eq!(api.list("/api/v1/suppressions").await.len(), 1);
}
