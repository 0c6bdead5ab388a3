//! The circuit breaker over the real program: what opens it, what it keeps back, what closes it, and who knows of it.

use reqwest::Method;
use serde_json::{Value, json};

use super::{Api, House, LOOPBACK, id_of, note_to};
use crate::{
    channels::fakes::{HttpFake, Reply},
    support::{
        fleet::{Fleet, Via, live_workers},
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

#[tokio::test(flavor = "multi_thread")]
async fn the_workers_of_a_fleet_share_it() {
    let receiver = receiver().await;
    let mut fleet = Fleet::shared(Via::Redis).await;
    fleet.set("APP__CACHE__URL", &servers::redis_url());
    fleet.set("APP__CACHE__PREFIX", &servers::unique());
    for (name, value) in LOOPBACK {
        fleet.set(name, value);
    }
    let (serve, _scheduler) = (fleet.serve().await, fleet.scheduler().await);
    let api = Api::of(&serve);
    api.note().await;
    let user = reader(&api, "ada", &receiver).await;
    // Some of the failures are this worker's, the others that one's.
    let mut first = fleet.worker(&[]).await;
    fail(&api, &user, 3).await;
    first.kill();
    let _second = fleet.worker(&[]).await;
    fail(&api, &user, 1).await;
    let id = send(&api, &user, "good").await;
    api.reaches(&id, "delivered").await;
    assert_eq!(breaker(&api).await["failures"], 0, "one success forgives the failures of both");
    fail(&api, &user, 5).await;
    becomes(&api, "open").await;
    // Whoever comes now knows.
    let _third = fleet.worker(&[]).await;
    live_workers(&serve, 2).await;
    let before = receiver.requests().len();
    let mut kept = Vec::new();
    for _ in 0..8 {
        kept.push(send(&api, &user, "good").await);
    }
    for id in &kept {
        kept_back(&api, id).await;
    }
    assert_eq!(receiver.requests().len(), before, "an open breaker lets nothing pass");
    // Reset at one process, it is closed for all.
    api.post(&format!("/api/v1/breakers/{PROVIDER}/reset"), &json!({})).await;
    for id in &kept {
        api.post(&format!("/api/v1/notifications/{id}/replay"), &json!({})).await;
        api.reaches(id, "delivered").await;
    }
    assert_eq!(api.list("/api/v1/events?name=breaker.opened").await.len(), 1);
    assert_eq!(api.list("/api/v1/events?name=breaker.closed").await.len(), 1);
}

/// One process after another, each minutes later than the one before, with the breakers in Redis.
#[tokio::test(flavor = "multi_thread")]
async fn one_message_at_a_time_probes_and_two_close_it() {
    let receiver = receiver().await;
    let mut house = House::new();
    house.set("APP__CACHE__URL", &servers::redis_url());
    house.set("APP__CACHE__PREFIX", &servers::unique());
    house.set("APP__WEBHOOK__TIMEOUT", "8s");
    for (name, value) in LOOPBACK {
        house.set(name, value);
    }
    let (mut process, api) = house.start().await;
    api.note().await;
    let user = reader(&api, "ada", &receiver).await;
    fail(&api, &user, 5).await;
    becomes(&api, "open").await;
    let before = receiver.requests().len();
    let keep = async |api: &Api, word: &str| {
        let mut kept = Vec::new();
        for _ in 0..4 {
            kept.push(send(api, &user, word).await);
        }
        for id in &kept {
            kept_back(api, id).await;
        }
        kept
    };
    let kept = keep(&api, "hang").await;
    process.kill();

    // All four come due; one hangs, and the others are told to wait for what it tells.
    let (mut process, api) = house.start_with(&[("APP_TEST_CLOCK_OFFSET_MS", "70000")]).await;
    wait_until("one probes and the others wait", async || {
        let mut waiting = 0;
        for id in &kept {
            let n = api.get(&format!("/api/v1/notifications/{id}")).await;
            let runs = n["attempts"].as_array().unwrap();
            assert!(
                runs.iter().all(|a| a["error"]["code"] == "breaker_open" || a["error"]["code"] == "timed_out"),
                "{n}"
            );
            waiting += usize::from(runs.len() >= 2);
        }
        waiting >= 3 && receiver.requests().len() > before
    })
    .await;
    // It fails, and nobody else has asked meanwhile: open for another minute.
    wait_until("it is opened again", async || api.list("/api/v1/events?name=breaker.opened").await.len() == 2).await;
    becomes(&api, "open").await;
    assert_eq!(receiver.requests().len(), before + 1, "two messages probed at once");
    for id in &kept {
        api.call(Method::POST, &format!("/api/v1/notifications/{id}/cancel"), Some(&json!({}))).await.unwrap();
        api.reaches(id, "cancelled").await;
    }
    let kept = keep(&api, "good").await;
    process.kill();

    // Two probes that go well close it, and everything goes out.
    let (_process, api) = house.start_with(&[("APP_TEST_CLOCK_OFFSET_MS", "300000")]).await;
    for id in &kept {
        let done = api.reaches(id, "delivered").await;
        assert_eq!(api.get(&format!("/api/v1/jobs/{}", id_of(&done))).await["attempt"], 1);
    }
    becomes(&api, "closed").await;
    assert_eq!(api.list("/api/v1/events?name=breaker.closed").await.len(), 1);
    assert_eq!(receiver.requests().len(), before + 5);
}
