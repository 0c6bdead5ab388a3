//! The link in a mail by which its reader gets no more of the kind, with one click and without a log-in.

use reqwest::Method;
use serde_json::json;

use super::{Api, House, Relay};

/// The value of a header of a mail, unfolded.
fn header(mail: &str, name: &str) -> Option<String> {
    let plain = mail.replace("\r\n ", " ").replace("\r\n\t", " ");
    plain.lines().find_map(|l| l.strip_prefix(&format!("{name}: ")).map(str::to_owned))
}

/// The path of the link in a mail.
fn link(api: &Api, mail: &str) -> String {
    let text = header(mail, "List-Unsubscribe").unwrap_or_else(|| panic!("no link: {mail}")).replace(' ', "");
    assert_eq!(header(mail, "List-Unsubscribe-Post").unwrap(), "List-Unsubscribe=One-Click");
    let url = text.trim_start_matches('<').trim_end_matches('>');
    url.strip_prefix(&api.url).unwrap_or_else(|| panic!("leads elsewhere: {url}")).to_owned()
}

/// As a mail program does it (RFC 8058).
async fn click(api: &Api, path: &str) -> u16 {
    let request = api.http.post(format!("{}{path}", api.url));
    let request = request.header("content-type", "application/x-www-form-urlencoded");
    request.body("List-Unsubscribe=One-Click").send().await.unwrap().status().as_u16()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_click_ends_the_mails_of_one_category() {
    let relay = Relay::start();
    let house = House::with(&relay);
    let (_process, api) = house.start().await;
    api.note().await;
    let user = api.user("ada", json!({})).await;
    let id = api.send("email", &user, json!({"category": "news"})).await;
    api.reaches(&id, "delivered").await;
    let path = link(&api, &relay.mails_of(&id)[0]);
    for _ in 0..2 {
        let (status, page) = api.call(Method::GET, &path, None).await.unwrap();
        assert!(status == 200 && page.as_str().unwrap().contains("<form method=\"post\">"), "{page}");
    }
    let id = api.send("email", &user, json!({"category": "news"})).await;
    api.reaches(&id, "delivered").await;
    for n in [path.len() - 1, path.len() - 30, 25] {
        let mut bent = path.clone().into_bytes();
        bent[n] = if bent[n] == b'A' { b'B' } else { b'A' };
        let bent = String::from_utf8(bent).unwrap();
        assert_eq!(click(&api, &bent).await, 404, "{bent}");
    }
    assert_eq!(click(&api, "/api/v1/unsubscribe/x").await, 404);
    for _ in 0..2 {
        assert_eq!(click(&api, &path).await, 200);
    }
    let id = api.send("email", &user, json!({"category": "news"})).await;
    assert_eq!(api.reaches(&id, "skipped").await["reason"], "preference");
    let id = api.send("email", &user, json!({"category": "bills"})).await;
    api.reaches(&id, "delivered").await;
    // What has no category cannot be unsubscribed.
    let id = api.send("email", &user, json!({})).await;
    api.reaches(&id, "delivered").await;
    assert_eq!(header(&relay.mails_of(&id)[0], "List-Unsubscribe"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_no_user_goes_on_the_suppression_list() {
    let relay = Relay::start();
    let house = House::with(&relay);
    let (mut process, api) = house.start().await;
    api.note().await;
    let to = |category: &str| {
        json!({"notification_type": "email", "template_code": "note", "variables": {"word": "w"}, "category": category,
            "recipients": [{"email": "eve@example.net"}]})
    };
    let send = async |api: &Api, category: &str| {
        let sent = api.post("/api/v1/notifications", &to(category)).await;
        sent["data"][0]["id"].as_str().unwrap().to_owned()
    };
    let id = send(&api, "news").await;
    api.reaches(&id, "delivered").await;
    let path = link(&api, &relay.mails_of(&id)[0]);
    // The key of the links outlives the process.
    process.kill();
    let (_process, api) = house.start().await;
    assert_eq!(click(&api, &path).await, 200);
    let list = api.list("/api/v1/suppressions?address=eve@example.net").await;
    assert_eq!((list.len(), &list[0]["reason"], &list[0]["category"]), (1, &json!("unsubscribed"), &json!("news")));
    let id = send(&api, "news").await;
    assert_eq!(api.reaches(&id, "skipped").await["reason"], "suppressed");
    let id = send(&api, "bills").await;
    api.reaches(&id, "delivered").await;
}
