//! Firebase: one access token for all, and what every answer means.

use std::sync::atomic::{AtomicUsize, Ordering};

use app::notifications::channels::{Channels, Fault};
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::{
    GONE, HUSH, assert_failed, channels, config,
    fakes::{HttpFake, Reply, nobody},
    fcm, parties, send,
};

/// A service account's key: made once, as RSA keys take time.
async fn account() -> &'static Value {
    static ACCOUNT: OnceCell<Value> = OnceCell::const_new();
    ACCOUNT.get_or_init(|| parties::check("account", json!({}))).await
}

/// Channels whose Firebase and token server are these, and the file they were read from.
async fn set_up(firebase: &str, tokens: &str, more: &[(&str, &str)]) -> (Channels, tempfile::NamedTempFile) {
    let file = tempfile::NamedTempFile::new().unwrap();
    let key = json!({
        "type": "service_account", "project_id": "shop-7", "private_key_id": "k1", "private_key": account().await["private"],
        "client_email": "app@shop-7.iam.gserviceaccount.com", "token_uri": tokens,
    });
    std::fs::write(file.path(), key.to_string()).unwrap();
    let base = [("push.fcm_credentials", file.path().to_str().unwrap()), ("push.fcm_url", firebase)];
    let all: Vec<_> = base.iter().chain(more).copied().collect();
    (channels(&all), file)
}

fn token(n: usize) -> Reply {
    Reply::with(200, &["content-type: application/json"], json!({"access_token": format!("t{n}"), "expires_in": 3599}))
}

async fn token_server() -> HttpFake {
    HttpFake::start(|_, n| token(n)).await
}

fn sent() -> Reply {
    Reply::with(200, &[], json!({"name": "projects/shop-7/messages/0:1"}))
}

/// An error in Firebase's form.
fn error(status: u16, code: &str, general: &str, headers: &[&str], more: &[Value]) -> Reply {
    let kind = "type.googleapis.com/google.firebase.fcm.v1.FcmError";
    let mut details = more.to_vec();
    if !code.is_empty() {
        details.push(json!({"@type": kind, "errorCode": code}));
    }
    let error = json!({"code": status, "message": format!("it is {code}"), "status": general, "details": details});
    Reply::with(status, headers, json!({"error": error}))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_server_believes_us_and_firebase_gets_the_message() {
    let (firebase, tokens) = (HttpFake::saying(sent()).await, token_server().await);
    let (channels, _file) = set_up(&firebase.url("/"), &tokens.url("/token"), &[]).await;
    let mut m = fcm();
    m.urgent = true;
    let receipt = send(&channels, &m).await.unwrap();
    assert_eq!(receipt.provider_id.as_deref(), Some("projects/shop-7/messages/0:1"));
    assert_eq!(receipt.answer, "HTTP 200");

    let asked = &tokens.requests()[0];
    let (grant, assertion) = asked.text().split_once("&assertion=").map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    assert_eq!(grant, "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer");
    let request =
        json!({"assertion": assertion, "public": account().await["public"], "audience": tokens.url("/token")});
    let read = parties::check("assertion", request).await;
    assert_eq!((&read["header"]["kid"], &read["header"]["alg"]), (&json!("k1"), &json!("RS256")));
    assert_eq!(read["claims"]["iss"], "app@shop-7.iam.gserviceaccount.com");
    assert_eq!(read["claims"]["scope"], "https://www.googleapis.com/auth/firebase.messaging");
    assert_eq!(read["claims"]["exp"].as_i64().unwrap() - read["claims"]["iat"].as_i64().unwrap(), 3600);

    let request = &firebase.requests()[0];
    assert_eq!(request.line, "POST /v1/projects/shop-7/messages:send HTTP/1.1");
    assert_eq!(request.header("authorization"), "Bearer t0");
    let body: Value = serde_json::from_str(&request.text()).unwrap();
    assert_eq!(body["message"]["token"], format!("device-{HUSH}"));
    assert_eq!(body["message"]["notification"], json!({"title": "Sent", "body": "It is on its way."}));
    assert_eq!(body["message"]["data"], json!({"order": "7"}));
    assert_eq!(body["message"]["android"]["priority"], "HIGH");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_sends_fetch_one_token() {
    let (firebase, tokens) = (HttpFake::saying(sent()).await, token_server().await);
    let (channels, _file) = set_up(&firebase.url(""), &tokens.url(""), &[]).await;
    let m = fcm();
    for result in join_all((0..100).map(|_| send(&channels, &m))).await {
        result.unwrap();
    }
    assert_eq!((firebase.requests().len(), tokens.requests().len()), (100, 1));
    // An hour later it has ended.
    let mut later = fcm();
    later.now = m.now.plus(std::time::Duration::from_secs(3590));
    send(&channels, &later).await.unwrap();
    assert_eq!(tokens.requests().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_token_is_replaced_once() {
    let firebase = HttpFake::start(|r, _| match r.header("authorization") {
        "Bearer t0" => error(401, "", "UNAUTHENTICATED", &[], &[]),
        _ => sent(),
    })
    .await;
    let tokens = token_server().await;
    let (channels, _file) = set_up(&firebase.url(""), &tokens.url(""), &[]).await;
    let m = fcm();
    for result in join_all((0..100).map(|_| send(&channels, &m))).await {
        result.unwrap();
    }
    assert_eq!(tokens.requests().len(), 2, "a hundred refusals, one new token");

    let never = HttpFake::saying(error(401, "", "UNAUTHENTICATED", &[], &[])).await;
    let (channels, _file) = set_up(&never.url(""), &tokens.url(""), &[]).await;
    assert_failed(send(&channels, &m).await, "401", Fault::Configuration, "http_401", None);
    assert_eq!(never.requests().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_of_firebase_has_its_meaning() {
    use Fault::{Configuration, Later, Message, Provider};
    let about = |field: &str| json!({"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": [{"field": field, "description": "bad"}]});
    let plain = |status: u16| Reply::with(status, &["content-type: text/html"], "<html>no</html>");
    let wait = "retry-after: 120";
    for (reply, fault, code, after) in [
        (error(404, "UNREGISTERED", "NOT_FOUND", &[], &[]), GONE, "fcm_unregistered", None),
        (error(404, "", "NOT_FOUND", &[], &[]), GONE, "fcm_unregistered", None),
        (error(403, "SENDER_ID_MISMATCH", "PERMISSION_DENIED", &[], &[]), GONE, "fcm_sender_id_mismatch", None),
        (error(400, "INVALID_ARGUMENT", "INVALID_ARGUMENT", &[], &[]), Message, "fcm_invalid_argument", None),
        (error(400, "INVALID_ARGUMENT", "", &[], &[about("message.data")]), Message, "fcm_invalid_argument", None),
        (error(400, "INVALID_ARGUMENT", "", &[], &[about("message.token")]), GONE, "fcm_invalid_argument", None),
        (error(401, "THIRD_PARTY_AUTH_ERROR", "", &[], &[]), Configuration, "fcm_third_party_auth_error", None),
        (error(403, "", "PERMISSION_DENIED", &[], &[]), Configuration, "http_403", None),
        (error(429, "QUOTA_EXCEEDED", "", &[], &[]), Later, "fcm_quota_exceeded", Some(60)),
        (error(429, "QUOTA_EXCEEDED", "", &[wait], &[]), Later, "fcm_quota_exceeded", Some(120)),
        (plain(429), Later, "http_429", Some(60)),
        (error(500, "INTERNAL", "INTERNAL", &[], &[]), Provider, "fcm_internal", None),
        (error(503, "UNAVAILABLE", "UNAVAILABLE", &[], &[]), Provider, "fcm_unavailable", None),
        (error(503, "UNAVAILABLE", "UNAVAILABLE", &[wait], &[]), Provider, "fcm_unavailable", Some(120)),
        (plain(502), Provider, "http_502", None),
        // Not Firebase at all: no device may lose its token by it.
        (plain(404), Configuration, "http_404", None),
        (Reply::with(302, &["location: http://127.0.0.1:1/"], ""), Provider, "http_302", None),
        (Reply::Drop, Fault::Ambiguous, "connection_lost", None),
    ] {
        let (name, firebase, tokens) = (format!("{reply:?}"), HttpFake::saying(reply).await, token_server().await);
        let (channels, _file) = set_up(&firebase.url(""), &tokens.url(""), &[]).await;
        assert_failed(send(&channels, &fcm()).await, &name, fault, code, after);
        assert_eq!(firebase.requests().len(), 1, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_is_ambiguous_only_once_the_message_was_sent() {
    let short = [("push.timeout", "300ms")];
    let (silent, tokens) = (HttpFake::saying(Reply::Hang).await, token_server().await);
    let (channels, _file) = set_up(&silent.url(""), &tokens.url(""), &short).await;
    assert_failed(send(&channels, &fcm()).await, "hang", Fault::Ambiguous, "timed_out", None);
    let (channels, _file) = set_up(&silent.url(""), &silent.url(""), &short).await;
    for result in join_all([fcm(), fcm(), fcm()].iter().map(|m| send(&channels, m))).await {
        assert_failed(result, "no token", Fault::Provider, "timed_out", None);
    }
    let away = format!("http://127.0.0.1:{}", nobody());
    let (channels, _file) = set_up(&away, &tokens.url(""), &[]).await;
    assert_failed(send(&channels, &fcm()).await, "away", Fault::Provider, "connect_failed", None);
    let (channels, _file) = set_up(&tokens.url(""), &away, &[]).await;
    assert_failed(send(&channels, &fcm()).await, "no token server", Fault::Provider, "connect_failed", None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_server_that_refuses_us_wants_a_person() {
    let firebase = HttpFake::saying(sent()).await;
    for (reply, fault, after) in [
        (Reply::with(400, &[], json!({"error": "invalid_grant"})), Fault::Configuration, None),
        (Reply::status(401), Fault::Configuration, None),
        (Reply::status(500), Fault::Provider, None),
        (Reply::with(503, &["retry-after: 9"], ""), Fault::Provider, Some(9)),
        (Reply::with(200, &[], "no token"), Fault::Provider, None),
    ] {
        let tokens = HttpFake::saying(reply).await;
        let (channels, _file) = set_up(&firebase.url(""), &tokens.url(""), &[]).await;
        assert_failed(send(&channels, &fcm()).await, "token", fault, "fcm_token", after);
    }
    assert!(firebase.requests().is_empty());
    // After a failure the next send asks again.
    let count = AtomicUsize::new(0);
    let tokens = HttpFake::start(move |_, n| match count.fetch_add(1, Ordering::SeqCst) {
        0 => Reply::status(500),
        _ => token(n),
    })
    .await;
    let (channels, _file) = set_up(&firebase.url(""), &tokens.url(""), &[]).await;
    assert_failed(send(&channels, &fcm()).await, "first", Fault::Provider, "fcm_token", None);
    send(&channels, &fcm()).await.unwrap();
}

#[test]
fn wrong_credentials_are_named_and_not_told() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    let open = |path: &str| Channels::open(&config(&[("push.fcm_credentials", path)])).err().unwrap().to_string();
    assert!(open("/nowhere.json").contains("`push.fcm_credentials` names /nowhere.json, which cannot be read"));
    for text in [
        HUSH.to_owned(),
        json!({"project_id": "p", "client_email": "e", "private_key": 4711, "private_key_id": HUSH}).to_string(),
        json!({"project_id": "p", "client_email": "e", "private_key": HUSH}).to_string(),
        json!({"project_id": "../p", "client_email": "e", "private_key": HUSH}).to_string(),
    ] {
        std::fs::write(file.path(), text).unwrap();
        let e = open(path);
        assert!(e.starts_with("`push.fcm_credentials` names") && !e.contains(HUSH) && !e.contains('\n'), "{e}");
    }
}
