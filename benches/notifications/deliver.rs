//! Delivering: from a full queue to a relay and to a receiver of webhooks, and how long one mail is under way.

use std::time::{Duration, Instant};

use serde_json::Value;
use uuid::Uuid;

use crate::{
    MESSAGES, RELAY_DELAY,
    place::{Place, Server, mail_to, to_all, to_one},
    receive::{self, Receiver},
    report::Report,
};

fn id_of(notification: &Value) -> Uuid {
    notification["id"].as_str().unwrap().parse().unwrap()
}

/// Queues so many notifications while nobody works on them; answers their ids.
async fn fill(place: &Place, channel: &str, hooks: Option<&Receiver>, n: usize) -> Vec<Uuid> {
    let server = place.accepting().await;
    let users = server.furnish(hooks).await;
    let mut ids = Vec::with_capacity(n);
    while ids.len() < n {
        let answer = server.post("/api/v1/notifications", &to_all(channel, &users)).await;
        ids.extend(answer["data"].as_array().unwrap().iter().map(id_of));
    }
    ids
}

/// Waits until all are there and the queue knows it; answers deliveries a second.
async fn rate(server: &Server, channel: &str, receiver: &Receiver, ids: &[Uuid]) -> f64 {
    receiver.wait(ids.len()).await;
    let deadline = Instant::now() + Duration::from_secs(20);
    while server.depth(channel).await != (0, 0) {
        assert!(Instant::now() < deadline, "{channel}: jobs are left");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    receiver.rate(ids)
}

/// Mails to a relay that takes no time.
pub(crate) async fn mails(report: &mut Report, place: &Place) {
    let ids = fill(place, "email", None, MESSAGES).await;
    let relay = receive::smtp(Duration::ZERO).await;
    let server = place.start("email", &mail_to(&relay)).await;
    let name = format!("{}: delivered by e-mail, 64 slots (mails/s)", place.name);
    let bare = "bare lettre, 64 connections (mails/s)".to_owned();
    report.beside(&name, rate(&server, "email", &relay, &ids).await, &[("bare", bare)]);
}

/// Mails to a relay that takes some time for each, as one on a network does.
pub(crate) async fn slow_relay(report: &mut Report, place: &Place) {
    let bare = || "bare lettre, 64 connections, relay takes 20 ms (mails/s)".to_owned();
    let ids = fill(place, "email", None, MESSAGES).await;
    let relay = receive::smtp(RELAY_DELAY).await;
    let server = place.start("email", &mail_to(&relay)).await;
    let name = format!("{}: delivered by e-mail, relay takes 20 ms, 64 slots (mails/s)", place.name);
    report.beside(&name, rate(&server, "email", &relay, &ids).await, &[("bare", bare())]);
    drop(server);
    let users = place.accepting().await;
    let found = users.get("/api/v1/users?limit=100").await.unwrap();
    let to: Vec<String> =
        found["data"].as_array().unwrap().iter().map(|u| u["id"].as_str().unwrap().to_owned()).collect();
    let mut ids = Vec::new();
    while ids.len() < 1000 {
        let answer = users.post("/api/v1/notifications", &to_all("email", &to)).await;
        ids.extend(answer["data"].as_array().unwrap().iter().map(id_of));
    }
    drop(users);
    let relay = receive::smtp(RELAY_DELAY).await;
    let mut settings = mail_to(&relay);
    settings.retain(|(key, _)| !key.ends_with("MAX_CONNECTIONS"));
    settings.push(("APP__WORKER__CONCURRENCY", "0".to_owned()));
    let server = place.start("email", &settings).await;
    let name = format!("{}: delivered by e-mail, relay takes 20 ms, default slots (mails/s)", place.name);
    report.beside(&name, rate(&server, "email", &relay, &ids).await, &[("bare", bare())]);
}

/// Webhook calls.
pub(crate) async fn calls(report: &mut Report, place: &Place) {
    let receiver = receive::http().await;
    let ids = fill(place, "webhook", Some(&receiver), MESSAGES).await;
    let server = place.start("webhook", &[]).await;
    let name = format!("{}: delivered by webhook, 64 slots (calls/s)", place.name);
    let bare = "bare reqwest, 64 at once (calls/s)".to_owned();
    report.beside(&name, rate(&server, "webhook", &receiver, &ids).await, &[("bare", bare)]);
}

/// From just before the request to the final dot at the relay, at 50 a second: the durable insert, the durable claim, all
/// look-ups and the dialogue with the relay lie between.
pub(crate) async fn latency(report: &mut Report, place: &Place) {
    const N: usize = 500;
    const WARM_UP: usize = 50;
    let relay = receive::smtp(Duration::ZERO).await;
    let server = place.start("email", &mail_to(&relay)).await;
    let users = server.furnish(None).await;
    let mut asked = Vec::with_capacity(N + WARM_UP);
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    for n in 0..N + WARM_UP {
        tick.tick().await;
        let (body, at) = (to_one("email", &users[n % users.len()]), Instant::now());
        asked.push((id_of(&server.post("/api/v1/notifications", &body).await), at));
    }
    relay.wait(asked.len()).await;
    let ids: Vec<Uuid> = asked.iter().map(|(id, _)| *id).collect();
    let came = relay.exactly(&ids);
    let mut us: Vec<f64> = asked.iter().skip(WARM_UP).map(|(id, at)| (came[id] - *at).as_secs_f64() * 1e6).collect();
    us.sort_by(f64::total_cmp);
    let name = |p: &str| format!("{}: from the request to the mail at the relay, 50/s, {p} (us)", place.name);
    report.add(&name("p50"), us[us.len() / 2]);
    report.add(&name("p99"), us[us.len() * 99 / 100]);
}
