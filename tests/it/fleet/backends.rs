//! Servers that refuse, are away, or are not fit.

use std::time::Duration;

use app::{
    base::clock::Clock,
    jobs::{model::Job, store::Claim},
    store::{self, Sync},
};
use rustix::process::Signal;

use crate::{
    cli::run::run_in,
    support::{
        fleet::{Fleet, Via},
        jobs::{new_job, queue, worker},
        process::{binary, client, free_port, output},
        servers,
    },
};

/// Starts a role that must end by itself, and answers its exit code and what it said.
async fn ends(fleet: &Fleet, role: &str) -> (Option<i32>, String) {
    let mut process = fleet.spawn(role, &[]);
    let status = process.exit().await;
    (status.code(), process.log())
}

/// Another process may have asked a moment ago, when nothing was paused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_holds_for_every_process_once_it_is_answered() {
    let url = servers::mongodb_database().await;
    let (ours, theirs) = (store::open(&url, Sync::Full).unwrap(), store::open(&url, Sync::Full).unwrap());
    let clock = Clock::system();
    let claim = async |job: &Job| {
        ours.jobs.insert(vec![job.clone()], None).await.unwrap();
        let claims = ours.jobs.claim(&[job.id], worker(&clock), clock.now(), Duration::from_secs(15)).await;
        claims.unwrap().remove(0)
    };
    for _ in 0..5 {
        assert!(matches!(claim(&new_job(&clock)).await, Claim::Won { .. }));
        theirs.fleet.set_paused(&queue("default"), true).await.unwrap();
        assert!(matches!(claim(&new_job(&clock)).await, Claim::Paused));
        theirs.fleet.set_paused(&queue("default"), false).await.unwrap();
    }
    servers::drop_database(&url);
}

/// Of one node that is the primary nobody else could be asked; nor could a transaction be begun.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_url_that_asks_for_secondaries_reads_from_the_primary() {
    let url = servers::mongodb_database().await;
    // Connected directly, a server answers whatever is asked of it.
    let seen = url.replace("directConnection=true", "directConnection=false");
    let asks = format!("{seen}&readPreference=secondary&readConcernLevel=majority");
    let (store, clock) = (store::open(&asks, Sync::Full).unwrap(), Clock::system());
    let jobs: Vec<Job> = (0..2).map(|_| new_job(&clock)).collect();
    let ids: Vec<_> = jobs.iter().map(|j| j.id).collect();
    store.jobs.insert(jobs, None).await.unwrap();
    assert!(store.jobs.get(ids[0]).await.unwrap().is_some());
    for id in ids {
        let claims = store.jobs.claim(&[id], worker(&clock), clock.now(), Duration::from_secs(15)).await.unwrap();
        assert!(matches!(claims[..], [Claim::Won { .. }]), "{claims:?}");
    }
    let mut fleet = Fleet::shared(Via::Redis).await;
    fleet.set("APP__STORE__URL", &asks);
    let says = "readPreference and readConcernLevel of store.url are left aside: every read asks the primary";
    fleet.spawn("scheduler", &[]).said(says).await;
    servers::drop_database(&url);
}

/// A server's URL with another user and password.
fn with_credentials(url: &str, credentials: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap();
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    format!("{scheme}://{credentials}@{host}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_credentials_end_with_one_sentence_and_no_password() {
    for (via, name, variable) in [
        (Via::Redis, "MongoDB", "APP__STORE__URL"),
        (Via::Redis, "Redis", "APP__BROKER__URL"),
        (Via::Rabbitmq, "RabbitMQ", "APP__BROKER__URL"),
    ] {
        let mut fleet = Fleet::shared(via).await;
        let wrong = with_credentials(fleet.setting(variable), "mallory:s3cret");
        fleet.set(variable, &wrong);
        for role in ["serve", "worker"] {
            let (code, said) = ends(&fleet, role).await;
            assert_eq!(code, Some(3), "{name}: {said}");
            let last = said.lines().last().unwrap();
            assert!(last.starts_with("error: ") && last.contains(name), "{name}: {said}");
            assert!(!said.contains("s3cret"), "the password is shown: {said}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_starts_without_its_servers_and_says_so() {
    let (store, broker) = (free_port(), free_port());
    let store = format!("mongodb://127.0.0.1:{store}/x?serverSelectionTimeoutMS=300");
    let fleet = Fleet::over(&store, &format!("redis://127.0.0.1:{broker}"));
    let mut api = fleet.spawn("serve", &[]);
    api.said("ready").await;
    let health = client().get(format!("{}/health", api.url)).send().await.unwrap();
    assert_eq!(health.status(), 503);
    let health: serde_json::Value = health.json().await.unwrap();
    assert_eq!(health["services"]["mongodb"], "disconnected");
    assert_eq!(health["services"]["redis"], "disconnected");
    let client = client();
    for path in ["/health/ready", "/api/v1/items", "/api/v1/queues", "/api/v1/jobs"] {
        let answer = client.get(format!("{}{path}", api.url)).send().await.unwrap();
        assert_eq!(answer.status(), 503, "{path}");
        assert!(answer.headers().contains_key("retry-after"), "{path}");
    }
    let live = client.get(format!("{}/health/live", api.url)).send().await.unwrap();
    assert_eq!(live.status(), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_of_a_newer_version_is_refused() {
    let fleet = Fleet::shared(Via::Redis).await;
    let client = mongodb::Client::with_uri_str(fleet.setting("APP__STORE__URL")).await.unwrap();
    let schema = client.default_database().unwrap().collection::<mongodb::bson::Document>("schema");
    schema.insert_one(mongodb::bson::doc! { "_id": "version", "version": 99_i64 }).await.unwrap();
    let (code, said) = ends(&fleet, "scheduler").await;
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("schema version 99"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_doctor_looks_at_every_server() {
    let fleet = Fleet::shared(Via::Rabbitmq).await;
    let doctor = async |store: &str, broker: &str| {
        let mut doctor = binary();
        doctor.args(["doctor", "--store-url", store, "--broker-url", broker]);
        let out = output(doctor).await;
        (out.status.code(), String::from_utf8(out.stdout).unwrap())
    };
    let (store, broker) = (fleet.setting("APP__STORE__URL"), fleet.setting("APP__BROKER__URL"));
    let client = mongodb::Client::with_uri_str(store).await.unwrap();
    for _ in 0..2 {
        let (code, said) = doctor(store, broker).await;
        assert!(code == Some(1) && said.contains("there is no database at mongodb://"), "{said}");
        let made = client.default_database().unwrap().list_collection_names().await.unwrap();
        assert!(made.is_empty(), "a look made something: {made:?}");
    }
    let admin = ["users", "create-admin", "--email", "a@example.com", "--password-file", "-", "--store-url", store];
    let refused = run_in(&fleet.file(""), &admin, &[], "correct horse battery").await;
    assert!(refused.code == Some(1) && refused.sentence().contains("--create"), "{refused:?}");
    let migrated = run_in(&fleet.file(""), &["migrate", "--store-url", store], &[], "").await;
    assert_eq!(migrated.code, Some(0), "{migrated:?}");
    let (code, said) = doctor(store, broker).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("mongodb: ok") && said.contains("rabbitmq: ok"), "{said}");
    let gone = format!("redis://127.0.0.1:{}", free_port());
    let (code, said) = doctor(&servers::mongodb_database().await, &gone).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("redis: away"), "{said}");
}

/// A terminal that closes, and systemd's `SendSIGHUP=`, end every role as SIGTERM does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sighup_ends_every_role_in_good_order() {
    let fleet = Fleet::shared(Via::Redis).await;
    let (serve, worker, scheduler) = (fleet.serve().await, fleet.worker(&[]).await, fleet.scheduler().await);
    for mut role in [serve, worker, scheduler] {
        role.signal(Signal::HUP);
        role.signal(Signal::HUP);
        assert_eq!(role.exit().await.code(), Some(0), "{}", role.log());
        assert!(role.log().contains("\"store\":\"mongodb://"), "{}", role.log());
        assert!(role.log().contains("\"stopped\"") && !role.log().contains("second signal"), "{}", role.log());
    }
}
