//! What every route shares: problems, headers, methods, slashes, health, metrics, panics.

use std::time::{Duration, Instant};

use actix_web::http::header::HeaderValue;
use metrics_exporter_prometheus::PrometheusBuilder;
use serde_json::json;

use super::*;

const ALL: [&str; 4] = ["/api/v1/items", "/api/items", "/health", "/metrics"];

#[actix_web::test]
async fn unknown_paths_are_problems() {
    let t = Under::new().await;
    for path in ["/nothing", "/api/v1", "/api/v1/items/x/y", "/docs/nothing.js", "//", "/%00", "/api/v1/itemsx"] {
        let answer = t.get(path).await;
        if path == "//" {
            assert_eq!(answer.status, 200, "slashes alone are the root");
            continue;
        }
        answer.problem(404, "not_found");
        assert_eq!(answer.json()["instance"], path);
    }
}

#[actix_web::test]
async fn a_wrong_method_is_told_the_right_ones() {
    let t = Under::new().await;
    for (method, path, allow) in [
        (Method::DELETE, "/api/v1/items", "GET, HEAD, POST"),
        (Method::POST, "/api/items/0192f0c1-2345-7abc-8def-0123456789ab", "GET, HEAD, PATCH, PUT, DELETE"),
        (Method::POST, "/health", "GET, HEAD"),
        (Method::from_bytes(b"BREW").unwrap(), "/", "GET, HEAD"),
    ] {
        let answer = t.send(TestRequest::default().method(method).uri(path)).await;
        answer.problem(405, "method_not_allowed");
        assert_eq!(answer.header("allow"), allow);
    }
}

#[actix_web::test]
async fn trailing_slashes_and_head_are_accepted() {
    let t = Under::new().await;
    for path in ALL {
        for uri in [path.to_owned(), format!("{path}/"), format!("{path}///")] {
            assert_eq!(t.get(&uri).await.status, 200, "{uri}");
            assert_eq!(t.send(TestRequest::default().method(Method::HEAD).uri(&uri)).await.status, 200, "{uri}");
        }
    }
    assert_eq!(t.get("/api/items/?limit=1").await.json()["meta"]["limit"], 1);
    let made = t.post("/api/items/", json!({"name": "x"})).await;
    assert!(made.header("location").starts_with("/api/items/0"), "{}", made.header("location"));
    assert_eq!(t.get(&format!("{}/", made.header("location"))).await.status, 200);
}

#[actix_web::test]
async fn the_request_id_is_returned_or_made_on_every_answer() {
    let t = Under::new().await;
    for path in ["/health", "/nothing", "/api/items/x"] {
        let named = TestRequest::get().uri(path).insert_header(("x-request-id", "abc-1"));
        assert_eq!(t.send(named).await.header("x-request-id"), "abc-1");
        let named = TestRequest::get().uri(path).insert_header(("x-correlation-id", "abc-2"));
        assert_eq!(t.send(named).await.header("x-request-id"), "abc-2");
        let bad = HeaderValue::from_bytes(b"\xff").unwrap();
        let answer = t.send(TestRequest::get().uri(path).insert_header(("x-request-id", bad))).await;
        assert_eq!(answer.header("x-request-id").len(), 36);
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
    }
}

#[actix_web::test]
async fn a_store_that_is_away_is_503_and_its_name_stays_secret() {
    let t = Under::new().await;
    t.store.away.store(true, Ordering::Relaxed);
    let id = "/api/items/0192f0c1-2345-7abc-8def-0123456789ab";
    for answer in [t.get("/api/items").await, t.get(id).await, t.post("/api/items", json!({"name": "x"})).await] {
        answer.problem(503, "unavailable");
        assert!(answer.header("retry-after").parse::<u32>().unwrap() > 0);
        assert!(!String::from_utf8_lossy(&answer.bytes).contains("secret-host"));
    }
}

#[actix_web::test]
async fn a_panic_is_a_500_with_a_request_id_and_the_next_request_is_served() {
    let t = Under::with(|state| state.metrics = Arc::new(|| panic!("secret"))).await;
    let answer = t.send(TestRequest::get().uri("/metrics").insert_header(("x-request-id", "abc"))).await;
    answer.problem(500, "internal");
    assert_eq!(answer.header("x-request-id"), "abc");
    assert!(!String::from_utf8_lossy(&answer.bytes).contains("secret"));
    assert_eq!(t.get("/health").await.status, 200);
}

#[actix_web::test]
async fn health_tells_each_backend_within_two_seconds() {
    let well = |name| Arc::new(FakeProbe(name, Some(Ok(())))) as Arc<dyn Probe>;
    let t = Under::with(|state| state.probes = vec![well("sqlite"), well("embedded")]).await;
    let answer = t.get("/health").await;
    let services = json!({"sqlite": "connected", "embedded": "connected"});
    let expected = json!({"status": "healthy", "timestamp": "2026-11-21T08:00:00.000Z", "services": services});
    assert_eq!((answer.status, answer.json()), (200, expected));

    let t = Under::with(|state| {
        state.probes = vec![
            well("sqlite"),
            Arc::new(FakeProbe("redis", Some(Err("refused".to_owned())))),
            Arc::new(FakeProbe("mongodb", None)),
            Arc::new(FakeProbe("rabbitmq", None)),
        ];
    })
    .await;
    let asked = Instant::now();
    let answer = t.get("/health").await;
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
    assert_eq!((answer.status, &answer.json()["status"]), (503, &json!("unhealthy")));
    let down = "disconnected";
    let services = json!({"sqlite": "connected", "redis": down, "mongodb": down, "rabbitmq": down});
    assert_eq!(answer.json()["services"], services);
}

#[actix_web::test]
async fn a_server_in_two_uses_is_connected_if_it_is_in_both() {
    let probe = |well: bool| {
        let answer = if well { Ok(()) } else { Err("refused".to_owned()) };
        Arc::new(FakeProbe("redis", Some(answer))) as Arc<dyn Probe>
    };
    for (uses, code, told) in
        [([true, true], 200, "connected"), ([true, false], 503, "disconnected"), ([false, true], 503, "disconnected")]
    {
        let t = Under::with(|state| state.probes = uses.map(probe).to_vec()).await;
        let answer = t.get("/health").await;
        assert_eq!((answer.status, &answer.json()["services"]), (code, &json!({"redis": told})));
    }
}

#[actix_web::test]
async fn ready_follows_its_flag_and_live_does_not() {
    let t = Under::new().await;
    assert_eq!((t.get("/health/ready").await.status, t.get("/health/live").await.status), (200, 200));
    t.state.ready.store(false, Ordering::Relaxed);
    let answer = t.get("/health/ready").await;
    assert_eq!(
        (answer.status, answer.json(), answer.header("retry-after")),
        (503, json!({"status": "not_ready"}), "1")
    );
    assert_eq!(t.get("/health/live").await.json(), json!({"status": "live"}));
}

#[actix_web::test]
async fn the_root_names_the_service_and_every_link_leads_somewhere() {
    let t = Under::new().await;
    let about = t.get("/").await.json();
    assert_eq!((&about["service"], &about["version"]), (&json!("app"), &json!("1.2.3")));
    for link in about["links"].as_object().unwrap().values() {
        let status = t.get(link.as_str().unwrap()).await.status;
        assert!(status == 200 || status == 308, "{link}: {status}");
    }
}

#[actix_web::test]
async fn metrics_are_labelled_by_pattern_so_that_clients_cannot_make_labels() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let _installed = metrics::set_default_local_recorder(&recorder);
    let t = Under::new().await;
    let brew = Method::from_bytes(b"BREW").unwrap();
    for n in 0..3 {
        t.get(&format!("/api/v1/items/{n}")).await;
        t.get(&format!("/nothing/{n}")).await;
    }
    t.send(TestRequest::default().method(brew).uri("/health")).await;
    let text = recorder.handle().render();
    for line in [
        r#"app_http_requests_total{method="GET",route="/api/v1/items/{id}",status="404"} 3"#,
        r#"app_http_requests_total{method="GET",route="unmatched",status="404"} 3"#,
        r#"app_http_requests_total{method="OTHER",route="/health",status="405"} 1"#,
        r#"app_http_request_duration_seconds_count{method="GET",route="unmatched"} 3"#,
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    assert_eq!(t.get("/metrics").await.bytes, b"app_up 1\n");
}
