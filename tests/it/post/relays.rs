//! Relays that refuse us, over Debian's exim: nobody becomes unreachable because of what has to be
//! mended on our side.

use std::{collections::BTreeMap, time::Duration};

use app::base::clock::{Clock, Timestamp};
use serde_json::{Value, json};

use super::{Api, House, id_of};
use crate::support::{
    eventually_within,
    exim::Exim,
    fleet::{Fleet, Via},
    process::Process,
    servers, wait_until,
};

/// Takes mail for its own domain and, as Debian's does, relays for nobody else.
const STRICT: &str = "accept domains = example.net\nrequire message = relay not permitted\n  domains = !*\naccept";
/// Takes everything.
const OPEN: &str = "accept";
/// Refuses everything with a sentence that nobody knows, and that names the recipient and a number.
const STRANGE: &str = "deny message = Not today, $local_part@$domain (case $tod_epoch, $pid)";
/// How long a breaker rests, and some more.
const RESTED: Duration = Duration::from_secs(150);

fn env(relay: &Exim) -> [(&'static str, String); 5] {
    [
        ("APP__EMAIL__HOST", "localhost".to_owned()),
        ("APP__EMAIL__PORT", relay.port.to_string()),
        ("APP__EMAIL__TLS", "none".to_owned()),
        ("APP__EMAIL__FROM", "shop@example.org".to_owned()),
        ("APP__EMAIL__TIMEOUT", "20s".to_owned()),
    ]
}

async fn start(relay: &Exim) -> (House, Process, Api) {
    start_with(relay, &[]).await
}

async fn start_with(relay: &Exim, more: &[(&str, &str)]) -> (House, Process, Api) {
    let mut house = House::new();
    for (name, value) in env(relay) {
        house.set(name, &value);
    }
    for (name, value) in more {
        house.set(name, value);
    }
    let (process, api) = house.start().await;
    api.note().await;
    (house, process, api)
}

fn mailboxes(name: &str, domain: &str, n: usize) -> Vec<String> {
    (1..=n).map(|i| format!("{name}{i}@{domain}")).collect()
}

/// Sends the note to these mailboxes in one request; returns the notifications' ids.
async fn send(api: &Api, mailboxes: &[String]) -> Vec<String> {
    let to: Vec<Value> = mailboxes.iter().map(|m| json!({ "email": m })).collect();
    let note = json!({
        "notification_type": "email", "template_code": "note", "variables": {"word": "new"}, "recipients": to,
    });
    let sent = api.post("/api/v1/notifications", &note).await;
    sent["data"].as_array().unwrap().iter().map(id_of).collect()
}

async fn all(api: &Api, ids: &[String]) -> Vec<Value> {
    let mut all = Vec::new();
    for id in ids {
        all.push(api.get(&format!("/api/v1/notifications/{id}")).await);
    }
    all
}

/// How many are in each status.
fn statuses(all: &[Value]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for n in all {
        *counts.entry(n["status"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    counts
}

fn counts<const N: usize>(of: [(&str, usize); N]) -> BTreeMap<String, usize> {
    of.into_iter().map(|(status, n)| (status.to_owned(), n)).collect()
}

async fn come_to_within(limit: Duration, api: &Api, ids: &[String], wanted: BTreeMap<String, usize>) {
    eventually_within(limit, &format!("the notifications are {wanted:?}"), async || {
        (statuses(&all(api, ids).await) == wanted).then_some(())
    })
    .await;
}

async fn come_to(api: &Api, ids: &[String], wanted: BTreeMap<String, usize>) {
    come_to_within(Duration::from_secs(30), api, ids, wanted).await;
}

async fn breaker(api: &Api, relay: &Exim) -> Value {
    let name = format!("smtp:localhost:{}", relay.port);
    api.list("/api/v1/breakers").await.into_iter().find(|b| b["provider"] == name.as_str()).unwrap_or_default()
}

async fn nobody_is_suppressed(api: &Api) {
    let list = api.list("/api/v1/suppressions").await;
    assert!(list.is_empty(), "{list:?}");
}

/// Each got the mail once.
fn each_once(relay: &Exim, mailboxes: &[String]) {
    let took = relay.took();
    let wanted = mailboxes.iter().map(|m| (m.clone(), 1)).collect();
    assert_eq!(took, wanted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_forgot_us_costs_nobody_a_mail() {
    let mut relay = Exim::start(STRICT).await;
    let (_house, process, api) = start(&relay).await;
    let customers = mailboxes("customer", "example.com", 20);
    let ids = send(&api, &customers).await;
    come_to(&api, &ids, counts([("postponed", 20)])).await;
    nobody_is_suppressed(&api).await;
    let open = breaker(&api, &relay).await;
    assert_eq!(open["position"], "open", "{open}");
    for part in ["relay not permitted", "`email.host`", "`email.username`", &format!("localhost:{}", relay.port)] {
        assert!(open["reason"].as_str().unwrap().contains(part), "{open}");
        assert!(process.log().contains(part), "the log does not say {part}");
    }
    for id in &ids {
        assert_eq!(api.get(&format!("/api/v1/jobs/{id}")).await["attempt"], 0, "spends no attempt");
    }
    assert!(relay.took().is_empty());
    relay.mended(OPEN).await;
    // Nobody does anything: they come by themselves.
    come_to_within(RESTED, &api, &ids, counts([("delivered", 20)])).await;
    each_once(&relay, &customers);
    assert_eq!(breaker(&api, &relay).await["position"], "closed");
    // And all are reachable.
    let ids = send(&api, &customers).await;
    come_to(&api, &ids, counts([("delivered", 20)])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sentence_that_nobody_knows_is_our_fault_if_everybody_hears_it() {
    let mut relay = Exim::start(STRANGE).await;
    // In Redis, where the breaker outlives the processes.
    let (url, prefix) = (servers::redis_url(), servers::unique());
    let cache = [("APP__CACHE__URL", url.as_str()), ("APP__CACHE__PREFIX", prefix.as_str())];
    let (house, mut process, api) = start_with(&relay, &cache).await;
    let customers = mailboxes("customer", "example.com", 20);
    let ids = send(&api, &customers).await;
    // The first four are refused as if it were their own fault: for good, and not suppressed.
    come_to(&api, &ids, counts([("failed", 4), ("postponed", 16)])).await;
    nobody_is_suppressed(&api).await;
    let open = breaker(&api, &relay).await;
    assert_eq!(open["position"], "open", "{open}");
    assert!(open["reason"].as_str().unwrap().contains("refuses one recipient after another alike"), "{open}");
    assert!(open["reason"].as_str().unwrap().contains("Not today"), "{open}");
    assert!(relay.refused().len() >= 5);
    assert_eq!(api.list("/api/v1/dead-letters?kind=notification.email").await.len(), 4);
    process.kill();

    // A minute later one is tried; it is refused like the others, and costs nobody a mail.
    let before = relay.refused().len();
    let (mut process, api) = house.start_with(&[("APP_TEST_CLOCK_OFFSET_MS", "70000")]).await;
    wait_until("the breaker opened again", async || api.list("/api/v1/events?name=breaker.opened").await.len() == 2)
        .await;
    assert_eq!(relay.refused().len(), before + 1);
    come_to(&api, &ids, counts([("failed", 4), ("postponed", 16)])).await;
    process.kill();

    relay.mended(OPEN).await;
    let (_process, api) = house.start_with(&[("APP_TEST_CLOCK_OFFSET_MS", "200000")]).await;
    come_to(&api, &ids, counts([("failed", 4), ("delivered", 16)])).await;
    // The dead letters are sent again by whoever mended it.
    let again = json!({"filter": {"kind": "notification.email", "error_contains": "Not today"}});
    api.post("/api/v1/dead-letters/replay", &again).await;
    come_to(&api, &ids, counts([("delivered", 20)])).await;
    each_once(&relay, &customers);
    nobody_is_suppressed(&api).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mailbox_refused_without_a_code_is_not_suppressed() {
    let mut relay = Exim::start("accept local_parts = ada : bob\ndeny message = Unrouteable address").await;
    let (_house, _process, api) = start(&relay).await;
    let named = |names: &[&str]| names.iter().map(|n| format!("{n}@example.net")).collect::<Vec<_>>();
    let ids = send(&api, &named(&["ada", "nobody", "bob"])).await;
    come_to(&api, &ids, counts([("delivered", 2), ("failed", 1)])).await;
    let failed = api.get(&format!("/api/v1/notifications/{}", ids[1])).await;
    assert_eq!(failed["error"]["code"], "smtp_550", "{failed}");
    assert_eq!(failed["error"]["message"], "550 Unrouteable address", "{failed}");
    nobody_is_suppressed(&api).await;
    assert!(breaker(&api, &relay).await["position"] != "open");
    // A suppressed one would be skipped.
    let again = send(&api, &named(&["nobody"])).await;
    come_to(&api, &again, counts([("failed", 1)])).await;
    relay.mended(OPEN).await;
    api.post(&format!("/api/v1/notifications/{}/replay", ids[1]), &json!({})).await;
    come_to(&api, &ids, counts([("delivered", 3)])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mailboxes_that_do_not_exist_stop_nobody_elses_mail() {
    let relay = Exim::start("deny local_parts = ^dead.*\n  message = 550 5.1.1 No such user here\naccept").await;
    let (_house, _process, api) = start(&relay).await;
    let dead = send(&api, &mailboxes("dead", "example.com", 20)).await;
    come_to(&api, &dead, counts([("failed", 20)])).await;
    // Nobody was taken before: whether there is no such user or no list of users at all, the relay
    // does not say.
    assert_eq!(api.list("/api/v1/suppressions?notification_type=email").await.len(), 4);
    assert!(breaker(&api, &relay).await["position"] != "open");
    let good = mailboxes("good", "example.com", 3);
    let ids = send(&api, &good).await;
    come_to(&api, &ids, counts([("delivered", 3)])).await;
    each_once(&relay, &good);
    // Now the relay has shown that it takes mail, and is believed.
    let id = send(&api, &mailboxes("deader", "example.com", 1)).await;
    come_to(&api, &id, counts([("failed", 1)])).await;
    assert_eq!(api.list("/api/v1/suppressions?notification_type=email").await.len(), 5);
    let id = send(&api, &mailboxes("deader", "example.com", 1)).await;
    come_to(&api, &id, counts([("skipped", 1)])).await;
}

/// `Access denied` can mean us all or one of us. One process after another, each when the breaker
/// has rested.
#[tokio::test(flavor = "multi_thread")]
async fn who_alone_is_refused_as_if_all_were_holds_nobody_up_for_long() {
    let relay = Exim::start("deny local_parts = eve\n  message = Access denied\naccept").await;
    let (url, prefix) = (servers::redis_url(), servers::unique());
    let cache = [("APP__CACHE__URL", url.as_str()), ("APP__CACHE__PREFIX", prefix.as_str())];
    let (house, mut process, mut api) = start_with(&relay, &cache).await;
    let eve = send(&api, &["eve@example.com".to_owned()]).await;
    come_to(&api, &eve, counts([("postponed", 1)])).await;
    let opened = async |api: &Api| api.list("/api/v1/events?name=breaker.opened").await.len();
    for (round, name) in ["ada", "bob"].into_iter().enumerate() {
        wait_until("the breaker is open", async || opened(&api).await == round + 1).await;
        let other = send(&api, &[format!("{name}@example.com")]).await;
        come_to(&api, &other, counts([("postponed", 1)])).await;
        let until = Timestamp::parse(breaker(&api, &relay).await["until"].as_str().unwrap()).unwrap();
        process.kill();
        let ahead = until.since(Clock::system().now()).as_millis() + 1000;
        (process, api) = house.start_with(&[("APP_TEST_CLOCK_OFFSET_MS", &ahead.to_string())]).await;
        // Who was not refused probes first.
        come_to(&api, &other, counts([("delivered", 1)])).await;
    }
    // Refused for the third time, after others were taken twice: it is the recipient's own affair.
    come_to(&api, &eve, counts([("failed", 1)])).await;
    assert_eq!((relay.refused().len(), opened(&api).await), (3, 2));
    nobody_is_suppressed(&api).await;
    let last = send(&api, &["carl@example.com".to_owned()]).await;
    come_to(&api, &last, counts([("delivered", 1)])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_workers_of_a_fleet_count_refusals_together() {
    let mut relay = Exim::start(STRANGE).await;
    let mut fleet = Fleet::shared(Via::Redis).await;
    fleet.set("APP__CACHE__URL", &servers::redis_url());
    fleet.set("APP__CACHE__PREFIX", &servers::unique());
    for (name, value) in env(&relay) {
        fleet.set(name, &value);
    }
    let (serve, _scheduler) = (fleet.serve().await, fleet.scheduler().await);
    let api = Api::of(&serve);
    api.note().await;
    // Each worker hears it from three recipients; five are enough.
    let mut first = fleet.worker(&["--queues", "email"]).await;
    let mut ids = send(&api, &mailboxes("one", "example.com", 3)).await;
    come_to(&api, &ids, counts([("failed", 3)])).await;
    first.kill();
    let _second = fleet.worker(&["--queues", "email"]).await;
    ids.extend(send(&api, &mailboxes("two", "example.com", 3)).await);
    come_to(&api, &ids, counts([("failed", 4), ("postponed", 2)])).await;
    assert_eq!(breaker(&api, &relay).await["position"], "open");
    nobody_is_suppressed(&api).await;
    relay.mended(OPEN).await;
    let name = format!("smtp:localhost:{}", relay.port);
    api.post(&format!("/api/v1/breakers/{name}/reset"), &json!({})).await;
    for id in &ids {
        api.post(&format!("/api/v1/notifications/{id}/replay"), &json!({})).await;
    }
    come_to(&api, &ids, counts([("delivered", 6)])).await;
    assert_eq!(relay.took().len(), 6);
}
