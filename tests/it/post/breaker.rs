//! The circuit breaker over the real program: what opens it, what it keeps back, what closes it, and who knows of it.

use serde_json::{Value, json};

use super::{Api, House, LOOPBACK, id_of, note_to};
use crate::{
    channels::fakes::{HttpFake, Reply},
    support::{
        fleet::{Fleet, Via, live_workers},
        process::Process,
        servers, wait_until,
    },
};

const PROVIDER: &str = "webhook:127.0.0.1";

/// What a receiver does with the word of a note: `fail`, `hang`, `reject`, or all is well.
async fn receiver() -> HttpFake {
    HttpFake::start(|r, _| match r.text() {
        // Far off, so that nothing is tried again but by a test.
        text if text.contains("fail") => Reply::with(503, &["retry-after: 3600"], "broken"),
        text if text.contains("reject") => Reply::status(410),
        text if text.contains("hang") => Reply::Hang,
        _ => Reply::status(204),
    })
    .await
}

/// A user with one server.
async fn reader(api: &Api, name: &str, receiver: &HttpFake) -> String {
    let user = api.user(name, json!({})).await;
    let server = json!({"url": receiver.url(&format!("/{name}"))});
    api.post(&format!("/api/v1/users/{user}/webhook-endpoints"), &server).await;
    user
}

async fn send(api: &Api, user: &str, word: &str) -> String {
    api.send("webhook", user, json!({"variables": {"word": word}})).await
}

/// Sends so many that fail, one after the other.
async fn fail(api: &Api, user: &str, times: usize) -> Vec<String> {
    let mut ids = Vec::new();
    for _ in 0..times {
        let id = send(api, user, "fail").await;
        api.reaches(&id, "retrying").await;
        ids.push(id);
    }
    ids
}

async fn breaker(api: &Api) -> Value {
    let all = api.list("/api/v1/breakers").await;
    all.into_iter().find(|b| b["provider"] == PROVIDER).unwrap_or_default()
}

async fn becomes(api: &Api, position: &str) {
    wait_until(&format!("the breaker is {position}"), async || breaker(api).await["position"] == position).await;
}

/// A notification that was kept back spent nothing.
async fn kept_back(api: &Api, id: &str) {
    let waits = api.reaches(id, "postponed").await;
    let last = waits["attempts"].as_array().unwrap().last().unwrap().clone();
    assert_eq!((&last["outcome"], &last["error"]["code"]), (&json!("snoozed"), &json!("breaker_open")), "{waits}");
    let job = api.get(&format!("/api/v1/jobs/{id}")).await;
    assert_eq!((&job["attempt"], &job["crashes"]), (&json!(0), &json!(0)), "{job}");
}

#[tokio::test(flavor = "multi_thread")]
async fn five_failures_in_a_row_open_it_and_anybody_may_close_it() {
    let receiver = receiver().await;
    let mut house = House::new();
    for (name, value) in LOOPBACK {
        house.set(name, value);
    }
    let (process, api) = house.start().await;
    api.note().await;
    let user = reader(&api, "ada", &receiver).await;
    fail(&api, &user, 4).await;
    let id = send(&api, &user, "good").await;
    api.reaches(&id, "delivered").await;
    assert_eq!((&breaker(&api).await["position"], &breaker(&api).await["failures"]), (&json!("closed"), &json!(0)));
    // What is the recipient's fault says that the provider works.
    fail(&api, &user, 4).await;
    for name in ["bob", "eve"] {
        let gone = reader(&api, name, &receiver).await;
        let id = send(&api, &gone, "reject").await;
        api.reaches(&id, "failed").await;
    }
    assert_eq!(breaker(&api).await["failures"], 0);
    fail(&api, &user, 5).await;
    becomes(&api, "open").await;
    let open = breaker(&api).await;
    assert!(open["reason"].as_str().unwrap().contains("http_503") && !open["until"].is_null(), "{open}");
    let before = receiver.requests().len();
    let told = api.post("/api/v1/notifications/explain", &note_to("webhook", &user, json!({}))).await;
    assert_eq!((&told["decision"], &told["reason"]), (&json!("wait"), &json!("breaker_open")), "{told}");
    assert_eq!(told["until"], open["until"]);
    let id = send(&api, &user, "good").await;
    kept_back(&api, &id).await;
    assert_eq!(receiver.requests().len(), before, "an open breaker lets nothing pass");
    assert_eq!(api.counter("app_breaker_changes_total{to=\"open\"}").await, 1);
    let opened = api.list("/api/v1/events?name=breaker.opened").await;
    assert_eq!((opened.len(), &opened[0]["subject"]), (1, &json!(PROVIDER)), "{opened:?}");
    assert!(process.log().contains("circuit breaker changed"));

    let reset = api.post(&format!("/api/v1/breakers/{PROVIDER}/reset"), &json!({})).await;
    assert_eq!((&reset["position"], &reset["failures"]), (&json!("closed"), &json!(0)));
    api.post(&format!("/api/v1/notifications/{id}/replay"), &json!({})).await;
    api.reaches(&id, "delivered").await;
    assert_eq!(api.counter("app_breaker_changes_total{to=\"closed\"}").await, 1);
    assert_eq!(api.list("/api/v1/events?name=breaker.closed").await.len(), 1);
}

async fn fleet() -> Fleet {
    let mut fleet = Fleet::shared(Via::Redis).await;
    fleet.set("APP__CACHE__URL", &servers::redis_url());
    fleet.set("APP__CACHE__PREFIX", &servers::unique());
    fleet.set("APP__WEBHOOK__TIMEOUT", "8s");
    for (name, value) in LOOPBACK {
        fleet.set(name, value);
    }
    fleet
}

/// A worker whose clock is so far ahead.
async fn ahead(fleet: &Fleet, seconds: u32) -> Process {
    let by = (seconds * 1000).to_string();
    let mut worker = fleet.spawn_with("worker", &[], &[("APP_TEST_CLOCK_OFFSET_MS", &by)]);
    worker.said("ready").await;
    worker
}

#[tokio::test(flavor = "multi_thread")]
async fn all_workers_share_it_and_one_message_at_a_time_probes() {
    let receiver = receiver().await;
    let fleet = fleet().await;
    let (serve, _scheduler) = (fleet.serve().await, fleet.scheduler().await);
    let api = Api::of(&serve);
    api.note().await;
    let user = reader(&api, "ada", &receiver).await;
    // Some of the failures are this worker's, the others that one's.
    let mut first = fleet.worker(&[]).await;
    fail(&api, &user, 3).await;
    first.kill();
    let mut second = fleet.worker(&[]).await;
    fail(&api, &user, 2).await;
    becomes(&api, "open").await;
    // Whoever comes now knows.
    let mut third = fleet.worker(&[]).await;
    live_workers(&serve, 2).await;
    let before = receiver.requests().len();
    let mut kept = Vec::new();
    for word in ["hang", "good", "good", "good", "good", "good"] {
        kept.push(send(&api, &user, word).await);
    }
    for id in &kept {
        kept_back(&api, id).await;
    }
    assert_eq!(receiver.requests().len(), before, "an open breaker lets nothing pass");
    second.kill();
    third.kill();

    // A minute later one message probes; the others wait until it tells.
    let mut fourth = ahead(&fleet, 70).await;
    let replay = async |id: &str| drop(api.post(&format!("/api/v1/notifications/{id}/replay"), &json!({})).await);
    replay(&kept[0]).await;
    becomes(&api, "half_open").await;
    wait_until("the probe is under way", async || receiver.requests().len() == before + 1).await;
    for id in &kept[1..] {
        let runs = api.get(&format!("/api/v1/jobs/{id}")).await["runs"].as_u64().unwrap();
        replay(id).await;
        wait_until("it was looked at", async || {
            let job = api.get(&format!("/api/v1/jobs/{id}")).await;
            job["state"] == "scheduled" && job["runs"].as_u64().unwrap() > runs
        })
        .await;
        kept_back(&api, id).await;
    }
    assert_eq!(receiver.requests().len(), before + 1, "two messages probed at once");
    // It fails: open for another minute.
    becomes(&api, "open").await;
    fourth.kill();
    assert_eq!(api.list("/api/v1/events?name=breaker.opened").await.len(), 2);

    // Two probes that go well close it, and everything goes out.
    api.post(&format!("/api/v1/notifications/{}/cancel", kept[0]), &json!({})).await;
    let _fifth = ahead(&fleet, 200).await;
    replay(&kept[1]).await;
    api.reaches(&kept[1], "delivered").await;
    wait_until("one probe went well", async || breaker(&api).await["successes"] == 1).await;
    assert_eq!(breaker(&api).await["position"], "half_open");
    replay(&kept[2]).await;
    api.reaches(&kept[2], "delivered").await;
    becomes(&api, "closed").await;
    for id in &kept[3..] {
        // It may have come due by itself meanwhile.
        drop(api.call(reqwest::Method::POST, &format!("/api/v1/notifications/{id}/replay"), Some(&json!({}))).await);
        let done = api.reaches(id, "delivered").await;
        assert_eq!(api.get(&format!("/api/v1/jobs/{}", id_of(&done))).await["attempt"], 1);
    }
    assert_eq!(api.list("/api/v1/events?name=breaker.closed").await.len(), 1);
}
