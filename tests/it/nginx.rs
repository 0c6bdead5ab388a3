//! nginx with the configuration of the deployment (`deploy/nginx/`), in front of three real processes: it spreads, repeats what may be
//! repeated when an instance is killed, limits, redirects, and carries request ids.
//!
//! The processes are three `app serve` over one database: whatever any of them accepted, every other one knows.

use std::{
    collections::HashSet,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use reqwest::{Client, StatusCode, redirect};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    fleet::{Fleet, Via},
    process::{Process, client, free_port},
    wait_until,
};

/// The real configuration, filled in for this test.
struct Nginx {
    child: Child,
    https: String,
    http: String,
    dir: TempDir,
}

impl Nginx {
    async fn start(upstreams: &[&Process], rate: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy");
        let made = Command::new(deploy.join("prepare")).arg(dir.path()).status().expect("deploy/prepare runs");
        assert!(made.success());
        let at = |name: &str| dir.path().join(name).display().to_string();
        let (http, https) = (free_port(), free_port());
        let servers: String =
            upstreams.iter().map(|p| format!("server {}; ", p.url.trim_start_matches("http://"))).collect();
        let values = [
            ("APP_UPSTREAMS", servers),
            ("APP_RESOLVER", String::new()),
            ("APP_HTTP_LISTEN", format!("127.0.0.1:{http}")),
            ("APP_HTTPS_LISTEN", format!("127.0.0.1:{https}")),
            ("APP_HTTPS_SUFFIX", format!(":{https}")),
            ("APP_TLS_CERTIFICATE", at("tls/cert.pem")),
            ("APP_TLS_KEY", at("tls/key.pem")),
            ("APP_RATE", rate.to_owned()),
            ("APP_BURST", "20".to_owned()),
        ];
        let mut conf = std::fs::read_to_string(deploy.join("nginx/app.conf.template")).unwrap();
        for (name, value) in values {
            assert!(conf.contains(&format!("${{{name}}}")), "{name} is not used");
            conf = conf.replace(&format!("${{{name}}}"), &value);
        }
        conf = conf.replace("/dev/stdout", &at("access.log"));
        let frame = std::fs::read_to_string(deploy.join("nginx/nginx.conf")).unwrap();
        std::fs::create_dir(dir.path().join("conf.d")).unwrap();
        std::fs::write(dir.path().join("conf.d/app.conf"), conf).unwrap();
        std::fs::write(
            dir.path().join("nginx.conf"),
            frame.replace("/tmp/", &at("")).replace("stderr", &at("error.log")),
        )
        .unwrap();
        let mut options = "daemon off;".to_owned();
        if rustix::process::geteuid().is_root() {
            // Only root may say so, and must: its workers would be another user, who may not enter the directory.
            options.push_str(" user root;");
        }
        let child = Command::new("nginx")
            .arg("-p")
            .arg(dir.path())
            .args(["-e", &at("error.log")])
            .args(["-c", "nginx.conf", "-g", &options])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("no nginx to test with: run `make test`, or install it");
        let this =
            Self { child, https: format!("https://127.0.0.1:{https}"), http: format!("http://127.0.0.1:{http}"), dir };
        let (http, browser) = (this.http.clone(), browser());
        wait_until("nginx answers", async || browser.get(&http).send().await.is_ok()).await;
        this
    }

    /// How many requests each instance answered.
    fn answered(&self, upstreams: &[&Process]) -> Vec<usize> {
        let log = std::fs::read_to_string(self.dir.path().join("access.log")).unwrap();
        let lines: Vec<Value> = log.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        let by = |p: &&Process| {
            let address = p.url.trim_start_matches("http://");
            lines.iter().filter(|l| l["upstream"].as_str().unwrap().ends_with(address)).count()
        };
        upstreams.iter().map(by).collect()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // SIGTERM, so that the master takes its workers with it.
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).ok();
        drop(self.child.wait());
    }
}

/// A client that trusts the test's certificate and follows no redirect.
fn browser() -> Client {
    drop(client());
    Client::builder()
        .no_proxy()
        .danger_accept_invalid_certs(true)
        .redirect(redirect::Policy::none())
        .timeout(std::time::Duration::from_secs(20))
        .build()
        .unwrap()
}

async fn three() -> (Fleet, Vec<Process>) {
    let mut fleet = Fleet::shared(Via::Redis).await;
    fleet.set("APP__LOG__REQUESTS", "off");
    let processes = vec![fleet.serve().await, fleet.serve().await, fleet.serve().await];
    (fleet, processes)
}

const FAST: &str = "100000r/s";

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_spread_and_carry_their_ids() {
    let (_fleet, processes) = three().await;
    let all: Vec<&Process> = processes.iter().collect();
    let nginx = Nginx::start(&all, FAST).await;
    let browser = browser();
    for _ in 0..30 {
        assert_eq!(browser.get(format!("{}/health/live", nginx.https)).send().await.unwrap().status(), 200);
    }
    wait_until("every instance has answered", async || nginx.answered(&all).iter().all(|n| *n > 0)).await;

    let missing = format!("{}/api/v1/items/{}", nginx.https, "01a1feb6-8bea-768c-84ce-6916840f9715");
    for (header, given, kept) in [
        ("x-request-id", "order-4711", true),
        ("x-correlation-id", "trace/9", true),
        ("x-request-id", "with space", false),
        ("x-request-id", "quote\"", false),
    ] {
        let answer = browser.get(&missing).header(header, given).send().await.unwrap();
        assert_eq!(answer.status(), 404);
        let ids: Vec<String> =
            answer.headers().get_all("x-request-id").iter().map(|v| v.to_str().unwrap().to_owned()).collect();
        assert_eq!(answer.headers().get_all("x-content-type-options").iter().count(), 1);
        let problem: Value = answer.json().await.unwrap();
        assert_eq!(ids, [problem["request_id"].as_str().unwrap()], "the program was handed another id");
        assert_eq!(ids[0] == given, kept, "{given}");
    }
    let answer = browser.get(format!("{}/metrics", nginx.https)).send().await.unwrap();
    assert_eq!(answer.status(), 404, "metrics are seen from outside");
    let redirect = browser.post(format!("{}/api/v1/jobs?a=b", nginx.http)).body("x").send().await.unwrap();
    assert_eq!(redirect.status(), StatusCode::PERMANENT_REDIRECT);
    assert_eq!(redirect.headers()["location"], format!("{}/api/v1/jobs?a=b", nginx.https));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_over_its_limit_is_told_to_wait() {
    let (_fleet, processes) = three().await;
    let nginx = Nginx::start(&processes.iter().collect::<Vec<_>>(), "10r/s").await;
    let browser = browser();
    // Half of them are POSTs that nginx may repeat: they are limited by the same count.
    let body = json!({"kind": "noop"});
    let mut calls = Vec::new();
    for n in 0..120 {
        let call = match n % 2 {
            0 => browser.get(format!("{}/health/live", nginx.https)),
            _ => browser.post(format!("{}/api/v1/jobs", nginx.https)).header("idempotency-key", n).json(&body),
        };
        calls.push(tokio::spawn(call.header("x-request-id", format!("id-{n}")).send()));
    }
    let (mut served, mut refused) = (0, 0);
    for (n, call) in calls.into_iter().enumerate() {
        let answer = call.await.unwrap().unwrap();
        if answer.status() != StatusCode::TOO_MANY_REQUESTS {
            assert!(answer.status().is_success(), "{}", answer.status());
            served += 1;
            continue;
        }
        refused += 1;
        assert_eq!(answer.headers()["content-type"], "application/problem+json");
        assert_eq!(answer.headers()["retry-after"], "1");
        assert_eq!(answer.headers()["x-request-id"], format!("id-{n}"));
        let problem: Value = answer.json().await.unwrap();
        assert_eq!((&problem["status"], &problem["request_id"]), (&json!(429), &json!(format!("id-{n}"))));
        assert_eq!(problem["type"], "/problems/too_many_requests");
    }
    assert!(served >= 20 && refused > 0, "{served} served, {refused} refused");
    // Whoever waits is served again.
    wait_until("the client is served again", async || {
        browser.get(format!("{}/health/live", nginx.https)).send().await.is_ok_and(|a| a.status() == 200)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_is_killed_and_no_client_that_may_be_repeated_sees_it() {
    let (_fleet, mut processes) = three().await;
    let nginx = Nginx::start(&processes.iter().collect::<Vec<_>>(), FAST).await;
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..9 {
        let (browser, url) = (browser(), nginx.https.clone());
        let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
        clients.spawn(async move {
            let (mut refused, mut accepted) = (0, HashSet::new());
            for n in 0.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let kind = client % 3;
                let call = match kind {
                    0 => browser.get(format!("{url}/api/v1/items")),
                    1 => browser
                        .post(format!("{url}/api/v1/jobs"))
                        .header("idempotency-key", format!("{client}-{n}"))
                        .json(&json!({"kind": "noop"})),
                    _ => browser.post(format!("{url}/api/v1/items")).json(&json!({"name": "n"})),
                };
                let answer = call.send().await.unwrap();
                let status = answer.status();
                let problem = answer.headers()["content-type"] == "application/problem+json";
                match (kind, status.as_u16()) {
                    (0, 200) | (2, 201) => {}
                    (1, 202) => {
                        let job: Value = answer.json().await.unwrap();
                        assert!(accepted.insert(job["id"].as_str().unwrap().to_owned()), "two requests made one job");
                    }
                    // What must not be done twice unasked: the client is told that it is not known.
                    (2, 502) if problem => refused += 1,
                    other => panic!("{other:?}: {}", answer.text().await.unwrap()),
                }
                done.fetch_add(1, Ordering::Relaxed);
            }
            (refused, accepted)
        });
    }
    let more = async |n: usize| {
        let until = done.load(Ordering::Relaxed) + n;
        wait_until("clients are served", async || {
            done.load(Ordering::Relaxed) >= until || stop.load(Ordering::Relaxed)
        })
        .await;
    };
    more(200).await;
    processes[0].kill();
    more(200).await;
    processes[1].kill();
    more(200).await;
    stop.store(true, Ordering::Relaxed);
    let (mut refused, mut accepted) = (0, HashSet::new());
    for (n, jobs) in clients.join_all().await {
        refused += n;
        accepted.extend(jobs);
    }
    // Each client has one request under way when an instance dies.
    assert!(refused <= 6, "{refused} items were refused for two dead instances");
    // What was repeated was done once: the last instance knows exactly the jobs that clients were told of. Items have jobs, too:
    // their events.
    let mut known = HashSet::new();
    let mut page = String::new();
    loop {
        let list = processes[2].get(&format!("/api/v1/jobs?kind=noop&limit=200{page}")).await.unwrap();
        known.extend(list["data"].as_array().unwrap().iter().map(|j| j["id"].as_str().unwrap().to_owned()));
        match list["meta"]["next_cursor"].as_str() {
            Some(next) => page = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(known, accepted);
}
