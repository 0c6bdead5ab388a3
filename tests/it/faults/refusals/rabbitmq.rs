use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use lapin::{
    BasicProperties,
    options::{BasicPublishOptions, QueueDeclareOptions, QueueDeleteOptions},
    types::FieldTable,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::*;
use crate::support::{proxy::Proxy, server::Server, servers, wait_until};

fn url() -> String {
    servers::url("TEST_AMQP_URL")
}

async fn channel() -> (lapin::Connection, lapin::Channel) {
    let connection = servers::amqp(&url()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    (connection, channel)
}

async fn declare(channel: &lapin::Channel, name: &str, options: QueueDeclareOptions) {
    channel.queue_declare(name.into(), options, FieldTable::default()).await.unwrap();
}

/// `heavy` cannot be had: what is published with it and taken beside it goes on.
async fn heavy_costs_only_itself(broker: &dyn Broker, says: &[&str]) {
    let all = [wake_up("heavy", 5), wake_up("q", 5), wake_up("heavy", 5), wake_up("r", 9), wake_up("q", 7)];
    let said = refused(broker, &all, "heavy").await;
    for part in says {
        assert!(said.contains(part), "`{part}` is not in: {said}");
    }
    assert_eq!(told(broker, "heavy"), said);
    takes(broker, &["heavy", "q", "r"], &[&all[1], &all[3], &all[4]]).await;
    // Again, now that it is known.
    let all = [wake_up("heavy", 5), wake_up("q", 5)];
    assert_eq!(refused(broker, &all, "heavy").await, said);
    takes(broker, &["heavy", "q"], &[&all[1]]).await;
    // Who looks for faults finds it, and only it.
    let found = broker.examine(&["q", "heavy", "r"].map(queue)).await.unwrap().queues;
    assert_eq!(found.len(), 1);
    assert!(found[0].queue == queue("heavy") && found[0].why == said, "{found:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_with_other_arguments_costs_only_itself() {
    let prefix = format!("{}-", servers::unique());
    let (name, broker) = (format!("{prefix}heavy"), connect(&url(), &prefix));
    let (_connection, channel) = channel().await;
    declare(&channel, &name, QueueDeclareOptions::durable()).await;
    let says = [name.as_str(), "with other arguments", "x-max-priority", "delete it there", "`broker.queue_type`"];
    heavy_costs_only_itself(&*broker, &says).await;
    channel.queue_delete(name.as_str().into(), QueueDeleteOptions::default()).await.unwrap();
    is_served_again(&*broker, "heavy").await;
}

/// The consumer alone finds it out, and a consumer that waits hears when the queue can be had.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiting_consumer_gets_a_queue_as_soon_as_it_can_be_had() {
    let prefix = format!("{}-", servers::unique());
    let (name, broker) = (format!("{prefix}heavy"), connect(&url(), &prefix));
    let (_connection, channel) = channel().await;
    declare(&channel, &name, QueueDeclareOptions::durable()).await;
    let mut consumer = broker.consumer().await.unwrap();
    let wanted = want(&["heavy", "q"]);
    let mut waiting = Box::pin(consumer.next(&wanted));
    wait_until("it is set aside", async || {
        let polled = tokio::time::timeout(Duration::from_millis(20), &mut waiting).await;
        assert!(polled.is_err(), "{polled:?}");
        !broker.set_aside().is_empty()
    })
    .await;
    channel.queue_delete(name.as_str().into(), QueueDeleteOptions::default()).await.unwrap();
    let (other, w) = (connect(&url(), &prefix), wake_up("heavy", 5));
    other.publish(std::slice::from_ref(&w)).await.unwrap();
    let got = within("a delivery", waiting).await.unwrap();
    assert_eq!(got.iter().map(|d| d.wake_up.job).collect::<Vec<_>>(), [w.job]);
    assert_eq!(broker.set_aside(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_that_belongs_to_another_connection_costs_only_itself() {
    let prefix = format!("{}-", servers::unique());
    let (name, broker) = (format!("{prefix}heavy"), connect(&url(), &prefix));
    let (connection, channel) = channel().await;
    declare(&channel, &name, QueueDeclareOptions::exclusive()).await;
    heavy_costs_only_itself(&*broker, &[&name, "belongs to another connection alone"]).await;
    connection.close(200, "gone".into()).await.unwrap();
    is_served_again(&*broker, "heavy").await;
}

/// Somebody else consumes from it alone: it can be published to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_that_somebody_else_consumes_alone_costs_only_itself() {
    let prefix = format!("{}-", servers::unique());
    let (name, broker) = (format!("{prefix}heavy"), connect(&url(), &prefix));
    broker.publish(&[wake_up("heavy", 5)]).await.unwrap();
    broker.purge(&queue("heavy")).await.unwrap();
    let (connection, channel) = channel().await;
    let alone = lapin::options::BasicConsumeOptions { exclusive: true, ..Default::default() };
    let _elsewhere =
        channel.basic_consume(name.as_str().into(), "".into(), alone, FieldTable::default()).await.unwrap();
    for _ in 0..2 {
        let (heavy, q) = (wake_up("heavy", 5), wake_up("q", 5));
        broker.publish(&[heavy, q.clone()]).await.unwrap();
        takes(&*broker, &["heavy", "q"], &[&q]).await;
    }
    connection.close(200, "gone".into()).await.unwrap();
    is_served_again(&*broker, "heavy").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reserved_name_costs_only_itself() {
    // As programs before this one accepted it.
    let reserved = QueueName::stored("amq.jobs").unwrap();
    let broker = connect(&url(), "");
    let (q, name) = (wake_up("q", 5), servers::unique());
    let mine = WakeUp { queue: queue(&name), ..q };
    let bad = WakeUp { queue: reserved.clone(), ..wake_up("q", 5) };
    let Err(BrokerError::Refused(refused)) = broker.publish(&[bad, mine.clone()]).await else {
        panic!("all are taken")
    };
    assert!(refused.len() == 1 && refused[0].queue == reserved, "{refused:?}");
    assert!(refused[0].why.contains("rename the queue"), "{refused:?}");
    takes(&*broker, &[&name], &[&mine]).await;
    let (_connection, channel) = channel().await;
    channel.queue_delete(name.as_str().into(), QueueDeleteOptions::default()).await.unwrap();
}

/// The server behind a long way.
async fn far_away(delay: Duration, prefix: &str) -> (Proxy, Arc<dyn Broker>) {
    let (before, after) = url().split_once("127.0.0.1:").map(|(b, a)| (b.to_owned(), a.to_owned())).unwrap();
    let digits = after.bytes().take_while(u8::is_ascii_digit).count();
    let proxy = Proxy::start_far(after[..digits].parse().unwrap(), delay).await;
    let far = connect(&format!("{before}127.0.0.1:{}{}", proxy.port(), &after[digits..]), prefix);
    (proxy, far)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_queues_far_away_are_declared_side_by_side() {
    let prefix = format!("{}-", servers::unique());
    let (_proxy, far) = far_away(Duration::from_millis(20), &prefix).await;
    let (_connection, channel) = channel().await;
    let names: Vec<String> = (0..200).map(|n| format!("q{n}")).collect();
    for bad in ["q0", "q77", "q150"] {
        declare(&channel, &format!("{prefix}{bad}"), QueueDeclareOptions::durable()).await;
    }
    let wanted = Want { max: 4, shares: names.iter().map(|q| (queue(q), 1)).collect() };
    let (first, last) = (wake_up("q1", 5), wake_up("q199", 5));
    connect(&url(), &prefix).publish(&[first.clone(), last.clone()]).await.unwrap();
    let mut missing = vec![first.job, last.job];
    let mut consumer = far.consumer().await.unwrap();
    while !missing.is_empty() {
        let got = within("a delivery", consumer.next(&wanted)).await.unwrap();
        missing.retain(|job| !got.iter().any(|d| d.wake_up.job == *job));
        consumer.ack(&tags(&got)).await.unwrap();
    }
    let aside: Vec<String> = far.set_aside().into_iter().map(|s| s.queue.to_string()).collect();
    assert_eq!(aside, ["q0", "q150", "q77"]);
    for name in names {
        channel.queue_delete(format!("{prefix}{name}").as_str().into(), QueueDeleteOptions::default()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_others_take_nobodys_place() {
    let prefix = format!("{}-", servers::unique());
    let broker = connect(&url(), &prefix);
    let old = wake_up("q", 1);
    let (_connection, channel) = channel().await;
    // The first makes the queue.
    broker.publish(std::slice::from_ref(&old)).await.unwrap();
    let foreign = async || {
        let (properties, options) = (BasicProperties::default().with_priority(9), BasicPublishOptions::default());
        let name = format!("{prefix}q");
        channel.basic_publish("".into(), name.as_str().into(), options, b"not ours", properties).await.unwrap();
    };
    for _ in 0..10 {
        foreign().await;
    }
    wait_until("all lie there", async || broker.depth(&queue("q")).await.unwrap() == 11).await;
    let mut consumer = broker.consumer().await.unwrap();
    let wanted = Want { max: 1, shares: vec![(queue("q"), 1)] };
    let got = within("a delivery", consumer.next(&wanted)).await.unwrap();
    assert_eq!(got[0].wake_up.job, old.job);
    consumer.ack(&tags(&got)).await.unwrap();
    // One that comes while it waits does not make it deaf.
    let new = wake_up("q", 1);
    let said = async {
        foreign().await;
        broker.publish(std::slice::from_ref(&new)).await.unwrap();
    };
    let (got, ()) = within("a delivery", async { tokio::join!(biased; consumer.next(&wanted), said) }).await;
    assert_eq!(got.unwrap()[0].wake_up.job, new.job);
}

/// They are more than one call can pass by, and still there afterwards.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_messages_of_others_make_nobody_deaf() {
    const FOREIGN: u64 = 2_400;
    let prefix = format!("{}-", servers::unique());
    let (_proxy, far) = far_away(Duration::from_millis(15), &prefix).await;
    let (near, old, other) = (connect(&url(), &prefix), wake_up("q", 1), wake_up("r", 1));
    near.publish(&[old.clone(), other.clone()]).await.unwrap();
    let (_connection, channel) = channel().await;
    let name = format!("{prefix}q");
    for _ in 0..FOREIGN {
        let (properties, options) = (BasicProperties::default().with_priority(9), BasicPublishOptions::default());
        channel.basic_publish("".into(), name.as_str().into(), options, b"not ours", properties).await.unwrap();
    }
    wait_until("all lie there", async || near.depth(&queue("q")).await.unwrap() == FOREIGN + 1).await;
    let mut consumer = far.consumer().await.unwrap();
    let wanted = want(&["q", "r"]);
    for w in [&other, &old] {
        let got = within("a delivery", consumer.next(&wanted)).await.unwrap();
        assert_eq!(got.iter().map(|d| d.wake_up.job).collect::<Vec<_>>(), [w.job]);
        consumer.ack(&tags(&got)).await.unwrap();
    }
    drop(consumer);
    wait_until("they are back", async || near.depth(&queue("q")).await.unwrap() == FOREIGN).await;
    for q in ["q", "r"] {
        channel.queue_delete(format!("{prefix}{q}").as_str().into(), QueueDeleteOptions::default()).await.unwrap();
    }
}

/// A policy bounds it, and RabbitMQ says no to each message beyond.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_is_told_and_costs_only_itself() {
    let mut all: Value = serde_json::from_str(&definitions(&[("app", [".*"; 3])])).unwrap();
    all["policies"] = json!([{"vhost": "/", "name": "small", "pattern": "^small$", "apply-to": "queues", "priority": 0,
        "definition": {"max-length": 1, "overflow": "reject-publish"}}]);
    let server = Server::start_with("rabbitmq", Some(("definitions.json", &all.to_string())));
    let broker = connect(&format!("amqp://app:secret@127.0.0.1:{}/%2f", server.port), "");
    wait_until("RabbitMQ answers", async || broker.check().await.is_ok()).await;
    let why = eventually("it is full", async || {
        let (small, q) = (wake_up("small", 5), wake_up("q", 5));
        match broker.publish(&[small, q.clone(), wake_up("small", 5)]).await {
            Ok(()) => {}
            Err(BrokerError::Refused(refused)) => {
                takes(&*broker, &["q"], &[&q]).await;
                return (refused.len() == 1).then(|| refused[0].clone());
            }
            Err(e) => panic!("{e}"),
        }
        None
    })
    .await;
    assert!(why.queue == queue("small") && why.why.contains("`max-length`"), "{why:?}");
    assert_eq!(broker.set_aside(), [why]);
    let notes = broker.notes();
    assert!(notes.len() == 1 && notes[0].contains("`small` takes no wake-ups for now"), "{notes:?}");
    // Nobody waits for a time to try.
    broker.purge(&queue("small")).await.unwrap();
    let w = wake_up("small", 5);
    broker.publish(std::slice::from_ref(&w)).await.unwrap();
    takes(&*broker, &["small"], &[&w]).await;
}

/// What README says that a user needs, for the prefix `app-`.
const RIGHTS: [(&str, &str); 3] = [
    ("configure", "^(app-.*|amq\\.gen-.*)$"),
    ("write", "^(app-.*|amq\\.gen-.*|amq\\.default)$"),
    ("read", "^(app-.*|amq\\.gen-.*)$"),
];

fn definitions(users: &[(&str, [&str; 3])]) -> String {
    let salt = [1, 2, 3, 4];
    let hash = Sha256::new().chain_update(salt).chain_update("secret").finalize();
    let password = STANDARD.encode([&salt[..], &hash[..]].concat());
    let user = |name: &str| {
        json!({"name": name, "password_hash": password, "hashing_algorithm": "rabbit_password_hashing_sha256",
               "tags": ""})
    };
    let right = |(name, [configure, write, read]): &(&str, [&str; 3])| json!({"user": name, "vhost": "/", "configure": configure, "write": write, "read": read});
    let names: Vec<Value> = users.iter().map(|(name, _)| user(name)).collect();
    let rights: Vec<Value> = users.iter().map(right).collect();
    json!({"users": names, "vhosts": [{"name": "/"}], "permissions": rights}).to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rights_that_are_lacking_cost_only_what_they_are_for() {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    for (right, pattern) in RIGHTS {
        assert!(readme.contains(pattern), "README does not list the right to {right}: {pattern}");
    }
    let enough = RIGHTS.map(|(_, pattern)| pattern);
    let users = [
        ("enough", enough),
        ("quiet", ["^app-q$", "^(app-q|amq\\.default)$", "^app-q$"]),
        ("reader", ["^app-.*$", "^(app-.*|amq\\.default)$", "^app-(q|r|app\\.control)$"]),
        ("maker", ["^app-(q|r)$", "^(app-.*|amq\\.default)$", "^app-.*$"]),
        ("mute", [".*", "^app-.*$", ".*"]),
    ];
    let server = Server::start_with("rabbitmq", Some(("definitions.json", &definitions(&users))));
    let open =
        |user: &str, prefix: &str| connect(&format!("amqp://{user}:secret@127.0.0.1:{}/%2f", server.port), prefix);
    let broker = open("enough", "app-");
    wait_until("RabbitMQ answers", async || broker.check().await.is_ok()).await;
    exactly_these_are_enough(&*broker, &*open("enough", "other-")).await;

    broadcasts_are_off(&*open("quiet", "app-")).await;

    // It may publish to `heavy`, but not take from it.
    let reader = open("reader", "app-");
    let (heavy, q) = (wake_up("heavy", 5), wake_up("q", 5));
    broker.publish(&[heavy.clone(), q.clone()]).await.unwrap();
    takes(&*reader, &["heavy", "q", "r"], &[&q]).await;
    reader.publish(&[heavy, q.clone()]).await.unwrap();
    takes(&*reader, &["heavy", "q", "r"], &[&q]).await;
    let why = told(&*reader, "heavy");
    assert!(why.contains("access to queue 'app-heavy'") && why.contains("README"), "{why}");

    heavy_costs_only_itself(&*open("maker", "app-"), &["access to queue 'app-heavy'"]).await;

    let warnings = open("mute", "app-").inspect().await.unwrap();
    assert!(warnings.iter().any(|w| w.contains("`mute`") && w.contains("amq.default")), "{warnings:?}");
}

/// With the rights that README lists nothing is lacking, and nothing else is there to be had.
async fn exactly_these_are_enough(broker: &dyn Broker, outside: &dyn Broker) {
    assert_eq!(broker.inspect().await, Ok(Vec::new()));
    assert_eq!(broker.examine(&["q", "r"].map(queue)).await.unwrap(), Lacks::default());
    let all = [wake_up("q", 5), wake_up("r", 9)];
    broker.publish(&all).await.unwrap();
    assert_eq!(broker.depth(&queue("q")).await.unwrap(), 1);
    takes(broker, &["q", "r"], &[&all[0], &all[1]]).await;
    broker.publish(&all).await.unwrap();
    let mut consumer = broker.consumer().await.unwrap();
    let got = within("a delivery", consumer.next(&want(&["q"]))).await.unwrap();
    consumer.give_back(&tags(&got)).await.unwrap();
    takes(broker, &["q", "r"], &[&all[0], &all[1]]).await;
    broadcasts_work(broker).await;
    a_look_finds_nothing_and_tells_nobody(broker).await;
    assert_eq!(broker.purge(&queue("q")).await.unwrap(), 0);
    assert_eq!((broker.set_aside(), broker.notes()), (Vec::new(), Vec::new()));
    let why = refused(outside, &[wake_up("q", 5)], "q").await;
    assert!(why.contains("access to queue 'other-q'") && why.contains("README"), "{why}");
}
