//! Metrics: every name, unit and label in one table, and the recorder that `/metrics` prints.
//!
//! Code that counts uses the constants, so that a name can be changed, or found, in one place.

use std::{sync::OnceLock, time::Duration};

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram, gauge};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio_util::sync::CancellationToken;

/// What a metric's value may do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MetricKind {
    /// Only grow.
    Counter,
    /// Rise and fall.
    Gauge,
    /// Be observed many times, counted into these buckets (upper bounds).
    Histogram(&'static [f64]),
}

/// One metric.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Its name, `app_…`, with the unit at the end and `_total` behind that of counters.
    pub name: &'static str,
    /// What its value may do.
    pub kind: MetricKind,
    /// Unit of the value.
    pub unit: Unit,
    /// What it counts, for people.
    pub help: &'static str,
    /// Names of its labels, all of which are always set.
    pub labels: &'static [&'static str],
}

/// From a request served by the cache to one that waits for a slow disk.
const REQUEST_SECONDS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// From a job that only writes a row to one that runs for hours.
const JOB_SECONDS: &[f64] = &[0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0];
/// From an idle worker that takes the job at once to a backlog of hours.
const WAIT_SECONDS: &[f64] = &[0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0, 7200.0];
/// From a battery-backed disk to one that makes everything wait.
const COMMIT_SECONDS: &[f64] = &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0];

macro_rules! metrics_table {
    ($($constant:ident = $name:literal, $kind:expr, $unit:ident, [$($label:literal),*], $help:literal;)*) => {
        $(
            #[doc = $help]
            pub const $constant: &str = $name;
        )*

        /// Every metric that the program emits.
        pub const METRICS: &[Metric] = &[
            $(Metric {
                name: $constant, kind: $kind, unit: Unit::$unit, help: $help, labels: &[$($label),*],
            },)*
        ];
    };
}

use MetricKind::{Counter, Gauge, Histogram};

metrics_table! {
    HTTP_REQUESTS = "app_http_requests_total", Counter, Count, ["method", "route", "status"],
        "Requests answered, by method, route pattern and status.";
    HTTP_REQUEST_DURATION = "app_http_request_duration_seconds", Histogram(REQUEST_SECONDS), Seconds,
        ["method", "route"], "Time from a request's first byte to its answer.";
    JOBS_SUBMITTED = "app_jobs_submitted_total", Counter, Count, ["kind", "queue"], "Jobs accepted.";
    JOBS_STARTED = "app_jobs_started_total", Counter, Count, ["kind", "queue"], "Attempts begun.";
    JOBS_FINISHED = "app_jobs_finished_total", Counter, Count, ["kind", "queue", "outcome"],
        "Attempts ended, by outcome.";
    JOB_DURATION = "app_job_duration_seconds", Histogram(JOB_SECONDS), Seconds, ["kind", "queue"],
        "Time that one attempt ran.";
    JOB_WAIT = "app_job_wait_seconds", Histogram(WAIT_SECONDS), Seconds, ["queue"],
        "Time from a job being queued to its start.";
    JOBS_SHED = "app_jobs_shed_total", Counter, Count, ["queue"], "Jobs refused because their queue was full.";
    QUEUE_JOBS = "app_queue_jobs", Gauge, Count, ["queue", "state"], "Jobs in a queue, by state.";
    QUEUE_OLDEST_AGE = "app_queue_oldest_age_seconds", Gauge, Seconds, ["queue"],
        "Age of the job that has been queued longest.";
    QUEUE_PAUSED = "app_queue_paused", Gauge, Count, ["queue"], "1 while the queue is paused, else 0.";
    WORKER_SLOTS = "app_worker_slots", Gauge, Count, [], "Jobs that this process can run at once.";
    WORKER_BUSY_SLOTS = "app_worker_busy_slots", Gauge, Count, [], "Jobs that this process runs now.";
    LEASES_LOST = "app_leases_lost_total", Counter, Count, [], "Jobs taken from this process while it ran them.";
    SCHEDULER_MOVED = "app_scheduler_moved_total", Counter, Count, ["pass"], "Jobs that a pass moved.";
    SCHEDULER_ERRORS = "app_scheduler_errors_total", Counter, Count, ["pass"], "Passes that failed and will run again.";
    STORE_COMMITS = "app_store_commits_total", Counter, Count, [], "Commits; each may hold many operations.";
    STORE_OPS = "app_store_ops_total", Counter, Count, [], "Operations written to the store.";
    STORE_COMMIT_DURATION = "app_store_commit_duration_seconds", Histogram(COMMIT_SECONDS), Seconds, [],
        "Time that one commit took, with its sync to disk.";
    STORE_LOG = "app_store_log_bytes", Gauge, Bytes, [],
        "Size of SQLite's write-ahead log; far above 64 MiB, something holds it, such as a reader or a backup.";
    BROKER_PUBLISHED = "app_broker_published_total", Counter, Count, ["queue"], "Wake-ups that the broker took.";
    BROKER_CONSUMED = "app_broker_consumed_total", Counter, Count, ["queue"], "Wake-ups taken from the broker.";
    BROKER_PUBLISH_FAILURES = "app_broker_publish_failures_total", Counter, Count, [],
        "Wake-ups that could not be published; the scheduler publishes them later.";
    CACHE_LOOKUPS = "app_cache_lookups_total", Counter, Count, ["cache", "result"],
        "Records looked up in a cache, by result: hit, miss, error (the cache was away).";
    CACHE_WRITE_FAILURES = "app_cache_write_failures_total", Counter, Count, ["cache"],
        "Written records that could not be marked in the cache at once.";
    NOTIFICATIONS_ENDED = "app_notifications_ended_total", Counter, Count, ["channel", "outcome"],
        "Attempts to send, by outcome: delivered, skipped, expanded, postponed, retried, failed, ambiguous.";
    BREAKER_CHANGES = "app_breaker_changes_total", Counter, Count, ["to"],
        "Circuit breakers that opened or closed, as this process saw it.";
    PROCESS_RESIDENT_MEMORY = "app_process_resident_memory_bytes", Gauge, Bytes, [], "Memory that the process holds.";
    BUILD_INFO = "app_build_info", Gauge, Count, ["version"], "Always 1; the label names the running version.";
}

/// How often histograms are folded and the memory is measured.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// Starts the recorder for the whole process and describes every metric. Later calls answer with the same handle, so
/// that tests can run the program several times in one process.
pub fn install() -> PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE
        .get_or_init(|| {
            let recorder = builder().build_recorder();
            let handle = recorder.handle();
            if let Err(e) = metrics::set_global_recorder(recorder) {
                tracing::warn!(error = %e, "another metrics recorder is in use, /metrics will be empty");
            }
            describe();
            gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
            handle
        })
        .clone()
}

fn builder() -> PrometheusBuilder {
    METRICS.iter().fold(PrometheusBuilder::new(), |builder, metric| match metric.kind {
        Histogram(buckets) => builder
            .set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), buckets)
            // Fails for an empty list of buckets only, and a test proves that there is none.
            .unwrap_or_default(),
        Counter | Gauge => builder,
    })
}

fn describe() {
    for Metric { name, kind, unit, help, .. } in METRICS {
        match kind {
            Counter => describe_counter!(*name, *unit, *help),
            Gauge => describe_gauge!(*name, *unit, *help),
            Histogram(_) => describe_histogram!(*name, *unit, *help),
        }
    }
}

/// Folds histograms and measures memory until `stop`. Without it, unscraped histograms grow without bound.
pub async fn upkeep(handle: PrometheusHandle, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(UPKEEP_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        handle.run_upkeep();
        #[allow(clippy::cast_precision_loss, reason = "a gauge is a float; sizes of memory lose no digit that matters")]
        if let Some(bytes) = resident_memory() {
            gauge!(PROCESS_RESIDENT_MEMORY).set(bytes as f64);
        }
    }
}

/// Memory that the process holds, in bytes; none where the operating system does not tell.
#[must_use]
pub fn resident_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_follow_the_conventions() {
        let names: BTreeSet<_> = METRICS.iter().map(|m| m.name).collect();
        assert_eq!(names.len(), METRICS.len(), "a name stands twice");
        for m in METRICS {
            let snake = |s: &str| s.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') && !s.contains("__");
            assert!(m.name.starts_with("app_") && snake(m.name), "{}", m.name);
            assert!(m.labels.iter().all(|l| snake(l)), "{}", m.name);
            assert_eq!(m.kind == Counter, m.name.ends_with("_total"), "{}", m.name);
            assert_eq!(m.unit == Unit::Seconds, m.name.ends_with("_seconds"), "{}", m.name);
            assert_eq!(m.unit == Unit::Bytes, m.name.ends_with("_bytes"), "{}", m.name);
            assert!(m.help.ends_with('.'), "{}", m.name);
            if let Histogram(buckets) = m.kind {
                assert!(!buckets.is_empty() && buckets.is_sorted(), "{}", m.name);
                assert_eq!(m.unit, Unit::Seconds, "{}", m.name);
            }
        }
    }

    #[tokio::test]
    async fn what_is_recorded_is_printed_with_its_help_and_buckets() {
        let handle = install();
        install();
        metrics::counter!(JOBS_SHED, "queue" => "default").increment(1);
        metrics::histogram!(STORE_COMMIT_DURATION).record(0.002);
        let stop = CancellationToken::new();
        let task = tokio::spawn(upkeep(handle.clone(), stop.clone()));
        while !handle.render().contains(PROCESS_RESIDENT_MEMORY) {
            tokio::task::yield_now().await;
        }
        stop.cancel();
        task.await.unwrap();
        let page = handle.render();
        for part in [
            "# HELP app_jobs_shed_total Jobs refused because their queue was full.",
            "# TYPE app_jobs_shed_total counter",
            "app_jobs_shed_total{queue=\"default\"} 1",
            "app_store_commit_duration_seconds_bucket{le=\"0.0025\"} 1",
            "app_build_info{version=\"",
        ] {
            assert!(page.contains(part), "{part} is not in\n{page}");
        }
        assert!(resident_memory().unwrap() > 1 << 20);
    }
}
