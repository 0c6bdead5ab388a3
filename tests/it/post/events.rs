//! Events: what happened is told by rule, once, whoever dies and whatever is away meanwhile.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use reqwest::Method;
use serde_json::{Value, json};

use super::{Api, House, Relay, id_of};
use crate::support::{
    eventually, eventually_within,
    fleet::{Fleet, Via},
    server::Server,
    servers, wait_until,
};

/// A template for mails about events.
async fn event_mail(api: &Api) {
    let body = json!({
        "code": "event-mail", "parts": {"email": {"subject": "{{ event.name }} {{ event.subject }}", "text": "x"}},
        "variables": [{"name": "event", "example": {"name": "n", "subject": "s"}}],
    });
    api.post("/api/v1/templates", &body).await;
}

async fn rule(api: &Api, name: &str, on: &str, recipients: Value) -> String {
    let body = json!({
        "name": name, "on": on, "notification_type": "email", "template_code": "event-mail", "recipients": recipients,
    });
    id_of(&api.post("/api/v1/rules", &body).await)
}

/// Waits until exactly one mail with this subject was caught by the sink.
async fn caught(api: &Api, to: &str, subject: &str) {
    wait_until(&format!("{to} gets `{subject}`"), async || {
        let all = api.list(&format!("/api/v1/sink?to={to}&limit=200")).await;
        let n = all.iter().filter(|c| c["content"]["subject"] == subject).count();
        assert!(n <= 1, "{subject} was sent {n} times");
        n == 1
    })
    .await;
}

/// Waits until an event of this subject was told; answers it.
async fn told(api: &Api, name: &str, subject: &str) -> Value {
    eventually(&format!("{name} of {subject} is told"), async || {
        let all = api.list(&format!("/api/v1/events?name={name}&subject={subject}")).await;
        assert!(all.len() <= 1, "{all:?}");
        all.into_iter().next().filter(|e| e["state"] == "succeeded")
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_is_told_as_the_rules_say() {
    let mut house = House::new();
    house.set("APP__AUTH__REGISTRATION", "open");
    let (process, api) = house.start().await;
    event_mail(&api).await;
    // Without any rule made: one line in the log for each new item.
    let item = id_of(&api.post("/api/v1/items", &json!({"name": "lamp"})).await);
    assert_eq!(told(&api, "item.created", &item).await["notifications"], 1);
    let line = |log: &str| log.lines().any(|l| l.contains("console notification") && l.contains(&item));
    eventually("the notification is delivered", async || {
        let all = api.list("/api/v1/notifications?notification_type=console&status=delivered").await;
        (!all.is_empty()).then_some(())
    })
    .await;
    assert!(line(&process.log()), "{}", process.log());
    // A rule in the store with the name that the one of the configuration has is another rule.
    rule(&api, "config-a894f474", "item.created", json!([{"email": "ops@example.net"}])).await;
    let item = id_of(&api.post("/api/v1/items", &json!({"name": "desk"})).await);
    caught(&api, "ops@example.net", &format!("item.created {item}")).await;
    assert_eq!(told(&api, "item.created", &item).await["notifications"], 2);
    rule(&api, "changes", "item.updated", json!([{"email": "ops@example.net"}])).await;
    rule(&api, "ends", "item.deleted", json!([{"email": "ops@example.net"}])).await;
    api.patch(&format!("/api/v1/items/{item}"), &json!({"name": "table"})).await;
    caught(&api, "ops@example.net", &format!("item.updated {item}")).await;
    api.delete(&format!("/api/v1/items/{item}")).await;
    caught(&api, "ops@example.net", &format!("item.deleted {item}")).await;

    rule(&api, "greet", "user.registered", json!([{"subject": true}, {"email": "ops@example.net"}])).await;
    let new = json!({"email": "eve@example.net", "name": "Eve", "password": "correct horse battery"});
    let (status, answer) = api.call(Method::POST, "/api/v1/auth/register", Some(&new)).await.unwrap();
    assert_eq!(status, 201, "{answer}");
    let user = api.list("/api/v1/users").await.iter().find(|u| u["email"] == "eve@example.net").map(id_of).unwrap();
    caught(&api, "eve@example.net", &format!("user.registered {user}")).await;
    caught(&api, "ops@example.net", &format!("user.registered {user}")).await;
    let told = told(&api, "user.registered", &user).await;
    assert!(!told.to_string().contains("correct horse"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recipient_who_is_gone_keeps_nothing_from_the_others() {
    let house = House::new();
    let (_process, api) = house.start().await;
    event_mail(&api).await;
    let gone = api.user("gone", json!({})).await;
    rule(&api, "all", "item.created", json!([{"user_id": gone}, {"email": "ops@example.net"}])).await;
    api.delete(&format!("/api/v1/users/{gone}")).await;
    let item = id_of(&api.post("/api/v1/items", &json!({"name": "lamp"})).await);
    caught(&api, "ops@example.net", &format!("item.created {item}")).await;
    let dead = eventually("the rule is reported", async || {
        api.list("/api/v1/dead-letters?kind=event").await.into_iter().next()
    })
    .await;
    assert!(dead["error"]["message"].as_str().unwrap().contains("rule all: recipients[0]"), "{dead}");
    // Replayed, it sends nothing twice.
    api.post(&format!("/api/v1/jobs/{}/retry", id_of(&dead)), &json!({})).await;
    wait_until("it was tried again", async || {
        let job = api.get(&format!("/api/v1/jobs/{}", id_of(&dead))).await;
        job["state"] == "failed" && job["runs"] == 2
    })
    .await;
    caught(&api, "ops@example.net", &format!("item.created {item}")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_on_ends_of_jobs_works_soon_after_it_was_made() {
    let mut fleet = Fleet::shared(Via::Redis).await;
    fleet.set("APP__NOTIFICATIONS__RULES", "");
    let (serve, _worker, _scheduler) = (fleet.serve().await, fleet.worker(&[]).await, fleet.scheduler().await);
    let api = Api::of(&serve);
    event_mail(&api).await;
    for (on, runs) in [("job.finished", json!([[{"ok": 1}]])), ("job.failed", json!([[{"error": "no"}]]))] {
        let rule = rule(&api, on, on, json!([{"email": "ops@example.net"}])).await;
        let job = json!({"kind": "test.script", "payload": {"runs": runs}, "max_attempts": 1});
        // A worker looks for rules once in a while, so the first jobs may end unheard.
        let heard = eventually("an end is told", async || {
            let id = id_of(&api.post("/api/v1/jobs", &job).await);
            wait_until("the job ends", async || !api.get(&format!("/api/v1/jobs/{id}")).await["finished_at"].is_null())
                .await;
            let told = api.list(&format!("/api/v1/events?name={on}&subject={id}")).await;
            (!told.is_empty()).then_some(id)
        })
        .await;
        caught(&api, "ops@example.net", &format!("{on} {heard}")).await;
        told(&api, on, &heard).await;
        api.delete(&format!("/api/v1/rules/{rule}")).await;
    }
}

/// Every entry of a list, page by page.
async fn all(api: &Api, path: &str) -> Vec<Value> {
    let (mut found, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = api.get(&format!("{path}limit=200{cursor}")).await;
        found.extend(page["data"].as_array().unwrap().iter().cloned());
        match page["meta"]["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return found,
        }
    }
}

/// Waits until every event was told, then checks that each item has one and each one has its item. Answers how many.
async fn balanced(api: &Api) -> usize {
    // A broker that starts again takes its time.
    eventually_within(Duration::from_secs(120), "every event is told", async || {
        let events = all(api, "/api/v1/events?name=item.created&").await;
        events.iter().all(|e| e["state"] == "succeeded").then_some(())
    })
    .await;
    let mut count: BTreeMap<String, usize> = BTreeMap::new();
    for event in all(api, "/api/v1/events?name=item.created&").await {
        assert_eq!(event["notifications"], 1, "{event}");
        *count.entry(event["subject"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    assert!(count.values().all(|n| *n == 1), "told twice: {count:?}");
    let mut items: Vec<String> = all(api, "/api/v1/items?").await.iter().map(id_of).collect();
    items.sort();
    assert_eq!(items, count.into_keys().collect::<Vec<_>>(), "items and events");
    items.len()
}

/// `items.after_insert` itself is in `tests/it/faults/kill.rs`.
#[tokio::test(flavor = "multi_thread")]
async fn random_kills_leave_no_item_without_its_event() {
    let relay = Relay::start();
    let house = House::with(&relay);
    let (end, mut kills) = (Instant::now() + Duration::from_secs(12), 0);
    while Instant::now() < end {
        let point = format!("items.after_insert:{}", fastrand::u32(1..40));
        let env = [("APP_FAILPOINTS", point.as_str())];
        let (mut process, api) = house.start_with(if kills % 2 == 0 { &env } else { &[] }).await;
        let load =
            async { while api.call(Method::POST, "/api/v1/items", Some(&json!({"name": "x"}))).await.is_some() {} };
        let life = Duration::from_millis(fastrand::u64(30..600));
        drop(tokio::time::timeout(life, load).await);
        process.kill();
        kills += 1;
    }
    let (_process, api) = house.start().await;
    let items = balanced(&api).await;
    assert!(kills >= 3 && items >= 5, "{kills} kills, {items} items");
    eprintln!("items under random kills: {kills} kills, {items} items, as many events, each told once");
}

/// A rule whose lines in the log nobody reads.
async fn quiet_rule(api: &Api, on: &str) {
    let body = json!({
        "name": on, "on": on, "notification_type": "console", "template_code": "event", "recipients": [{"console": true}],
    });
    api.post("/api/v1/rules", &body).await;
}

/// A rule that was there before the process is heeded from its first job on.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_crashes_too_often_is_told_by_the_process_that_finds_it() {
    let house = House::new();
    let (mut process, api) = house.start().await;
    quiet_rule(&api, "job.failed").await;
    let job = json!({"kind": "test.script", "payload": {"runs": [[{"sleep": 600_000}]]}});
    let id = id_of(&api.post("/api/v1/jobs", &job).await);
    wait_until("it runs", async || api.get(&format!("/api/v1/jobs/{id}")).await["state"] == "running").await;
    process.kill();
    let (_process, api) = house.start_with(&[("APP__JOBS__CRASH_LIMIT", "1")]).await;
    assert_eq!(api.get(&format!("/api/v1/jobs/{id}")).await["state"], "failed");
    assert_eq!(told(&api, "job.failed", &id).await["data"]["error"]["code"], "crash_limit");
}

#[tokio::test(flavor = "multi_thread")]
async fn random_kills_leave_no_end_of_a_job_untold() {
    let house = House::new();
    let (mut process, api) = house.start().await;
    quiet_rule(&api, "job.finished").await;
    process.kill();
    let job = json!({"kind": "test.script", "payload": {"runs": [[{"ok": 1}]]}});
    let (end, mut kills) = (Instant::now() + Duration::from_secs(10), 0);
    while Instant::now() < end {
        let (mut process, api) = house.start().await;
        let load = async { while api.call(Method::POST, "/api/v1/jobs", Some(&job)).await.is_some() {} };
        drop(tokio::time::timeout(Duration::from_millis(fastrand::u64(10..400)), load).await);
        process.kill();
        kills += 1;
    }
    let (_process, api) = house.start().await;
    let jobs = eventually("every job ends", async || {
        let jobs = all(&api, "/api/v1/jobs?kind=test.script&").await;
        jobs.iter().all(|j| j["state"] == "succeeded").then_some(jobs)
    })
    .await;
    let mut told: Vec<String> = all(&api, "/api/v1/events?name=job.finished&")
        .await
        .iter()
        .map(|e| e["subject"].as_str().unwrap().to_owned())
        .collect();
    let mut ended: Vec<String> = jobs.iter().map(id_of).collect();
    told.sort();
    ended.sort();
    assert_eq!(told, ended, "jobs that ended, and what was told of them");
    assert!(kills >= 3 && ended.len() >= 5, "{kills} kills, {} jobs", ended.len());
    eprintln!("ends of jobs under random kills: {kills} kills, {} jobs, each told once", ended.len());
}

/// The process that took the item dies before it can wake anybody: the scheduler finds the event.
#[tokio::test(flavor = "multi_thread")]
async fn a_door_that_dies_with_an_item_leaves_its_event() {
    for via in [Via::Redis, Via::Rabbitmq] {
        let fleet = Fleet::shared(via).await;
        let (_worker, _scheduler) = (fleet.worker(&[]).await, fleet.scheduler().await);
        let mut mortal = fleet.spawn_with("serve", &[], &[("APP_FAILPOINTS", "items.after_insert:3")]);
        mortal.ready().await;
        let api = Api::of(&mortal);
        while api.call(Method::POST, "/api/v1/items", Some(&json!({"name": "x"}))).await.is_some() {}
        wait_until("it dies", async || mortal.was_killed()).await;
        let serve = fleet.serve().await;
        assert_eq!(balanced(&Api::of(&serve)).await, 3);
    }
}

/// Items are taken while the broker is away, and told of when it is back.
async fn without_a_broker(via: Via) {
    let store = servers::mongodb_database().await;
    let (kind, url): (_, fn(u16) -> String) = match via {
        Via::Redis => ("redis", |port| format!("redis://127.0.0.1:{port}")),
        Via::Rabbitmq => ("rabbitmq", |port| format!("amqp://guest:guest@127.0.0.1:{port}/%2f")),
    };
    let mut broker = Server::start(kind);
    {
        let fleet = Fleet::over(&store, &url(broker.port));
        let (mut serve, mut worker) = (fleet.spawn("serve", &[]), fleet.spawn("worker", &[]));
        let mut scheduler = fleet.spawn("scheduler", &[]);
        serve.ready().await;
        worker.said("ready").await;
        scheduler.said("ready").await;
        let api = Api::of(&serve);
        let make = async || {
            for _ in 0..20 {
                api.post("/api/v1/items", &json!({"name": "x"})).await;
            }
        };
        make().await;
        broker.kill();
        make().await;
        broker.restart();
        make().await;
        assert_eq!(balanced(&api).await, 60);
        assert!(serve.is_alive() && worker.is_alive() && scheduler.is_alive());
    }
    servers::drop_database(&store);
}

#[tokio::test(flavor = "multi_thread")]
async fn items_are_told_of_after_redis_was_away() {
    without_a_broker(Via::Redis).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn items_are_told_of_after_rabbitmq_was_away() {
    without_a_broker(Via::Rabbitmq).await;
}
