//! Accepting: the HTTP API under `wrk`, with a worker that works on something else.

use std::{
    io::Write,
    net::TcpStream,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::json;

use crate::{
    place::{Place, Server, USERS, free_port, to_all, to_one},
    report::Report,
};

const SECONDS: u32 = 4;

/// Requests a second, and how many were answered with 2xx in all.
fn wrk(port: u16, path: &str, body: &str, clients: u32) -> (f64, u64) {
    let script = tempfile::Builder::new().suffix(".lua").tempfile().unwrap();
    let lua = format!(
        "wrk.method = 'POST'\nwrk.headers['content-type'] = 'application/json'\nwrk.body = [==[{body}]==]\n\
         function done(s) io.write('ANSWERS ' .. s.requests .. ' ' .. s.errors.status .. '\\n') end\n"
    );
    std::fs::write(script.path(), lua).unwrap();
    let out = Command::new("wrk")
        .args(["-t2", &format!("-c{clients}"), &format!("-d{SECONDS}s"), "-s"])
        .arg(script.path())
        .arg(format!("http://127.0.0.1:{port}{path}"))
        .output()
        .expect("wrk is missing: `make bench-notifications` installs it");
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let number = |start: &str, nth: usize| -> f64 {
        let line = text.lines().find(|l| l.trim_start().starts_with(start)).unwrap_or_else(|| panic!("{text}"));
        line.split_whitespace().nth(nth).unwrap().parse().unwrap()
    };
    assert_eq!(number("ANSWERS", 2), 0.0, "answers other than 2xx: {text}");
    (number("Requests/sec:", 1), number("ANSWERS", 1) as u64)
}

/// A process that dies with the benchmark.
struct Bare(Child);

impl Drop for Bare {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn bare(answer: &str) -> f64 {
    let port = free_port();
    let mut command = Command::new(std::env::current_exe().unwrap());
    let mut bare = Bare(command.arg("--bare-http").stdin(Stdio::piped()).spawn().unwrap());
    writeln!(bare.0.stdin.as_mut().unwrap(), "{port}\n{answer}").unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < deadline, "nothing listens on port {port}");
        std::thread::yield_now();
    }
    wrk(port, "/api/v1/notifications", "{}", 64).0
}

/// A request under way when `wrk` stops may be stored without being counted by it.
async fn check(server: &Server, queue: &str, answered: u64, under_way: u64) {
    let (stored, _) = server.depth(queue).await;
    assert!((answered..=answered + under_way).contains(&stored), "{queue}: {answered} answered, {stored} stored");
}

/// One by one from 64 clients.
pub(crate) async fn run(report: &mut Report, place: &Place) {
    let server = place.accepting().await;
    let users = server.furnish(None).await;
    let request = to_one("email", &users[0]);
    let answer = server.post("/api/v1/notifications", &request).await;
    let bare_name = "bare actix-web, same bytes, 64 clients (req/s)";
    report.add(bare_name, bare(&answer.to_string()));
    let job = json!({ "kind": "noop", "queue": "default" }).to_string();
    let (rate, answered) = wrk(server.port, "/api/v1/jobs", &job, 64);
    let jobs_name = format!("{}: no-op jobs accepted one a request, 64 clients (jobs/s)", place.name);
    report.beside(&jobs_name, rate, &[("bare", bare_name.to_owned())]);
    check(&server, "default", answered, 64).await;
    let (rate, answered) = wrk(server.port, "/api/v1/notifications", &request.to_string(), 64);
    let name = format!("{}: accepted one a request, 64 clients (notifications/s)", place.name);
    report.beside(&name, rate, &[("bare", bare_name.to_owned()), ("jobs", jobs_name)]);
    check(&server, "email", answered + 1, 64).await;
}

/// 1000 recipients a request, from 4 clients.
pub(crate) async fn many(report: &mut Report, place: &Place) {
    let server = place.accepting().await;
    let users = server.furnish(None).await;
    let job = json!({ "kind": "noop", "queue": "default" });
    let jobs = json!({ "jobs": vec![job; 1000] }).to_string();
    let (rate, answered) = wrk(server.port, "/api/v1/jobs/bulk", &jobs, 4);
    let jobs_name = format!("{}: no-op jobs accepted 1000 a request, 4 clients (jobs/s)", place.name);
    report.add(&jobs_name, rate * 1000.0);
    check(&server, "default", answered * 1000, 4000).await;
    let (rate, answered) = wrk(server.port, "/api/v1/notifications", &to_all("email", &users).to_string(), 4);
    let name = format!("{}: accepted 1000 a request, 4 clients (notifications/s)", place.name);
    report.beside(&name, rate * USERS as f64, &[("jobs", jobs_name)]);
    check(&server, "email", answered * 1000, 4000).await;
}

/// What 100,000 waiting notifications take.
pub(crate) async fn memory(report: &mut Report, place: &Place) {
    let server = place.accepting().await;
    let users = server.furnish(None).await;
    report.add(&format!("{}: resident memory with {USERS} users (MB)", place.name), server.resident_mb());
    for _ in 0..100_000 / USERS {
        server.post("/api/v1/notifications", &to_all("email", &users)).await;
    }
    check(&server, "email", 100_000, 0).await;
    let name = format!("{}: resident memory, 100,000 notifications waiting (MB)", place.name);
    report.add(&name, server.resident_mb());
}
