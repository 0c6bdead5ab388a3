//! The HTTP API under `wrk`, beside a bare server, each in a process of its own.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::{bare, report::Report, scratch};

const SECONDS: u32 = 4;

/// A process that dies with the benchmark.
struct Server(Child, u16);

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn wait(port: u16) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < deadline, "nothing listens on port {port}");
        std::thread::yield_now();
    }
}

/// Waits until the program has started: before that it listens, but has not yet made what it needs.
fn wait_ready(port: u16) {
    wait(port);
    let deadline = Instant::now() + Duration::from_secs(20);
    while !get(port, "/health/ready").starts_with("HTTP/1.1 200") {
        assert!(Instant::now() < deadline, "the program on port {port} does not become ready");
        std::thread::yield_now();
    }
}

fn bare_server() -> Server {
    let port = free_port();
    let mut child =
        Command::new(std::env::current_exe().unwrap()).arg("--bare-http").stdin(Stdio::piped()).spawn().unwrap();
    writeln!(child.stdin.as_mut().unwrap(), "{port}").unwrap();
    wait(port);
    Server(child, port)
}

/// The real program over a fresh database; its worker takes from a queue that nobody fills.
fn app_server(dir: &std::path::Path) -> Server {
    let port = free_port();
    let child = Command::new(env!("CARGO_BIN_EXE_app"))
        .args(["all", "--queues", "unused", "--log-level", "warn", "--port", &port.to_string(), "--store-url"])
        .arg(format!("sqlite://{}", dir.join("app.db").display()))
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    wait_ready(port);
    Server(child, port)
}

/// Requests a second, and how many were answered with 2xx in all.
fn wrk(port: u16, path: &str, body: &str, clients: u32, dir: &std::path::Path) -> (f64, u64) {
    let script = dir.join("post.lua");
    let lua = format!(
        "wrk.method = 'POST'\nwrk.headers['content-type'] = 'application/json'\nwrk.body = [==[{body}]==]\n\
         function done(s) io.write('ANSWERS ' .. s.requests .. ' ' .. s.errors.status .. '\\n') end\n"
    );
    std::fs::write(&script, lua).unwrap();
    let out = Command::new("wrk")
        .args(["-t2", &format!("-c{clients}"), &format!("-d{SECONDS}s"), "-s"])
        .arg(&script)
        .arg(format!("http://127.0.0.1:{port}{path}"))
        .output()
        .expect("wrk is missing: `make bench` installs it");
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let number = |start: &str, nth: usize| -> f64 {
        let line = text.lines().find(|l| l.trim_start().starts_with(start)).unwrap_or_else(|| panic!("{text}"));
        line.split_whitespace().nth(nth).unwrap().parse().unwrap()
    };
    assert_eq!(number("ANSWERS", 2), 0.0, "answers other than 2xx: {text}");
    (number("Requests/sec:", 1), number("ANSWERS", 1) as u64)
}

/// An answer, head and all.
fn get(port: u16, path: &str) -> String {
    let mut s = TcpStream::connect(("127.0.0.1", port)).unwrap();
    write!(s, "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    s.read_to_string(&mut text).unwrap();
    text
}

/// How many jobs wait, by the API's own count.
fn queued(port: u16) -> u64 {
    let text = get(port, "/api/v1/queues/parked");
    let body = text.split("\r\n\r\n").nth(1).unwrap();
    let queue: serde_json::Value = serde_json::from_str(body).unwrap();
    queue["queued"].as_u64().unwrap()
}

fn resident_mb(server: &Server) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.0.id())).unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}

pub(crate) fn run(report: &mut Report) {
    let dir = scratch();
    let one = r#"{"kind":"noop","queue":"parked","payload":{"n":1}}"#;
    let bulk = format!(r#"{{"jobs":[{}]}}"#, vec![one; 1000].join(","));
    {
        let server = bare_server();
        let (rate, _) = wrk(server.1, "/api/v1/jobs", one, 64, dir.path());
        report.add("bare actix-web, same bytes, 64 clients (req/s)", rate);
        assert!(bare::ANSWER.len() > 400, "the bare answer is as long as a job");
    }
    {
        let server = app_server(dir.path());
        report.add("resident memory, idle (MB)", resident_mb(&server));
        let (rate, answered) = wrk(server.1, "/api/v1/jobs", one, 64, dir.path());
        report.add("HTTP submit, one job a request, 64 clients (jobs/s)", rate);
        // A request under way when wrk stops may be stored without being counted by it.
        let stored = queued(server.1);
        assert!((answered..=answered + 64).contains(&stored), "{answered} answered, {stored} stored");
    }
    {
        let fresh = scratch();
        let server = app_server(fresh.path());
        let (rate, answered) = wrk(server.1, "/api/v1/jobs/bulk", &bulk, 4, dir.path());
        report.add("HTTP bulk submit, 1000 jobs a request, 4 clients (jobs/s)", rate * 1000.0);
        let (stored, answered) = (queued(server.1), answered * 1000);
        assert!((answered..=answered + 4000).contains(&stored), "{answered} answered, {stored} stored");
    }
    {
        let fresh = scratch();
        let server = app_server(fresh.path());
        for _ in 0..100 {
            post(server.1, "/api/v1/jobs/bulk", &bulk);
        }
        assert_eq!(queued(server.1), 100_000);
        report.add("resident memory, 100,000 jobs waiting (MB)", resident_mb(&server));
    }
}

fn post(port: u16, path: &str, body: &str) {
    let mut s = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    s.write_all(head.as_bytes()).unwrap();
    s.write_all(body.as_bytes()).unwrap();
    let mut text = String::new();
    s.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 202"), "{text}");
}
