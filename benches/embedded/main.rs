//! Measures the embedded system beside its ceilings, in one run, as ratios: `make bench`.
//!
//! HTTP is driven by `wrk` from a process of its own and compared with a bare actix-web that answers the same bytes; the
//! queue is compared with bare SQLite that writes the same rows in the same batches with the same sync. Every figure is
//! the median of `BENCH_REPS` (3) runs with its range, and each run checks that exactly what was accepted is there.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark that cannot go on should say where and stop"
)]

use std::path::PathBuf;

mod bare;
mod http;
mod queue;
mod report;

/// The program's own, so that what is measured in this process is what the program does.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Rows of the drain and of the bulk inserts.
const JOBS: usize = 200_000;
/// Slots of the worker, and so the batch of the bare claim and finish.
const SLOTS: usize = 64;

/// A directory on the disk the build is on: `/tmp` may be memory, where a sync costs nothing.
fn scratch() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("bench").tempdir_in(PathBuf::from(env!("CARGO_TARGET_TMPDIR"))).unwrap()
}

fn main() {
    if std::env::args().any(|a| a == "--bare-http") {
        return bare::http();
    }
    let reps: usize = std::env::var("BENCH_REPS").ok().and_then(|r| r.parse().ok()).unwrap_or(3);
    let only = std::env::var("BENCH_ONLY").unwrap_or_default();
    let wanted = |part: &str| only.is_empty() || only.split(',').any(|p| p == part);
    let mut report = report::Report::default();
    for rep in 1..=reps {
        eprintln_progress(rep, reps);
        if wanted("http") {
            http::run(&mut report);
        }
        if wanted("sqlite") {
            bare::sqlite(&mut report);
        }
        if wanted("queue") {
            queue::run(&mut report);
        }
        if wanted("history") && rep == 1 {
            queue::history(&mut report);
        }
    }
    report.print();
}

#[allow(clippy::print_stderr, reason = "progress of a run of minutes")]
fn eprintln_progress(rep: usize, reps: usize) {
    eprintln!("run {rep} of {reps}");
}
