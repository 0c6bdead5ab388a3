//! Pages of other sites: what a browser sends on their behalf changes nothing, and by a foreign name nothing is answered.

use serde_json::json;

use super::*;
use crate::http::{OriginRules, routes, routes::Row};

fn path_of(row: &Row) -> String {
    let id = "0192f0c1-2345-7abc-8def-0123456789ab";
    let mut path = row.path.replace("{name}", "default");
    while let (Some(start), Some(end)) = (path.find('{'), path.find('}')) {
        path.replace_range(start..=end, id);
    }
    path
}

#[actix_web::test]
async fn every_path_that_changes_something_refuses_pages_of_other_sites() {
    let t = Under::new().await;
    let mut changing = 0;
    for row in routes::needs() {
        for (name, value) in [("sec-fetch-site", "cross-site"), ("origin", "http://evil.example")] {
            let request = TestRequest::default().method(row.method.clone()).uri(&path_of(&row));
            let request = request.insert_header(("host", "localhost:8000")).insert_header((name, value));
            let answer = t.send(request.insert_header(("content-type", "text/plain")).set_payload("x=1")).await;
            if matches!(row.method, Method::GET | Method::HEAD) {
                assert_ne!(answer.status, 403, "{} {}", row.method, row.path);
                continue;
            }
            changing += 1;
            answer.problem(403, "forbidden");
            assert!(answer.json()["detail"].as_str().unwrap().contains("http.hosts"), "{}", answer.json());
        }
    }
    assert!(changing > 60, "{changing}");
}

#[actix_web::test]
async fn own_pages_and_programs_are_let_through() {
    let t = Under::new().await;
    let purge = async |headers: &[(&'static str, &str)]| {
        let request = TestRequest::post().uri("/api/v1/queues/default/purge").insert_header(("host", "localhost:8000"));
        t.send(headers.iter().fold(request, |request, header| request.insert_header(*header))).await.status
    };
    assert_eq!(purge(&[]).await, 200);
    assert_eq!(purge(&[("sec-fetch-site", "same-origin"), ("origin", "http://localhost:8000")]).await, 200);
    assert_eq!(purge(&[("origin", "http://localhost:8000")]).await, 200);
    assert_eq!(purge(&[("origin", "http://localhost:9000")]).await, 403);
}

#[actix_web::test]
async fn on_loopback_a_foreign_host_gets_nothing() {
    let rules = OriginRules { own_hosts_only: true, hosts: vec!["box.example".to_owned()] };
    let t = Under::with(move |state| state.origins = rules).await;
    let get = |path: &str, host: &str| TestRequest::get().uri(path).insert_header(("host", host.to_owned()));
    for path in ["/", "/health", "/metrics", "/openapi.json", "/docs/", "/api/v1/sink", "/api/v1/jobs", "/nothing"] {
        for host in ["evil.example:8000", "127.0.0.1.evil.example"] {
            let answer = t.send(get(path, host)).await;
            answer.problem(403, "forbidden");
            let detail = answer.json()["detail"].as_str().unwrap().to_owned();
            assert!(detail.contains(host) && detail.contains("http.hosts"), "{detail}");
        }
        for host in ["localhost:8000", "127.0.0.1:8000", "[::1]:8000", "box.example"] {
            assert_ne!(t.send(get(path, host)).await.status, 403, "{path} {host}");
        }
    }
    let body = TestRequest::post()
        .uri("/api/v1/jobs")
        .insert_header(("host", "evil.example"))
        .set_json(json!({"kind": "noop"}));
    t.send(body).await.problem(403, "forbidden");
    let jobs = t.send(get("/api/v1/jobs", "localhost")).await.json();
    assert_eq!(jobs["data"], json!([]));
}
