//! The ceilings: what the libraries below do with the same bytes and rows and nothing else.

use std::time::Instant;

use actix_web::{App, HttpResponse, HttpServer, web};
use rusqlite::{Connection, params};

use crate::{JOBS, SLOTS, report::Report, scratch};

/// What a single submit answers, to the byte count.
pub(crate) const ANSWER: &str = r#"{"id":"01a1fea8-099b-7060-9736-6288af846743","kind":"noop","queue":"parked","priority":5,"state":"queued","payload":{"n":1},"tags":[],"attempt":0,"max_attempts":5,"timeout":3600.0,"created_at":"2026-11-21T15:09:47.803Z","run_at":"2026-11-21T15:09:47.803Z","started_at":null,"finished_at":null,"cancel_requested":false,"progress":null,"result":null,"error":null,"worker":null,"crashes":0,"runs":0,"correlation_id":"c3666e9f-f2c2-4d92-92ad-0660edf226f8","attempts":[],"attempts_dropped":0}"#;

/// Serves [`ANSWER`] to a POST on the port that stands on standard input, until it is killed.
pub(crate) fn http() {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    let port: u16 = line.trim().parse().unwrap();
    let serve = async move {
        let app = || {
            App::new().route(
                "/api/v1/jobs",
                web::post().to(|_body: web::Bytes| async {
                    HttpResponse::Accepted().content_type("application/json").body(ANSWER)
                }),
            )
        };
        HttpServer::new(app).workers(2).bind(("127.0.0.1", port)).unwrap().run().await.unwrap();
    };
    actix_web::rt::System::new().block_on(serve);
}

const SPEC: &str =
    r#"{"v":1,"payload":{},"max_attempts":5,"timeout_ms":3600000,"backoff":{"base_ms":2000,"cap_ms":600000}}"#;
const NOW: i64 = 1_760_000_000_000;

fn open(path: &std::path::Path) -> Connection {
    let c = Connection::open(path).unwrap();
    for (pragma, value) in [("journal_mode", "wal"), ("synchronous", "full")] {
        c.pragma_update(None, pragma, value).unwrap();
    }
    c.pragma_update(None, "cache_size", -8192).unwrap();
    c.pragma_update(None, "wal_autocheckpoint", 8192).unwrap();
    c.execute_batch(include_str!("../../migrations/sqlite/0001_core.sql")).unwrap();
    c
}

/// Inserts, claims and finishes rows of no-op jobs with plain statements, batch by batch.
pub(crate) fn sqlite(report: &mut Report) {
    let dir = scratch();
    let clock = app::base::clock::Clock::system();
    for (name, batch) in
        [("bare SQLite insert, batches of 1000 (rows/s)", 1000), ("bare SQLite insert, batches of 64 (rows/s)", SLOTS)]
    {
        let c = open(&dir.path().join(format!("{batch}.db")));
        let ids: Vec<_> = (0..JOBS).map(|_| clock.new_uuid()).collect();
        let start = Instant::now();
        insert(&c, &ids, batch);
        report.add(name, JOBS as f64 / start.elapsed().as_secs_f64());
        if batch == SLOTS {
            let start = Instant::now();
            claim_and_finish(&c, &ids, batch, clock.new_uuid());
            let name = "bare SQLite claim + finish, batches of 64 (jobs/s)";
            report.add(name, JOBS as f64 / start.elapsed().as_secs_f64());
        }
    }
}

fn insert(c: &Connection, ids: &[uuid::Uuid], batch: usize) {
    for chunk in ids.chunks(batch) {
        c.execute_batch("BEGIN IMMEDIATE").unwrap();
        let mut s = c
            .prepare_cached(
                "INSERT INTO jobs (id, state, queue, priority, kind, at, created, failures, crashes, fence, cancel, spec)
                 VALUES (?1, 1, 'default', 5, 'noop', ?2, ?2, 0, 0, 0, 0, ?3)",
            )
            .unwrap();
        for id in chunk {
            s.execute(params![id.as_bytes(), NOW, SPEC]).unwrap();
        }
        c.execute_batch("COMMIT").unwrap();
    }
}

/// As a worker with `batch` slots would at best: the ends of one round and the claims of the next in one commit.
fn claim_and_finish(c: &Connection, ids: &[uuid::Uuid], batch: usize, worker: uuid::Uuid) {
    let mut before: &[uuid::Uuid] = &[];
    for chunk in ids.chunks(batch).chain([&[][..]]) {
        c.execute_batch("BEGIN IMMEDIATE").unwrap();
        for id in chunk {
            let mut read =
                c.prepare_cached("SELECT state, queue, priority, kind, spec, fence FROM jobs WHERE id = ?1").unwrap();
            let spec: String = read.query_row([id.as_bytes()], |r| r.get(4)).unwrap();
            assert_eq!(spec.len(), SPEC.len());
            c.prepare_cached("UPDATE jobs SET state = 2, at = ?2, fence = 1, worker = ?3, started = ?2 WHERE id = ?1")
                .unwrap()
                .execute(params![id.as_bytes(), NOW, worker.as_bytes()])
                .unwrap();
        }
        for id in before {
            let n = c
                .prepare_cached("UPDATE jobs SET state = 3, at = ?2 WHERE id = ?1 AND state = 2 AND fence = 1")
                .unwrap()
                .execute(params![id.as_bytes(), NOW])
                .unwrap();
            assert_eq!(n, 1);
        }
        c.execute_batch("COMMIT").unwrap();
        before = chunk;
    }
}

/// What the disk alone takes for the one synced write that lies in every pick-up.
pub(crate) async fn sync(report: &mut Report) {
    use std::os::unix::fs::FileExt;
    let dir = scratch();
    let file = std::fs::File::create(dir.path().join("log")).unwrap();
    let page = vec![7_u8; 16 * 1024];
    let mut us = Vec::new();
    let mut tick = tokio::time::interval(std::time::Duration::from_millis(10));
    for n in 0..500_u64 {
        tick.tick().await;
        let start = Instant::now();
        file.write_all_at(&page, n * page.len() as u64).unwrap();
        file.sync_data().unwrap();
        us.push(start.elapsed().as_secs_f64() * 1e6);
    }
    us.sort_by(f64::total_cmp);
    report.add("bare write of 16 KiB + fdatasync at 100/s, p50 (us)", us[us.len() / 2]);
    report.add("bare write of 16 KiB + fdatasync at 100/s, p99 (us)", us[us.len() * 99 / 100]);
}
