//! Measures notifications beside their ceilings, in one run, as ratios: `make bench-notifications`.
//!
//! The program is a real process of the release binary (`app all`): over a SQLite file with full sync, and over MongoDB and
//! Redis if servers are named. Accepting is driven by `wrk` and compared with a no-op job and with a bare actix-web that
//! answers the same bytes; delivering goes to a relay and a receiver in this process and is compared with a bare client
//! that does the same without a queue. Every delivery is counted: each run checks that exactly what was accepted arrived,
//! each once. Everything shares the machine.
//!
//! `BENCH_REPS` runs (3), of which the median counts; `BENCH_ONLY` names parts (`accept,deliver,latency,memory`, `embedded`,
//! `fleet`); `BENCH_APP` is another binary to measure, such as that of an older commit.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a benchmark that cannot go on should say where and stop"
)]

use std::time::Duration;

mod accept;
mod bare;
mod deliver;
mod place;
mod receive;
mod report;

use place::Place;
use report::Report;

/// Messages of one delivery run.
pub(crate) const MESSAGES: usize = 10_000;
/// Slots of the worker, connections to the relay, and lanes of the bare clients.
pub(crate) const SLOTS: usize = 64;
/// What a relay on the network takes for one mail.
pub(crate) const RELAY_DELAY: Duration = Duration::from_millis(20);

async fn bare_deliveries(report: &mut Report) {
    let (relay, receiver) = (receive::smtp(Duration::ZERO).await, receive::http().await);
    report.add("bare lettre, 64 connections (mails/s)", bare::mails(&relay, MESSAGES, true).await);
    report.add("bare reqwest, 64 at once (calls/s)", bare::calls(&receiver, MESSAGES).await);
    let relay = receive::smtp(RELAY_DELAY).await;
    report.add("bare lettre, 64 connections, relay takes 20 ms (mails/s)", bare::mails(&relay, MESSAGES, true).await);
    let relay = receive::smtp(Duration::ZERO).await;
    report.add(
        "bare lettre, its own connections, without TCP_NODELAY (mails/s)",
        bare::mails(&relay, MESSAGES, false).await,
    );
}

async fn measure(report: &mut Report, wanted: impl Fn(&str) -> bool, place: impl AsyncFn() -> Place) {
    if wanted("accept") {
        accept::run(report, &place().await).await;
        accept::many(report, &place().await).await;
    }
    if wanted("deliver") {
        deliver::mails(report, &place().await).await;
        deliver::slow_relay(report, &place().await).await;
        deliver::calls(report, &place().await).await;
    }
    if wanted("latency") {
        deliver::latency(report, &place().await).await;
    }
    if wanted("memory") {
        accept::memory(report, &place().await).await;
    }
}

fn main() {
    if std::env::args().any(|a| a == "--bare-http") {
        return bare::http();
    }
    drop(rustls::crypto::ring::default_provider().install_default());
    let reps: usize = std::env::var("BENCH_REPS").ok().and_then(|r| r.parse().ok()).unwrap_or(3);
    let only = std::env::var("BENCH_ONLY").unwrap_or_default();
    let named = |part: &str| only.split(',').any(|p| p == part);
    let either = |a: &str, b: &str| named(a) || !named(b);
    let parts = ["accept", "deliver", "latency", "memory"];
    let wanted = |part: &str| named(part) || !parts.into_iter().any(named);
    let servers = (std::env::var("TEST_MONGODB_URL").ok(), std::env::var("TEST_REDIS_URL").ok());
    let mut report = Report::default();
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(async {
        for rep in 1..=reps {
            eprintln!("run {rep} of {reps}");
            if wanted("deliver") {
                bare_deliveries(&mut report).await;
            }
            if either("embedded", "fleet") {
                measure(&mut report, wanted, async || Place::embedded()).await;
            }
            if let ((Some(mongodb), Some(redis)), true) = (&servers, either("fleet", "embedded")) {
                measure(&mut report, wanted, async || Place::fleet(mongodb, redis).await).await;
            }
        }
    });
    report.print();
}
