//! Web push: what a browser's library decrypts, who a push service thinks we are, and what its answers mean.

use app::{
    base::secret::Secret,
    notifications::channels::{Address, Channels, Content, Fault, generate_vapid},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::json;

use super::{
    GONE, HUSH, REFUSED, assert_failed, channels, config,
    fakes::{HttpFake, Reply, nobody},
    parties, push, send, web_push,
};
use crate::cli::run::run_in;

fn with_key(private: &str, more: &[(&str, &str)]) -> Channels {
    let base = [("push.vapid_private_key", private), ("push.vapid_subject", "mailto:ops@example.org")];
    let all: Vec<_> = base.iter().chain(more).copied().collect();
    channels(&all)
}

fn set_up(more: &[(&str, &str)]) -> Channels {
    with_key(generate_vapid().unwrap().private.reveal(), more)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_reads_it_and_its_service_knows_the_sender() {
    let service = HttpFake::saying(Reply::with(201, &["location: https://push.example/m/1"], "")).await;
    let browser = parties::check("subscription", json!({})).await;
    let text = |key: &str| browser[key].as_str().unwrap().to_owned();
    let keys = generate_vapid().unwrap();
    let channels = with_key(keys.private.reveal(), &[("push.ttl", "1h")]);
    let (p256dh, auth) = (text("p256dh"), Secret::new(text("auth")));
    let mut m = push(Address::WebPush { endpoint: service.url("/send/abc"), p256dh, auth });
    m.content = Content::Push {
        title: "Zoë".to_owned(),
        body: "🚚".to_owned(),
        data: json!({"n": 1, "o": {"a": []}}).as_object().cloned().unwrap(),
    };
    for urgency in ["normal", "high"] {
        m.urgent = urgency == "high";
        let receipt = send(&channels, &m).await.unwrap();
        assert_eq!(receipt.answer, "HTTP 201");
        assert_eq!(receipt.provider_id.as_deref(), Some("https://push.example/m/1"));
        let request = service.requests().pop().unwrap();
        assert_eq!(request.line, "POST /send/abc HTTP/1.1");
        assert_eq!((request.header("ttl"), request.header("urgency")), ("3600", urgency));
        assert_eq!(request.header("content-encoding"), "aes128gcm");
        let read = json!({
            "private": text("private"), "auth": text("auth"), "body": STANDARD.encode(&request.body),
            "authorization": request.header("authorization"), "audience": format!("http://127.0.0.1:{}", service.port),
        });
        let read = parties::check("push", read).await;
        assert_eq!(read["plain"], json!({"title": "Zoë", "body": "🚚", "data": {"n": 1, "o": {"a": []}}}));
        assert_eq!((&read["scheme"], &read["key"]), (&json!("vapid"), &json!(keys.public)));
        assert_eq!(read["claims"]["sub"], "mailto:ops@example.org");
        let ahead = read["claims"]["exp"].as_i64().unwrap() - m.now.as_millis() / 1000;
        assert!((1..=24 * 3600).contains(&ahead), "{ahead}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_of_a_push_service_has_its_meaning() {
    use Fault::{Configuration, Later, Message, Provider};
    for (status, header, fault, code, wait) in [
        (302, "location: http://127.0.0.1:1/", REFUSED, "redirected", None),
        (400, "x: y", Message, "http_400", None),
        (401, "x: y", Configuration, "http_401", None),
        (403, "x: y", Configuration, "http_403", None),
        (404, "x: y", GONE, "http_404", None),
        (410, "x: y", GONE, "http_410", None),
        (413, "x: y", Message, "http_413", None),
        (429, "x: y", Later, "http_429", Some(60)),
        (429, "retry-after: 120", Later, "http_429", Some(120)),
        (500, "x: y", Provider, "http_500", None),
        (503, "x: y", Provider, "http_503", None),
        (503, "retry-after: 5", Provider, "http_503", Some(5)),
    ] {
        let service = HttpFake::saying(Reply::with(status, &[header], "why")).await;
        let result = send(&set_up(&[]), &web_push(service.url("/send"))).await;
        assert_failed(result, &format!("{status} {header}"), fault, code, wait);
    }
    let channels = set_up(&[("push.timeout", "300ms")]);
    let silent = HttpFake::saying(Reply::Hang).await;
    assert_failed(send(&channels, &web_push(silent.url("/"))).await, "hang", Fault::Ambiguous, "timed_out", None);
    let drops = HttpFake::saying(Reply::Drop).await;
    assert_failed(send(&channels, &web_push(drops.url("/"))).await, "drop", Fault::Ambiguous, "connection_lost", None);
    let away = format!("http://127.0.0.1:{}/", nobody());
    assert_failed(send(&channels, &web_push(away)).await, "refused", Fault::Provider, "connect_failed", None);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_sent_is_not_sent() {
    let service = HttpFake::saying(Reply::status(201)).await;
    let channels = set_up(&[]);
    let mut m = web_push(service.url("/"));
    let Content::Push { body, .. } = &mut m.content else { unreachable!() };
    *body = "x".repeat(4000);
    assert_failed(send(&channels, &m).await, "too large", Fault::Message, "too_large", None);
    let mut m = web_push(service.url("/"));
    let Address::WebPush { auth, .. } = &mut m.to else { unreachable!() };
    *auth = Secret::new(HUSH);
    assert_failed(send(&channels, &m).await, "auth", GONE, "bad_subscription", None);
    assert!(service.requests().is_empty());
}

#[test]
fn a_wrong_key_is_named() {
    let flags = [("push.vapid_private_key", HUSH), ("push.vapid_subject", "mailto:ops@example.org")];
    let text = Channels::open(&config(&flags)).err().unwrap().to_string();
    assert!(text.starts_with("`push.vapid_private_key` is no private key") && !text.contains(HUSH), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_makes_keys_that_work() {
    let dir = tempfile::tempdir().unwrap();
    let json = run_in(dir.path(), &["vapid", "generate", "--json"], &[], "").await;
    assert_eq!(json.code, Some(0), "{json:?}");
    let keys: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    let channels = with_key(keys["private_key"].as_str().unwrap(), &[]);
    let service = HttpFake::saying(Reply::status(201)).await;
    send(&channels, &web_push(service.url("/"))).await.unwrap();
    let public = format!("k={}", keys["public_key"].as_str().unwrap());
    assert!(service.requests()[0].header("authorization").ends_with(&public));
    // The lines that it prints for people are a configuration.
    let plain = run_in(dir.path(), &["vapid", "generate"], &[], "").await;
    let lines: Vec<_> = plain.out.lines().skip_while(|l| *l != "[push]").take(3).collect();
    std::fs::write(dir.path().join("push.toml"), lines.join("\n")).unwrap();
    let shown = run_in(dir.path(), &["config", "show", "--config", "push.toml"], &[], "").await;
    assert!(shown.out.contains("vapid_private_key = \"***\""), "{shown:?}");
}
