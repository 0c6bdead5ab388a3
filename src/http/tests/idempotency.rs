//! Submissions under an `Idempotency-Key`: the same request gets the same answer, another is
//! refused.

use super::{
    jobs::{BULK, JOBS},
    *,
};

async fn keyed(t: &Under, path: &str, key: &[u8], body: &str) -> Answer {
    let request = TestRequest::post().uri(path).insert_header(("content-type", "application/json"));
    let key = actix_web::http::header::HeaderValue::from_bytes(key).unwrap();
    t.send(request.insert_header(("idempotency-key", key)).set_payload(body.to_owned())).await
}

#[actix_web::test]
async fn the_same_request_under_a_key_gets_the_same_answer() {
    let t = Under::new().await;
    let bulk = r#"{"jobs":[{"kind":"noop"}]}"#;
    let task = r#"{"data":"x","iterations":1}"#;
    for (path, body, located) in
        [(JOBS, r#"{"kind":"noop"}"#, true), (BULK, bulk, false), ("/api/async/process", task, true)]
    {
        let key = format!("key-of-{}", path.replace('/', "-"));
        let before = t.count().await;
        let first = keyed(&t, path, key.as_bytes(), body).await;
        assert_eq!((first.status, first.header("idempotent-replayed")), (202, ""), "{path}");
        let again = keyed(&t, path, key.as_bytes(), body).await;
        assert_eq!((again.status, again.header("idempotent-replayed")), (202, "true"), "{path}");
        assert_eq!((&again.bytes, again.header("location")), (&first.bytes, first.header("location")));
        assert_eq!(first.headers.contains_key("location"), located, "{path}");
        let other = keyed(&t, path, key.as_bytes(), &body.replace('}', " }")).await;
        other.problem(409, "conflict");
        assert_eq!(t.count().await, before + 1);
    }
    let elsewhere = keyed(&t, BULK, b"key-of--api-v1-jobs", bulk).await;
    elsewhere.problem(409, "conflict");
}

#[actix_web::test]
async fn a_malformed_key_is_named() {
    let t = Under::new().await;
    for key in [&b""[..], b"has space", b"\xc3\xbc", b"tab\there", &[b'x'; 256]] {
        let answer = keyed(&t, JOBS, key, r#"{"kind":"noop"}"#).await;
        assert_eq!(answer.problem(400, "invalid_request"), ["Idempotency-Key"], "{key:?}");
    }
    assert_eq!(keyed(&t, JOBS, &[b'x'; 255], r#"{"kind":"noop"}"#).await.status, 202);
    let two = TestRequest::post().uri(JOBS).insert_header(("content-type", "application/json"));
    let two = two.append_header(("idempotency-key", "a")).append_header(("idempotency-key", "b"));
    let answer = t.send(two.set_payload(r#"{"kind":"noop"}"#)).await;
    assert_eq!(answer.problem(400, "invalid_request"), ["Idempotency-Key"]);
}
