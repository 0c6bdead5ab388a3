//! Queues and rights that a broker's server refuses, as people see it: in health, in lists, and by the doctor.

use deadpool_redis::redis;
use lapin::{
    ExchangeKind,
    options::{ExchangeDeclareOptions, QueueDeclareOptions, QueueDeleteOptions},
    types::FieldTable,
};
use serde_json::{Value, json};

use crate::support::{
    eventually,
    fleet::{Fleet, Via, in_state, submit},
    process::{binary, output},
    server::Server,
    servers,
};

async fn app(args: &[&str], fleet: &Fleet) -> (Option<i32>, String) {
    let mut command = binary();
    for key in ["APP__STORE__URL", "APP__BROKER__URL", "APP__BROKER__PREFIX"] {
        command.env(key, fleet.setting(key));
    }
    command.args(args).env("APP__WORKER__QUEUES", "default,heavy");
    let out = output(command).await;
    (out.status.code(), String::from_utf8(out.stdout).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_queue_is_told_and_costs_only_itself() {
    let fleet = Fleet::shared(Via::Rabbitmq).await;
    let name = format!("{}heavy", fleet.setting("APP__BROKER__PREFIX"));
    let admin = servers::amqp(fleet.setting("APP__BROKER__URL")).await.unwrap();
    let channel = admin.create_channel().await.unwrap();
    let plain = QueueDeclareOptions::durable();
    channel.queue_declare(name.as_str().into(), plain, FieldTable::default()).await.unwrap();
    let (api, _scheduler) = (fleet.serve().await, fleet.scheduler().await);
    let worker = fleet.worker(&["--queues", "heavy,default"]).await;
    let heavy = submit(&api, json!([[{"ok": 1}]]), json!({"queue": "heavy"})).await;
    let other = submit(&api, json!([[{"ok": 1}]]), json!({"queue": "default"})).await;
    in_state(&api, &other, "succeeded").await;

    let says = format!("the queue `{name}` exists in RabbitMQ with other arguments");
    let told = |queue: &Value| queue["set_aside"].as_str().is_some_and(|why| why.contains(&says));
    let queue = async || api.get("/api/v1/queues/heavy").await;
    eventually("the list tells", async || queue().await.filter(told)).await;
    let reported = |w: &Value| w["data"][0]["set_aside"][0]["queue"] == "heavy";
    eventually("the worker reports it", async || api.get("/api/v1/workers").await.filter(reported)).await;
    let health = api.get("/health").await.unwrap();
    assert_eq!((&health["status"], &health["services"]["rabbitmq"]), (&json!("healthy"), &json!("connected")));
    assert!(health["degraded"]["rabbitmq"][0].as_str().unwrap().contains("`heavy` is set aside"), "{health}");
    let (code, said) = app(&["queues", "list", "--url", &api.url], &fleet).await;
    assert!(code == Some(0) && said.contains("set aside") && said.contains(&says), "{said}");
    let (code, said) = app(&["doctor"], &fleet).await;
    assert!(code == Some(1) && said.contains("rabbitmq: warning") && said.contains(&says), "{said}");
    assert!(said.contains("delete it there") && worker.log().contains("queue is set aside"), "{said}");

    channel.queue_delete(name.as_str().into(), QueueDeleteOptions::default()).await.unwrap();
    in_state(&api, &heavy, "succeeded").await;
    let next = submit(&api, json!([[{"ok": 1}]]), json!({"queue": "heavy"})).await;
    in_state(&api, &next, "succeeded").await;
    eventually("nothing is told any more", async || queue().await.filter(|q| q["set_aside"].is_null())).await;
    let health = api.get("/health").await.unwrap();
    assert!(health.get("degraded").is_none(), "{health}");
    let (code, said) = app(&["doctor"], &fleet).await;
    assert!(code == Some(0) && said.contains("rabbitmq: ok"), "{said}");
}

/// Neither the queues of the workers nor the exchange of broadcasts are made by a look.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_doctor_leaves_nothing_behind_in_rabbitmq() {
    let fleet = Fleet::shared(Via::Rabbitmq).await;
    let prefix = fleet.setting("APP__BROKER__PREFIX").to_owned();
    let (_, said) = app(&["doctor"], &fleet).await;
    assert!(said.contains("rabbitmq: ok"), "{said}");
    let admin = servers::amqp(fleet.setting("APP__BROKER__URL")).await.unwrap();
    let look = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
    let (name, kind) = (format!("{prefix}app.control"), ExchangeKind::Fanout);
    let channel = admin.create_channel().await.unwrap();
    let seen = channel.exchange_declare(name.as_str().into(), kind, look, FieldTable::default()).await;
    assert!(seen.as_ref().is_err_and(|e| e.to_string().contains("no exchange")), "{seen:?}");
    for queue in ["default", "heavy"] {
        let channel = admin.create_channel().await.unwrap();
        let (name, look) = (format!("{prefix}{queue}"), QueueDeclareOptions::default().passive());
        let seen = channel.queue_declare(name.as_str().into(), look, FieldTable::default()).await;
        assert!(seen.as_ref().is_err_and(|e| e.to_string().contains("no queue")), "{seen:?}");
    }
}

/// What Redis gives a user who is not given more: keys, but no channels.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_user_without_channels_runs_and_cancels_jobs() {
    let server = Server::start("redis");
    let client = redis::Client::open(format!("redis://127.0.0.1:{}", server.port)).unwrap();
    let mut admin = eventually("Redis answers", async || client.get_multiplexed_async_connection().await.ok()).await;
    let rights = ["SETUSER", "few", "on", ">secret", "+@all", "~*"];
    redis::cmd("ACL").arg(&rights).query_async::<()>(&mut admin).await.unwrap();
    let mut fleet = Fleet::shared(Via::Redis).await;
    fleet.set("APP__BROKER__URL", &format!("redis://few:secret@127.0.0.1:{}", server.port));
    let (api, _scheduler) = (fleet.serve().await, fleet.scheduler().await);
    let worker = fleet.worker(&["--queues", "default"]).await;
    for _ in 0..3 {
        let job = submit(&api, json!([[{"ok": 1}]]), json!({"queue": "default"})).await;
        in_state(&api, &job, "succeeded").await;
    }
    let job = submit(&api, json!([["await_stop"]]), json!({"queue": "default"})).await;
    in_state(&api, &job, "running").await;
    assert!(api.post(&format!("/api/v1/jobs/{job}/cancel"), &json!({})).await.is_some());
    in_state(&api, &job, "cancelled").await;
    let health = api.get("/health").await.unwrap();
    assert!(health["status"] == "healthy" && health["degraded"]["redis"].is_array(), "{health}");
    let (code, said) = app(&["doctor"], &fleet).await;
    assert!(code == Some(1) && said.contains("redis: warning") && said.contains("`&app:*`"), "{said}");
    let warned = worker.log().matches("broadcasts are not heard").count();
    assert_eq!(warned, 1, "one warning: {}", worker.log());
}
