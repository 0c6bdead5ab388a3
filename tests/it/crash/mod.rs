//! The crash matrix: each part of a fleet under load is killed, stopped, suspended and cut off, and comes back.
//!
//! One test for each broker and victim goes through the four faults over servers of its own. Whatever happened, every job
//! that was accepted ends in exactly one success, nothing runs after that, and runs beyond one are few and explained by
//! the job's history. Nobody has to restart anything but what was killed.
//!
//! Each cell prints one line of figures; ARCHITECTURE.md has a table of them. `CRASH_STOP_SECS` (7), `CRASH_CUT_SECS` (5)
//! and `CRASH_AWAY_SECS` (1) in the environment make suspensions, cuts and absences longer; leases are 3 s here.

use std::time::Instant;

use self::{
    arena::{Arena, FAULTS, Victim},
    load::{Figures, Load},
};
use crate::support::{fleet::Via, servers};

mod arena;
mod late;
mod load;
mod skew;

/// Slots of the whole fleet: no fault can interrupt more runs than these.
const SLOTS: usize = 8;

fn tell(cell: &str, f: &Figures) {
    eprintln!(
        "crash matrix | {cell} | {} accepted | {} runs above one | longest gap {:.1} s | runs again {:.1} s and all done \
         {:.1} s after healing",
        f.accepted,
        f.extra,
        f.longest_gap.as_secs_f64(),
        f.runs_after.as_secs_f64(),
        f.done_after.as_secs_f64()
    );
}

async fn row(via: Via, victim: Victim) {
    let mut arena = Arena::start(via, victim).await;
    for fault in FAULTS {
        let load = Load::start(&arena, victim);
        load.more(40).await;
        arena.hit(victim, fault).await;
        let healed = Instant::now();
        load.at(&arena);
        let runs_after = load.runs(&arena).await;
        load.more(20).await;
        let f = load.settle(&arena, healed, runs_after).await;
        arena.all_live();
        tell(&format!("{via:?} | {victim:?} | {fault:?}"), &f);
        assert!(f.extra <= SLOTS, "{} runs above one, but only {SLOTS} slots", f.extra);
    }
}

/// Holds every queue, lets wake-ups gather, has the broker forget them, and lets go.
async fn forget(via: Via, forget: impl AsyncFnOnce(&Arena)) {
    let mut arena = Arena::start(via, Victim::Broker).await;
    let load = Load::start(&arena, Victim::Broker);
    load.more(40).await;
    let pause = arena.serves[0].post("/api/v1/queues/default/pause", &serde_json::Value::Null).await;
    assert!(pause.is_some());
    load.more(40).await;
    forget(&arena).await;
    let healed = Instant::now();
    load.more(20).await;
    arena.serves[1].post("/api/v1/queues/default/resume", &serde_json::Value::Null).await.unwrap();
    let runs_after = load.runs(&arena).await;
    let f = load.settle(&arena, healed, runs_after).await;
    arena.all_live();
    tell(&format!("{via:?} | all wake-ups | forgotten"), &f);
    assert_eq!(f.extra, 0, "nobody's lease was touched");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_redis_forgets_is_published_again() {
    forget(Via::Redis, async |arena: &Arena| {
        let client = deadpool_redis::redis::Client::open(arena.broker_url()).unwrap();
        let mut redis = client.get_multiplexed_async_connection().await.unwrap();
        let (before, (), after): (u64, (), u64) = deadpool_redis::redis::pipe()
            .cmd("DBSIZE")
            .cmd("FLUSHALL")
            .cmd("DBSIZE")
            .query_async(&mut redis)
            .await
            .unwrap();
        assert!(before > 0 && after == 0, "{before}, {after}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queues_deleted_in_rabbitmq_are_made_and_filled_again() {
    forget(Via::Rabbitmq, async |arena: &Arena| {
        let connection = servers::amqp(&arena.broker_url()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        let mut lost = 0;
        for queue in ["default", "heavy", "scheduled"] {
            lost += channel.queue_delete(queue.into(), lapin::options::QueueDeleteOptions::default()).await.unwrap();
        }
        assert!(lost > 0, "nothing was in them");
    })
    .await;
}

macro_rules! rows {
    ($($test:ident: $via:ident, $victim:ident;)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                row(Via::$via, Victim::$victim).await;
            }
        )*
    };
}

rows! {
    serve_over_redis: Redis, Serve;
    worker_over_redis: Redis, Worker;
    scheduler_over_redis: Redis, Scheduler;
    redis_itself: Redis, Broker;
    mongod_over_redis: Redis, Mongod;
    serve_over_rabbitmq: Rabbitmq, Serve;
    worker_over_rabbitmq: Rabbitmq, Worker;
    scheduler_over_rabbitmq: Rabbitmq, Scheduler;
    rabbitmq_itself: Rabbitmq, Broker;
    mongod_over_rabbitmq: Rabbitmq, Mongod;
}
