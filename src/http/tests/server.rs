//! The real server on a real socket: binding, HEAD on the wire, draining.

use std::{net::SocketAddr, num::NonZeroUsize, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
};

use super::*;
use crate::{
    base::shutdown::Shutdown,
    http::{ServeOptions, listen, serve},
};

type Started = (SocketAddr, Shutdown, JoinHandle<std::io::Result<()>>, Backing);

fn started() -> Started {
    started_with(|_| {})
}

fn started_with(change: impl FnOnce(&mut HttpState)) -> Started {
    let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let addr = listener.local_addr().unwrap();
    let shutdown = Shutdown::new();
    let (shutdown_timeout, keep_alive) = (Duration::from_secs(5), Duration::from_secs(75));
    let options = ServeOptions { workers: NonZeroUsize::MIN, shutdown_timeout, keep_alive };
    let backing = Backing::new(&[]);
    let mut state = state_over(Arc::new(FakeStore::default()), &backing);
    change(&mut state);
    let state = Arc::new(state);
    (addr, shutdown.clone(), tokio::spawn(serve(state, listener, options, shutdown)), backing)
}

async fn exchange(addr: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_gives_a_sentence() {
    let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let addr = listener.local_addr().unwrap();
    let sentence = listen(addr).unwrap_err();
    assert!(sentence.starts_with(&format!("{addr} is already in use")), "{sentence}");
    let sentence = listen("192.0.2.1:80".parse().unwrap()).unwrap_err();
    assert!(sentence.contains("not an address of this host") || sentence.contains("permission"), "{sentence}");
}

#[tokio::test(flavor = "multi_thread")]
async fn head_has_the_length_of_get_and_no_body() {
    let (addr, shutdown, server, _backing) = started();
    let ask = |method| format!("{method} /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let (get, head) = (exchange(addr, &ask("GET")).await, exchange(addr, &ask("HEAD")).await);
    assert!(get.ends_with("\r\n\r\n{\"status\":\"live\"}") && get.contains("content-length: 17"), "{get}");
    assert!(head.ends_with("\r\n\r\n") && head.contains("content-length: 17"), "{head}");
    shutdown.drain.cancel();
    server.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_over_its_limit_is_refused_before_it_is_sent() {
    let (addr, shutdown, server, _backing) = started();
    let head = "POST /api/items HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n";
    let answer = exchange(addr, &format!("{head}Content-Length: 999999999999\r\n\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    let chunk = format!("{:x}\r\n{}\r\n", LIMITS.max_body + 1, " ".repeat(LIMITS.max_body + 1));
    let answer = exchange(addr, &format!("{head}Transfer-Encoding: chunked\r\n\r\n{chunk}0\r\n\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    shutdown.drain.cancel();
    server.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn draining_lets_a_request_under_way_finish_and_takes_no_more() {
    let (addr, shutdown, server, _backing) = started();
    let mut slow = TcpStream::connect(addr).await.unwrap();
    let body = r#"{"name":"x"}"#;
    let head = "POST /api/items HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nExpect: 100-continue\r\n";
    slow.write_all(format!("{head}Content-Length: {}\r\n\r\n", body.len()).as_bytes()).await.unwrap();
    let mut start = [0; 64];
    // The interim answer proves that the request is under way.
    let n = slow.read(&mut start).await.unwrap();
    assert!(start[..n].starts_with(b"HTTP/1.1 100"), "{:?}", String::from_utf8_lossy(&start[..n]));
    shutdown.drain.cancel();
    while TcpStream::connect(addr).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    slow.write_all(body.as_bytes()).await.unwrap();
    let mut answer = String::new();
    slow.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains("HTTP/1.1 201"), "{answer}");
    tokio::time::timeout(Duration::from_secs(5), server).await.unwrap().unwrap().unwrap();
}

const POST: &str = "POST /api/items HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n";

/// Begins a request whose body is announced with `length` bytes, and sends `sent` of it.
async fn unfinished(addr: SocketAddr, length: usize, sent: usize) -> TcpStream {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let body = format!("{POST}Content-Length: {length}\r\n\r\n{}", " ".repeat(sent));
    stream.write_all(body.as_bytes()).await.unwrap();
    stream
}

async fn answer_of(mut stream: TcpStream) -> String {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_stands_still_is_ended_with_its_connection() {
    let (addr, shutdown, server, _backing) =
        started_with(|state| state.bodies = Bodies::new(1 << 20, Duration::from_millis(100)));
    for sent in [0, 1, 100_000] {
        let answer = answer_of(unfinished(addr, 150_000, sent).await).await;
        assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
        assert!(answer.contains("connection: close") && answer.contains("/problems/request_timeout"), "{answer}");
    }
    shutdown.drain.cancel();
    server.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_drips_is_ended_too() {
    let (addr, shutdown, server, _backing) =
        started_with(|state| state.bodies = Bodies::new(1 << 20, Duration::from_millis(200)));
    // What came at once is no credit for what comes later.
    for sent in [1, 100_000] {
        let (mut read, mut write) = unfinished(addr, 150_000, sent).await.into_split();
        let drip = tokio::spawn(async move {
            // Ends when the server has closed the connection.
            while write.write_all(b" ").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        let mut start = [0; 12];
        read.read_exact(&mut start).await.unwrap();
        assert_eq!(&start, b"HTTP/1.1 408");
        drop(read);
        drip.await.unwrap();
    }
    shutdown.drain.cancel();
    server.await.unwrap().unwrap();
}

/// Waits for a condition, and fails with its name if it does not come true.
async fn becomes(what: &str, is_so: impl Fn() -> bool) {
    let wait = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), wait).await.expect(what);
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_under_way_share_one_bound() {
    let bodies = Bodies::new(250_000, Duration::from_secs(60));
    let (addr, shutdown, server, _backing) = started_with(|state| state.bodies = Arc::clone(&bodies));
    let held = unfinished(addr, 150_000, 149_999).await;
    let full = async || {
        let answer = answer_of(unfinished(addr, 150_000, 149_999).await).await;
        assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("retry-after: "), "{answer}");
    };
    let held_too = unfinished(addr, 150_000, 100_000).await;
    becomes("the bodies are counted", || bodies.free() == 1).await;
    full().await;
    let mut small = unfinished(addr, 20_000, 19_999).await;
    small.write_all(b" ").await.unwrap();
    let mut start = [0; 12];
    small.read_exact(&mut start).await.unwrap();
    assert_eq!(&start, b"HTTP/1.1 400", "large bodies leave room for small ones, such as those that log in");
    let whole = r#"{"name":"x"}"#;
    let head = format!("{POST}Connection: close\r\nContent-Length: {}\r\n\r\n", whole.len());
    let small = exchange(addr, &format!("{head}{whole}")).await;
    assert!(small.starts_with("HTTP/1.1 201"), "a body that is there with its headers is not counted");
    drop((held, held_too, small));
    becomes("what it held is given back", || bodies.free() == 250_000).await;
    shutdown.drain.cancel();
    server.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_are_small() {
    let (addr, shutdown, server, _backing) = started();
    for path in ["/api/v1/auth/login", "/api/v1/auth/register"] {
        let head =
            format!("POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n");
        let answer = exchange(addr, &format!("{head}Content-Length: 4097\r\n\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("4096 bytes"), "{answer}");
        let body = format!("{{\"email\":\"{}\",\"password\":\"", "a".repeat(4000));
        let answer = exchange(addr, &format!("{head}Content-Length: {}\r\n\r\n{body}", body.len())).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    }
    shutdown.drain.cancel();
    server.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_ends_the_connection_of_a_chunked_body_that_goes_no_further() {
    let (addr, shutdown, server, _backing) =
        started_with(|state| state.bodies = Bodies::new(1 << 20, Duration::from_millis(100)));
    let head = |path: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
    };
    // Read up to the time-out; not read at all; no path at all. Each answer comes, and then the end of the connection.
    for (path, status) in [("/api/items", 408), ("/api/v1/queues/default/purge", 200), ("/nothing", 404)] {
        let half = format!("{}5\r\n{{\"nam\r\n", head(path));
        let ended = tokio::time::timeout(Duration::from_secs(30), exchange(addr, &half)).await;
        let answer = ended.expect("the connection stays open for a body that does not come");
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{path}: {answer}");
    }
    // A body that is whole leaves the connection open for the next request.
    let whole = format!("{}c\r\n{{\"name\":\"x\"}}\r\n0\r\n\r\n", head("/api/items"));
    let last = "GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let answers = exchange(addr, &format!("{whole}{whole}{last}")).await;
    assert_eq!(answers.matches("HTTP/1.1 201").count(), 2, "{answers}");
    assert!(answers.ends_with("{\"status\":\"live\"}"), "{answers}");
    shutdown.drain.cancel();
    server.await.unwrap().unwrap();
}
