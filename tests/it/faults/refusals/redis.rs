use deadpool_redis::redis::{self, aio::MultiplexedConnection};

use super::*;
use crate::support::{server::Server, wait_until};

/// What README says that a user needs.
const RIGHTS: &str = "ACL SETUSER app on >secret ~app:* &app:* -@all +ping +info +evalsha +script|load +select +llen \
    +rpush +lpush +lpop +unlink +publish +subscribe +get +set +getrange +incrby +pexpire +time";

async fn up() -> (Server, MultiplexedConnection) {
    let server = Server::start("redis");
    let client = redis::Client::open(format!("redis://127.0.0.1:{}", server.port)).unwrap();
    let admin = eventually("Redis answers", async || client.get_multiplexed_async_connection().await.ok()).await;
    (server, admin)
}

fn open(server: &Server, user: &str) -> Arc<dyn Broker> {
    connect(&format!("redis://{user}127.0.0.1:{}", server.port), "p")
}

/// A command in words.
async fn run(admin: &mut MultiplexedConnection, line: &str) {
    let mut words = line.split_whitespace();
    let mut command = redis::cmd(words.next().unwrap());
    for word in words {
        command.arg(word);
    }
    command.query_async::<redis::Value>(admin).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_of_another_type_costs_only_itself() {
    let (server, mut admin) = up().await;
    let broker = open(&server, "");
    run(&mut admin, "SET app:p{heavy}:5 mine").await;
    let all = [wake_up("heavy", 5), wake_up("q", 5), wake_up("heavy", 9), wake_up("heavy", 2)];
    let why = refused(&*broker, &all, "heavy").await;
    assert!(why.contains("app:p{heavy}:*") && why.contains("WRONGTYPE") && why.contains("delete or rename"), "{why}");
    assert!(why.contains("`app:p{heavy}:5`"), "the key that is none is named: {why}");
    told(&*broker, "heavy");
    // Other priorities of the same queue go on, too.
    takes(&*broker, &["heavy", "q"], &[&all[1], &all[2], &all[3]]).await;
    let why = told(&*broker, "heavy");
    assert!(why.contains("`app:p{heavy}:5`"), "{why}");
    let found = broker.examine(&["q", "heavy"].map(queue)).await.unwrap().queues;
    assert!(found.len() == 1 && found[0].why.contains("`app:p{heavy}:5`"), "{found:?}");
    run(&mut admin, "DEL app:p{heavy}:5").await;
    is_served_again(&*broker, "heavy").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_without_a_right_costs_only_itself() {
    let (server, mut admin) = up().await;
    run(&mut admin, "ACL SETUSER few on >secret +@all &* ~app:p{q}:*").await;
    let broker = open(&server, "few:secret@");
    let all = [wake_up("heavy", 5), wake_up("q", 5)];
    let why = refused(&*broker, &all, "heavy").await;
    assert!(why.contains("app:p{heavy}:*") && why.contains("README"), "{why}");
    takes(&*broker, &["heavy", "q"], &[&all[1]]).await;
    told(&*broker, "heavy");
    run(&mut admin, "ACL SETUSER few ~app:p{heavy}:*").await;
    is_served_again(&*broker, "heavy").await;
}

/// A user that is not given channels has none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_without_channels_does_without_broadcasts_and_bells() {
    let (server, mut admin) = up().await;
    run(&mut admin, "ACL SETUSER few on >secret +@all ~*").await;
    let broker = open(&server, "few:secret@");
    let warnings = broker.inspect().await.unwrap();
    assert!(warnings.len() == 1 && warnings[0].contains("`&app:*`"), "{warnings:?}");
    broadcasts_are_off(&*broker).await;
    let notes = broker.notes().join("\n");
    assert!(notes.contains("idle workers look once a second"), "{notes}");
    // One that waits already finds what comes.
    let mut consumer = broker.consumer().await.unwrap();
    let (wanted, w) = (want(&["q", "r"]), wake_up("r", 5));
    let said = async { broker.publish(std::slice::from_ref(&w)).await.unwrap() };
    let (got, ()) = within("a delivery", async { tokio::join!(biased; consumer.next(&wanted), said) }).await;
    assert_eq!(got.unwrap()[0].wake_up.job, w.job);
    assert_eq!(broker.set_aside(), []);
    run(&mut admin, "ACL SETUSER few &app:*").await;
    broadcasts_work(&*broker).await;
    let w = wake_up("s", 5);
    broker.publish(std::slice::from_ref(&w)).await.unwrap();
    assert_eq!(broker.notes(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rights_that_readme_lists_are_enough() {
    use app::{
        base::clock::Clock,
        cache::{self, Admission, Rate},
    };

    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    assert!(readme.contains(RIGHTS), "README does not list: {RIGHTS}");
    let (server, mut admin) = up().await;
    run(&mut admin, RIGHTS).await;
    let broker = open(&server, "app:secret@");
    assert_eq!(broker.inspect().await, Ok(Vec::new()));
    broker.check().await.unwrap();
    a_look_finds_nothing_and_tells_nobody(&*broker).await;
    let all = [wake_up("q", 5), wake_up("r", 9)];
    broker.publish(&all).await.unwrap();
    assert_eq!(broker.depth(&queue("q")).await.unwrap(), 1);
    takes(&*broker, &["q", "r"], &[&all[0], &all[1]]).await;
    broker.publish(&all).await.unwrap();
    let mut consumer = broker.consumer().await.unwrap();
    let got = within("a delivery", consumer.next(&want(&["q"]))).await.unwrap();
    consumer.give_back(&tags(&got)).await.unwrap();
    assert_eq!(broker.purge(&queue("q")).await.unwrap(), 1);
    broadcasts_work(&*broker).await;
    assert_eq!((broker.set_aside(), broker.notes()), (Vec::new(), Vec::new()));

    let options = crate::support::adapters::cache_options("app", &Clock::system());
    let cache = cache::connect(&format!("redis://app:secret@127.0.0.1:{}/1", server.port), options).unwrap();
    let hour = std::time::Duration::from_secs(3600);
    assert_eq!(cache.inspect().await, Ok(Vec::new()));
    cache.check().await.unwrap();
    cache.set("k", b"v", hour).await.unwrap();
    assert_eq!(cache.get("k").await.unwrap().unwrap().value, b"v");
    cache.delete(&["k"]).await.unwrap();
    assert!(cache.update("u", None, b"v", hour).await.unwrap().is_some());
    assert_eq!(cache.increment("n", 2, hour).await.unwrap(), 2);
    assert_eq!(cache.admit("l", Rate { burst: 1, every: hour }).await.unwrap(), Admission::Allowed);
}

/// A script that fails says the right word, and so does the server at the start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_who_may_not_ask_how_the_server_is_set_up_is_let_in_with_a_warning() {
    let (server, mut admin) = up().await;
    run(&mut admin, "ACL SETUSER few on >secret +@all -info ~* &*").await;
    let warnings = open(&server, "few:secret@").inspect().await.unwrap();
    assert!(warnings.len() == 1 && warnings[0].contains("the right to `INFO`"), "{warnings:?}");
    wait_until("the server answers", async || open(&server, "").check().await.is_ok()).await;
}
