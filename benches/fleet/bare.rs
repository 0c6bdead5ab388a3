//! The ceiling: the same documents in the same batches through the driver alone.

use std::time::{Duration, Instant};

use mongodb::{
    Client, Collection, Database,
    bson::{self, DateTime, Document, doc},
    options::{ClientOptions, DatabaseOptions, WriteConcern},
};

use crate::{JOBS, Place, report::Report};

/// Makes a lone server a replica set of one; waits until it takes writes.
pub(crate) async fn initiate(server: &str) {
    let options = ClientOptions::parse(server).await.unwrap();
    let host = options.hosts.first().map(ToString::to_string).unwrap();
    let admin = Client::with_options(options).unwrap().database("admin");
    let set = doc! { "_id": "rs0", "members": [{ "_id": 0, "host": host }] };
    // An error says that it is one already.
    drop(admin.run_command(doc! { "replSetInitiate": set }).await);
    loop {
        let hello = admin.run_command(doc! { "hello": 1 }).await;
        if hello.is_ok_and(|h| h.get_bool("isWritablePrimary").unwrap_or(false)) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

const CORE: &str = include_str!("../../migrations/mongodb/0001_core.json");
const LEASES: &str = include_str!("../../migrations/mongodb/0003_leases.json");

pub(crate) fn new_id() -> bson::Uuid {
    bson::Uuid::from_bytes(uuid::Uuid::now_v7().into_bytes())
}

/// A job as it is stored while it is queued.
pub(crate) fn job(id: bson::Uuid) -> Document {
    let spec =
        r#"{"v":1,"payload":{},"max_attempts":5,"timeout_ms":3600000,"backoff":{"base_ms":2000,"cap_ms":600000}}"#;
    let now = DateTime::now();
    doc! {
        "_id": id, "state": 1, "queue": "default", "priority": 5, "kind": "noop", "at": now, "created": now, "spec": spec,
    }
}

/// The database as what must not be lost is written to it.
async fn durable(place: &Place) -> Database {
    let client = Client::with_uri_str(&place.store).await.unwrap();
    let mut durable = WriteConcern::majority();
    durable.journal = Some(true);
    let name = client.default_database().unwrap().name().to_owned();
    client.database_with_options(&name, DatabaseOptions::builder().write_concern(durable).build())
}

pub(crate) async fn durable_jobs(place: &Place) -> Collection<Document> {
    durable(place).await.collection("jobs")
}

/// As many as a worker claims ahead at most.
const BATCH: usize = 256;

/// Inserts in batches of 1000, then claims and finishes in batches of [`BATCH`], eight batches at a time, as a worker does:
/// the same documents in the same batches, and the same without leases, each claim being an update.
pub(crate) async fn mongodb(report: &mut Report, place: &Place) {
    let db = durable(place).await;
    for by_lease in [true, false] {
        for migration in [CORE, LEASES] {
            let commands: Vec<Document> = serde_json::from_str(migration).unwrap();
            for command in commands {
                db.run_command(command).await.unwrap();
            }
        }
        let ids: Vec<bson::Uuid> = (0..JOBS).map(|_| new_id()).collect();
        let jobs = db.collection::<Document>("jobs");
        let start = Instant::now();
        for batch in ids.chunks(4000) {
            let inserts = batch.chunks(1000).map(|b| jobs.insert_many(b.iter().map(|id| job(*id))).ordered(false));
            futures_util::future::try_join_all(inserts.map(IntoFuture::into_future)).await.unwrap();
        }
        report.add("bare mongodb: insert, batches of 1000 (documents/s)", JOBS as f64 / start.elapsed().as_secs_f64());
        let start = Instant::now();
        let mut tasks = tokio::task::JoinSet::new();
        for part in ids.chunks(JOBS / 8) {
            let (db, part) = (db.clone(), part.to_vec());
            tasks.spawn(async move {
                for ids in part.chunks(BATCH) {
                    claim_and_finish(&db, ids, by_lease).await;
                }
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
        let way = if by_lease { "lease" } else { "update" };
        let name = format!("bare mongodb: claim by {way} + finish, batches of {BATCH} (jobs/s)");
        report.add(&name, JOBS as f64 / start.elapsed().as_secs_f64());
        assert_eq!(jobs.count_documents(doc! { "state": 3, "fence": 1_i64 }).await.unwrap(), JOBS as u64);
        db.drop().await.unwrap();
    }
}

/// What a pick-up is made of in the store: two durable inserts, one after the other, a hundred such pairs a second.
pub(crate) async fn two_inserts(report: &mut Report, place: &Place) {
    const N: usize = 1000;
    let db = durable(place).await;
    let jobs = db.collection::<Document>("jobs");
    let (mut us, mut tick) = (Vec::with_capacity(N), tokio::time::interval(Duration::from_millis(10)));
    for _ in 0..N {
        tick.tick().await;
        let start = Instant::now();
        for _ in 0..2 {
            jobs.insert_one(job(new_id())).await.unwrap();
        }
        us.push(start.elapsed().as_secs_f64() * 1e6);
    }
    report.add_times("bare mongodb: two durable inserts, one after the other, at 100/s", us);
    db.drop().await.unwrap();
}

async fn claim_and_finish(db: &Database, ids: &[bson::Uuid], by_lease: bool) {
    let now = DateTime::now();
    let worker = ids[0];
    let lease = bson::Bson::from(bson::Uuid::new());
    if by_lease {
        let named: Vec<bson::Bson> = ids.iter().map(|id| bson::Bson::from(*id)).chain([lease.clone()]).collect();
        let lease = doc! { "_id": lease.clone(), "worker": worker, "started": now, "until": now, "jobs": named };
        db.collection::<Document>("leases").insert_one(lease).await.unwrap();
    } else {
        let set = doc! { "state": 2, "lease": now, "worker": worker, "started": now, "by": 1_i64 };
        let u = doc! { "$set": set, "$inc": { "fence": 1_i64 }, "$unset": { "progress": "" } };
        let claim = doc! { "q": { "_id": { "$in": ids }, "state": 1 }, "u": u, "multi": true };
        let concern = doc! { "w": "majority", "j": true };
        db.run_command(doc! { "update": "jobs", "updates": [claim], "writeConcern": concern }).await.unwrap();
    }
    let mut found =
        db.collection::<Document>("jobs").find(doc! { "_id": { "$in": ids } }).batch_size(BATCH as u32).await.unwrap();
    let mut n = 0;
    while found.advance().await.unwrap() {
        n += 1;
    }
    assert_eq!(n, ids.len());
    let set = doc! { "state": 3, "at": now, "by": 2_i64, "fence": 1_i64, "worker": worker, "started": now };
    let u = doc! { "$set": set, "$unset": { "lease": "", "error": "" } };
    let (state, fence) = if by_lease { (1, bson::Bson::Null) } else { (2, bson::Bson::Int64(1)) };
    let finish = doc! { "q": { "_id": { "$in": ids }, "state": state, "fence": fence }, "u": u, "multi": true };
    let concern = doc! { "w": "majority", "j": true };
    db.run_command(doc! { "update": "jobs", "updates": [finish], "writeConcern": concern }).await.unwrap();
    if by_lease {
        let over = doc! { "q": { "_id": lease }, "limit": 1 };
        db.run_command(doc! { "delete": "leases", "deletes": [over] }).await.unwrap();
    }
}
