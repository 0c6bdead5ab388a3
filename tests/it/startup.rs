//! Starts that must not succeed: each ends with one sentence and its exit code, and leaves everything as it was. And
//! what a start that succeeds says.

use std::{
    collections::BTreeMap,
    net::TcpListener,
    path::{Path, PathBuf},
};

use app::base::clock::Timestamp;
use rusqlite::Connection;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{
    cli::run::{Ended, run_in},
    support::{
        process::{Process, client},
        wait_until,
    },
};

pub(crate) const FAILED: i32 = 1;
pub(crate) const CONFIG: i32 = 3;

/// Every file below a directory with its bytes, and every directory.
pub(crate) fn contents(dir: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(contents(&path));
            found.insert(path, None);
        } else {
            let bytes = std::fs::read(&path).unwrap();
            found.insert(path, Some(bytes));
        }
    }
    found
}

async fn run(dir: &Path, args: &[&str], env: &[(&str, &str)]) -> Ended {
    run_in(dir, args, env, "").await
}

/// Starts what must be refused in one sentence that holds these parts, without touching anything.
pub(crate) async fn refused(dir: &Path, args: &[&str], env: &[(&str, &str)], code: i32, parts: &[&str]) {
    let before = contents(dir);
    let ended = run(dir, args, env).await;
    assert_eq!(ended.code, Some(code), "{args:?} {env:?}: {ended:?}");
    let sentence = ended.sentence();
    assert_eq!((ended.out.as_str(), ended.err.lines().count()), ("", 1), "{args:?} {env:?} said more: {ended:?}");
    for part in parts {
        assert!(sentence.contains(part), "{args:?} {env:?}: `{part}` is not in: {sentence}");
    }
    let mut after = contents(dir);
    // The lock beside a database file is taken before the file is looked at, and is never deleted.
    after.retain(|path, bytes| {
        before.contains_key(path) || !(is_lock(path) && bytes.as_ref().is_some_and(Vec::is_empty))
    });
    assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>(), "{args:?} {env:?}");
    assert!(before == after, "{args:?} {env:?} changed a file");
}

fn is_lock(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "lock")
}

#[tokio::test]
async fn typing_mistakes_are_told_with_the_right_word() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    file("key.toml", "[http]\nbnd = \"127.0.0.1:1\"\n");
    file("section.toml", "[worke]\nconcurrency = 1\n");
    file("type.toml", "[worker]\nconcurrency = \"many\"\n");
    file("broken.toml", "[worker\n");
    let in_file = |name: &'static str| ["all", "--config", name];
    let d = dir.path();
    let right = "`http.bnd` in key.toml; did you mean `http.bind`?";
    refused(d, &in_file("key.toml"), &[], CONFIG, &[right]).await;
    refused(d, &in_file("section.toml"), &[], CONFIG, &["`worke` in section.toml; did you mean `worker`?"]).await;
    refused(d, &in_file("type.toml"), &[], CONFIG, &["`worker.concurrency` in type.toml is \"many\""]).await;
    refused(d, &in_file("broken.toml"), &[], CONFIG, &["broken.toml is not TOML", "line 1"]).await;
    refused(d, &in_file("gone.toml"), &[], CONFIG, &["gone.toml", "No such file"]).await;
    refused(d, &["all", "--profile", "gone"], &[], CONFIG, &["config/gone.toml"]).await;
    for command in [&["all"][..], &["config", "check"], &["config", "show"], &["migrate"]] {
        let typo = [("APP__WORKER__CONCURENCY", "3")];
        let right = "APP__WORKER__CONCURENCY; did you mean `worker.concurrency`?";
        refused(d, command, &typo, CONFIG, &[right]).await;
    }
    for spec in ["heavy:0", "a,a", "a b", "a:b", "", "amq.jobs"] {
        refused(d, &["all", "--queues", spec], &[], CONFIG, &["`worker.queues` in the command line"]).await;
    }
    let reserved = [("APP__BROKER__PREFIX", "amq.")];
    refused(d, &["all"], &reserved, CONFIG, &["`broker.prefix`", "RabbitMQ keeps names that start with `amq.`"]).await;
    refused(d, &["all", "--shutdown-grace", "5"], &[], CONFIG, &["needs a unit, such as \"5s\""]).await;
    refused(d, &["all", "--log-level", "inof"], &[], CONFIG, &["`inof` is not a level"]).await;
}

#[tokio::test]
async fn a_wrong_rule_is_told_before_anything_is_touched() {
    let dir = tempfile::tempdir().unwrap();
    for (rule, says) in [("item.eaten console event log", "events are item.created"), ("nonsense", "four words")] {
        let env = [("APP__NOTIFICATIONS__RULES", rule)];
        for args in [&["all", "--port", "0"][..], &["config", "check"], &["doctor"]] {
            refused(dir.path(), args, &env, CONFIG, &["notifications.rules", rule, says]).await;
        }
    }
}

#[tokio::test]
async fn roles_that_cannot_share_what_is_embedded_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    for role in ["serve", "worker", "scheduler"] {
        let why = ["lives inside one process", "run `app all`"];
        refused(dir.path(), &[role], &[], CONFIG, &why).await;
        refused(dir.path(), &["config", "check", "--role", role], &[], CONFIG, &why).await;
        let broker = [("APP__BROKER__URL", "redis://:hunter2@127.0.0.1:1")];
        refused(dir.path(), &[role], &broker, CONFIG, &["one process owns that file", "run `app all`"]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn other_hosts_are_served_only_if_that_is_said() {
    let dir = tempfile::tempdir().unwrap();
    for bind in ["0.0.0.0:0", "[::]:0", "192.0.2.1:80"] {
        let parts = ["other hosts can reach", "auth.mode = \"open\""];
        refused(dir.path(), &["all", "--bind", bind], &[], CONFIG, &parts).await;
        refused(dir.path(), &["config", "check", "--bind", bind], &[], CONFIG, &parts).await;
    }
    let open = [("APP__HTTP__BIND", "0.0.0.0:0"), ("APP__AUTH__MODE", "open")];
    let process = Process::start(dir.path(), &open).await;
    assert_eq!(process.get("/health").await.unwrap()["status"], "healthy");
}

#[tokio::test]
async fn a_port_in_use_is_told_before_anything_is_touched() {
    let dir = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let bind = taken.local_addr().unwrap().to_string();
    refused(dir.path(), &["all", "--bind", &bind], &[], FAILED, &[&bind, "already in use", "http.bind"]).await;
    refused(dir.path(), &["all", "--bind", "192.0.2.1:80"], &[("APP__AUTH__MODE", "open")], FAILED, &["192.0.2.1:80"])
        .await;
}

#[tokio::test]
async fn a_data_directory_that_cannot_be_used_is_told() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("data"), "a file in the way").unwrap();
    std::fs::create_dir(dir.path().join("folder")).unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    for args in [&["all", "--port", "0"][..], &["migrate"]] {
        let says = format!("cannot make the directory `{}` for store.url", at("data"));
        refused(dir.path(), args, &[], FAILED, &[&says]).await;
        let deeper = [("APP__STORE__URL", "sqlite://data/deeper/app.db")];
        refused(dir.path(), args, &deeper, FAILED, &[&format!("`{}`", at("data/deeper"))]).await;
        let folder = [("APP__STORE__URL", "sqlite://folder")];
        let says = format!("cannot use `{}` as a database", at("folder"));
        refused(dir.path(), args, &folder, FAILED, &[&says]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_in_use_is_left_to_its_owner() {
    let dir = tempfile::tempdir().unwrap();
    let process = Process::start(dir.path(), &[]).await;
    std::os::unix::fs::symlink("app.db", dir.path().join("link.db")).unwrap();
    for (args, url) in [
        (&["all", "--port", "0"][..], "sqlite://app.db"),
        (&["migrate"], "sqlite://app.db"),
        (&["all", "--port", "0"], "sqlite://link.db"),
        (&["migrate"], "sqlite://link.db"),
    ] {
        let ended = run(dir.path(), args, &[("APP__STORE__URL", url)]).await;
        assert_eq!((ended.code, ended.err.lines().count()), (Some(FAILED), 1), "{ended:?}");
        assert!(ended.sentence().contains("/app.db` is in use by another process"), "{ended:?}");
    }
    let item = process.post("/api/v1/items", &json!({"name": "still mine"})).await.unwrap();
    assert_eq!(item["name"], "still mine");
}

#[tokio::test]
async fn a_file_that_is_no_database_of_this_version_is_not_used() {
    let dir = tempfile::tempdir().unwrap();
    let url = |name: &str| format!("sqlite://{name}");
    std::fs::write(dir.path().join("text.db"), "Dear diary, this is no database.\n".repeat(300)).unwrap();
    let migrated = run(dir.path(), &["migrate", "--store-url", &url("newer.db")], &[]).await;
    assert_eq!(migrated.code, Some(0), "{migrated:?}");
    Connection::open(dir.path().join("newer.db")).unwrap().pragma_update(None, "user_version", 999).unwrap();
    for command in ["all --port 0", "migrate"] {
        let args = |name: &str| format!("{command} --store-url {}", url(name));
        let newer = args("newer.db");
        let parts = ["written by a newer version of app", "schema 999"];
        refused(dir.path(), &newer.split(' ').collect::<Vec<_>>(), &[], FAILED, &parts).await;
        let text = args("text.db");
        let parts = ["/text.db` as a database", "not a database"];
        refused(dir.path(), &text.split(' ').collect::<Vec<_>>(), &[], FAILED, &parts).await;
    }
}

#[tokio::test]
async fn a_database_of_another_program_is_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let other = Connection::open(dir.path().join("other.db")).unwrap();
    other.execute_batch("CREATE TABLE mine (x); INSERT INTO mine VALUES (42)").unwrap();
    drop(other);
    for args in [&["all", "--port", "0"][..], &["migrate"]] {
        let url = [("APP__STORE__URL", "sqlite://other.db")];
        refused(dir.path(), args, &url, FAILED, &["/other.db` is a database of another program"]).await;
    }
}

#[tokio::test]
async fn an_unknown_backend_is_refused_without_showing_its_password() {
    let dir = tempfile::tempdir().unwrap();
    for (key, url, parts) in [
        ("APP__STORE__URL", "oracle://app:hunter2@db/x", ["`oracle://app:***@db/x`", "must be one of: sqlite"]),
        ("APP__BROKER__URL", "kafka://:hunter2@h", ["`kafka://:***@h`", "must be one of: embedded"]),
        ("APP__BROKER__URL", "embedded://x", ["`embedded://x`", "nothing may follow"]),
        ("APP__CACHE__URL", "memcached://:hunter2@h", ["`memcached://:***@h`", "must be one of: memory, redis"]),
        ("APP__CACHE__URL", "memory://x", ["`memory://x`", "nothing may follow"]),
    ] {
        for args in [&["all", "--port", "0"][..], &["config", "check"], &["doctor"]] {
            refused(dir.path(), args, &[(key, url)], CONFIG, &parts).await;
        }
    }
    refused(dir.path(), &["migrate", "--store-url", "sqlite://"], &[], CONFIG, &["names no file"]).await;
}

#[tokio::test]
async fn the_configuration_is_checked_and_shown_without_its_secrets() {
    let dir = tempfile::tempdir().unwrap();
    let check = run(dir.path(), &["config", "check"], &[]).await;
    assert_eq!((check.code, check.err.as_str()), (Some(0), ""), "{check:?}");
    assert!(check.out.contains("the configuration is right"), "{check:?}");
    std::fs::write(dir.path().join("secret"), "mongodb://app:hunter2@db/app?token=hunter2\n").unwrap();
    let secrets = [
        ("APP__BROKER__URL", "redis://:hunter2@h/0"),
        ("APP__STORE__URL_FILE", "secret"),
        ("APP__CACHE__URL", "redis://:hunter2@c/0"),
    ];
    let shown = run(dir.path(), &["config", "show"], &secrets).await;
    assert_eq!((shown.code, shown.err.as_str()), (Some(0), ""), "{shown:?}");
    assert!(!shown.out.contains("hunter2"), "{shown:?}");
    assert!(
        shown.out.contains("redis://:***@h/0")
            && shown.out.contains("redis://:***@c/0")
            && shown.out.contains("app:***@db/app?token=***"),
        "{shown:?}"
    );
    // What is shown can be loaded again.
    std::fs::write(dir.path().join("shown.toml"), &shown.out).unwrap();
    let again = run(dir.path(), &["config", "show", "--config", "shown.toml"], &[]).await;
    assert_eq!(again.out, shown.out);
    assert_eq!(contents(dir.path()).len(), 2, "looking at the configuration made something");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_migrate_made_is_what_all_starts_on() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let migrated = run(dir.path(), &["migrate", "--store-url", "sqlite://app.db"], &[]).await;
        assert_eq!((migrated.code, migrated.out.as_str()), (Some(0), ""), "{migrated:?}");
    }
    let version = |name: &str| -> i64 {
        let db = Connection::open(dir.path().join("app.db")).unwrap();
        db.pragma_query_value(None, name, |r| r.get(0)).unwrap()
    };
    let made = (version("user_version"), version("application_id"));
    assert!(made.0 >= 1 && made.1 != 0, "{made:?}");
    let process = Process::start(dir.path(), &[]).await;
    assert!(!process.log().contains("database migrated"), "{}", process.log());
    let item = process.post("/api/v1/items", &json!({"name": "first"})).await;
    assert!(item.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_log_line_is_json_and_follows_a_job() {
    let dir = tempfile::tempdir().unwrap();
    let mut process = Process::start(dir.path(), &[]).await;
    let submit = async |request_id: &str, runs: Value| {
        let backoff = json!({"base": 0.05, "cap": 0.05});
        let body = json!({"kind": "test.script", "payload": {"runs": runs}, "backoff": backoff});
        let url = format!("{}/api/v1/jobs", process.url);
        let answer = client().post(url).header("x-request-id", request_id).json(&body).send().await.unwrap();
        let job: Value = answer.json().await.unwrap();
        let id = job["id"].as_str().unwrap().to_owned();
        wait_until("the job ends", async || {
            let state = process.get(&format!("/api/v1/jobs/{id}")).await.unwrap()["state"].clone();
            state == "succeeded" || state == "failed"
        })
        .await;
        id
    };
    let good = submit("req-good", json!([[{"progress": [1, 2]}, {"ok": "two\nlines"}]])).await;
    let bad = submit("req-bad", json!([[{"permanent": "bad\nluck"}]])).await;
    let again = submit("req-again", json!([[{"error": "not yet"}], [{"ok": 1}]])).await;
    let attempt = process.get(&format!("/api/v1/jobs/{again}")).await.unwrap()["attempts"][0].clone();
    process.signal(Signal::TERM);
    assert_eq!(process.exit().await.code(), Some(0));

    let log = process.log();
    let lines: Vec<Value> =
        log.lines().map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{e}: {l}"))).collect();
    for line in &lines {
        let text = |key: &str| line[key].as_str().unwrap_or_else(|| panic!("no {key}: {line}"));
        assert!(text("timestamp").ends_with('Z') && text("timestamp").contains('T'), "{line}");
        assert!(["ERROR", "WARN", "INFO", "DEBUG", "TRACE"].contains(&text("level")), "{line}");
        assert!(!text("message").is_empty(), "{line}");
    }
    let said = |message: &str, holds: &dyn Fn(&Value) -> bool| {
        let n = lines.iter().filter(|l| l["message"] == message && holds(l)).count();
        assert_eq!(n, 1, "`{message}`:\n{log}");
    };
    assert!(lines.iter().any(|l| l["message"] == "database migrated"), "{log}");
    for message in ["serving http", "ready", "worker started", "worker stopped", "stopped"] {
        said(message, &|_| true);
    }
    for (id, request_id) in [(&good, "req-good"), (&bad, "req-bad")] {
        // The job is received in its request.
        said("request", &|l| l["status"] == 202 && l["span"]["request_id"] == request_id);
        said("job started", &|l| l["job"] == *id.as_str() && l["request_id"] == request_id && l["attempt"] == 1);
    }
    said("job finished", &|l| l["job"] == good.as_str() && l["state"] == "succeeded" && l["ms"].is_u64());
    let dead = "job failed for good, it is a dead letter now";
    said(dead, &|l| l["job"] == bad.as_str() && l["level"] == "ERROR" && l["error"] == "bad\nluck");
    // A retry is told with the delay that was drawn for it.
    let time = |field: &str| Timestamp::parse(attempt[field].as_str().unwrap()).unwrap().as_millis();
    let delay = time("retry_at") - time("finished_at");
    let retried = |l: &Value| l["job"] == again.as_str() && l["error"] == "not yet" && l["delay_ms"] == delay;
    said("job will run again", &|l| retried(l) && l["request_id"] == "req-again");
}
