//! Webhooks: signatures that receivers' own library verifies, and what every answer means.

use std::time::Duration;

use app::{
    base::secret::Secret,
    notifications::channels::{Address, Content, Fault, Message, check_secret, generate_secret},
};
use serde_json::{Value, json};

use super::{
    GONE, HUSH, REFUSED, assert_failed, channels,
    fakes::{HttpFake, Reply, Request},
    message, parties, send, webhook,
};

const SHORT: (&str, &str) = ("webhook.timeout", "300ms");

async fn verified(secret: &Secret, request: &Request) -> Value {
    let headers: Value = ["webhook-id", "webhook-timestamp", "webhook-signature"]
        .map(|name| (name.to_owned(), json!(request.header(name))))
        .into_iter()
        .collect();
    parties::check("webhook", json!({"secret": secret.reveal(), "body": request.text(), "headers": headers})).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receivers_library_accepts_what_is_signed() {
    let receiver = HttpFake::saying(Reply::status(204)).await;
    let (new, old) = (generate_secret().unwrap(), generate_secret().unwrap());
    let body = r#"{ "type":"order.shipped",  "data":{"name":"Zoë 🚚"}}"#;
    let to = |secrets| Address::Webhook { url: receiver.url("/hook?x=1"), secrets };
    let mut m = message(to(vec![new.clone(), old.clone()]), Content::Webhook { body: body.to_owned() });
    let channels = channels(&[]);
    let receipt = send(&channels, &m).await.unwrap();
    assert_eq!((receipt.answer.as_str(), receipt.provider_id), ("HTTP 204", None));

    let first = &receiver.requests()[0];
    assert_eq!(first.line, "POST /hook?x=1 HTTP/1.1");
    assert_eq!(first.text(), body, "posted to the byte");
    assert_eq!(first.header("content-type"), "application/json");
    assert_eq!(first.header("webhook-id"), m.id.to_string());
    assert_eq!(first.header("webhook-signature").split(' ').count(), 2);
    assert!(first.header("user-agent").starts_with("app/"), "{first:?}");
    for secret in [&new, &old] {
        assert_eq!(verified(secret, first).await["type"], "order.shipped");
    }
    // A repetition has the same id and a time of its own.
    m.now = m.now.plus(Duration::from_secs(7));
    m.to = to(vec![new.clone()]);
    send(&channels, &m).await.unwrap();
    let second = &receiver.requests()[1];
    assert_eq!(second.header("webhook-id"), first.header("webhook-id"));
    let time = |r: &Request| r.header("webhook-timestamp").parse::<i64>().unwrap();
    assert_eq!(time(second), time(first) + 7);
    verified(&new, second).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_of_a_receiver_has_its_meaning() {
    use Fault::{Later, Provider};
    let moved = "location: http://127.0.0.1:1/elsewhere";
    for (status, header, fault, code, wait) in [
        (301, moved, REFUSED, "redirected", None),
        (302, moved, REFUSED, "redirected", None),
        (307, moved, REFUSED, "redirected", None),
        (308, moved, REFUSED, "redirected", None),
        (304, "x: y", REFUSED, "redirected", None),
        (400, "x: y", Provider, "http_400", None),
        (401, "x: y", Provider, "http_401", None),
        (403, "x: y", Provider, "http_403", None),
        (404, "x: y", Provider, "http_404", None),
        (408, "x: y", Provider, "http_408", None),
        (410, "x: y", GONE, "http_410", None),
        (413, "x: y", Provider, "http_413", None),
        (425, "x: y", Provider, "http_425", None),
        (429, "x: y", Later, "http_429", Some(60)),
        (429, "retry-after: 7", Later, "http_429", Some(7)),
        (429, "retry-after: 86400", Later, "http_429", Some(3600)),
        (500, "x: y", Provider, "http_500", None),
        (502, "x: y", Provider, "http_502", None),
        (503, "retry-after: 30", Provider, "http_503", Some(30)),
    ] {
        let receiver = HttpFake::saying(Reply::with(status, &[header], "no\r\nwords")).await;
        let result = send(&channels(&[]), &webhook(receiver.url("/"))).await;
        assert_failed(result, &format!("{status} {header}"), fault, code, wait);
        assert_eq!(receiver.requests().len(), 1, "a redirect is not followed");
    }
    for status in [200, 201, 202, 204, 299] {
        let receiver = HttpFake::saying(Reply::status(status)).await;
        send(&channels(&[]), &webhook(receiver.url("/"))).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_dawdles_or_breaks_off_is_tried_again() {
    let hangs = HttpFake::saying(Reply::Hang).await;
    let result = send(&channels(&[SHORT]), &webhook(hangs.url("/"))).await;
    assert_failed(result, "hang", Fault::Provider, "timed_out", None);
    let drops = HttpFake::saying(Reply::Drop).await;
    let result = send(&channels(&[]), &webhook(drops.url("/"))).await;
    assert_failed(result, "drop", Fault::Ambiguous, "connection_lost", None);
    assert_eq!(drops.requests().len(), 1, "it is the caller who tries again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_without_end_is_left_unread() {
    for (reply, taken) in [(Reply::Endless(200), true), (Reply::Endless(500), false), (Reply::Stalled(200), true)] {
        let receiver = HttpFake::saying(reply.clone()).await;
        let result = send(&channels(&[("webhook.timeout", "2s")]), &webhook(receiver.url("/"))).await;
        match taken {
            true => drop(result.unwrap()),
            false => {
                let e = assert_failed(result, "endless", Fault::Provider, "http_500", None);
                assert!(e.message.len() < 1000, "{e}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_is_none_is_the_recipients_fault_and_is_not_told() {
    for secret in [HUSH.to_owned(), format!("whsec_{HUSH}"), String::new()] {
        check_secret(&secret).unwrap_err();
        let mut m = webhook("http://127.0.0.1:1/".to_owned());
        m.to = Address::Webhook { url: "http://127.0.0.1:1/".to_owned(), secrets: vec![Secret::new(secret)] };
        assert_failed(send(&channels(&[]), &m).await, "secret", REFUSED, "bad_secret", None);
        assert!(!format!("{m:?}").contains(HUSH), "{m:?}");
    }
    let none: Message = message(
        Address::Webhook { url: "http://127.0.0.1:1/".to_owned(), secrets: Vec::new() },
        Content::Webhook { body: "{}".to_owned() },
    );
    assert_failed(send(&channels(&[]), &none).await, "none", REFUSED, "bad_secret", None);
}
