//! The ceilings: what the libraries below do with the same bytes and nothing else.

use actix_web::{App, HttpResponse, HttpServer, web};
use lettre::{
    Message,
    message::{Mailbox, MultiPart},
    transport::smtp::{client::AsyncSmtpConnection, extension::ClientId},
};
use tokio::{net::TcpStream, task::JoinSet};
use uuid::Uuid;

use crate::{SLOTS, place, receive::Receiver};

/// Answers any POST with the second line on standard input, on the port that is the first, until it is killed.
pub(crate) fn http() {
    let mut lines = std::io::stdin().lines().map(Result::unwrap);
    let port: u16 = lines.next().unwrap().parse().unwrap();
    let answer: &'static str = lines.next().unwrap().leak();
    let serve = async move {
        let app = move || {
            let route = web::post().to(move |_body: web::Bytes| async move {
                HttpResponse::Accepted().content_type("application/json").body(answer)
            });
            App::new().default_service(route)
        };
        HttpServer::new(app).workers(2).bind(("127.0.0.1", port)).unwrap().run().await.unwrap();
    };
    actix_web::rt::System::new().block_on(serve);
}

fn ids(n: usize) -> Vec<Uuid> {
    (0..n).map(|_| Uuid::now_v7()).collect()
}

fn mail(id: Uuid) -> Message {
    let from: Mailbox = place::FROM.parse().unwrap();
    Message::builder()
        .from(from)
        .to("Ada <user1@example.net>".parse().unwrap())
        .subject("Welcome, Ada")
        .message_id(Some(format!("<{id}@example.org>")))
        .multipart(MultiPart::alternative_plain_html(
            place::TEXT.replace("{{ name }}", "Ada"),
            place::HTML.replace("{{ name }}", "Ada"),
        ))
        .unwrap()
}

/// Builds and sends mails over as many connections as the worker has slots; answers mails a second. The library's own
/// connections are not `prompt`: the system holds each mail's end back until its beginning is acknowledged.
pub(crate) async fn mails(relay: &Receiver, n: usize, prompt: bool) -> f64 {
    let ids = ids(n);
    let mut lanes = JoinSet::new();
    for mine in ids.chunks(n.div_ceil(SLOTS)) {
        let (mine, port) = (mine.to_vec(), relay.port);
        lanes.spawn(async move {
            let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            if prompt {
                stream.set_nodelay(true).unwrap();
            }
            let mut smtp =
                AsyncSmtpConnection::connect_with_transport(Box::new(stream), &ClientId::default()).await.unwrap();
            for id in mine {
                let mail = mail(id);
                smtp.send(mail.envelope(), &mail.formatted()).await.unwrap();
            }
        });
    }
    lanes.join_all().await;
    relay.rate(&ids)
}

/// Posts webhooks, as many at once as the worker has slots; answers calls a second.
pub(crate) async fn calls(receiver: &Receiver, n: usize) -> f64 {
    let ids = ids(n);
    let client = reqwest::Client::builder().no_proxy().tcp_nodelay(true).build().unwrap();
    let mut lanes = JoinSet::new();
    for mine in ids.chunks(n.div_ceil(SLOTS)) {
        let (mine, client, url) = (mine.to_vec(), client.clone(), format!("http://127.0.0.1:{}/", receiver.port));
        lanes.spawn(async move {
            for id in mine {
                let request = client.post(&url).header("webhook-id", id.to_string());
                let request = request.header("content-type", "application/json").body(r#"{"type":"welcome"}"#);
                assert_eq!(request.send().await.unwrap().status(), 200);
            }
        });
    }
    lanes.join_all().await;
    receiver.rate(&ids)
}
