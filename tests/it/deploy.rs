//! The deployment files agree with the program: the metrics that alerts watch, and the sizes and times that stand in both.

use std::{collections::BTreeSet, path::Path, time::Duration};

use app::{
    config::{self, Sources},
    telemetry::metrics::{METRICS, MetricKind},
};

fn file(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

#[test]
fn alerts_watch_metrics_that_there_are() {
    let mut known: BTreeSet<String> = BTreeSet::new();
    for metric in METRICS {
        known.insert(metric.name.to_owned());
        if let MetricKind::Histogram(_) = metric.kind {
            known.extend(["bucket", "sum", "count"].map(|part| format!("{}_{part}", metric.name)));
        }
    }
    for name in ["deploy/prometheus/alerts.yml", "deploy/prometheus/alerts_test.yml"] {
        let text = file(name);
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|w| w.starts_with("app_"));
        let unknown: BTreeSet<&str> = words.filter(|w| !known.contains(*w)).collect();
        assert!(unknown.is_empty(), "{name}: {unknown:?}");
    }
}

#[test]
fn nginx_and_compose_fit_the_defaults() {
    let c = config::load(&Sources::default()).unwrap();
    let (nginx, compose) = (file("deploy/nginx/app.conf.template"), file("compose.yaml"));
    assert!(nginx.contains(&format!("client_max_body_size {}m;", c.http.max_bulk_body >> 20)));
    assert!(nginx.contains("keepalive_timeout 60s;") && c.http.keep_alive > Duration::from_secs(60));
    // Whoever stops in good order is not killed.
    let grace = Duration::from_secs(45);
    assert_eq!(compose.matches("stop_grace_period: 45s").count(), 3);
    assert!(grace > c.worker.shutdown_grace && grace > c.http.shutdown_timeout);
}

#[test]
fn no_password_is_in_the_deployment() {
    let compose = file("compose.yaml");
    for line in compose.lines().filter(|l| l.contains("PASS") || l.contains("password") || l.contains("://")) {
        let plain = line.contains("${") || line.contains("$$") || line.trim_start().starts_with('#');
        assert!(plain || line.contains("https://127.0.0.1"), "{line}");
    }
    assert!(file(".gitignore").lines().any(|l| l == "/deploy/.env"));
}

/// Whoever gets the program gets its licence, whole.
#[test]
fn the_licence_goes_with_the_program() {
    let licence = file("LICENSE");
    for part in ["Version 2.0, January 2004", "TERMS AND CONDITIONS", "END OF TERMS AND CONDITIONS", "9. Accepting"] {
        assert!(licence.contains(part), "{part}");
    }
    assert!(file("Cargo.toml").contains("license = \"Apache-2.0\""));
    assert!(file("Dockerfile").contains("COPY LICENSE ") && file(".dockerignore").contains("\n!LICENSE\n"));
    assert!(file("README.md").contains("](LICENSE)") && file("README.md").contains("](SECURITY.md)"));
}

/// What is missing is read before the first command is typed.
#[test]
fn the_readme_says_early_what_is_missing() {
    let readme = file("README.md");
    let headings: Vec<&str> = readme.lines().filter_map(|l| l.strip_prefix("## ")).collect();
    assert_eq!(headings.first(), Some(&"What it does not do yet"), "{headings:?}");
    assert!(file("SECURITY.md").contains("private") && !file("SECURITY.md").contains('@'));
}
