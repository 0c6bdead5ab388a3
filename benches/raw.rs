//! temp experiments
use rusqlite::{Connection, params};
use std::time::Instant;
fn open(dir: &std::path::Path, name: &str) -> Connection {
    let c = Connection::open(dir.join(name)).unwrap();
    c.pragma_update(None, "journal_mode", "wal").unwrap();
    c.pragma_update(None, "synchronous", "full").unwrap();
    c.pragma_update(None, "cache_size", -16384).unwrap();
    c.pragma_update(None, "wal_autocheckpoint", 8192).unwrap();
    c.set_prepared_statement_cache_capacity(64);
    c.execute_batch(include_str!("../migrations/sqlite/0001_core.sql")).unwrap();
    c
}
fn main() {
    let dir = tempfile::tempdir_in(".").unwrap();
    let clock = app::base::clock::Clock::system();
    let n = 100_000usize;
    let batch: usize = 64;
    let spec =
        r#"{"v":1,"payload":{},"max_attempts":5,"timeout_ms":3600000,"backoff":{"base_ms":2000,"cap_ms":600000}}"#;
    let w = clock.new_uuid();
    let att = format!(r#"{{"n":1,"w":"{w}","s":1760000000000,"f":1760000000000,"o":"succeeded"}}"#);
    let modes: Vec<String> = std::env::var("MODES").unwrap_or("full".into()).split(",").map(str::to_owned).collect();
    for mode in &modes {
        let c = open(dir.path(), &mode);
        if mode.contains("nockpt") {
            c.pragma_update(None, "wal_autocheckpoint", 0).unwrap();
        }
        let att = if mode.contains("noatt") { None } else { Some(att.clone()) };
        if mode == "nosync-claim" {
            c.pragma_update(None, "synchronous", "off").unwrap();
        }
        if mode.starts_with("lease") {
            c.execute_batch("CREATE TABLE leases(job BLOB PRIMARY KEY, at INTEGER, fence INTEGER, worker BLOB, started INTEGER) WITHOUT ROWID").unwrap();
        }
        if mode == "one-index" {
            c.execute_batch("DROP INDEX jobs_queued; DROP INDEX jobs_timed; CREATE INDEX live ON jobs(state, queue, at) WHERE state < 3").unwrap();
        }
        let ids: Vec<_> = (0..n).map(|_| clock.new_uuid()).collect();
        let t = Instant::now();
        for chunk in ids.chunks(1000) {
            c.execute_batch("BEGIN IMMEDIATE").unwrap();
            for id in chunk {
                c.prepare_cached("INSERT INTO jobs (id, state, queue, priority, kind, at, created, failures, crashes, fence, cancel, spec) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 0, 0, 0, 0, ?8)").unwrap()
                 .execute(params![id.as_bytes(), 1, "default", 5, "noop", 1760000000000i64, 1760000000000i64, spec]).unwrap();
            }
            c.execute_batch("COMMIT").unwrap();
        }
        println!("{mode}: insert {:.0}/s", n as f64 / t.elapsed().as_secs_f64());
        let t = Instant::now();
        let (mut sel, mut cl, mut fin, mut com) = (0u128, 0u128, 0u128, 0u128);
        let mut prev: &[uuid::Uuid] = &[];
        for chunk in ids.chunks(batch).chain(std::iter::once(&[][..])) {
            c.execute_batch("BEGIN IMMEDIATE").unwrap();
            let a = Instant::now();
            for id in chunk {
                let mut s = c.prepare_cached("SELECT id, state, queue, priority, kind, at, created, failures, crashes, fence, cancel, worker, started, spec, progress, result, error, attempts FROM jobs WHERE id = ?1").unwrap();
                let mut r = s.query([id.as_bytes()]).unwrap();
                let row = r.next().unwrap().unwrap();
                let _x: String = row.get(13).unwrap();
            }
            let b = Instant::now();
            for id in chunk {
                if mode.starts_with("lease") {
                    c.prepare_cached("INSERT INTO leases VALUES (?1,?2,?3,?4,?5)")
                        .unwrap()
                        .execute(params![id.as_bytes(), 1760000000000i64, 1, w.as_bytes(), 1760000000000i64])
                        .unwrap();
                } else {
                    c.prepare_cached("UPDATE jobs SET state = 2, at = ?2, fence = ?3, worker = ?4, started = ?5, progress = NULL WHERE id = ?1").unwrap()
                    .execute(params![id.as_bytes(), 1760000000000i64, 1, w.as_bytes(), 1760000000000i64]).unwrap();
                }
            }
            let d = Instant::now();
            for id in prev {
                if mode.starts_with("lease") {
                    c.prepare_cached("DELETE FROM leases WHERE job = ?1").unwrap().execute([id.as_bytes()]).unwrap();
                    c.prepare_cached("UPDATE jobs SET state = ?2, at = ?3, failures = ?4, result = ?5, attempts = ?6,
             error = CASE WHEN ?2 = 3 THEN NULL WHEN ?7 IS NULL THEN error ELSE ?7 END, fence=1, worker=?8, started=?3 WHERE id = ?1").unwrap()
                    .execute(params![id.as_bytes(), 3, 1760000000000i64, 0, None::<String>, att, None::<String>, w.as_bytes()]).unwrap();
                } else {
                    {
                        let mut s = c.prepare_cached("SELECT queue, cancel, failures, attempts FROM jobs WHERE id = ?1 AND state = 2 AND fence = ?2").unwrap();
                        let mut r = s.query(params![id.as_bytes(), 1]).unwrap();
                        let row = r.next().unwrap().unwrap();
                        let _q: String = row.get(0).unwrap();
                    }
                    c.prepare_cached(
                        "UPDATE jobs SET state = ?2, at = ?3, failures = ?4, result = ?5, attempts = ?6,
             error = CASE WHEN ?2 = 3 THEN NULL WHEN ?7 IS NULL THEN error ELSE ?7 END WHERE id = ?1",
                    )
                    .unwrap()
                    .execute(params![id.as_bytes(), 3, 1760000000000i64, 0, None::<String>, att, None::<String>])
                    .unwrap();
                }
            }
            let e = Instant::now();
            c.execute_batch("COMMIT").unwrap();
            let f = Instant::now();
            prev = chunk;
            sel += (b - a).as_nanos();
            cl += (d - b).as_nanos();
            fin += (e - d).as_nanos();
            com += (f - e).as_nanos();
        }
        let us = |x: u128| x as f64 / 1000. / n as f64;
        println!("wal {} MB", std::fs::metadata(dir.path().join(format!("{mode}-wal"))).unwrap().len() >> 20);
        println!(
            "{mode}: claim+finish {:.0}/s; per job us: select {:.2} claim {:.2} finish {:.2} commit {:.2}",
            n as f64 / t.elapsed().as_secs_f64(),
            us(sel),
            us(cl),
            us(fin),
            us(com)
        );
    }
}
