//! Notifications over the real program, with a relay and receivers whose every answer is scripted.
//!
//! Most run in one process (`app all` over SQLite); what several processes must agree on runs in a fleet. Nothing is looked
//! at but what a client sees: the API, the log, and what arrives at the other side.

mod again;
mod breaker;
mod decide;
mod events;
mod failures;
mod kill;
mod relays;
mod secrets;
mod split;
mod suppressions;
mod templates;
mod unsubscribe;
mod walk;
mod zones;

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use app::base::clock::Clock;
use reqwest::{Client, Method};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    channels::fakes::{Act, SmtpFake},
    support::{
        eventually,
        process::{Process, client},
        wait_until,
    },
};

/// One process after another over the same data.
struct House {
    dir: TempDir,
    env: Vec<(String, String)>,
}

impl House {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), env: Vec::new() }
    }

    /// With this relay for mail.
    fn with(relay: &Relay) -> Self {
        let mut house = Self::new();
        for (name, value) in relay.env() {
            house.set(name, &value);
        }
        house
    }

    /// Changes a setting of the processes to come.
    fn set(&mut self, name: &str, value: &str) {
        self.env.retain(|(n, _)| n != name);
        self.env.push((name.to_owned(), value.to_owned()));
    }

    async fn start(&self) -> (Process, Api) {
        self.start_with(&[]).await
    }

    /// A user `ada` and the note, and no job that has not ended: failpoints of the next process are passed by the test alone.
    async fn settled(&self, more: impl AsyncFnOnce(&Api, &str)) -> String {
        let (mut process, api) = self.start().await;
        api.note().await;
        let user = api.user("ada", json!({})).await;
        more(&api, &user).await;
        wait_until("no job is left", async || {
            let idle = |q: &Value| ["queued", "scheduled", "running"].iter().all(|s| q[s] == 0);
            api.list("/api/v1/queues").await.iter().all(idle)
        })
        .await;
        process.kill();
        user
    }

    async fn start_with(&self, more: &[(&str, &str)]) -> (Process, Api) {
        let mut env: Vec<(&str, &str)> = self.env.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        env.extend_from_slice(more);
        let process = Process::start(self.dir.path(), &env).await;
        let api = Api::of(&process);
        (process, api)
    }
}

/// A client of one process.
#[derive(Clone)]
struct Api {
    http: Client,
    url: String,
}

impl Api {
    fn of(process: &Process) -> Self {
        Self { http: client(), url: process.url.clone() }
    }

    /// The status and the body; none if no whole answer came.
    async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Option<(u16, Value)> {
        let mut request = self.http.request(method, format!("{}{path}", self.url));
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await.ok()?;
        let status = answer.status().as_u16();
        let text = answer.text().await.ok()?;
        Some((status, serde_json::from_str(&text).unwrap_or(Value::String(text))))
    }

    #[track_caller]
    fn good(path: &str, answer: Option<(u16, Value)>) -> Value {
        match answer {
            Some((200..=299, body)) => body,
            other => panic!("{path}: {other:?}"),
        }
    }

    async fn get(&self, path: &str) -> Value {
        Self::good(path, self.call(Method::GET, path, None).await)
    }

    /// The entries of a list's first page.
    async fn list(&self, path: &str) -> Vec<Value> {
        self.get(path).await["data"].as_array().unwrap().clone()
    }

    async fn post(&self, path: &str, body: &Value) -> Value {
        Self::good(path, self.call(Method::POST, path, Some(body)).await)
    }

    async fn patch(&self, path: &str, body: &Value) -> Value {
        Self::good(path, self.call(Method::PATCH, path, Some(body)).await)
    }

    async fn delete(&self, path: &str) {
        Self::good(path, self.call(Method::DELETE, path, None).await);
    }

    /// The problem with which a request is refused.
    async fn refused(&self, path: &str, body: &Value, status: u16) -> Value {
        let answer = self.call(Method::POST, path, Some(body)).await.unwrap();
        assert_eq!(answer.0, status, "{path}: {answer:?}");
        answer.1
    }

    /// A user `NAME@example.net`; answers the id.
    async fn user(&self, name: &str, more: Value) -> String {
        let body = merged(json!({"email": format!("{name}@example.net"), "name": name}), more);
        id_of(&self.post("/api/v1/users", &body).await)
    }

    /// The template `note`, which says `word` by every channel.
    async fn note(&self) {
        let parts = json!({
            "email": {"subject": "About {{ word }}", "text": "It is {{ word }}."},
            "push": {"title": "{{ word }}", "body": "It is {{ word }}."},
            "webhook": "{\"word\": {{ word }}}", "console": "it is {{ word }}",
        });
        let body = json!({"code": "note", "parts": parts, "variables": [{"name": "word", "example": "w"}]});
        self.post("/api/v1/templates", &body).await;
    }

    /// Sends the note by a channel to a user; answers the notification's id.
    async fn send(&self, channel: &str, user: &str, more: Value) -> String {
        id_of(&self.post("/api/v1/notifications", &note_to(channel, user, more)).await)
    }

    /// Waits until a notification is in this status; answers it.
    async fn reaches(&self, id: &str, status: &str) -> Value {
        let path = format!("/api/v1/notifications/{id}");
        let mut last = Value::Null;
        let found = eventually(&format!("notification {id} is {status}"), async || {
            last = self.get(&path).await;
            let ended = !last["finished_at"].is_null();
            if ended && last["status"] != status {
                return Some(None);
            }
            (last["status"] == status).then(|| Some(last.clone()))
        })
        .await;
        found.unwrap_or_else(|| panic!("is not {status}: {last}"))
    }

    async fn trace(&self, id: &str) -> Value {
        self.get(&format!("/api/v1/notifications/{id}/trace")).await
    }

    /// What the process says of a counter.
    async fn counter(&self, line: &str) -> u64 {
        let (_, page) = self.call(Method::GET, "/metrics", None).await.unwrap();
        let page = page.as_str().unwrap().to_owned();
        page.lines().find_map(|l| l.strip_prefix(line)?.trim().parse().ok()).unwrap_or(0)
    }
}

/// The request for a note.
fn note_to(channel: &str, user: &str, more: Value) -> Value {
    let note = json!({
        "notification_type": channel, "user_id": user, "template_code": "note", "variables": {"word": "new"},
    });
    merged(note, more)
}

/// Tomorrow, as `send_at` of what a test sends when it likes.
fn tomorrow() -> String {
    Clock::system().now().plus(Duration::from_secs(86_400)).to_string()
}

fn merged(mut base: Value, more: Value) -> Value {
    for (name, value) in more.as_object().into_iter().flatten() {
        base[name] = value.clone();
    }
    base
}

fn id_of(body: &Value) -> String {
    body["id"].as_str().unwrap_or_else(|| panic!("has no id: {body}")).to_owned()
}

/// The steps of a decision, as `step outcome`.
fn steps(outlook: &Value) -> Vec<String> {
    let word = |s: &Value, field: &str| s[field].as_str().unwrap().to_owned();
    outlook["steps"].as_array().unwrap().iter().map(|s| word(s, "step") + " " + &word(s, "outcome")).collect()
}

#[derive(Default)]
struct Plan {
    next: VecDeque<(&'static str, Act)>,
    always: Option<(&'static str, Act)>,
}

/// A mail relay that does what is right, but for what a test wants otherwise.
struct Relay {
    fake: SmtpFake,
    plan: Arc<Mutex<Plan>>,
}

impl Relay {
    fn start() -> Self {
        let plan = Arc::new(Mutex::new(Plan::default()));
        let script = plan.clone();
        let fake = SmtpFake::start(move |at| {
            let mut plan: std::sync::MutexGuard<'_, Plan> = script.lock().unwrap();
            if plan.next.front().is_some_and(|(step, _)| *step == at.step) {
                return plan.next.pop_front().unwrap().1;
            }
            match &plan.always {
                Some((step, act)) if *step == at.step => act.clone(),
                _ => Act::Right,
            }
        });
        Self { fake, plan }
    }

    /// Does this once, when the dialogue comes to this step.
    fn next(&self, step: &'static str, act: Act) {
        self.plan.lock().unwrap().next.push_back((step, act));
    }

    /// Does this whenever a dialogue comes to this step, until told otherwise.
    fn always(&self, step: &'static str, act: Act) {
        self.plan.lock().unwrap().always = Some((step, act));
    }

    fn works(&self) {
        self.plan.lock().unwrap().always = None;
    }

    /// The mails of one notification that arrived whole.
    fn mails_of(&self, id: &str) -> Vec<String> {
        let mark = format!("Message-ID: <{id}@example.org>");
        self.fake.mails().into_iter().filter(|m| m.contains(&mark)).collect()
    }

    fn provider(&self) -> String {
        format!("smtp:127.0.0.1:{}", self.fake.port)
    }

    fn env(&self) -> [(&'static str, String); 5] {
        [
            ("APP__EMAIL__HOST", "127.0.0.1".to_owned()),
            ("APP__EMAIL__PORT", self.fake.port.to_string()),
            ("APP__EMAIL__TLS", "none".to_owned()),
            ("APP__EMAIL__FROM", "shop@example.org".to_owned()),
            ("APP__EMAIL__TIMEOUT", "5s".to_owned()),
        ]
    }
}

/// Settings under which receivers on loopback are called.
const LOOPBACK: [(&str, &str); 2] = [("APP__WEBHOOK__ALLOW_HTTP", "true"), ("APP__WEBHOOK__ALLOW_PRIVATE", "true")];
