//! The files of a SQLite database: who may read them, that after an orderly stop one file is the
//! whole database, that the log gets shorter again, and that a start says where they are.

use std::{
    io::{Read, Write},
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use app::telemetry::metrics::STORE_LOG;
use rusqlite::Connection;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{
    cli::run::{Server, run_in},
    startup::{CONFIG, contents},
    support::{
        process::{Process, binary_after},
        wait_until,
    },
};

/// A queue that nobody serves.
const PARKED: &str = "parked";

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}

fn database(dir: &Path) -> PathBuf {
    dir.join("app.db")
}

/// The database is one file; what remains beside it is the empty lock.
#[track_caller]
fn is_one_file(path: &Path, log: &str) {
    for ending in ["-wal", "-shm"] {
        let beside = PathBuf::from(format!("{}{ending}", path.display()));
        assert!(!beside.exists(), "{} is left: {log}", beside.display());
    }
    let db = Connection::open_with_flags(path, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let tables: i64 = db.query_row("SELECT count(*) FROM sqlite_schema", [], |r| r.get(0)).unwrap();
    assert!(tables > 5, "{tables} tables");
}

async fn park(process: &Process, n: usize) -> Vec<String> {
    let mut ids = Vec::new();
    for _ in 0..n {
        let job = process.post("/api/v1/jobs", &json!({"kind": "noop", "queue": PARKED})).await.unwrap();
        ids.push(job["id"].as_str().unwrap().to_owned());
    }
    ids
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_program_makes_is_its_owners_alone_whatever_the_umask() {
    for umask in ["000", "022", "077"] {
        let dir = tempfile::tempdir().unwrap();
        let mut command = binary_after(&format!("umask {umask}"));
        command.current_dir(dir.path());
        let log = dir.path().join("app.log");
        let mut process = Process::launch_as(command, "all", &log, &["--store-url", "sqlite://data/deep/app.db"], &[]);
        process.ready().await;
        park(&process, 1).await;
        let data = dir.path().join("data");
        assert_eq!(mode(&data), 0o700, "umask {umask}");
        let mut names = Vec::new();
        for (path, bytes) in contents(&data) {
            let right = if bytes.is_some() { 0o600 } else { 0o700 };
            assert_eq!(mode(&path), right, "umask {umask}: {}", path.display());
            names.push(path.file_name().unwrap().to_owned());
        }
        assert_eq!(names, ["deep", "app.db", "app.db-shm", "app.db-wal", "app.db.lock"]);
        assert!(!process.log().contains("chmod 600"), "{}", process.log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_others_can_read_is_told_and_left_as_it_is() {
    let dir = tempfile::tempdir_in("/tmp").unwrap();
    let give = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    let path = database(dir.path());
    let store = format!("sqlite://{}", path.display());
    let migrated = run_in(dir.path(), &["migrate", "--store-url", &store], &[], "").await;
    assert_eq!(migrated.code, Some(0), "{migrated:?}");
    give(&path, 0o640);
    give(dir.path(), 0o700);
    let doctor = run_in(dir.path(), &["doctor", "--store-url", &store], &[], "").await;
    assert!(doctor.code == Some(0), "others cannot come to it: {doctor:?}");
    give(dir.path(), 0o755);
    let doctor = run_in(dir.path(), &["doctor", "--store-url", &store], &[], "").await;
    let remedy = format!("chmod 600 {}", path.display());
    assert!(doctor.code == Some(1) && doctor.out.contains(&remedy), "{doctor:?}");
    let process = Process::start(dir.path(), &[]).await;
    assert!(process.log().contains(&remedy), "{}", process.log());
    assert_eq!(mode(&path), 0o640);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_an_orderly_stop_one_file_is_the_whole_database() {
    for signals in [&[Signal::TERM][..], &[Signal::INT], &[Signal::HUP], &[Signal::TERM, Signal::TERM]] {
        let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut process = Process::start(dir.path(), &[]).await;
        let ids = park(&process, 20).await;
        let body = json!({"kind": "test.script", "payload": {"runs": [["await_stop"]]}});
        let runs = process.post("/api/v1/jobs", &body).await.unwrap()["id"].as_str().unwrap().to_owned();
        if signals.len() > 1 {
            let at = format!("/api/v1/jobs/{runs}");
            wait_until("it runs", async || process.get(&at).await.unwrap()["state"] == "running").await;
        } else {
            process.post(&format!("/api/v1/jobs/{runs}/cancel"), &json!({})).await;
        }
        for (n, signal) in signals.iter().enumerate() {
            process.signal(*signal);
            if n + 1 < signals.len() {
                wait_until("it drains", async || process.log().contains("worker drains")).await;
            }
        }
        assert_eq!(process.exit().await.code(), Some(0), "{}", process.log());
        let path = database(dir.path());
        is_one_file(&path, &process.log());
        std::fs::copy(&path, database(elsewhere.path())).unwrap();
        let process = Process::start(elsewhere.path(), &[]).await;
        for id in &ids {
            let job = process.get(&format!("/api/v1/jobs/{id}")).await.unwrap();
            assert_eq!(job["state"], "queued", "{job}");
        }
        assert!(process.get(&format!("/api/v1/jobs/{runs}")).await.is_some());
        assert!(!process.log().contains("new, empty database"), "{}", process.log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_has_done_its_jobs_leaves_one_file() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path(), &["--max-jobs", "2"]).await;
    for _ in 0..2 {
        server.post("/api/v1/jobs", &json!({"kind": "noop"})).await;
    }
    assert_eq!(server.exit().await.code(), Some(0), "{}", server.log());
    is_one_file(&database(dir.path()), &server.log());
}

/// A Redis server that lets nobody in.
fn refuses() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                while stream.read(&mut [0; 4096]).is_ok_and(|n| n > 0) {
                    // One answer for each command of a pipeline, and more than enough of them.
                    let answer = "-WRONGPASS invalid username-password pair or user is disabled.\r\n".repeat(8);
                    if stream.write_all(answer.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    format!("redis://:wrong@{address}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_fails_after_the_opening_and_single_commands_leave_one_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = database(dir.path());
    let store = format!("sqlite://{}", path.display());
    let url = ["--store-url", &store];
    let broker = refuses();
    let start = [&["all", "--port", "0", "--broker-url", &broker][..], &url].concat();
    let admin = [&["users", "create-admin", "--email", "a@example.com", "--password-file", "-"][..], &url].concat();
    for (args, code) in [(start, CONFIG), ([&["migrate"][..], &url].concat(), 0), (admin, 0)] {
        let ended = run_in(dir.path(), &args, &[], "correct horse battery").await;
        assert_eq!(ended.code, Some(code), "{args:?}: {ended:?}");
        is_one_file(&path, &ended.err);
    }
}

fn metric(text: &str) -> Option<u64> {
    text.lines().find_map(|l| l.strip_prefix(STORE_LOG)?.trim().parse().ok())
}

/// 64 MiB are what it keeps.
const KEPT: u64 = 64 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn the_log_shrinks_again_after_a_reader_held_it() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &["--log-level", "warn"]).await;
    let size = || dir.path().join("app.db-wal").metadata().unwrap().len();
    let big = json!({"kind": "test.script", "queue": PARKED, "payload": {"runs": [[{"ok": "x".repeat(250_000)}]]}});
    let reader = Connection::open(database(dir.path())).unwrap();
    let write = async || {
        let answer = server.post("/api/v1/jobs", &big).await;
        assert_eq!(answer.status(), 202, "{}", answer.text().await.unwrap_or_default());
    };
    write().await;
    reader.execute_batch("BEGIN").unwrap();
    let held: i64 = reader.query_row("SELECT count(*) FROM jobs", [], |r| r.get(0)).unwrap();
    while size() <= KEPT + (8 << 20) {
        write().await;
    }
    let told = metric(&server.text("/metrics").await).unwrap();
    assert!(told > KEPT, "{told}");
    reader.execute_batch("COMMIT").unwrap();
    // Workers report, so there is a next commit.
    wait_until("the log is shorter", async || size() <= KEPT).await;
    wait_until("the metric tells", async || metric(&server.text("/metrics").await).is_some_and(|n| n <= KEPT)).await;
    let now: i64 = reader.query_row("SELECT count(*) FROM jobs", [], |r| r.get(0)).unwrap();
    assert!(now > held);
    assert!(!server.log().contains("ERROR"), "{}", server.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_names_the_database_and_says_if_it_is_a_new_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = database(dir.path()).display().to_string();
    for is_new in [true, false] {
        // By a relative path, as by default.
        let server = Server::start(dir.path(), &["--log-format", "json"]).await;
        wait_until("it is ready", async || server.log().contains("\"ready\"")).await;
        let log = server.log();
        let lines: Vec<Value> = log.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        let ready = lines.iter().find(|l| l["message"] == "ready").unwrap();
        assert_eq!(ready["store"], *path);
        let said = format!("new, empty database at {path}");
        let says = lines.iter().any(|l| l["message"] == *said && l["level"] == "WARN");
        assert_eq!(says, is_new, "{log}");
    }
}
