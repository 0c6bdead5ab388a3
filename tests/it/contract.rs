//! The HTTP API against its own OpenAPI document: schemathesis, a program that is not ours, sends what the document
//! allows and what it forbids, and finds no 5xx and no answer that is not documented.

use std::{
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use crate::{
    support::process::{Process, client},
    users,
};

/// How long schemathesis may need beyond its own limit; a server that hangs must not hang the tests.
const PATIENCE: Duration = Duration::from_secs(180);

/// With this many seconds in the environment each run is so long, and no two are alike: `make fuzz`.
const FUZZ: &str = "TEST_FUZZ_SECONDS";

/// One check is left out: that valid data is always accepted (a job's payload must also suit its kind, which a document cannot
/// say). Those about authentication are for the run in which somebody has to say who it is.
const ARGS: &[&str] = &[
    "--checks=all",
    "--max-examples=30",
    "--request-timeout=70",
    // `/metrics` is text for Prometheus. `/api/items` is another name of `/api/v1/items`: schemathesis takes them for
    // two and is surprised that what it deleted at one is gone from the other.
    "--exclude-path-regex=^/(metrics|api/items)",
    "--no-color",
];

#[tokio::test(flavor = "multi_thread")]
async fn schemathesis_finds_no_fault() {
    let dir = tempfile::tempdir().unwrap();
    let process = Process::start(dir.path(), ENV).await;
    let checks = "--exclude-checks=positive_data_acceptance,ignored_auth,object_level_authorization";
    finds_no_fault(&process, dir.path(), &[checks], 60).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn schemathesis_finds_no_way_in_where_callers_must_say_who_they_are() {
    let dir = tempfile::tempdir().unwrap();
    users::admin(dir.path()).await;
    let env = [ENV, users::REQUIRED].concat();
    let process = Process::start(dir.path(), &env).await;
    let header = format!("Authorization: Bearer {}", users::login(&process, "root@example.com").await);
    // It would shut out the administrator as whom it works.
    let spare = "--exclude-operation-id=patch_user";
    let checks = "--exclude-checks=positive_data_acceptance,object_level_authorization";
    finds_no_fault(&process, dir.path(), &[checks, spare, "--header", &header], 40).await;
}

/// Nothing runs what is submitted: made-up jobs of hours would only heat the machine.
const ENV: &[(&str, &str)] = &[("APP__WORKER__QUEUES", "unused"), ("APP__LOG__REQUESTS", "failed")];

async fn finds_no_fault(process: &Process, dir: &Path, args: &[&str], seconds: u64) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let tool = root.join(".tools/venv/bin/schemathesis");
    assert!(tool.exists(), "schemathesis is missing: run `make tools`");
    let mut command = tokio::process::Command::new(tool);
    command.arg("--config-file").arg(root.join("tests/tools/schemathesis.toml"));
    command.arg("run").arg(format!("{}/openapi.json", process.url)).args(ARGS).args(args);
    let fuzz = std::env::var(FUZZ).ok().map(|s| s.parse().unwrap_or_else(|e| panic!("{FUZZ}={s}: {e}")));
    // The same calls in each run, else: what fails on one machine fails on every one.
    command.args(fuzz.is_none().then_some("--seed=1"));
    let seconds: u64 = fuzz.unwrap_or(seconds);
    command.arg(format!("--max-time={seconds}"));
    command.current_dir(dir).kill_on_drop(true).stdin(Stdio::null());
    command.env("NO_PROXY", "127.0.0.1").env("PYTHONUNBUFFERED", "1");
    let begun = Instant::now();
    let limit = PATIENCE + Duration::from_secs(seconds);
    let output = tokio::time::timeout(limit, command.output()).await.expect("schemathesis ends").unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().collect();
    let tail = lines[lines.len().saturating_sub(120)..].join("\n");
    assert!(output.status.success(), "schemathesis ended with {} after {:?}:\n{tail}", output.status, begun.elapsed());
    // It tested, rather than finding nothing to test.
    assert!(tail.contains("generated"), "{tail}");
    let healthy = client().get(format!("{}/health", process.url)).send().await.unwrap();
    assert_eq!(healthy.status(), 200);
    for line in process.log().lines() {
        assert!(!line.contains("panicked"), "{line}");
    }
}
