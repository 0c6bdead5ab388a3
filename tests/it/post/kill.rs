//! SIGKILL at every step between the accepting of a mail and the relay's answer, and at random under load.
//!
//! The relay counts mails by Message-ID. None may be lost, and a mail may arrive twice only where the relay's answer was lost
//! with the process: there it must, because nobody knows.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{Api, House, Relay, note_to};
use crate::support::{
    fleet::{Fleet, Via},
    wait_until,
};

/// A mail under a key, whose maker dies at `failpoint`; it must arrive so many times.
async fn dies_at(failpoint: &'static str, mails: usize) {
    let relay = Relay::start();
    let house = House::with(&relay);
    let user = house.settled(async |_, _| {}).await;
    let (mut process, api) = house.start_with(&[("APP_FAILPOINTS", failpoint)]).await;
    let body = note_to("email", &user, json!({"request_id": "once"}));
    let first = api.call(reqwest::Method::POST, "/api/v1/notifications", Some(&body)).await;
    wait_until(&format!("{failpoint} is passed"), async || process.was_killed()).await;

    let (_process, api) = house.start().await;
    // Whoever got no answer asks again under the same key.
    let again = api.post("/api/v1/notifications", &body).await;
    let id = super::id_of(&again);
    if let Some((status, first)) = first {
        assert_eq!((status, &first), (202, &again), "another answer under the same key");
    }
    let done = api.reaches(&id, "delivered").await;
    assert_eq!(api.list("/api/v1/notifications").await.len(), 1);
    let arrived = relay.mails_of(&id);
    assert_eq!((arrived.len(), relay.fake.mails().len()), (mails, mails), "{failpoint}: {done}");
    assert!(arrived.iter().all(|m| *m == arrived[0]), "the same mail to the byte");
    let attempts = done["attempts"].as_array().unwrap();
    let ambiguous = attempts.iter().filter(|a| a["ambiguous"] == true).count();
    assert!(ambiguous + 1 >= mails, "a repetition that the history does not tell of: {done}");
    assert_eq!(attempts.iter().filter(|a| a["outcome"] == "succeeded").count(), 1, "{done}");
}

macro_rules! steps {
    ($($test:ident: $failpoint:literal => $mails:literal;)*) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                dies_at($failpoint, $mails).await;
            }
        )*
    };
}

steps! {
    after_it_is_stored: "submit.after_insert" => 1;
    after_its_wake_up: "submit.after_publish" => 1;
    after_its_claim: "worker.after_claim" => 1;
    before_it_is_sent: "notifications.before_send" => 1;
    after_it_is_sent: "notifications.after_send" => 2;
    after_its_run: "worker.after_run" => 2;
    after_its_end_is_stored: "worker.after_finish" => 1;
}

/// The same in a fleet: one worker dies with the mail, another one takes it over.
async fn a_worker_dies_at(via: Via, failpoint: &'static str, mails: usize) {
    let relay = Relay::start();
    let mut fleet = Fleet::shared(via).await;
    for (name, value) in relay.env() {
        fleet.set(name, &value);
    }
    let (serve, _scheduler) = (fleet.serve().await, fleet.scheduler().await);
    let api = Api::of(&serve);
    api.note().await;
    let user = api.user("ada", json!({})).await;
    let own = [("APP_FAILPOINTS", failpoint)];
    let mut mortal = fleet.spawn_with("worker", &["--queues", "email"], &own);
    mortal.said("ready").await;
    let id = api.send("email", &user, json!({})).await;
    wait_until("the worker dies", async || mortal.was_killed()).await;
    let _worker = fleet.worker(&["--queues", "email"]).await;
    let done = api.reaches(&id, "delivered").await;
    let first = &done["attempts"][0];
    assert_eq!((&first["outcome"], &first["ambiguous"]), (&json!("lost"), &json!(true)), "{done}");
    assert_eq!((relay.mails_of(&id).len(), relay.fake.mails().len()), (mails, mails), "{done}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_worker_sends_what_one_had_not() {
    for via in [Via::Redis, Via::Rabbitmq] {
        a_worker_dies_at(via, "notifications.before_send", 1).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_worker_sends_again_what_one_could_not_tell_of() {
    for via in [Via::Redis, Via::Rabbitmq] {
        a_worker_dies_at(via, "notifications.after_send", 2).await;
    }
}

/// How long the random kills go on.
const STORM: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn random_kills_lose_no_mail() {
    let relay = Relay::start();
    let house = House::with(&relay);
    let user = house.settled(async |_, _| {}).await;
    let end = Instant::now() + STORM;
    let (mut accepted, mut kills) = (BTreeMap::new(), 0);
    while Instant::now() < end {
        let (mut process, api) = house.start().await;
        let life = Duration::from_millis(fastrand::u64(30..900));
        let load = async {
            loop {
                let key = format!("mail-{}", accepted.len());
                let body = note_to("email", &user, json!({"request_id": key, "variables": {"word": key}}));
                if let Some((202, n)) = api.call(reqwest::Method::POST, "/api/v1/notifications", Some(&body)).await {
                    accepted.insert(key, super::id_of(&n));
                }
            }
        };
        // Cut off wherever it is: an answer that was not read counts as none.
        assert!(tokio::time::timeout(life, load).await.is_err());
        process.kill();
        kills += 1;
    }
    let (_process, api) = house.start().await;
    let mut histories: BTreeMap<String, Value> = BTreeMap::new();
    for id in accepted.values() {
        histories.insert(id.clone(), api.reaches(id, "delivered").await);
    }
    let (mut lost, mut duplicates, mut ambiguous) = (0, 0, 0);
    for (id, n) in &histories {
        let arrived = relay.mails_of(id).len();
        let unknown = n["attempts"].as_array().unwrap().iter().filter(|a| a["ambiguous"] == true).count();
        lost += usize::from(arrived == 0);
        duplicates += arrived.saturating_sub(1);
        ambiguous += unknown;
        assert!(arrived <= 1 + unknown, "a repetition that the history does not tell of: {arrived} mails, {n}");
    }
    eprintln!(
        "mail under random kills: {kills} kills, {} accepted, lost {lost}, duplicates {duplicates} ({ambiguous} runs of \
         unknown end)",
        accepted.len()
    );
    assert_eq!(lost, 0);
    assert!(kills >= 3 && accepted.len() >= 5, "{kills} kills, {} accepted", accepted.len());
}
