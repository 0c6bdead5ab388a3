//! The command line over a running process: what it prints, and the exit codes that `app --help` lists.

mod limits;
pub(crate) mod run;

use serde_json::{Value, json};

use self::run::{Cli, run_in};
use crate::support::{process::Process, wait_until};

const OK: &str = r#"{"runs":[[{"ok":{"a":1}}]]}"#;
const FAIL: &str = r#"{"runs":[[{"permanent":"bad luck"}]]}"#;
const STAY: &str = r#"{"runs":[["await_stop"]]}"#;
/// An id that no job has.
const NOBODY: &str = "01980000-0000-7000-8000-000000000000";

async fn start(dir: &std::path::Path) -> Process {
    Process::start(dir, &[("APP__WORKER__QUEUES", "default"), ("APP__WORKER__HEARTBEAT", "100ms")]).await
}

fn ids(list: &Value) -> Vec<&str> {
    list["data"].as_array().unwrap().iter().map(|job| job["id"].as_str().unwrap()).collect()
}

async fn until_state(cli: &Cli<'_>, id: &str, state: &str) {
    wait_until(state, async || cli.json(&["jobs", "show", id]).await["state"] == state).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_submitted_from_everywhere_and_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let process = start(dir.path()).await;
    let cli = Cli { dir: dir.path(), url: &process.url };
    std::fs::write(dir.path().join("payload.json"), OK).unwrap();

    let inline = cli.ok(&["jobs", "submit", "test.script", "--payload", OK]).await;
    let file = cli.ok(&["jobs", "submit", "test.script", "--payload", "@payload.json", "--tag", "filed"]).await;
    let stdin = cli.run(&["jobs", "submit", "test.script", "--payload", "-"], OK).await;
    assert_eq!(stdin.code, Some(0), "{stdin:?}");
    for id in [inline.as_str(), &file, stdin.out.trim_end()] {
        let result: Value = serde_json::from_str(&cli.ok(&["jobs", "wait", id, "--timeout", "20s"]).await).unwrap();
        assert_eq!(result, json!({"a": 1}));
    }
    assert_eq!(cli.json(&["jobs", "wait", &inline]).await["state"], "succeeded");

    let waited = cli.run(&["jobs", "submit", "test.script", "--payload", OK, "--wait"], "").await;
    assert_eq!(waited.code, Some(0), "{waited:?}");
    assert_eq!(serde_json::from_str::<Value>(&waited.out).unwrap(), json!({"a": 1}));
    let failed = cli.fails(&["jobs", "submit", "test.script", "--payload", FAIL, "--wait"], 10).await;
    assert!(failed.contains("scripted: bad luck"), "{failed}");
    let stopped = cli.fails(&["jobs", "submit", "test.script", "--payload", r#"{"runs":[["cancel"]]}"#, "--wait"], 11);
    assert!(stopped.await.contains("was cancelled"));

    let stay = cli.ok(&["jobs", "submit", "test.script", "--payload", STAY]).await;
    let late = cli.fails(&["jobs", "wait", &stay, "--timeout", "50ms"], 1).await;
    assert!(late.contains("not finished in time"), "{late}");

    let key = ["jobs", "submit", "test.script", "--payload", OK, "--idempotency-key", "once"];
    let first = cli.ok(&key).await;
    let again = cli.run(&key, "").await;
    assert_eq!((again.code, again.out.trim_end()), (Some(0), first.as_str()), "{again:?}");
    assert!(again.err.contains("was used before"), "{again:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_listed_shown_cancelled_and_retried() {
    let dir = tempfile::tempdir().unwrap();
    let process = start(dir.path()).await;
    let cli = Cli { dir: dir.path(), url: &process.url };
    let later = cli.ok(&["jobs", "submit", "test.script", "--payload", OK, "--delay", "1h", "--tag", "later"]).await;
    let stay = cli.ok(&["jobs", "submit", "test.script", "--payload", STAY, "--priority", "high"]).await;
    until_state(&cli, &stay, "running").await;

    assert_eq!(ids(&cli.json(&["jobs", "list"]).await), [stay.as_str(), later.as_str()]);
    assert_eq!(ids(&cli.json(&["jobs", "list", "--tag", "later"]).await), [later.as_str()]);
    assert_eq!(ids(&cli.json(&["jobs", "list", "--state", "running"]).await), [stay.as_str()]);
    let page = cli.run(&["jobs", "list", "--limit", "1"], "").await;
    assert!(page.out.contains(&stay) && !page.out.contains(&later), "{page:?}");
    let (_, cursor) = page.err.trim_end().split_once("--cursor ").expect("the list says how to go on");
    let rest = cli.ok(&["jobs", "list", "--limit", "1", "--cursor", cursor]).await;
    assert!(rest.contains(&later) && !rest.contains(&stay), "{rest}");
    let table = cli.ok(&["jobs", "list"]).await;
    assert!(table.starts_with("ID ") && table.lines().count() == 3, "{table}");
    let shown = cli.ok(&["jobs", "get", &stay]).await;
    assert!(shown.contains("test.script") && shown.contains("running"), "{shown}");

    cli.ok(&["jobs", "cancel", &later, &stay]).await;
    until_state(&cli, &later, "cancelled").await;
    until_state(&cli, &stay, "cancelled").await;
    let twice = cli.fails(&["jobs", "cancel", &later], 5).await;
    assert!(twice.contains("status 409"), "{twice}");
    cli.ok(&["jobs", "retry", &later]).await;
    until_state(&cli, &later, "succeeded").await;
    assert!(cli.fails(&["jobs", "retry", &later], 5).await.contains("status 409"));
}

#[tokio::test(flavor = "multi_thread")]
async fn queues_are_listed_paused_resumed_and_purged() {
    let dir = tempfile::tempdir().unwrap();
    let process = start(dir.path()).await;
    let cli = Cli { dir: dir.path(), url: &process.url };
    assert_eq!(cli.ok(&["queues", "pause", "default"]).await, "default paused");
    let waiting = cli.ok(&["jobs", "submit", "test.script", "--payload", OK]).await;
    let doomed = cli.ok(&["jobs", "submit", "test.script", "--payload", OK, "--queue", "elsewhere"]).await;
    let list = cli.json(&["queues", "list"]).await;
    let find = |name: &str| list["data"].as_array().unwrap().iter().find(|q| q["name"] == name).cloned().unwrap();
    assert_eq!((&find("default")["paused"], &find("default")["queued"]), (&json!(true), &json!(1)));
    assert_eq!((&find("elsewhere")["paused"], &find("elsewhere")["queued"]), (&json!(false), &json!(1)));
    let table = cli.ok(&["queues", "list"]).await;
    assert!(table.starts_with("QUEUE ") && table.contains("elsewhere"), "{table}");

    assert!(cli.fails(&["queues", "purge", "elsewhere"], 2).await.contains("--yes"));
    assert_eq!(cli.json(&["jobs", "show", &doomed]).await["state"], "queued");
    assert_eq!(cli.ok(&["queues", "purge", "elsewhere", "--yes"]).await, "1 queued jobs of elsewhere cancelled");
    assert_eq!(cli.json(&["jobs", "show", &doomed]).await["state"], "cancelled");
    assert!(cli.fails(&["queues", "purge", "elsewhere", "--yes"], 5).await.contains("status 404"));

    assert_eq!(cli.json(&["jobs", "show", &waiting]).await["state"], "queued");
    assert_eq!(cli.json(&["queues", "resume", "default"]).await["paused"], false);
    until_state(&cli, &waiting, "succeeded").await;
    assert!(cli.fails(&["queues", "pause", "nowhere"], 5).await.contains("status 404"));
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_listed_replayed_and_discarded() {
    let dir = tempfile::tempdir().unwrap();
    let process = start(dir.path()).await;
    let cli = Cli { dir: dir.path(), url: &process.url };
    assert_eq!(cli.ok(&["dead", "list"]).await.lines().count(), 1);
    let mut dead = Vec::new();
    for tag in ["a", "b", "b"] {
        let submit = ["jobs", "submit", "test.script", "--payload", FAIL, "--tag", tag];
        dead.push(cli.ok(&submit).await);
    }
    for id in &dead {
        until_state(&cli, id, "failed").await;
    }
    assert_eq!(ids(&cli.json(&["dead", "list"]).await).len(), 3);
    assert_eq!(ids(&cli.json(&["dead", "list", "--tag", "a"]).await), [dead[0].as_str()]);
    let shown = cli.ok(&["dead", "show", &dead[0]]).await;
    assert!(shown.contains("bad luck"), "{shown}");

    let dry = cli.ok(&["dead", "replay", "--tag", "b", "--dry-run"]).await;
    assert_eq!(dry, "2 dead letters match; nothing was changed");
    assert_eq!(ids(&cli.json(&["dead", "list"]).await).len(), 3);
    let edit = ["dead", "replay", "--tag", "b", "--rate", "1000", "--set-payload", OK, "--set-priority", "9"];
    assert_eq!(cli.ok(&edit).await, "2 of 2 matching dead letters replayed");
    for id in &dead[1..] {
        until_state(&cli, id, "succeeded").await;
        let job = cli.json(&["jobs", "show", id]).await;
        assert_eq!((&job["priority"], &job["result"]), (&json!(9), &json!({"a": 1})));
    }
    assert!(cli.fails(&["dead", "replay", "--set-payload", "{not json"], 2).await.contains("is not JSON"));
    assert!(cli.fails(&["dead", "replay", "--set-max-attempts", "0"], 5).await.contains("edit.max_attempts"));

    // Without a filter all of them are meant, which is asked first.
    let asked = cli.fails(&["dead", "replay", "--rate", "1000"], 2).await;
    assert!(asked.contains("all 1 dead letters") && asked.contains("--yes"), "{asked}");
    let dry = cli.ok(&["dead", "replay", "--dry-run"]).await;
    assert_eq!(dry, "1 dead letters match; nothing was changed");
    assert_eq!(ids(&cli.json(&["dead", "list"]).await), [dead[0].as_str()]);
    assert_eq!(cli.ok(&["dead", "replay", "--yes"]).await, "1 of 1 matching dead letters replayed");
    until_state(&cli, &dead[0], "failed").await;
    assert_eq!(cli.ok(&["dead", "replay", &dead[0]]).await, "1 of 1 matching dead letters replayed");
    until_state(&cli, &dead[0], "failed").await;

    assert!(cli.fails(&["dead", "discard"], 2).await.contains("--yes"));
    let dry = cli.json(&["dead", "discard", "--dry-run"]).await;
    assert_eq!(dry, json!({"matched": 1, "discarded": 0, "dry_run": true}));
    let none = cli.json(&["dead", "discard", "--error-contains", "other", "--yes"]).await;
    assert_eq!(none["matched"], 0);
    assert_eq!(cli.ok(&["dead", "discard", "--yes"]).await, "1 of 1 matching dead letters discarded");
    assert_eq!(cli.ok(&["dead", "replay"]).await, "0 of 0 matching dead letters replayed");
    assert_eq!(cli.json(&["dead", "list"]).await["data"], json!([]));
    assert!(cli.fails(&["jobs", "show", &dead[0]], 5).await.contains("status 404"));
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_are_inspected() {
    let dir = tempfile::tempdir().unwrap();
    let process = start(dir.path()).await;
    let cli = Cli { dir: dir.path(), url: &process.url };
    let job = cli.ok(&["jobs", "submit", "test.script", "--payload", STAY]).await;
    wait_until("the worker reports the job", async || cli.ok(&["inspect", "active"]).await.contains(&job)).await;
    let registered = cli.ok(&["inspect", "registered"]).await;
    assert!(registered.contains("process_heavy_task") && registered.contains("noop"), "{registered}");
    let stats = cli.ok(&["inspect", "stats"]).await;
    assert!(stats.contains("1/8") && stats.contains("default"), "{stats}");
    let worker = cli.json(&["inspect", "stats"]).await["data"][0].clone();
    assert_eq!((&worker["slots"], &worker["state"]), (&json!(8), &json!("running")));
    assert!(cli.ok(&["inspect", "ping"]).await.contains("pong"));
    let ping = cli.json(&["inspect", "ping"]).await;
    assert_eq!((&ping["data"][0]["id"], &ping["data"][0]["answered"]), (&worker["id"], &json!(true)));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_document_is_the_servers_and_completions_are_printed() {
    let dir = tempfile::tempdir().unwrap();
    let process = start(dir.path()).await;
    let cli = Cli { dir: dir.path(), url: &process.url };
    assert_eq!(cli.ok(&["health"]).await, "ready");
    assert_eq!(cli.json(&["health"]).await["status"], "ready");
    let printed: Value = serde_json::from_str(&cli.ok(&["openapi"]).await).unwrap();
    assert_eq!(printed, process.get("/openapi.json").await.unwrap());
    let script = cli.ok(&["completions", "bash"]).await;
    assert!(script.contains("complete -F _app") && script.contains("submit"), "{script}");
    assert!(cli.ok(&["--version"]).await.starts_with("app "));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_to_fail_has_its_exit_code_and_one_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let mut process = start(dir.path()).await;
    let url = process.url.clone();
    let cli = Cli { dir: dir.path(), url: &url };
    for args in [&["jobs", "show", NOBODY], &["jobs", "wait", NOBODY], &["dead", "show", NOBODY]] {
        let sentence = cli.fails(args, 5).await;
        assert!(sentence.contains("status 404"), "{sentence}");
        assert_eq!(sentence.matches(NOBODY).count(), 1, "says it twice: {sentence}");
    }
    let unknown = cli.fails(&["jobs", "submit", "no_such_kind"], 5).await;
    assert!(unknown.contains("`no_such_kind`") && unknown.contains("request id"), "{unknown}");
    for payload in ["{", "hello", "@missing.json"] {
        let ended = cli.run(&["jobs", "submit", "noop", "--payload", payload], "").await;
        assert!(matches!(ended.code, Some(1 | 2)), "{payload}: {ended:?}");
        ended.sentence();
    }
    let wrong = run_in(dir.path(), &["jobs", "list", "--url", "ftp://h"], &[], "").await;
    assert_eq!(wrong.code, Some(2), "{wrong:?}");
    wrong.sentence();
    for args in [&["jobs", "submit", "noop", "--priority", "11"][..], &["jobs", "show", "x"], &["queus"]] {
        assert_eq!(cli.run(args, "").await.code, Some(2), "{args:?}");
    }

    process.kill();
    for args in [&["jobs", "list"][..], &["queues", "list"], &["dead", "list"], &["inspect", "stats"]] {
        let sentence = cli.fails(args, 4).await;
        assert!(sentence.starts_with("error: cannot reach http://127.0.0.1:"), "{sentence}");
        assert!(sentence.contains("--url"), "{sentence}");
    }
    // Container checks know 0 and 1 only.
    assert!(cli.fails(&["health"], 1).await.contains("cannot reach"));
}
