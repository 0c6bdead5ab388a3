//! Several devices or servers of one user: one notification for each, once, whoever dies meanwhile.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Api, House, LOOPBACK, id_of};
use crate::{
    channels::fakes::{HttpFake, Reply},
    support::wait_until,
};

fn house() -> House {
    let mut house = House::new();
    for (name, value) in LOOPBACK {
        house.set(name, value);
    }
    house
}

/// Gives a user three servers.
async fn add_servers(api: &Api, user: &str, receiver: &HttpFake) {
    for path in ["/a", "/b", "/c"] {
        api.post(&format!("/api/v1/users/{user}/webhook-endpoints"), &json!({"url": receiver.url(path)})).await;
    }
}

fn called(receiver: &HttpFake) -> Vec<String> {
    let path = |line: &str| line.split(' ').nth(1).unwrap().to_owned();
    let mut paths: Vec<String> = receiver.requests().iter().map(|r| path(&r.line)).collect();
    paths.sort();
    paths
}

fn parts(parent: &Value) -> Vec<String> {
    parent["parts"].as_array().unwrap().iter().map(|p| p.as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_notification_for_each_server_and_device() {
    let receiver = HttpFake::saying(Reply::status(204)).await;
    let house = house();
    let (_process, api) = house.start().await;
    api.note().await;
    let user = api.user("ada", json!({})).await;
    add_servers(&api, &user, &receiver).await;
    let id = api.send("webhook", &user, json!({"priority": 8, "category": "news"})).await;
    let parent = api.reaches(&id, "expanded").await;
    let made: BTreeSet<String> = parts(&parent).into_iter().collect();
    assert_eq!(made.len(), 3);
    for part in &made {
        let part = api.reaches(part, "delivered").await;
        assert_eq!(part["parent_id"], id);
        for same in ["template", "variables", "category", "priority", "correlation_id"] {
            assert_eq!(part[same], parent[same], "{same}");
        }
    }
    assert_eq!(called(&receiver), ["/a", "/b", "/c"]);
    let ids: BTreeSet<String> = receiver.requests().iter().map(|r| r.header("webhook-id").to_owned()).collect();
    assert_eq!(ids, made, "each call bears its notification's id");
    // Devices go to the sink while no provider is set up.
    for n in 0..2 {
        let token = json!({"kind": "fcm", "token": format!("{n}").repeat(40)});
        api.post(&format!("/api/v1/users/{user}/push-tokens"), &token).await;
    }
    let id = api.send("push", &user, json!({})).await;
    for part in parts(&api.reaches(&id, "expanded").await) {
        assert_eq!(api.reaches(&part, "delivered").await["provider"], "sink");
    }
    assert_eq!(api.list("/api/v1/sink").await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_between_splitting_and_saying_so() {
    let receiver = HttpFake::saying(Reply::status(204)).await;
    let house = house();
    let user = house.settled(async |api, user| add_servers(api, user, &receiver).await).await;
    let (mut process, api) = house.start_with(&[("APP_FAILPOINTS", "worker.after_run")]).await;
    let id = api.send("webhook", &user, json!({})).await;
    wait_until("it dies", async || process.was_killed()).await;
    let (_process, api) = house.start().await;
    let parent = api.reaches(&id, "expanded").await;
    assert_eq!(parent["attempts"][0]["outcome"], "lost", "{parent}");
    for part in parts(&parent) {
        api.reaches(&part, "delivered").await;
    }
    assert_eq!(called(&receiver), ["/a", "/b", "/c"]);
    assert_eq!(api.list("/api/v1/notifications").await.len(), 4);
}

/// The parts were made before anybody knew that two of the servers would be gone.
#[tokio::test(flavor = "multi_thread")]
async fn killed_after_splitting_and_then_one_server_is_left() {
    let receiver = HttpFake::saying(Reply::status(204)).await;
    let house = house();
    let user = house.settled(async |api, user| add_servers(api, user, &receiver).await).await;
    let (mut process, api) = house.start_with(&[("APP_FAILPOINTS", "worker.after_run")]).await;
    let id = api.send("webhook", &user, json!({})).await;
    wait_until("it dies", async || process.was_killed()).await;
    let (mut process, api) = house.start_with(&[("APP__WORKER__QUEUES", "default")]).await;
    let servers = format!("/api/v1/users/{user}/webhook-endpoints");
    for server in api.list(&servers).await {
        if !server["url"].as_str().unwrap().ends_with("/c") {
            api.delete(&format!("{servers}/{}", id_of(&server))).await;
        }
    }
    process.kill();
    let (_process, api) = house.start().await;
    let parent = api.reaches(&id, "expanded").await;
    assert_eq!(parts(&parent).len(), 3, "{parent}");
    let mut ends = Vec::new();
    for part in parts(&parent) {
        wait_until("the part ends", async || {
            !api.get(&format!("/api/v1/notifications/{part}")).await["finished_at"].is_null()
        })
        .await;
        let part = api.get(&format!("/api/v1/notifications/{part}")).await;
        ends.push(part["status"].as_str().unwrap().to_owned());
    }
    ends.sort();
    assert_eq!(ends, ["delivered", "skipped", "skipped"]);
    assert_eq!(called(&receiver), ["/c"], "the one that is left is called once");
}
