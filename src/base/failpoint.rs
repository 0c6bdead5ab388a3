//! Named places between two durable steps where a test build can be made to die.
//!
//! `APP_FAILPOINTS=name[:n][,name…]` kills the process with SIGKILL when it passes `name` for the n-th time (1 if not
//! given). In any other build the call compiles to nothing. Every name is in [`NAMES`], and the fault tests go through
//! that list, so that a new failpoint cannot be forgotten.

/// Every failpoint, in the order of a job's life.
pub const NAMES: &[&str] = &[
    "submit.after_insert",
    "submit.after_publish",
    "worker.after_claim",
    "worker.after_run",
    "worker.after_finish",
    "scheduler.due.after_move",
    "scheduler.expired.after_move",
    "scheduler.lost.after_publish",
    "scheduler.retention.after_delete",
    "items.after_insert",
    "notifications.before_send",
    "notifications.after_send",
];

/// Passes the failpoint `name`: dies here if the environment says so (test builds only).
#[cfg(feature = "testing")]
pub fn hit(name: &'static str) {
    use std::sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    };
    static ARMED: OnceLock<Vec<(String, u64, AtomicU64)>> = OnceLock::new();
    debug_assert!(NAMES.contains(&name), "failpoint {name} is not in NAMES");
    let armed = ARMED.get_or_init(|| {
        let spec = std::env::var("APP_FAILPOINTS").unwrap_or_default();
        spec.split(',')
            .filter(|s| !s.is_empty())
            .map(|s| {
                let (name, n) = s.split_once(':').unwrap_or((s, "1"));
                (name.to_owned(), n.parse().unwrap_or(1), AtomicU64::new(0))
            })
            .collect()
    });
    for (armed_name, at, passed) in armed {
        if armed_name == name && passed.fetch_add(1, Ordering::Relaxed) + 1 == *at {
            let me = rustix::process::getpid();
            if let Err(e) = rustix::process::kill_process(me, rustix::process::Signal::KILL) {
                tracing::error!(error = %e, "failpoint could not kill the process");
            }
            // The signal may take an instant to arrive; no line after a failpoint may run.
            loop {
                std::thread::park();
            }
        }
    }
}

/// Passes the failpoint `name`: nothing, outside test builds.
#[cfg(not(feature = "testing"))]
#[inline]
pub fn hit(_name: &'static str) {}

/// Passes the failpoint `name` only if there was something to do: an idle pass is no step.
pub fn hit_if(name: &'static str, done: bool) {
    if done {
        hit(name);
    }
}
